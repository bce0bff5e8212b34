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
use dhcp::firmware;
use dhcp::v4::destination::{CLIENT, SERVER};
use dhcp::v4::{MessageType, Packet, options};
use dhcp::v6::advertisement::{Advertisement, solicitation};
use dhcp::v6::options as options6;
use dhcp::v6::packet as packet6;
use dhcp::v6::ports::{ALL_SERVERS, CLIENT_PORT, SERVER_PORT};
use hardware::architecture::{X64_HTTP, X64_PXE};
use hardware::{ClientArchitecture, ClientKind, Mac};
use netboot::dry_run::sample_requests::SampleRequest;
use netboot::network_check::dhcp_servers::{ProbeClient, SeenOffer, SeenServer6};
use netboot::network_check::routers::RouterAdvertisements;
use socket2::{Domain, Protocol, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use self::neighbours::{Incoming, mac_of};
use super::port;
use super::socket::{ALL_ROUTERS, Icmp6, Ipv6Link, LONGEST, on};

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
    let asked = whom.iter().flat_map(|mac| ASKED.map(|(to, _, _)| question(*mac, to)));
    let asked: Vec<_> = asked.collect();
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER).into();
    let mut found = BTreeSet::new();
    let mut heard = |bytes: &[u8], from: IpAddr| {
        let Ok(reply) = Packet::parse(bytes) else { return };
        if reply.message == MessageType::Offer && whom.contains(&reply.chaddr) {
            found.extend(offer(&reply, from));
        }
    };
    listen(&socket, incoming.as_ref(), &asked, to, &mut heard).await?;
    Ok(found)
}

const ASKED: [(ProbeClient, ClientKind, ClientArchitecture); 3] = [
    (ProbeClient::Http, ClientKind::HttpClient, X64_HTTP),
    (ProbeClient::Pxe, ClientKind::PxeClient, X64_PXE[0]),
    (ProbeClient::Ipxe, ClientKind::Ipxe, X64_PXE[0]),
];

/// The transaction ID (RFC 2131 §2) identifies the answered request.
const TRANSACTION: [u8; 3] = [0xfe, 0x88, 0xb0];

fn question(mac: Mac, to: ProbeClient) -> Vec<u8> {
    let (_, client, architecture) = ASKED[to as usize];
    let question = SampleRequest { mac, client, architecture: Some(architecture) };
    let mut bytes = question.v4();
    bytes[4..7].copy_from_slice(&TRANSACTION);
    bytes[7] = to as u8;
    bytes
}

/// The offer in a reply, if it answers one of the requests.
fn offer(reply: &Packet, from: IpAddr) -> Option<SeenOffer> {
    let [a, b, c, last] = reply.xid.to_be_bytes();
    let (to, _, _) = ASKED.get(usize::from(last)).filter(|_| [a, b, c] == TRANSACTION)?;
    let from = if let IpAddr::V4(from) = from { from } else { Ipv4Addr::UNSPECIFIED };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let file = reply.option(options::BOOT_FILE).unwrap_or(&reply.file);
    Some(SeenOffer {
        server: reply.option_address(options::SERVER_ID).unwrap_or(from),
        to: *to,
        address: Some(reply.yiaddr).filter(|address| !address.is_unspecified()),
        file: Some(text(file)).filter(|file| !file.is_empty()),
    })
}

/// The DHCPv6 servers that answer HTTP boot firmware of an unknown machine, or of one of `machines`.
///
/// # Errors
/// The interface is missing, or requests are not permitted.
pub async fn servers6(interface: &str, machines: &[Mac]) -> Result<BTreeSet<SeenServer6>> {
    let link = Ipv6Link::find(interface)?;
    let socket = asker(interface, IpAddr::V6(Ipv6Addr::UNSPECIFIED), CLIENT_PORT)?;
    let http = |mac: &Mac| {
        let architecture = Some(X64_HTTP);
        SampleRequest { mac: *mac, client: ClientKind::HttpClient, architecture }.v6()
    };
    let asked: Vec<_> = [nobodys()].iter().chain(machines).map(http).collect();
    let to = SocketAddrV6::new(ALL_SERVERS, SERVER_PORT, 0, link.index).into();
    let mut found = BTreeSet::new();
    let mut heard = |bytes: &[u8], from| {
        found.extend(asked.iter().find_map(|asked| server6(asked, bytes, from)));
    };
    listen(&socket, None, &asked, to, &mut heard).await?;
    Ok(found)
}

fn server6(asked: &[u8], bytes: &[u8], address: IpAddr) -> Option<SeenServer6> {
    let message = packet6::Packet::parse(bytes).ok()?.message;
    if message.kind != packet6::MessageType::Advertise || bytes.get(1..4) != asked.get(1..4) {
        return None;
    }
    let options = &message.options;
    let client = packet6::Packet::parse(asked).ok()?.message.options;
    if options.get(options6::CLIENT_ID) != client.get(options6::CLIENT_ID) {
        return None;
    }
    let url = options.get(options6::BOOT_FILE_URL);
    Some(SeenServer6 {
        address,
        duid: options.get(options6::SERVER_ID).unwrap_or_default().to_vec(),
        is_taken: firmware::v6::take_advertise(asked, bytes).is_ok(),
        gives: message.ias().find_map(|ia| ia.addresses.first().copied()),
        preference: options
            .get(options6::PREFERENCE)
            .and_then(|it| it.first())
            .copied()
            .unwrap_or(0),
        url: url.map(|url| String::from_utf8_lossy(url).into_owned()),
    })
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

#[cfg(test)]
mod tests {
    use dhcp::client::Client;
    use dhcp::v6::packet::{Message, Options};

    use super::*;

    const MAC: Mac = Mac([2; 6]);
    const THEM: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    #[test]
    fn each_sort_of_client_is_asked_as_and_its_offers_are_told_apart() {
        for (to, kind, _) in ASKED {
            let asked = Packet::parse(&question(MAC, to)).unwrap();
            let offered = Packet {
                message: MessageType::Offer,
                yiaddr: Ipv4Addr::new(192, 0, 2, 77),
                file: b"pxelinux.0\0\0".to_vec(),
                options: vec![(options::SERVER_ID, THEM.octets().to_vec())],
                ..asked.clone()
            };

            let found = offer(&offered, [192, 0, 2, 3].into()).unwrap();

            assert_eq!(Client::identify(&asked).kind, kind);
            assert_eq!((found.server, found.to), (THEM, to));
            assert_eq!(found.file.as_deref(), Some("pxelinux.0"));
            assert_eq!(offer(&Packet { xid: 7, ..offered }, THEM.into()), None);
        }
    }

    #[test]
    fn what_a_dhcpv6_server_would_do_to_firmware_is_read_from_its_answer() {
        let http = SampleRequest {
            mac: MAC,
            client: ClientKind::HttpClient,
            architecture: Some(X64_HTTP),
        };
        let asked = http.v6();
        let client = packet6::Packet::parse(&asked).unwrap().message.options;
        let address: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let inner = [&[0, 5, 0, 24][..], &address.octets(), &[0, 0, 14, 16, 0, 0, 14, 16]].concat();
        let answer = |ia: &[u8], transaction| {
            let options = Options(vec![
                (options6::CLIENT_ID, client.get(options6::CLIENT_ID).unwrap().to_vec()),
                (options6::SERVER_ID, vec![0, 3, 0, 1, 9]),
                (options6::IA_NA, [&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], ia].concat()),
                (options6::PREFERENCE, vec![255]),
            ]);
            let kind = packet6::MessageType::Advertise;
            let message = Message { kind, transaction, options };
            packet6::Packet { relays: Vec::new(), message }.emit()
        };
        let from = IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 2]);
        // NoAddrsAvail (RFC 8415 §21.13), inside the association.
        let none_left = [0, 13, 0, 2, 0, 2];

        let gives = server6(&asked, &answer(&inner, [0, 0, 1]), from).unwrap();
        let empty = server6(&asked, &answer(&[], [0, 0, 1]), from).unwrap();
        let refuses = server6(&asked, &answer(&none_left, [0, 0, 1]), from).unwrap();

        assert_eq!((gives.gives, gives.preference, gives.is_taken), (Some(address), 255, true));
        assert_eq!((empty.gives, empty.is_taken), (None, true));
        assert!(!refuses.is_taken);
        assert_eq!(server6(&asked, &answer(&inner, [9, 9, 9]), from), None);
        let another = SampleRequest { mac: Mac([3; 6]), ..http }.v6();
        assert_eq!(server6(&another, &answer(&inner, [0, 0, 1]), from), None, "it asked another");
    }
}
