//! Checks that machines can resolve the host names in URLs.

use anyhow::{Result, anyhow};
use netboot::network_settings::NetworkSettings;
use url::Host;

use crate::config::BootConfig;

/// Checks that firmware can resolve the host names in URLs; `None` if there are none. Firmware ignores a URL with a
/// host name if it has no name server.
pub(super) fn names(boot: &BootConfig, network: &NetworkSettings) -> Option<Result<String>> {
    let families = [
        (true, boot.url.as_ref(), "IPv4"),
        (false, boot.url6.as_ref().or(boot.url.as_ref()), "IPv6"),
    ];
    let mut said = Vec::new();
    for (is_four, url, family) in families {
        let Some((url, Host::Domain(name))) = url.and_then(|url| Some((url, url.host()?))) else {
            continue;
        };
        for servers in network.dns_everywhere(is_four) {
            let Some(server) = servers.first() else {
                return Some(Err(anyhow!(
                    "{url} has the name {name} in it, and not all machines here are told a name server over \
                     {family}, without which firmware does not take it: set dns, or a url with an address"
                )));
            };
            said.push(format!("{name}, to be looked up at {server}"));
        }
    }
    said.dedup();
    (!said.is_empty()).then(|| Ok(said.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn network(text: &str) -> NetworkSettings {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_that_firmware_cannot_look_up_is_found_before_it_is_told_it() {
        let boot = |text: &str| -> BootConfig {
            format!("[boot]\n{text}").parse::<Config>().unwrap().boot
        };
        let said = |settings: &str, dns: &[&str]| {
            let network = network("eth1=192.0.2.10-192.0.2.20,fd77::10-fd77::20");
            let dns = dns.iter().map(|server| server.parse().unwrap()).collect();
            let network = NetworkSettings { dns, ..network };
            names(&boot(settings), &network).map(|found| found.map_err(|error| error.to_string()))
        };
        let named = "url = \"http://boot.example\"";
        let six = "url = \"http://192.0.2.1\"\nurl6 = \"http://boot.example\"";

        assert_eq!(said("url = \"http://192.0.2.1\"", &[]), None);
        assert!(said(named, &[]).unwrap().unwrap_err().contains("a name server over IPv4"));
        assert!(said(named, &["192.0.2.53"]).unwrap().unwrap_err().contains("over IPv6"));
        assert!(said(named, &["192.0.2.53", "fd77::53"]).unwrap().is_ok());
        assert!(said(six, &["192.0.2.53"]).unwrap().unwrap_err().contains("over IPv6"));
        assert!(names(&boot(named), &network("eth1=proxy")).is_none(), "the other server's");
    }
}
