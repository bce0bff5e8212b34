//! DHCPv6 on one interface: the served subnets, and the four steps.

use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};

use dhcp::client::Features;
use dhcp::leases::{LeaseClaim, LeasePool, LeaseTable};
use dhcp::limits::{Millis, RateLimits};
use dhcp::v6::client_identity::Client;
use dhcp::v6::decide::{Decision, NoReply, decide};
use dhcp::v6::leases::Identity;
use dhcp::v6::ports::{ALL_SERVERS, CLIENT_PORT, SERVER_PORT};
use dhcp::v6::{MessageType, Packet, options, reply};
use hardware::Mac;
use ipnet::Ipv6Net;

use crate::boot_answer::{BootAnswer, BootContext, NameLookup};
use crate::dhcp_decision::DhcpDecision;
use crate::dhcp_request::DhcpRequest;
use crate::exchange::{
    DhcpExchange, ExchangeLabels, NoReplyReason, NoRequest, RequestOutcome, RequestResult,
    Unanswered,
};
use crate::foreign_pools::ForeignPools;
use crate::network_settings::StrangerPolicy;
use crate::node_view::{NodeView, RegisteredPort};
use crate::respond::{ExchangeOf, IdentifiedClient, OurMessage, Responder};
use crate::urls::IpFamily;

/// Answers DHCPv6 on one interface.
#[derive(Clone, Debug)]
pub struct V6Responder {
    /// The service's address on the interface, used in URLs.
    address: Ipv6Addr,
    /// The interface's own subnet, then the relayed ones.
    subnets: Vec<V6Subnet>,
    strangers: StrangerPolicy,
    limits: RateLimits,
}

/// The leases and the settings of one subnet.
#[derive(Clone, Debug)]
pub struct V6Subnet {
    /// The network.
    pub net: Ipv6Net,
    /// The leases.
    pub leases: LeaseTable<Ipv6Addr>,
    /// The settings for its clients.
    pub about: reply::Network,
}

/// The source and destination addresses of a packet.
#[derive(Clone, Copy, Debug)]
pub struct V6Arrival {
    /// The source address.
    pub from: SocketAddrV6,
    /// The destination address.
    pub to: Ipv6Addr,
}

impl V6Arrival {
    /// A client's packet on the service's own link: from the client port, to all servers.
    #[must_use]
    pub fn to_all(from: Ipv6Addr) -> Self {
        Self { from: SocketAddrV6::new(from, CLIENT_PORT, 0, 0), to: ALL_SERVERS }
    }
}

/// A reply with its destination.
#[derive(Debug)]
pub struct V6Reply {
    /// The reply.
    pub bytes: Vec<u8>,
    /// The destination.
    pub to: SocketAddrV6,
}

impl V6Responder {
    /// A responder for subnets, the interface's own first.
    #[must_use]
    pub fn new(
        address: Ipv6Addr,
        subnets: Vec<V6Subnet>,
        strangers: StrangerPolicy,
        limits: RateLimits,
    ) -> Self {
        Self { address, subnets, strangers, limits }
    }

    /// The service's address on the interface.
    #[must_use]
    pub fn address(&self) -> Ipv6Addr {
        self.address
    }

    /// Accepts this server identifier, a DUID, as ours.
    pub fn accept_server_id(&mut self, duid: &[u8]) {
        self.subnets.iter_mut().for_each(|subnet| subnet.about.duid = duid.to_vec());
    }

    /// The pools of all subnets.
    pub fn pools(&self) -> impl Iterator<Item = LeasePool<Ipv6Addr>> {
        self.subnets.iter().map(|subnet| subnet.leases.pool())
    }
}

impl Responder for V6Responder {
    type Arrival = V6Arrival;
    type Message = Packet;
    type Client = Client;
    type Reply = V6Reply;
    type Address = Ipv6Addr;
    const FAMILY: &'static str = "ipv6";

    fn check_destination<N: NodeView>(
        &self,
        packet: &[u8],
        V6Arrival { from, to }: V6Arrival,
        context: &BootContext<'_, N>,
    ) -> Result<OurMessage<Packet>, Unanswered> {
        let message = parse(packet)?;
        let nets = self.subnets.iter().map(|subnet| subnet.net);
        let place = match forged(&message, *from.ip(), to) {
            Some(because) => Err(NoReplyReason { decision: DhcpDecision::Forged, because }),
            None => place(&message, *from.ip(), nets)
                .map_err(|because| NoReplyReason { decision: DhcpDecision::NoSubnet, because }),
        };
        match place {
            Ok(subnet) => Ok(OurMessage { message, subnet }),
            Err(reason) => {
                let client = Client::identify(&message, *from.ip());
                Err(Unanswered::Request(request(&message, &client, context), reason))
            }
        }
    }

    fn identify_client<N: NodeView>(
        &mut self,
        OurMessage { message, subnet }: &OurMessage<Packet>,
        V6Arrival { from, .. }: V6Arrival,
        context: &BootContext<'_, N>,
        now: Millis,
    ) -> Result<IdentifiedClient<Client>, Unanswered> {
        let client = Client::identify(message, *from.ip());
        let request = request(message, &client, context);
        let identity = client.owner().identity();
        let (subnet, known) = (&self.subnets[*subnet], context.nodes.port_count());
        let claim = subnet.claim(&request, &identity, self.strangers, known);
        let admit = |holder| self.limits.admit(&identity, holder, now);
        IdentifiedClient::admitted(request, client, claim, admit)
    }

    fn vantage(&self, subnet: usize) -> (IpAddr, NameLookup) {
        (self.address.into(), NameLookup::with(&self.subnets[subnet].about.dns))
    }

    fn build_reply(
        &mut self,
        OurMessage { message, subnet: at }: OurMessage<Packet>,
        V6Arrival { from, .. }: V6Arrival,
        IdentifiedClient { request, client, claim }: IdentifiedClient<Client>,
        answer: BootAnswer,
        now: Millis,
    ) -> ExchangeOf<Self> {
        let V6Subnet { leases, about, .. } = &mut self.subnets[at];
        let (instruction, now) = (&answer.instruction, now / 1_000);
        let decision = decide(&message.message, &client, instruction, claim, leases, about, now);
        let (reply, records, result, decided) = match decision {
            Decision::Silent(why @ NoReply::OtherServer) => (
                None,
                Vec::new(),
                RequestResult::OtherServer(why.to_string()),
                DhcpDecision::V6(why),
            ),
            Decision::Silent(why) => {
                (None, Vec::new(), RequestResult::Silent(why.to_string()), DhcpDecision::V6(why))
            }
            Decision::Send { reply, records, address, lacks } => {
                let (result, decided) = match lacks {
                    Some(why) => (RequestResult::Refused(why.to_string()), DhcpDecision::V6(why)),
                    None => result_of(reply.kind, address),
                };
                let to = back_to(from, &message);
                let bytes = message.answered_by(reply).emit();
                (Some(V6Reply { bytes, to }), records, result, decided)
            }
        };
        DhcpExchange {
            reply,
            records: records.into_iter().map(|record| (at, record)).collect(),
            labels: ExchangeLabels::of(&request, Self::FAMILY, decided),
            outcome: Ok(RequestOutcome { request, answer, result }),
        }
    }

    fn set_foreign_pools(&mut self, pools: &ForeignPools) {
        for subnet in &mut self.subnets {
            subnet.about.foreign_pools = pools.v6.clone();
        }
    }

    fn leases(&self) -> impl Iterator<Item = &LeaseTable<Ipv6Addr>> {
        self.subnets.iter().map(|subnet| &subnet.leases)
    }
}

/// Parses a client's message.
fn parse(packet: &[u8]) -> Result<Packet, Unanswered> {
    Packet::parse_request(packet)
        .map_err(|error| Unanswered::NoRequest(NoRequest::of(&error, error.is_of_others())))
}

/// The request in a message, with the client's port and node.
fn request<N: NodeView>(
    message: &Packet,
    client: &Client,
    context: &BootContext<'_, N>,
) -> DhcpRequest {
    let registered = registered(client, context.nodes);
    let (kind, named) = (client.kind, &client.architectures);
    let architecture = context.architecture(registered.as_ref(), kind, named, IpFamily::V6);
    DhcpRequest {
        architecture,
        registered,
        message: message.message.kind.name(),
        mac: client.mac(),
        client: kind,
        // Over IPv6, iPXE has no option for its features.
        features: Features::default(),
    }
}

impl V6Subnet {
    /// The machine's claim to leases; `None` if it must be ignored.
    fn claim(
        &self,
        request: &DhcpRequest,
        identity: &Identity,
        strangers: StrangerPolicy,
        known: usize,
    ) -> Option<LeaseClaim> {
        if request.registered.is_some() || self.leases.reserved(identity).is_some() {
            return Some(LeaseClaim::Known);
        }
        match strangers {
            StrangerPolicy::Ignore => None,
            StrangerPolicy::Serve => Some(LeaseClaim::guest(self.leases.pool().len(), known)),
        }
    }
}

/// The client's node, by the card's MAC address, otherwise by the MAC address in the DUID, otherwise by the UUID in
/// the DUID (RFC 6355): the requesting card may not be registered.
fn registered(client: &Client, nodes: &impl NodeView) -> Option<RegisteredPort> {
    let by_mac = |mac: Option<Mac>| nodes.by_mac(mac?);
    let by_name = || by_mac(client.named);
    let by_uuid = || nodes.by_machine_id(client.machine_id?);
    by_mac(client.card).or_else(by_name).or_else(by_uuid)
}

/// The reason why the message cannot come from a client on the link: clients send to the multicast address, from an
/// address that can be replied to (RFC 8415 §16). Other messages may come from any network with a route to this host.
fn forged(request: &Packet, from: Ipv6Addr, to: Ipv6Addr) -> Option<String> {
    if from.is_unspecified() {
        return Some("it came from no address, to which nothing can be sent".to_owned());
    }
    let all = ALL_SERVERS;
    (request.relays.is_empty() && to != all).then(|| {
        format!("it was sent to {to}: only a relay may, and clients ask at {all} (RFC 8415 §16)")
    })
}

/// The position of the client's subnet; the first is the service's own link.
fn place(
    request: &Packet,
    from: Ipv6Addr,
    mut nets: impl Iterator<Item = Ipv6Net>,
) -> Result<usize, String> {
    if let Some(link) = request.link() {
        return nets.position(|net| net.contains(&link)).ok_or_else(|| {
            format!(
                "a relay sent it from the link of {link}, for which there is no subnet: add a \
                 [[dhcp.network.relayed]]"
            )
        });
    }
    // A relay within a link, such as a switch (RFC 6221), may leave its link address unspecified.
    let is_near = request.relays.is_empty()
        || from.is_unicast_link_local()
        || nets.next().is_some_and(|own| own.contains(&from));
    match is_near {
        true => Ok(0),
        false => Err(format!(
            "the relay {from} is on another network and does not say from which link it has this: \
             let it fill in its link-address"
        )),
    }
}

/// The destination of a reply. Clients listen on the client port whatever their source port is; relays listen on the
/// server port (RFC 8415 §7.2), unless they announce a port of their own (RFC 8357 §5.2).
fn back_to(from: SocketAddrV6, request: &Packet) -> SocketAddrV6 {
    let port = match request.relays.first() {
        None => CLIENT_PORT,
        Some(relay) if relay.options.get(options::RELAY_PORT).is_none() => SERVER_PORT,
        Some(_) => from.port(),
    };
    SocketAddrV6::new(*from.ip(), port, 0, from.scope_id())
}

fn result_of(kind: MessageType, address: Option<Ipv6Addr>) -> (RequestResult, DhcpDecision) {
    match (address, kind) {
        (Some(address), MessageType::Advertise) => {
            (RequestResult::Offered(address.into()), DhcpDecision::Offer)
        }
        (Some(address), _) => (RequestResult::Given(address.into()), DhcpDecision::Ack),
        (None, _) => (RequestResult::Noted, DhcpDecision::Noted),
    }
}

#[cfg(test)]
mod tests {
    use dhcp::v6::client_identity::of_card;
    use dhcp::v6::packet::{Options, Relay};
    use provision::test_nodes::booting_node;
    use uuid::Uuid;

    use super::*;
    use crate::interface_addresses::link_local_of;
    use crate::test_view::TestView;

    const FIRST: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const SECOND: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn packet(duid: &[u8], relays: Vec<Relay>) -> Packet {
        let len = u16::try_from(duid.len()).unwrap().to_be_bytes();
        let bytes = [&[11, 1, 2, 3, 0, 1][..], &len, duid].concat();
        Packet { relays, ..Packet::parse(&bytes).unwrap() }
    }

    fn relay(link: Ipv6Addr, options: Vec<(u16, Vec<u8>)>) -> Relay {
        Relay { hops: 0, link, peer: Ipv6Addr::LOCALHOST, options: Options(options) }
    }

    fn from_card(duid: &[u8], card: Mac) -> Client {
        Client::identify(&packet(duid, Vec::new()), link_local_of(card))
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

        assert_eq!(through(vec![]), SERVER_PORT);
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
        let nodes = TestView::of(booting_node(), [FIRST]).with_machine_id(uuid.into_bytes());
        let is_known = |client: &Client| registered(client, &nodes).is_some();

        assert!(is_known(&from_card(&[0, 2, 9], FIRST)));
        assert!(is_known(&from_card(&named_by(FIRST), SECOND)));
        assert!(is_known(&from_card(&[&[0, 4][..], uuid.as_bytes()].concat(), SECOND)));
        assert!(!is_known(&from_card(&named_by(SECOND), SECOND)));
    }

    #[test]
    fn a_client_is_where_its_relay_says_and_a_far_relay_that_does_not_say_is_named() {
        let nets: [Ipv6Net; 2] = ["fd66::/64", "fd77::/64"].map(|net| net.parse().unwrap());
        let at = |relays: &[&str], from: &str| {
            let relays = relays.iter().map(|link| relay(link.parse().unwrap(), vec![]));
            place(&packet(&[0, 4], relays.collect()), from.parse().unwrap(), nets.into_iter())
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
