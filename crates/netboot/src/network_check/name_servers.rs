//! Checks that machines can resolve the host names in URLs.

use thiserror::Error;
use url::{Host, Url};

use crate::network_settings::NetworkSettings;

/// Some machines get no name server.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{url} has the name {name} in it, and not all machines here are told a name server over {family}, without which \
     firmware does not take it: set dns, or a url with an address"
)]
pub struct NoNameServer {
    url: String,
    name: String,
    family: &'static str,
}

/// Checks that firmware can resolve the host names in its URLs, `url` over IPv4, and `url6`, or else `url`, over IPv6.
/// `None` if there are none. Firmware ignores a URL with a host name if it has no name server.
///
/// # Errors
/// [`NoNameServer`]
pub fn judge(
    url: Option<&Url>,
    url6: Option<&Url>,
    network: &NetworkSettings,
) -> Option<Result<String, NoNameServer>> {
    let families = [(true, url, "IPv4"), (false, url6.or(url), "IPv6")];
    let mut said = Vec::new();
    for (is_four, url, family) in families {
        let Some((url, Host::Domain(name))) = url.and_then(|url| Some((url, url.host()?))) else {
            continue;
        };
        for servers in network.dns_everywhere(is_four) {
            let Some(server) = servers.first() else {
                let (url, name) = (url.to_string(), name.to_owned());
                return Some(Err(NoNameServer { url, name, family }));
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

    fn network(text: &str) -> NetworkSettings {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_that_firmware_cannot_look_up_is_found_before_it_is_told_it() {
        let parsed = |url: &str| url.parse::<Url>().unwrap();
        let said = |url: &str, url6: Option<&str>, dns: &[&str]| {
            let network = network("eth1=192.0.2.10-192.0.2.20,fd77::10-fd77::20");
            let dns = dns.iter().map(|server| server.parse().unwrap()).collect();
            let network = NetworkSettings { dns, ..network };
            let judged = judge(Some(&parsed(url)), url6.map(parsed).as_ref(), &network);
            judged.map(|found| found.map_err(|error| error.to_string()))
        };
        let (named, address) = ("http://boot.example", "http://192.0.2.1");

        assert_eq!(said(address, None, &[]), None);
        assert!(said(named, None, &[]).unwrap().unwrap_err().contains("a name server over IPv4"));
        assert!(said(named, None, &["192.0.2.53"]).unwrap().unwrap_err().contains("over IPv6"));
        assert!(said(named, None, &["192.0.2.53", "fd77::53"]).unwrap().is_ok());
        let six = said(address, Some(named), &["192.0.2.53"]);
        assert!(six.unwrap().unwrap_err().contains("over IPv6"));
        let beside = judge(Some(&parsed(named)), None, &network("eth1=proxy"));
        assert!(beside.is_none(), "the other server's");
    }
}
