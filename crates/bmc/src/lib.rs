//! A Redfish BMC in front of QEMU machines.
//!
//! [`redfish::emulator`] decides the answers and the changes of machines; this crate listens, and applies those
//! changes. A boot override with a URL becomes a boot entry in the machine's UEFI variables, so that its firmware
//! performs one real HTTP boot.

pub mod config;
mod firmware;
mod listener;
mod machine;
mod qemu;
mod setup;

use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use redfish::emulator::Emulator;
use tokio::net::TcpListener;
use tracing::info;

pub use config::BmcConfig;
use setup::BmcClock;

/// Serves until `end`, or until its socket fails. Its machines end with it.
///
/// # Errors
/// The configuration names missing files or programs, or the address is in use.
pub async fn serve(
    config: BmcConfig,
    end: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    config.check()?;
    let mut emulator = Emulator::new(&config.username, &config.password);
    for machine in &config.machines {
        let macs: Vec<_> = machine.nics.iter().map(|nic| nic.mac.to_string()).collect();
        emulator.add_system(&machine.id, &macs, machine.platform);
    }
    emulator.set_faults(config.faults.clone());
    let emulator = Arc::new(Mutex::new(emulator));
    let clock = BmcClock::start();
    let machines = machine::start_all(&config, &emulator, clock)?;
    let socket = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listening on {}", config.listen))?;
    let address = socket.local_addr()?;
    for machine in &config.machines {
        let path = machine.platform.system_path(&machine.id);
        info!(system = machine.id, "http://{address}{path}");
    }
    info!("ready: {} machines behind http://{address}/redfish/v1/", config.machines.len());
    axum::serve(socket, listener::router(emulator, machines, clock))
        .with_graceful_shutdown(end)
        .await
        .context("serving Redfish")
}
