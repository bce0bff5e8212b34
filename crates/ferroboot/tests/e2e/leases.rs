//! Leases survive the daemon, and suit unusual clients. No machine starts here: the agent's DHCP client and another
//! one send requests.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use dhcp::v4::lease_client::LeaseClient;
use dhcp::v4::packet::{Hardware, Op};
use dhcp::v4::{MessageType, Packet};
use ferroboot::lab::machine::LabMachine;
use ferroboot::lab::neighbour::Neighbour;
use ferroboot::lab::network::LabNetwork;
use socket2::{Domain, Protocol, Socket, Type};

use crate::story::{Verbs as _, in_a_lab, ip, with};

const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::BROADCAST, 67);

#[test]
fn an_address_is_the_same_after_the_daemon_was_killed() {
    let plan = with([LabMachine::new(1), LabMachine::new(2)]);
    in_a_lab(plan, |lab| {
        let [first, second] = [0, 1].map(|number| lab.machines()[number].clone());
        for machine in [&first, &second] {
            lab.enroll(machine)?;
            plug_in(machine, "lab0")?;
        }
        let before = (address(&first)?, address(&second)?);

        lab.kill_daemon()?;
        lab.start_daemon()?;

        // In reverse order: a client without a lease gets the first free address.
        let after = (address(&second)?, address(&first)?);
        assert_ne!(before.0, before.1);
        assert_eq!((after.1, after.0), before);
        Ok(())
    });
}

#[test]
fn an_interface_that_was_made_anew_is_answered_on_as_before() {
    in_a_lab(with([LabMachine::new(1)]), |lab| {
        let machine = lab.machines()[0].clone();
        lab.enroll(&machine)?;
        plug_in(&machine, "lab0")?;
        let before = address(&machine)?;

        ip("link del lab0")?;
        ip("link add lab0 type bridge")?;
        ip("address add 10.77.0.1/24 dev lab0")?;
        ip("link set lab0 up")?;
        ip(&format!("link set to-{} master lab0 up", machine.name))?;

        assert_eq!(address(&machine)?, before);
        Ok(())
    });
}

#[test]
fn a_machine_that_was_moved_from_behind_a_relay_is_refused_the_address_it_had_there() {
    let mut plan = with([LabMachine::new(1)]);
    plan.neighbour = Some(Neighbour::Relay);
    in_a_lab(plan, |lab| {
        let machine = lab.machines()[0].clone();
        lab.enroll(&machine)?;
        plug_in(&machine, "lab1")?;
        let before = address(&machine)?;
        assert_eq!(before.octets()[..3], [10, 78, 0]);

        ip(&format!("link set to-{} master lab0", machine.name))?;

        assert_eq!(ask(&machine, MessageType::Request, before)?, MessageType::Nak);
        assert_eq!(address(&machine)?.octets()[..3], [10, 77, 0]);
        Ok(())
    });
}

#[test]
fn a_machine_that_names_an_address_which_it_does_not_have_yet_is_not_answered_there() {
    in_a_lab(with([LabMachine::new(1)]), |lab| {
        let machine = lab.machines()[0].clone();
        lab.enroll(&machine)?;
        plug_in(&machine, "lab0")?;
        let before = address(&machine)?;

        assert_eq!(ask(&machine, MessageType::Discover, before)?, MessageType::Offer);
        assert_eq!(ask(&machine, MessageType::Request, before)?, MessageType::Ack);
        Ok(())
    });
}

#[test]
fn a_client_that_is_not_ours_gets_the_address_that_its_card_had() {
    in_a_lab(with([LabMachine::new(1)]), |lab| {
        let machine = lab.machines()[0].clone();
        lab.enroll(&machine)?;
        plug_in(&machine, "lab0")?;
        let before = address(&machine)?;

        let client = ["--foreground", "--quit", "--now", "--script=/bin/true", "--interface"];
        let output = Command::new("udhcpc").args(client).arg(&machine.name).output()?;

        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(&format!("lease of {before} obtained")), "{said}");
        Ok(())
    });
}

#[test]
fn machines_with_one_duid_that_hide_their_cards_get_an_ipv6_address_each() {
    let mut plan = with([LabMachine::new(1), LabMachine::new(2)]);
    plan.network = LabNetwork::Dual;
    in_a_lab(plan, |lab| {
        let [first, second] = [0, 1].map(|number| lab.machines()[number].clone());
        lab.enroll(&first)?;
        // As on a copied disk.
        let duid = [&[0, 3, 0, 1][..], &hardware::Mac::try_from(first.mac())?.0].concat();
        let [one, other] = [(first, "fe80::a1"), (second, "fe80::a2")].map(|(machine, own)| {
            plug_in(&machine, "lab0")?;
            let card = &machine.name;
            ip(&format!("-6 address flush dev {card}"))?;
            ip(&format!("address add {own}/64 dev {card} nodad"))?;
            address6(card, own.parse()?, &duid)
        });

        assert_ne!(one?, other?);
        Ok(())
    });
}

/// The answer to a machine that broadcasts a request with its own address: to keep it (RFC 2131 §4.4.5), or for any.
fn ask(machine: &LabMachine, message: MessageType, address: Ipv4Addr) -> Result<MessageType> {
    let nowhere = Ipv4Addr::UNSPECIFIED;
    let asked = Packet {
        op: Op::Request,
        hardware: Hardware::ETHERNET,
        hops: 0,
        xid: 0x8765_4321,
        secs: 0,
        broadcast: true,
        ciaddr: address,
        yiaddr: nowhere,
        siaddr: nowhere,
        giaddr: nowhere,
        chaddr: hardware::Mac::try_from(machine.mac())?,
        file: Vec::new(),
        message,
        options: Vec::new(),
    };
    let socket = socket(&machine.name)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.send_to(&asked.emit(), SERVER)?;
    let mut packet = [0; 1500];
    loop {
        let len = socket.recv(&mut packet).context("no answer in 10 s")?;
        if let Ok(reply) = Packet::parse(&packet[..len])
            && (reply.op, reply.xid) == (Op::Reply, asked.xid)
        {
            return Ok(reply.message);
        }
    }
}

/// Adds a network card with the machine's MAC address to the bridge.
fn plug_in(machine: &LabMachine, bridge: &str) -> Result<()> {
    let (card, mac) = (&machine.name, machine.mac());
    ip(&format!("link add {card} address {mac} type veth peer name to-{card}"))?;
    ip(&format!("link set to-{card} master {bridge} up"))?;
    ip(&format!("link set {card} up"))?;
    // Client and server share a namespace, so each receives packets from a local address.
    let setting = "/proc/sys/net/ipv4/conf/all/accept_local";
    fs::write(setting, "1").with_context(|| format!("cannot write {setting}"))
}

/// The address of a client without stored state.
fn address(machine: &LabMachine) -> Result<Ipv4Addr> {
    let mac = hardware::Mac::try_from(machine.mac())?;
    let socket = socket(&machine.name)?;
    let began = Instant::now();
    let now = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut client = LeaseClient::new(mac, 0x1234_5678, now());
    let mut packet = [0; 1500];
    while began.elapsed() < Duration::from_secs(30) {
        if let Some(asked) = client.due(now()) {
            socket.send_to(&asked, SERVER)?;
        }
        if let Ok(len) = socket.recv(&mut packet)
            && client.receive(&packet[..len], now())
        {
            return Ok(client.lease().context("a lease")?.address);
        }
    }
    anyhow::bail!("{} got no address in 30 s", machine.name)
}

/// The address of a client with this DUID that sends from `own`.
fn address6(card: &str, own: Ipv6Addr, duid: &[u8]) -> Result<Ipv6Addr> {
    let index = nix::net::if_::if_nametoindex(card)?;
    let socket = UdpSocket::bind(SocketAddrV6::new(own, 546, 0, index))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let servers = SocketAddrV6::new("ff02::1:2".parse()?, 547, 0, index);
    let began = Instant::now();
    let now = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut client = dhcp::v6::lease_client::LeaseClient::new(duid.to_vec(), 1, 7, now());
    let mut packet = [0; 1500];
    while began.elapsed() < Duration::from_secs(30) {
        if let Some(asked) = client.due(7, now()) {
            socket.send_to(&asked, servers)?;
        }
        if let Ok(len) = socket.recv(&mut packet)
            && client.receive(&packet[..len], now())
        {
            return Ok(client.lease().context("a lease")?.address);
        }
    }
    anyhow::bail!("{card} got no IPv6 address in 30 s")
}

fn socket(card: &str) -> Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    // Until the client's next retry.
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    socket.bind_device(Some(card.as_bytes()))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 68)).into())?;
    Ok(socket.into())
}
