//! The DHCPv4 server of one network.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, Result};
use dhcp::client::Client;
use dhcp::leases::{Leases, Pool};
use dhcp::v4::decide::{Decision, Silence, decide};
use dhcp::v4::{MessageType, Packet, options, reply};
use provision::Mac;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::journal::Journal;
use super::socket::{self, Socket4};
use super::{Asked, Done, Machines, kind, now};
use crate::config;

#[derive(Debug)]
pub(super) struct Server {
    interface: String,
    socket: Socket4,
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
        let interface = &settings.interface;
        let (server, mask) = socket::address_of(interface)?;
        let path = state_dir.join(format!("leases-{interface}.journal"));
        let (journal, leases) = Journal::open(&path, pool)
            .with_context(|| format!("cannot keep leases in {}", path.display()))?;
        Ok(Self {
            interface: interface.clone(),
            socket: Socket4::open(interface)?,
            journal,
            leases,
            about: reply::Network {
                server,
                mask,
                router: settings.router,
                dns: settings.dns4(),
                lease_secs,
            },
        })
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        self.about.server
    }

    pub(super) async fn run(mut self, machines: &Machines, end: &CancellationToken) {
        let Pool { first, last } = self.leases.pool();
        info!("answering DHCP on {}, addresses {first} to {last}", self.interface);
        let mut sync = self.journal.syncs();
        loop {
            tokio::select! {
                packet = self.socket.receive() => match packet {
                    Ok(bytes) => self.take(&bytes, machines).await,
                    Err(error) => {
                        // ENETDOWN and its like: the interface may come back.
                        warn!(%error, "DHCP on {} cannot receive", self.interface);
                        tokio::time::sleep(socket::AFTER_ERROR).await;
                    }
                },
                _ = sync.tick() => self.journal.sync(&self.leases).await,
                () = end.cancelled() => break,
            }
        }
        self.journal.close().await;
    }

    async fn take(&mut self, bytes: &[u8], machines: &Machines) {
        let request = match Packet::parse(bytes) {
            Ok(request) => request,
            Err(error) => {
                debug!(%error, "a DHCP packet on {} is dropped", self.interface);
                return;
            }
        };
        let client = Client::identify(&request);
        let mac = Mac(client.mac);
        let Some(found) = machines.index.by_mac(mac) else {
            // Whoever else lives on this network: nothing is known of it, and nothing kept.
            debug!("{} from unknown {mac}", request.message.name());
            return;
        };
        let asked = Asked {
            found,
            message: request.message.name(),
            mac,
            client: kind(client.kind),
            architecture: client.architecture().map(|architecture| architecture.0),
        };
        let told = machines.tell(&asked, self.about.server.into());
        let decision = decide(&request, &told.answer, &mut self.leases, &self.about, now());
        let done = self.carry_out(&request, decision).await;
        machines.record(&asked, told, done);
    }

    async fn carry_out(&mut self, request: &Packet, decision: Decision) -> Done {
        let (reply, record) = match decision {
            Decision::Silent(why @ Silence::OtherServer(_)) => {
                return Done::Others(why.to_string());
            }
            Decision::Silent(why) => return Done::Silent(why.to_string()),
            Decision::Note { record } => (None, record),
            Decision::Send { reply, record } => (Some(reply), record),
        };
        // An address that was acknowledged must still be taken after a crash.
        if let Some(record) = record
            && let Err(error) = self.journal.append(&record)
        {
            error!(%error, "the lease journal of {} cannot be written", self.interface);
            return Done::Silent(format!("its lease cannot be written down: {error}"));
        }
        let Some(reply) = reply else { return Done::Noted };
        if let Err(error) = self.socket.send(request, &reply).await {
            warn!(%error, "DHCP on {} cannot send", self.interface);
            return Done::Silent(format!("the answer could not be sent: {error}"));
        }
        match reply.message {
            MessageType::Offer => Done::Offered(reply.yiaddr.into()),
            MessageType::Nak => {
                let because = reply.option(options::MESSAGE).unwrap_or_default();
                Done::Refused(String::from_utf8_lossy(because).into_owned())
            }
            MessageType::Ack
            | MessageType::Discover
            | MessageType::Request
            | MessageType::Decline
            | MessageType::Release
            | MessageType::Inform => Done::Given(reply.yiaddr.into()),
        }
    }
}
