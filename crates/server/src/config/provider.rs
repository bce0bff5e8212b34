//! Which DHCP service tells machines what to boot, and how it is told.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde::Deserialize;
use url::Url;

/// The DHCP service that tells machines what to boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Our own.
    #[default]
    Embedded,
    /// dnsmasq, by files that it reads.
    Dnsmasq,
    /// Kea, by its control sockets.
    Kea,
    /// OpenStack's network service, which passes it on to its own.
    Neutron,
    /// One that is told by somebody else.
    None,
}

/// `[dhcp.dnsmasq]`, with the names and defaults of Ironic's `[dnsmasq]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dnsmasq {
    /// The folder that dnsmasq has as `dhcp-hostsdir`.
    pub dhcp_hostsdir: PathBuf,
    /// The folder that dnsmasq has as `dhcp-optsdir`.
    pub dhcp_optsdir: PathBuf,
}

impl Default for Dnsmasq {
    fn default() -> Self {
        Self {
            dhcp_hostsdir: "/etc/dnsmasq.d/hostsdir.d".into(),
            dhcp_optsdir: "/etc/dnsmasq.d/optsdir.d".into(),
        }
    }
}

impl Dnsmasq {
    pub(super) fn check(&self) -> Result<()> {
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
pub struct Kea {
    /// The control socket of kea-dhcp4, if machines boot over IPv4.
    pub socket4: Option<PathBuf>,
    /// The control socket of kea-dhcp6, if machines boot over IPv6.
    pub socket6: Option<PathBuf>,
}

impl Kea {
    pub(super) fn check(&self) -> Result<()> {
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
pub struct Neutron {
    /// Where Neutron's API is; by default, where Keystone's catalogue says.
    pub url: Option<Url>,
    /// Keystone's `auth_url`; without it, Neutron is asked without a token (`noauth`).
    pub auth_url: Option<Url>,
    /// Who asks.
    pub username: String,
    /// The file that holds that user's password.
    pub password_file: Option<PathBuf>,
    /// For which project.
    pub project_name: String,
    /// The domain of the user; `Default` if empty.
    pub user_domain_name: String,
    /// The domain of the project; `Default` if empty.
    pub project_domain_name: String,
    /// The region in Keystone's catalogue, if it has several.
    pub region_name: Option<String>,
}

impl Neutron {
    /// What is missing would otherwise be noticed when the first machine boots.
    pub(super) fn check(&self) -> Result<()> {
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
