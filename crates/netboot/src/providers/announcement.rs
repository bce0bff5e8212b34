//! The announcement of a boot to a DHCP service.

use std::sync::Arc;

use dhcp::v4::reply::LONGEST_URL;
use hardware::architecture::NoSuchCpuArch;
use hardware::{ClientKind, CpuArch, Mac};
use jiff::Timestamp;
use provision::artifact::Artifact;
use provision::boot::{DhcpBoot, Means, NoBoot, boot_for};
use provision::node::Secret;
use provision::trace::{AnnouncementCause, BootAnnouncement};
use provision::{Attempt, BootInterface, Node, Port};
use thiserror::Error;
use url::Url;
use uuid::Uuid;

use crate::urls::{IpFamily, Unreachable, Urls};

/// The announcement of one machine's boot to a DHCP service.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    /// The node.
    pub node: Uuid,
    /// The attempt.
    pub attempt: Uuid,
    /// The start time of the attempt.
    pub started_at: Timestamp,
    /// The boot interface.
    pub boot_interface: BootInterface,
    /// The boot ports; never empty.
    pub ports: Vec<AnnouncedPort>,
    pub(super) ticket: Secret,
    /// The URLs for IPv4 and for IPv6.
    pub(super) links: [Result<Links, NoLinks>; 2],
}

/// A boot port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncedPort {
    /// Its MAC address.
    pub mac: Mac,
    /// The UUID of its Neutron port, if an operator has set it.
    pub vif: Option<String>,
    /// Further dnsmasq settings of the port, if an operator has set them.
    pub dhcp_host: Option<String>,
}

/// The URLs of one boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    /// For `HTTPClient` firmware, by architecture.
    pub firmware: Vec<(CpuArch, Url)>,
    /// The URL of `firmware` for the node's architecture.
    pub own: Url,
    /// For iPXE: the URL of its script.
    pub ipxe: Url,
}

/// The reason for the absence of URLs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoLinks {
    /// The service's address for machines is unknown.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// The URL contains a quote, which would end the option's text in the external server.
    #[error(
        "the URL has a quotation mark in its host: correct url in [boot], or external_http_url in the \
         node's driver_info"
    )]
    Quoted,
    /// The node's architecture is not supported.
    #[error(transparent)]
    CpuArch(#[from] NoSuchCpuArch),
    /// There is no artifact for firmware of the node's architecture.
    #[error(transparent)]
    NoBoot(#[from] NoBoot),
    /// Machines of this family cannot reach the host of the URL.
    #[error("{}", cannot_reach(*.family, .host))]
    OtherFamily {
        /// The machines' family.
        family: IpFamily,
        /// The host of the URL.
        host: String,
    },
    /// A URL is longer than firmware accepts over IPv4.
    #[error(
        "the URL has {len} bytes, and firmware takes {LONGEST_URL} at most over IPv4: shorten url in \
         [boot], or external_http_url in the node's driver_info"
    )]
    TooLong {
        /// Length of the URL in bytes.
        len: usize,
    },
}

fn cannot_reach(family: IpFamily, host: &str) -> String {
    match family {
        IpFamily::V4 => format!(
            "machines with IPv4 cannot reach {host}: set url in [boot] to an IPv4 address or a \
             name, and url6 to {host}"
        ),
        IpFamily::V6 => format!(
            "machines with IPv6 cannot reach {host}: set url6 in [boot] to an IPv6 address or a \
             name"
        ),
    }
}

impl Announcement {
    /// The announcement of the node's latest boot, which may have ended; `None` if DHCP has no part in it, or there
    /// was none.
    ///
    /// `boot_sets` are the architectures with a boot set.
    #[must_use]
    pub fn of(
        node: &Node,
        ports: &[Arc<Port>],
        urls: &Urls,
        boot_sets: &[CpuArch],
    ) -> Option<Self> {
        let attempt = node.attempt.as_ref()?;
        match attempt.boot_interface {
            BootInterface::RedfishHttps | BootInterface::RedfishVirtualMedia => return None,
            BootInterface::Http | BootInterface::HttpIpxe => {}
        }
        let ports = ports.iter().filter(|port| port.pxe_enabled);
        let mut ports: Vec<_> = ports.map(|port| AnnouncedPort::of(port)).collect();
        ports.sort_by_key(|port| port.mac);
        Some(Self {
            node: node.uuid,
            attempt: attempt.id,
            started_at: attempt.started_at,
            boot_interface: attempt.boot_interface,
            ports,
            ticket: attempt.ticket.clone(),
            links: [IpFamily::V4, IpFamily::V6]
                .map(|family| Links::of(node, attempt, family, urls, boot_sets)),
        })
    }

    /// The URLs for a family.
    ///
    /// # Errors
    /// The service's address for machines is unknown, or there is no loader for the node's machine.
    pub fn links(&self, family: IpFamily) -> Result<&Links, NoLinks> {
        let [v4, v6] = &self.links;
        let links = match family {
            IpFamily::V4 => v4,
            IpFamily::V6 => v6,
        };
        let links = links.as_ref().map_err(Clone::clone)?;
        if family.reaches(&links.own) {
            return Ok(links);
        }
        let host = links.own.host_str().unwrap_or_default().to_owned();
        Err(NoLinks::OtherFamily { family, host })
    }

    /// The URLs for a family, if each of them fits into one option.
    ///
    /// # Errors
    /// As [`links`](Self::links), or a URL is longer than firmware accepts.
    pub fn links_in_options(&self, family: IpFamily) -> Result<&Links, NoLinks> {
        let links = self.links(family)?;
        match family {
            IpFamily::V4 => links.fit_dhcp_v4()?,
            IpFamily::V6 => {}
        }
        Ok(links)
    }

    /// The ports of this announcement that `now` lacks.
    #[must_use]
    pub fn gone_ports(&self, now: &Self) -> Vec<AnnouncedPort> {
        let is_gone = |port: &&AnnouncedPort| !now.ports.iter().any(|stays| stays.mac == port.mac);
        self.ports.iter().filter(is_gone).cloned().collect()
    }

    /// Whether `now` announces the same boot with other ports, boot sets or URLs.
    #[must_use]
    pub fn is_changed(&self, now: &Self) -> bool {
        self.attempt == now.attempt && self != now
    }

    /// The ticket in the URLs.
    #[must_use]
    pub fn ticket(&self) -> &str {
        &self.ticket.0
    }

    /// The announcement for the trace, without the ticket.
    #[must_use]
    pub fn traced(&self, cause: AnnouncementCause, warnings: &[String]) -> BootAnnouncement {
        let links = self.links(IpFamily::V4).or_else(|_| self.links(IpFamily::V6));
        let own = links.ok().and_then(|links| links.own.path_segments()?.next_back());
        BootAnnouncement::Boot {
            cause,
            ports: self.ports.iter().map(|port| port.mac).collect(),
            artifact: own.and_then(Artifact::of_file_name),
            warnings: warnings.to_vec(),
        }
    }
}

impl AnnouncedPort {
    /// As in Ironic, the operator may set the UUID of the Neutron port in `extra`.
    #[must_use]
    pub fn of(port: &Port) -> Self {
        let text = |key| port.extra.get(key)?.as_str().map(str::to_owned);
        let (vif, dhcp_host) = (text("vif_port_id"), text("dnsmasq_dhcp_host"));
        Self { mac: port.address, vif, dhcp_host }
    }
}

impl Links {
    /// Checks that the URLs fit into DHCPv4.
    ///
    /// # Errors
    /// A URL is longer than firmware accepts: dnsmasq silently drops those of more than 255 bytes.
    pub(super) fn fit_dhcp_v4(&self) -> Result<(), NoLinks> {
        let all = self.firmware.iter().map(|(_, url)| url).chain([&self.own, &self.ipxe]);
        let mut lengths = all.map(|url| url.as_str().len());
        match lengths.find(|len| *len > LONGEST_URL) {
            Some(len) => Err(NoLinks::TooLong { len }),
            None => Ok(()),
        }
    }

    fn of(
        node: &Node,
        attempt: &Attempt,
        family: IpFamily,
        urls: &Urls,
        boot_sets: &[CpuArch],
    ) -> Result<Self, NoLinks> {
        let link = |artifact| {
            let text = urls.artifact_over(family, node, attempt, artifact)?;
            let url = Url::parse(&text).map_err(|_| Unreachable)?;
            // Elsewhere in a URL it is encoded as %22.
            if url.as_str().contains('"') { Err(NoLinks::Quoted) } else { Ok(url) }
        };
        // The answers of the embedded DHCP server, except for TFTP, which only that server offers.
        let means = Means { boot_sets, tftp: false };
        let loader = |cpu_arch: CpuArch| {
            let code = Some(cpu_arch.http_client());
            match boot_for(node, ClientKind::HttpClient, code, means)? {
                DhcpBoot::Url(loader) => link(loader),
                DhcpBoot::Tftp(_) | DhcpBoot::Address => Err(NoLinks::from(Unreachable)),
            }
        };
        let loaders = CpuArch::ALL.into_iter().map(|cpu_arch| (cpu_arch, loader(cpu_arch)));
        Ok(Self {
            own: loader(node.cpu_arch()?)?,
            firmware: loaders.filter_map(|(cpu_arch, url)| Some((cpu_arch, url.ok()?))).collect(),
            ipxe: link(Artifact::IpxeScript)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use provision::test_nodes::booting_node;

    use super::*;
    use crate::test_view::urls;
    use crate::urls::UrlSettings;

    /// A node during a boot by `http`.
    fn node(cpu_arch: &str) -> Node {
        let mut node = booting_node();
        node.properties.insert("cpu_arch".to_owned(), cpu_arch.into());
        node
    }

    fn announced(node: &Node, boot_sets: &[CpuArch]) -> Announcement {
        Announcement::of(node, &[], &urls("http://10.0.0.1"), boot_sets).unwrap()
    }

    /// The URLs of a service that machines with IPv4 reach at `boot`, and those with IPv6 at `boot6`.
    fn urls_of(boot: Option<&str>, boot6: Option<&str>) -> Urls {
        let [boot, boot6] = [boot, boot6].map(|url| url.map(|url| url.parse().unwrap()));
        let settings = UrlSettings { boot, boot6, ..UrlSettings::default() };
        Urls::new(settings, None)
    }

    #[test]
    fn firmware_has_the_loader_of_its_architecture_where_there_is_a_boot_set_for_it() {
        let told = announced(&node("aarch64"), &[CpuArch::Arm64]);

        let links = told.links(IpFamily::V4).unwrap();
        let url = |file: &str| format!("http://10.0.0.1/boot/TICKET/{file}").parse().unwrap();
        let [x64, arm64] = [url("bootx64.efi"), url("bootaa64.efi")];
        assert_eq!(links.own, arm64);
        assert_eq!(links.firmware, [(CpuArch::X64, x64), (CpuArch::Arm64, arm64)]);
    }

    #[test]
    fn each_family_is_told_its_own_url_and_one_without_which_setting_it_lacks() {
        let announced = |boot, boot6| {
            Announcement::of(&node("x86_64"), &[], &urls_of(boot, boot6), &[]).unwrap()
        };
        let host = |told: &Announcement, family| {
            let links = told.links(family).map_err(|refused| refused.to_string())?;
            Ok::<_, String>(links.own.host_str().unwrap().to_owned())
        };
        let both = announced(Some("http://10.0.0.1"), Some("http://[fd00::1]"));
        let four = announced(Some("http://10.0.0.1"), None);
        let none = announced(None, None);

        assert_eq!(host(&both, IpFamily::V4).unwrap(), "10.0.0.1");
        assert_eq!(host(&both, IpFamily::V6).unwrap(), "[fd00::1]");
        assert!(host(&four, IpFamily::V6).unwrap_err().contains("set url6 in [boot]"));
        assert!(host(&none, IpFamily::V4).unwrap_err().contains("set url in [boot]"));
    }

    #[test]
    fn a_quotation_mark_that_would_end_a_line_of_dnsmasqs_is_refused() {
        let mut node = node("x86_64");
        let mut refused = |url: &str| {
            node.driver_info.insert("external_http_url".to_owned(), url.into());
            announced(&node, &[])
                .links(IpFamily::V4)
                .map(drop)
                .map_err(|refused| refused.to_string())
        };

        assert!(refused("http://h\"x").unwrap_err().contains("a quotation mark in its host"));
        assert_eq!(refused("http://h/\"x"), Ok(()));
    }

    #[test]
    fn what_is_told_over_ipv6_alone_is_said_too() {
        let urls = urls_of(None, Some("http://[fd00::1]"));

        let told = Announcement::of(&node("x86_64"), &[], &urls, &[]).unwrap();

        let traced = told.traced(AnnouncementCause::Begin, &[]).to_string();
        assert!(traced.ends_with("boot bootx64.efi"), "{traced}");
    }

    #[test]
    fn a_machine_that_there_is_no_loader_for_is_not_begun_with() {
        let why = |cpu_arch| {
            announced(&node(cpu_arch), &[CpuArch::X64]).links(IpFamily::V4).unwrap_err().to_string()
        };

        assert!(why("ppc64le").contains("ppc64le"));
        assert!(why("riscv64").starts_with("there is no boot set for riscv64"));
    }
}
