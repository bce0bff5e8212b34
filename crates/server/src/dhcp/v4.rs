//! The DHCPv4 server of one network.

use std::iter::once;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, Result};
use dhcp::client::Client;
use dhcp::leases::{Leases, Pool};
use dhcp::v4::decide::{Decision, Silence, decide};
use dhcp::v4::relay::{Relayed, relayed};
use dhcp::v4::{MessageType, Packet, options, reply};
use provision::Mac;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::journal::{self, Journal};
use super::socket::{self, Socket4};
use super::{Asked, Done, Machines, Told, kind, now};
use crate::config;

#[derive(Debug)]
pub(super) struct Server {
    interface: String,
    socket: Socket4,
    local: Subnet,
    /// Reached through relays.
    relayed: Vec<Subnet>,
}

/// Addresses of one subnet, and what its clients are told.
#[derive(Debug)]
struct Subnet {
    /// Any address of it.
    base: Ipv4Addr,
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
        let about = |mask, router| reply::Network {
            server,
            mask,
            router,
            dns: settings.dns4(),
            lease_secs,
        };
        let path = state_dir.join(format!("leases-{interface}.journal"));
        let local = Subnet::open(server, &path, pool, about(mask, settings.router))?;
        let relayed = settings.relayed.iter().map(|relayed| {
            let path =
                state_dir.join(format!("leases-{interface}-{}.journal", relayed.subnet.base));
            let about = about(relayed.subnet.mask(), relayed.router);
            Subnet::open(relayed.subnet.base, &path, relayed.pool.0, about)
        });
        Ok(Self {
            interface: interface.clone(),
            relayed: relayed.collect::<Result<_>>()?,
            socket: Socket4::open(interface)?,
            local,
        })
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        self.local.about.server
    }

    pub(super) async fn run(mut self, machines: &Machines, end: &CancellationToken) {
        for subnet in self.subnets() {
            let Pool { first, last } = subnet.leases.pool();
            info!("answering DHCP on {}, addresses {first} to {last}", self.interface);
        }
        let mut sync = interval(journal::SYNC_EVERY);
        sync.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
                _ = sync.tick() => {
                    for subnet in once(&mut self.local).chain(&mut self.relayed) {
                        subnet.journal.sync(&subnet.leases).await;
                    }
                }
                () = end.cancelled() => break,
            }
        }
        for subnet in once(self.local).chain(self.relayed) {
            subnet.journal.close().await;
        }
    }

    fn subnets(&self) -> impl Iterator<Item = &Subnet> {
        once(&self.local).chain(&self.relayed)
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
        let told = machines.tell(&asked, self.address().into());
        let done = self.answer(&request, &told).await;
        machines.record(&asked, told, done);
    }

    async fn answer(&mut self, request: &Packet, told: &Told) -> Done {
        let relayed = relayed(request);
        let subnet = match relayed {
            None => &mut self.local,
            Some(Relayed { link, .. }) => {
                let mut subnets = once(&mut self.local).chain(&mut self.relayed);
                let Some(subnet) = subnets.find(|subnet| subnet.has(link)) else {
                    return Done::Silent(format!(
                        "a relay sent it from the link of {link}, for which there is no subnet: \
                         add a [[dhcp.network.relayed]]"
                    ));
                };
                subnet
            }
        };
        let mut about = subnet.about.clone();
        if let Some(server) = relayed.and_then(|relayed| relayed.server_id) {
            about.server = server;
        }
        let decision = decide(request, &told.answer, &mut subnet.leases, &about, now());
        carry_out(&self.interface, &self.socket, &mut subnet.journal, request, decision).await
    }
}

impl Subnet {
    fn open(base: Ipv4Addr, path: &Path, pool: Pool, about: reply::Network) -> Result<Self> {
        let (journal, leases) = Journal::open(path, pool)
            .with_context(|| format!("cannot keep leases in {}", path.display()))?;
        Ok(Self { base, journal, leases, about })
    }

    fn has(&self, address: Ipv4Addr) -> bool {
        let prefix = |address| u32::from(address) & u32::from(self.about.mask);
        prefix(self.base) == prefix(address)
    }
}

async fn carry_out(
    interface: &str,
    socket: &Socket4,
    journal: &mut Journal<Leases>,
    request: &Packet,
    decision: Decision,
) -> Done {
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
        && let Err(error) = journal.append(&record)
    {
        error!(%error, "the lease journal of {interface} cannot be written");
        return Done::Silent(format!("its lease cannot be written down: {error}"));
    }
    let Some(reply) = reply else { return Done::Noted };
    if let Err(error) = socket.send(request, &reply).await {
        warn!(%error, "DHCP on {interface} cannot send");
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
