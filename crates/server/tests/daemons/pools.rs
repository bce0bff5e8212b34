//! DHCP pools of daemons that share a PostgreSQL. The daemons and a client are on one segment, which is a bridge in a network
//! namespace of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use dhcp::v4::packet::{Hardware, Op};
use dhcp::v4::{MessageType, Packet, options};
use hardware::Mac;
use redfish::emulator::Personality;
use reqwest::Method;
use serde_json::{Value, json};
use server::config::Config;
use socket2::{Domain, Protocol, Socket, Type};
use store::{Clock, DaemonIdentity, DaemonPools, PoolRange, Store};
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::super::World;
use super::{database, give_key};

/// Tells the test's process that it runs in a network namespace of its own.
const INSIDE: &str = "FERROBOOT_TEST_SEGMENT";
/// How long answers are waited for that are expected, and how long others.
const LISTEN: Duration = Duration::from_secs(10);
const SETTLE: Duration = Duration::from_millis(700);
const ONE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const TWO: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const RESERVED: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 50);
const LEASES: Mac = Mac([0x52, 0x54, 0, 0, 0x99, 1]);
const HAS_RESERVATION: Mac = Mac([0x52, 0x54, 0, 0, 0x99, 2]);

#[test]
fn a_client_is_answered_by_the_daemon_whose_address_it_has_and_refused_by_none() {
    let name = "daemons::pools::a_client_is_answered_by_the_daemon_whose_address_it_has_and_refused_by_none";
    on_a_segment(name, async || {
        let Some(database) = database().await else { return };
        // Both believe that they are the only server there (`sole`), which would refuse addresses that it did not give.
        let settings = |interface: &str, pool: &str| {
            format!(
                "{database}[[dhcp.network]]\ninterface = '{interface}'\npool = '{pool}'\n\
                 [[dhcp.network.reservation]]\nmac = '{HAS_RESERVATION}'\naddress = '{RESERVED}'\n"
            )
        };
        let first = settings("one", "10.99.0.100-10.99.0.149");
        let first = World::with(60, Personality::default(), &first).await;
        let node = first.api(Method::GET, "/v1/nodes/n1", Value::Null).await;
        for mac in [LEASES, HAS_RESERVATION] {
            let port = json!({ "node_uuid": node["uuid"], "address": mac.to_string() });
            first.api(Method::POST, "/v1/ports", port).await;
        }
        let second = settings("two", "10.99.0.150-10.99.0.199");
        let mut second = World::beside_with(&first, 61, "two", &second).await;

        let client = Client::new();
        let offers = client.hears(&request(LEASES, MessageType::Discover, &[]), 2);
        assert_eq!(servers(&offers), [(MessageType::Offer, ONE), (MessageType::Offer, TWO)]);
        let offered = offers.iter().find(|offer| server(offer) == TWO).unwrap().yiaddr;
        let chosen = [(options::SERVER_ID, TWO), (options::REQUESTED_ADDRESS, offered)];
        let bound = client.hears(&request(LEASES, MessageType::Request, &chosen), 1);
        assert_eq!(servers(&bound), [(MessageType::Ack, TWO)]);

        // The first daemon hears of the other's pool when it next says that it is alive.
        tokio::time::sleep(Duration::from_secs(6)).await;
        let comes_back = [(options::REQUESTED_ADDRESS, offered)];
        let comes_back = request(LEASES, MessageType::Request, &comes_back);
        let rebinds = |mac, ciaddr| Packet { ciaddr, ..request(mac, MessageType::Request, &[]) };
        for asked in [&comes_back, &rebinds(LEASES, offered)] {
            assert_eq!(servers(&client.hears(asked, 1)), [(MessageType::Ack, TWO)]);
        }
        first.until_metrics(|text| text.contains("decision=\"foreign_pool\"} 2\n")).await;
        let both = [(MessageType::Ack, ONE), (MessageType::Ack, TWO)];
        let answers = client.hears(&rebinds(HAS_RESERVATION, RESERVED), 2);
        assert_eq!(servers(&answers), both, "what is reserved everywhere is answered everywhere");
        let elsewhere = rebinds(LEASES, Ipv4Addr::new(10, 99, 0, 250));
        let refused = [(MessageType::Nak, ONE), (MessageType::Nak, TWO)];
        assert_eq!(servers(&client.hears(&elsewhere, 2)), refused, "nobody's address");

        second.die();
        ip("link set two down");
        assert_eq!(client.hears(&rebinds(LEASES, offered), 0), [], "it keeps its address");
        let anew = client.hears(&request(LEASES, MessageType::Discover, &[]), 1);
        assert_eq!(servers(&anew), [(MessageType::Offer, ONE)]);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_pool_overlaps_that_of_a_living_one_does_not_start() {
    let Some(database) = database().await else { return };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    give_key(dir.path());
    let url = database.split('\'').nth(1).expect("a URL");
    let store = Store::open(url, &dir.path().join("state/ferroboot.key")).await.unwrap();
    let far = DaemonIdentity::new(Uuid::new_v4(), "far".to_owned());
    let [first, last] = ["10.8.0.200", "10.8.0.250"].map(|end| end.parse().unwrap());
    let pools = DaemonPools { ranges: vec![PoolRange { first, last }], ..DaemonPools::default() };
    store.register_daemon(&far, &pools, Clock::process().now()).await.unwrap();
    let starts = async |site: &str| {
        let config = config(dir.path(), &database, site);
        let failed = server::serve(config, async {}).await.unwrap_err();
        format!("{failed:#}")
    };

    let words = starts("").await;

    // The network of a relayed subnet counts as well.
    let both = "the pool 10.8.0.100-10.8.0.200 of this daemon (near) overlaps the pool 10.8.0.200-10.8.0.250 of the daemon far";
    assert!(words.contains(both), "{words}");
    let words = starts("elsewhere").await;
    assert!(
        words.contains("no-such-card"),
        "at another site it gets as far as its interface: {words}"
    );
}

fn config(dir: &Path, database: &str, site: &str) -> Config {
    let state = dir.join("state");
    let text = format!(
        "host = 'near'\nstate_dir = '{}'\n{database}\
         [dhcp]\nsite = '{site}'\n\
         [[dhcp.network]]\ninterface = 'no-such-card'\npool = '10.7.0.100-10.7.0.199'\n\
         [[dhcp.network.relayed]]\nsubnet = '10.8.0.0/24'\npool = '10.8.0.100-10.8.0.200'\n",
        state.display()
    );
    text.parse().unwrap()
}

/// Runs `test` where two daemons and a client have an interface each on one segment: `one`, `two` and `client`. The test
/// that is called `name` is started once more for it.
///
/// Where no network namespace can be made, nothing is tested, and that is said.
fn on_a_segment(name: &str, test: impl AsyncFnOnce()) {
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
    for card in ["one", "two", "client"] {
        ip(&format!("link add {card} type veth peer name to-{card}"));
        ip(&format!("link set to-{card} master segment up"));
        ip(&format!("link set {card} up"));
    }
    ip(&format!("address add {ONE}/24 dev one"));
    ip(&format!("address add {TWO}/24 dev two"));
    // Client and servers are in one namespace, so each hears from an address that is its own.
    fs::write("/proc/sys/net/ipv4/conf/all/accept_local", "1").unwrap();
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// A client of which everything is broadcast, so that all servers hear it, and it them.
struct Client(UdpSocket);

impl Client {
    fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
        socket.set_broadcast(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        socket.bind_device(Some(b"client")).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 68)).into()).unwrap();
        Self(socket.into())
    }

    /// What all servers answer, where so many answers are expected.
    fn hears(&self, request: &Packet, expected: usize) -> Vec<Packet> {
        self.0.send_to(&request.emit(), (Ipv4Addr::BROADCAST, 67)).unwrap();
        let (mut replies, mut packet) = (Vec::new(), [0; 1500]);
        let (asked, mut heard) = (Instant::now(), Instant::now());
        // Whatever comes beyond that comes soon.
        while asked.elapsed() < LISTEN && (replies.len() < expected || heard.elapsed() < SETTLE) {
            let Ok(len) = self.0.recv(&mut packet) else { continue };
            let reply = Packet::parse(&packet[..len]).unwrap();
            if (reply.op, reply.xid) == (Op::Reply, request.xid) {
                replies.push(reply);
                heard = Instant::now();
            }
        }
        replies
    }
}

fn request(chaddr: Mac, message: MessageType, named: &[(u8, Ipv4Addr)]) -> Packet {
    let nowhere = Ipv4Addr::UNSPECIFIED;
    Packet {
        op: Op::Request,
        hardware: Hardware::ETHERNET,
        hops: 0,
        xid: rand::random(),
        secs: 0,
        broadcast: true,
        ciaddr: nowhere,
        yiaddr: nowhere,
        siaddr: nowhere,
        giaddr: nowhere,
        chaddr,
        file: Vec::new(),
        message,
        options: named.iter().map(|(code, at)| (*code, at.octets().to_vec())).collect(),
    }
}

fn server(reply: &Packet) -> Ipv4Addr {
    reply.option_address(options::SERVER_ID).expect("every server names itself")
}

/// Who answered what, in the order of their addresses.
fn servers(replies: &[Packet]) -> Vec<(MessageType, Ipv4Addr)> {
    let mut all: Vec<_> = replies.iter().map(|reply| (reply.message, server(reply))).collect();
    all.sort_by_key(|(_, server)| *server);
    all
}
