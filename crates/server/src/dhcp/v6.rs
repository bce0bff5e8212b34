//! The DHCPv6 server of one network, and its router advertisements.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::path::Path;

use anyhow::{Context as _, Result};
use dhcp::v6::client::Client;
use dhcp::v6::decide::{Decision, Silence, decide};
use dhcp::v6::leases::{Leases, Pool};
use dhcp::v6::{MessageType, Packet, reply};
use provision::Mac;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::advertise::Advertiser;
use super::journal::{self, Journal};
use super::socket::{self, Link, Socket6};
use super::{Asked, Done, Machines, kind, now};
use crate::config;

#[derive(Debug)]
pub(super) struct Server {
    link: Link,
    socket: Socket6,
    advertiser: Option<Advertiser>,
    journal: Journal<Leases>,
    leases: Leases,
    about: reply::Network,
}

impl Server {
    pub(super) fn open(
        settings: &config::Network,
        pool: Pool,
        lease_secs: u32,
        state_dir: &Path,
    ) -> Result<Self> {
        let link = Link::find(&settings.interface)?;
        let path = state_dir.join(format!("leases6-{}.journal", link.name));
        let (journal, leases) = Journal::open(&path, pool)
            .with_context(|| format!("cannot keep leases in {}", path.display()))?;
        let dns = settings.dns6();
        let advertiser = settings
            .advertise
            .then(|| Advertiser::open(&link, dns.clone()))
            .transpose()
            .with_context(|| format!("cannot advertise on {}", link.name))?;
        Ok(Self {
            socket: Socket6::open(&link)?,
            advertiser,
            journal,
            leases,
            about: reply::Network { duid: link.duid(), sole: true, dns, lease_secs },
            link,
        })
    }

    pub(super) fn address(&self) -> Ipv6Addr {
        self.link.address
    }

    pub(super) async fn run(mut self, machines: &Machines, end: &CancellationToken) {
        let Pool { first, last } = self.leases.pool();
        info!("answering DHCPv6 on {}, addresses {first} to {last}", self.link.name);
        let advertiser = self.advertiser.take();
        let advertising = async {
            if let Some(advertiser) = advertiser {
                advertiser.run(end).await;
            }
        };
        tokio::join!(advertising, self.answer(machines, end));
    }

    async fn answer(mut self, machines: &Machines, end: &CancellationToken) {
        let mut sync = interval(journal::SYNC_EVERY);
        sync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                packet = self.socket.receive() => match packet {
                    Ok((bytes, from)) => self.take(&bytes, from, machines).await,
                    Err(error) => {
                        warn!(%error, "DHCPv6 on {} cannot receive", self.link.name);
                        tokio::time::sleep(socket::AFTER_ERROR).await;
                    }
                },
                _ = sync.tick() => self.journal.sync(&self.leases).await,
                () = end.cancelled() => break,
            }
        }
        self.journal.close().await;
    }

    async fn take(&mut self, bytes: &[u8], from: SocketAddrV6, machines: &Machines) {
        let request = match Packet::parse(bytes) {
            Ok(request) => request,
            Err(error) => {
                debug!(%error, "a DHCPv6 packet on {} is dropped", self.link.name);
                return;
            }
        };
        let message = request.message.kind.name();
        let client = Client::identify(&request, *from.ip());
        let found = client.mac.and_then(|mac| Some((Mac(mac), machines.index.by_mac(Mac(mac))?)));
        let Some((mac, found)) = found else {
            debug!("{message} from unknown {from}");
            return;
        };
        let identity = found.port.uuid.into_bytes();
        let asked = Asked {
            found,
            message,
            mac,
            client: kind(client.kind),
            architecture: client.architecture().map(|architecture| architecture.0),
        };
        let told = machines.tell(&asked, self.link.address.into());
        let (leases, about) = (&mut self.leases, &self.about);
        let decision =
            decide(&request.message, &client, identity, &told.answer, leases, about, now());
        let done = self.carry_out(&request, from, decision).await;
        machines.record(&asked, told, done);
    }

    async fn carry_out(
        &mut self,
        request: &Packet,
        from: SocketAddrV6,
        decision: Decision,
    ) -> Done {
        let (reply, records, address) = match decision {
            Decision::Silent(why @ Silence::OtherServer) => return Done::Others(why.to_string()),
            Decision::Silent(why) => return Done::Silent(why.to_string()),
            Decision::Send { reply, records, address } => (reply, records, address),
        };
        // An address that was given must still be taken after a crash.
        for record in &records {
            if let Err(error) = self.journal.append(record) {
                error!(%error, "the lease journal of {} cannot be written", self.link.name);
                return Done::Silent(format!("its lease cannot be written down: {error}"));
            }
        }
        let kind = reply.kind;
        let answer = request.answered_by(reply).emit();
        // To whoever it came from: client and relay both listen where they send from, but a relay on
        // the servers' port (RFC 8415 §7.2).
        if let Err(error) = self.socket.send(&answer, from, !request.relays.is_empty()).await {
            warn!(%error, "DHCPv6 on {} cannot send", self.link.name);
            return Done::Silent(format!("the answer could not be sent: {error}"));
        }
        match (address, kind) {
            (Some(address), MessageType::Advertise) => Done::Offered(address.into()),
            (Some(address), _) => Done::Given(address.into()),
            (None, _) => Done::Noted,
        }
    }
}
