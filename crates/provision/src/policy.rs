//! Settings of the service that affect transitions.

use jiff::SignedDuration;

/// Settings of the service that affect transitions.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Whether `provide` and `deleted` clean first (Ironic's `[conductor]automated_clean`, on by default).
    pub automated_clean: bool,
    /// The priority of `bios.enable_http_boot` in automated cleans, which run it first; 0 leaves it out (Ironic's
    /// `[conductor]clean_step_priority_override`).
    pub enable_http_boot_priority: u32,
    /// Silence in `clean wait` after which a clean fails (Ironic's `[conductor]clean_callback_timeout`, 1800 s).
    pub clean_callback_timeout: SignedDuration,
    /// Time in `wait call-back` after which a deployment fails (Ironic's `[conductor]deploy_callback_timeout`, 1800
    /// s).
    pub deploy_callback_timeout: SignedDuration,
}

impl Policy {
    pub(crate) fn clean_patience(&self) -> SignedDuration {
        self.clean_callback_timeout
    }

    pub(crate) fn deploy_patience(&self) -> SignedDuration {
        self.deploy_callback_timeout
    }
}

impl Default for Policy {
    fn default() -> Self {
        let half_an_hour = SignedDuration::from_secs(1_800);
        Self {
            automated_clean: true,
            enable_http_boot_priority: 0,
            clean_callback_timeout: half_an_hour,
            deploy_callback_timeout: half_an_hour,
        }
    }
}
