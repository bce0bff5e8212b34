//! DHCP: a socket and a journal per network; what is answered is decided elsewhere.
//!
//! Packet → node (in memory) → [`provision::boot_for`] → [`decide`] → journal → socket → trace. Nothing
//! here waits for the store.

mod journal;
mod socket;

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, Result};
use dhcp::client::{Client, Kind};
use dhcp::leases::Leases;
use dhcp::v4::decide::{Answer, Decision, Silence, decide};
use dhcp::v4::{MessageType, Packet, options, reply};
use jiff::Timestamp;
use provision::boot::{Artifact, DhcpBoot, NoBoot};
use provision::trace::{DhcpAnswer, DhcpClient};
use provision::{Mac, What, boot_for};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::config;
use crate::nodes::{Found, Index};
use crate::trace::Recorder;
use crate::urls::Urls;
use journal::Journal;
use socket::Socket;

/// One network that is answered on.
#[derive(Debug)]
pub struct Network {
    interface: String,
    socket: Socket,
    journal: Journal,
    leases: Leases,
    about: reply::Network,
}

/// What answers depend on besides the network.
#[derive(Clone, Debug)]
pub struct Machines {
    /// Who is known.
    pub index: Index,
    /// Where they fetch.
    pub urls: Urls,
    /// Hears of every exchange of a boot.
    pub recorder: Recorder,
}

impl Network {
    /// Takes its socket, and its leases from `state_dir`.
    ///
    /// # Errors
    /// In words, where the interface is missing or has no address, the port is taken, or the journal
    /// cannot be written.
    pub fn open(settings: &config::Network, lease_secs: u32, state_dir: &Path) -> Result<Self> {
        let interface = &settings.interface;
        let (server, mask) = socket::address_of(interface)?;
        let path = state_dir.join(format!("leases-{interface}.journal"));
        let (journal, leases) = Journal::open(&path, settings.pool.0, now())
            .with_context(|| format!("cannot keep leases in {}", path.display()))?;
        Ok(Self {
            interface: interface.clone(),
            socket: Socket::open(interface)?,
            journal,
            leases,
            about: reply::Network {
                server,
                mask,
                router: settings.router,
                dns: settings.dns.clone(),
                lease_secs,
            },
        })
    }

    /// Our address on it.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.about.server
    }

    /// Answers until `end`.
    pub async fn run(mut self, machines: Machines, end: CancellationToken) {
        let pool = self.leases.pool();
        let (first, last) = (pool.first, pool.last);
        info!("answering DHCP on {}, addresses {first} to {last}", self.interface);
        let mut sync = self.journal.syncs();
        loop {
            tokio::select! {
                packet = self.socket.receive() => match packet {
                    Ok(bytes) => self.take(&bytes, &machines).await,
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
        self.journal.sync(&self.leases).await;
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
        let Some(found) = machines.index.by_mac(Mac(client.mac)) else {
            // Whoever else lives on this network: nothing is known of it, and nothing kept.
            debug!("{} from unknown {}", request.message.name(), Mac(client.mac));
            return;
        };
        let told = told(&found, &client, self.about.server, &machines.urls);
        let answer = match &told {
            Ok((_, answer)) => answer,
            Err(_) => &Answer::Nothing,
        };
        let decision = decide(&request, answer, &mut self.leases, &self.about, now());
        let done = self.carry_out(&request, decision).await;
        let Some(answer) = answer_in_words(told, done) else { return };
        machines.record(&found, &request, &client, answer);
    }

    async fn carry_out(&mut self, request: &Packet, decision: Decision) -> Done {
        let (reply, record) = match decision {
            Decision::Silent(why) => return Done::Silent(why),
            Decision::Note { record } => (None, record),
            Decision::Send { reply, record } => (Some(reply), record),
        };
        // An address that was acknowledged must still be taken after a crash.
        if let Some(record) = record
            && let Err(error) = self.journal.append(&record)
        {
            error!(%error, "the lease journal of {} cannot be written", self.interface);
            return Done::Failed(format!("its lease cannot be written down: {error}"));
        }
        let Some(reply) = reply else { return Done::Noted };
        if let Err(error) = self.socket.send(request, &reply).await {
            warn!(%error, "DHCP on {} cannot send", self.interface);
            return Done::Failed(format!("the answer could not be sent: {error}"));
        }
        Done::Sent(reply)
    }
}

/// What became of a decision.
enum Done {
    Sent(Packet),
    Noted,
    Silent(Silence),
    Failed(String),
}

type Told = Result<(Option<Artifact>, Answer), NoAnswer>;

/// Why a known machine is told nothing.
enum NoAnswer {
    Boot(NoBoot),
    Url(String),
}

/// What the machine is to be told, by what its node is about to do.
fn told(found: &Found, client: &Client, near: Ipv4Addr, urls: &Urls) -> Told {
    let kind = kind(client.kind);
    let architecture = client.architecture().map(|architecture| architecture.0);
    let boots = match kind {
        DhcpClient::Agent | DhcpClient::System => false,
        DhcpClient::HttpClient | DhcpClient::PxeClient | DhcpClient::Ipxe | DhcpClient::Grub => {
            true
        }
    };
    if boots && !found.port.pxe_enabled {
        return Err(NoAnswer::Boot(NoBoot::PortNotEnabled));
    }
    let boot = boot_for(&found.node, kind, architecture).map_err(NoAnswer::Boot)?;
    match (boot, found.node.live_attempt()) {
        (DhcpBoot::Url(artifact), Some(attempt)) => {
            let url = urls
                .artifact(&found.node, attempt, artifact, Some(near))
                .map_err(|error| NoAnswer::Url(error.to_string()))?;
            Ok((Some(artifact), Answer::Boot(url)))
        }
        (DhcpBoot::Url(_) | DhcpBoot::Address, _) => Ok((None, Answer::Address)),
    }
}

fn kind(kind: Kind) -> DhcpClient {
    match kind {
        Kind::HttpClient => DhcpClient::HttpClient,
        Kind::PxeClient => DhcpClient::PxeClient,
        Kind::Ipxe => DhcpClient::Ipxe,
        Kind::Grub => DhcpClient::Grub,
        Kind::Agent => DhcpClient::Agent,
        Kind::System => DhcpClient::System,
    }
}

/// What the trace says of it; nothing of a message that wants no answer.
fn answer_in_words(told: Told, done: Done) -> Option<DhcpAnswer> {
    let artifact = match (told, &done) {
        // A client that took another server's offer is that server's, whatever it were told here.
        (_, Done::Silent(why @ Silence::OtherServer(_))) => {
            return Some(DhcpAnswer::Ignored { because: why.to_string() });
        }
        (Err(NoAnswer::Boot(because)), _) => return Some(DhcpAnswer::NoBoot { because }),
        (Err(NoAnswer::Url(because)), _) => return Some(DhcpAnswer::Ignored { because }),
        (Ok((artifact, _)), _) => artifact,
    };
    match done {
        Done::Noted => None,
        Done::Silent(why) => Some(DhcpAnswer::Ignored { because: why.to_string() }),
        Done::Failed(because) => Some(DhcpAnswer::Ignored { because }),
        Done::Sent(reply) => Some(match reply.message {
            MessageType::Offer => DhcpAnswer::Offer { address: reply.yiaddr, artifact },
            MessageType::Nak => {
                let because = reply.option(options::MESSAGE).unwrap_or_default();
                DhcpAnswer::Nak { because: String::from_utf8_lossy(because).into_owned() }
            }
            MessageType::Ack
            | MessageType::Discover
            | MessageType::Request
            | MessageType::Decline
            | MessageType::Release
            | MessageType::Inform => DhcpAnswer::Ack { address: reply.yiaddr, artifact },
        }),
    }
}

impl Machines {
    fn record(&self, found: &Found, request: &Packet, client: &Client, answer: DhcpAnswer) {
        let (message, mac, kind) = (request.message.name(), Mac(client.mac), kind(client.kind));
        debug!("{message} from {kind} at {mac}: {answer:?}");
        // What a running system says between two boots is no part of either.
        if found.node.live_attempt().is_none() {
            return;
        }
        let what = What::Dhcp {
            message: message.to_owned(),
            mac,
            client: kind,
            architecture: client.architecture().map(|architecture| architecture.0),
            answer,
        };
        self.recorder.record(&found.node, what);
    }
}

/// Seconds since the Unix epoch.
fn now() -> u64 {
    Timestamp::now().as_second().try_into().unwrap_or_default()
}
