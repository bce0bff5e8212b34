//! DHCPv4 beside another server, which gives the addresses: without sockets, and without anything to
//! remember.

use std::convert::Infallible;

use dhcp::leases::Holder;
use dhcp::limits::{Limits, Millis};
use dhcp::v4::decide::Silence;
use dhcp::v4::proxy::{Port, decide};
use dhcp::v4::{Packet, reply};

use super::Machines;
use super::heard::{Done, Heard, Story};
use super::v4::{FAMILY, Reply, asked};

/// What is known of the network.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    about: reply::Network,
    limits: Limits,
}

impl Desk {
    pub(super) fn new(about: reply::Network, limits: Limits) -> Self {
        Self { about, limits }
    }

    pub(super) fn about(&self) -> &reply::Network {
        &self.about
    }

    /// Decides about a packet that came in on one of a proxy's ports.
    pub(super) fn hear(
        &mut self,
        bytes: &[u8],
        port: Port,
        machines: &Machines,
        now: Millis,
    ) -> Heard<Reply, Infallible> {
        let request = match Packet::parse(bytes) {
            Ok(request) => request,
            Err(error) => return Heard::unreadable(FAMILY, error.to_string()),
        };
        let asked = asked(&request, machines);
        if asked.found.is_none() {
            let because = "nobody registered this machine".to_owned();
            return Heard::silent(FAMILY, asked, "stranger", because);
        }
        if let Err(exceeded) = self.limits.admit(&request.chaddr, Holder::Known, now) {
            return Heard::silent(FAMILY, asked, exceeded.name(), exceeded.to_string());
        }
        let told = machines.tell(&asked, self.about.server.into());
        let (reply, done, decided) = match decide(&request, port, &told.answer, &self.about) {
            Ok(reply) => (Some(reply), Done::Beside, "beside"),
            // The conversation with the other server goes on in everybody's hearing.
            Err(why @ Silence::NotForAProxy) => (None, Done::Noted, why.name()),
            Err(why @ Silence::OtherServer(_)) => (None, Done::Others(why.to_string()), why.name()),
            Err(why) => (None, Done::Silent(why.to_string()), why.name()),
        };
        Heard {
            reply: reply.map(|reply| Reply { request, reply }),
            records: Vec::new(),
            counted: asked.counted(FAMILY, decided),
            story: Some(Story { asked, told, done }),
            unreadable: None,
        }
    }
}
