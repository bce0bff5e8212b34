//! Checks that the external DHCP service can be configured.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::ready;
use providers::dnsmasq::Dnsmasq;
use providers::kea::Kea;
use providers::neutron::Neutron;
use providers::settings::DhcpProvider;
use tokio::time::timeout;

use super::found::Found;
use crate::config::DhcpConfig;

/// Time limit of the service's answer, shorter than during boots.
const PATIENCE: Duration = Duration::from_secs(5);

/// `None` if there is no external service.
pub(super) async fn answers(dhcp: &DhcpConfig) -> Option<Found> {
    let (name, found) = match dhcp.provider {
        DhcpProvider::Embedded | DhcpProvider::None => return None,
        DhcpProvider::Dnsmasq => ("dnsmasq", in_time(ready(dnsmasq(dhcp))).await),
        DhcpProvider::Kea => ("Kea", in_time(Kea::new(&dhcp.kea).answers()).await),
        DhcpProvider::Neutron => ("Neutron", in_time(neutron(dhcp)).await),
    };
    Some((format!("provider {name}"), found))
}

fn dnsmasq(dhcp: &DhcpConfig) -> Result<String> {
    Dnsmasq::open(&dhcp.dnsmasq)?.is_writable()
}

async fn neutron(dhcp: &DhcpConfig) -> Result<String> {
    Neutron::new(&dhcp.neutron)?.answers().await
}

async fn in_time(asking: impl Future<Output = Result<String>>) -> Result<String> {
    timeout(PATIENCE, asking)
        .await
        .with_context(|| format!("no answer in {PATIENCE:?}"))
        .flatten()
        .context("it does not accept boot settings, so every boot by http or http-ipxe would fail")
}
