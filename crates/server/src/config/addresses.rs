//! Types of several sections: listening addresses, networks, public URLs.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde::Deserialize;
use url::Url;

/// All addresses of this host, IPv4 and IPv6.
pub(super) fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
}

/// Refuses a public URL that has a password.
pub(super) fn expect_public(setting: &str, url: Option<&Url>) -> Result<()> {
    let is_public = url.is_none_or(|url| url.username().is_empty() && url.password().is_none());
    ensure!(is_public, "{setting} must not hold a user name or a password: every machine gets it");
    Ok(())
}

/// `ADDRESS` or `ADDRESS/LENGTH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AddressOrNetwork(pub IpNet);

impl TryFrom<String> for AddressOrNetwork {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let net = net.with_context(|| {
            format!("{text:?} is neither an address nor a network, such as 192.0.2.0/24")
        })?;
        Ok(Self(net))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::refusal;

    #[test]
    fn a_url_that_everybody_is_told_holds_no_password() {
        for (section, name) in
            [("api", "public_url"), ("agent", "url"), ("boot", "url"), ("boot", "url6")]
        {
            let said = refusal(&format!("[{section}]\n{name} = \"http://me:geheim@h\""));
            assert!(
                said.contains("must not hold a user name") && !said.contains("geheim"),
                "{said}"
            );
        }
    }
}
