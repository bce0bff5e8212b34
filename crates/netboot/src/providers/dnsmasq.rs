//! The boots of machines in dnsmasq: the files of its `dhcp-hostsdir` and `dhcp-optsdir`, in Ironic's layout.
//!
//! dnsmasq reads a file when it is created or changed, and adds the contents to its configuration. Of several lines
//! for a MAC address, the newest is valid; nothing is removed before a restart. So the options of each boot depend on
//! a tag of that boot, and a boot ends with a newer line for its MAC address without that tag.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use hardware::Mac;
use thiserror::Error;
use uuid::Uuid;

use super::announcement::{AnnouncedPort, Announcement, Links, NoLinks};
use super::picture::Picture;
use crate::urls::IpFamily;

/// The prefix of this service's file names, as in Ironic.
const OURS: &str = "ironic-";

/// The settings of a line without a boot.
const NO_BOOT: &str = "set:ironic";

/// The reason why dnsmasq cannot be configured for a boot.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DnsmasqRefusal {
    /// There is no URL.
    #[error(transparent)]
    NoLinks(#[from] NoLinks),
    /// There is a URL only for machines with IPv6.
    #[error(
        "dnsmasq can tell firmware what to boot over IPv4 only: it sends no DHCPv6 vendor class"
    )]
    Ipv6Alone(#[source] NoLinks),
    /// The operator's settings of a port have a character that would end the line.
    #[error(
        "dnsmasq_dhcp_host in extra of the port {mac} cannot be a part of a dhcp-host line: {own:?}"
    )]
    NoPartOfLine {
        /// The port.
        mac: Mac,
        /// The settings.
        own: String,
    },
    /// The operator's settings of a port contain an address.
    #[error(
        "dnsmasq_dhcp_host in extra of the port {mac} has the address {address}, which dnsmasq would not let go of: \
         write a name there, and give that its address in /etc/hosts of dnsmasq's host"
    )]
    Address {
        /// The port.
        mac: Mac,
        /// The address.
        address: String,
    },
}

/// The files of one boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootFiles {
    /// The file of its options, in `dhcp-optsdir`.
    pub options: NamedText,
    /// The files of its ports, in `dhcp-hostsdir`.
    pub hosts: Vec<NamedText>,
}

/// A file that dnsmasq reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedText {
    /// The name of the file, in its folder.
    pub name: String,
    /// The contents of the file.
    pub text: String,
}

/// The files of the wanted configuration.
#[derive(Clone, Debug)]
pub struct KnownFiles {
    options: HashSet<String>,
    boots: HashSet<String>,
    /// The lines of all ports without a boot, by file name.
    rests: HashMap<String, String>,
}

/// The state of a hosts file's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostFile<'a> {
    /// The port boots.
    Boots,
    /// The port does not boot; this is its line.
    Rests(&'a str),
    /// The port does not exist any more.
    Gone,
}

impl BootFiles {
    /// The files of a boot.
    ///
    /// # Errors
    /// There is no URL, or dnsmasq cannot send it.
    pub fn of(told: &Announcement) -> Result<Self, DnsmasqRefusal> {
        let options = NamedText { name: options_file(told.node), text: option_lines(told)? };
        let host = |port: &AnnouncedPort| NamedText {
            name: host_file(port.mac),
            text: host_line(port, Some(told.attempt)),
        };
        Ok(Self { options, hosts: told.ports.iter().map(host).collect() })
    }
}

impl KnownFiles {
    /// The files for `picture`.
    #[must_use]
    pub fn of(Picture { told, ports, .. }: &Picture) -> Self {
        let booting = told.iter().flat_map(|told| &told.ports);
        let rests = ports.iter().map(|port| (host_file(port.mac), host_line(port, None)));
        Self {
            options: told.iter().map(|told| options_file(told.node)).collect(),
            boots: booting.map(|port| host_file(port.mac)).collect(),
            rests: rests.collect(),
        }
    }

    /// The state of a hosts file's port.
    #[must_use]
    pub fn host(&self, name: &str) -> HostFile<'_> {
        if self.boots.contains(name) {
            return HostFile::Boots;
        }
        self.rests.get(name).map_or(HostFile::Gone, |line| HostFile::Rests(line))
    }

    /// Whether an options file belongs to a current boot.
    #[must_use]
    pub fn has_options(&self, name: &str) -> bool {
        self.options.contains(name)
    }
}

/// Whether a file belongs to this service, by its name.
#[must_use]
pub fn is_ours(name: &str) -> bool {
    name.starts_with(OURS)
}

/// The name of the options file of a node's boot.
#[must_use]
pub fn options_file(node: Uuid) -> String {
    format!("{OURS}{node}.conf")
}

/// The name of a port's hosts file.
#[must_use]
pub fn host_file(mac: Mac) -> String {
    format!("{OURS}{mac}.conf")
}

/// Whether a file lacks the tag of an attempt, by its text.
#[must_use]
pub fn is_of_another_boot(text: &str, attempt: Uuid) -> bool {
    !text.contains(&tag(attempt))
}

/// The options of one boot, each only for the clients that can use it.
///
/// The tags of clients (`ferroboot-http`, `ferroboot-x64` and so on, `ipxe`) come from dnsmasq's own configuration.
/// dnsmasq cannot send vendor class options (16) to DHCPv6 clients: it treats the value as texts, and puts the length
/// of each before it, where firmware expects an enterprise number.
fn option_lines(told: &Announcement) -> Result<String, DnsmasqRefusal> {
    let links = told.links(IpFamily::V4).map_err(|refused| match told.links(IpFamily::V6) {
        Ok(_) => DnsmasqRefusal::Ipv6Alone(refused),
        Err(_) => DnsmasqRefusal::NoLinks(refused),
    })?;
    links.fit_dhcp_v4()?;
    let tag = tag(told.attempt);
    let ipxe = &links.ipxe;
    let firmware = links.firmware.iter().map(|(cpu_arch, url)| {
        let http = format!("tag:{tag},tag:!ipxe,tag:ferroboot-http,tag:ferroboot-{cpu_arch}");
        format!("{http},60,HTTPClient\n{http},67,{url}\n")
    });
    let mut lines: String = firmware.collect();
    lines += &format!("tag:{tag},tag:ipxe,67,{ipxe}\n");
    if let Ok(Links { ipxe, .. }) = told.links(IpFamily::V6) {
        lines += &format!("tag:{tag},tag:ipxe,option6:59,{ipxe}\n");
    }
    Ok(lines)
}

/// The line of a port in its hosts file, with or without a boot. The tag `ironic` is on all lines, as in Ironic. The
/// line replaces any other for this MAC address, so it repeats the operator's settings of the port.
#[must_use]
pub fn host_line(port: &AnnouncedPort, boot: Option<Uuid>) -> String {
    let AnnouncedPort { mac, dhcp_host, vif: _ } = port;
    let boot = boot.map(|attempt| format!(",set:{},set:ferroboot-boot", tag(attempt)));
    let own = dhcp_host.as_ref().filter(|_| expect_no_address(port).is_ok());
    let own = own.map(|own| format!(",{own}"));
    format!("{mac}{},{NO_BOOT}{}\n", boot.unwrap_or_default(), own.unwrap_or_default())
}

/// Checks that the operator's settings of a port can be a part of its line, and contain no address. dnsmasq ignores a
/// line with an IP address that another line has, even an older one for the same MAC address: a boot would never end.
///
/// # Errors
/// The settings have a character that would end the line, or an address.
pub fn expect_no_address(port: &AnnouncedPort) -> Result<(), DnsmasqRefusal> {
    let own = port.dhcp_host.as_deref().unwrap_or_default();
    let is_plain = |character: char| character.is_ascii_graphic() && !"\"\\#".contains(character);
    if !own.chars().all(is_plain) {
        return Err(DnsmasqRefusal::NoPartOfLine { mac: port.mac, own: own.to_owned() });
    }
    let address = own.split(',').find(|part| {
        let part = part.trim_matches(['[', ']']);
        part.parse::<IpAddr>().is_ok() || part.parse::<Mac>().is_ok()
    });
    match address {
        Some(address) => {
            Err(DnsmasqRefusal::Address { mac: port.mac, address: address.to_owned() })
        }
        None => Ok(()),
    }
}

/// The replacement for the hosts file of a removed port: its line without a boot. `None` if it has no boot already:
/// dnsmasq has read that line, and the file can be removed.
#[must_use]
pub fn made_good(text: &str) -> Option<String> {
    without_boot(text).filter(|line| line != text)
}

/// A line of this service without its boot.
fn without_boot(line: &str) -> Option<String> {
    let (mac, rest) = line.split_once(',')?;
    let mac: Mac = mac.parse().ok()?;
    let own = rest.find(NO_BOOT)?;
    Some(format!("{mac},{}", rest.get(own..)?))
}

fn tag(attempt: Uuid) -> String {
    attempt.simple().to_string()
}

#[cfg(test)]
mod tests {
    use provision::BootInterface::{Http, HttpIpxe};

    use super::*;
    use crate::providers::test_announcements::{announcement, plain_port};

    #[test]
    fn firmware_and_ipxe_get_each_their_url_and_nobody_else_any() {
        let told = announcement(HttpIpxe, "10.0.0.1:8080");

        let lines = option_lines(&told).unwrap();

        let tag = "00000000000000000000000000000002";
        let http = format!("tag:{tag},tag:!ipxe,tag:ferroboot-http,tag:ferroboot");
        let url = "http://10.0.0.1:8080/boot/TICKET";
        let expected = [
            format!("{http}-x64,60,HTTPClient"),
            format!("{http}-x64,67,{url}/snponly.efi"),
            format!("{http}-arm64,60,HTTPClient"),
            format!("{http}-arm64,67,{url}/snponly-arm64.efi"),
            format!("tag:{tag},tag:ipxe,67,{url}/boot.ipxe"),
        ];
        assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn over_ipv6_ipxe_alone_can_be_told_and_where_firmware_must_be_that_is_said() {
        let by_name = option_lines(&announcement(Http, "boot.example")).unwrap();
        let refused = option_lines(&announcement(Http, "[fd00::1]:8080")).unwrap_err();

        assert!(
            by_name.contains("tag:ipxe,option6:59,http://boot.example/boot/TICKET/boot.ipxe\n")
        );
        assert!(refused.to_string().contains("it sends no DHCPv6 vendor class"), "{refused}");
    }

    #[test]
    fn urls_that_dnsmasq_would_drop_are_refused_and_not_blamed_on_ipv6() {
        let told = announcement(Http, &format!("{}.example", "x".repeat(230)));

        let refused = option_lines(&told).unwrap_err().to_string();

        assert!(refused.starts_with("the URL has"), "{refused}");
    }

    #[test]
    fn a_line_without_a_boot_takes_the_place_of_one_with_a_boot_and_then_nothing_is_left() {
        let port = AnnouncedPort { dhcp_host: Some("n1".to_owned()), ..plain_port(1) };
        let boots = host_line(&port, Some(Uuid::from_u128(2)));

        let rests = made_good(&boots).unwrap();

        assert_eq!(rests, host_line(&port, None));
        assert_eq!(rests, "52:54:00:00:00:01,set:ironic,n1\n");
        assert_eq!(made_good(&rests), None);
        assert_eq!(made_good("of somebody else"), None);
    }

    #[test]
    fn a_file_of_hosts_is_of_a_boot_or_of_a_port_without_one_or_of_none() {
        let told = announcement(Http, "10.0.0.1");
        let ports = vec![plain_port(1), plain_port(2)];
        let options = options_file(told.node);
        let files = KnownFiles::of(&Picture { told: vec![told], over: Vec::new(), ports });

        let [boots, rests, gone] =
            [1, 2, 3].map(|number| files.host(&host_file(plain_port(number).mac)));
        assert_eq!(boots, HostFile::Boots);
        assert_eq!(rests, HostFile::Rests("52:54:00:00:00:02,set:ironic\n"));
        assert_eq!(gone, HostFile::Gone);
        assert!(files.has_options(&options) && !files.has_options("ironic-x.conf"));
    }
}
