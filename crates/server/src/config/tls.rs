//! `[tls]`: TLS of the listeners.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use certificates::{FirmwareCiphers, OperatorAuthority, OperatorFiles};
use serde::Deserialize;
use url::Host;

/// `[tls]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerTlsConfig {
    /// Whether every listener has TLS.
    pub only: bool,
    /// The certificate of all listeners, with those of its issuers (PEM); without one, the service's own authority
    /// issues certificates.
    pub certificate: Option<PathBuf>,
    /// Its key (PEM).
    pub key: Option<PathBuf>,
    /// The certificate of the authority that issued the operator's certificate, or that of a proxy before the service
    /// (PEM). Firmware and ramdisks trust it.
    pub authority: Option<PathBuf>,
    /// Names and addresses by which machines and operators reach the service, for issued certificates. The address that
    /// was connected to, and the hosts in the URLs of other sections, need not be repeated.
    pub names: Vec<String>,
    /// Whether firmware may use DHE and RSA key exchange.
    pub old_firmware: bool,
}

impl ListenerTlsConfig {
    /// The operator's files.
    pub(crate) fn files(&self) -> Option<OperatorFiles> {
        let (certificate, key) = (self.certificate.clone()?, self.key.clone()?);
        Some(OperatorFiles { certificate, key })
    }

    /// The CA of the operator's certificate, or that of a proxy, if its file is named.
    ///
    /// # Errors
    /// The file cannot be used, or its CA has not issued the certificate.
    pub(crate) fn read_authority(&self) -> Result<Option<OperatorAuthority>> {
        let Some(path) = &self.authority else { return Ok(None) };
        let authority = OperatorAuthority::read(path, self.certificate.as_deref());
        Ok(Some(authority.context("authority in [tls]")?))
    }

    /// The ciphers for firmware.
    pub(crate) fn firmware_ciphers(&self) -> FirmwareCiphers {
        if self.old_firmware { FirmwareCiphers::OldFirmware } else { FirmwareCiphers::Modern }
    }

    /// The names and the addresses in `names` and in these hosts of URLs.
    pub(crate) fn subjects<'u>(
        &self,
        hosts: impl IntoIterator<Item = Host<&'u str>>,
    ) -> (Vec<String>, Vec<IpAddr>) {
        let (mut names, mut addresses) = (Vec::new(), Vec::new());
        for name in &self.names {
            match name.parse::<IpAddr>() {
                Ok(address) => addresses.push(address),
                Err(_) => names.push(name.clone()),
            }
        }
        for host in hosts {
            match host {
                Host::Domain(name) => names.push(name.to_owned()),
                Host::Ipv4(address) => addresses.push(address.into()),
                Host::Ipv6(address) => addresses.push(address.into()),
            }
        }
        names.sort_unstable();
        names.dedup();
        addresses.sort_unstable();
        addresses.dedup();
        (names, addresses)
    }

    /// `has_tls` means that a listener has TLS.
    pub(super) fn check(&self, has_tls: bool) -> Result<()> {
        ensure!(
            self.certificate.is_some() == self.key.is_some(),
            "[tls] needs certificate and key, or neither of them"
        );
        ensure!(
            self.certificate.is_some() || self.authority.is_none() || !has_tls,
            "authority in [tls] belongs to an operator's certificate and key (or to a proxy before listeners without TLS): \
             name them, or leave it out"
        );
        for name in &self.names {
            let is_host =
                name.parse::<IpAddr>().is_ok() || matches!(Host::parse(name), Ok(Host::Domain(_)));
            ensure!(
                is_host && !name.contains(['*', ',', ':']) || name.parse::<IpAddr>().is_ok(),
                "{name:?} in names of [tls] is neither a host name nor an address: give a name such as boot.example, \
                 without https:// and without a port"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::tests::refusal;

    #[test]
    fn certificate_and_key_come_together() {
        assert!(refusal("[tls]\ncertificate = \"/c\"").contains("certificate and key"));
        assert!("[tls]\ncertificate = \"/c\"\nkey = \"/k\"".parse::<Config>().is_ok());
    }

    #[test]
    fn an_authority_without_a_certificate_is_that_of_a_proxy() {
        let proxied = "[boot]\nurl = \"https://boot.example\"\n[tls]\nauthority = \"/ca\"";
        assert!(proxied.parse::<Config>().is_ok());
        let own = "[boot]\nlisten = \"https://[::]:8443\"\n[tls]\nauthority = \"/ca\"";
        assert!(refusal(own).contains("an operator's certificate and key"));
    }

    #[test]
    fn a_name_of_the_certificate_is_a_name_or_an_address() {
        let names = |name: &str| format!("[tls]\nnames = [\"{name}\"]");

        for good in ["boot.example", "192.0.2.1", "2001:db8::1"] {
            assert!(names(good).parse::<Config>().is_ok(), "{good}");
        }
        for odd in ["https://boot.example", "boot.example:443", "", "*.example", "a,IP:1.2.3.4"] {
            assert!(refusal(&names(odd)).contains("names of [tls]"), "{odd}");
        }
    }

    #[test]
    fn an_operators_certificate_must_name_the_hosts_of_https_urls_unless_a_proxy_answers_there() {
        let config: Config =
            "[agent]\nlisten = \"https://[::]:6386\"\nurl = \"https://[2001:db8::1]:6386\"\n\
                              [boot]\nlisten = [\"http://[::]:8080\", \"https://[::]:8443\"]\n\
                              url = \"https://boot.example\"\nurl6 = \"http://boot6.example\"\n\
                              [api]\npublic_url = \"https://proxy.example\""
                .parse()
                .unwrap();

        assert_eq!(
            config.tls_hosts().into_iter().collect::<Vec<_>>(),
            ["2001:db8::1", "boot.example"]
        );
    }

    #[test]
    fn certificates_name_the_hosts_of_urls_too() {
        let config: Config = "[tls]\nnames = [\"edge.example\", \"192.0.2.9\"]\n\
                              [boot]\nurl = \"https://boot.example:8443\"\nurl6 = \"https://[2001:db8::1]\""
            .parse()
            .unwrap();

        let (names, addresses) = config.certificate_subjects();

        assert_eq!(names, ["boot.example", "edge.example"]);
        assert_eq!(
            addresses,
            ["192.0.2.9".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]
        );
    }
}
