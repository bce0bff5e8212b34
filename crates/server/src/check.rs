//! What the daemon needs of its host, looked at without serving.

mod names;
pub mod network;
mod provider;

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use provision::CpuArch;
use store::Store;

use crate::artifacts::{self, BootSets};
use crate::config::{Config, Dhcp, Network};
use crate::dhcp;
use crate::state_dir::StateDir;
use crate::urls::Family;

/// What was looked at, and how it is or what is wrong.
pub type Found = (String, Result<String>);

/// Looks at everything. Changes nothing but for making the state directory.
///
/// A service that runs already has its addresses, and they show as taken.
pub async fn all(config: &Config) -> Vec<Found> {
    let state = config.state_dir().and_then(StateDir::lock);
    let mut found = vec![
        ("API".to_owned(), free(config.api.listen).await),
        ("agents".to_owned(), free(config.agent.listen).await),
        ("boot listener".to_owned(), free(config.boot.listen).await),
    ];
    match state {
        Err(error) => found.push(("state directory".to_owned(), Err(error))),
        Ok(state) => {
            found.push(("state directory".to_owned(), Ok(state.path().display().to_string())));
            found.push(("database".to_owned(), database(config, &state).await));
            found.push(("boot set".to_owned(), boot_set(config, &state)));
            for network in &config.dhcp.networks {
                let shown = serves(config, network, &state).await;
                found.push((format!("DHCP on {}", network.interface), shown));
            }
        }
    }
    if let Some(told) = provider::answers(&config.dhcp).await {
        found.push(told);
    }
    found.push(("URL for machines".to_owned(), url(config)));
    for network in &config.dhcp.networks {
        let names = names::names(&config.boot, network);
        let on = format!("name in the URL on {}", network.interface);
        found.extend(names.map(|names| (on, names)));
    }
    found
}

/// Whether a network could be served.
async fn serves(config: &Config, network: &Network, state: &StateDir) -> Result<String> {
    // With SO_REUSEADDR on both sides, a port is had by two.
    network::has_ports(network)?;
    let alone = Dhcp { networks: vec![network.clone()], ..config.dhcp.clone() };
    let opened = dhcp::Service::open(&alone, state.path()).await?;
    network::fits(network, &config.agent)?;
    let own = opened.addresses();
    if let Some(own) = own.iter().find(|own| own.is_ipv4()).filter(|_| config.dhcp.tftp) {
        network::has_tftp(*own).context("UDP port 69 (TFTP)")?;
    }
    Ok(match own {
        [] => "no pool".to_owned(),
        [address, ..] => format!("our address is {address}"),
    })
}

async fn free(address: SocketAddr) -> Result<String> {
    crate::listen(address, "this").await?;
    Ok(format!("{address} is free"))
}

async fn database(config: &Config, state: &StateDir) -> Result<String> {
    let store = Store::open(&config.database_url(state.path())).await?;
    store.close().await;
    Ok("opens".to_owned())
}

fn boot_set(config: &Config, state: &StateDir) -> Result<String> {
    let folder = config.boot_sets_in(state.path());
    let there = BootSets::look(&folder).there();
    if there.is_empty() {
        artifacts::check_boot_set(&folder, CpuArch::X64).with_context(|| {
            let make = artifacts::how_to_make_one(CpuArch::X64, &folder);
            format!("there is none, so only nodes with images of their own boot: {make}")
        })?;
    }
    for cpu_arch in &there {
        artifacts::check_boot_set(&folder, *cpu_arch)?;
    }
    let names: Vec<_> = there.iter().map(|cpu_arch| cpu_arch.name()).collect();
    Ok(format!("{}, for {}", folder.display(), names.join(" and ")))
}

fn url(config: &Config) -> Result<String> {
    if let Some(url) = config.boot.url.as_ref().filter(|url| Family::V4.reaches(url)) {
        network::url_fits(url.as_str())?;
    }
    match (&config.boot.url, &config.boot.url6) {
        (Some(url), Some(url6)) => return Ok(format!("{url}, and over IPv6 {url6}")),
        (Some(url), None) | (None, Some(url)) => return Ok(url.to_string()),
        (None, None) => {}
    }
    ensure!(
        !config.dhcp.networks.is_empty(),
        "not known, so no machine is told what to fetch: set url in [boot], or external_http_url in the \
         driver_info of every node"
    );
    Ok("our address on the first DHCP network".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_is_too_long_for_firmware_is_wrong_before_anything_is_asked() {
        let said = |len| {
            let text = format!("[boot]\nurl = \"http://192.0.2.1/{}\"", "a".repeat(len));
            url(&text.parse().unwrap()).map_err(|error| error.to_string())
        };

        assert!(said(100).is_ok());
        assert!(said(230).unwrap_err().contains("firmware takes 254 at most over IPv4"));
    }
}
