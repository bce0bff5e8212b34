//! DHCP: what comes in on a network, what is decided about it, and what goes out.
//!
//! Packet → node (in memory) → [`provision::boot_for`] → the `dhcp` crate's `decide` is the desk's
//! (`v4`, `v6`, `proxy`), which touches nothing outside of memory; journal → socket → trace is the
//! counter's (`counter`). Nothing here waits for the store.

mod addresses;
mod advertise;
mod counter;
mod diary;
mod frames;
mod heard;
pub mod interface;
mod journal;
mod machines;
pub mod metrics;
mod network;
mod plan;
pub mod port;
mod proxy;
mod questions;
mod rehearsal;
mod repeats;
mod socket;
mod strangers;
pub mod survey;
pub mod tftp;
mod v4;
mod v6;

pub(crate) use self::addresses::unusable;
pub use self::machines::Machines;
pub use self::rehearsal::{BootStage, Captured, Explained, Known, Place, Rehearsal};
pub use self::strangers::BootingStrangers;

use std::net::IpAddr;
use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result};
use futures::future::join_all;
use netboot::network_settings::NetworkSettings;
use nodes::Recorder;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::metrics::DhcpMetrics;
use self::network::Network;
use crate::config;

/// DHCP on all networks, on a thread of its own: whatever else the daemon does, an answer does not
/// wait for it.
#[derive(Debug)]
pub struct Service {
    addresses: Vec<IpAddr>,
    begin: oneshot::Sender<Duty>,
    ended: oneshot::Receiver<()>,
}

/// Who hears of what was decided.
#[derive(Clone, Debug)]
pub struct Witness {
    /// Hears of every exchange of a boot.
    pub recorder: Recorder,
    /// Counts every message.
    pub metrics: DhcpMetrics,
    /// Remembers who asked for a boot and is nobody's port.
    pub strangers: BootingStrangers,
}

/// Answers about these machines, until the end.
#[derive(Debug)]
struct Duty {
    machines: Machines,
    witness: Witness,
    end: CancellationToken,
}

impl Service {
    /// Takes the sockets of all networks, and their leases from `state_dir`. Nothing is answered yet.
    ///
    /// # Errors
    /// In words, where an interface is missing or has no address, a port is taken, or a journal
    /// cannot be written.
    pub async fn open(dhcp: &config::Dhcp, state_dir: &Path) -> Result<Self> {
        let (opened, open) = oneshot::channel();
        let (begin, begun) = oneshot::channel();
        let (done, ended) = oneshot::channel();
        let (dhcp, state_dir) = (dhcp.clone(), state_dir.to_owned());
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let serve = move || {
            runtime.block_on(serve(&dhcp, &state_dir, opened, begun));
            done.send(()).ok();
        };
        thread::Builder::new().name("dhcp".to_owned()).spawn(serve)?;
        let addresses = open.await.context("DHCP ended before it began")??;
        Ok(Self { addresses, begin, ended })
    }

    /// Whether a network could be answered on, and our address on it. Nothing is written, and ports that this
    /// service has already (`has_ports`) are not tried.
    ///
    /// # Errors
    /// As [`Service::open`].
    pub(crate) fn could_open(
        dhcp: &config::Dhcp,
        network: &NetworkSettings,
        state_dir: &Path,
        has_ports: bool,
    ) -> Result<Option<IpAddr>> {
        network::could_open(network, dhcp, state_dir, has_ports)
    }

    /// Our address on each network; the IPv4 one, if there is one.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Answers until `end`.
    ///
    /// # Errors
    /// It ended before that.
    pub async fn run(
        self,
        machines: Machines,
        witness: Witness,
        end: CancellationToken,
    ) -> Result<()> {
        // A thread that does not take it has ended, which is heard below.
        self.begin.send(Duty { machines, witness, end }).ok();
        self.ended.await.context("DHCP ended by itself")
    }
}

/// What the thread does: it opens all networks, says so, and answers once it is told about what.
async fn serve(
    dhcp: &config::Dhcp,
    state_dir: &Path,
    opened: oneshot::Sender<Result<Vec<IpAddr>>>,
    begun: oneshot::Receiver<Duty>,
) {
    let networks = dhcp.networks.iter();
    let networks = networks.map(|network| Network::open(network, dhcp, state_dir));
    let networks = match networks.collect::<Result<Vec<_>>>() {
        Ok(networks) => networks,
        Err(error) => return drop(opened.send(Err(error))),
    };
    let addresses = networks.iter().filter_map(Network::address).collect();
    // Whoever opened it may be gone, and then there is no duty either.
    opened.send(Ok(addresses)).ok();
    let Ok(Duty { machines, witness, end }) = begun.await else { return };
    let open = |network| move || Network::open(network, dhcp, state_dir);
    let each = dhcp.networks.iter().zip(networks);
    let each = each.map(|(settings, opened)| {
        attend(&settings.interface, opened, open(settings), &machines, &witness, &end)
    });
    // Where there are none, it has not ended by itself.
    tokio::join!(join_all(each), end.cancelled());
}

/// Answers on a network until `end`, and begins anew whenever its interface has become another.
async fn attend(
    interface: &str,
    mut network: Network,
    open: impl Fn() -> Result<Network>,
    machines: &Machines,
    witness: &Witness,
    end: &CancellationToken,
) {
    loop {
        network.run(machines, witness, end).await;
        let mut missed = None;
        network = loop {
            if end.is_cancelled() {
                return;
            }
            match open() {
                Ok(network) => break network,
                Err(error) => {
                    let why = format!("{error:#}");
                    if missed.as_ref() != Some(&why) {
                        warn!("DHCP waits for {interface}: {why}");
                        missed = Some(why);
                    }
                }
            }
            tokio::select! {
                () = sleep(socket::AFTER_ERROR) => {}
                () = end.cancelled() => return,
            }
        };
        info!("{interface} is not what it was, and is answered on anew");
    }
}
