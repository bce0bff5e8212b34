//! The findings about a boot from the virtual CD drive of a BMC.

use hardware::ClientKind;
use jiff::SignedDuration;

/// The reads of a virtual CD drive.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DriveReads {
    /// Whether the image of the boot is in the drive.
    pub(super) is_used: bool,
    /// Whether the BMC has read any of it.
    pub(super) has_begun: bool,
    /// Number of bytes that were read since the machine was switched on.
    pub(super) since_power_on: u64,
}

/// The finding about a machine that has not started its system from the drive.
#[derive(Clone, Debug)]
pub(super) struct DriveFinding {
    /// Whether the self-test of a healthy machine may explain it.
    pub(super) may_be_self_test: bool,
    pub(super) text: String,
    pub(super) hint: &'static str,
}

impl DriveReads {
    /// The finding after `quiet` without progress; `client` is the last one that asked DHCP.
    pub(super) fn finding(self, client: Option<ClientKind>, quiet: SignedDuration) -> DriveFinding {
        let seconds = quiet.as_secs();
        if self.since_power_on > 0 {
            return DriveFinding {
                may_be_self_test: false,
                text: format!(
                    "the machine read {} bytes of its virtual CD, and nothing followed for {seconds} s",
                    self.since_power_on
                ),
                hint: "the loader did not start or did not continue: Secure Boot may refuse it, or the BMC lost its \
                       connection to the image; look at the machine's console",
            };
        }
        if let Some(client @ (ClientKind::HttpClient | ClientKind::PxeClient)) = client {
            return DriveFinding {
                may_be_self_test: false,
                text: format!(
                    "the machine did not boot from its virtual CD: {client} asked for an address"
                ),
                hint: "see on the BMC's own page whether the image is inserted, and in the machine's set-up whether \
                       booting from USB or CD is allowed",
            };
        }
        let (text, hint) = if self.has_begun {
            (
                format!(
                    "the BMC read the start of the image, and the machine has read nothing since it was switched on \
                     ({seconds} s)"
                ),
                "large servers test themselves for minutes; then look at the machine's console: it may boot from \
                 another device",
            )
        } else {
            (
                format!(
                    "the BMC took the URL of the image, and has read nothing of it ({seconds} s)"
                ),
                "check that the BMC's network reaches the URL (external_http_url in driver_info, url in [boot]), \
                 and that virtual media is licensed and switched on in the BMC",
            )
        };
        DriveFinding { may_be_self_test: true, text, hint }
    }
}
