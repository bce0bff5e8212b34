//! ProxyDHCP on one port of an interface, beside another server that leases the addresses. It keeps no state.

use std::iter;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use dhcp::leases::{LeaseClaim, LeaseTable};
use dhcp::limits::{Millis, RateLimits};
use dhcp::v4::decide::NoReply;
use dhcp::v4::destination::{Destination, destination};
use dhcp::v4::proxy::{ProxyPort, decide};
use dhcp::v4::{Packet, reply};

use crate::boot_answer::{BootAnswer, BootContext, NameLookup};
use crate::dhcp_decision::DhcpDecision;
use crate::exchange::{DhcpExchange, ExchangeLabels, RequestOutcome, RequestResult, Unanswered};
use crate::foreign_pools::ForeignPools;
use crate::node_view::NodeView;
use crate::respond::{ExchangeOf, IdentifiedClient, OurMessage, Responder};
use crate::v4::{FAMILY, V4Arrival, V4Reply, parse, request, silent};

/// Answers on one port of a ProxyDHCP server.
#[derive(Clone, Debug)]
pub struct ProxyResponder {
    port: ProxyPort,
    about: reply::Network,
    limits: RateLimits,
}

impl ProxyResponder {
    /// A responder for a port.
    #[must_use]
    pub fn new(port: ProxyPort, about: reply::Network, limits: RateLimits) -> Self {
        Self { port, about, limits }
    }

    /// The service's address on the interface.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.about.server
    }

    /// Accepts this server identifier as ours.
    pub fn accept_server_id(&mut self, server: Ipv4Addr) {
        self.about.server = server;
    }

    /// The destination of a reply.
    fn to(&self, message: &Packet, reply: &Packet, from: SocketAddrV4) -> Destination {
        match self.port {
            ProxyPort::Pxe if !from.ip().is_unspecified() => Destination::Unicast(from),
            // The unspecified address cannot be replied to.
            ProxyPort::Dhcp | ProxyPort::Pxe => destination(message, from, reply),
        }
    }
}

impl Responder for ProxyResponder {
    type Arrival = V4Arrival;
    type Message = Packet;
    type Client = ();
    type Reply = V4Reply;
    /// A proxy leases no addresses.
    type Address = Ipv4Addr;
    const FAMILY: &'static str = FAMILY;

    fn check_destination<N: NodeView>(
        &self,
        packet: &[u8],
        _: V4Arrival,
        _: &BootContext<'_, N>,
    ) -> Result<OurMessage<Packet>, Unanswered> {
        Ok(OurMessage { message: parse(packet)?, subnet: 0 })
    }

    fn identify_client<N: NodeView>(
        &mut self,
        OurMessage { message, .. }: &OurMessage<Packet>,
        _: V4Arrival,
        context: &BootContext<'_, N>,
        now: Millis,
    ) -> Result<IdentifiedClient<()>, Unanswered> {
        let request = request(message, context);
        let claim = request.registered.is_some().then_some(LeaseClaim::Known);
        let admit = |holder| self.limits.admit(&message.chaddr.0, holder, now);
        IdentifiedClient::admitted(request, (), claim, admit)
    }

    fn vantage(&self, _: usize) -> (IpAddr, NameLookup) {
        // Name servers come from the other server.
        (self.about.server.into(), NameLookup::Possible)
    }

    fn build_reply(
        &mut self,
        OurMessage { message, .. }: OurMessage<Packet>,
        V4Arrival { from, .. }: V4Arrival,
        IdentifiedClient { request, .. }: IdentifiedClient<()>,
        answer: BootAnswer,
        _: Millis,
    ) -> ExchangeOf<Self> {
        let decision = decide(&message, self.port, &answer.instruction, &self.about);
        let (reply, result, decided) = match decision {
            Ok(reply) => (Some(reply), RequestResult::Beside, DhcpDecision::Beside),
            // The client's exchange with the other server is broadcast, too.
            Err(why @ NoReply::NotForAProxy) => (None, RequestResult::Noted, DhcpDecision::V4(why)),
            Err(why) => {
                let (result, decided) = silent(why);
                (None, result, decided)
            }
        };
        DhcpExchange {
            reply: reply.map(|reply| V4Reply { to: self.to(&message, &reply, from), reply }),
            records: Vec::new(),
            labels: ExchangeLabels::of(&request, FAMILY, decided),
            outcome: Ok(RequestOutcome { request, answer, result }),
        }
    }

    /// A proxy refuses no addresses.
    fn set_foreign_pools(&mut self, _: &ForeignPools) {}

    fn leases(&self) -> impl Iterator<Item = &LeaseTable<Ipv4Addr>> {
        iter::empty()
    }
}
