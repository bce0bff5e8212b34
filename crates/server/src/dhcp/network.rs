//! The listeners of one network.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use dhcp::address_family::AddressFamily;
use dhcp::leases::{LeasePool, LeaseTable};
use dhcp::limits::RateLimits;
use dhcp::v4::destination::SERVER;
use dhcp::v4::proxy::PXE_PORT;
use netboot::network_plan::{NetworkResponders, PoolPlan};
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
use super::dhcp_socket::DhcpSocket;
use super::interface::ServedInterface;
use super::ipv6_link::Ipv6Link;
use super::journal::{Journal, look};
use super::listener::{DhcpListener, now_secs};
use super::observers::Observers;
use super::own_addresses::own_addresses;
use super::port;
use super::socket::{Socket4, Socket6};
use crate::config;

/// Interval of checking that the interface is still the same.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A served network, over IPv4, IPv6 or both.
#[derive(Debug)]
pub(super) struct NetworkListeners {
    v4: Option<DhcpListener<Socket4, V4Responder>>,
    /// Port 67.
    proxy: Option<DhcpListener<Socket4, ProxyResponder>>,
    /// Port 4011.
    pxe: Option<DhcpListener<Socket4, ProxyResponder>>,
    v6: Option<DhcpListener<Socket6, V6Responder>>,
    advertiser: Option<Advertiser>,
    /// The UDP ports of the service on the interface.
    ports: Vec<u16>,
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
        let own = own_addresses(settings)?;
        let (mut journals4, mut journals6) = (Vec::new(), Vec::new());
        let responders = NetworkResponders::plan(
            settings,
            &own,
            dhcp.lease_secs,
            || limits(dhcp),
            |name, pool| keep(&mut journals4, &state_dir.join(name), pool),
            |name, pool| keep(&mut journals6, &state_dir.join(name), pool),
        )?;
        let seen = ServedInterface::new(on, responders.addresses().collect())?;
        let NetworkResponders { v4, proxy, pxe, v6 } = responders;
        let v4 = v4.map(|responder| {
            let socket = Socket4::open(on, SERVER, responder.address())?;
            anyhow::Ok(DhcpListener::new(on, socket, responder, journals4))
        });
        let v4 = v4.transpose()?;
        let beside = |port, responder: Option<ProxyResponder>| {
            let listener = |responder: ProxyResponder| {
                let socket = Socket4::open(on, port, responder.address())?;
                anyhow::Ok(DhcpListener::new(on, socket, responder, Vec::new()))
            };
            responder.map(listener).transpose()
        };
        let (proxy, pxe) = (beside(SERVER, proxy)?, beside(PXE_PORT, pxe)?);
        let ports = settings.server_ports().collect();
        let mut network = Self { v4, proxy, pxe, v6: None, advertiser: None, ports, seen };
        if let Some((responder, pool)) = v6.zip(settings.pool6) {
            let link = Ipv6Link::of_pool(on, pool.0)?;
            if settings.advertise {
                let opened = Advertiser::open(&link, settings);
                network.advertiser =
                    Some(opened.with_context(|| format!("cannot advertise on {on}"))?);
            }
            let socket = Socket6::open(&link)?;
            network.v6 = Some(DhcpListener::new(on, socket, responder, journals6));
        }
        Ok(network)
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
        let advertise = async {
            if let Some(advertiser) = self.advertiser {
                advertiser.run(end).await;
            }
        };
        tokio::join!(
            watch,
            advertise,
            run(self.v4, sources, observers, end),
            run(self.proxy, sources, observers, end),
            run(self.pxe, sources, observers, end),
            run(self.v6, sources, observers, end),
        );
    }

    fn say(&self) {
        for port in &self.ports {
            if let Some(shared) = port::shared(self.seen.name(), *port) {
                warn!("{shared}");
            }
        }
        if let Some(v4) = &self.v4 {
            for LeasePool { first, last } in v4.responder().pools() {
                info!("answering DHCP on {}, addresses {first} to {last}", v4.interface());
            }
        }
        if let Some(proxy) = &self.proxy {
            info!("sending boot answers on {}, beside another DHCP server", proxy.interface());
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
    let own = own_addresses(settings)?;
    let responders = NetworkResponders::plan(
        settings,
        &own,
        dhcp.lease_secs,
        || limits(dhcp),
        |name, pool| look(&state_dir.join(name), pool, now_secs()),
        |name, pool| look(&state_dir.join(name), pool, now_secs()),
    )?;
    if !has_ports {
        if let Some(own4) = own.v4 {
            drop(Socket4::open(on, SERVER, own4.addr())?);
        }
        if let Some(pool) = settings.pool6 {
            let link = Ipv6Link::of_pool(on, pool.0)?;
            drop(Socket6::open(&link)?);
        }
    }
    Ok(responders.addresses().next())
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
