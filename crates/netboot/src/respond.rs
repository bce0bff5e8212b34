//! The path of a DHCP packet: from its bytes to the reply with the URL, for DHCPv4, DHCPv6 and ProxyDHCP alike.
//!
//! [`respond`] takes its four steps in order. Each step that fails says why.

use std::net::IpAddr;

use dhcp::address_family::AddressFamily;
use dhcp::journal::LeaseRecord;
use dhcp::leases::{LeaseClaim, LeaseTable};
use dhcp::limits::Millis;

use crate::boot_answer::{BootAnswer, BootContext, NameLookup, what_should_it_boot};
use crate::exchange::{DhcpExchange, DhcpRequest, Unanswered};
use crate::foreign_pools::ForeignPools;
use crate::node_view::NodeView;

/// Answers one packet. What changed of the leases must be in the journal of its subnet before the reply leaves.
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
    let ours = responder.is_it_for_us(packet, arrival, context)?;
    let who = responder.who_is_it(&ours, arrival, context, now)?;
    let (server, names) = responder.vantage(ours.subnet);
    let answer = what_should_it_boot(&who.request, server, names, context);
    Ok(responder.what_is_it_told(ours, arrival, who, answer, now))
}

/// The steps that differ between DHCPv4, DHCPv6 and ProxyDHCP, on one port of one network. A responder touches nothing
/// outside of memory.
pub trait Responder {
    /// The addresses that a packet came from and was sent to.
    type Arrival: Copy;
    /// A client's message.
    type Message;
    /// What identifies a client beyond its request.
    type Client;
    /// A reply with its destination.
    type Reply;
    /// The addresses that are leased.
    type Address: AddressFamily;
    /// The name of the address family among counters: `ipv4`, `ipv6`.
    const FAMILY: &'static str;

    /// Step 1: is it for us? Reads the packet, and finds the subnet that its client is in.
    ///
    /// # Errors
    /// It cannot be read, is no client's message, comes from no subnet of ours, or is forged.
    fn is_it_for_us<N: NodeView>(
        &self,
        packet: &[u8],
        arrival: Self::Arrival,
        context: &BootContext<'_, N>,
    ) -> Result<OurMessage<Self::Message>, Unanswered>;

    /// Step 2: who is it? Finds the client's port and node, and what the client may claim of the leases.
    ///
    /// # Errors
    /// Nobody registered the machine, or it asks more often than it may.
    fn who_is_it<N: NodeView>(
        &mut self,
        ours: &OurMessage<Self::Message>,
        arrival: Self::Arrival,
        context: &BootContext<'_, N>,
        now: Millis,
    ) -> Result<IdentifiedClient<Self::Client>, Unanswered>;

    /// For step 3, [`what_should_it_boot`]: our address as clients of the subnet reach it, and whether they can look up
    /// names.
    fn vantage(&self, subnet: usize) -> (IpAddr, NameLookup);

    /// Step 4: what is it told? Decides about the lease, and makes the reply.
    fn what_is_it_told(
        &mut self,
        ours: OurMessage<Self::Message>,
        arrival: Self::Arrival,
        who: IdentifiedClient<Self::Client>,
        answer: BootAnswer,
        now: Millis,
    ) -> ExchangeOf<Self>;

    /// Leaves clients with an address of these pools to the daemons that give them, from now on.
    fn set_foreign_pools(&mut self, pools: &ForeignPools);

    /// The leases of each subnet: the interface's own, then those that are reached through relays.
    fn leases(&self) -> impl Iterator<Item = &LeaseTable<Self::Address>>;
}

/// What comes of a packet that a responder answers.
pub type ExchangeOf<R> =
    DhcpExchange<<R as Responder>::Reply, LeaseRecord<<R as Responder>::Address>>;

/// A client's message that is for us.
#[derive(Clone, Debug)]
pub struct OurMessage<M> {
    /// The message.
    pub message: M,
    /// The position of the client's subnet among those of the responder.
    pub subnet: usize,
}

/// The client of a message.
#[derive(Debug)]
pub struct IdentifiedClient<C> {
    /// The request that it makes.
    pub request: DhcpRequest,
    /// What identifies it beyond that.
    pub client: C,
    /// What it may claim of the leases.
    pub claim: LeaseClaim,
}
