//! Listening addresses of the HTTP ports.

use std::net::SocketAddr;

use serde::Deserialize;
use thiserror::Error;

use crate::urls::{ListenAddress, UrlPort, UrlScheme};

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
    let address = address.map_err(|_| WrongListenAddress::Address(text.to_owned()))?;
    Ok(AddressOfPort { scheme, address })
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

    /// The address that URLs name: the first one with TLS, otherwise the first one.
    pub fn of_urls(&self, tls_only: bool) -> ListenAddress {
        let mut all = self.all(tls_only);
        let first = self.all(tls_only).next();
        let with_tls = all.find(|listen| listen.scheme == UrlScheme::Https);
        with_tls.or(first).expect("there is an address")
    }

    /// The scheme and port of URLs.
    pub fn url_port(&self, tls_only: bool) -> UrlPort {
        let ListenAddress { scheme, address } = self.of_urls(tls_only);
        UrlPort { scheme, port: address.port() }
    }

    /// The port of the first address in clear that other hosts reach.
    pub fn plain_port(&self, tls_only: bool) -> Option<u16> {
        let is_reached = |listen: &ListenAddress| !listen.address.ip().to_canonical().is_loopback();
        let mut plain = self.all(tls_only).filter(|listen| listen.scheme == UrlScheme::Http);
        plain.find(is_reached).map(|listen| listen.address.port())
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
