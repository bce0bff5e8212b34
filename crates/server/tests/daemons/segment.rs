//! A network segment of a test: two daemons and a client have an interface each on one bridge, in a network namespace.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use dhcp::v4::packet::Op;
use dhcp::{v4, v6};
use hardware::Mac;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::Runtime;

/// Set in the child process, which runs in a separate network namespace.
const INSIDE: &str = "FERROBOOT_TEST_SEGMENT";
/// The waiting time for expected answers; unexpected ones get less.
const LISTEN: Duration = Duration::from_secs(10);
const SETTLE: Duration = Duration::from_millis(700);
/// The network cards of the daemons and of the client.
const CARDS: [(&str, Mac); 3] = [
    ("one", Mac([0x52, 0x54, 0, 0, 0x99, 0xf1])),
    ("two", Mac([0x52, 0x54, 0, 0, 0x99, 0xf2])),
    ("client", MACHINE),
];

/// The addresses of the first daemon and of the second one.
pub(super) const DAEMONS4: [Ipv4Addr; 2] =
    [Ipv4Addr::new(10, 99, 0, 1), Ipv4Addr::new(10, 99, 0, 2)];
/// The machines that share the client's interface.
pub(super) const MACHINE: Mac = Mac([0x52, 0x54, 0, 0, 0x99, 1]);
pub(super) const OTHER_MACHINE: Mac = Mac([0x52, 0x54, 0, 0, 0x99, 2]);

/// Runs `test` with an interface each for two daemons and a client on one segment: `one`, `two` and `client`. The
/// test called `name` is started once more as a child process for this.
///
/// Without permission for network namespaces nothing is tested, and a message says so.
pub(super) fn on_a_segment(name: &str, test: impl AsyncFnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        connect();
        return Runtime::new().unwrap().block_on(test());
    }
    let Some(mut unshare) = unshare() else {
        eprintln!("{name}: not tested, since neither root nor a user may have a network here");
        return;
    };
    let this = std::env::current_exe().unwrap();
    let status = unshare.arg(this).args(["--exact", name, "--nocapture"]).env(INSIDE, "1").status();
    assert!(status.unwrap().success(), "{name} failed in its namespace");
}

/// `unshare` with the options that work here.
fn unshare() -> Option<Command> {
    [&["--net"][..], &["--net", "--map-root-user"]].into_iter().find_map(|options| {
        let mut tried = Command::new("unshare");
        let tried = tried.args(options).args(["ip", "link", "add", "type", "veth"]);
        let works = tried.output().is_ok_and(|tried| tried.status.success());
        let mut unshare = Command::new("unshare");
        unshare.args(options);
        works.then_some(unshare)
    })
}

fn connect() {
    ip("link set lo up");
    ip("link add segment type bridge");
    ip("link set segment up");
    // Link-local addresses are used at once.
    fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
    for (card, mac) in CARDS {
        ip(&format!("link add {card} address {mac} type veth peer name to-{card}"));
        ip(&format!("link set to-{card} master segment up"));
        ip(&format!("link set {card} up"));
    }
    for ((card, _), address) in CARDS.iter().zip(DAEMONS4) {
        ip(&format!("address add {address}/24 dev {card}"));
        ip(&format!("address add fd99::{}/64 dev {card} nodad", address.octets()[3]));
    }
    ip(&format!("address add {}/64 dev client nodad", link_local(OTHER_MACHINE)));
    // Client and servers are in one namespace, so each receives packets from a local address.
    fs::write("/proc/sys/net/ipv4/conf/all/accept_local", "1").unwrap();
}

pub(super) fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// The link-local address of a card (RFC 4291, appendix A).
pub(super) fn link_local(Mac([a, b, c, d, e, f]): Mac) -> Ipv6Addr {
    let [a, f, rest] = [[a ^ 2, b], [e, f], [c, d]].map(u16::from_be_bytes);
    let [c, d] = rest.to_be_bytes().map(u16::from);
    Ipv6Addr::new(0xfe80, 0, 0, 0, a, c << 8 | 0xff, 0xfe00 | d, f)
}

/// The link-local addresses of the daemons, which they answer from.
pub(super) fn daemons6() -> [Ipv6Addr; 2] {
    [CARDS[0].1, CARDS[1].1].map(link_local)
}

/// A DHCPv4 client that broadcasts everything, so that every server receives it.
pub(super) struct Client4(UdpSocket);

impl Client4 {
    pub(super) fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
        socket.set_broadcast(true).unwrap();
        socket.bind_device(Some(b"client")).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 68)).into()).unwrap();
        Self(socket.into())
    }

    /// The answers of all servers, at least the expected number if they arrive.
    pub(super) fn hears(&self, request: &v4::Packet, expected: usize) -> Vec<v4::Packet> {
        self.0.send_to(&request.emit(), (Ipv4Addr::BROADCAST, 67)).unwrap();
        hear(&self.0, expected, |bytes, _| {
            let reply = v4::Packet::parse(bytes).unwrap();
            ((reply.op, reply.xid) == (Op::Reply, request.xid)).then_some(reply)
        })
    }
}

/// A DHCPv6 client on the card of a machine.
pub(super) struct Client6(UdpSocket, u32);

impl Client6 {
    pub(super) fn new(machine: Mac) -> Self {
        let index = if_nametoindex("client").unwrap();
        let own = SocketAddrV6::new(link_local(machine), v6::ports::CLIENT_PORT, 0, index);
        Self(UdpSocket::bind(own).unwrap(), index)
    }

    /// The answers of all servers with their source addresses, at least the expected number if they arrive.
    pub(super) fn hears(
        &self,
        message: v6::Message,
        expected: usize,
    ) -> Vec<(Ipv6Addr, v6::Message)> {
        let transaction = message.transaction;
        let bytes = v6::Packet { relays: Vec::new(), message }.emit();
        let servers = (v6::ports::ALL_SERVERS, v6::ports::SERVER_PORT);
        self.0.send_to(&bytes, SocketAddrV6::new(servers.0, servers.1, 0, self.1)).unwrap();
        hear(&self.0, expected, |bytes, from| {
            let SocketAddr::V6(from) = from else { return None };
            let reply = v6::Packet::parse(bytes).unwrap().message;
            (reply.transaction == transaction).then_some((*from.ip(), reply))
        })
    }
}

fn hear<T>(
    socket: &UdpSocket,
    expected: usize,
    read: impl Fn(&[u8], SocketAddr) -> Option<T>,
) -> Vec<T> {
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let (mut replies, mut packet) = (Vec::new(), [0; 1500]);
    let (asked, mut heard) = (Instant::now(), Instant::now());
    // Surplus answers follow soon.
    while asked.elapsed() < LISTEN && (replies.len() < expected || heard.elapsed() < SETTLE) {
        let Ok((len, from)) = socket.recv_from(&mut packet) else { continue };
        if let Some(reply) = read(&packet[..len], from) {
            replies.push(reply);
            heard = Instant::now();
        }
    }
    replies
}
