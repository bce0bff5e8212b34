//! DHCPv6 of one network, without its socket: a packet comes in, and what is to be done goes out.

use std::net::{Ipv6Addr, SocketAddrV6};

use dhcp::client::Features;
use dhcp::leases::Claim;
use dhcp::limits::{Limits, Millis};
use dhcp::v6::client::Client;
use dhcp::v6::decide::{Decision, Silence, decide};
use dhcp::v6::leases::{Identity, Leases, Pool};
use dhcp::v6::{MessageType, Packet, options, reply};
use ipnet::Ipv6Net;
use provision::Mac;
use uuid::Uuid;

use super::counter::{self, HeardAt};
use super::heard::{Asked, Done, Heard, Story};
use super::machines::{Machines, Names, kind};
use super::socket;
use crate::config::Strangers;
use crate::urls::Family;

/// What it is called among counters.
const FAMILY: &str = "ipv6";

/// What is known of the network, and who has which address on it.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    /// Our address on the interface, which URLs can have in them.
    address: Ipv6Addr,
    /// The interface's own, then those that are reached through relays.
    subnets: Vec<Subnet>,
    strangers: Strangers,
    limits: Limits,
}

/// Addresses of one subnet, and what its clients are told.
#[derive(Clone, Debug)]
pub(super) struct Subnet {
    /// Which it is.
    pub(super) net: Ipv6Net,
    /// Who has which.
    pub(super) leases: Leases,
    /// What every client on it is told.
    pub(super) about: reply::Network,
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
        strangers: Strangers,
        limits: Limits,
    ) -> Self {
        Self { address, subnets, strangers, limits }
    }

    /// Our address on the interface.
    pub(super) fn address(&self) -> Ipv6Addr {
        self.address
    }

    /// The addresses that it gives.
    pub(super) fn pools(&self) -> impl Iterator<Item = Pool> {
        self.subnets.iter().map(|subnet| subnet.leases.pool())
    }
}

impl counter::Desk for Desk {
    type From = SocketAddrV6;
    type Reply = Reply;
    type Leases = Leases;
    const FAMILY: &'static str = FAMILY;

    fn hear(
        &mut self,
        bytes: &[u8],
        from: SocketAddrV6,
        machines: &Machines,
        now: Millis,
    ) -> HeardAt<Self> {
        let request = match Packet::parse_request(bytes) {
            Ok(request) => request,
            Err(error) => return Heard::unreadable(FAMILY, error.to_string()),
        };
        let client = Client::identify(&request, *from.ip());
        let asked = asked(&request, &client, machines);
        let identity = identity(&asked, &client);
        let link = request.link();
        let at = match link {
            None => Some(0),
            Some(link) => self.subnets.iter().position(|subnet| subnet.net.contains(&link)),
        };
        let Some((at, subnet)) = at.and_then(|at| Some((at, self.subnets.get_mut(at)?))) else {
            let because = format!(
                "a relay sent it from the link of {}, for which there is no subnet: add a \
                 [[dhcp.network.relayed]]",
                link.unwrap_or(Ipv6Addr::UNSPECIFIED)
            );
            return Heard::silent(FAMILY, asked, "no_subnet", because);
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
        let decision = decide(message, &client, identity, &told.answer, claim, leases, about, now);
        let (reply, records, done, decided) = match decision {
            Decision::Silent(why @ Silence::OtherServer) => {
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

    fn leases(&self) -> impl Iterator<Item = &Leases> {
        self.subnets.iter().map(|subnet| &subnet.leases)
    }
}

impl Subnet {
    /// What the machine may claim; nothing, where it must be left alone.
    fn claim(
        &self,
        asked: &Asked,
        identity: &Identity,
        strangers: Strangers,
        known: usize,
    ) -> Option<Claim> {
        if asked.found.is_some() || self.leases.reserved(identity).is_some() {
            return Some(Claim::Known);
        }
        let pool = usize::try_from(self.leases.pool().len()).unwrap_or(usize::MAX);
        match strangers {
            Strangers::Ignore => None,
            Strangers::Serve => Some(Claim::guest(pool, known)),
        }
    }
}

/// The node is found by the card's address, else by the machine's UUID (RFC 6355): a card of a machine
/// may be one that nobody registered.
fn asked(request: &Packet, client: &Client, machines: &Machines) -> Asked {
    let by_mac = client.mac.and_then(|mac| machines.index.by_mac(Mac(mac)));
    let by_uuid = || machines.index.by_machine_id(client.machine_id?);
    let found = by_mac.or_else(by_uuid);
    let kind = kind(client.kind);
    Asked {
        architecture: machines.choose(found.as_ref(), kind, &client.architectures, Family::V6),
        found,
        message: request.message.kind.name(),
        mac: client.mac.map(Mac),
        client: kind,
        // Over IPv6 iPXE has no option to say it in.
        features: Features::default(),
    }
}

/// Whoever a packet came from: clients listen where they send from, and relays on the servers' port
/// (RFC 8415 §7.2), unless they say that it is the other way with them (RFC 8357 §5.2).
fn back_to(from: SocketAddrV6, request: &Packet) -> SocketAddrV6 {
    let port = match request.relays.first() {
        Some(relay) if relay.options.get(options::RELAY_PORT).is_none() => socket::SERVER6,
        Some(_) | None => from.port(),
    };
    SocketAddrV6::new(*from.ip(), port, 0, from.scope_id())
}

/// Whose the address is: the port's, whatever DUID its machine comes with.
fn identity(asked: &Asked, client: &Client) -> Identity {
    let port = asked.found.as_ref().map(|found| found.port.address);
    match port.or(asked.mac) {
        Some(mac) => of_mac(mac),
        None => *Uuid::new_v5(&Uuid::nil(), &client.duid).as_bytes(),
    }
}

/// The identity that a MAC address has among leases.
pub(super) fn of_mac(mac: Mac) -> Identity {
    let mut identity = *b"ferroboot:------";
    identity[10..].copy_from_slice(&mac.0);
    identity
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
    use dhcp::v6::packet::{Options, Relay};

    use super::*;

    #[test]
    fn a_relay_is_answered_on_the_servers_port_unless_it_has_one_of_its_own() {
        let from: SocketAddrV6 = "[2001:db8::1]:5470".parse().unwrap();
        let message = [&[11, 1, 2, 3][..], &[0, 1, 0, 2, 0, 4]].concat();
        let packet = |relays| Packet { relays, ..Packet::parse(&message).unwrap() };
        let relay = |options| Relay {
            hops: 0,
            link: Ipv6Addr::UNSPECIFIED,
            peer: Ipv6Addr::LOCALHOST,
            options: Options(options),
        };

        assert_eq!(back_to(from, &packet(vec![])).port(), 5470, "a client");
        assert_eq!(back_to(from, &packet(vec![relay(vec![])])).port(), socket::SERVER6);
        let own = vec![(options::RELAY_PORT, vec![0, 0])];
        assert_eq!(back_to(from, &packet(vec![relay(own)])).port(), 5470);
    }
}
