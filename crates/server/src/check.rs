//! Checks of the daemon's requirements on its host, without serving.

mod found;
pub mod network;
mod provider;

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use artifacts::BootSets;
use certificates::{
    AuthorityPem, CertificateAuthority, CertificateSource, CertificateValidity, OperatorAuthority,
    OperatorFiles,
};
use hardware::CpuArch;
use netboot::boot_set::boot_set_instructions;
use netboot::network_check::boot_url::expect_short;
use netboot::network_check::name_servers;
use netboot::network_check::port_holders::{PortHolder, PortProgram};
use netboot::network_settings::NetworkSettings;
use netboot::urls::IpFamily;
use store::{Clock, Other, Store, StoreError, StoredAuthority};

pub use self::found::{CheckWarning, Found};
use crate::api::guard::OperatorGuard;
use crate::certificate_term::{CertificateTerm, OWN_AUTHORITY_REMEDY};
use crate::config::Config;
use crate::dhcp;
use crate::dhcp::port::{self, CannotListen};
use crate::means::BootMeans;
use crate::state_dir::{StateSeen, is_held_by};

/// Checks everything, and changes nothing. If a service is running already, its state directory and its ports are
/// accepted as they are.
pub async fn all(config: &Config) -> Vec<Found> {
    let state = config.state_dir().and_then(|path| Ok((StateSeen::look(&path)?, path)));
    let is_running = matches!(state, Ok((StateSeen::InUse, _)));
    let ports = [
        ("API", &config.api.listen),
        ("agents", &config.agent.listen),
        ("boot listener", &config.boot.listen),
    ];
    let mut found = Vec::new();
    let state_path = state.as_ref().map(|(_, path)| path.as_path()).ok();
    for (what, listen) in ports {
        let port = |address| port(address, state_path, is_running);
        let addresses = listen.all(config.tls.only).map(|listen| listen.address);
        found.extend(addresses.map(|address| (what.to_owned(), port(address))));
    }
    found.extend(operator_files(config));
    if let Some(users) = OperatorGuard::check_users(&config.api) {
        found.push(("users of the API".to_owned(), users));
    }
    if let Some(signer) = config.boot.uki_signer().transpose() {
        let signer = signer.map(|signer| format!("signs as {}", signer.subject()));
        found.push(("key for Secure Boot".to_owned(), signer));
    }
    match state {
        Err(error) => found.push(("state directory".to_owned(), Err(error))),
        Ok((seen, path)) => {
            found.push(("state directory".to_owned(), Ok(directory(seen, &path))));
            let path = path.canonicalize().unwrap_or(path);
            found.push(("database".to_owned(), database(config, &path).await));
            let authority = own_authority(config, &path).await;
            found.extend(authority.map(|until| ("the service's own CA".to_owned(), until)));
            found.push(("boot set".to_owned(), boot_set(config, &path)));
            let boot_sets = BootSets::look(&config.boot.boot_sets_in(&path));
            let means = BootMeans::new(config, config.urls(None), boot_sets);
            found.push(("first loader".to_owned(), means.expect_http_loader()));
            for network in &config.dhcp.networks {
                let shown = serves(config, network, &path);
                found.push((format!("DHCP on {}", network.interface), shown));
            }
        }
    }
    if let Some(told) = provider::answers(&config.dhcp).await {
        found.push(told);
    }
    found.push(("URL for machines".to_owned(), url(config)));
    for network in &config.dhcp.networks {
        let (url, url6) = (config.boot.url.as_ref(), config.boot.url6.as_ref());
        let names = name_servers::judge(url, url6, network);
        let on = format!("name in the URL on {}", network.interface);
        found.extend(names.map(|names| (on, names.map_err(Into::into))));
    }
    found
}

/// Checks that a network can be served, or is being served.
fn serves(config: &Config, network: &NetworkSettings, state: &Path) -> Result<String> {
    // With SO_REUSEADDR on both sides, two processes share a port.
    let ours = network::services_at(network)?;
    for pid in &ours {
        expect_service_from(state, *pid).with_context(|| format!("on {}", network.interface))?;
    }
    let is_ours = !ours.is_empty();
    let own = dhcp::DhcpThread::could_open(&config.dhcp, network, state, is_ours)?;
    let (host, agent) = (network::look_at_host(&network.interface)?, &config.agent);
    host.fits(network, agent.url.as_ref(), agent.listen.of_urls(config.tls.only).address)?;
    if let Some(own) = own.filter(|own| own.is_ipv4() && config.dhcp.tftp) {
        network::has_tftp(own).context("UDP port 69 (TFTP)")?;
    }
    let by = if is_ours { ", answered on by the service that runs" } else { "" };
    Ok(match own {
        None => "no pool".to_owned(),
        Some(address) => format!("our address is {address}{by}"),
    })
}

/// Checks the operator's certificate and CA, those that are named.
fn operator_files(config: &Config) -> Vec<Found> {
    let own = config.tls.files().map(|files| certificate(config, files));
    let authority = config.tls.read_authority().transpose();
    let authority = authority.map(|authority| ca_of_operator(&authority?));
    let named = [("certificate", own), ("CA that machines trust", authority)];
    named.into_iter().filter_map(|(what, found)| Some((what.to_owned(), found?))).collect()
}

/// Reads the operator's certificate, and says how long it is valid.
fn certificate(config: &Config, files: OperatorFiles) -> Result<String> {
    let path = files.certificate.display().to_string();
    let source = CertificateSource::of_files(files, config.certificate_needs())?;
    let hosts = config.tls_hosts();
    let unnamed = source.unnamed(&hosts);
    ensure!(
        unnamed.is_empty(),
        "{path} does not name {}, where a URL in the settings sends clients, who will refuse it: use a certificate \
         with such a subject alternative name, or another URL",
        unnamed.join(", ")
    );
    let validity = source.validity()?.context("no date")?;
    in_time(&path, &validity, "replace it and its key")
}

/// The CA that the operator names.
fn ca_of_operator(authority: &OperatorAuthority) -> Result<String> {
    let what = format!("{} ({})", authority.path().display(), authority.subject());
    in_time(&what, &authority.validity()?, "replace it and what it issued")
}

/// What is to be said of a certificate's validity; `remedy` ends the sentence if it has or will have expired.
fn in_time(what: &str, validity: &CertificateValidity, remedy: &str) -> Result<String> {
    match CertificateTerm::judge(validity, Clock::process().now()) {
        CertificateTerm::Valid(words) => Ok(format!("{what}, {words}")),
        CertificateTerm::Ending(words) => {
            Err(CheckWarning(format!("{what} {words}: {remedy}")).into())
        }
        CertificateTerm::Invalid(words) => bail!("{what} {words}: {remedy}"),
    }
}

/// `is_running` means that a service uses the state directory, even if the listening process cannot be identified.
fn port(address: SocketAddr, state: Option<&Path>, is_running: bool) -> Result<String> {
    match port::who_listens(address) {
        Ok(PortHolder::Nobody) => Ok(format!("{address} is free")),
        Ok(PortHolder::Us(pid)) => {
            let is_ours = state.map_or(Ok(()), |state| expect_service_from(state, pid));
            is_ours.with_context(|| format!("cannot listen on {address}"))?;
            Ok(format!("{address}, where the service that runs listens (process {pid})"))
        }
        Err(CannotListen::Taken(by)) if is_running && by.contains(&PortProgram::Unseen) => {
            Ok(format!("{address}, where the service that runs listens, it seems"))
        }
        Err(taken) => Err(anyhow::Error::new(taken).context(format!("cannot listen on {address}"))),
    }
}

/// Checks that a process of this service serves from this state directory: another service on this host keeps its ports.
fn expect_service_from(state: &Path, pid: u32) -> Result<()> {
    ensure!(
        is_held_by(state, pid),
        "another ferroboot (process {pid}) listens there, and does not serve from {}: check with the settings of that service, \
         or end it",
        state.display()
    );
    Ok(())
}

fn directory(seen: StateSeen, path: &Path) -> String {
    let path = path.display();
    match seen {
        StateSeen::Missing => format!("{path}, which the service will make"),
        StateSeen::Free => path.to_string(),
        StateSeen::InUse => format!("{path}, from which a service runs"),
    }
}

/// A missing or outdated database is accepted, since the service creates or upgrades it.
async fn database(config: &Config, state: &Path) -> Result<String> {
    match Store::open_to_read(&config.database.url_in(state), &config.database.key_file_in(state))
        .await
    {
        Ok(store) => {
            store.close().await;
            Ok("opens".to_owned())
        }
        Err(StoreError::Missing { path }) => {
            Ok(format!("{}, which the service will make", path.display()))
        }
        Err(StoreError::NoTables { .. }) => {
            Ok("has no tables yet, which the service will make".to_owned())
        }
        Err(StoreError::Version { other: Other::Older, .. }) => {
            Ok("is of an older version, and will be brought up to date".to_owned())
        }
        Err(failed) => Err(failed.into()),
    }
}

/// Says how long the service's own CA is valid; `None` if there is none, or none can be read, which `database` says.
async fn own_authority(config: &Config, state: &Path) -> Option<Result<String>> {
    if !config.has_tls() || config.tls.files().is_some() {
        return None;
    }
    let (url, key) = (config.database.url_in(state), config.database.key_file_in(state));
    let store = Store::open_to_read(&url, &key).await.ok()?;
    let authority = store.authority().await;
    store.close().await;
    let StoredAuthority { certificate, key } = authority.ok()??;
    let validity = CertificateAuthority::of_pem(&AuthorityPem { certificate, key })
        .and_then(|authority| authority.validity());
    Some(
        validity.and_then(|validity| {
            in_time("the one in the database", &validity, OWN_AUTHORITY_REMEDY)
        }),
    )
}

fn boot_set(config: &Config, state: &Path) -> Result<String> {
    let folder = config.boot.boot_sets_in(state);
    let there = BootSets::look(&folder).there();
    if there.is_empty() {
        artifacts::check_boot_set(&folder, CpuArch::X64).with_context(|| {
            let make = boot_set_instructions(CpuArch::X64, &folder);
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
    if let Some(url) = config.boot.url.as_ref().filter(|url| IpFamily::V4.reaches(url)) {
        expect_short(url.as_str())?;
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
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use certificates::{AuthorityPem, CertificateAuthority};
    use jiff::SignedDuration;

    use super::*;

    /// What is found of `[tls]` with these settings.
    fn found(settings: &str) -> Vec<(String, Result<String, String>)> {
        let said = |found: Result<String>| found.map_err(|error| format!("{error:#}"));
        let found = operator_files(&settings.parse().unwrap());
        found.into_iter().map(|(what, found)| (what, said(found))).collect()
    }

    #[test]
    fn the_ca_of_a_proxy_and_that_of_the_certificate_are_read_beforehand() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let AuthorityPem { certificate, key } = CertificateAuthority::make().unwrap();
        let other = CertificateAuthority::make().unwrap();
        for (name, pem) in [("own", certificate), ("key", key), ("other", other.certificate)] {
            fs::write(path(name), pem).unwrap();
            fs::set_permissions(path(name), Permissions::from_mode(0o600)).unwrap();
        }
        let own = format!("[tls]\ncertificate = {:?}\nkey = {:?}\n", path("own"), path("key"));
        let with = |authority: &str| found(&format!("{own}authority = {:?}", path(authority)));

        let proxied =
            found("[boot]\nurl = \"https://boot.example\"\n[tls]\nauthority = \"/nofile\"");
        let [(what, Err(said))] = &proxied[..] else { panic!("{proxied:?}") };
        assert_eq!(what, "CA that machines trust");
        assert!(
            said.starts_with("authority in [tls]: /nofile cannot be read: name the file"),
            "{said}"
        );
        let right = with("own");
        assert!(matches!(&right[..], [(_, Ok(_)), (_, Ok(_))]), "{right:?}");
        let wrong = with("other");
        let [(_, Ok(_)), (_, Err(said))] = &wrong[..] else { panic!("{wrong:?}") };
        assert!(said.contains("has issued the certificate"), "{said}");
    }

    #[test]
    fn a_certificate_that_ends_soon_is_a_warning_and_one_that_ended_an_error() {
        let now = Clock::process().now();
        let said = |hours| {
            let until = now + SignedDuration::from_hours(hours);
            let validity = CertificateValidity { from: now, until, until_of_issuer: None };
            in_time("server.pem", &validity, "replace it")
        };

        assert!(said(31 * 24).unwrap().starts_with("server.pem, valid until "));
        let soon = said(5 * 24 + 1).unwrap_err();
        assert!(soon.is::<CheckWarning>());
        assert!(soon.to_string().starts_with("server.pem expires in 5 days, at "), "{soon}");
        let ended = said(-1).unwrap_err();
        assert!(
            !ended.is::<CheckWarning>() && ended.to_string().contains("expired at "),
            "{ended}"
        );
    }

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
