//! DHCPv6 of one network, without its socket: a packet comes in, and what is to be done goes out.

use std::net::{Ipv6Addr, SocketAddrV6};

use dhcp::client::Features;
use dhcp::leases::{LeaseClaim, LeasePool, LeaseTable};
use dhcp::limits::{Limits, Millis};
use dhcp::v6::client_identity::Client;
use dhcp::v6::decide::{Decision, NoReply, decide};
use dhcp::v6::leases::Identity;
use dhcp::v6::{MessageType, Packet, options, reply};
use hardware::Mac;
use ipnet::Ipv6Net;
use netboot::network_settings::StrangerPolicy;
use netboot::urls::IpFamily;
use nodes::{FoundPort, NodeIndex};

use super::counter::{self, HeardAt};
use super::heard::{Asked, Done, Heard, Story};
use super::machines::{Machines, Names};
use super::socket;

/// What it is called among counters.
const FAMILY: &str = "ipv6";

/// What is known of the network, and who has which address on it.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    /// Our address on the interface, which URLs can have in them.
    address: Ipv6Addr,
    /// The interface's own, then those that are reached through relays.
    subnets: Vec<Subnet>,
    strangers: StrangerPolicy,
    limits: Limits,
}

/// Addresses of one subnet, and what its clients are told.
#[derive(Clone, Debug)]
pub(super) struct Subnet {
    /// Which it is.
    pub(super) net: Ipv6Net,
    /// Who has which.
    pub(super) leases: LeaseTable<Ipv6Addr>,
    /// What every client on it is told.
    pub(super) about: reply::Network,
}

/// The way that a packet came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) from: SocketAddrV6,
    /// Where it was sent to.
    pub(super) to: Ipv6Addr,
}

/// An answer on its way.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) bytes: Vec<u8>,
    pub(super) to: SocketAddrV6,
}

impl Desk {
    /// Of subnets, the first of which is the interface's own.
    pub(super) fn new(
        address: Ipv6Addr,
        subnets: Vec<Subnet>,
        strangers: StrangerPolicy,
        limits: Limits,
    ) -> Self {
        Self { address, subnets, strangers, limits }
    }

    /// Our address on the interface.
    pub(super) fn address(&self) -> Ipv6Addr {
        self.address
    }

    /// Takes the name for its own that a client knows it by.
    pub(super) fn is_called(&mut self, duid: &[u8]) {
        self.subnets.iter_mut().for_each(|subnet| subnet.about.duid = duid.to_vec());
    }

    /// The addresses that it gives.
    pub(super) fn pools(&self) -> impl Iterator<Item = LeasePool<Ipv6Addr>> {
        self.subnets.iter().map(|subnet| subnet.leases.pool())
    }
}

impl counter::Desk for Desk {
    type From = Way;
    type Reply = Reply;
    type Address = Ipv6Addr;
    const FAMILY: &'static str = FAMILY;

    fn hear(
        &mut self,
        bytes: &[u8],
        Way { from, to }: Way,
        machines: &Machines,
        now: Millis,
    ) -> HeardAt<Self> {
        let request = match Packet::parse_request(bytes) {
            Ok(request) => request,
            Err(error) if error.is_of_others() => {
                return Heard::of_others(FAMILY, error.to_string());
            }
            Err(error) => return Heard::unreadable(FAMILY, error.to_string()),
        };
        let client = Client::identify(&request, *from.ip());
        let asked = asked(&request, &client, machines);
        if let Some(because) = forged(&request, *from.ip(), to) {
            return Heard::silent(FAMILY, asked, "forged", because);
        }
        let identity = client.owner().identity();
        let nets: Vec<_> = self.subnets.iter().map(|subnet| subnet.net).collect();
        let (at, subnet) = match place(&request, *from.ip(), &nets) {
            Ok(at) => (at, &mut self.subnets[at]),
            Err(because) => return Heard::silent(FAMILY, asked, "no_subnet", because),
        };
        let known = machines.index.ports();
        let Some(claim) = subnet.claim(&asked, &identity, self.strangers, known) else {
            // Whoever else lives on this network: nothing is known of it, and nothing kept.
            let because = "nobody registered this machine".to_owned();
            return Heard::silent(FAMILY, asked, "stranger", because);
        };
        if let Err(exceeded) = self.limits.admit(&identity, claim.holder(), now) {
            return Heard::silent(FAMILY, asked, exceeded.name(), exceeded.to_string());
        }
        let Subnet { leases, about, .. } = subnet;
        let told = machines.tell(&asked, self.address.into(), Names::told(&about.dns));
        let message = &request.message;
        let now = now / 1_000;
        let decision = decide(message, &client, &told.answer, claim, leases, about, now);
        let (reply, records, done, decided) = match decision {
            Decision::Silent(why @ NoReply::OtherServer) => {
                (None, Vec::new(), Done::Others(why.to_string()), why.name())
            }
            Decision::Silent(why) => (None, Vec::new(), Done::Silent(why.to_string()), why.name()),
            Decision::Send { reply, records, address, lacks } => {
                let (done, decided) = match lacks {
                    Some(why) => (Done::Refused(why.to_string()), why.name()),
                    None => done(reply.kind, address),
                };
                let to = back_to(from, &request);
                let bytes = request.answered_by(reply).emit();
                (Some(Reply { bytes, to }), records, done, decided)
            }
        };
        Heard {
            reply,
            records: records.into_iter().map(|record| (at, record)).collect(),
            counted: asked.counted(FAMILY, decided),
            story: Some(Story { asked, told, done }),
            unreadable: None,
        }
    }

    fn leases(&self) -> impl Iterator<Item = &LeaseTable<Ipv6Addr>> {
        self.subnets.iter().map(|subnet| &subnet.leases)
    }
}

impl Subnet {
    /// What the machine may claim; nothing, where it must be left alone.
    fn claim(
        &self,
        asked: &Asked,
        identity: &Identity,
        strangers: StrangerPolicy,
        known: usize,
    ) -> Option<LeaseClaim> {
        if asked.found.is_some() || self.leases.reserved(identity).is_some() {
            return Some(LeaseClaim::Known);
        }
        match strangers {
            StrangerPolicy::Ignore => None,
            StrangerPolicy::Serve => Some(LeaseClaim::guest(self.leases.pool().len(), known)),
        }
    }
}

fn asked(request: &Packet, client: &Client, machines: &Machines) -> Asked {
    let found = found(client, &machines.index);
    Asked {
        architecture: machines.choose(
            found.as_ref(),
            client.kind,
            &client.architectures,
            IpFamily::V6,
        ),
        found,
        message: request.message.kind.name(),
        mac: client.mac(),
        client: client.kind,
        // Over IPv6 iPXE has no option to say it in.
        features: Features::default(),
    }
}

/// The node is found by the card's address, else by the address in the machine's DUID, else by its UUID
/// (RFC 6355): a card of a machine may be one that nobody registered.
fn found(client: &Client, index: &NodeIndex) -> Option<FoundPort> {
    let by_mac = |mac: Option<Mac>| index.by_mac(mac?);
    let by_name = || by_mac(client.named);
    let by_uuid = || index.by_machine_id(client.machine_id?);
    by_mac(client.card).or_else(by_name).or_else(by_uuid)
}

/// Why nobody on our link can have sent it so: clients ask all servers at once, from an address that
/// can be answered (RFC 8415 §16). Anything else may come from wherever there is a way to us.
fn forged(request: &Packet, from: Ipv6Addr, to: Ipv6Addr) -> Option<String> {
    if from.is_unspecified() {
        return Some("it came from no address, to which nothing can be sent".to_owned());
    }
    let all = socket::SERVERS6;
    (request.relays.is_empty() && to != all).then(|| {
        format!("it was sent to {to}: only a relay may, and clients ask at {all} (RFC 8415 §16)")
    })
}

/// Which of the subnets the client is in, the first of which is our own link.
fn place(request: &Packet, from: Ipv6Addr, nets: &[Ipv6Net]) -> Result<usize, String> {
    if let Some(link) = request.link() {
        return nets.iter().position(|net| net.contains(&link)).ok_or_else(|| {
            format!(
                "a relay sent it from the link of {link}, for which there is no subnet: add a \
                 [[dhcp.network.relayed]]"
            )
        });
    }
    // A relay within a link, such as a switch (RFC 6221), need not say which.
    let is_near = request.relays.is_empty()
        || from.is_unicast_link_local()
        || nets.first().is_some_and(|own| own.contains(&from));
    match is_near {
        true => Ok(0),
        false => Err(format!(
            "the relay {from} is on another network and does not say from which link it has this: \
             let it fill in its link-address"
        )),
    }
}

/// Whoever a packet came from: clients listen on their port wherever they send from, and relays on the
/// servers' (RFC 8415 §7.2), unless they say that they have one of their own (RFC 8357 §5.2).
fn back_to(from: SocketAddrV6, request: &Packet) -> SocketAddrV6 {
    let port = match request.relays.first() {
        None => socket::CLIENT6,
        Some(relay) if relay.options.get(options::RELAY_PORT).is_none() => socket::SERVER6,
        Some(_) => from.port(),
    };
    SocketAddrV6::new(*from.ip(), port, 0, from.scope_id())
}

fn done(kind: MessageType, address: Option<Ipv6Addr>) -> (Done, &'static str) {
    match (address, kind) {
        (Some(address), MessageType::Advertise) => (Done::Offered(address.into()), "offer"),
        (Some(address), _) => (Done::Given(address.into()), "ack"),
        (None, _) => (Done::Noted, "noted"),
    }
}

#[cfg(test)]
mod tests {
    use dhcp::v6::client_identity::of_card;
    use dhcp::v6::packet::{Options, Relay};
    use provision::test_nodes::{boot_port, booting_node};
    use uuid::Uuid;

    use super::*;

    const FIRST: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const SECOND: Mac = Mac([2, 0, 0, 0, 0, 2]);

    /// One node with one registered port.
    fn index(port_address: Mac, system_uuid: Uuid) -> NodeIndex {
        let mut node = booting_node();
        node.properties.insert("system_uuid".to_owned(), system_uuid.to_string().into());
        let (index, uuid) = (NodeIndex::default(), node.uuid);
        index.put_node(node);
        index.put_ports(uuid, vec![boot_port(uuid, port_address)]);
        index
    }

    fn packet(duid: &[u8], relays: Vec<Relay>) -> Packet {
        let len = u16::try_from(duid.len()).unwrap().to_be_bytes();
        let bytes = [&[11, 1, 2, 3, 0, 1][..], &len, duid].concat();
        Packet { relays, ..Packet::parse(&bytes).unwrap() }
    }

    fn relay(link: Ipv6Addr, options: Vec<(u16, Vec<u8>)>) -> Relay {
        Relay { hops: 0, link, peer: Ipv6Addr::LOCALHOST, options: Options(options) }
    }

    fn from_card(duid: &[u8], card: Mac) -> Client {
        Client::identify(&packet(duid, Vec::new()), super::super::questions::link_local(card))
    }

    fn from_hiding(duid: &[u8]) -> Client {
        Client::identify(&packet(duid, Vec::new()), "fe80::dead:1".parse().unwrap())
    }

    fn named_by(card: Mac) -> Vec<u8> {
        [&[0, 3, 0, 1][..], &card.0].concat()
    }

    #[test]
    fn a_relay_is_answered_on_the_servers_port_unless_it_has_one_of_its_own() {
        let from: SocketAddrV6 = "[2001:db8::1]:5470".parse().unwrap();
        let through = |options| {
            let relay = relay(Ipv6Addr::UNSPECIFIED, options);
            back_to(from, &packet(&[0, 4], vec![relay])).port()
        };

        assert_eq!(through(vec![]), socket::SERVER6);
        assert_eq!(through(vec![(options::RELAY_PORT, vec![0, 0])]), 5470);
    }

    #[test]
    fn a_client_is_answered_where_clients_listen_wherever_it_sends_from() {
        let from: SocketAddrV6 = "[fe80::1]:50000".parse().unwrap();

        assert_eq!(back_to(from, &packet(&[0, 4], vec![])).port(), 546);
    }

    #[test]
    fn what_was_not_sent_to_all_servers_comes_from_a_relay_or_from_a_forger() {
        let relayed = vec![relay(Ipv6Addr::LOCALHOST, vec![])];
        let is_forged = |relays: &[Relay], from: &str, to: &str| {
            let packet = packet(&[0, 4], relays.to_vec());
            forged(&packet, from.parse().unwrap(), to.parse().unwrap()).is_some()
        };

        assert!(!is_forged(&[], "fe80::1", "ff02::1:2"));
        assert!(!is_forged(&relayed, "fd77::1", "fd66::1"));
        assert!(!is_forged(&relayed, "fd77::1", "ff05::1:3"));
        assert!(is_forged(&[], "fd66::c1", "fd66::1"));
        assert!(is_forged(&[], "fe80::1", "fe80::2"));
        assert!(is_forged(&[], "fd77::1", "ff05::1:3"));
        assert!(is_forged(&[], "::", "ff02::1:2"));
    }

    #[test]
    fn two_cards_of_one_machine_get_two_addresses_and_what_runs_on_one_card_shares_its_own() {
        let by_uuid = [&[0, 4][..], &[7; 16]].concat();
        let whose = |client: Client| client.owner().identity();

        let firmware = whose(from_card(&by_uuid, FIRST));
        let other_card = whose(from_card(&by_uuid, SECOND));
        let loader = whose(from_card(&named_by(FIRST), FIRST));

        assert_eq!([firmware, loader], [of_card(FIRST); 2]);
        assert_eq!(other_card, of_card(SECOND));
    }

    #[test]
    fn what_hides_its_card_is_not_taken_for_the_machine_that_its_duid_names() {
        let by_uuid = [&[0, 4][..], &[7; 16]].concat();

        for duid in [by_uuid, named_by(FIRST)] {
            assert_ne!(from_hiding(&duid).owner().identity(), of_card(FIRST));
        }
    }

    #[test]
    fn a_machine_is_known_by_its_card_by_the_one_in_its_name_and_by_its_uuid() {
        let uuid = Uuid::from_u128(7);
        let index = index(FIRST, uuid);
        let is_known = |client: &Client| found(client, &index).is_some();

        assert!(is_known(&from_card(&[0, 2, 9], FIRST)));
        assert!(is_known(&from_card(&named_by(FIRST), SECOND)));
        assert!(is_known(&from_card(&[&[0, 4][..], uuid.as_bytes()].concat(), SECOND)));
        assert!(!is_known(&from_card(&named_by(SECOND), SECOND)));
    }

    #[test]
    fn a_client_is_where_its_relay_says_and_a_far_relay_that_does_not_say_is_named() {
        let nets = ["fd66::/64", "fd77::/64"].map(|net| net.parse().unwrap());
        let at = |relays: &[&str], from: &str| {
            let relays = relays.iter().map(|link| relay(link.parse().unwrap(), vec![]));
            place(&packet(&[0, 4], relays.collect()), from.parse().unwrap(), &nets)
        };

        assert_eq!(at(&[], "fe80::1"), Ok(0));
        assert_eq!(at(&["fd77::1"], "fd77::1"), Ok(1));
        assert_eq!(at(&["fd77::1", "::"], "fd77::1"), Ok(1), "a switch before the relay");
        assert_eq!(at(&["::"], "fe80::1"), Ok(0), "a switch on our link");
        assert_eq!(at(&["::"], "fd66::9"), Ok(0));
        assert!(at(&["::"], "fd77::9").unwrap_err().contains("link-address"));
        assert!(at(&["fd88::1"], "fd77::1").unwrap_err().contains("relayed"));
    }
}
