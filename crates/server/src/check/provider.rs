//! Whether the DHCP service that is told what machines are to boot can be told anything.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::ready;
use tokio::time::timeout;

use super::Found;
use crate::config::{Dhcp, Provider};
use crate::providers::dnsmasq::Dnsmasq;
use crate::providers::kea::Kea;
use crate::providers::neutron::Neutron;

/// How long a service may take to answer, which has more time when machines boot.
const PATIENCE: Duration = Duration::from_secs(5);

/// `None` where there is none but our own.
pub(super) async fn answers(dhcp: &Dhcp) -> Option<Found> {
    let (name, found) = match dhcp.provider {
        Provider::Embedded | Provider::None => return None,
        Provider::Dnsmasq => ("dnsmasq", in_time(ready(dnsmasq(dhcp))).await),
        Provider::Kea => ("Kea", in_time(Kea::new(&dhcp.kea).answers()).await),
        Provider::Neutron => ("Neutron", in_time(neutron(dhcp)).await),
    };
    Some((format!("provider {name}"), found))
}

fn dnsmasq(dhcp: &Dhcp) -> Result<String> {
    Dnsmasq::open(&dhcp.dnsmasq)?.is_writable()
}

async fn neutron(dhcp: &Dhcp) -> Result<String> {
    Neutron::new(&dhcp.neutron)?.answers().await
}

async fn in_time(asking: impl Future<Output = Result<String>>) -> Result<String> {
    timeout(PATIENCE, asking)
        .await
        .with_context(|| format!("no answer in {PATIENCE:?}"))
        .flatten()
        .context("it cannot be told what to boot, so every boot by http or http-ipxe would fail")
}
