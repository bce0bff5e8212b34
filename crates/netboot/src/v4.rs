//! DHCPv4 on one interface: the served subnets, and the four steps.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use dhcp::client::Client;
use dhcp::leases::{LeaseClaim, LeasePool, LeaseTable, Seconds};
use dhcp::limits::{Millis, RateLimits};
use dhcp::v4::decide::{Decision, NoReply, decide};
use dhcp::v4::destination::{Destination, destination};
use dhcp::v4::relay::{self, relayed};
use dhcp::v4::{MessageType, Packet, options, reply};
use hardware::Mac;
use ipnet::Ipv4Net;

use crate::boot_answer::{BootAnswer, BootContext, NameLookup};
use crate::dhcp_decision::DhcpDecision;
use crate::dhcp_request::DhcpRequest;
use crate::exchange::{
    DhcpExchange, ExchangeLabels, NoReplyReason, NoRequest, RequestOutcome, RequestResult,
    Unanswered,
};
use crate::foreign_pools::ForeignPools;
use crate::network_settings::StrangerPolicy;
use crate::node_view::NodeView;
use crate::respond::{ExchangeOf, IdentifiedClient, OurMessage, Responder};
use crate::urls::IpFamily;

/// The address family's label in metrics.
pub(crate) const FAMILY: &str = "ipv4";

/// Answers DHCPv4 on one interface.
#[derive(Clone, Debug)]
pub struct V4Responder {
    /// The interface's own subnet, then the relayed ones.
    subnets: Vec<V4Subnet>,
    strangers: StrangerPolicy,
    limits: RateLimits,
}

/// The leases and the settings of one subnet.
#[derive(Clone, Debug)]
pub struct V4Subnet {
    /// The network.
    pub net: Ipv4Net,
    /// The leases.
    pub leases: LeaseTable<Ipv4Addr>,
    /// The settings for its clients.
    pub about: reply::Network,
    /// Number of registered machines that may need an address of the pool, and the time of the count.
    counted: (usize, Seconds),
}

/// The source and destination addresses of a packet.
#[derive(Clone, Copy, Debug)]
pub struct V4Arrival {
    /// The source address.
    pub from: SocketAddrV4,
    /// The destination address.
    pub to: Ipv4Addr,
}

/// A reply with its destination.
#[derive(Debug)]
pub struct V4Reply {
    /// The reply.
    pub reply: Packet,
    /// The destination.
    pub to: Destination,
}

impl V4Responder {
    /// A responder for subnets, the interface's own first.
    #[must_use]
    pub fn new(mut subnets: Vec<V4Subnet>, strangers: StrangerPolicy, limits: RateLimits) -> Self {
        let nets: Vec<_> = subnets.iter().map(|subnet| subnet.net).collect();
        for V4Subnet { net, about, .. } in &mut subnets {
            about.others = nets.iter().copied().filter(|other| other != net).collect();
        }
        Self { subnets, strangers, limits }
    }

    /// The service's address on the interface.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.subnets.first().map_or(Ipv4Addr::UNSPECIFIED, |own| own.about.server)
    }

    /// Accepts this server identifier as ours.
    pub fn accept_server_id(&mut self, server: Ipv4Addr) {
        self.subnets.iter_mut().for_each(|subnet| subnet.about.server = server);
    }

    /// The pools of all subnets.
    pub fn pools(&self) -> impl Iterator<Item = LeasePool<Ipv4Addr>> {
        self.subnets.iter().map(|subnet| subnet.leases.pool())
    }
}

impl Responder for V4Responder {
    type Arrival = V4Arrival;
    type Message = Packet;
    type Client = ();
    type Reply = V4Reply;
    type Address = Ipv4Addr;
    const FAMILY: &'static str = FAMILY;

    fn check_destination<N: NodeView>(
        &self,
        packet: &[u8],
        V4Arrival { from, to }: V4Arrival,
        context: &BootContext<'_, N>,
    ) -> Result<OurMessage<Packet>, Unanswered> {
        let message = parse(packet)?;
        let link = relay::link(&message, *from.ip(), to);
        let of_link = link.and_then(|link| self.subnets.iter().position(|s| s.net.contains(&link)));
        // A client outside of all subnets that sends directly has its address from elsewhere, and is on this link.
        let near = || (relayed(&message).is_none() && !self.subnets.is_empty()).then_some(0);
        match of_link.or_else(near) {
            Some(subnet) => Ok(OurMessage { message, subnet }),
            None => {
                let link = link.unwrap_or(Ipv4Addr::UNSPECIFIED);
                let because = format!(
                    "a relay sent it from the link of {link}, for which there is no subnet: add a \
                     [[dhcp.network.relayed]]"
                );
                let reason = NoReplyReason { decision: DhcpDecision::NoSubnet, because };
                Err(Unanswered::Request(request(&message, context), reason))
            }
        }
    }

    fn identify_client<N: NodeView>(
        &mut self,
        OurMessage { message, subnet }: &OurMessage<Packet>,
        _: V4Arrival,
        context: &BootContext<'_, N>,
        now: Millis,
    ) -> Result<IdentifiedClient<()>, Unanswered> {
        let request = request(message, context);
        let (subnet, strangers) = (&mut self.subnets[*subnet], self.strangers);
        let claim = subnet.claim(&request, message.chaddr, strangers, context.nodes, now / 1_000);
        let admit = |holder| self.limits.admit(&message.chaddr.0, holder, now);
        IdentifiedClient::admitted(request, (), claim, admit)
    }

    fn vantage(&self, subnet: usize) -> (IpAddr, NameLookup) {
        let about = &self.subnets[subnet].about;
        (about.server.into(), NameLookup::with(&about.dns))
    }

    fn build_reply(
        &mut self,
        OurMessage { message, subnet: at }: OurMessage<Packet>,
        V4Arrival { from, .. }: V4Arrival,
        IdentifiedClient { request, claim, .. }: IdentifiedClient<()>,
        answer: BootAnswer,
        now: Millis,
    ) -> ExchangeOf<Self> {
        let V4Subnet { leases, about, .. } = &mut self.subnets[at];
        let decision = decide(&message, &answer.instruction, claim, leases, about, now / 1_000);
        let (reply, records, result, decided) = match decision {
            Decision::Silent(why) => {
                let (result, decided) = silent(why);
                (None, Vec::new(), result, decided)
            }
            Decision::Note { records } => {
                (None, records, RequestResult::Noted, DhcpDecision::Noted)
            }
            Decision::Send { reply, record } => {
                let (result, decided) = result_of(&reply);
                (Some(reply), record.into_iter().collect(), result, decided)
            }
        };
        DhcpExchange {
            reply: reply.map(|reply| V4Reply { to: destination(&message, from, &reply), reply }),
            records: records.into_iter().map(|record| (at, record)).collect(),
            labels: ExchangeLabels::of(&request, FAMILY, decided),
            outcome: Ok(RequestOutcome { request, answer, result }),
        }
    }

    fn set_foreign_pools(&mut self, pools: &ForeignPools) {
        for subnet in &mut self.subnets {
            subnet.about.foreign_pools = pools.v4.clone();
        }
    }

    fn leases(&self) -> impl Iterator<Item = &LeaseTable<Ipv4Addr>> {
        self.subnets.iter().map(|subnet| &subnet.leases)
    }
}

/// Parses a client's message.
pub(crate) fn parse(packet: &[u8]) -> Result<Packet, Unanswered> {
    Packet::parse(packet)
        .map_err(|error| Unanswered::NoRequest(NoRequest::of(&error, error.is_of_others())))
}

/// The request in a message, with the client's port and node.
pub(crate) fn request<N: NodeView>(message: &Packet, context: &BootContext<'_, N>) -> DhcpRequest {
    let client = Client::identify(message);
    let mac = client.mac;
    let registered = context.nodes.by_mac(mac);
    let (kind, named) = (client.kind, &client.architectures);
    let architecture = context.architecture(registered.as_ref(), kind, named, IpFamily::V4);
    DhcpRequest {
        architecture,
        registered,
        message: message.message.name(),
        mac: Some(mac),
        client: kind,
        features: client.features,
    }
}

impl V4Subnet {
    /// A subnet with its leases and settings.
    #[must_use]
    pub fn new(net: Ipv4Net, leases: LeaseTable<Ipv4Addr>, about: reply::Network) -> Self {
        Self { net, leases, about, counted: (0, 0) }
    }

    /// The machine's claim to leases; `None` if it must be ignored.
    fn claim(
        &mut self,
        request: &DhcpRequest,
        mac: Mac,
        strangers: StrangerPolicy,
        nodes: &impl NodeView,
        now: Seconds,
    ) -> Option<LeaseClaim> {
        if request.registered.is_some() || self.leases.reserved(&mac).is_some() {
            return Some(LeaseClaim::Known);
        }
        match strangers {
            StrangerPolicy::Ignore => None,
            StrangerPolicy::Serve => {
                let known = self.registered_without_reservation(nodes, now);
                Some(LeaseClaim::guest(self.leases.pool().len(), known))
            }
        }
    }

    /// Number of registered machines without a reservation here. The count is cached, since there may be many
    /// reservations.
    fn registered_without_reservation(&mut self, nodes: &impl NodeView, now: Seconds) -> usize {
        if self.counted.1 != now {
            let reserved = self.leases.reserved_clients();
            let provided = reserved.filter(|mac| nodes.by_mac(*mac).is_some()).count();
            self.counted = (nodes.port_count().saturating_sub(provided), now);
        }
        self.counted.0
    }
}

/// The result of a request without a reply.
pub(crate) fn silent(why: NoReply) -> (RequestResult, DhcpDecision) {
    let result = if let NoReply::OtherServer(_) = why {
        RequestResult::OtherServer(why.to_string())
    } else {
        RequestResult::Silent(why.to_string())
    };
    (result, DhcpDecision::V4(why))
}

fn result_of(reply: &Packet) -> (RequestResult, DhcpDecision) {
    match reply.message {
        MessageType::Offer => (RequestResult::Offered(reply.yiaddr.into()), DhcpDecision::Offer),
        MessageType::Nak => {
            let because = reply.option(options::MESSAGE).unwrap_or_default();
            (
                RequestResult::Refused(String::from_utf8_lossy(because).into_owned()),
                DhcpDecision::Nak,
            )
        }
        MessageType::Ack
        | MessageType::Discover
        | MessageType::Request
        | MessageType::Decline
        | MessageType::Release
        | MessageType::Inform => (RequestResult::Given(reply.yiaddr.into()), DhcpDecision::Ack),
    }
}

#[cfg(test)]
mod tests {
    use crate::test_view::TestView;

    use super::*;

    fn mac(last: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, last])
    }

    #[test]
    fn an_address_is_kept_for_each_known_machine_that_has_none_of_its_own() {
        let pool =
            LeasePool { first: Ipv4Addr::new(10, 0, 0, 1), last: Ipv4Addr::new(10, 0, 0, 20) };
        let reserved = |last: u8| (mac(last), Ipv4Addr::new(10, 0, 1, last));
        // The last two are registered later.
        let leases = LeaseTable::new(pool, (4..=12).map(reserved));
        let about = reply::Network::new(pool.first, Ipv4Addr::new(255, 255, 0, 0), 600);
        let mut subnet = V4Subnet::new("10.0.0.0/16".parse().unwrap(), leases, about);
        let nodes = |ports: std::ops::RangeInclusive<u8>| TestView::with_ports(ports.map(mac));

        assert_eq!(subnet.registered_without_reservation(&nodes(1..=10), 1), 3);
        let again = subnet.registered_without_reservation(&nodes(1..=20), 1);
        assert_eq!(again, 3, "counted once in a second");
        assert_eq!(subnet.registered_without_reservation(&nodes(1..=20), 2), 11);
    }
}
