//! Floods: strangers' traffic on every port, within limits.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};

use crate::links::{ADDRESS, FirmwareLink, message4, solicit};

/// More connections than the daemon's descriptors at the usual soft limit.
const CONNECTIONS: usize = 1_100;
/// Number of unfinished bodies.
const BODIES: usize = 200;
const PACKETS: usize = 20_000;
const TRANSFERS: usize = 2_000;

/// A flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flood {
    /// Silent connections to one port.
    SilentConnections(u16),
    /// Connections with half a request head.
    HalfHeads(u16),
    /// Connections with repeated requests for missing resources.
    KeptAlive(u16),
    /// Requests with endless bodies.
    HalfBodies(u16),
    /// DHCP packets, most of them damaged.
    Dhcp4,
    Dhcp6,
    /// TFTP transfers that are requested and abandoned.
    Tftp,
    /// Lookups of unknown MAC addresses, and heartbeats with long texts.
    FalseAgents,
}

impl Flood {
    const PORTS: [u16; 3] = [6385, 6386, 8080];

    pub(crate) fn any(random: &mut StdRng) -> Self {
        let port = *Self::PORTS.choose(random).expect("there are some");
        match random.random_range(0..8) {
            0 => Self::SilentConnections(port),
            1 => Self::HalfHeads(port),
            2 => Self::KeptAlive(port),
            3 => Self::HalfBodies(if port == 8080 { 6386 } else { port }),
            4 => Self::Dhcp4,
            5 => Self::Dhcp6,
            6 => Self::Tftp,
            _ => Self::FalseAgents,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SilentConnections(_) => "floods of silent connections",
            Self::HalfHeads(_) => "floods of unfinished heads",
            Self::KeptAlive(_) => "floods of connections that are kept",
            Self::HalfBodies(_) => "floods of unfinished bodies",
            Self::Dhcp4 => "floods of DHCPv4 packets",
            Self::Dhcp6 => "floods of DHCPv6 packets",
            Self::Tftp => "floods of TFTP requests",
            Self::FalseAgents => "floods of false lookups and heartbeats",
        }
    }

    /// Floods for `lasts`, from one address or from many.
    pub(crate) async fn run(self, mut random: StdRng, link: &FirmwareLink, lasts: Duration) {
        let until = Instant::now() + lasts;
        let many = random.random_bool(0.5);
        match self {
            Self::SilentConnections(port) => hold(port, many, CONNECTIONS, b"", until).await,
            Self::HalfHeads(port) => {
                hold(port, many, CONNECTIONS, b"GET / HTTP/1.1\r\nHost: x\r\n", until).await
            }
            Self::KeptAlive(port) => keep_alive(port, many, until).await,
            Self::HalfBodies(port) => {
                let path = if port == 6385 { "/v1/nodes" } else { "/v1/heartbeat/x" };
                let head = format!(
                    "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n\
                     X-OpenStack-Ironic-API-Version: 1.72\r\nContent-Length: 1000000\r\n\r\n"
                );
                let mut request = head.into_bytes();
                request.resize(request.len() + 900_000, b' ');
                hold(port, many, BODIES, &request, until).await;
            }
            Self::Dhcp4 => {
                for _ in 0..PACKETS {
                    let mut mac = [0; 6];
                    random.fill_bytes(&mut mac);
                    mac[0] &= 0xfe;
                    let kind = random.random_range(1..=8);
                    let mut packet =
                        message4(kind, random.random(), mac, random.random_bool(0.5), &[]);
                    damage(&mut packet, &mut random);
                    link.send4(&packet).await;
                    if Instant::now() >= until {
                        return;
                    }
                }
            }
            Self::Dhcp6 => {
                for _ in 0..PACKETS {
                    let mut packet = solicit(random.random(), random.random());
                    packet[0] = random.random_range(1..=13);
                    damage(&mut packet, &mut random);
                    link.send6(&packet).await;
                    if Instant::now() >= until {
                        return;
                    }
                }
            }
            Self::Tftp => transfers(many, until).await,
            Self::FalseAgents => false_agents(&mut random, many, until).await,
        }
    }
}

/// Most packets are slightly damaged, some truncated.
fn damage(packet: &mut Vec<u8>, random: &mut StdRng) {
    for _ in 0..random.random_range(0..4) {
        let at = random.random_range(0..packet.len());
        packet[at] = random.random();
    }
    if random.random_bool(0.2) {
        packet.truncate(random.random_range(0..packet.len()));
    }
}

/// The source address of a connection.
fn from(many: bool, number: usize) -> Ipv4Addr {
    let number = if many { u16::try_from(number % 2_000).unwrap_or_default() } else { 0 };
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, 66, high, low)
}

async fn connect(port: u16, many: bool, number: usize) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.bind(SocketAddr::from((from(many, number), 0))).ok()?;
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    timeout(Duration::from_secs(1), socket.connect(to)).await.ok()?.ok()
}

/// Opens connections, sends these bytes on each, and keeps them open.
async fn hold(port: u16, many: bool, connections: usize, say: &[u8], until: Instant) {
    let mut held = Vec::new();
    for number in 0..connections {
        if Instant::now() >= until {
            break;
        }
        if let Some(mut stream) = connect(port, many, number).await {
            // Does not wait for a peer that does not read.
            let _ = timeout(Duration::from_millis(200), stream.write_all(say)).await;
            held.push(stream);
        }
    }
    sleep(until.saturating_duration_since(Instant::now())).await;
}

async fn keep_alive(port: u16, many: bool, until: Instant) {
    let mut held = Vec::new();
    for number in 0..CONNECTIONS {
        if Instant::now() >= until {
            return;
        }
        held.extend(connect(port, many, number).await);
    }
    let mut buffer = [0; 4_096];
    while Instant::now() < until {
        for stream in &mut held {
            let asked = stream.write_all(b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
            let _ = timeout(Duration::from_millis(50), asked).await;
            let _ = timeout(Duration::from_millis(1), stream.read(&mut buffer)).await;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn transfers(many: bool, until: Instant) {
    let mut sockets = Vec::new();
    for number in 0..TRANSFERS {
        if Instant::now() >= until {
            break;
        }
        let address =
            if many { IpAddr::from(from(true, number)) } else { Ipv4Addr::UNSPECIFIED.into() };
        let Ok(socket) = UdpSocket::bind((address, 0)).await else { continue };
        let _ = socket.send_to(b"\0\x01snponly.efi\0octet\0", (ADDRESS, 69)).await;
        sockets.push(socket);
    }
    sleep(until.saturating_duration_since(Instant::now())).await;
}

async fn false_agents(random: &mut StdRng, many: bool, until: Instant) {
    let mut number = 0;
    while Instant::now() < until {
        number += 1;
        let Some(mut stream) = connect(6386, many, number).await else { continue };
        let request = if random.random_bool(0.5) {
            let macs: Vec<_> = (0..random.random_range(1..200))
                .map(|_| {
                    format!(
                        "52:54:00:aa:{:02x}:{:02x}",
                        random.random::<u8>(),
                        random.random::<u8>()
                    )
                })
                .collect();
            format!(
                "GET /v1/lookup?addresses={} HTTP/1.1\r\nHost: x\r\nX-OpenStack-Ironic-API-Version: 1.62\r\n\r\n",
                macs.join(",")
            )
        } else {
            let body = format!(
                "{{\"callback_url\": \"https://127.0.0.1:1\", \"agent_token\": \"{}\", \"agent_version\": \"{}\"}}",
                "t".repeat(40),
                "v".repeat(random.random_range(1..20_000))
            );
            format!(
                "POST /v1/heartbeat/soak-1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                 X-OpenStack-Ironic-API-Version: 1.72\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let _ = timeout(Duration::from_secs(1), stream.write_all(request.as_bytes())).await;
        let mut buffer = [0; 1_024];
        let _ = timeout(Duration::from_secs(1), stream.read(&mut buffer)).await;
    }
}
