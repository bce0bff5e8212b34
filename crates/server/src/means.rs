//! The host's means to boot machines: checked before a machine is touched, and logged at the start.

use anyhow::{Context as _, Result, bail, ensure};
use artifacts::{BootSets, ipxe_trusts_firmware_cas};
use hardware::{CpuArch, SecureBootTrust};
use jiff::Timestamp;
use netboot::boot_set::boot_set_instructions;
use netboot::image_reach::ImageReach;
use netboot::network_settings::NetworkSettings;
use netboot::secure_boot::{UkiSignature, refused_by_secure_boot};
use netboot::urls::{LoaderTls, Urls};
use providers::settings::DhcpProvider;
use provision::artifact::HttpLoader;
use provision::image::{MachineImage, image_of};
use provision::{Attempt, BootInterface, Boots, Node};
use url::Url;
use uuid::Uuid;

use crate::config::Config;

/// Boot sets, URLs and DHCP of this host.
#[derive(Clone, Debug)]
pub struct BootMeans {
    boot_sets: BootSets,
    urls: Urls,
    dhcp: WhoAnswers,
    reach: ImageReach,
    /// Whether every listener has TLS.
    tls_only: bool,
    loader: HttpLoader,
    /// Whether UKIs are signed.
    signs: bool,
    /// Whether machines get IPv6 addresses alone from this service.
    leases_ipv6_alone: bool,
}

/// The server that answers machines' DHCP requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhoAnswers {
    Nobody,
    /// This service; machines fetch from its address on their network.
    Us,
    /// An external service that gets the URL.
    Told,
    /// A server configured by others.
    Others,
}

impl BootMeans {
    /// The URL before `/boot/` for the machine of `node`, if one is known.
    pub(crate) fn base_of(&self, node: &Node) -> Option<Url> {
        self.urls.base_of(node)
    }

    /// Whether the firmware of the machine of `node` gets the service's CA before a boot.
    pub(crate) fn enrols_ca(&self, node: &Node) -> bool {
        self.urls.enrols_ca(node)
    }

    /// Whether firmware with Secure Boot must trust the certificate that signs images: shim needs another one, and verifies
    /// what it starts itself.
    pub(crate) fn needs_signer(&self, node: &Node) -> bool {
        let cpu_arch = node.cpu_arch().unwrap_or_default();
        !node.boot_interface.begins_with_shim(self.loader, cpu_arch)
    }

    /// From the settings, and the current state of the host.
    #[must_use]
    pub fn new(config: &Config, urls: Urls, boot_sets: BootSets) -> Self {
        let dhcp = match config.dhcp.provider {
            DhcpProvider::Embedded if config.dhcp.networks.is_empty() => WhoAnswers::Nobody,
            DhcpProvider::Embedded => WhoAnswers::Us,
            DhcpProvider::Dnsmasq | DhcpProvider::Kea | DhcpProvider::Neutron => WhoAnswers::Told,
            DhcpProvider::None => WhoAnswers::Others,
        };
        Self {
            boot_sets,
            urls,
            dhcp,
            reach: config.image_reach(),
            tls_only: config.tls.only,
            loader: config.boot.http_loader,
            signs: config.boot.sign_key.is_some(),
            leases_ipv6_alone: dhcp == WhoAnswers::Us
                && config.dhcp.networks.iter().all(NetworkSettings::is_ipv6_alone),
        }
    }

    /// Checks that this host can boot a machine by its node's boot interface. It reads files.
    ///
    /// # Errors
    /// The missing part, and how to provide it.
    pub fn check(&self, node: &Node) -> Result<()> {
        match (node.boot_interface, self.dhcp) {
            (BootInterface::RedfishHttps | BootInterface::RedfishVirtualMedia, _)
            | (BootInterface::Http | BootInterface::HttpIpxe, WhoAnswers::Told) => {
                self.urls.reaches(node)?;
            }
            (BootInterface::Http | BootInterface::HttpIpxe, WhoAnswers::Nobody) => ensure!(
                false,
                "its boot interface is {}, and nobody answers DHCP: add a [[dhcp.network]] to this service's settings \
                 (or start it with --dhcp INTERFACE=FIRST-LAST), name another DHCP service with provider in [dhcp], or \
                 use redfish-https or redfish-virtual-media",
                node.boot_interface
            ),
            (
                BootInterface::Http | BootInterface::HttpIpxe,
                WhoAnswers::Us | WhoAnswers::Others,
            ) => {}
        }
        let ipxe = if self.has_ipxe_with_tls(node) { LoaderTls::Own } else { LoaderTls::None };
        self.urls.expect_tls_of_loader(node, ipxe, self.tls_only)?;
        // The settings have no such URL.
        let plain = self.urls.base_of(node).filter(|base| self.tls_only && base.scheme() == "http");
        ensure!(
            plain.is_none(),
            "external_http_url in driver_info does not begin with https, and only = true in [tls] of this service's \
             settings permits https alone"
        );
        self.urls.fit_firmware(node)?;
        let attempt = node.live_attempt();
        let boots = attempt.map_or(Boots::Ramdisk, Attempt::boots);
        let image = image_of(node, boots, node.boot_interface)?;
        for named in image.named() {
            self.reach.expect_image(named)?;
        }
        // A boot set has the other required files: a stub, or loaders.
        if matches!(image, MachineImage::Iso(_)) {
            return Ok(());
        }
        let cpu_arch = node.cpu_arch()?;
        self.expect_signed_loader(node, cpu_arch)?;
        self.expect_ipv4_of_grub(node.boot_interface)?;
        self.boot_sets.look_again();
        let folder = self.boot_sets.folder();
        artifacts::check_boot_set(folder, cpu_arch).map_err(|missing| {
            let make = boot_set_instructions(cpu_arch, folder);
            missing.context(format!("this host has no boot set for {cpu_arch}: {make}"))
        })?;
        if node.boot_interface.begins_with_shim(self.loader, cpu_arch) {
            self.expect_shim(node, cpu_arch)?;
        }
        Ok(())
    }

    /// Checks that `http_loader` fits the boot sets that are there, and the settings. It reads files.
    ///
    /// # Errors
    /// The loader fetches nothing, or boot sets lack it.
    pub fn expect_http_loader(&self) -> Result<String> {
        self.expect_ipv4_of_grub(BootInterface::Http)?;
        let mut node = Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH);
        node.boot_interface = BootInterface::Http;
        let tls = self.urls.expect_tls_of_loader(&node, LoaderTls::None, self.tls_only);
        tls.context("nodes with the boot interface http, and no external_http_url, do not boot")?;
        self.boot_sets.look_again();
        let has_shim = |cpu_arch: &CpuArch| self.loader.in_image(*cpu_arch).is_shim();
        let there = self.boot_sets.there();
        let fits = match there.is_empty() {
            true => "fits the settings",
            false => "fits the boot set and the settings",
        };
        let (by_shim, others): (Vec<_>, Vec<_>) = there.into_iter().partition(has_shim);
        for cpu_arch in by_shim {
            let shim = artifacts::shim_authorities(self.boot_sets.folder(), cpu_arch);
            shim.context("http_loader in [boot] is shim, without which only http-ipxe boots")?;
        }
        if others.is_empty() || !self.loader.is_shim() {
            return Ok(fits.to_owned());
        }
        let others: Vec<_> = others.iter().map(|cpu_arch| cpu_arch.name()).collect();
        Ok(format!(
            "{fits}; there is no shim for {}: http does not boot there",
            others.join(" and ")
        ))
    }

    fn expect_ipv4_of_grub(&self, boot_interface: BootInterface) -> Result<()> {
        ensure!(
            !(self.leases_ipv6_alone
                && boot_interface == BootInterface::Http
                && self.loader == HttpLoader::ShimGrub),
            "http_loader is shim-grub, whose GRUB fetches nothing over IPv6, and no [[dhcp.network]] has IPv4: give one a \
             pool, or set http_loader to shim-uki or uki"
        );
        Ok(())
    }

    fn has_ipxe_with_tls(&self, node: &Node) -> bool {
        let folder = self.boot_sets.folder();
        node.boot_interface == BootInterface::HttpIpxe
            && node.cpu_arch().is_ok_and(|cpu_arch| ipxe_trusts_firmware_cas(folder, cpu_arch))
    }

    /// Checks that the boot set has shim, and that firmware with Secure Boot starts it by what its databases hold.
    fn expect_shim(&self, node: &Node, cpu_arch: CpuArch) -> Result<()> {
        let signers = artifacts::shim_authorities(self.boot_sets.folder(), cpu_arch)?;
        // An operator's own shim has another signer, which db may have.
        let refuses =
            |trust: &SecureBootTrust| !signers.is_empty() && !trust.starts_signed_by(&signers);
        if let Some(trust) = trust_of(node).filter(refuses) {
            bail!(
                "Secure Boot is on, and {trust}: it does not start the boot set's shim, which needs a CA of Microsoft's \
                 that signed it in db, and none in dbx"
            );
        }
        Ok(())
    }

    /// Checks that firmware with Secure Boot, as the BMC last showed it, may start the first loader.
    fn expect_signed_loader(&self, node: &Node, cpu_arch: CpuArch) -> Result<()> {
        if node.secure_boot != Some(true) {
            return Ok(());
        }
        let signature = match trust_of(node) {
            _ if !self.signs => UkiSignature::Absent,
            Some(trust) if trust.forbids_own_images() => UkiSignature::Forbidden,
            Some(_) | None => UkiSignature::Present,
        };
        let refused = refused_by_secure_boot(node.boot_interface, self.loader, cpu_arch, signature);
        if let Some(why) = refused {
            bail!("Secure Boot is on, and {why}; or switch Secure Boot off");
        }
        Ok(())
    }

    /// A log line for the start: what this host can boot, or lacks.
    ///
    /// # Errors
    /// The line, if no machine can be booted at all.
    pub fn summary(&self) -> Result<String, String> {
        let is_url_known = self.urls.is_known();
        match (self.dhcp, is_url_known) {
            (WhoAnswers::Nobody, false) => Err(
                "no machine can be booted yet: there is no DHCP network (`--dhcp INTERFACE=FIRST-LAST` adds one), and \
                 url in [boot] does not say where machines reach this host"
                    .to_owned(),
            ),
            (WhoAnswers::Nobody, true) => Ok(
                "no DHCP: only redfish-https and redfish-virtual-media boot; `--dhcp INTERFACE=FIRST-LAST` adds a \
                 network"
                    .to_owned(),
            ),
            (WhoAnswers::Told | WhoAnswers::Others, false) => Err(
                "no boot URL is known yet: set url in [boot] to the URL by which machines reach this host"
                    .to_owned(),
            ),
            (WhoAnswers::Us | WhoAnswers::Told | WhoAnswers::Others, _) => {
                Ok("machines boot by redfish-https, http, http-ipxe and redfish-virtual-media"
                    .to_owned())
            }
        }
    }
}

/// What the firmware of the machine of `node` held when it was last read; `None` while Secure Boot is off.
fn trust_of(node: &Node) -> Option<SecureBootTrust> {
    node.secure_boot_trust.filter(|_| node.secure_boot == Some(true))
}

#[cfg(test)]
mod tests {
    use hardware::HeldSigners;

    use super::*;
    use crate::test_boot_set::write_boot_set;

    fn means(settings: &str, address: Option<[u8; 4]>) -> BootMeans {
        let config: Config = settings.parse().unwrap();
        let urls = config.urls(address.map(Into::into));
        BootMeans::new(&config, urls, BootSets::look("/nonexistent".as_ref()))
    }

    fn said(means: &BootMeans, interface: BootInterface, iso: bool) -> String {
        let mut node = Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH);
        node.boot_interface = interface;
        if iso {
            node.driver_info.insert("deploy_iso".into(), "http://images.example/x.iso".into());
        }
        said_of(means, &node)
    }

    fn said_of(means: &BootMeans, node: &Node) -> String {
        means.check(node).map_or_else(|error| format!("{error:#}"), |()| "can boot".to_owned())
    }

    #[test]
    fn a_loader_without_our_tls_is_refused_an_https_url_in_words() {
        let network = "[[dhcp.network]]\ninterface = \"lo\"\npool = \"127.0.0.2-127.0.0.9\"";
        let own = Some([192, 0, 2, 1]);
        let of = |boot: &str| means(&format!("[boot]\n{boot}{network}"), own);
        let both = "listen = [\"[::]:8080\", \"https://[::]:8443\"]\n";
        let tls = "listen = \"https://[::]:8443\"\n";
        let grub = "http_loader = \"grub\"\n";
        let named = "url = \"https://192.0.2.1:8443\"\n";
        let is_refused = |means: &BootMeans, interface| {
            let said = said(means, interface, false);
            said.contains("its URL begins with https").then_some(said)
        };

        let ipxe = is_refused(&of(tls), BootInterface::HttpIpxe).unwrap();
        assert!(ipxe.contains("takes no CA") && ipxe.contains("add an http:// address"), "{ipxe}");
        let of_grub = is_refused(&of(&format!("{tls}{grub}")), BootInterface::Http).unwrap();
        assert!(of_grub.contains("GRUB has no TLS"), "{of_grub}");
        let only = means(&format!("{network}\n[tls]\nonly = true"), own);
        let only = is_refused(&only, BootInterface::HttpIpxe).unwrap();
        assert!(only.contains("only = true in [tls]"), "{only}");
        assert!(is_refused(&of(&format!("{both}{named}")), BootInterface::HttpIpxe).is_some());
        assert_eq!(is_refused(&of(tls), BootInterface::Http), None);
        // With both addresses these two get the one without TLS.
        assert_eq!(is_refused(&of(both), BootInterface::HttpIpxe), None);
        assert_eq!(is_refused(&of(&format!("{both}{grub}")), BootInterface::Http), None);
    }

    #[test]
    fn a_nodes_own_url_in_clear_is_refused_where_https_is_all_that_is_permitted() {
        let url = "[boot]\nurl = \"https://192.0.2.1:8443\"\n";
        let (any, only) = (means(url, None), means(&format!("{url}[tls]\nonly = true"), None));
        let mut node = Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH);
        node.boot_interface = BootInterface::RedfishHttps;
        node.driver_info.insert("deploy_iso".into(), "https://images.example/x.iso".into());

        for (url, is_refused) in [("http://edge.example", true), ("https://edge.example", false)] {
            node.driver_info.insert("external_http_url".into(), url.into());
            let said = said_of(&only, &node);
            assert_eq!(said.starts_with("external_http_url in driver_info"), is_refused, "{said}");
            assert_eq!(said_of(&any, &node), "can boot");
        }
    }

    #[test]
    fn an_ipxe_that_takes_cas_from_the_firmware_may_have_an_https_url() {
        let folder = tempfile::tempdir().unwrap();
        let config: Config = "[boot]\nlisten = \"https://[::]:8443\"\n\
                              [[dhcp.network]]\ninterface = \"lo\"\npool = \"127.0.0.2-127.0.0.9\""
            .parse()
            .unwrap();
        let urls = config.urls(Some([192, 0, 2, 1].into()));
        let means = BootMeans::new(&config, urls, BootSets::look(folder.path()));
        let with = |text: &str| {
            let program: Vec<_> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            std::fs::write(folder.path().join("snponly.efi"), program).unwrap();
            said(&means, BootInterface::HttpIpxe, false)
        };

        assert!(with("BootCurrent").contains("takes no CA from the firmware"));
        assert!(with("TlsCaCertificate").contains("this host has no boot set"));
    }

    #[test]
    fn an_image_at_an_address_that_is_not_asked_is_seen_before_the_boot() {
        let url = "[boot]\nurl = \"http://192.0.2.1:8080\"";
        let strict = means(url, None);
        let allows = means(&format!("{url}\n[images]\nloopback = true"), None);

        for (setting, image) in [
            ("deploy_iso", "http://127.1/x.iso"),
            ("deploy_iso", "http://[fe80::1]/x.iso"),
            ("deploy_kernel", "http://169.254.169.254/kernel"),
            ("deploy_ramdisk", "http://127.0.0.1/ramdisk"),
        ] {
            let mut node = Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH);
            node.boot_interface = BootInterface::RedfishHttps;
            if setting != "deploy_iso" {
                for half in ["deploy_kernel", "deploy_ramdisk"] {
                    node.driver_info.insert(half.into(), "http://images.example/half".into());
                }
            }
            node.driver_info.insert(setting.into(), image.into());

            let said = said_of(&strict, &node);

            let about =
                format!("driver_info/{setting} cannot be used: images are not fetched from");
            assert!(said.starts_with(&about), "{said}");
            let is_loopback = image.starts_with("http://127");
            assert_eq!(said_of(&allows, &node).starts_with(&about), !is_loopback, "{image}");
        }
    }

    #[test]
    fn with_secure_boot_an_image_needs_shim_or_a_signature() {
        let mut node = Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH);
        node.secure_boot = Some(true);
        let with = |loader: &str| {
            let settings =
                format!("[boot]\nurl = \"http://192.0.2.1\"\nhttp_loader = \"{loader}\"");
            means(&settings, None)
        };
        for interface in [BootInterface::RedfishHttps, BootInterface::RedfishVirtualMedia] {
            node.boot_interface = interface;

            let unsigned = said_of(&with("uki"), &node);
            assert!(unsigned.contains("images are not signed"), "{unsigned}");
            assert!(with("uki").needs_signer(&node));
            let by_shim = said_of(&with("shim-grub"), &node);
            assert!(by_shim.contains("no boot set for"), "{by_shim}");
            assert!(!with("shim-grub").needs_signer(&node));
        }
    }

    #[test]
    fn grub_behind_shim_is_refused_where_machines_get_ipv6_addresses_alone() {
        let network = |pools: &str| format!("[[dhcp.network]]\ninterface = \"a\"\n{pools}\n");
        let (v4, v6) =
            ("pool = \"192.0.2.10-192.0.2.20\"", "pool6 = \"2001:db8::10-2001:db8::20\"");
        let with = |loader: &str, pools: &str| {
            means(
                &format!("[boot]\nhttp_loader = \"{loader}\"\n{}", network(pools)),
                Some([192, 0, 2, 1]),
            )
        };
        let is_refused = |means: &BootMeans, interface| {
            said(means, interface, false).contains("fetches nothing over IPv6")
        };

        assert!(is_refused(&with("shim-grub", v6), BootInterface::Http));
        assert!(!is_refused(&with("shim-grub", v6), BootInterface::RedfishHttps));
        assert!(!is_refused(&with("uki", v6), BootInterface::Http));
        assert!(!is_refused(&with("shim-grub", &format!("{v4}\n{v6}")), BootInterface::Http));
        assert!(!is_refused(&with("shim-grub", "proxy = true"), BootInterface::Http));
    }

    #[test]
    fn a_loader_that_boots_nothing_is_seen_without_a_node() {
        let folder = tempfile::tempdir().unwrap();
        write_boot_set(folder.path());
        let key = "sign_key = \"/k\"\nsign_certificate = \"/c\"";
        let fits = |boot: &str, more: &str| {
            let config: Config = format!("[boot]\n{boot}\n{more}").parse().unwrap();
            let boot_sets = BootSets::look(folder.path());
            let means = BootMeans::new(&config, config.urls(None), boot_sets);
            means.expect_http_loader().map_or_else(|error| format!("{error:#}"), |_| "fits".into())
        };
        let only = "[tls]\nonly = true";

        for loader in ["shim-grub", "shim-uki"] {
            let refused = fits(&format!("http_loader = \"{loader}\"\n{key}"), "");
            assert!(refused.contains("`ferroboot image loaders`"), "{refused}");
        }
        assert_eq!(fits("", only), "fits");
        assert_eq!(means("", None).expect_http_loader().unwrap(), "fits the settings");
        let grub = "http_loader = \"grub\"";
        assert_eq!(fits(grub, ""), "fits");
        let refused = fits(grub, only);
        assert!(refused.contains("GRUB has no TLS"), "{refused}");
        let tls = "listen = \"https://[::]:8443\"";
        let proxy = format!("{grub}\n{tls}\nurl = \"http://boot.example\"");
        assert_eq!(fits(&proxy, ""), "fits", "a proxy without TLS");
        let v6 = "[[dhcp.network]]\ninterface = \"a\"\npool6 = \"2001:db8::10-2001:db8::20\"";
        let refused = fits("http_loader = \"shim-grub\"", v6);
        assert!(refused.contains("fetches nothing over IPv6"), "{refused}");
    }

    #[test]
    fn a_host_that_can_boot_nothing_says_what_it_lacks() {
        let bare = means("", None);

        assert!(said(&bare, BootInterface::RedfishHttps, false).contains("url in [boot]"));
        assert!(said(&bare, BootInterface::RedfishHttps, true).contains("url in [boot]"));
        assert!(said(&bare, BootInterface::RedfishVirtualMedia, true).contains("url in [boot]"));
        for interface in [BootInterface::Http, BootInterface::HttpIpxe] {
            assert!(said(&bare, interface, false).contains("nobody answers DHCP"));
        }
        assert!(bare.summary().unwrap_err().starts_with("no machine can be booted yet"));
    }

    #[test]
    fn a_certificate_in_dbx_is_refused_while_secure_boot_is_on() {
        let network = "[[dhcp.network]]\ninterface = \"lo\"\npool = \"127.0.0.2-127.0.0.9\"";
        let signing = "[boot]\nsign_key = \"/k\"\nsign_certificate = \"/c\"\n";
        let means = means(&format!("{signing}{network}"), Some([192, 0, 2, 1]));
        let mut node = Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH);
        let own = HeldSigners { sign_certificate: true, ..HeldSigners::default() };
        node.boot_interface = BootInterface::Http;
        node.secure_boot_trust = Some(SecureBootTrust { allowed: own, forbidden: Some(own) });
        let words = "Secure Boot is on, and dbx forbids the certificate that signs images";

        for (is_on, is_refused) in [(Some(true), true), (Some(false), false), (None, false)] {
            node.secure_boot = is_on;
            assert_eq!(said_of(&means, &node).starts_with(words), is_refused, "{is_on:?}");
        }
    }

    #[test]
    fn each_way_to_boot_needs_its_own() {
        let url = means("[boot]\nurl = \"http://192.0.2.1:8080\"", None);
        let network = "[[dhcp.network]]\ninterface = \"a\"\npool = \"192.0.2.10-192.0.2.20\"";
        let dhcp = means(network, Some([192, 0, 2, 1]));
        let told = means("[dhcp]\nprovider = \"dnsmasq\"", None);
        let none = means("[dhcp]\nprovider = \"none\"", None);

        assert_eq!(said(&url, BootInterface::RedfishHttps, true), "can boot");
        assert_eq!(said(&url, BootInterface::RedfishVirtualMedia, true), "can boot");
        let without_set = said(&url, BootInterface::RedfishHttps, false);
        assert!(without_set.contains("no boot set for") && without_set.contains("image build"));
        assert!(said(&url, BootInterface::Http, false).contains("nobody answers DHCP"));
        assert!(url.summary().unwrap().contains("only redfish-https"));
        assert!(said(&dhcp, BootInterface::Http, false).contains("no boot set for"));
        assert_eq!(said(&dhcp, BootInterface::RedfishHttps, true), "can boot");
        assert!(dhcp.summary().is_ok());
        assert!(said(&told, BootInterface::Http, false).contains("url in [boot]"));
        assert!(told.summary().is_err());
        assert!(said(&none, BootInterface::Http, false).contains("no boot set for"));
    }
}
