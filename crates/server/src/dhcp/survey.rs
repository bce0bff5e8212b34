//! Who else is on a network: asked as a machine asks that is switched on, and heard for some seconds.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

use anyhow::{Context as _, Result};
use dhcp::architecture::Architecture;
use dhcp::client::Kind;
use dhcp::v4::destination::{CLIENT, SERVER};
use dhcp::v4::{MessageType, Packet, options};
use dhcp::v6::advertisement::{Advertisement, solicitation};
use dhcp::v6::options as options6;
use dhcp::v6::packet as packet6;
use provision::Mac;
use provision::architecture::X64_HTTP;
use socket2::{Domain, Protocol, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::questions::Question;
use super::socket::{ALL_ROUTERS, CLIENT6, Icmp6, LONGEST, Link, SERVER6, SERVERS6, on};

/// How long to listen. Servers that look first whether an address is free take a second or two, and
/// routers half a second (RFC 4861 §6.2.6).
const LISTEN: Duration = Duration::from_secs(4);
/// When to ask a second time.
const AGAIN: Duration = Duration::from_secs(2);

/// A DHCPv4 server's offer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offer {
    /// Whose it is.
    pub server: Ipv4Addr,
    /// Whether to HTTP boot firmware (else to PXE firmware).
    pub to_http: bool,
    /// The address that it offers; none from a ProxyDHCP server.
    pub address: Option<Ipv4Addr>,
    /// What it names to boot.
    pub file: Option<String>,
}

/// A router that advertises itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Router {
    /// Its address.
    pub address: Ipv6Addr,
    /// Whether it tells machines to ask DHCPv6 for addresses (the M flag).
    pub managed: bool,
}

/// The offers that HTTP boot and PXE firmware of no known machine get.
///
/// # Errors
/// The interface is missing, or may not be asked on.
pub async fn offers(interface: &str) -> Result<BTreeSet<Offer>> {
    let socket = asker(interface, IpAddr::V4(Ipv4Addr::UNSPECIFIED), CLIENT)?;
    socket.set_broadcast(true)?;
    let mac = nobodys();
    let http =
        Question { mac, client: Kind::HttpClient, architecture: Some(Architecture(X64_HTTP)) };
    let pxe = Question { mac, client: Kind::PxeClient, architecture: Some(Architecture(7)) };
    let asked = [(http.v4(), 0), (pxe.v4(), 1)].map(|(mut bytes, last)| {
        // The transaction (RFC 2131 §2) tells what is answered.
        bytes[4..8].copy_from_slice(&[0xfe, 0x88, 0xb0, last]);
        bytes
    });
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER).into();
    let mut found = BTreeSet::new();
    listen(&socket, &asked, to, |bytes, from| {
        let Ok(reply) = Packet::parse(bytes) else { return };
        if reply.message == MessageType::Offer && reply.chaddr == mac.0 {
            found.insert(offer(&reply, from));
        }
    })
    .await?;
    Ok(found)
}

fn offer(reply: &Packet, from: IpAddr) -> Offer {
    let from = if let IpAddr::V4(from) = from { from } else { Ipv4Addr::UNSPECIFIED };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let file = reply.option(options::BOOT_FILE).unwrap_or(&reply.file);
    Offer {
        server: reply.option_address(options::SERVER_ID).unwrap_or(from),
        to_http: reply.xid & 0xff == 0,
        address: Some(reply.yiaddr).filter(|address| !address.is_unspecified()),
        file: Some(text(file)).filter(|file| !file.is_empty()),
    }
}

/// The DHCPv6 servers that answer HTTP boot firmware of no known machine: their addresses and unique
/// identifiers.
///
/// # Errors
/// The interface is missing, or may not be asked on.
pub async fn servers6(interface: &str) -> Result<BTreeSet<(IpAddr, Vec<u8>)>> {
    let link = Link::find(interface)?;
    let socket = asker(interface, IpAddr::V6(Ipv6Addr::UNSPECIFIED), CLIENT6)?;
    let mac = nobodys();
    let http =
        Question { mac, client: Kind::HttpClient, architecture: Some(Architecture(X64_HTTP)) };
    let to = SocketAddrV6::new(SERVERS6, SERVER6, 0, link.index).into();
    let mut found = BTreeSet::new();
    listen(&socket, &[http.v6()], to, |bytes, from| {
        let Ok(reply) = packet6::Packet::parse(bytes) else { return };
        if reply.message.kind == packet6::MessageType::Advertise {
            let duid = reply.message.options.get(options6::SERVER_ID).unwrap_or_default();
            found.insert((from, duid.to_vec()));
        }
    })
    .await?;
    Ok(found)
}

/// Our DHCPv6 identifier on an interface, by which we know our own answers.
///
/// # Errors
/// The interface is missing.
pub fn own_duid(interface: &str) -> Result<Vec<u8>> {
    Ok(Link::find(interface)?.duid())
}

/// The routers that answer a solicitation.
///
/// # Errors
/// The interface is missing, or may not be asked on.
pub async fn routers(interface: &str) -> Result<BTreeSet<Router>> {
    let link = Link::find(interface)?;
    let icmp = Icmp6::open(&link).context("cannot solicit routers")?;
    let to = SocketAddr::V6(SocketAddrV6::new(ALL_ROUTERS, 0, 0, link.index));
    icmp.send(&solicitation(link.mac), to).await?;
    let mut found = BTreeSet::new();
    let end = Instant::now() + LISTEN;
    while let Ok(received) = timeout_at(end, icmp.receive()).await {
        let (bytes, hops, address) = received?;
        if let Ok(advertised) = Advertisement::parse(&bytes, hops, address) {
            found.insert(Router { address, managed: advertised.managed });
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
    open().with_context(|| format!("cannot ask on {interface} from UDP port {port}"))
}

async fn listen(
    socket: &UdpSocket,
    asked: &[Vec<u8>],
    to: SocketAddr,
    mut heard: impl FnMut(&[u8], IpAddr),
) -> Result<()> {
    let begun = Instant::now();
    let mut buffer = [0; LONGEST];
    for end in [begun + AGAIN, begun + LISTEN] {
        for bytes in asked {
            socket.send_to(bytes, to).await.context("cannot ask")?;
        }
        while let Ok(received) = timeout_at(end, socket.recv_from(&mut buffer)).await {
            let (len, from) = received?;
            heard(&buffer[..len], from.ip());
        }
    }
    Ok(())
}

/// An address that no card has (locally administered).
fn nobodys() -> Mac {
    let [a, b, c, d, e] = rand::random();
    Mac([0x02, a, b, c, d, e])
}
