//! A Redfish BMC in front of QEMU machines.
//!
//! [`redfish::emulator`] decides the answers and the changes of machines; this crate listens, and applies those
//! changes. A boot override with a URL becomes a boot entry in the machine's UEFI variables, so that its firmware
//! performs one real HTTP boot.

mod bmc_service;
mod certificate;
pub mod config;
mod firmware;
mod image;
mod listener;
mod logins;
mod machine;
mod private;
mod qemu;
mod recordings;
mod setup;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use redfish::emulator::EmulatedFault;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::{info, warn};

use self::bmc_service::{BmcService, CommonParts, TreeCache};
use self::certificate::Validity;
pub use self::config::BmcConfig;
use self::config::MachineConfig;
use self::setup::BmcClock;

/// Serves until `end`. Its machines end with it.
///
/// # Errors
/// The configuration names missing files or programs, or an address is in use.
pub async fn serve(
    config: BmcConfig,
    end: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    config.check()?;
    private::make_folder(&config.state_dir)
        .with_context(|| format!("making the folder {}", config.state_dir.display()))?;
    if let Err(failed) = listener::raise_open_files() {
        warn!("the number of open files stays as it is: {failed}");
    }
    let mut common = CommonParts {
        users: logins::users(&config)?,
        trees: TreeCache::default(),
        clock: BmcClock::start(),
    };
    let mut bmcs = JoinSet::new();
    let mut count = 0;
    for unit in bmc_units(&config) {
        let service = BmcService::start(&config, &unit.machines, unit.number, &mut common)?;
        let tls = certificate::acceptor(&config, unit.validity(&config))?;
        let socket = TcpListener::bind(unit.listen)
            .await
            .with_context(|| format!("listening on {}", unit.listen))?;
        unit.report(socket.local_addr()?, tls.is_some());
        bmcs.spawn(listener::serve(socket, Arc::new(service), tls));
        count += 1;
    }
    info!("ready: {count} BMCs");
    end.await;
    Ok(())
}

/// A BMC to start: its address, and the machines behind it.
struct BmcUnit<'a> {
    listen: SocketAddr,
    machines: Vec<&'a MachineConfig>,
    /// The position among the BMCs of the same machine.
    number: u16,
}

impl BmcUnit<'_> {
    fn validity(&self, config: &BmcConfig) -> Validity {
        let own = self.machines.iter().flat_map(|machine| &machine.faults);
        let expired = config
            .faults
            .iter()
            .chain(own)
            .any(|rule| rule.fault == EmulatedFault::CertificateExpired);
        if expired { Validity::Expired } else { Validity::Valid }
    }

    fn report(&self, address: SocketAddr, has_tls: bool) {
        let scheme = if has_tls { "https" } else { "http" };
        if !has_tls && !address.ip().is_loopback() && self.number == 0 {
            warn!("{address} is reached from other hosts without TLS: passwords can be read there");
        }
        for machine in &self.machines {
            let path = machine.platform.system_path(&machine.id);
            let path = if machine.tree.is_some() { "/redfish/v1" } else { &path };
            info!(system = machine.id, "{scheme}://{address}{path}");
        }
    }
}

/// The BMCs: one for the machines without an address of their own, and one for each other.
fn bmc_units(config: &BmcConfig) -> Vec<BmcUnit<'_>> {
    let (own, shared): (Vec<_>, Vec<_>) =
        config.machines.iter().partition(|machine| machine.listen.is_some());
    let mut units = Vec::new();
    if !shared.is_empty() {
        units.push(BmcUnit { listen: config.listen, machines: shared, number: 0 });
    }
    for machine in own {
        let Some(first) = machine.listen else { continue };
        for number in 0..machine.count {
            let port = match first.port() {
                // Any free one.
                0 => 0,
                port => port.saturating_add(number),
            };
            let listen = SocketAddr::new(first.ip(), port);
            units.push(BmcUnit { listen, machines: vec![machine], number });
        }
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_share_a_bmc_or_have_their_own() {
        let config: BmcConfig = toml::from_str(
            "state_dir = '/tmp/x'\n[[machine]]\nid = 'a'\n[[machine]]\nid = 'b'\n\
             [[machine]]\nid = 'c'\nlisten = '127.0.0.1:9000'\ncount = 3\n",
        )
        .unwrap();

        let units = bmc_units(&config);

        let seen: Vec<_> = units
            .iter()
            .map(|unit| (unit.listen.port(), unit.machines.len(), unit.number))
            .collect();
        assert_eq!(seen, [(8000, 2, 0), (9000, 1, 0), (9001, 1, 1), (9002, 1, 2)]);
    }
}
