//! DHCP pools of daemons that share a PostgreSQL.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use dhcp::v4::packet::{Hardware, Op};
use dhcp::{v4, v6};
use hardware::Mac;
use reqwest::Method;
use serde_json::{Value, json};
use server::config::Config;
use store::{Clock, DaemonIdentity, DaemonPools, PoolRange, Store};
use uuid::Uuid;

use super::super::World;
use super::super::bmc::NO_FAULTS;
use super::segment::{
    Client4, Client6, DAEMONS4, MACHINE, OTHER_MACHINE, daemons6, ip, on_a_segment,
};
use super::{database, give_key};

const RESERVED: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 150);
const RESERVED6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 0x150);
/// A daemon sees a new daemon's pools at its next liveness report.
const HEARS_OF_POOLS: Duration = Duration::from_secs(6);

#[test]
fn a_client_is_answered_by_the_daemon_whose_address_it_has_and_refused_by_none() {
    let name = "daemons::pools::a_client_is_answered_by_the_daemon_whose_address_it_has_and_refused_by_none";
    on_a_segment(name, async || {
        use v4::MessageType::{Ack, Discover, Nak, Offer, Request};
        use v4::options::{REQUESTED_ADDRESS, SERVER_ID};
        let Some(database) = database().await else { return };
        let pools = ["pool = '10.99.0.100-10.99.0.149'", "pool = '10.99.0.150-10.99.0.199'"];
        let [first, mut second] = two_daemons(&database, 60, pools, RESERVED.into()).await;
        let [one, two] = DAEMONS4;
        let client = Client4::new();

        let offers = client.hears(&request4(MACHINE, Discover, &[]), 2);
        assert_eq!(said(&offers), [(Offer, one), (Offer, two)]);
        let offered = offers.iter().find(|offer| server(offer) == two).unwrap().yiaddr;
        let chosen = [(SERVER_ID, two), (REQUESTED_ADDRESS, offered)];
        let bound = client.hears(&request4(MACHINE, Request, &chosen), 1);
        assert_eq!(said(&bound), [(Ack, two)]);
        tokio::time::sleep(HEARS_OF_POOLS).await;

        let comes_back = request4(MACHINE, Request, &[(REQUESTED_ADDRESS, offered)]);
        let rebinds = |mac, ciaddr| v4::Packet { ciaddr, ..request4(mac, Request, &[]) };
        for asked in [&comes_back, &rebinds(MACHINE, offered)] {
            assert_eq!(said(&client.hears(asked, 1)), [(Ack, two)]);
        }
        first.until_metrics(|text| text.contains("decision=\"foreign_pool\"} 2\n")).await;
        let answers = client.hears(&rebinds(OTHER_MACHINE, RESERVED), 2);
        assert_eq!(said(&answers), [(Ack, one), (Ack, two)], "it is reserved for it everywhere");
        let nobodys = rebinds(MACHINE, Ipv4Addr::new(10, 99, 0, 250));
        assert_eq!(said(&client.hears(&nobodys, 2)), [(Nak, one), (Nak, two)]);

        second.die();
        // The failure of its host.
        ip("link set two down");
        assert_eq!(client.hears(&rebinds(MACHINE, offered), 0), [], "it keeps its address");
        let anew = client.hears(&request4(MACHINE, Discover, &[]), 1);
        assert_eq!(said(&anew), [(Offer, one)]);
    });
}

#[test]
fn over_ipv6_too_a_client_is_answered_by_the_daemon_whose_address_it_has() {
    let name =
        "daemons::pools::over_ipv6_too_a_client_is_answered_by_the_daemon_whose_address_it_has";
    on_a_segment(name, async || {
        use v6::MessageType::{Rebind, Request, Solicit};
        let Some(database) = database().await else { return };
        let pools = ["pool6 = 'fd99::100-fd99::14f'", "pool6 = 'fd99::150-fd99::1ff'"];
        let [first, _second] = two_daemons(&database, 62, pools, RESERVED6.into()).await;
        let [one, two] = daemons6();
        let [machine, other] = [MACHINE, OTHER_MACHINE].map(Client6::new);

        let offers = machine.hears(request6(MACHINE, Solicit, None, None), 2);
        assert_eq!(servers6(&offers), [one, two]);
        let (_, offer) = offers.into_iter().find(|(server, _)| *server == two).unwrap();
        let offered = given(&offer);
        let duid = offer.options.get(v6::options::SERVER_ID);
        let bound = machine.hears(request6(MACHINE, Request, duid, offered), 1);
        assert_eq!(servers6(&bound), [two]);
        tokio::time::sleep(HEARS_OF_POOLS).await;

        let rebound = machine.hears(request6(MACHINE, Rebind, None, offered), 1);
        assert_eq!((servers6(&rebound), given(&rebound[0].1)), (vec![two], offered));
        let left = "message=\"REBIND\",client=\"system\",decision=\"other_server\"} 1\n";
        first.until_metrics(|text| text.contains(left)).await;
        let reserved = other.hears(request6(OTHER_MACHINE, Rebind, None, Some(RESERVED6)), 2);
        assert_eq!(servers6(&reserved), [one, two], "it is reserved for it everywhere");
        assert!(reserved.iter().all(|(_, reply)| given(reply) == Some(RESERVED6)));
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

    let reports = tokio::spawn({
        let (store, far, pools) = (store.clone(), far.clone(), pools.clone());
        async move {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                store.note_alive(&far, &pools, Clock::process().now()).await.unwrap();
            }
        }
    });

    let words = starts("").await;

    // The network of a relayed subnet counts as well.
    let both = "the pool 10.8.0.100-10.8.0.200 of this daemon (near) overlaps the pool 10.8.0.200-10.8.0.250 of the daemon far";
    assert!(words.contains(both), "{words}");
    let words = starts("elsewhere").await;
    assert!(
        words.contains("no-such-card"),
        "at another site it gets as far as its interface: {words}"
    );
    reports.abort();
    let words = starts("").await;
    assert!(words.contains("no-such-card"), "and at this one, once the other is dead: {words}");
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

/// Daemons on one segment with a pool each, and with the machines as ports of their node. Both have `sole` set, which
/// refuses addresses of other servers.
async fn two_daemons(
    database: &str,
    last: u8,
    [first, second]: [&str; 2],
    reserved: IpAddr,
) -> [World; 2] {
    let settings = |interface: &str, pool: &str| {
        format!(
            "{database}[[dhcp.network]]\ninterface = '{interface}'\n{pool}\nadvertise = false\n\
             [[dhcp.network.reservation]]\nmac = '{OTHER_MACHINE}'\naddress = '{reserved}'\n"
        )
    };
    let first = World::with(last, NO_FAULTS, &settings("one", first)).await;
    let node = first.api(Method::GET, "/v1/nodes/n1", Value::Null).await;
    for mac in [MACHINE, OTHER_MACHINE] {
        let port = json!({ "node_uuid": node["uuid"], "address": mac.to_string() });
        first.api(Method::POST, "/v1/ports", port).await;
    }
    let second = World::beside_with(&first, last + 1, "two", &settings("two", second)).await;
    [first, second]
}

fn request4(chaddr: Mac, message: v4::MessageType, named: &[(u8, Ipv4Addr)]) -> v4::Packet {
    let nowhere = Ipv4Addr::UNSPECIFIED;
    v4::Packet {
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

fn server(reply: &v4::Packet) -> Ipv4Addr {
    reply.option_address(v4::options::SERVER_ID).expect("every server names itself")
}

/// The servers with their message types, in the order of addresses.
fn said(replies: &[v4::Packet]) -> Vec<(v4::MessageType, Ipv4Addr)> {
    let mut all: Vec<_> = replies.iter().map(|reply| (reply.message, server(reply))).collect();
    all.sort_by_key(|(_, server)| *server);
    all
}

fn request6(
    mac: Mac,
    kind: v6::MessageType,
    server: Option<&[u8]>,
    address: Option<Ipv6Addr>,
) -> v6::Message {
    use v6::options::{CLIENT_ID, IA_ADDRESS, IA_NA, SERVER_ID};
    let number = |number: u16| number.to_be_bytes();
    // The association 7, with the times that a client leaves to the server.
    let mut association = [&[0, 0, 0, 7][..], &[0; 8]].concat();
    if let Some(address) = address {
        association.extend([number(IA_ADDRESS), number(24)].concat());
        association.extend([&address.octets()[..], &[0; 8]].concat());
    }
    let duid = [&[0, 3, 0, 1][..], &mac.0].concat();
    let mut options = vec![(CLIENT_ID, duid), (IA_NA, association)];
    options.extend(server.map(|server| (SERVER_ID, server.to_owned())));
    v6::Message { kind, transaction: rand::random(), options: v6::packet::Options(options) }
}

fn given(reply: &v6::Message) -> Option<Ipv6Addr> {
    reply.ias().flat_map(|ia| ia.addresses).next()
}

fn servers6(replies: &[(Ipv6Addr, v6::Message)]) -> Vec<Ipv6Addr> {
    let mut all: Vec<_> = replies.iter().map(|(server, _)| *server).collect();
    all.sort();
    all
}
