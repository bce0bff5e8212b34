//! The DHCP service that sends boot answers, and its settings.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde::Deserialize;
use url::Url;

/// The DHCP service that sends boot answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DhcpProvider {
    /// The embedded server.
    #[default]
    Embedded,
    /// dnsmasq, configured by files.
    Dnsmasq,
    /// Kea, configured by its control sockets.
    Kea,
    /// OpenStack's network service, which configures its own DHCP service.
    Neutron,
    /// A server configured by others.
    None,
}

/// `[dhcp.dnsmasq]`, with the names and defaults of Ironic's `[dnsmasq]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DnsmasqConfig {
    /// dnsmasq's `dhcp-hostsdir`.
    pub dhcp_hostsdir: PathBuf,
    /// dnsmasq's `dhcp-optsdir`.
    pub dhcp_optsdir: PathBuf,
}

impl Default for DnsmasqConfig {
    fn default() -> Self {
        Self {
            dhcp_hostsdir: "/etc/dnsmasq.d/hostsdir.d".into(),
            dhcp_optsdir: "/etc/dnsmasq.d/optsdir.d".into(),
        }
    }
}

impl DnsmasqConfig {
    /// Checks that the settings are complete.
    ///
    /// # Errors
    /// The missing ones.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.dhcp_hostsdir != self.dhcp_optsdir,
            "dhcp_hostsdir and dhcp_optsdir in [dhcp.dnsmasq] must be two folders"
        );
        Ok(())
    }
}

/// `[dhcp.kea]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeaConfig {
    /// The control socket of kea-dhcp4, if machines boot over IPv4.
    pub socket4: Option<PathBuf>,
    /// The control socket of kea-dhcp6, if machines boot over IPv6.
    pub socket6: Option<PathBuf>,
}

impl KeaConfig {
    /// Checks that the settings are complete.
    ///
    /// # Errors
    /// The missing ones.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.socket4.is_some() || self.socket6.is_some(),
            "the provider kea needs socket4, socket6 or both in [dhcp.kea]"
        );
        Ok(())
    }
}

/// `[dhcp.neutron]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NeutronConfig {
    /// Neutron's URL; by default from Keystone's catalogue.
    pub url: Option<Url>,
    /// Keystone's `auth_url`; without it, Neutron is used without a token (`noauth`).
    pub auth_url: Option<Url>,
    /// The user.
    pub username: String,
    /// The file with the user's password.
    pub password_file: Option<PathBuf>,
    /// The project.
    pub project_name: String,
    /// The domain of the user; `Default` if empty.
    pub user_domain_name: String,
    /// The domain of the project; `Default` if empty.
    pub project_domain_name: String,
    /// The region in Keystone's catalogue, if it has several.
    pub region_name: Option<String>,
}

impl NeutronConfig {
    /// Checks that the settings are complete: gaps would otherwise surface only at the first boot.
    ///
    /// # Errors
    /// The missing ones.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.url.is_some() || self.auth_url.is_some(),
            "the provider neutron needs url or auth_url in [dhcp.neutron]"
        );
        let named = !self.username.is_empty() && !self.project_name.is_empty();
        ensure!(
            self.auth_url.is_none() || (named && self.password_file.is_some()),
            "auth_url in [dhcp.neutron] needs username, password_file and project_name beside it"
        );
        Ok(())
    }
}
