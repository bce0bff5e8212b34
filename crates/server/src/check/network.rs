//! Checks of a DHCP network before a machine is booted on it.

mod host;
mod neighbours;
mod url;

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use futures::future::join_all;
use hardware::Mac;
use ipnet::IpNet;
use netboot::network_check::boot_url::CheckedUrl;
use netboot::network_check::own_interface::OwnInterface;
use netboot::network_check::port_holders::{PortHolder, PortPlace};
use netboot::network_check::{dhcp_servers, routers};
use netboot::network_settings::NetworkSettings;

pub(super) use self::host::look as look_at_host;
use super::found::Found;
use crate::config::Config;
use crate::dhcp::{interface, port, probe, tftp};

/// Sends requests on every DHCP network like a machine that is switched on, also in the name of `machines`, since
/// other servers may answer only some machines. Leases are not affected except by offers, which servers soon forget.
pub async fn networks(config: &Config, machines: &[Mac]) -> Vec<Found> {
    let all = config.dhcp.networks.iter().map(|network| look(config, network, machines));
    join_all(all).await.into_iter().flatten().collect()
}

async fn look(config: &Config, network: &NetworkSettings, machines: &[Mac]) -> Vec<Found> {
    let name = &network.interface;
    let named = |what: &str, found| (format!("{name}: {what}"), found);
    let host = match host::settled(name).await {
        Err(error) => return vec![named("interface", Err(error))],
        Ok(host) => host,
    };
    let works = host.is_whole().map_err(Into::into).and_then(|()| interface::is_up(name));
    if works.is_err() {
        return vec![named("interface", works)];
    }
    let mut all = vec![
        named("interface", works),
        named("addresses", host.has(network).map_err(Into::into)),
        named("settings", host.suits(network).map_err(Into::into)),
    ];
    let agent = &config.agent;
    let listen = agent.listen.of_urls(config.tls.only).address;
    if let Err(error) = host.agents_reach(network, agent.url.as_ref(), listen) {
        all.push(named("agents", Err(error.into())));
    }
    if let Err(error) = port::may_have(name, 67) {
        all.push(named("permission", Err(error)));
        return all;
    }
    let mut is_running = false;
    for port in network.server_ports() {
        let holder = port::who_has(PortPlace::On(name), port);
        is_running |= matches!(holder, Ok(PortHolder::Us(_)));
        all.push(named(&format!("UDP port {port}"), holder.map(|holder| holder.to_string())));
    }
    let own4 = host.own(network, true).filter(|_| network.needs_v4());
    if let Some(own) = own4.filter(|_| config.dhcp.tftp) {
        all.push(named("UDP port 69 (TFTP)", has_tftp(own.addr())));
    }
    all.extend(look_around(config, network, machines, &host, is_running).await);
    all
}

/// The checks that send requests. `is_running` means that this service answers on the network.
async fn look_around(
    config: &Config,
    network: &NetworkSettings,
    machines: &[Mac],
    host: &OwnInterface,
    is_running: bool,
) -> Vec<Found> {
    let name = &network.interface;
    let named = |what: &str, found| (format!("{name}: {what}"), found);
    let (four, six) = (network.needs_v4(), network.pool6.is_some());
    let own4 = host.own(network, true).filter(|_| four);
    let own6 = host.own(network, false).filter(|_| six);
    // If this service is not running, no answer is its own, whatever address it comes from.
    let own: Vec<IpAddr> = host.addresses.iter().map(IpNet::addr).filter(|_| is_running).collect();
    let url = |near: Option<IpNet>| async move {
        let (urls, listen) = (config.urls(None), config.boot.listen.of_urls(config.tls.only));
        match CheckedUrl::new(&urls, network, near?, listen, is_running) {
            Ok(checked) => Some(url::reached(&checked).await),
            Err(unusable) => Some(Err(unusable.into())),
        }
    };
    let (offers, servers6, routers, near, url4, url6) = tokio::join!(
        when(four, probe::offers(name, machines)),
        when(six, probe::servers6(name, machines)),
        when(six, probe::routers(name)),
        when(own4.is_some(), neighbours::look(config, network, own4.map(|own| own.addr()))),
        url(own4),
        url(own6),
    );
    let mut all = Vec::new();
    all.extend(near.into_iter().flatten().map(|near| named("on the link", near)));
    all.extend(offers.map(|offers| {
        named(
            "other DHCP servers",
            offers.and_then(|all| Ok(dhcp_servers::judge(network, &all, &own, machines)?)),
        )
    }));
    let duid = probe::own_duid(name).ok().filter(|_| is_running);
    all.extend(servers6.map(|servers| {
        let found = servers
            .and_then(|all| Ok(dhcp_servers::judge6(network, &all, duid.as_deref(), machines)?));
        named("other DHCPv6 servers", found)
    }));
    all.extend(routers.map(|routers| {
        let found = routers.and_then(|all| Ok(routers::judge(network, &all, own6, &own)?));
        named("router advertisements", found)
    }));
    all.extend(url4.map(|url| named("URL for machines", url)));
    all.extend(url6.map(|url| named("URL for machines with IPv6", url)));
    all
}

/// Checks that no other program has the ports of a network; returns the processes of this service that have some.
pub(super) fn services_at(network: &NetworkSettings) -> Result<BTreeSet<u32>> {
    let mut ours = BTreeSet::new();
    for port in network.server_ports() {
        let holder = port::who_has(PortPlace::On(&network.interface), port)
            .with_context(|| format!("UDP port {port}"))?;
        match holder {
            PortHolder::Nobody => {}
            PortHolder::Us(pid) => _ = ours.insert(pid),
        }
    }
    Ok(ours)
}

/// Checks that TFTP's port is available at an own address.
pub(super) fn has_tftp(own: IpAddr) -> Result<String> {
    port::who_has(PortPlace::At(own), tftp::PORT).map(|holder| holder.to_string())
}

async fn when<T>(is_wanted: bool, asking: impl Future<Output = T>) -> Option<T> {
    if is_wanted { Some(asking.await) } else { None }
}
