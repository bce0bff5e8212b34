//! The listeners of one network.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use dhcp::address_family::AddressFamily;
use dhcp::leases::{LeasePool, LeaseTable};
use dhcp::limits::RateLimits;
use dhcp::v4::destination::SERVER;
use dhcp::v4::proxy::{PXE_PORT, ProxyPort};
use dhcp::v6::ports::SERVER_PORT;
use netboot::network_plan::PoolPlan;
use netboot::network_settings::NetworkSettings;
use netboot::proxy::ProxyResponder;
use netboot::respond::Responder;
use netboot::v4::V4Responder;
use netboot::v6::V6Responder;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::advertise::Advertiser;
use super::boot_sources::BootSources;
use super::interface::ServedInterface;
use super::journal::{Journal, look};
use super::listener::{DhcpListener, DhcpSocket, now_secs};
use super::socket::{Ipv6Link, Socket4, Socket6};
use super::{Observers, port, responders};
use crate::config;

/// Interval of checking that the interface is still the same.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A served network, over IPv4, IPv6 or both.
#[derive(Debug)]
pub(super) struct NetworkListeners {
    v4: Option<DhcpListener<Socket4, V4Responder>>,
    /// Ports 67 and 4011.
    proxy: Option<[DhcpListener<Socket4, ProxyResponder>; 2]>,
    v6: Option<DhcpListener<Socket6, V6Responder>>,
    advertiser: Option<Advertiser>,
    seen: ServedInterface,
}

impl NetworkListeners {
    /// Opens its sockets, and its leases in `state_dir`.
    ///
    /// # Errors
    /// The interface is missing or has no address, a port is taken, or a journal cannot be written.
    pub(super) fn open(
        settings: &NetworkSettings,
        dhcp: &config::DhcpConfig,
        state_dir: &Path,
    ) -> Result<Self> {
        let on = settings.interface.as_str();
        let mut journals4 = Vec::new();
        let open_leases = |name: &str, pool| keep(&mut journals4, &state_dir.join(name), pool);
        let v4 =
            match responders::v4_responder(settings, dhcp.lease_secs, limits(dhcp), open_leases)? {
                Some(responder) => {
                    let socket = Socket4::open(on, SERVER, responder.address())?;
                    Some(DhcpListener::new(on, socket, responder, journals4))
                }
                None => None,
            };
        let beside = |port, number| -> Result<_> {
            let responder =
                responders::proxy_responder(settings, dhcp.lease_secs, port, limits(dhcp))?;
            let listener = |responder: ProxyResponder| -> Result<_> {
                let socket = Socket4::open(on, number, responder.address())?;
                Ok(DhcpListener::new(on, socket, responder, Vec::new()))
            };
            responder.map(listener).transpose()
        };
        let proxy = beside(ProxyPort::Dhcp, SERVER)?.zip(beside(ProxyPort::Pxe, PXE_PORT)?);
        let mut journals6 = Vec::new();
        let open_leases = |name: &str, pool| keep(&mut journals6, &state_dir.join(name), pool);
        let responder6 =
            responders::v6_responder(settings, dhcp.lease_secs, limits(dhcp), open_leases)?;
        let (mut v6, mut advertiser) = (None, None);
        if let Some((responder, pool)) = responder6.zip(settings.pool6) {
            let link = Ipv6Link::of_pool(on, pool.0)?;
            if settings.advertise {
                let opened = Advertiser::open(&link, settings);
                advertiser = Some(opened.with_context(|| format!("cannot advertise on {on}"))?);
            }
            v6 = Some(DhcpListener::new(on, Socket6::open(&link)?, responder, journals6));
        }
        let own4 = v4.as_ref().map(|v4| v4.responder().address());
        let own4 = own4.or_else(|| proxy.as_ref().map(|(dhcp, _)| dhcp.responder().address()));
        let own6 = v6.as_ref().map(|v6| v6.responder().address());
        let own = own4.map(IpAddr::from).into_iter().chain(own6.map(IpAddr::from)).collect();
        let seen = ServedInterface::new(on, own)?;
        Ok(Self { v4, proxy: proxy.map(<[_; 2]>::from), v6, advertiser, seen })
    }

    /// The service's address on it; IPv4 if there is one.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.seen.addresses().first().copied()
    }

    /// Answers until `end`, or until the interface was replaced.
    pub(super) async fn run(
        self,
        sources: &BootSources,
        observers: &Observers,
        end: &CancellationToken,
    ) {
        self.say();
        let seen = self.seen.clone();
        let over = end.child_token();
        let end = &over;
        let watch = async {
            let mut look = interval(LOOK_EVERY);
            while !seen.is_over() {
                tokio::select! {
                    _ = look.tick() => {}
                    () = end.cancelled() => break,
                }
            }
            end.cancel();
        };
        let (proxy, pxe) = self.proxy.map(|[proxy, pxe]| (proxy, pxe)).unzip();
        let advertise = async {
            if let Some(advertiser) = self.advertiser {
                advertiser.run(end).await;
            }
        };
        tokio::join!(
            watch,
            advertise,
            run(self.v4, sources, observers, end),
            run(proxy, sources, observers, end),
            run(pxe, sources, observers, end),
            run(self.v6, sources, observers, end),
        );
    }

    fn say(&self) {
        let ports = [
            (SERVER, self.v4.is_some() || self.proxy.is_some()),
            (PXE_PORT, self.proxy.is_some()),
            (SERVER_PORT, self.v6.is_some()),
        ];
        for (port, _) in ports.into_iter().filter(|(_, is_ours)| *is_ours) {
            if let Some(shared) = port::shared(self.seen.name(), port) {
                warn!("{shared}");
            }
        }
        if let Some(v4) = &self.v4 {
            for LeasePool { first, last } in v4.responder().pools() {
                info!("answering DHCP on {}, addresses {first} to {last}", v4.interface());
            }
        }
        if let Some([dhcp, _]) = &self.proxy {
            info!("sending boot answers on {}, beside another DHCP server", dhcp.interface());
        }
        if let Some(v6) = &self.v6 {
            for LeasePool { first, last } in v6.responder().pools() {
                info!("answering DHCPv6 on {}, addresses {first} to {last}", v6.interface());
            }
        }
    }
}

async fn run<S, R>(
    listener: Option<DhcpListener<S, R>>,
    sources: &BootSources,
    observers: &Observers,
    end: &CancellationToken,
) where
    R: Responder,
    S: DhcpSocket<Arrival = R::Arrival, Reply = R::Reply>,
{
    if let Some(listener) = listener {
        listener.run(sources, observers, end).await;
    }
}

/// Checks that a network could be served; its leases are read, and not changed. Returns the service's address on it.
///
/// # Errors
/// As in [`NetworkListeners::open`]; ports that this service already has (`has_ports`) are not tried.
pub(super) fn could_open(
    settings: &NetworkSettings,
    dhcp: &config::DhcpConfig,
    state_dir: &Path,
    has_ports: bool,
) -> Result<Option<IpAddr>> {
    let on = settings.interface.as_str();
    let open_leases4 = |name: &str, pool| look_into(&state_dir.join(name), pool);
    let responder4 =
        responders::v4_responder(settings, dhcp.lease_secs, limits(dhcp), open_leases4)?;
    let beside =
        responders::proxy_responder(settings, dhcp.lease_secs, ProxyPort::Dhcp, limits(dhcp))?;
    let open_leases6 = |name: &str, pool| look_into(&state_dir.join(name), pool);
    let responder6 =
        responders::v6_responder(settings, dhcp.lease_secs, limits(dhcp), open_leases6)?;
    let own4 = responder4
        .map(|responder| responder.address())
        .or_else(|| beside.map(|responder| responder.address()));
    if !has_ports {
        if let Some(own4) = own4 {
            drop(Socket4::open(on, SERVER, own4)?);
        }
        if let Some(pool) = settings.pool6 {
            let link = Ipv6Link::of_pool(on, pool.0)?;
            drop(Socket6::open(&link)?);
        }
    }
    Ok(own4.map(IpAddr::from).or_else(|| responder6.map(|responder| responder.address().into())))
}

fn look_into<A: AddressFamily>(path: &Path, pool: PoolPlan<A>) -> Result<LeaseTable<A>> {
    look(path, pool, now_secs())
        .with_context(|| format!("cannot read the leases in {}", path.display()))
}

/// Opens a journal and keeps it.
fn keep<A: AddressFamily>(
    journals: &mut Vec<Journal<A>>,
    path: &Path,
    pool: PoolPlan<A>,
) -> Result<LeaseTable<A>> {
    let opened = Journal::open(path, pool, now_secs());
    let (journal, leases) =
        opened.with_context(|| format!("cannot keep leases in {}", path.display()))?;
    journals.push(journal);
    Ok(leases)
}

/// Unused limits.
fn limits(dhcp: &config::DhcpConfig) -> RateLimits {
    RateLimits::new(dhcp.limits.rates(), rand::random())
}
