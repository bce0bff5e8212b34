//! DHCP on the sockets of this host: packets are received, journalled and sent. What is answered is
//! [`netboot::respond`]'s decision. Nothing here waits for the store.

mod addresses;
mod advertise;
mod boot_sources;
mod dry_run;
mod exchange_log;
mod frames;
pub mod interface;
mod journal;
mod listener;
pub mod metrics;
mod network;
pub mod port;
pub mod probe;
mod responders;
mod socket;
mod strangers;
pub mod tftp;

pub(crate) use self::addresses::unusable;
pub use self::boot_sources::{BootSources, IndexView};
pub use self::dry_run::DryRun;
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
use self::network::NetworkListeners;
use crate::config;

/// DHCP on all networks, on a thread of its own: whatever else the daemon does, an answer does not
/// wait for it.
#[derive(Debug)]
pub struct Service {
    addresses: Vec<IpAddr>,
    begin: oneshot::Sender<Duty>,
    ended: oneshot::Receiver<()>,
}

/// Who is told of each exchange.
#[derive(Clone, Debug)]
pub struct Observers {
    /// Records the exchanges of boots.
    pub recorder: Recorder,
    /// Counts every message.
    pub metrics: DhcpMetrics,
    /// Remembers who asked for a boot and is no port of any node.
    pub strangers: BootingStrangers,
}

/// What answers are made of, who is told of them, and when it ends.
#[derive(Debug)]
struct Duty {
    sources: BootSources,
    observers: Observers,
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
        sources: BootSources,
        observers: Observers,
        end: CancellationToken,
    ) -> Result<()> {
        // A thread that does not take it has ended, which is heard below.
        self.begin.send(Duty { sources, observers, end }).ok();
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
    let networks = networks.map(|network| NetworkListeners::open(network, dhcp, state_dir));
    let networks = match networks.collect::<Result<Vec<_>>>() {
        Ok(networks) => networks,
        Err(error) => return drop(opened.send(Err(error))),
    };
    let addresses = networks.iter().filter_map(NetworkListeners::address).collect();
    // Whoever opened it may be gone, and then there is no duty either.
    opened.send(Ok(addresses)).ok();
    let Ok(Duty { sources, observers, end }) = begun.await else { return };
    let open = |network| move || NetworkListeners::open(network, dhcp, state_dir);
    let each = dhcp.networks.iter().zip(networks);
    let each = each.map(|(settings, opened)| {
        attend(&settings.interface, opened, open(settings), &sources, &observers, &end)
    });
    // Where there are none, it has not ended by itself.
    tokio::join!(join_all(each), end.cancelled());
}

/// Answers on a network until `end`, and begins anew whenever its interface has become another.
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
        info!("{interface} is not what it was, and is answered on anew");
    }
}
