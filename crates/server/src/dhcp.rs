//! DHCP on this host's sockets: packets are received, journalled and sent. [`netboot::respond`] decides the answers.
//! Nothing here waits for the store.

mod addresses;
mod advertise;
mod boot_sources;
mod dhcp_socket;
mod dry_run;
mod exchange_log;
mod frames;
pub mod interface;
mod ipv6_link;
mod journal;
mod listener;
pub mod metrics;
mod network;
mod observers;
mod own_addresses;
pub mod port;
pub mod probe;
mod socket;
mod strangers;
pub mod tftp;

pub(crate) use self::addresses::unusable;
pub use self::boot_sources::{BootSources, IndexView};
pub use self::dry_run::DryRun;
pub use self::observers::Observers;
pub use self::strangers::BootingStrangers;

use std::net::IpAddr;
use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result};
use futures::future::join_all;
use netboot::network_settings::NetworkSettings;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::network::NetworkListeners;
use crate::config;

/// DHCP on all networks, on a separate thread: no answer waits for other parts of the daemon.
#[derive(Debug)]
pub struct DhcpThread {
    addresses: Vec<IpAddr>,
    begin: oneshot::Sender<Duty>,
    ended: oneshot::Receiver<()>,
}

/// The inputs of answers, the observers, and the end.
#[derive(Debug)]
struct Duty {
    sources: BootSources,
    observers: Observers,
    end: CancellationToken,
}

impl DhcpThread {
    /// Opens the sockets of all networks, and their leases in `state_dir`. Nothing is answered yet.
    ///
    /// # Errors
    /// An interface is missing or has no address, a port is taken, or a journal cannot be written.
    pub async fn open(dhcp: &config::DhcpConfig, state_dir: &Path) -> Result<Self> {
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

    /// Checks that a network could be served, and returns the service's address on it. Nothing is written, and ports
    /// that this service already has (`has_ports`) are not tried.
    ///
    /// # Errors
    /// As [`DhcpThread::open`].
    pub(crate) fn could_open(
        dhcp: &config::DhcpConfig,
        network: &NetworkSettings,
        state_dir: &Path,
        has_ports: bool,
    ) -> Result<Option<IpAddr>> {
        network::could_open(network, dhcp, state_dir, has_ports)
    }

    /// The service's address on each network; IPv4 if there is one.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Answers until `end`.
    ///
    /// # Errors
    /// The thread ended before that.
    pub async fn run(
        self,
        sources: BootSources,
        observers: Observers,
        end: CancellationToken,
    ) -> Result<()> {
        // If the thread has ended, the error is reported below.
        self.begin.send(Duty { sources, observers, end }).ok();
        self.ended.await.context("DHCP ended by itself")
    }
}

/// The main function of the thread: opens all networks, reports the result, and answers once it gets its duty.
async fn serve(
    dhcp: &config::DhcpConfig,
    state_dir: &Path,
    opened: oneshot::Sender<Result<Vec<IpAddr>>>,
    begun: oneshot::Receiver<Duty>,
) {
    let networks = dhcp.networks.iter();
    let networks = networks.map(|network| NetworkListeners::open(network, dhcp, state_dir));
    let networks = match networks.collect::<Result<Vec<_>>>() {
        Ok(networks) => networks,
        Err(error) => return drop(opened.send(Err(error))),
    };
    let addresses = networks.iter().filter_map(NetworkListeners::address).collect();
    // If the opener is gone, no duty follows.
    opened.send(Ok(addresses)).ok();
    let Ok(Duty { sources, observers, end }) = begun.await else { return };
    let open = |network| move || NetworkListeners::open(network, dhcp, state_dir);
    let each = dhcp.networks.iter().zip(networks);
    let each = each.map(|(settings, opened)| {
        attend(&settings.interface, opened, open(settings), &sources, &observers, &end)
    });
    // Without networks, it must not end by itself.
    tokio::join!(join_all(each), end.cancelled());
}

/// Answers on a network until `end`, and starts again whenever its interface was replaced.
async fn attend(
    interface: &str,
    mut network: NetworkListeners,
    open: impl Fn() -> Result<NetworkListeners>,
    sources: &BootSources,
    observers: &Observers,
    end: &CancellationToken,
) {
    loop {
        network.run(sources, observers, end).await;
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
        info!("{interface} was replaced, and is served again");
    }
}
