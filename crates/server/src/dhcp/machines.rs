//! What a machine is told to boot, by what is known of it.

use std::net::IpAddr;

use dhcp::Answer;
use dhcp::client::Kind;
use dhcp::v4::reply::LONGEST_URL;
use provision::boot::{Artifact, DhcpBoot, Means, NoBoot};
use provision::boot_for;
use provision::trace::{DhcpAnswer, DhcpClient};

use super::heard::{Asked, Told};
use super::tftp;
use crate::artifacts::BootSets;
use crate::nodes::{Found, Index};
use crate::urls::Urls;

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

impl Machines {
    /// What the machine is to be told, by what its node is about to do; `near` is our address there.
    pub(super) fn tell(&self, asked: &Asked, near: IpAddr) -> Told {
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
            DhcpClient::Agent | DhcpClient::Firmware | DhcpClient::System => false,
            DhcpClient::HttpClient
            | DhcpClient::PxeClient
            | DhcpClient::Ipxe
            | DhcpClient::Grub => true,
        };
        if boots && !port.pxe_enabled {
            return Err(DhcpAnswer::NoBoot { because: NoBoot::PortNotEnabled });
        }
        let boot_sets = self.boot_sets.there();
        let means = Means { boot_sets: &boot_sets, tftp: self.tftp && near.is_ipv4() };
        let boot = boot_for(node, asked.client, asked.architecture, means);
        let boot = boot.map_err(|because| DhcpAnswer::NoBoot { because })?;
        match (boot, node.live_attempt(), near) {
            (DhcpBoot::Url(artifact), Some(attempt), _) => {
                let url = self.urls.artifact(node, attempt, artifact, Some(near));
                let url = url.map_err(|no| DhcpAnswer::Ignored { because: no.to_string() })?;
                let is_cut = asked.client == DhcpClient::HttpClient && near.is_ipv4();
                if is_cut && url.len() > LONGEST_URL {
                    let because = format!(
                        "the URL has {} bytes, and firmware takes {LONGEST_URL} at most over IPv4: shorten \
                         url in [boot], or external_http_url of the node",
                        url.len()
                    );
                    return Err(DhcpAnswer::Ignored { because });
                }
                Ok((Some(artifact), Answer::Boot(url)))
            }
            (DhcpBoot::Tftp(artifact), _, IpAddr::V4(server)) => {
                Ok((Some(artifact), Answer::Tftp { server, file: tftp::FILE.to_owned() }))
            }
            (DhcpBoot::Url(_) | DhcpBoot::Tftp(_) | DhcpBoot::Address, _, _) => {
                Ok((None, Answer::Address))
            }
        }
    }
}

/// What a client is called in a trace.
pub(super) fn kind(kind: Kind) -> DhcpClient {
    match kind {
        Kind::HttpClient => DhcpClient::HttpClient,
        Kind::PxeClient => DhcpClient::PxeClient,
        Kind::Ipxe => DhcpClient::Ipxe,
        Kind::Grub => DhcpClient::Grub,
        Kind::Agent => DhcpClient::Agent,
        Kind::Firmware => DhcpClient::Firmware,
        Kind::System => DhcpClient::System,
    }
}
