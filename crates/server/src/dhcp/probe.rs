//! A probe for other servers on a network: requests of a machine that is switched on, and the answers of some
//! seconds.

pub mod names;
mod neighbours;

pub use self::neighbours::{has_neighbours, leased, neighbours};

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use dhcp::v4::destination::{CLIENT, SERVER};
use dhcp::v6::advertisement::{Advertisement, solicitation};
use dhcp::v6::ports::{ALL_SERVERS, CLIENT_PORT, SERVER_PORT};
use hardware::Mac;
use netboot::network_check::dhcp_servers::{SeenOffer, SeenServer6};
use netboot::network_check::probe_messages::{offer, requests4, requests6, server6};
use netboot::network_check::routers::RouterAdvertisements;
use socket2::{Domain, Protocol, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use self::neighbours::{Incoming, mac_of};
use super::ipv6_link::Ipv6Link;
use super::port;
use super::socket::{ALL_ROUTERS, Icmp6, LONGEST, on};

/// Time to listen. Servers that probe an address first take a second or two; routers answer within half a second, but
/// at the earliest three seconds after their last answer (RFC 4861 §6.2.6).
const LISTEN: Duration = Duration::from_millis(5_500);
/// Interval of repetitions (RFC 4861 §6.3.7 has three solicitations, four seconds apart).
const AGAIN: Duration = Duration::from_secs(2);

/// The offers to HTTP boot firmware, PXE firmware and iPXE: of an unknown machine, of this host itself, and of
/// `machines`.
///
/// # Errors
/// The interface is missing, or requests are not permitted.
pub async fn offers(interface: &str, machines: &[Mac]) -> Result<BTreeSet<SeenOffer>> {
    let socket = asker(interface, IpAddr::V4(Ipv4Addr::UNSPECIFIED), CLIENT)?;
    socket.set_broadcast(true)?;
    // Servers that never broadcast send answers for an invented address past this host's UDP sockets.
    let incoming = Incoming::open(interface, neighbours::IPV4).ok();
    let own = mac_of(interface);
    let whom: Vec<_> = [nobodys()].into_iter().chain(own).chain(machines.iter().copied()).collect();
    let asked = requests4(&whom);
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER).into();
    let mut found = BTreeSet::new();
    let mut heard = |bytes: &[u8], from| found.extend(offer(&whom, bytes, from));
    listen(&socket, incoming.as_ref(), &asked, to, &mut heard).await?;
    Ok(found)
}

/// The DHCPv6 servers that answer HTTP boot firmware of an unknown machine, or of one of `machines`.
///
/// # Errors
/// The interface is missing, or requests are not permitted.
pub async fn servers6(interface: &str, machines: &[Mac]) -> Result<BTreeSet<SeenServer6>> {
    let link = Ipv6Link::find(interface)?;
    let socket = asker(interface, IpAddr::V6(Ipv6Addr::UNSPECIFIED), CLIENT_PORT)?;
    let machines: Vec<_> = [nobodys()].iter().chain(machines).copied().collect();
    let asked = requests6(&machines);
    let to = SocketAddrV6::new(ALL_SERVERS, SERVER_PORT, 0, link.index).into();
    let mut found = BTreeSet::new();
    let mut heard = |bytes: &[u8], from| found.extend(server6(&asked, bytes, from));
    listen(&socket, None, &asked, to, &mut heard).await?;
    Ok(found)
}

/// The service's DUID on an interface, which identifies its own answers.
///
/// # Errors
/// The interface is missing.
pub fn own_duid(interface: &str) -> Result<Vec<u8>> {
    Ok(Ipv6Link::find(interface)?.duid())
}

/// The routers that answer solicitations, or send unsolicited advertisements meanwhile.
///
/// # Errors
/// The interface is missing, or requests are not permitted.
pub async fn routers(interface: &str) -> Result<RouterAdvertisements> {
    let link = Ipv6Link::find(interface)?;
    let icmp = Icmp6::open(&link).map_err(|error| port::cannot_ask(interface, 0, error))?;
    let to = SocketAddr::V6(SocketAddrV6::new(ALL_ROUTERS, 0, 0, link.index));
    let mut found = RouterAdvertisements::new();
    for end in ends(Instant::now()) {
        icmp.send(&solicitation(link.mac), to).await.map_err(|error| unsent(interface, &error))?;
        while let Ok(received) = timeout_at(end, icmp.receive()).await {
            let (bytes, hops, address) = received?;
            if let Ok(advertised) = Advertisement::parse(&bytes, hops, address) {
                found.insert(address, advertised);
            }
        }
    }
    Ok(found)
}

fn asker(interface: &str, address: IpAddr, port: u16) -> Result<UdpSocket> {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let open = || -> io::Result<UdpSocket> {
        let socket = on(interface, domain, Type::DGRAM, Protocol::UDP)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&SocketAddr::new(address, port).into())?;
        UdpSocket::from_std(socket.into())
    };
    open().map_err(|error| port::cannot_ask(interface, port, error))
}

async fn listen(
    socket: &UdpSocket,
    incoming: Option<&Incoming>,
    asked: &[Vec<u8>],
    to: SocketAddr,
    heard: &mut impl FnMut(&[u8], IpAddr),
) -> Result<()> {
    let mut buffer = [0; LONGEST];
    for end in ends(Instant::now()) {
        for bytes in asked {
            socket.send_to(bytes, to).await.context("cannot ask")?;
        }
        loop {
            tokio::select! {
                received = socket.recv_from(&mut buffer) => {
                    let (len, from) = received?;
                    heard(&buffer[..len], from.ip());
                }
                received = when(incoming, Incoming::datagram) => {
                    if let Some((from, bytes)) = received? {
                        heard(&bytes, from.into());
                    }
                }
                () = tokio::time::sleep_until(end) => break,
            }
        }
    }
    Ok(())
}

/// Waits; forever if there is nothing to wait for.
async fn when<'a, T, F: Future>(what: Option<&'a T>, wait: impl FnOnce(&'a T) -> F) -> F::Output {
    match what {
        Some(what) => wait(what).await,
        None => std::future::pending().await,
    }
}

/// The times of the repetitions, and of the end.
fn ends(begun: Instant) -> [Instant; 3] {
    [begun + AGAIN, begun + 2 * AGAIN, begun + LISTEN]
}

fn unsent(interface: &str, error: &io::Error) -> anyhow::Error {
    anyhow!(
        "cannot ask on {interface} ({error}): its link-local IPv6 address is missing or not ready; \
         `ip -6 address show dev {interface}` shows it"
    )
}

/// A MAC address that no card has (locally administered).
fn nobodys() -> Mac {
    let [a, b, c, d, e] = rand::random();
    Mac([0x02, a, b, c, d, e])
}
