//! DHCPv4 beside another server, which gives the addresses: without sockets, and without anything to
//! remember.

use std::iter;
use std::net::{Ipv4Addr, SocketAddrV4};

use dhcp::leases::{LeaseHolder, LeaseTable};
use dhcp::limits::{Limits, Millis};
use dhcp::v4::decide::NoReply;
use dhcp::v4::destination::{Destination, destination};
use dhcp::v4::proxy::{ProxyPort, decide};
use dhcp::v4::{Packet, reply};

use super::counter::{self, HeardAt};
use super::heard::{Done, Heard, Story};
use super::machines::{Machines, Names};
use super::v4::{FAMILY, Reply, Way, asked};

/// What is known of the network, at one of a proxy's ports.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    port: ProxyPort,
    about: reply::Network,
    limits: Limits,
}

impl Desk {
    pub(super) fn new(port: ProxyPort, about: reply::Network, limits: Limits) -> Self {
        Self { port, about, limits }
    }

    pub(super) fn about(&self) -> &reply::Network {
        &self.about
    }

    /// Takes the name for its own that a client knows it by.
    pub(super) fn is_called(&mut self, server: Ipv4Addr) {
        self.about.server = server;
    }

    /// Where an answer goes.
    fn to(&self, request: &Packet, reply: &Packet, from: SocketAddrV4) -> Destination {
        match self.port {
            ProxyPort::Pxe if !from.ip().is_unspecified() => Destination::Unicast(from),
            // Nobody is reached at no address.
            ProxyPort::Dhcp | ProxyPort::Pxe => destination(request, from, reply),
        }
    }
}

impl counter::Desk for Desk {
    type From = Way;
    type Reply = Reply;
    /// Of which it has none.
    type Address = Ipv4Addr;
    const FAMILY: &'static str = FAMILY;

    fn hear(
        &mut self,
        bytes: &[u8],
        Way { from, .. }: Way,
        machines: &Machines,
        now: Millis,
    ) -> HeardAt<Self> {
        let request = match Packet::parse(bytes) {
            Ok(request) => request,
            Err(error) if error.is_of_others() => {
                return Heard::of_others(FAMILY, error.to_string());
            }
            Err(error) => return Heard::unreadable(FAMILY, error.to_string()),
        };
        let asked = asked(&request, machines);
        if asked.found.is_none() {
            let because = "nobody registered this machine".to_owned();
            return Heard::silent(FAMILY, asked, "stranger", because);
        }
        if let Err(exceeded) = self.limits.admit(&request.chaddr.0, LeaseHolder::Known, now) {
            return Heard::silent(FAMILY, asked, exceeded.name(), exceeded.to_string());
        }
        // Name servers come from the other server.
        let told = machines.tell(&asked, self.about.server.into(), Names::Known);
        let (reply, done, decided) = match decide(&request, self.port, &told.answer, &self.about) {
            Ok(reply) => (Some(reply), Done::Beside, "beside"),
            // The conversation with the other server goes on in everybody's hearing.
            Err(why @ NoReply::NotForAProxy) => (None, Done::Noted, why.name()),
            Err(why @ NoReply::OtherServer(_)) => (None, Done::Others(why.to_string()), why.name()),
            Err(why) => (None, Done::Silent(why.to_string()), why.name()),
        };
        Heard {
            reply: reply.map(|reply| Reply { to: self.to(&request, &reply, from), reply }),
            records: Vec::new(),
            counted: asked.counted(FAMILY, decided),
            story: Some(Story { asked, told, done }),
            unreadable: None,
        }
    }

    fn leases(&self) -> impl Iterator<Item = &LeaseTable<Ipv4Addr>> {
        iter::empty()
    }
}
