//! The kernel command line, by ironic-python-agent's names (`ipa-api-url`, `BOOTIF`, …).
//!
//! An invalid value is reported and replaced by its default: in a rack, a machine that continues with a warning on
//! its console is better than one that stops.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use hardware::Mac;
use url::{Host, Url};
use uuid::Uuid;

use crate::network::links::{Vlan, WantedLinks};

/// The agent's settings from the command line.
#[derive(Clone, PartialEq)]
pub struct AgentOptions {
    /// `ipa-api-url`: the URL of Ironic's API.
    pub api_url: Option<Url>,
    /// `ipa-agent-token`: a token that Ironic has assigned beforehand.
    pub token: Option<String>,
    /// `ipa-node-uuid`, a parameter of this agent alone: the UUID of the node.
    ///
    /// No parameter of Ironic has it: `ir_pub_id` is the publisher of the ISO image, a new random UUID for each image.
    pub node: Option<Uuid>,
    /// `BOOTIF`: the network card of the boot.
    pub boot_mac: Option<Mac>,
    /// `ipa-network-interface`: the link to use, by its Linux name.
    pub interface: Option<String>,
    /// `vlan` and `ipa-enable-vlan-interfaces`: the VLANs to use.
    pub vlans: Vec<Vlan>,
    /// `ipa-listen-port`: the port of the command API.
    pub listen_port: u16,
    /// `ipa-advertise-host`: the address by which Ironic reaches the command API.
    pub advertise_host: Option<Host>,
    /// `ipa-advertise-port`: the port by which Ironic reaches the command API.
    pub advertise_port: Option<u16>,
    /// `ipa-lookup-timeout`: time limit of the lookup.
    pub lookup_timeout: Duration,
    /// `ipa-lookup-interval`: the pause after the first failed lookup; it doubles.
    pub lookup_interval: Duration,
    /// `ipa-http-request-timeout`: time limit of one call to Ironic.
    pub request_timeout: Duration,
    /// `ipa-ntp-server`: the time server.
    pub ntp_server: Option<String>,
    /// `ipa-insecure`: whether Ironic's certificate is not verified.
    pub insecure: bool,
    /// `ipa-guard-special-filesystems`: whether disks with a shared file system are kept.
    pub guards_clustered: bool,
    /// `ipa-debug`: whether the log is more detailed.
    pub debug: bool,
    /// `ipa-global-request-id`: sent with each call, for Ironic's log.
    pub request_id: Option<String>,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self {
            api_url: None,
            token: None,
            node: None,
            boot_mac: None,
            interface: None,
            vlans: Vec::new(),
            listen_port: 9999,
            advertise_host: None,
            advertise_port: None,
            lookup_timeout: Duration::from_secs(600),
            lookup_interval: Duration::from_secs(1),
            request_timeout: Duration::from_secs(30),
            ntp_server: None,
            insecure: false,
            guards_clustered: true,
            debug: false,
            request_id: None,
        }
    }
}

impl fmt::Debug for AgentOptions {
    /// Without the token, since the settings are logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("api_url", &self.api_url.as_ref().map(Url::as_str))
            .field("has_token", &self.token.is_some())
            .field("node", &self.node)
            .field("boot_mac", &self.boot_mac)
            .field("interface", &self.interface)
            .finish_non_exhaustive()
    }
}

impl AgentOptions {
    /// Parses a command line; the second value lists the ignored parts in words.
    pub fn parse(command_line: &str) -> (Self, Vec<String>) {
        let mut options = Self::default();
        let mut ignored = Vec::new();
        for (name, value) in arguments(command_line) {
            if let Err(why) = options.set(&name, &value) {
                ignored.push(format!("{name}: {why}"));
            }
        }
        (options, ignored)
    }

    /// The URL of Ironic's API.
    ///
    /// # Errors
    ///
    /// The command line does not have it.
    pub fn api(&self) -> Result<&Url> {
        self.api_url
            .as_ref()
            .context("the command line has no ipa-api-url: this agent has no API to call")
    }

    /// The links to use.
    pub fn wanted(&self) -> WantedLinks {
        let vlans = self.vlans.clone();
        WantedLinks { name: self.interface.clone(), mac: self.boot_mac, vlans }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "BOOTIF" => self.boot_mac = Some(boot_mac(value)?),
            "ipa-advertise-host" => {
                self.advertise_host = Some(host(value)?);
            }
            "ipa-advertise-port" => self.advertise_port = Some(parsed(value)?),
            "ipa-agent-token" if value.len() < ironic::agent::MIN_TOKEN_LEN => {
                return Err("too short for a token".to_owned());
            }
            "ipa-agent-token" => self.token = Some(value.to_owned()),
            "ipa-api-url" => self.api_url = Some(api_url(value)?),
            "ipa-debug" => self.debug = truth(value),
            "ipa-enable-vlan-interfaces" => {
                for name in value.split(',') {
                    self.vlans.push(Vlan::beside(name).map_err(|error| error.to_string())?);
                }
            }
            "ipa-global-request-id" => self.request_id = Some(value.to_owned()),
            "ipa-guard-special-filesystems" => self.guards_clustered = truth(value),
            "ipa-http-request-timeout" => self.request_timeout = seconds(value)?,
            "ipa-insecure" => self.insecure = truth(value),
            "ipa-listen-port" => self.listen_port = parsed(value)?,
            "ipa-lookup-interval" => self.lookup_interval = seconds(value)?,
            "ipa-lookup-timeout" => self.lookup_timeout = seconds(value)?,
            "ipa-network-interface" => self.interface = Some(value.to_owned()),
            "ipa-node-uuid" => self.node = Some(parsed(value)?),
            "ipa-ntp-server" => self.ntp_server = Some(value.to_owned()),
            "vlan" => self.vlans.push(parsed(value)?),
            _ => {}
        }
        Ok(())
    }
}

/// `name=value` pairs and bare names, with the kernel's quoting (lib/cmdline.c, `next_arg`).
fn arguments(command_line: &str) -> Vec<(String, String)> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in command_line.chars() {
        match character {
            '"' => quoted = !quoted,
            space if space.is_whitespace() && !quoted => words.push(String::new()),
            other => {
                if let Some(word) = words.last_mut() {
                    word.push(other);
                }
            }
        }
    }
    let words = words.into_iter().filter(|word| !word.is_empty());
    words
        .map(|word| match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (word, String::new()),
        })
        .collect()
}

/// PXELINUX puts the hardware type first, 01 for Ethernet; other loaders do not.
fn boot_mac(value: &str) -> Result<Mac, String> {
    let typed = value.strip_prefix("01-").or_else(|| value.strip_prefix("01:"));
    typed.and_then(|mac| mac.parse().ok()).map_or_else(|| parsed(value), Ok)
}

fn parsed<T: FromStr<Err: fmt::Display>>(value: &str) -> Result<T, String> {
    value.parse().map_err(|error: T::Err| error.to_string())
}

fn seconds(value: &str) -> Result<Duration, String> {
    parsed(value).map(Duration::from_secs)
}

/// A URL has an IPv6 address in brackets, other values may not.
fn host(value: &str) -> Result<Host, String> {
    let address = value.parse().map(Host::Ipv6);
    address.or_else(|_| Host::parse(value)).map_err(|error| error.to_string())
}

fn api_url(value: &str) -> Result<Url, String> {
    let url: Url = parsed(value)?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(format!("an API speaks http or https, not {other}")),
    }
}

/// `ipa-debug` without a value is true, as are oslo.utils' words for true.
fn truth(value: &str) -> bool {
    ["", "1", "t", "true", "on", "y", "yes"].contains(&value.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn loaders_write_bootif_with_or_without_the_hardware_type() {
        let mac = Mac([0x52, 0x54, 0, 0xAA, 0xBB, 1]);

        for text in ["52:54:00:aa:bb:01", "52-54-00-AA-BB-01", "01-52-54-00-aa-bb-01"] {
            assert_eq!(boot_mac(text), Ok(mac), "{text}");
        }
        for text in ["", "52:54:00:aa:bb", "02-52-54-00-aa-bb-01", "5:54:00:aa:bb:01"] {
            assert!(boot_mac(text).is_err(), "{text}");
        }
        assert_eq!(boot_mac("01-54-00-aa-bb-01"), Ok(Mac([1, 0x54, 0, 0xAA, 0xBB, 1])));
    }

    #[test]
    fn a_command_line_of_ironic_is_understood() {
        let (options, ignored) = AgentOptions::parse(
            "selinux=0 troubleshoot=0 text nofb vga=normal ipa-debug=1 ipa-api-url=http://10.77.0.1:6385 \
             ipa-global-request-id=req-1 ipa-agent-token=0123456789abcdef0123456789abcdef \
             BOOTIF=52:54:00:aa:bb:01 initrd=deploy_ramdisk\n",
        );

        assert_eq!(ignored, [""; 0]);
        assert_eq!(options.api_url.unwrap().as_str(), "http://10.77.0.1:6385/");
        assert_eq!(options.token.unwrap().len(), 32);
        assert_eq!(options.boot_mac, Some(Mac([0x52, 0x54, 0, 0xAA, 0xBB, 1])));
        assert!(options.debug);
        assert_eq!(options.listen_port, 9999);
    }

    #[test]
    fn the_publisher_of_an_iso_image_of_ironic_is_not_the_node() {
        let (options, ignored) = AgentOptions::parse(
            "BOOT_IMAGE=/vmlinuz ir_pub_id=6c7d0d2c-8a4b-4c8e-9e1b-6f1f6f0b5b1a \
             ipa-api-url=http://10.77.0.1:6385 ipa-agent-token=0123456789abcdef0123456789abcdef \
             ipa-debug=1 boot_method=vmedia nofb vga=normal --",
        );

        assert_eq!(ignored, [""; 0]);
        assert_eq!(options.node, None, "the lookup is by MAC addresses alone");
        assert!(options.token.is_some());
    }

    #[test]
    fn ipv6_addresses_and_vlans_are_understood() {
        let (options, ignored) = AgentOptions::parse(
            "ipa-api-url=http://[fd00::1]:6385 ipa-advertise-host=fd00::9 vlan=5 \
             ipa-enable-vlan-interfaces=eth0.6,eth1.7",
        );

        assert_eq!(ignored, [""; 0]);
        assert_eq!(options.api().unwrap().as_str(), "http://[fd00::1]:6385/");
        let host = "fd00::9".parse().map(Host::Ipv6).unwrap();
        assert_eq!(options.advertise_host, Some(host));
        let vlans: Vec<_> = options.wanted().vlans.iter().map(|vlan| vlan.id).collect();
        assert_eq!(vlans, [5, 6, 7]);
    }

    #[test]
    fn nonsense_is_reported_and_its_default_taken() {
        let (options, ignored) =
            AgentOptions::parse("ipa-listen-port=many ipa-api-url=ftp://x ipa-agent-token=short");

        assert_eq!(options, AgentOptions::default());
        assert_eq!(ignored.len(), 3);
        assert_eq!(ignored[1], "ipa-api-url: an API speaks http or https, not ftp");
    }

    #[test]
    fn quotes_keep_spaces_as_the_kernel_does() {
        assert_eq!(
            arguments("a=\"b c\"  \"d=e f\" g"),
            [("a", "b c"), ("d", "e f"), ("g", "")].map(|(n, v)| (n.to_owned(), v.to_owned()))
        );
    }

    #[test]
    fn a_token_is_not_in_the_debug_output() {
        let token = "0123456789abcdef0123456789abcdef";
        let (options, _) = AgentOptions::parse(&format!("ipa-agent-token={token}"));

        assert!(!format!("{options:?}").contains(token));
    }

    proptest! {
        #[test]
        fn arguments_without_quotes_are_read_back(pairs in prop::collection::vec(("[a-z-]{1,9}", "[!#-<>-~]{0,9}"), 0..9)) {
            let line: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            prop_assert_eq!(arguments(&line.join(" ")), pairs);
        }

        #[test]
        fn any_text_is_read_without_panic(text: String) {
            AgentOptions::parse(&text);
        }
    }
}
