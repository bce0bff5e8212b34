//! DHCP: what comes in on a network, what is decided about it, and what goes out.
//!
//! Packet → node (in memory) → [`provision::boot_for`] → the `dhcp` crate's `decide` is the desk's
//! (`v4`, `v6`), which touches nothing outside of memory; journal → socket → trace is the counter's
//! (`counter`). Nothing here waits for the store.

mod advertise;
mod counter;
mod diary;
mod frames;
mod heard;
pub mod interface;
mod journal;
mod plan;
pub mod port;
mod proxy;
mod questions;
mod rehearsal;
mod repeats;
mod socket;
pub mod survey;
pub mod tftp;
mod v4;
mod v6;

pub use self::rehearsal::{Captured, Explained, Known, Rehearsal};

use std::net::IpAddr;
use std::path::Path;

use anyhow::Result;
use dhcp::Answer;
use dhcp::client::Kind;
use dhcp::limits::{Limits, Millis};
use jiff::Timestamp;
use provision::boot::bootable;
use provision::boot::{Artifact, DhcpBoot, NoBoot};
use provision::trace::{DhcpAnswer, DhcpClient};
use provision::{BootInterface, Node, boot_for};
use tokio_util::sync::CancellationToken;

use self::counter::{Counter4, Counter6, ProxyCounter};
use self::heard::{Asked, Told};
use crate::artifacts::BootSets;
use crate::config;
use crate::metrics::Metrics;
use crate::nodes::{Found, Index};
use crate::trace::Recorder;
use crate::urls::Urls;

/// x64 UEFI that asks for TFTP (IANA, "Processor Architecture Types"; EDK2 says 7).
const X64_PXE: [u16; 2] = [7, 9];

/// One network that is answered on, over IPv4, IPv6 or both.
#[derive(Debug)]
pub struct Network {
    v4: Option<Counter4>,
    proxy: Option<ProxyCounter>,
    v6: Option<Counter6>,
}

impl Network {
    /// Takes its sockets, and its leases from `state_dir`.
    ///
    /// # Errors
    /// In words, where the interface is missing or has no address, a port is taken, or a journal
    /// cannot be written.
    pub fn open(settings: &config::Network, dhcp: &config::Dhcp, state_dir: &Path) -> Result<Self> {
        let v4 = settings.pool.map(|_| Counter4::open(settings, dhcp, state_dir));
        let v6 = settings.pool6.map(|_| Counter6::open(settings, dhcp, state_dir));
        let proxy = settings.proxy.then(|| ProxyCounter::open(settings, dhcp));
        Ok(Self { v4: v4.transpose()?, proxy: proxy.transpose()?, v6: v6.transpose()? })
    }

    /// Our address on it; the IPv4 one, if there is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        let v4 = self.v4.as_ref().map(Counter4::address);
        let v4 = v4.or_else(|| self.proxy.as_ref().map(ProxyCounter::address));
        v4.map(IpAddr::from).or_else(|| self.v6.as_ref().map(|v6| v6.address().into()))
    }

    /// Answers until `end`.
    pub async fn run(self, machines: Machines, witness: Witness, end: CancellationToken) {
        let v4 = async {
            if let Some(v4) = self.v4 {
                v4.run(&machines, &witness, &end).await;
            }
        };
        let v6 = async {
            if let Some(v6) = self.v6 {
                v6.run(&machines, &witness, &end).await;
            }
        };
        let proxy = async {
            if let Some(proxy) = self.proxy {
                proxy.run(&machines, &witness, &end).await;
            }
        };
        tokio::join!(v4, proxy, v6);
    }
}

/// What answers depend on besides the network.
#[derive(Clone, Debug)]
pub struct Machines {
    /// Who is known.
    pub index: Index,
    /// Where they fetch.
    pub urls: Urls,
    /// Whether PXE firmware gets iPXE by TFTP.
    pub tftp: bool,
    /// What there are boot sets for.
    pub boot_sets: BootSets,
}

/// Who hears of what was decided.
#[derive(Clone, Debug)]
pub struct Witness {
    /// Hears of every exchange of a boot.
    pub recorder: Recorder,
    /// Counts every message.
    pub metrics: Metrics,
}

impl Machines {
    /// What the machine is to be told, by what its node is about to do; `near` is our address there.
    fn tell(&self, asked: &Asked, near: IpAddr) -> Told {
        match self.boot(asked, near) {
            Ok((artifact, answer)) => Told { answer, artifact, because: None },
            Err(because) => {
                Told { answer: Answer::Nothing, artifact: None, because: Some(because) }
            }
        }
    }

    fn boot(&self, asked: &Asked, near: IpAddr) -> Result<(Option<Artifact>, Answer), DhcpAnswer> {
        let Some(Found { node, port }) = &asked.found else {
            return Ok((None, Answer::Address));
        };
        let boots = match asked.client {
            DhcpClient::Agent | DhcpClient::System => false,
            DhcpClient::HttpClient
            | DhcpClient::PxeClient
            | DhcpClient::Ipxe
            | DhcpClient::Grub => true,
        };
        if boots && !port.pxe_enabled {
            return Err(DhcpAnswer::NoBoot { because: NoBoot::PortNotEnabled });
        }
        let boot_sets = self.boot_sets.there();
        let boot = match boot_for(node, asked.client, asked.architecture, &boot_sets) {
            Ok(boot) => boot,
            Err(because) => {
                let help = self.help_pxe(node, asked, near, because);
                return help.ok_or(DhcpAnswer::NoBoot { because });
            }
        };
        match (boot, node.live_attempt()) {
            (DhcpBoot::Url(artifact), Some(attempt)) => {
                let url = self.urls.artifact(node, attempt, artifact, Some(near));
                let url = url.map_err(|no| DhcpAnswer::Ignored { because: no.to_string() })?;
                Ok((Some(artifact), Answer::Boot(url)))
            }
            (DhcpBoot::Url(_) | DhcpBoot::Address, _) => Ok((None, Answer::Address)),
        }
    }
}

impl Machines {
    /// iPXE by TFTP, for firmware that cannot do better; iPXE then asks again and goes on over HTTP.
    fn help_pxe(
        &self,
        node: &Node,
        asked: &Asked,
        near: IpAddr,
        because: NoBoot,
    ) -> Option<(Option<Artifact>, Answer)> {
        let by_dhcp = match bootable(node)?.boot_interface {
            BootInterface::Http | BootInterface::HttpIpxe => true,
            BootInterface::RedfishHttps => false,
        };
        let is_x64 = asked.architecture.is_some_and(|code| X64_PXE.contains(&code));
        let IpAddr::V4(server) = near else { return None };
        let can_help = self.tftp && by_dhcp && is_x64 && because == NoBoot::PxeNotHttp;
        let answer = Answer::Tftp { server, file: tftp::FILE.to_owned() };
        can_help.then_some((Some(Artifact::Ipxe), answer))
    }
}

/// How many addresses of a pool are kept from strangers: one for each machine that is known, but a
/// quarter at least, since more of them may come, and no more than half.
fn kept(pool: usize, known: usize) -> usize {
    known.clamp(pool / 4, pool / 2)
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

/// Nobody has asked for anything yet.
fn limits(dhcp: &config::Dhcp) -> Limits {
    Limits::new(dhcp.limits.rates(), rand::random())
}

/// Milliseconds since the Unix epoch.
fn now() -> Millis {
    Timestamp::now().as_millisecond().try_into().unwrap_or_default()
}
