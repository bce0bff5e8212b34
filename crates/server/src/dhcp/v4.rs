//! DHCPv4 of one network, without its socket: a packet comes in, and what is to be done goes out.

use std::net::{Ipv4Addr, SocketAddrV4};

use dhcp::client::Client;
use dhcp::leases::{LeaseClaim, LeasePool, LeaseTable, Seconds};
use dhcp::limits::{Limits, Millis};
use dhcp::v4::decide::{Decision, NoReply, decide};
use dhcp::v4::destination::{Destination, destination};
use dhcp::v4::relay::{self, relayed};
use dhcp::v4::{MessageType, Packet, options, reply};
use hardware::Mac;
use ipnet::Ipv4Net;
use netboot::network_settings::StrangerPolicy;
use netboot::urls::IpFamily;
use nodes::NodeIndex;

use super::counter::{self, HeardAt};
use super::heard::{Asked, Done, Heard, Story};
use super::machines::{Machines, Names};

/// What it is called among counters.
pub(super) const FAMILY: &str = "ipv4";

/// What is known of the network, and who has which address on it.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    /// The interface's own, then those that are reached through relays.
    subnets: Vec<Subnet>,
    strangers: StrangerPolicy,
    limits: Limits,
}

/// Addresses of one subnet, and what its clients are told.
#[derive(Clone, Debug)]
pub(super) struct Subnet {
    /// Which it is.
    pub(super) net: Ipv4Net,
    /// Who has which.
    pub(super) leases: LeaseTable<Ipv4Addr>,
    /// What every client on it is told.
    pub(super) about: reply::Network,
    /// How many known machines may need an address of the pool, and the second in which they were counted.
    counted: (usize, Seconds),
}

/// The way that a packet came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) from: SocketAddrV4,
    /// Where it was sent to.
    pub(super) to: Ipv4Addr,
}

/// An answer on its way.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) reply: Packet,
    pub(super) to: Destination,
}

impl Desk {
    /// Of subnets, the first of which is the interface's own.
    pub(super) fn new(mut subnets: Vec<Subnet>, strangers: StrangerPolicy, limits: Limits) -> Self {
        let nets: Vec<_> = subnets.iter().map(|subnet| subnet.net).collect();
        for Subnet { net, about, .. } in &mut subnets {
            about.others = nets.iter().copied().filter(|other| other != net).collect();
        }
        Self { subnets, strangers, limits }
    }

    /// Our address on the interface.
    pub(super) fn address(&self) -> Ipv4Addr {
        self.subnets.first().map_or(Ipv4Addr::UNSPECIFIED, |own| own.about.server)
    }

    /// Takes the name for its own that a client knows it by.
    pub(super) fn is_called(&mut self, server: Ipv4Addr) {
        self.subnets.iter_mut().for_each(|subnet| subnet.about.server = server);
    }

    /// The addresses that it gives.
    pub(super) fn pools(&self) -> impl Iterator<Item = LeasePool<Ipv4Addr>> {
        self.subnets.iter().map(|subnet| subnet.leases.pool())
    }

    fn answer(
        &mut self,
        request: Packet,
        Way { from, to }: Way,
        asked: Asked,
        machines: &Machines,
        now: Millis,
    ) -> HeardAt<Self> {
        let link = relay::link(&request, *from.ip(), to);
        let of_link = link.and_then(|link| self.subnets.iter().position(|s| s.net.contains(&link)));
        // Whoever comes past all relays from an address of no subnet has it from elsewhere, and is here.
        let at = of_link.or_else(|| relayed(&request).is_none().then_some(0));
        let Some((at, subnet)) = at.and_then(|at| Some((at, self.subnets.get_mut(at)?))) else {
            let link = link.unwrap_or(Ipv4Addr::UNSPECIFIED);
            let because = format!(
                "a relay sent it from the link of {link}, for which there is no subnet: add a \
                 [[dhcp.network.relayed]]"
            );
            return Heard::silent(FAMILY, asked, "no_subnet", because);
        };
        let Some(claim) =
            subnet.claim(&asked, request.chaddr, self.strangers, &machines.index, now / 1_000)
        else {
            // Whoever else lives on this network: nothing is known of it, and nothing kept.
            let because = "nobody registered this machine".to_owned();
            return Heard::silent(FAMILY, asked, "stranger", because);
        };
        if let Err(exceeded) = self.limits.admit(&request.chaddr.0, claim.holder(), now) {
            return Heard::silent(FAMILY, asked, exceeded.name(), exceeded.to_string());
        }
        let Subnet { leases, about, .. } = subnet;
        let told = machines.tell(&asked, about.server.into(), Names::told(&about.dns));
        let decision = decide(&request, &told.answer, claim, leases, about, now / 1_000);
        let (reply, records, done, decided) = match decision {
            Decision::Silent(why @ NoReply::OtherServer(_)) => {
                (None, Vec::new(), Done::Others(why.to_string()), why.name())
            }
            Decision::Silent(why) => (None, Vec::new(), Done::Silent(why.to_string()), why.name()),
            Decision::Note { records } => (None, records, Done::Noted, "noted"),
            Decision::Send { reply, record } => {
                let (done, decided) = done(&reply);
                (Some(reply), record.into_iter().collect(), done, decided)
            }
        };
        Heard {
            reply: reply.map(|reply| Reply { to: destination(&request, from, &reply), reply }),
            records: records.into_iter().map(|record| (at, record)).collect(),
            counted: asked.counted(FAMILY, decided),
            story: Some(Story { asked, told, done }),
            unreadable: None,
        }
    }
}

impl counter::Desk for Desk {
    type From = Way;
    type Reply = Reply;
    type Address = Ipv4Addr;
    const FAMILY: &'static str = FAMILY;

    fn hear(&mut self, bytes: &[u8], way: Way, machines: &Machines, now: Millis) -> HeardAt<Self> {
        let request = match Packet::parse(bytes) {
            Ok(request) => request,
            Err(error) if error.is_of_others() => {
                return Heard::of_others(FAMILY, error.to_string());
            }
            Err(error) => return Heard::unreadable(FAMILY, error.to_string()),
        };
        let asked = asked(&request, machines);
        self.answer(request, way, asked, machines, now)
    }

    fn leases(&self) -> impl Iterator<Item = &LeaseTable<Ipv4Addr>> {
        self.subnets.iter().map(|subnet| &subnet.leases)
    }
}

/// Who asks what.
pub(super) fn asked(request: &Packet, machines: &Machines) -> Asked {
    let client = Client::identify(request);
    let mac = client.mac;
    let found = machines.index.by_mac(mac);
    Asked {
        architecture: machines.choose(
            found.as_ref(),
            client.kind,
            &client.architectures,
            IpFamily::V4,
        ),
        found,
        message: request.message.name(),
        mac: Some(mac),
        client: client.kind,
        features: client.features,
    }
}

impl Subnet {
    pub(super) fn new(net: Ipv4Net, leases: LeaseTable<Ipv4Addr>, about: reply::Network) -> Self {
        Self { net, leases, about, counted: (0, 0) }
    }

    /// What the machine may claim; nothing, where it must be left alone.
    fn claim(
        &mut self,
        asked: &Asked,
        mac: Mac,
        strangers: StrangerPolicy,
        index: &NodeIndex,
        now: Seconds,
    ) -> Option<LeaseClaim> {
        if asked.found.is_some() || self.leases.reserved(&mac).is_some() {
            return Some(LeaseClaim::Known);
        }
        match strangers {
            StrangerPolicy::Ignore => None,
            StrangerPolicy::Serve => {
                let known = self.known(index, now);
                Some(LeaseClaim::guest(self.leases.pool().len(), known))
            }
        }
    }

    /// How many known machines there are without an address of their own here. They are not counted for each stranger:
    /// there may be many reservations.
    fn known(&mut self, index: &NodeIndex, now: Seconds) -> usize {
        if self.counted.1 != now {
            let reserved = self.leases.reserved_clients();
            let provided = reserved.filter(|mac| index.by_mac(*mac).is_some()).count();
            self.counted = (index.ports().saturating_sub(provided), now);
        }
        self.counted.0
    }
}

fn done(reply: &Packet) -> (Done, &'static str) {
    match reply.message {
        MessageType::Offer => (Done::Offered(reply.yiaddr.into()), "offer"),
        MessageType::Nak => {
            let because = reply.option(options::MESSAGE).unwrap_or_default();
            (Done::Refused(String::from_utf8_lossy(because).into_owned()), "nak")
        }
        MessageType::Ack
        | MessageType::Discover
        | MessageType::Request
        | MessageType::Decline
        | MessageType::Release
        | MessageType::Inform => (Done::Given(reply.yiaddr.into()), "ack"),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use provision::{Node, Port};
    use serde_json::Map;
    use uuid::Uuid;

    use super::*;

    /// A node with a port for each number.
    fn index(ports: impl Iterator<Item = u8>) -> NodeIndex {
        let node = Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH);
        let port = |last| Port {
            uuid: Uuid::from_u128(u128::from(last)),
            node_uuid: node.uuid,
            address: mac(last),
            pxe_enabled: true,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: None,
            extra: Map::new(),
            kept: Map::new(),
        };
        let ports = ports.map(port).collect();
        let index = NodeIndex::default();
        index.put_node(node);
        index.put_ports(Uuid::nil(), ports);
        index
    }

    fn mac(last: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, last])
    }

    #[test]
    fn an_address_is_kept_for_each_known_machine_that_has_none_of_its_own() {
        let pool =
            LeasePool { first: Ipv4Addr::new(10, 0, 0, 1), last: Ipv4Addr::new(10, 0, 0, 20) };
        let reserved = |last: u8| (mac(last), Ipv4Addr::new(10, 0, 1, last));
        // Eleven and twelve are registered later.
        let leases = LeaseTable::new(pool, (4..=12).map(reserved));
        let about = reply::Network::new(pool.first, Ipv4Addr::new(255, 255, 0, 0), 600);
        let mut subnet = Subnet::new("10.0.0.0/16".parse().unwrap(), leases, about);

        assert_eq!(subnet.known(&index(1..=10), 1), 3);
        assert_eq!(subnet.known(&index(1..=20), 1), 3, "counted once in a second");
        assert_eq!(subnet.known(&index(1..=20), 2), 11);
    }
}
