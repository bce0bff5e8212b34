//! All that answers on one network.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use dhcp::address_family::AddressFamily;
use dhcp::leases::{LeasePool, LeaseTable};
use dhcp::limits::Limits;
use dhcp::v4::destination::SERVER;
use dhcp::v4::proxy::ProxyPort;
use netboot::network_settings::NetworkSettings;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::advertise::Advertiser;
use super::counter::{Counter, Desk, Socket, now_secs};
use super::interface::Seen;
use super::journal::{Journal, PoolPlan, look};
use super::machines::Machines;
use super::socket::{self, Link, Socket4, Socket6};
use super::{Witness, plan, port, proxy, v4, v6};
use crate::config;

/// How often it is looked whether the interface is still the same.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One network that is answered on, over IPv4, IPv6 or both.
#[derive(Debug)]
pub(super) struct Network {
    v4: Option<Counter<Socket4, v4::Desk>>,
    /// Its ports 67 and 4011.
    proxy: Option<[Counter<Socket4, proxy::Desk>; 2]>,
    v6: Option<Counter<Socket6, v6::Desk>>,
    advertiser: Option<Advertiser>,
    seen: Seen,
}

impl Network {
    /// Takes its sockets, and its leases from `state_dir`.
    ///
    /// # Errors
    /// In words, where the interface is missing or has no address, a port is taken, or a journal
    /// cannot be written.
    pub(super) fn open(
        settings: &NetworkSettings,
        dhcp: &config::Dhcp,
        state_dir: &Path,
    ) -> Result<Self> {
        let on = settings.interface.as_str();
        let mut journals4 = Vec::new();
        let keeper = |name: &str, pool| keep(&mut journals4, &state_dir.join(name), pool);
        let v4 = match plan::desk4(settings, dhcp.lease_secs, limits(dhcp), keeper)? {
            Some(desk) => {
                let socket = Socket4::open(on, SERVER, desk.address())?;
                Some(Counter::new(on, socket, desk, journals4))
            }
            None => None,
        };
        let beside = |port, number| -> Result<_> {
            let desk = plan::beside(settings, dhcp.lease_secs, port, limits(dhcp))?;
            let counter = |desk: proxy::Desk| -> Result<_> {
                let socket = Socket4::open(on, number, desk.about().server)?;
                Ok(Counter::new(on, socket, desk, Vec::new()))
            };
            desk.map(counter).transpose()
        };
        let proxy = beside(ProxyPort::Dhcp, SERVER)?.zip(beside(ProxyPort::Pxe, socket::PXE)?);
        let mut journals6 = Vec::new();
        let keeper = |name: &str, pool| keep(&mut journals6, &state_dir.join(name), pool);
        let desk6 = plan::desk6(settings, dhcp.lease_secs, limits(dhcp), keeper)?;
        let (mut v6, mut advertiser) = (None, None);
        if let Some((desk, pool)) = desk6.zip(settings.pool6) {
            let link = Link::of_pool(on, pool.0)?;
            if settings.advertise {
                let opened = Advertiser::open(&link, settings);
                advertiser = Some(opened.with_context(|| format!("cannot advertise on {on}"))?);
            }
            v6 = Some(Counter::new(on, Socket6::open(&link)?, desk, journals6));
        }
        let own4 = v4.as_ref().map(|v4| v4.desk().address());
        let own4 = own4.or_else(|| proxy.as_ref().map(|(dhcp, _)| dhcp.desk().about().server));
        let own6 = v6.as_ref().map(|v6| v6.desk().address());
        let own = own4.map(IpAddr::from).into_iter().chain(own6.map(IpAddr::from)).collect();
        let seen = Seen::new(on, own)?;
        Ok(Self { v4, proxy: proxy.map(<[_; 2]>::from), v6, advertiser, seen })
    }

    /// Our address on it; the IPv4 one, if there is one.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.seen.addresses().first().copied()
    }

    /// Answers until `end`, or until the interface is not what it was.
    pub(super) async fn run(self, machines: &Machines, witness: &Witness, end: &CancellationToken) {
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
            run(self.v4, machines, witness, end),
            run(proxy, machines, witness, end),
            run(pxe, machines, witness, end),
            run(self.v6, machines, witness, end),
        );
    }

    fn say(&self) {
        let ports = [
            (SERVER, self.v4.is_some() || self.proxy.is_some()),
            (socket::PXE, self.proxy.is_some()),
            (socket::SERVER6, self.v6.is_some()),
        ];
        for (port, _) in ports.into_iter().filter(|(_, is_ours)| *is_ours) {
            if let Some(shared) = port::shared(self.seen.name(), port) {
                warn!("{shared}");
            }
        }
        if let Some(v4) = &self.v4 {
            for LeasePool { first, last } in v4.desk().pools() {
                info!("answering DHCP on {}, addresses {first} to {last}", v4.interface());
            }
        }
        if let Some([dhcp, _]) = &self.proxy {
            info!("saying on {} what to boot, beside another DHCP server", dhcp.interface());
        }
        if let Some(v6) = &self.v6 {
            for LeasePool { first, last } in v6.desk().pools() {
                info!("answering DHCPv6 on {}, addresses {first} to {last}", v6.interface());
            }
        }
    }
}

async fn run<S, D>(
    counter: Option<Counter<S, D>>,
    machines: &Machines,
    witness: &Witness,
    end: &CancellationToken,
) where
    D: Desk,
    S: Socket<From = D::From, Reply = D::Reply>,
{
    if let Some(counter) = counter {
        counter.run(machines, witness, end).await;
    }
}

/// Whether a network could be answered on; its leases are read, and left as they are. Gives our address on it.
///
/// # Errors
/// As [`Network::open`]; ports that this service has already (`has_ports`) are not tried.
pub(super) fn could_open(
    settings: &NetworkSettings,
    dhcp: &config::Dhcp,
    state_dir: &Path,
    has_ports: bool,
) -> Result<Option<IpAddr>> {
    let on = settings.interface.as_str();
    let keeper4 = |name: &str, pool| look_into(&state_dir.join(name), pool);
    let desk4 = plan::desk4(settings, dhcp.lease_secs, limits(dhcp), keeper4)?;
    let beside = plan::beside(settings, dhcp.lease_secs, ProxyPort::Dhcp, limits(dhcp))?;
    let keeper6 = |name: &str, pool| look_into(&state_dir.join(name), pool);
    let desk6 = plan::desk6(settings, dhcp.lease_secs, limits(dhcp), keeper6)?;
    let own4 = desk4.map(|desk| desk.address()).or_else(|| beside.map(|desk| desk.about().server));
    if !has_ports {
        if let Some(own4) = own4 {
            drop(Socket4::open(on, SERVER, own4)?);
        }
        if let Some(pool) = settings.pool6 {
            let link = Link::of_pool(on, pool.0)?;
            drop(Socket6::open(&link)?);
        }
    }
    Ok(own4.map(IpAddr::from).or_else(|| desk6.map(|desk| desk.address().into())))
}

fn look_into<A: AddressFamily>(path: &Path, pool: PoolPlan<A>) -> Result<LeaseTable<A>> {
    look(path, pool, now_secs())
        .with_context(|| format!("cannot read the leases in {}", path.display()))
}

/// Opens a journal, and keeps it.
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

/// Nobody has asked for anything yet.
fn limits(dhcp: &config::Dhcp) -> Limits {
    Limits::new(dhcp.limits.rates(), rand::random())
}
