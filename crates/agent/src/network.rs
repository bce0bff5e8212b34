//! From bare cards to a configured network: finds the link that answers, and keeps its lease.

pub mod links;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dhcp::v4::client::{Lease, LeaseClient};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, interval_at, sleep_until};
use tracing::{debug, info, warn};

use self::links::{Link, Wanted};

/// Without an address by then, the cables are wrong or the server is down, and somebody should be told.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often links are looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How often a link without a carrier is set up again.
const RAISE: Duration = Duration::from_secs(2);

/// How often somebody at the console is told what we wait for.
const TELL: Duration = Duration::from_secs(15);

/// A network that works.
#[derive(Debug)]
pub struct Network {
    /// Our address.
    pub address: Ipv4Addr,
    /// Time servers that the lease names.
    pub ntp: Vec<Ipv4Addr>,
    bound: Bound,
}

/// A link with a lease.
#[derive(Debug)]
struct Bound {
    link: Link,
    lease: Lease,
    client: LeaseClient,
    socket: UdpSocket,
    clock: Instant,
}

/// Brings the machine onto the network, by the wanted link or else by the first one that answers.
///
/// # Errors
///
/// When nobody answers on any link, with what was seen of each.
pub async fn up(wanted: &Wanted) -> Result<Network> {
    let (connection, handle, _) = rtnetlink::new_connection().context("opening rtnetlink")?;
    tokio::spawn(connection);
    set_up(&handle, 1).await.context("setting up the loopback")?;

    let bound = first_answer(&handle, wanted).await?;
    configure(&handle, &bound).await?;
    Ok(Network { address: bound.lease.address, ntp: bound.lease.ntp.clone(), bound })
}

impl Network {
    /// Keeps the lease for as long as the agent lives.
    ///
    /// # Errors
    ///
    /// When the server gives us another address: everything that knows the old one starts over.
    pub async fn keep(self) -> Result<Infallible> {
        let Bound { link, lease, mut client, socket, clock } = self.bound;
        loop {
            let renewed = exchange(&mut client, &socket, clock).await.context("renewing")?;
            if renewed.address != lease.address {
                bail!("{} has a new address, {}", link.name, renewed.address);
            }
        }
    }
}

async fn first_answer(handle: &Handle, wanted: &Wanted) -> Result<Bound> {
    let started = Instant::now();
    let mut look = interval(LOOK);
    let mut tell = interval_at(started + TELL, TELL);
    let mut raised = BTreeMap::new();
    let mut asked = BTreeSet::new();
    let mut asking = JoinSet::new();
    loop {
        tokio::select! {
            _ = look.tick() => {}
            _ = tell.tick() => info!("no address yet: {}", seen(&links::present())),
            Some(answer) = asking.join_next() => match answer.context("asking for an address")? {
                (_, Ok(bound)) => return Ok(bound),
                (name, Err(error)) => {
                    warn!("asking for an address on {name}: {error:#}");
                    asked.remove(&name);
                }
            },
        }
        let links = links::present();
        for link in &links {
            raise(handle, link, &mut raised).await;
        }
        for link in wanted.candidates(&links, started.elapsed()) {
            if asked.insert(link.name.clone()) {
                info!("asking for an address on {}", link.name);
                let link = link.clone();
                asking.spawn(async move { (link.name.clone(), ask(link).await) });
            }
        }
        if started.elapsed() > PATIENCE {
            bail!("no address after {} s: {}", PATIENCE.as_secs(), seen(&links));
        }
    }
}

/// Sets a link up, and for as long as it has no carrier now and then again.
async fn raise(handle: &Handle, link: &Link, raised: &mut BTreeMap<String, Instant>) {
    let Link { name, mac, .. } = link;
    match raised.get(name) {
        None => info!("found network card {name} ({mac})"),
        Some(last) if last.elapsed() < RAISE => return,
        Some(_) => {}
    }
    raised.insert(name.clone(), Instant::now());
    if link.carrier {
        return;
    }
    if let Err(error) = set_up(handle, link.index).await {
        // Some drivers refuse until their firmware runs.
        debug!("{name} does not come up yet: {error:#}");
    }
}

/// What somebody at the console wants to know.
fn seen(links: &[Link]) -> String {
    let words = |link: &Link| match link.carrier {
        true => format!("nobody answered on {} ({})", link.name, link.mac),
        false => format!("{} ({}) has no carrier", link.name, link.mac),
    };
    match links {
        [] => "there is no network card that this ramdisk has a driver for".to_owned(),
        links => links.iter().map(words).collect::<Vec<_>>().join(", "),
    }
}

async fn ask(link: Link) -> Result<Bound> {
    let name = &link.name;
    let socket = socket(name).with_context(|| format!("opening a socket on {name}"))?;
    let clock = Instant::now();
    let mut client = LeaseClient::new(link.mac.0, rand::random(), 0);
    let lease = exchange(&mut client, &socket, clock).await?;
    Ok(Bound { link, lease, client, socket, clock })
}

/// Sends and receives until there is a new lease.
async fn exchange(client: &mut LeaseClient, socket: &UdpSocket, clock: Instant) -> Result<Lease> {
    const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::BROADCAST, 67);
    let now = || u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut packet = vec![0; 1500];
    loop {
        tokio::select! {
            () = sleep_until(clock + Duration::from_millis(client.wake())) => {
                if let Some(packet) = client.due(now()) {
                    // A link that is just coming up may refuse; the client sends again by itself.
                    let _ = socket.send_to(&packet, SERVER).await;
                }
            }
            received = socket.recv(&mut packet) => {
                let len = received.context("receiving")?;
                if client.receive(&packet[..len], now()) && let Some(lease) = client.lease() {
                    return Ok(lease.clone());
                }
            }
        }
    }
}

fn socket(link: &str) -> Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(link.as_bytes()))?;
    socket.bind(&SockAddr::from(std::net::SocketAddr::from((Ipv4Addr::UNSPECIFIED, 68))))?;
    Ok(UdpSocket::from_std(socket.into())?)
}

async fn set_up(handle: &Handle, index: u32) -> Result<(), rtnetlink::Error> {
    handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await
}

/// Gives the link what the lease says: MTU, address, routes; and name servers to the resolver.
async fn configure(handle: &Handle, bound: &Bound) -> Result<()> {
    let Bound { link, lease, .. } = bound;
    let Link { name, index, .. } = link;
    if let Some(mtu) = lease.mtu {
        let message = LinkUnspec::new_with_index(*index).mtu(mtu.into());
        if let Err(error) = handle.link().set(message.build()).execute().await {
            warn!("{name} keeps its MTU, it does not take {mtu}: {error}");
        }
    }
    // An agent before this one may have left the same.
    let address = handle.address().add(*index, lease.address.into(), lease.prefix).replace();
    address.execute().await.with_context(|| format!("giving {name} its address"))?;
    for (destination, prefix, router) in routes(lease) {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(destination, prefix)
            .output_interface(*index);
        // RFC 3442: no router means that the destination is on the link.
        let route = if router.is_unspecified() { route } else { route.gateway(router).onlink() };
        let added = handle.route().add(route.build()).replace().execute().await;
        added.with_context(|| format!("adding the route to {destination}/{prefix}"))?;
    }
    name_servers(&lease.dns)?;
    let Lease { address, prefix, server, .. } = lease;
    info!("{name} has address {address}/{prefix} from {server}");
    Ok(())
}

/// RFC 3442: classless routes replace the router option.
fn routes(lease: &Lease) -> Vec<(Ipv4Addr, u8, Ipv4Addr)> {
    if !lease.routes.is_empty() {
        return lease.routes.clone();
    }
    lease.router.map(|router| (Ipv4Addr::UNSPECIFIED, 0, router)).into_iter().collect()
}

fn name_servers(servers: &[Ipv4Addr]) -> Result<()> {
    let lines: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    fs::create_dir_all("/etc").context("creating /etc")?;
    fs::write("/etc/resolv.conf", lines).context("writing /etc/resolv.conf")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mac::Mac;

    #[test]
    fn classless_routes_replace_the_router() {
        let router = Ipv4Addr::new(10, 0, 0, 1);
        let other = (Ipv4Addr::new(10, 9, 0, 0), 16, Ipv4Addr::new(10, 0, 0, 2));
        let lease = |routes| Lease {
            address: Ipv4Addr::new(10, 0, 0, 5),
            prefix: 24,
            router: Some(router),
            routes,
            dns: Vec::new(),
            ntp: Vec::new(),
            mtu: None,
            server: router,
            secs: 600,
        };

        assert_eq!(routes(&lease(vec![])), [(Ipv4Addr::UNSPECIFIED, 0, router)]);
        assert_eq!(routes(&lease(vec![other])), [other]);
    }

    #[test]
    fn whoever_stands_at_the_machine_is_told_what_was_seen() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let link = |name: &str, carrier| Link { name: name.to_owned(), index: 1, mac, carrier };

        assert_eq!(
            seen(&[link("eth0", false), link("eth1", true)]),
            "eth0 (02:00:00:00:00:01) has no carrier, nobody answered on eth1 (02:00:00:00:00:01)"
        );
        assert!(seen(&[]).contains("no network card"));
    }
}
