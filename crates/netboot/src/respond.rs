//! The path of a DHCP packet: from its bytes to the reply with the URL, for DHCPv4, DHCPv6 and ProxyDHCP alike.
//!
//! [`respond`] takes the four steps in order. Each step that fails returns the reason.

use std::net::IpAddr;

use dhcp::address_family::AddressFamily;
use dhcp::journal::LeaseRecord;
use dhcp::leases::{LeaseClaim, LeaseHolder, LeaseTable};
use dhcp::limits::{Exceeded, Millis};

use crate::boot_answer::{BootAnswer, BootContext, NameLookup, choose_boot};
use crate::dhcp_request::DhcpRequest;
use crate::exchange::{DhcpExchange, NoReplyReason, Unanswered};
use crate::foreign_pools::ForeignPools;
use crate::node_view::NodeView;

/// Answers one packet. Lease changes must be in the subnet's journal before the reply is sent.
pub fn respond<R: Responder, N: NodeView>(
    responder: &mut R,
    packet: &[u8],
    arrival: R::Arrival,
    context: &BootContext<'_, N>,
    now: Millis,
) -> ExchangeOf<R> {
    let exchange = take_four_steps(responder, packet, arrival, context, now);
    exchange.unwrap_or_else(|unanswered| DhcpExchange::unanswered(R::FAMILY, unanswered))
}

fn take_four_steps<R: Responder, N: NodeView>(
    responder: &mut R,
    packet: &[u8],
    arrival: R::Arrival,
    context: &BootContext<'_, N>,
    now: Millis,
) -> Result<ExchangeOf<R>, Unanswered> {
    let ours = responder.check_destination(packet, arrival, context)?;
    let who = responder.identify_client(&ours, arrival, context, now)?;
    let (server, names) = responder.vantage(ours.subnet);
    let answer = choose_boot(&who.request, server, names, context);
    Ok(responder.build_reply(ours, arrival, who, answer, now))
}

/// The steps that differ between DHCPv4, DHCPv6 and ProxyDHCP, on one port of one network. A responder touches only
/// memory.
pub trait Responder {
    /// The source and destination addresses of a packet.
    type Arrival: Copy;
    /// A client's message.
    type Message;
    /// The client's identification beyond its request.
    type Client;
    /// A reply with its destination.
    type Reply;
    /// The type of leased addresses.
    type Address: AddressFamily;
    /// The address family's label in metrics: `ipv4`, `ipv6`.
    const FAMILY: &'static str;

    /// Step 1: check the destination. Parses the packet, and finds the client's subnet.
    ///
    /// # Errors
    /// The packet is unreadable, no client's message, from no served subnet, or forged.
    fn check_destination<N: NodeView>(
        &self,
        packet: &[u8],
        arrival: Self::Arrival,
        context: &BootContext<'_, N>,
    ) -> Result<OurMessage<Self::Message>, Unanswered>;

    /// Step 2: identify the client. Finds the client's port and node, and its claim to leases.
    ///
    /// # Errors
    /// The machine is not registered, or exceeds its rate limit.
    fn identify_client<N: NodeView>(
        &mut self,
        ours: &OurMessage<Self::Message>,
        arrival: Self::Arrival,
        context: &BootContext<'_, N>,
        now: Millis,
    ) -> Result<IdentifiedClient<Self::Client>, Unanswered>;

    /// Inputs of step 3, [`choose_boot`]: the service's address as seen from the subnet, and whether its
    /// clients can resolve names.
    fn vantage(&self, subnet: usize) -> (IpAddr, NameLookup);

    /// Step 4: build the reply. Decides about the lease, and builds the reply.
    fn build_reply(
        &mut self,
        ours: OurMessage<Self::Message>,
        arrival: Self::Arrival,
        who: IdentifiedClient<Self::Client>,
        answer: BootAnswer,
        now: Millis,
    ) -> ExchangeOf<Self>;

    /// Leaves clients with an address of these pools to the daemons that give them, from now on.
    fn set_foreign_pools(&mut self, pools: &ForeignPools);

    /// The leases of each subnet: the interface's own first, then the relayed ones.
    fn leases(&self) -> impl Iterator<Item = &LeaseTable<Self::Address>>;
}

/// The outcome of a packet at a responder.
pub type ExchangeOf<R> =
    DhcpExchange<<R as Responder>::Reply, LeaseRecord<<R as Responder>::Address>>;

/// A client's message that is for this server.
#[derive(Clone, Debug)]
pub struct OurMessage<M> {
    /// The message.
    pub message: M,
    /// The position of the client's subnet in the responder's list.
    pub subnet: usize,
}

/// The client of a message.
#[derive(Debug)]
pub struct IdentifiedClient<C> {
    /// Its request.
    pub request: DhcpRequest,
    /// Its identification beyond the request.
    pub client: C,
    /// Its claim to leases.
    pub claim: LeaseClaim,
}

impl<C> IdentifiedClient<C> {
    /// The client of a request, with its claim; an unregistered machine has none. `admit` counts the request.
    pub(crate) fn admitted(
        request: DhcpRequest,
        client: C,
        claim: Option<LeaseClaim>,
        admit: impl FnOnce(LeaseHolder) -> Result<(), Exceeded>,
    ) -> Result<Self, Unanswered> {
        let Some(claim) = claim else {
            return Err(Unanswered::Request(request, NoReplyReason::stranger()));
        };
        match admit(claim.holder()) {
            Ok(()) => Ok(Self { request, client, claim }),
            Err(exceeded) => Err(Unanswered::Request(request, exceeded.into())),
        }
    }
}
