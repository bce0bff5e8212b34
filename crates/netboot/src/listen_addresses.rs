//! Listening addresses of the HTTP ports.

use std::net::{Ipv6Addr, SocketAddr};

use serde::Deserialize;
use thiserror::Error;

use crate::urls::{ByFamily, IpFamily, ListenAddress, UrlPort, UrlScheme};

/// Number limit of the addresses of one port.
const MOST_ADDRESSES: usize = 16;

/// The addresses of a port: `ADDRESS:PORT`, `http://ADDRESS:PORT` or `https://ADDRESS:PORT`, one or a list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "OneOrMore")]
pub struct ListenAddresses(Vec<AddressOfPort>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AddressOfPort {
    /// `None` if the setting says none.
    scheme: Option<UrlScheme>,
    address: SocketAddr,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// The reason for refusing listening addresses.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WrongListenAddress {
    /// There is none, or there are too many.
    #[error("listen must be an address, or a list of 1 to {MOST_ADDRESSES} addresses")]
    Number,
    /// It has another scheme.
    #[error("{0:?} in listen is neither http nor https")]
    Scheme(String),
    /// It is no address.
    #[error(
        "{0:?} is no address to listen on: give ADDRESS:PORT or https://ADDRESS:PORT, such as [::]:8080 or \
         https://[::]:8443"
    )]
    Address(String),
    /// Its port is the kernel's choice, which no URL can name.
    #[error("{0:?} in listen has port 0: give the port that URLs name")]
    PortZero(String),
    /// It has no TLS, and all must have it.
    #[error(
        "listen in [{section}] has http://{address}, and only = true in [tls] permits https alone"
    )]
    Plain {
        /// The section of the settings.
        section: &'static str,
        /// The address.
        address: SocketAddr,
    },
}

impl TryFrom<OneOrMore> for ListenAddresses {
    type Error = WrongListenAddress;

    fn try_from(texts: OneOrMore) -> Result<Self, WrongListenAddress> {
        let texts = match texts {
            OneOrMore::One(text) => vec![text],
            OneOrMore::More(texts) => texts,
        };
        if !(1..=MOST_ADDRESSES).contains(&texts.len()) {
            return Err(WrongListenAddress::Number);
        }
        texts.iter().map(|text| parse(text)).collect::<Result<_, _>>().map(Self)
    }
}

fn parse(text: &str) -> Result<AddressOfPort, WrongListenAddress> {
    let (scheme, rest) = match text.split_once("://") {
        None => (None, text),
        Some(("http", rest)) => (Some(UrlScheme::Http), rest),
        Some(("https", rest)) => (Some(UrlScheme::Https), rest),
        Some((other, _)) => return Err(WrongListenAddress::Scheme(other.to_owned())),
    };
    let address = rest.trim_end_matches('/').parse();
    let address: SocketAddr = address.map_err(|_| WrongListenAddress::Address(text.to_owned()))?;
    if address.port() == 0 {
        return Err(WrongListenAddress::PortZero(text.to_owned()));
    }
    Ok(AddressOfPort { scheme, address })
}

fn is_loopback(listen: &ListenAddress) -> bool {
    listen.address.ip().to_canonical().is_loopback()
}

/// Whether connections of this family come to the address. A socket on `[::]` takes both.
fn is_reached(listen: &ListenAddress, family: IpFamily) -> bool {
    let ip = listen.address.ip();
    IpFamily::of(ip.to_canonical()) == family || ip == Ipv6Addr::UNSPECIFIED
}

impl From<SocketAddr> for ListenAddresses {
    fn from(address: SocketAddr) -> Self {
        Self(vec![AddressOfPort { scheme: None, address }])
    }
}

impl ListenAddresses {
    /// The addresses with their schemes; those without one have TLS if all must.
    pub fn all(&self, tls_only: bool) -> impl Iterator<Item = ListenAddress> {
        let default = if tls_only { UrlScheme::Https } else { UrlScheme::Http };
        self.0.iter().map(move |AddressOfPort { scheme, address }| ListenAddress {
            scheme: scheme.unwrap_or(default),
            address: *address,
        })
    }

    /// The address that URLs name, if the family does not matter.
    pub fn of_urls(&self, tls_only: bool) -> ListenAddress {
        self.best(tls_only, |_| true).expect("there is an address")
    }

    /// The scheme and port of URLs. Machines of a family for which there is no address get those of the other one.
    pub fn url_port(&self, tls_only: bool) -> ByFamily<UrlPort> {
        let port =
            |listen: ListenAddress| UrlPort { scheme: listen.scheme, port: listen.address.port() };
        let of = |family| {
            let best =
                self.best(tls_only, |listen| is_reached(listen, family) && !is_loopback(listen));
            port(best.unwrap_or_else(|| self.of_urls(tls_only)))
        };
        ByFamily { v4: of(IpFamily::V4), v6: of(IpFamily::V6) }
    }

    /// The best address of those that fit: one that other hosts reach, with TLS, and among equals the first one.
    fn best(&self, tls_only: bool, fits: impl Fn(&ListenAddress) -> bool) -> Option<ListenAddress> {
        let fitting = self.all(tls_only).filter(fits);
        fitting.min_by_key(|listen| (is_loopback(listen), listen.scheme != UrlScheme::Https))
    }

    /// The port of the first address in clear that other hosts reach.
    pub fn plain_port(&self, tls_only: bool) -> ByFamily<Option<u16>> {
        let of = |family| {
            let mut plain = self.all(tls_only).filter(|listen| {
                listen.scheme == UrlScheme::Http
                    && !is_loopback(listen)
                    && is_reached(listen, family)
            });
            plain.next().map(|listen| listen.address.port())
        };
        ByFamily { v4: of(IpFamily::V4), v6: of(IpFamily::V6) }
    }

    /// Whether only this host reaches all of them.
    pub fn is_local(&self) -> bool {
        self.0.iter().all(|listen| listen.address.ip().to_canonical().is_loopback())
    }

    /// Checks that no address is in clear, if all must have TLS.
    ///
    /// # Errors
    /// The address.
    pub fn check(&self, section: &'static str, tls_only: bool) -> Result<(), WrongListenAddress> {
        let plain = self.0.iter().find(|listen| listen.scheme == Some(UrlScheme::Http));
        match plain.filter(|_| tls_only) {
            None => Ok(()),
            Some(plain) => Err(WrongListenAddress::Plain { section, address: plain.address }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> ListenAddresses {
        OneOrMore::More(texts.iter().map(|&text| text.to_owned()).collect()).try_into().unwrap()
    }

    fn urls(texts: &[&str]) -> [String; 2] {
        let ByFamily { v4, v6 } = addresses(texts).url_port(false);
        [v4, v6].map(|UrlPort { scheme, port }| format!("{}:{port}", scheme.name()))
    }

    #[test]
    fn urls_name_a_port_that_machines_of_the_family_reach_with_tls_if_possible() {
        assert_eq!(urls(&["[::]:8080"]), ["http:8080", "http:8080"]);
        assert_eq!(urls(&["[::]:8080", "https://[::]:8443"]), ["https:8443", "https:8443"]);
        assert_eq!(urls(&["[::]:8080", "https://127.0.0.1:8443"]), ["http:8080", "http:8080"]);
        assert_eq!(
            urls(&["https://192.0.2.1:8443", "https://[2001:db8::1]:9443"]),
            ["https:8443", "https:9443"]
        );
        assert_eq!(urls(&["0.0.0.0:8080", "https://[::1]:8443"]), ["http:8080", "http:8080"]);
        assert_eq!(urls(&["127.0.0.1:80", "https://127.0.0.1:443"]), ["https:443", "https:443"]);
        assert_eq!(urls(&["https://192.0.2.1:8443"]), ["https:8443", "https:8443"]);
    }

    #[test]
    fn loaders_without_tls_get_a_port_in_clear_that_they_reach() {
        let plain = |texts: &[&str]| addresses(texts).plain_port(false);

        assert_eq!(plain(&["127.0.0.1:80", "[::]:8080"]), ByFamily::both(Some(8080)));
        assert_eq!(plain(&["192.0.2.1:8080", "https://[::]:443"]).v6, None);
        assert_eq!(plain(&["127.0.0.1:80"]), ByFamily::both(None));
    }

    #[test]
    fn a_port_that_the_kernel_would_choose_is_refused() {
        let refused = ListenAddresses::try_from(OneOrMore::One("https://[::]:0".to_owned()));

        assert!(matches!(refused, Err(WrongListenAddress::PortZero(_))));
    }
}
