//! Numbers of connections of the ports, which leave enough file descriptors for the rest of the daemon.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{info, warn};

/// Number of connections of each port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortShares {
    /// Of the API.
    pub api: usize,
    /// Of the port for agents.
    pub agents: usize,
    /// Of the boot listener.
    pub boot: usize,
}

/// Descriptors for databases, DHCP, TFTP, images and calls to BMCs.
const OWN_DESCRIPTORS: u64 = 256;

impl PortShares {
    /// Divides `connections`, or the number that `descriptors` allow: half of them for the boot listener, where a
    /// machine holds a connection for as long as it fetches, and a quarter for each other port.
    #[must_use]
    pub fn divide(connections: usize, descriptors: u64) -> Self {
        let own = (descriptors / 4).max(OWN_DESCRIPTORS).min(descriptors.div_ceil(2));
        let left = usize::try_from(descriptors - own).unwrap_or(usize::MAX);
        let all = connections.min(left).max(4);
        let quarter = all / 4;
        Self { api: quarter, agents: quarter, boot: all - 2 * quarter }
    }

    /// The sum of all ports.
    #[must_use]
    pub fn all(self) -> usize {
        self.api + self.agents + self.boot
    }

    /// Raises the soft limit of open files to the hard limit, and divides the rest. Logs if that is less than
    /// `connections`.
    #[must_use]
    pub fn of_this_process(connections: usize) -> Self {
        let descriptors = raise_open_files();
        let shares = Self::divide(connections, descriptors);
        if shares.all() < connections {
            info!(
                "serving {} connections at once: {descriptors} files may be open (ulimit -n, LimitNOFILE=)",
                shares.all()
            );
        }
        shares
    }
}

/// The limit of open files after raising it as far as possible without privileges.
fn raise_open_files() -> u64 {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => {
            warn!("cannot read the limit of open files: {error}");
            return 1024;
        }
    };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            warn!(
                "no more than {soft} files may be open, since the limit cannot be raised: {error}"
            );
            soft
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_usual_limit_of_open_files_leaves_each_port_its_share() {
        assert_eq!(PortShares::divide(4096, 1024), PortShares { api: 192, agents: 192, boot: 384 });
        let much = PortShares { api: 1024, agents: 1024, boot: 2048 };
        assert_eq!(PortShares::divide(4096, 524_288), much);
    }

    proptest! {
        #[test]
        fn no_port_is_without_connections_and_none_takes_what_the_daemon_needs(
            connections in 4..100_000_usize, descriptors in 0..2_000_000_u64,
        ) {
            let shares = PortShares::divide(connections, descriptors);

            prop_assert!(shares.api > 0 && shares.agents > 0 && shares.boot > 0);
            prop_assert!(shares.all() <= connections);
            prop_assert!(shares.all() as u64 <= (descriptors / 2).max(descriptors.saturating_sub(256)).max(4));
        }
    }
}
