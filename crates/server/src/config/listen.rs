//! Listening addresses of the HTTP ports.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use netboot::urls::{ListenAddress, UrlPort, UrlScheme};
use serde::Deserialize;

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

impl TryFrom<OneOrMore> for ListenAddresses {
    type Error = anyhow::Error;

    fn try_from(texts: OneOrMore) -> Result<Self> {
        let texts = match texts {
            OneOrMore::One(text) => vec![text],
            OneOrMore::More(texts) => texts,
        };
        ensure!(
            (1..=MOST_ADDRESSES).contains(&texts.len()),
            "listen must be an address, or a list of 1 to {MOST_ADDRESSES} addresses"
        );
        texts.iter().map(|text| parse(text)).collect::<Result<_>>().map(Self)
    }
}

fn parse(text: &str) -> Result<AddressOfPort> {
    let (scheme, rest) = match text.split_once("://") {
        None => (None, text),
        Some(("http", rest)) => (Some(UrlScheme::Http), rest),
        Some(("https", rest)) => (Some(UrlScheme::Https), rest),
        Some((other, _)) => anyhow::bail!("{other:?} in listen is neither http nor https"),
    };
    let address = rest.trim_end_matches('/').parse().with_context(|| {
        format!(
            "{text:?} is no address to listen on: give ADDRESS:PORT or https://ADDRESS:PORT, such as [::]:8080 or \
             https://[::]:8443"
        )
    })?;
    Ok(AddressOfPort { scheme, address })
}

impl From<SocketAddr> for ListenAddresses {
    fn from(address: SocketAddr) -> Self {
        Self(vec![AddressOfPort { scheme: None, address }])
    }
}

impl ListenAddresses {
    /// The addresses with their schemes; those without one have TLS if all must.
    pub(crate) fn all(&self, tls_only: bool) -> impl Iterator<Item = ListenAddress> {
        let default = if tls_only { UrlScheme::Https } else { UrlScheme::Http };
        self.0.iter().map(move |AddressOfPort { scheme, address }| ListenAddress {
            scheme: scheme.unwrap_or(default),
            address: *address,
        })
    }

    /// The address that URLs name: the first one with TLS, otherwise the first one.
    pub(crate) fn of_urls(&self, tls_only: bool) -> ListenAddress {
        let mut all = self.all(tls_only);
        let first = self.all(tls_only).next();
        let with_tls = all.find(|listen| listen.scheme == UrlScheme::Https);
        with_tls.or(first).expect("there is an address")
    }

    /// The scheme and port of URLs.
    pub(crate) fn url_port(&self, tls_only: bool) -> UrlPort {
        let ListenAddress { scheme, address } = self.of_urls(tls_only);
        UrlPort { scheme, port: address.port() }
    }

    /// Whether only this host reaches all of them.
    pub(crate) fn is_local(&self) -> bool {
        self.0.iter().all(|listen| listen.address.ip().to_canonical().is_loopback())
    }

    /// Checks that no address is in clear, if all must have TLS.
    ///
    /// # Errors
    /// The address.
    pub(super) fn check(&self, section: &str, tls_only: bool) -> Result<()> {
        let plain = self.0.iter().find(|listen| listen.scheme == Some(UrlScheme::Http));
        match plain.filter(|_| tls_only) {
            None => Ok(()),
            Some(plain) => anyhow::bail!(
                "listen in [{section}] has http://{}, and only = true in [tls] permits https alone",
                plain.address
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::config::tests::refusal;

    fn listeners(settings: &str) -> Vec<String> {
        let config: Config = settings.parse().unwrap();
        config.boot.listen.all(config.tls.only).map(|listen| listen.to_string()).collect()
    }

    #[test]
    fn a_port_has_one_address_or_a_list_with_and_without_tls() {
        assert_eq!(listeners("[boot]\nlisten = \"[::]:80\""), ["http://[::]:80"]);
        let both = "[boot]\nlisten = [\"http://[::]:80\", \"https://192.0.2.1:443\"]";
        assert_eq!(listeners(both), ["http://[::]:80", "https://192.0.2.1:443"]);
        assert_eq!(listeners("[tls]\nonly = true"), ["https://[::]:8080"]);
    }

    #[test]
    fn an_address_that_is_none_is_refused_in_words() {
        let listen = |listen: &str| refusal(&format!("[boot]\nlisten = {listen}"));

        assert!(listen("\"ftp://[::]:80\"").contains("neither http nor https"));
        assert!(listen("\"https://boot.example:443\"").contains("no address to listen on"));
        assert!(listen("[]").contains("1 to 16"));
    }

    #[test]
    fn one_setting_forbids_plain_http_on_all_ports() {
        for section in ["api", "agent", "boot"] {
            let said = refusal(&format!(
                "[tls]\nonly = true\n[{section}]\nlisten = \"http://127.0.0.1:1\""
            ));
            assert!(said.contains(&format!("[{section}]")) && said.contains("https"), "{said}");
        }
    }

    #[test]
    fn urls_name_the_address_with_tls_if_there_is_one() {
        let both = "[boot]\nlisten = [\"[::]:8080\", \"https://[::]:8443\"]";
        let config: Config = both.parse().unwrap();

        let url = config.urls(None).fetched_from([192, 0, 2, 1].into());

        assert_eq!(url, "https://192.0.2.1:8443");
    }
}
