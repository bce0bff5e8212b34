//! What a DHCP service is told of a boot.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use provision::boot::Artifact;
use provision::{Attempt, BootInterface, Mac, Node, Port};
use url::{Host, Url};
use uuid::Uuid;

use crate::urls::{Unreachable, Urls};

/// The boot of one machine, as a DHCP service is told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    /// Whose.
    pub node: Uuid,
    /// Which boot of it.
    pub attempt: Uuid,
    /// When that began.
    pub started_at: Timestamp,
    /// Which path it takes.
    pub boot_interface: BootInterface,
    /// The ports it may boot from; never none.
    pub ports: Vec<ToldPort>,
    /// What its clients are to fetch.
    links: Result<Links, Unreachable>,
}

/// A port that a machine may boot from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldPort {
    /// Its MAC address.
    pub mac: Mac,
    /// The port of Neutron's that stands for it, if somebody wrote it down.
    pub vif: Option<String>,
}

/// The URLs of one boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    /// For firmware (x64) that asks as `HTTPClient`.
    pub firmware: Url,
    /// For iPXE: its script.
    pub ipxe: Url,
}

impl Announcement {
    /// That of the boot under way; `None` where DHCP has no part in it, or there is none.
    #[must_use]
    pub fn of(node: &Node, ports: &[Arc<Port>], urls: &Urls) -> Option<Self> {
        let attempt = node.live_attempt()?;
        let firmware = match attempt.boot_interface {
            BootInterface::RedfishHttps => return None,
            BootInterface::Http => Artifact::BootLoader,
            BootInterface::HttpIpxe => Artifact::Ipxe,
        };
        let ports = ports.iter().filter(|port| port.pxe_enabled);
        Some(Self {
            node: node.uuid,
            attempt: attempt.id,
            started_at: attempt.started_at,
            boot_interface: attempt.boot_interface,
            ports: ports.map(|port| ToldPort::of(port)).collect(),
            links: Links::of(node, attempt, firmware, urls),
        })
    }

    /// What its clients are to fetch.
    ///
    /// # Errors
    /// Where it is not known at which address machines reach us.
    pub fn links(&self) -> Result<&Links> {
        self.links.as_ref().map_err(|unreachable| anyhow::Error::new(*unreachable))
    }

    /// In words, for the trace: what is booted from where. Holds no ticket.
    #[must_use]
    pub fn in_words(&self) -> String {
        let macs: Vec<_> = self.ports.iter().map(|port| port.mac.to_string()).collect();
        let file = match self.boot_interface {
            BootInterface::RedfishHttps => Artifact::Iso,
            BootInterface::Http => Artifact::BootLoader,
            BootInterface::HttpIpxe => Artifact::Ipxe,
        };
        format!("to let {} boot {}", macs.join(" and "), file.file_name())
    }
}

impl ToldPort {
    /// Upstream keeps the port of Neutron's in `extra` where an operator wrote it down.
    fn of(port: &Port) -> Self {
        let vif = port.extra.get("vif_port_id").and_then(|id| id.as_str());
        Self { mac: port.address, vif: vif.map(str::to_owned) }
    }
}

#[cfg(test)]
impl Announcement {
    /// A boot of one machine, from `http://HOST/`.
    pub(super) fn example(boot_interface: BootInterface, host: &str) -> Self {
        let link = |file: &str| format!("http://{host}/boot/TICKET/{file}").parse().unwrap();
        let firmware = match boot_interface {
            BootInterface::HttpIpxe => Artifact::Ipxe,
            BootInterface::RedfishHttps | BootInterface::Http => Artifact::BootLoader,
        };
        Self {
            node: Uuid::from_u128(1),
            attempt: Uuid::from_u128(2),
            started_at: Timestamp::UNIX_EPOCH,
            boot_interface,
            ports: vec![ToldPort { mac: Mac([0x52, 0x54, 0, 0, 0, 1]), vif: None }],
            links: Ok(Links { firmware: link(firmware.file_name()), ipxe: link("boot.ipxe") }),
        }
    }
}

impl Links {
    fn of(
        node: &Node,
        attempt: &Attempt,
        firmware: Artifact,
        urls: &Urls,
    ) -> Result<Self, Unreachable> {
        let link = |artifact| {
            let text = urls.artifact(node, attempt, artifact, None)?;
            Url::parse(&text).map_err(|_| Unreachable)
        };
        Ok(Self { firmware: link(firmware)?, ipxe: link(Artifact::IpxeScript)? })
    }
}

/// Of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// Whether machines that have this family alone can fetch it: a name may have both.
    #[must_use]
    pub fn reaches(self, url: &Url) -> bool {
        match (self, url.host()) {
            (Self::V4, Some(Host::Ipv6(_))) | (Self::V6, Some(Host::Ipv4(_))) | (_, None) => false,
            (Self::V4 | Self::V6, Some(Host::Domain(_) | Host::Ipv4(_) | Host::Ipv6(_))) => true,
        }
    }
}

impl Links {
    /// Whether a family reaches them.
    ///
    /// # Errors
    /// Says which URL would do.
    pub fn expect(&self, family: Family) -> Result<()> {
        let host = self.firmware.host_str().unwrap_or_default();
        family.reaches(&self.firmware).then_some(()).with_context(|| match family {
            Family::V4 => format!(
                "machines with IPv4 cannot reach {host}: set url in [boot] to an IPv4 address or a name"
            ),
            Family::V6 => format!(
                "machines with IPv6 cannot reach {host}: set url in [boot] to an IPv6 address or a name"
            ),
        })
    }
}
