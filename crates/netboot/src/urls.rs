//! The boot and agent URLs, as machines reach the service.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use provision::artifact::{Artifact, HttpLoader};
use provision::enrolment::Enrolment;
use provision::{Attempt, BootInterface, Node};
use thiserror::Error;
use url::{Host, Url};

/// The URLs of the service, as seen by machines.
#[derive(Clone, Debug)]
pub struct Urls {
    settings: UrlSettings,
    /// The service's address on the first DHCP network.
    address: Option<IpAddr>,
}

/// The settings for the URLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlSettings {
    /// The URL before `/boot/`, as seen by machines; `None` means this host's address and `boot_port`.
    pub boot: Option<Url>,
    /// The same for machines that boot over IPv6, if it differs.
    pub boot6: Option<Url>,
    /// The URL for agents; `None` means this host's address and `agent_port`.
    pub agent: Option<Url>,
    /// The port of the boot listener, for firmware and all who have its TLS.
    pub boot_port: ByFamily<UrlPort>,
    /// The port of the boot listener without TLS, for boot loaders that have none; `None` if there is none.
    pub plain_boot_port: ByFamily<Option<u16>>,
    /// The first loader of the boot interface `http`.
    pub http_loader: HttpLoader,
    /// The port for agents.
    pub agent_port: ByFamily<UrlPort>,
}

/// Plain HTTP on the default ports, at the addresses of this host.
impl Default for UrlSettings {
    fn default() -> Self {
        Self {
            boot: None,
            boot6: None,
            agent: None,
            boot_port: ByFamily::both(UrlPort::http(8080)),
            plain_boot_port: ByFamily::both(Some(8080)),
            http_loader: HttpLoader::default(),
            agent_port: ByFamily::both(UrlPort::http(6386)),
        }
    }
}

/// The scheme of a URL for HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlScheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl UrlScheme {
    /// As in a URL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A value for each IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByFamily<T> {
    /// For machines that boot over IPv4.
    pub v4: T,
    /// For machines that boot over IPv6.
    pub v6: T,
}

impl<T: Copy> ByFamily<T> {
    /// The same value for both.
    #[must_use]
    pub const fn both(value: T) -> Self {
        Self { v4: value, v6: value }
    }

    fn of(self, family: IpFamily) -> T {
        match family {
            IpFamily::V4 => self.v4,
            IpFamily::V6 => self.v6,
        }
    }
}

/// A port in URLs, with its scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UrlPort {
    /// The scheme.
    pub scheme: UrlScheme,
    /// The TCP port.
    pub port: u16,
}

impl UrlPort {
    /// A port with plain HTTP.
    #[must_use]
    pub const fn http(port: u16) -> Self {
        Self { scheme: UrlScheme::Http, port }
    }

    /// The URL of this port at an address. An IPv6 address is in brackets (RFC 3986 §3.2.2).
    fn at(self, address: IpAddr) -> String {
        ListenAddress { scheme: self.scheme, address: SocketAddr::new(address, self.port) }
            .to_string()
    }
}

/// The TLS of a boot loader that fetches more files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoaderTls {
    /// None, or it is not known to have any: GRUB, and iPXE of before 2023.
    None,
    /// Its own, with the CAs that the firmware trusts (iPXE's `efi_cacert.c`), or with others of its build.
    Own,
}

/// The address of a listener, as in a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// The scheme.
    pub scheme: UrlScheme,
    /// The address and port.
    pub address: SocketAddr,
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.address)
    }
}

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpFamily {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

/// The boot loader of a node cannot fetch from its URL, which begins with `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "{lacks}, and its URL begins with https: {} use http-ipxe with Debian 13's iPXE (`ferroboot image build --release \
     trixie`), http with http_loader = \"uki\", or redfish-https",
    if *.tls_only {
        "only = true in [tls] permits no http:// address;"
    } else {
        "add an http:// address to listen in [boot] (a url there, or the node's external_http_url, comes first),"
    }
)]
pub struct LoaderLacksTls {
    /// What is missing.
    lacks: &'static str,
    tls_only: bool,
}

/// No boot URL is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "it is not known at which address machines reach this service: set url in [boot], or \
     external_http_url in the node's driver_info"
)]
pub struct Unreachable;

/// Longest boot URL, in bytes: EDK2's boot option and set-up (`HttpBootDxe.h`), and Dell's BIOS attributes.
const LONGEST_BOOT_URL: usize = 255;
/// Length of a ticket, in bytes.
const TICKET: usize = 22;

/// A boot URL is longer than firmware takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "its boot URLs have up to {len} bytes, and firmware takes at most {LONGEST_BOOT_URL}: shorten external_http_url in \
     driver_info (or url in [boot])"
)]
pub struct BootUrlTooLong {
    /// The length of the longest URL, in bytes.
    pub len: usize,
}

impl Urls {
    /// The URLs from the settings; `address` is the service's address on the first DHCP network.
    #[must_use]
    pub fn new(settings: UrlSettings, address: Option<IpAddr>) -> Self {
        Self { settings, address }
    }

    /// The URL of an artifact of an attempt, for the machine of `node`.
    ///
    /// `near` is the service's address on the machine's network, if the machine sent a request. A boot loader without
    /// TLS gets the port without TLS, if there is one.
    ///
    /// # Errors
    /// [`Unreachable`]
    pub fn artifact(
        &self,
        node: &Node,
        attempt: &Attempt,
        artifact: Artifact,
        near: Option<IpAddr>,
    ) -> Result<String, Unreachable> {
        let Some(near) = near else {
            return self.artifact_over(IpFamily::V4, node, attempt, artifact);
        };
        let port = self.port_for(artifact, LoaderTls::None, IpFamily::of(near));
        Ok(self.artifact_at(port, node, attempt, artifact, near))
    }

    /// The URL of iPXE's script for the machine of `node`, at this address of the service.
    #[must_use]
    pub fn ipxe_script(
        &self,
        node: &Node,
        attempt: &Attempt,
        near: IpAddr,
        ipxe: LoaderTls,
    ) -> String {
        let port = self.port_for(Artifact::IpxeScript, ipxe, IpFamily::of(near));
        self.artifact_at(port, node, attempt, Artifact::IpxeScript, near)
    }

    fn artifact_at(
        &self,
        port: UrlPort,
        node: &Node,
        attempt: &Attempt,
        artifact: Artifact,
        near: IpAddr,
    ) -> String {
        link(&near_url(self.set(node, IpFamily::of(near)), port, near), attempt, artifact)
    }

    /// The port for those who fetch an artifact: what GRUB and iPXE fetch lies beside their own file, or their script.
    fn port_for(&self, artifact: Artifact, ipxe: LoaderTls, family: IpFamily) -> UrlPort {
        let fetcher = match (artifact, self.settings.http_loader) {
            (Artifact::IpxeScript, _) => ipxe,
            (
                Artifact::BootLoader | Artifact::BootLoaderArm64 | Artifact::BootLoaderRiscv64,
                HttpLoader::Grub,
            )
            | (Artifact::GrubConfig, HttpLoader::Uki | HttpLoader::Grub) => LoaderTls::None,
            // shim, and Debian's signed GRUB, fetch by means of the firmware.
            (
                Artifact::BootLoader | Artifact::BootLoaderArm64 | Artifact::BootLoaderRiscv64,
                HttpLoader::Uki | HttpLoader::ShimGrub | HttpLoader::ShimUki,
            )
            | (Artifact::GrubConfig, HttpLoader::ShimGrub | HttpLoader::ShimUki)
            | (
                Artifact::ShimSecondStage
                | Artifact::Ipxe
                | Artifact::IpxeArm64
                | Artifact::Iso
                | Artifact::Kernel
                | Artifact::Initramfs,
                _,
            ) => LoaderTls::Own,
        };
        match (fetcher, self.settings.plain_boot_port.of(family)) {
            (LoaderTls::None, Some(port)) => UrlPort::http(port),
            (LoaderTls::None, None) | (LoaderTls::Own, _) => self.settings.boot_port.of(family),
        }
    }

    /// The base URL for machines without a URL of their own, at this address of the service.
    #[must_use]
    pub fn fetched_from(&self, near: IpAddr) -> String {
        let family = IpFamily::of(near);
        near_url(self.setting(family), self.settings.boot_port.of(family), near)
    }

    /// The artifact's URL for a machine that boots over this family, on an unknown network.
    ///
    /// # Errors
    /// [`Unreachable`]
    pub fn artifact_over(
        &self,
        family: IpFamily,
        node: &Node,
        attempt: &Attempt,
        artifact: Artifact,
    ) -> Result<String, Unreachable> {
        let port = self.port_for(artifact, LoaderTls::None, family);
        Ok(link(&self.base_over(node, family, port)?, attempt, artifact))
    }

    fn base_over(
        &self,
        node: &Node,
        family: IpFamily,
        port: UrlPort,
    ) -> Result<String, Unreachable> {
        let at = || Some(port.at(self.address?));
        self.set(node, family).or_else(at).ok_or(Unreachable)
    }

    /// The port in the first URL of the machine of `node`.
    fn first_port(&self, node: &Node, family: IpFamily) -> UrlPort {
        match node.boot_interface {
            BootInterface::Http => self.port_for(Artifact::BootLoader, LoaderTls::None, family),
            BootInterface::HttpIpxe
            | BootInterface::RedfishHttps
            | BootInterface::RedfishVirtualMedia => self.settings.boot_port.of(family),
        }
    }

    /// The first URL before `/boot/` for the machine of `node`, on an unknown network.
    fn first_base(&self, node: &Node, family: IpFamily) -> Result<String, Unreachable> {
        self.base_over(node, family, self.first_port(node, family))
    }

    /// The URL before `/boot/` for the machine of `node`, on an unknown network; `None` if none is known.
    #[must_use]
    pub fn base_of(&self, node: &Node) -> Option<Url> {
        Url::parse(&self.first_base(node, IpFamily::V4).ok()?).ok()
    }

    /// Checks that a boot URL for the machine of `node` is known, on an unknown network.
    ///
    /// # Errors
    /// [`Unreachable`]
    pub fn reaches(&self, node: &Node) -> Result<(), Unreachable> {
        self.first_base(node, IpFamily::V4).map(drop)
    }

    /// Checks that firmware takes the boot URLs for the machine of `node`, as far as they are known.
    ///
    /// # Errors
    /// [`BootUrlTooLong`]
    pub fn fit_firmware(&self, node: &Node) -> Result<(), BootUrlTooLong> {
        let bases = IpFamily::ALL.map(|family| self.first_base(node, family));
        let base = bases.iter().flatten().map(String::len).max().unwrap_or(0);
        let name = Artifact::ALL.map(|artifact| artifact.file_name().len()).into_iter().max();
        let len = base + "/boot//".len() + TICKET + name.unwrap_or(0);
        if len > LONGEST_BOOT_URL { Err(BootUrlTooLong { len }) } else { Ok(()) }
    }

    /// Whether a boot URL is known for nodes without one of their own.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.setting(IpFamily::V6).is_some() || self.address.is_some()
    }

    fn set(&self, node: &Node, family: IpFamily) -> Option<String> {
        let own = node.driver_text("external_http_url").map(|url| url.trim_end_matches('/'));
        own.map(str::to_owned).or_else(|| self.setting(family))
    }

    fn setting(&self, family: IpFamily) -> Option<String> {
        let boot = match family {
            IpFamily::V4 => self.settings.boot.as_ref(),
            IpFamily::V6 => self.settings.boot6.as_ref().or(self.settings.boot.as_ref()),
        };
        boot.map(base)
    }

    /// Checks that the loader of `node` can fetch from its URL. `ipxe` is the TLS of the boot set's iPXE; `tls_only` means
    /// that no listener may be without TLS.
    ///
    /// # Errors
    /// [`LoaderLacksTls`]
    pub fn expect_tls_of_loader(
        &self,
        node: &Node,
        ipxe: LoaderTls,
        tls_only: bool,
    ) -> Result<(), LoaderLacksTls> {
        let (artifact, lacks) = match (node.boot_interface, self.settings.http_loader, ipxe) {
            (BootInterface::HttpIpxe, _, LoaderTls::None) => {
                (Artifact::IpxeScript, "the boot set's iPXE takes no CA from the firmware")
            }
            (BootInterface::Http, HttpLoader::Grub, _) => (Artifact::BootLoader, "GRUB has no TLS"),
            (BootInterface::HttpIpxe, _, LoaderTls::Own)
            | (
                BootInterface::Http,
                HttpLoader::Uki | HttpLoader::ShimGrub | HttpLoader::ShimUki,
                _,
            )
            | (BootInterface::RedfishHttps | BootInterface::RedfishVirtualMedia, _, _) => {
                return Ok(());
            }
        };
        let port = |family| self.port_for(artifact, LoaderTls::None, family);
        // Whether there are machines that boot over IPv6 is known by `url6` alone.
        let over_ipv6 = self.settings.boot6.is_some().then_some(IpFamily::V6);
        let mut families = over_ipv6.into_iter().chain([IpFamily::V4]);
        if families.any(|family| self.scheme_over(node, family, port(family)) == UrlScheme::Https) {
            return Err(LoaderLacksTls { lacks, tls_only });
        }
        Ok(())
    }

    /// The scheme of the URL for machines that boot over this family. A URL of the settings that they cannot reach is
    /// replaced; a node's own tells the family of its machine.
    fn scheme_over(&self, node: &Node, family: IpFamily, port: UrlPort) -> UrlScheme {
        let is_own = node.driver_text("external_http_url").is_some();
        let set = self.set(node, family).and_then(|url| Url::parse(&url).ok());
        match set.filter(|url| is_own || family.reaches(url)) {
            Some(url) if url.scheme() == UrlScheme::Https.name() => UrlScheme::Https,
            Some(_) => UrlScheme::Http,
            None => port.scheme,
        }
    }

    /// Whether the firmware of the machine of `node` gets the service's CA before a boot.
    #[must_use]
    pub fn enrols_ca(&self, node: &Node) -> bool {
        let is_https = |family| {
            self.scheme_over(node, family, self.first_port(node, family)) == UrlScheme::Https
        };
        Enrolment::of_boot_ca(node) != Enrolment::Leave && IpFamily::ALL.into_iter().any(is_https)
    }

    /// The scheme of the agent URL.
    #[must_use]
    pub fn agent_scheme(&self) -> UrlScheme {
        match &self.settings.agent {
            Some(url) if url.scheme() == UrlScheme::Https.name() => UrlScheme::Https,
            Some(_) => UrlScheme::Http,
            None => self.settings.agent_port.v4.scheme,
        }
    }

    /// The agent URL, `ipa-api-url`. `near` is the service's address that the machine fetched from.
    #[must_use]
    pub fn agent(&self, near: IpAddr) -> String {
        match &self.settings.agent {
            Some(url) => base(url),
            None => self.settings.agent_port.of(IpFamily::of(near)).at(near),
        }
    }
}

impl IpFamily {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Whether machines with only this family can fetch from the URL: a host name may have both.
    #[must_use]
    pub fn reaches(self, url: &Url) -> bool {
        match (self, url.host()) {
            (Self::V4, Some(Host::Ipv6(_))) | (Self::V6, Some(Host::Ipv4(_))) | (_, None) => false,
            (Self::V4 | Self::V6, Some(Host::Domain(_) | Host::Ipv4(_) | Host::Ipv6(_))) => true,
        }
    }
}

fn near_url(set: Option<String>, port: UrlPort, near: IpAddr) -> String {
    // Over IPv6, firmware cannot use an IPv4 address, and the other way round.
    let reaches =
        |url: &String| Url::parse(url).map_or(true, |url| IpFamily::of(near).reaches(&url));
    set.filter(reaches).unwrap_or_else(|| port.at(near))
}

fn link(base: &str, attempt: &Attempt, artifact: Artifact) -> String {
    format!("{base}/boot/{}/{}", attempt.ticket.0, artifact.file_name())
}

fn base(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use provision::test_nodes::booting_node;

    use super::*;

    fn urls(boot: Option<&str>, boot6: Option<&str>) -> Urls {
        Urls::new(settings(boot, boot6), None)
    }

    fn settings(boot: Option<&str>, boot6: Option<&str>) -> UrlSettings {
        let url = |url: &str| url.parse().unwrap();
        UrlSettings { boot: boot.map(url), boot6: boot6.map(url), ..UrlSettings::default() }
    }

    fn iso(urls: &Urls, node: &Node, near: Option<&str>) -> Result<String, Unreachable> {
        let near = near.map(|near| near.parse().unwrap());
        urls.artifact(node, node.attempt.as_ref().unwrap(), Artifact::Iso, near)
    }

    #[test]
    fn the_nodes_own_url_wins_over_the_setting_and_that_over_addresses() {
        let mut node = booting_node();
        let address = Some([10, 0, 0, 1].into());

        let plain = Urls::new(settings(None, None), address);
        assert_eq!(iso(&plain, &node, None).unwrap(), "http://10.0.0.1:8080/boot/TICKET/boot.iso");
        let near = iso(&plain, &node, Some("10.1.0.1")).unwrap();
        assert_eq!(near, "http://10.1.0.1:8080/boot/TICKET/boot.iso");
        let six = iso(&plain, &node, Some("fd00::1")).unwrap();
        assert_eq!(six, "http://[fd00::1]:8080/boot/TICKET/boot.iso");
        let set = Urls::new(settings(Some("http://boot.example/"), None), address);
        assert_eq!(iso(&set, &node, None).unwrap(), "http://boot.example/boot/TICKET/boot.iso");
        node.driver_info.insert("external_http_url".into(), "https://edge.example/x/".into());
        assert_eq!(iso(&set, &node, None).unwrap(), "https://edge.example/x/boot/TICKET/boot.iso");
    }

    #[test]
    fn over_ipv6_machines_get_the_url_for_it_and_never_one_that_they_cannot_reach() {
        let four = urls(Some("http://10.0.0.1"), None);
        let both = urls(Some("http://10.0.0.1"), Some("http://[fd00::1]"));
        let node = booting_node();
        let attempt = node.attempt.as_ref().unwrap();
        let near = |urls: &Urls, near: &str| iso(urls, &node, Some(near)).unwrap();
        let over = |family| both.artifact_over(family, &node, attempt, Artifact::Iso).unwrap();

        assert_eq!(near(&four, "10.0.0.2"), "http://10.0.0.1/boot/TICKET/boot.iso");
        assert_eq!(near(&four, "fd00::2"), "http://[fd00::2]:8080/boot/TICKET/boot.iso");
        assert_eq!(near(&both, "10.0.0.2"), "http://10.0.0.1/boot/TICKET/boot.iso");
        assert_eq!(near(&both, "fd00::2"), "http://[fd00::1]/boot/TICKET/boot.iso");
        assert_eq!(over(IpFamily::V4), "http://10.0.0.1/boot/TICKET/boot.iso");
        assert_eq!(over(IpFamily::V6), "http://[fd00::1]/boot/TICKET/boot.iso");
    }

    #[test]
    fn urls_are_short_and_one_that_firmware_would_cut_is_refused() {
        let mut node = booting_node();
        let plain = Urls::new(settings(None, None), Some([192, 168, 100, 100].into()));
        assert_eq!(plain.fit_firmware(&node), Ok(()));
        node.attempt.as_mut().unwrap().ticket.0 = "x".repeat(TICKET);
        // Neutron and some tools have room for 64 bytes.
        assert!(iso(&plain, &node, None).unwrap().len() <= 64);

        let prefix = "https://boot.example/";
        for (len, fits) in [(200, true), (250, false)] {
            let url = format!("{prefix}{}", "x".repeat(len - prefix.len()));
            node.driver_info.insert("external_http_url".into(), url.into());
            assert_eq!(plain.fit_firmware(&node).is_ok(), fits, "{len}");
        }
    }

    #[test]
    fn without_any_address_the_setting_to_make_is_named() {
        let unreachable = iso(&urls(None, None), &booting_node(), None).unwrap_err();

        assert!(unreachable.to_string().contains("external_http_url"));
    }

    #[test]
    fn an_agent_calls_where_its_machine_fetched_from() {
        let urls = urls(None, None);

        assert_eq!(urls.agent([10, 0, 0, 1].into()), "http://10.0.0.1:6386");
        assert_eq!(urls.agent("2001:db8::1".parse().unwrap()), "http://[2001:db8::1]:6386");
    }

    #[test]
    fn boot_loaders_without_tls_get_the_port_without_it_and_all_others_the_one_with_it() {
        const NEAR: &str = "10.0.0.1";
        let tls = UrlPort { scheme: UrlScheme::Https, port: 8443 };
        let with = |http_loader, plain_boot_port| {
            let boot_port = ByFamily::both(tls);
            let plain_boot_port = ByFamily::both(plain_boot_port);
            let own = settings(None, None);
            Urls::new(UrlSettings { boot_port, plain_boot_port, http_loader, ..own }, None)
        };
        let (near, node) = (NEAR.parse().unwrap(), booting_node());
        let attempt = node.attempt.as_ref().unwrap();
        let of =
            |urls: &Urls, artifact| urls.artifact(&node, attempt, artifact, Some(near)).unwrap();
        let script = |urls: &Urls, ipxe| urls.ipxe_script(&node, attempt, near, ipxe);
        let (uki, grub) = (with(HttpLoader::Uki, Some(8080)), with(HttpLoader::Grub, Some(8080)));
        let only = with(HttpLoader::Grub, None);

        for artifact in [Artifact::BootLoader, Artifact::Iso, Artifact::Ipxe] {
            assert!(of(&uki, artifact).starts_with("https://10.0.0.1:8443/"), "{artifact:?}");
        }
        assert!(of(&uki, Artifact::IpxeScript).starts_with("http://10.0.0.1:8080/"));
        assert!(script(&uki, LoaderTls::None).starts_with("http://10.0.0.1:8080/"));
        assert!(script(&uki, LoaderTls::Own).starts_with("https://10.0.0.1:8443/"));
        assert!(of(&grub, Artifact::BootLoader).starts_with("http://10.0.0.1:8080/"));
        assert!(of(&grub, Artifact::Iso).starts_with("https://"), "firmware fetches it");
        assert!(of(&only, Artifact::BootLoader).starts_with("https://"));
        assert!(script(&only, LoaderTls::None).starts_with("https://"));
    }

    #[test]
    fn the_firmware_gets_the_ca_if_a_url_of_either_family_begins_with_https() {
        let of = |boot: Option<&str>, boot6: Option<&str>, scheme| {
            let boot_port = ByFamily::both(UrlPort { scheme, port: 8443 });
            Urls::new(UrlSettings { boot_port, ..settings(boot, boot6) }, None)
        };
        let (plain, tls) = (UrlScheme::Http, UrlScheme::Https);
        let mut node = booting_node();
        node.boot_interface = BootInterface::Http;

        assert!(!of(Some("http://10.0.0.1"), Some("http://[fd00::1]"), tls).enrols_ca(&node));
        assert!(of(Some("http://10.0.0.1"), Some("https://[fd00::1]"), plain).enrols_ca(&node));
        // Over IPv6, machines get the listener's own address instead of the IPv4 address.
        assert!(of(Some("http://10.0.0.1"), None, tls).enrols_ca(&node));
        assert!(!of(Some("http://boot.example"), None, tls).enrols_ca(&node));
        node.driver_info.insert("external_http_url".into(), "HTTPS://edge.example".into());
        assert!(of(None, None, plain).enrols_ca(&node));
        node.driver_info.insert("external_http_url".into(), "http://192.0.2.1".into());
        assert!(!of(None, None, tls).enrols_ca(&node));
    }

    #[test]
    fn grub_is_refused_a_url_with_https_for_ipv6() {
        let mut node = booting_node();
        node.boot_interface = BootInterface::Http;
        let with = |boot6: Option<&str>| {
            let settings = settings(Some("http://10.0.0.1"), boot6);
            Urls::new(UrlSettings { http_loader: HttpLoader::Grub, ..settings }, None)
        };
        let refused =
            |urls: &Urls| urls.expect_tls_of_loader(&node, LoaderTls::None, false).is_err();

        assert!(refused(&with(Some("https://[fd00::1]"))));
        assert!(!refused(&with(Some("http://[fd00::1]"))));
        assert!(!refused(&with(None)));
    }
}
