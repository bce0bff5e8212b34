//! Evaluates other DHCP servers' answers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Result, bail};
use hardware::Mac;
use netboot::network_settings::NetworkSettings;

use crate::dhcp::probe::{As, Offer, Server6};

/// Evaluates the answers to a DISCOVER of a stranger or of `machines`; `own` are the service's addresses, if it may
/// have answered itself.
pub(super) fn judge(
    network: &NetworkSettings,
    offers: &BTreeSet<Offer>,
    own: &[IpAddr],
    machines: &[Mac],
) -> Result<String> {
    let others: Vec<_> =
        offers.iter().filter(|offer| !own.contains(&offer.server.into())).collect();
    let givers = || others.iter().filter(|offer| offer.address.is_some()).map(|offer| offer.server);
    if !network.proxy && givers().next().is_some() {
        bail!(
            "{} too, and machines choose between the offers: switch that \
             off, or let it give the addresses, with `proxy = true` in place of a pool",
            names(givers(), "gives addresses", "give addresses")
        );
    }
    let http = |offer: &&&Offer| offer.to == As::Http && offer.file.is_some();
    if let Some(rival) = others.iter().find(http) {
        let rivals = others.iter().filter(http);
        bail!(
            "{} HTTP boot firmware to boot {:?} as well, and the choice of the firmware between two \
             answers is unpredictable: remove that from its settings",
            names(rivals.map(|offer| offer.server), "tells", "tell"),
            rival.file.as_deref().unwrap_or_default()
        );
    }
    let files = || others.iter().filter(|offer| offer.file.is_some());
    if network.proxy {
        if let Some(rival) = files().next() {
            bail!(
                "{} {} to boot {:?}: these machines boot that, not the image of this service; \
                 take it out of its settings, or switch PXE off in the machines' set-up",
                names(files().map(|offer| offer.server), "tells", "tell"),
                if rival.to == As::Ipxe { "iPXE" } else { "PXE firmware" },
                rival.file.as_deref().unwrap_or_default()
            );
        }
        if givers().next().is_none() {
            bail!(
                "nobody gives addresses here (at least not to {}): machines need another DHCP \
                 server beside this proxy, or a pool instead of `proxy = true`",
                asked_as(machines)
            );
        }
        return Ok(names(givers(), "gives addresses", "give addresses"));
    }
    if others.is_empty() {
        return Ok(format!("no other answers {}", asked_as(machines)));
    }
    bail!(
        "{} PXE firmware what to boot (ProxyDHCP): machines that try PXE first follow it; \
         switch it off, or PXE in the machines' set-up",
        names(others.iter().map(|offer| offer.server), "tells", "tell")
    )
}

/// Evaluates the answers to a SOLICIT of a stranger or of `machines`; `own` is the service's DUID, if it may have
/// answered itself.
pub(super) fn judge6(
    network: &NetworkSettings,
    servers: &BTreeSet<Server6>,
    own: Option<&[u8]>,
    machines: &[Mac],
) -> Result<String> {
    let others: Vec<_> = servers.iter().filter(|server| own != Some(&server.duid)).collect();
    let who = |which: &dyn Fn(&Server6) -> bool, one, several| {
        let some = others.iter().filter(|server| which(server)).map(|server| server.address);
        (some.clone().next().is_some()).then(|| names(some, one, several))
    };
    let Some(all) = who(&|_| true, "answers", "answer") else {
        return Ok(format!("no other answers {}", asked_as(machines)));
    };
    if !network.sole {
        let url = |server: &Server6| server.is_taken && server.url.is_some();
        if let Some(rivals) = who(&url, "tells", "tell") {
            bail!(
                "{rivals} HTTP boot firmware a URL as well, and the choice of the firmware between them \
                 is unpredictable: remove that from its settings"
            );
        }
        let empty = |server: &Server6| server.is_taken && server.gives.is_none();
        if let Some(rivals) = who(&empty, "answers without an address", "answer without an address")
        {
            bail!(
                "{rivals}: EDK2 may choose that, fail, and try no other; give it addresses for all, have it \
                 say NoAddrsAvail inside the association, or switch it off"
            );
        }
        let hasty = |server: &Server6| server.is_taken && server.preference == 255;
        if let Some(rivals) = who(&hasty, "answers", "answer") {
            bail!(
                "{rivals} with preference 255, after which firmware waits for no other answer and has no \
                 URL: set a lower preference there, or switch it off"
            );
        }
        return Ok(format!("{all} too, as the settings have it"));
    }
    bail!(
        "{all} too: machines may take its offer, which has no URL; switch it off, or say \
         `sole = false` so that machines wait for both"
    )
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
pub(super) fn names<T: Ord + ToString>(
    all: impl Iterator<Item = T>,
    one: &str,
    several: &str,
) -> String {
    let all: BTreeSet<T> = all.collect();
    let verb = if all.len() == 1 { one } else { several };
    let all: Vec<_> = all.iter().map(ToString::to_string).collect();
    format!("{} {verb}", all.join(" and "))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const US: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const THEM: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    fn network(text: &str) -> NetworkSettings {
        text.parse().unwrap()
    }

    fn pool() -> NetworkSettings {
        network("eth1=192.0.2.10-192.0.2.20")
    }

    fn offer(server: Ipv4Addr, to: As, address: bool, file: Option<&str>) -> Offer {
        let address = address.then_some(Ipv4Addr::new(192, 0, 2, 77));
        Offer { server, to, address, file: file.map(str::to_owned) }
    }

    fn said(
        network: &NetworkSettings,
        offers: impl IntoIterator<Item = Offer>,
    ) -> Result<String, String> {
        judge(network, &offers.into_iter().collect(), &[US.into()], &[])
            .map_err(|error| error.to_string())
    }

    #[test]
    fn another_server_that_gives_addresses_is_wrong_beside_a_pool_and_right_beside_a_proxy() {
        let proxy = network("eth1=proxy");
        let offers = || [offer(THEM, As::Http, true, None)];

        assert!(said(&pool(), offers()).unwrap_err().starts_with("192.0.2.2 gives addresses too"));
        assert_eq!(said(&proxy, offers()).unwrap(), "192.0.2.2 gives addresses");
        assert!(said(&proxy, []).unwrap_err().starts_with("nobody gives"));
        let both = [offer(THEM, As::Http, true, Some("pxelinux.0"))];
        assert!(said(&pool(), both).unwrap_err().starts_with("192.0.2.2 gives addresses too"));
    }

    #[test]
    fn all_rivals_are_named() {
        let third = Ipv4Addr::new(192, 0, 2, 3);
        let offers = [third, THEM].map(|server| offer(server, As::Http, true, None));

        let refused = said(&pool(), offers).unwrap_err();

        assert!(refused.starts_with("192.0.2.2 and 192.0.2.3 give addresses too"), "{refused}");
    }

    #[test]
    fn our_own_answers_are_nobody_elses_while_we_run() {
        let offers = [offer(US, As::Http, true, None)];

        assert!(said(&pool(), offers.clone()).is_ok());
        let stopped = judge(&pool(), &offers.into(), &[], &[]).unwrap_err().to_string();
        assert!(stopped.starts_with("192.0.2.1 gives addresses too"), "{stopped}");
    }

    #[test]
    fn another_boot_file_is_wrong_beside_a_proxy_too() {
        let proxy = network("eth1=proxy");
        let beside = |to, file| said(&proxy, [offer(THEM, to, true, Some(file))]).unwrap_err();

        let http = beside(As::Http, "http://192.0.2.2/a.efi");
        assert!(http.contains("\"http://192.0.2.2/a.efi\" as well"), "{http}");
        let pxe = beside(As::Pxe, "pxelinux.0");
        assert!(pxe.starts_with("192.0.2.2 tells PXE firmware to boot \"pxelinux.0\""), "{pxe}");
        let ipxe = beside(As::Ipxe, "http://192.0.2.2/menu");
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
        let offers = [offer(THEM, As::Pxe, false, None)];

        assert!(said(&pool(), offers).unwrap_err().contains("ProxyDHCP"));
    }

    fn server6() -> Server6 {
        Server6 {
            address: "fe80::2".parse().unwrap(),
            duid: vec![2],
            is_taken: true,
            gives: Some("fd77::99".parse().unwrap()),
            preference: 0,
            url: None,
        }
    }

    fn said6(sole: bool, server: Server6) -> Result<String, String> {
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
        let hasty = said6(false, Server6 { preference: 255, ..server6() }).unwrap_err();
        assert!(hasty.starts_with("fe80::2 answers with preference 255"), "{hasty}");
        let empty = Server6 { gives: None, ..server6() };
        let refused = said6(false, empty.clone()).unwrap_err();
        assert!(refused.starts_with("fe80::2 answers without an address"), "{refused}");
        assert!(said6(false, Server6 { is_taken: false, ..empty }).is_ok());
        let url = Server6 { url: Some("http://x/".to_owned()), ..server6() };
        assert!(said6(false, url).unwrap_err().contains("a URL as well"));
        assert!(said6(true, Server6 { duid: vec![1], ..server6() }).is_ok());
    }
}
