//! `[dhcp]`: the DHCP service, its networks, and its limits.

use anyhow::{Result, ensure};
use dhcp::limits::{Rate, Rates};
use netboot::network_settings::NetworkSettings;
use providers::BootAnswerService;
use providers::settings::{DhcpProvider, DnsmasqConfig, KeaConfig, NeutronConfig};
use serde::Deserialize;

/// `[dhcp]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DhcpConfig {
    /// The DHCP service that sends boot answers.
    pub provider: DhcpProvider,
    /// Lease time in seconds.
    pub lease_secs: u32,
    /// The name of the networks that this daemon is on, among the daemons of one database: pools of one site must not
    /// overlap.
    pub site: String,
    /// Whether PXE firmware of nodes that boot over HTTP gets iPXE over TFTP.
    pub tftp: bool,
    /// Rate limits.
    pub limits: DhcpLimits,
    /// The networks to serve; no others are served.
    #[serde(rename = "network")]
    pub networks: Vec<NetworkSettings>,
    /// Settings of the provider `dnsmasq`.
    pub dnsmasq: DnsmasqConfig,
    /// Settings of the provider `kea`.
    pub kea: KeaConfig,
    /// Settings of the provider `neutron`.
    pub neutron: NeutronConfig,
}

impl DhcpConfig {
    /// Checks that every network is complete, no interface has two networks, and the provider has its settings.
    pub(super) fn check(&self) -> Result<()> {
        ensure!(self.lease_secs >= 60, "dhcp.lease_secs must be at least 60");
        let mut interfaces: Vec<_> =
            self.networks.iter().map(|network| &network.interface).collect();
        interfaces.sort();
        for pair in interfaces.windows(2) {
            ensure!(pair[0] != pair[1], "the interface {} is in two DHCP networks", pair[0]);
        }
        self.networks.iter().try_for_each(NetworkSettings::check)?;
        ensure!(
            self.networks.is_empty() || self.provider == DhcpProvider::Embedded,
            "[[dhcp.network]] is for the provider embedded: another one is the network's DHCP server"
        );
        match self.provider {
            DhcpProvider::Embedded | DhcpProvider::None => Ok(()),
            DhcpProvider::Dnsmasq => self.dnsmasq.check(),
            DhcpProvider::Kea => self.kea.check(),
            DhcpProvider::Neutron => self.neutron.check(),
        }
    }

    /// The service that sends boot answers.
    pub(crate) fn boot_answer_service(&self) -> BootAnswerService<'_> {
        match self.provider {
            DhcpProvider::Embedded => {
                BootAnswerService::NotTold { answers: !self.networks.is_empty() }
            }
            DhcpProvider::None => BootAnswerService::NotTold { answers: true },
            DhcpProvider::Dnsmasq => BootAnswerService::Dnsmasq(&self.dnsmasq),
            DhcpProvider::Kea => BootAnswerService::Kea(&self.kea),
            DhcpProvider::Neutron => BootAnswerService::Neutron(&self.neutron),
        }
    }
}

impl Default for DhcpConfig {
    fn default() -> Self {
        Self {
            provider: DhcpProvider::default(),
            lease_secs: 3_600,
            site: String::new(),
            tftp: false,
            limits: DhcpLimits::default(),
            networks: Vec::new(),
            dnsmasq: DnsmasqConfig::default(),
            kea: KeaConfig::default(),
            neutron: NeutronConfig::default(),
        }
    }
}

/// `[dhcp.limits]`: messages per second on each network; 0 for no limit. Bursts of four times as many for a machine,
/// and twice as many for all, are allowed.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DhcpLimits {
    /// For one machine. A registered machine may exceed it while the spare budget lasts.
    pub machine: u32,
    /// For all registered machines, each within its own limit; the spare budget is half as many again.
    pub known: u32,
    /// For all other machines.
    pub strangers: u32,
}

impl Default for DhcpLimits {
    fn default() -> Self {
        let Rates { each, known, guests } = Rates::default();
        Self { machine: each.per_sec, known: known.per_sec, strangers: guests.per_sec }
    }
}

impl DhcpLimits {
    pub(crate) fn rates(self) -> Rates {
        let rate =
            |per_sec: u32, times| Rate { per_sec, burst: per_sec.saturating_mul(times).max(1) };
        Rates {
            each: rate(self.machine, 4),
            known: rate(self.known, 2),
            guests: rate(self.strangers, 2),
        }
    }
}

#[cfg(test)]
mod tests {
    use netboot::network_settings::NetworkSettings;
    use providers::settings::DhcpProvider;

    use crate::config::Config;
    use crate::config::tests::refusal;

    #[test]
    fn a_network_is_an_interface_and_a_pool() {
        let config: Config =
            "[[dhcp.network]]\ninterface = \"eth1\"\npool = \"192.0.2.10-192.0.2.20\""
                .parse()
                .unwrap();

        let [network] = &config.dhcp.networks[..] else { panic!("one network expected") };
        let pool = network.pool.unwrap().0;
        assert_eq!(pool.len(), 11);
        let flag: NetworkSettings = "eth1=192.0.2.10-192.0.2.20".parse().unwrap();
        assert_eq!(flag.pool.unwrap().0, pool);
    }

    #[test]
    fn what_is_out_of_range_is_refused_in_words() {
        assert!(refusal("[[dhcp.network]]\ninterface = \"a\"").contains("neither pool nor pool6"));
        let network = |pool| format!("[[dhcp.network]]\ninterface = \"a\"\npool = \"{pool}\"\n");

        assert!(refusal(&network("10.0.0.9-10.0.0.1")).contains("ends before it begins"));
        assert!(refusal(&network("10.0.0.9")).contains("is not an address range"));
        let six = "[[dhcp.network]]\ninterface = \"a\"\npool6 = \"10.0.0.1-10.0.0.9\"";
        assert!(refusal(six).contains("such as 2001:db8::100-2001:db8::1ff"));
        let twice = network("10.0.0.1-10.0.0.2") + &network("10.0.0.3-10.0.0.4");
        assert!(refusal(&twice).contains("the interface a is in two DHCP networks"));
        assert!(refusal("[dhcp]\nlease_secs = 1").contains("at least 60"));
    }

    #[test]
    fn a_provider_that_lacks_a_setting_is_refused_in_words() {
        let provider = |settings: &str| refusal(&format!("[dhcp]\nprovider = {settings}"));

        assert!(provider("\"isc\"").contains("isc"));
        assert!(provider("\"kea\"").contains("socket4"));
        assert!(provider("\"neutron\"").contains("url or auth_url"));
        let half = "\"neutron\"\n[dhcp.neutron]\nauth_url = \"http://keystone:5000\"";
        assert!(provider(half).contains("password_file"));
        let config: Config = "[dhcp]\nprovider = \"dnsmasq\"".parse().unwrap();
        assert_eq!(config.dhcp.provider, DhcpProvider::Dnsmasq);
    }
}
