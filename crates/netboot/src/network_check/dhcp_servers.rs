//! Evaluates other DHCP servers' answers.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hardware::Mac;
use thiserror::Error;

use crate::network_settings::NetworkSettings;

/// The kind of client in a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeClient {
    /// Firmware that boots over HTTP.
    Http,
    /// Firmware that boots by PXE.
    Pxe,
    /// iPXE.
    Ipxe,
}

/// A DHCPv4 server's offer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeenOffer {
    /// The server.
    pub server: Ipv4Addr,
    /// The client.
    pub to: ProbeClient,
    /// The offered address; `None` from a ProxyDHCP server.
    pub address: Option<Ipv4Addr>,
    /// The boot file.
    pub file: Option<String>,
}

/// A DHCPv6 server that answers HTTP boot firmware.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeenServer6 {
    /// Its address.
    pub address: IpAddr,
    /// Its DUID.
    pub duid: Vec<u8>,
    /// Whether firmware would accept its answer.
    pub is_taken: bool,
    /// The offered address.
    pub gives: Option<Ipv6Addr>,
    /// Its preference; after 255, firmware waits for no other server.
    pub preference: u8,
    /// The boot URL.
    pub url: Option<String>,
}

/// Other DHCPv4 servers that keep machines from booting.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Dhcpv4Conflict {
    /// They lease addresses, as this service does.
    #[error(
        "{} too, and machines choose between the offers: switch that \
         off, or let it give the addresses, with `proxy = true` in place of a pool",
        names(.0, "gives addresses", "give addresses")
    )]
    Addresses(BTreeSet<Ipv4Addr>),
    /// They send boot files to HTTP boot firmware.
    #[error(
        "{} HTTP boot firmware to boot {file:?} as well, and the choice of the firmware between two \
         answers is unpredictable: remove that from its settings",
        names(servers, "tells", "tell")
    )]
    HttpBoot {
        /// The servers.
        servers: BTreeSet<Ipv4Addr>,
        /// The boot file of one of them.
        file: String,
    },
    /// They send boot files to other clients, beside a proxy.
    #[error(
        "{} {} to boot {file:?}: these machines boot that, not the image of this service; \
         take it out of its settings, or switch PXE off in the machines' set-up",
        names(servers, "tells", "tell"),
        if *to == ProbeClient::Ipxe { "iPXE" } else { "PXE firmware" }
    )]
    BootFile {
        /// The servers.
        servers: BTreeSet<Ipv4Addr>,
        /// The kind of client that one of them answers.
        to: ProbeClient,
        /// The boot file of that answer.
        file: String,
    },
    /// Beside a proxy, no server leases addresses.
    #[error(
        "nobody gives addresses here (at least not to {}): machines need another DHCP \
         server beside this proxy, or a pool instead of `proxy = true`",
        asked_as(machines)
    )]
    NoAddresses {
        /// The probed machines, besides strangers.
        machines: Vec<Mac>,
    },
    /// They are ProxyDHCP servers.
    #[error(
        "{} PXE firmware what to boot (ProxyDHCP): machines that try PXE first follow it; \
         switch it off, or PXE in the machines' set-up",
        names(.0, "tells", "tell")
    )]
    Proxies(BTreeSet<Ipv4Addr>),
}

/// Other DHCPv6 servers that keep machines from booting.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Dhcpv6Conflict {
    /// They send boot URLs to HTTP boot firmware.
    #[error(
        "{} HTTP boot firmware a URL as well, and the choice of the firmware between them \
         is unpredictable: remove that from its settings",
        names(.0, "tells", "tell")
    )]
    HttpBoot(BTreeSet<IpAddr>),
    /// They answer without an address.
    #[error(
        "{}: EDK2 may choose that, fail, and try no other; give it addresses for all, have it \
         say NoAddrsAvail inside the association, or switch it off",
        names(.0, "answers without an address", "answer without an address")
    )]
    NoAddress(BTreeSet<IpAddr>),
    /// They have the highest preference.
    #[error(
        "{} with preference 255, after which firmware waits for no other answer and has no \
         URL: set a lower preference there, or switch it off",
        names(.0, "answers", "answer")
    )]
    Preferred(BTreeSet<IpAddr>),
    /// They exist, although this service was to be the only one.
    #[error(
        "{} too: machines may take its offer, which has no URL; switch it off, or say \
         `sole = false` so that machines wait for both",
        names(.0, "answers", "answer")
    )]
    NotSole(BTreeSet<IpAddr>),
}

/// Evaluates the answers to a DISCOVER of a stranger or of `machines`; `own` are the service's addresses, if it may
/// have answered itself.
///
/// # Errors
/// Servers that keep machines from booting.
pub fn judge(
    network: &NetworkSettings,
    offers: &BTreeSet<SeenOffer>,
    own: &[IpAddr],
    machines: &[Mac],
) -> Result<String, Dhcpv4Conflict> {
    let others = || offers.iter().filter(|offer| !own.contains(&offer.server.into()));
    let servers = |which: fn(&SeenOffer) -> bool| -> BTreeSet<Ipv4Addr> {
        others().filter(|offer| which(offer)).map(|offer| offer.server).collect()
    };
    let givers = servers(|offer| offer.address.is_some());
    if !network.proxy && !givers.is_empty() {
        return Err(Dhcpv4Conflict::Addresses(givers));
    }
    let http = |offer: &SeenOffer| offer.to == ProbeClient::Http && offer.file.is_some();
    let file = |offer: &SeenOffer| offer.file.clone().unwrap_or_default();
    if let Some(rival) = others().find(|offer| http(offer)) {
        return Err(Dhcpv4Conflict::HttpBoot { servers: servers(http), file: file(rival) });
    }
    if network.proxy {
        let files = |offer: &SeenOffer| offer.file.is_some();
        if let Some(rival) = others().find(|offer| files(offer)) {
            let (servers, to, file) = (servers(files), rival.to, file(rival));
            return Err(Dhcpv4Conflict::BootFile { servers, to, file });
        }
        if givers.is_empty() {
            return Err(Dhcpv4Conflict::NoAddresses { machines: machines.to_vec() });
        }
        return Ok(names(&givers, "gives addresses", "give addresses"));
    }
    let all = servers(|_| true);
    if all.is_empty() {
        return Ok(format!("no other answers {}", asked_as(machines)));
    }
    Err(Dhcpv4Conflict::Proxies(all))
}

/// Evaluates the answers to a SOLICIT of a stranger or of `machines`; `own` is the service's DUID, if it may have
/// answered itself.
///
/// # Errors
/// Servers that keep machines from booting.
pub fn judge6(
    network: &NetworkSettings,
    servers: &BTreeSet<SeenServer6>,
    own: Option<&[u8]>,
    machines: &[Mac],
) -> Result<String, Dhcpv6Conflict> {
    let others = |which: fn(&SeenServer6) -> bool| -> BTreeSet<IpAddr> {
        let others = servers.iter().filter(|server| own != Some(&server.duid) && which(server));
        others.map(|server| server.address).collect()
    };
    let all = others(|_| true);
    if all.is_empty() {
        return Ok(format!("no other answers {}", asked_as(machines)));
    }
    if network.sole {
        return Err(Dhcpv6Conflict::NotSole(all));
    }
    let rivals = others(|server| server.is_taken && server.url.is_some());
    if !rivals.is_empty() {
        return Err(Dhcpv6Conflict::HttpBoot(rivals));
    }
    let empty = others(|server| server.is_taken && server.gives.is_none());
    if !empty.is_empty() {
        return Err(Dhcpv6Conflict::NoAddress(empty));
    }
    let hasty = others(|server| server.is_taken && server.preference == 255);
    if !hasty.is_empty() {
        return Err(Dhcpv6Conflict::Preferred(hasty));
    }
    Ok(format!("{} too, as the settings have it", names(&all, "answers", "answer")))
}

/// "strangers or 52:54:00:12:34:56"
fn asked_as(machines: &[Mac]) -> String {
    let Some(macs) = machines.iter().map(ToString::to_string).reduce(|all, mac| all + ", " + &mac)
    else {
        return "strangers (--mac also sends requests for a given machine)".to_owned();
    };
    format!("strangers or {macs}")
}

/// "192.0.2.2 and 192.0.2.3 give addresses"
pub(super) fn names<T: ToString>(all: &BTreeSet<T>, one: &str, several: &str) -> String {
    let verb = if all.len() == 1 { one } else { several };
    let all: Vec<_> = all.iter().map(ToString::to_string).collect();
    format!("{} {verb}", all.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const THEM: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    fn network(text: &str) -> NetworkSettings {
        text.parse().unwrap()
    }

    fn pool() -> NetworkSettings {
        network("eth1=192.0.2.10-192.0.2.20")
    }

    fn offer(server: Ipv4Addr, to: ProbeClient, address: bool, file: Option<&str>) -> SeenOffer {
        let address = address.then_some(Ipv4Addr::new(192, 0, 2, 77));
        SeenOffer { server, to, address, file: file.map(str::to_owned) }
    }

    fn said(
        network: &NetworkSettings,
        offers: impl IntoIterator<Item = SeenOffer>,
    ) -> Result<String, String> {
        judge(network, &offers.into_iter().collect(), &[US.into()], &[])
            .map_err(|error| error.to_string())
    }

    #[test]
    fn another_server_that_gives_addresses_is_wrong_beside_a_pool_and_right_beside_a_proxy() {
        let proxy = network("eth1=proxy");
        let offers = || [offer(THEM, ProbeClient::Http, true, None)];

        assert!(said(&pool(), offers()).unwrap_err().starts_with("192.0.2.2 gives addresses too"));
        assert_eq!(said(&proxy, offers()).unwrap(), "192.0.2.2 gives addresses");
        assert!(said(&proxy, []).unwrap_err().starts_with("nobody gives"));
        let both = [offer(THEM, ProbeClient::Http, true, Some("pxelinux.0"))];
        assert!(said(&pool(), both).unwrap_err().starts_with("192.0.2.2 gives addresses too"));
    }

    #[test]
    fn all_rivals_are_named() {
        let third = Ipv4Addr::new(192, 0, 2, 3);
        let offers = [third, THEM].map(|server| offer(server, ProbeClient::Http, true, None));

        let refused = said(&pool(), offers).unwrap_err();

        assert!(refused.starts_with("192.0.2.2 and 192.0.2.3 give addresses too"), "{refused}");
    }

    #[test]
    fn our_own_answers_are_nobody_elses_while_we_run() {
        let offers = [offer(US, ProbeClient::Http, true, None)];

        assert!(said(&pool(), offers.clone()).is_ok());
        let stopped = judge(&pool(), &offers.into(), &[], &[]).unwrap_err().to_string();
        assert!(stopped.starts_with("192.0.2.1 gives addresses too"), "{stopped}");
    }

    #[test]
    fn another_boot_file_is_wrong_beside_a_proxy_too() {
        let proxy = network("eth1=proxy");
        let beside = |to, file| said(&proxy, [offer(THEM, to, true, Some(file))]).unwrap_err();

        let http = beside(ProbeClient::Http, "http://192.0.2.2/a.efi");
        assert!(http.contains("\"http://192.0.2.2/a.efi\" as well"), "{http}");
        let pxe = beside(ProbeClient::Pxe, "pxelinux.0");
        assert!(pxe.starts_with("192.0.2.2 tells PXE firmware to boot \"pxelinux.0\""), "{pxe}");
        let ipxe = beside(ProbeClient::Ipxe, "http://192.0.2.2/menu");
        assert!(ipxe.starts_with("192.0.2.2 tells iPXE to boot"), "{ipxe}");
    }

    #[test]
    fn who_was_asked_as_is_said_where_nobody_answered() {
        let machines = [Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]), Mac([2; 6])];
        let said = |machines| judge(&pool(), &BTreeSet::new(), &[], machines).unwrap();

        assert!(said(&[]).contains("strangers (--mac"));
        assert!(said(&machines).ends_with("strangers or 52:54:00:12:34:56, 02:02:02:02:02:02"));
    }

    #[test]
    fn a_proxy_dhcp_server_is_named() {
        let offers = [offer(THEM, ProbeClient::Pxe, false, None)];

        assert!(said(&pool(), offers).unwrap_err().contains("ProxyDHCP"));
    }

    fn server6() -> SeenServer6 {
        SeenServer6 {
            address: "fe80::2".parse().unwrap(),
            duid: vec![2],
            is_taken: true,
            gives: Some("fd77::99".parse().unwrap()),
            preference: 0,
            url: None,
        }
    }

    fn said6(sole: bool, server: SeenServer6) -> Result<String, String> {
        let network = NetworkSettings { sole, ..network("eth1=fd77::10-fd77::20") };
        judge6(&network, &[server].into(), Some(&[1]), &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn beside_another_dhcpv6_server_that_spoils_firmwares_choice_is_wrong() {
        assert!(said6(true, server6()).unwrap_err().contains("`sole = false`"));
        assert_eq!(
            said6(false, server6()).unwrap(),
            "fe80::2 answers too, as the settings have it"
        );
        let hasty = said6(false, SeenServer6 { preference: 255, ..server6() }).unwrap_err();
        assert!(hasty.starts_with("fe80::2 answers with preference 255"), "{hasty}");
        let empty = SeenServer6 { gives: None, ..server6() };
        let refused = said6(false, empty.clone()).unwrap_err();
        assert!(refused.starts_with("fe80::2 answers without an address"), "{refused}");
        assert!(said6(false, SeenServer6 { is_taken: false, ..empty }).is_ok());
        let url = SeenServer6 { url: Some("http://x/".to_owned()), ..server6() };
        assert!(said6(false, url).unwrap_err().contains("a URL as well"));
        assert!(said6(true, SeenServer6 { duid: vec![1], ..server6() }).is_ok());
    }
}
