//! What is wrong with a DHCP network before a machine is booted on it.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use ipnet::IpNet;
use reqwest::Client;
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::{Host, Url};

use super::Found;
use crate::config::{self, Boot, Config};
use crate::dhcp::survey::{self, Offer, Router};
use crate::dhcp::{interface, port};

/// How long to wait for the URL.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks on every DHCP network as a machine would that is switched on. Nobody's leases are touched but
/// for offers, which servers soon forget.
pub async fn networks(config: &Config) -> Vec<Found> {
    let mut all = Vec::new();
    for network in &config.dhcp.networks {
        all.extend(look(config, network).await);
    }
    all
}

async fn look(config: &Config, network: &config::Network) -> Vec<Found> {
    let name = &network.interface;
    let named = |what: &str, found| (format!("{name}: {what}"), found);
    let addresses = match interface::addresses(name) {
        Err(error) => return vec![named("interface", Err(error))],
        Ok(addresses) => addresses,
    };
    let is_up = interface::is_up(name);
    if is_up.is_err() {
        return vec![named("interface", is_up)];
    }
    let mut all = vec![named("interface", is_up), named("addresses", has(network, &addresses))];
    let four = network.pool.is_some() || network.proxy;
    let six = network.pool6.is_some();
    for (port, is_needed) in [(67, four), (4011, network.proxy), (547, six)] {
        if is_needed {
            all.push(named(&format!("UDP port {port}"), port::who_has(name, port)));
        }
    }
    let Boot { url: told, url6: told6, .. } = &config.boot;
    let (offers, servers6, routers, url, url6) = tokio::join!(
        when(four, survey::offers(name)),
        when(six, survey::servers6(name)),
        when(six, survey::routers(name)),
        url(told.as_ref(), config, network, &addresses),
        when(six && told6.is_some(), url(told6.as_ref(), config, network, &addresses)),
    );
    let own: Vec<_> = addresses.iter().map(IpNet::addr).collect();
    all.extend(
        offers
            .map(|found| named("other DHCP servers", found.and_then(|o| judge(network, &o, &own)))),
    );
    all.extend(servers6.map(|found| {
        named("other DHCPv6 servers", found.and_then(|servers| judge6(network, &servers)))
    }));
    all.extend(routers.map(|found| {
        named(
            "router advertisements",
            found.and_then(|routers| judge_routers(network, &routers, &own)),
        )
    }));
    all.extend(names(&config.boot, network).map(|names| named("name in the URL", names)));
    all.push(named("URL for machines", url));
    all.extend(url6.map(|url6| named("URL for machines with IPv6", url6)));
    all
}

async fn when<T>(is_wanted: bool, asking: impl Future<Output = T>) -> Option<T> {
    if is_wanted { Some(asking.await) } else { None }
}

/// Whether the interface has addresses that go with the settings.
fn has(network: &config::Network, addresses: &[IpNet]) -> Result<String> {
    let name = &network.interface;
    let families = [
        (network.pool.is_some() || network.proxy, true, "IPv4"),
        (network.pool6.is_some(), false, "IPv6"),
    ];
    let mut said = Vec::new();
    for (_, is_four, family) in families.into_iter().filter(|(is_needed, ..)| *is_needed) {
        let own = network.home(addresses, is_four).with_context(|| {
            format!("no {family} address: give it one, such as with `ip address add ADDRESS/LENGTH dev {name}`")
        })?;
        network.check_on(own, addresses)?;
        said.push(own.to_string());
    }
    Ok(said.join(", "))
}

/// Whether firmware can look up the names that are in URLs; `None`, where there are none. It passes over a URL with a
/// name that comes without a name server.
pub(super) fn names(boot: &Boot, network: &config::Network) -> Option<Result<String>> {
    let families = [
        (true, boot.url.as_ref(), "IPv4"),
        (false, boot.url6.as_ref().or(boot.url.as_ref()), "IPv6"),
    ];
    let mut said = Vec::new();
    for (is_four, url, family) in families {
        let Some((url, Host::Domain(name))) = url.and_then(|url| Some((url, url.host()?))) else {
            continue;
        };
        for servers in network.dns_everywhere(is_four) {
            let Some(server) = servers.first() else {
                return Some(Err(anyhow!(
                    "{url} has the name {name} in it, and not all machines here are told a name server over \
                     {family}, without which firmware does not take it: set dns, or a url with an address"
                )));
            };
            said.push(format!("{name}, to be looked up at {server}"));
        }
    }
    said.dedup();
    (!said.is_empty()).then(|| Ok(said.join(", ")))
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn judge(network: &config::Network, offers: &BTreeSet<Offer>, own: &[IpAddr]) -> Result<String> {
    let others: Vec<_> =
        offers.iter().filter(|offer| !own.contains(&offer.server.into())).collect();
    let givers: BTreeSet<Ipv4Addr> =
        others.iter().filter(|offer| offer.address.is_some()).map(|offer| offer.server).collect();
    let rival = others.iter().find(|offer| offer.to_http && offer.file.is_some());
    if let Some(Offer { server, file, .. }) = rival {
        bail!(
            "{server} tells HTTP boot firmware to boot {:?} as well, and which of two answers firmware \
             follows cannot be foreseen: take that out of its settings",
            file.as_deref().unwrap_or_default()
        );
    }
    if network.proxy {
        return match givers.first() {
            Some(giver) => Ok(format!("{giver} gives addresses")),
            None => bail!(
                "nobody gives addresses here (at least not to strangers): machines need another DHCP \
                 server beside this proxy, or a pool instead of `proxy = true`"
            ),
        };
    }
    if let Some(giver) = givers.first() {
        bail!(
            "{giver} gives addresses too, and machines take whichever offer they like better: switch it \
             off, or leave the addresses to it with `proxy = true` in place of a pool"
        );
    }
    match others.first() {
        None => Ok("none answers".to_owned()),
        Some(Offer { server, .. }) => bail!(
            "{server} tells PXE firmware what to boot (ProxyDHCP): machines that try PXE first follow it; \
             switch it off, or PXE in the machines' set-up"
        ),
    }
}

fn judge6(network: &config::Network, servers: &BTreeSet<(IpAddr, Vec<u8>)>) -> Result<String> {
    let own = survey::own_duid(&network.interface)?;
    let mut others = servers.iter().filter(|(_, duid)| *duid != own);
    match others.next() {
        None => Ok("none answers".to_owned()),
        Some((other, _)) if !network.sole => {
            Ok(format!("{other} answers too, as the settings have it"))
        }
        Some((other, _)) => bail!(
            "{other} answers too: machines may take its offer, which has no URL; switch it off, or say \
             `sole = false` so that machines wait for both"
        ),
    }
}

fn judge_routers(
    network: &config::Network,
    routers: &BTreeSet<Router>,
    own: &[IpAddr],
) -> Result<String> {
    let mut others = routers.iter().filter(|router| !own.contains(&router.address.into()));
    let managed = others.clone().find(|router| router.managed);
    match (network.advertise, others.next(), managed) {
        (true, None, _) => Ok("only this service's".to_owned()),
        (true, Some(Router { address, .. }), _) => {
            Ok(format!("{address} advertises too; `advertise = false` leaves that to it alone"))
        }
        (false, _, Some(Router { address, .. })) => {
            Ok(format!("{address} advertises, with the M flag"))
        }
        (false, Some(Router { address, .. }), None) => bail!(
            "{address} advertises without the M flag, so no machine asks DHCPv6 for an address: set it \
             (AdvManagedFlag in radvd), or let this service advertise (`advertise = true`)"
        ),
        (false, None, _) => bail!(
            "nobody advertises, so no machine asks DHCPv6: let this service do it (`advertise = true`), \
             or switch it on in the network's router, with the M flag"
        ),
    }
}

/// Whether machines reach what they are told to fetch.
async fn url(
    told: Option<&Url>,
    config: &Config,
    network: &config::Network,
    addresses: &[IpNet],
) -> Result<String> {
    let Some(url) = told else {
        let own = addresses.iter().map(IpNet::addr).find(|address| !is_link_local(*address));
        let own = own.context("the interface has no address that a URL could have in it")?;
        return own_listener(SocketAddr::new(own, config.boot.listen.port()), config.boot.listen)
            .await;
    };
    let client = Client::builder()
        .interface(&network.interface)
        .timeout(PATIENCE)
        .build()
        .context("cannot fetch anything")?;
    let ours = |address: IpAddr| addresses.iter().any(|net| net.addr() == address);
    match url.host() {
        Some(Host::Ipv4(address)) if ours(address.into()) => own_url(url, address.into()).await,
        Some(Host::Ipv6(address)) if ours(address.into()) => own_url(url, address.into()).await,
        Some(_) | None => {
            let answer = client.get(url.clone()).send().await;
            let answer = answer
                .with_context(|| format!("{url} cannot be reached from {}", network.interface))?;
            Ok(format!("{url} answers ({})", answer.status()))
        }
    }
}

async fn own_url(url: &Url, address: IpAddr) -> Result<String> {
    let port = url.port_or_known_default().context("the URL has no port")?;
    let listens = connects(SocketAddr::new(address, port)).await;
    listens.with_context(|| format!("nothing answers at {url}"))?;
    Ok(format!("{url} answers"))
}

async fn own_listener(at: SocketAddr, listen: SocketAddr) -> Result<String> {
    if !listen.ip().is_unspecified() && listen.ip() != at.ip() {
        bail!(
            "machines are told http://{at}, but the boot listener is on {listen} alone: set listen in \
             [boot] to [::]:{}",
            listen.port()
        );
    }
    match connects(at).await {
        Ok(()) => Ok(format!("http://{at} answers")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Ok(format!("http://{at}, once the service runs"))
        }
        Err(error) => Err(anyhow!(error).context(format!("http://{at} cannot be reached"))),
    }
}

async fn connects(to: SocketAddr) -> io::Result<()> {
    timeout(PATIENCE, TcpStream::connect(to)).await?.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const THEM: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    fn network(text: &str) -> config::Network {
        text.parse().unwrap()
    }

    fn offer(server: Ipv4Addr, address: bool, file: Option<&str>) -> BTreeSet<Offer> {
        let address = address.then_some(Ipv4Addr::new(192, 0, 2, 77));
        [Offer { server, to_http: true, address, file: file.map(str::to_owned) }].into()
    }

    fn said(network: &config::Network, offers: &BTreeSet<Offer>) -> Result<String, String> {
        judge(network, offers, &[US.into()]).map_err(|error| error.to_string())
    }

    #[test]
    fn another_server_that_gives_addresses_is_wrong_beside_a_pool_and_right_beside_a_proxy() {
        let pool = network("eth1=192.0.2.10-192.0.2.20");
        let proxy = network("eth1=proxy");
        let offers = offer(THEM, true, None);

        assert!(said(&pool, &offers).unwrap_err().starts_with("192.0.2.2 gives addresses too"));
        assert_eq!(said(&proxy, &offers).unwrap(), "192.0.2.2 gives addresses");
        assert!(said(&proxy, &BTreeSet::new()).unwrap_err().starts_with("nobody gives"));
    }

    #[test]
    fn our_own_answers_are_nobody_elses() {
        let pool = network("eth1=192.0.2.10-192.0.2.20");

        assert!(said(&pool, &offer(US, true, None)).is_ok());
    }

    #[test]
    fn another_boot_file_is_wrong_beside_a_proxy_too() {
        let proxy = network("eth1=proxy");

        let refused = said(&proxy, &offer(THEM, true, Some("http://192.0.2.2/a.efi"))).unwrap_err();

        assert!(refused.contains("\"http://192.0.2.2/a.efi\" as well"), "{refused}");
    }

    #[test]
    fn a_proxy_dhcp_server_is_named() {
        let pool = network("eth1=192.0.2.10-192.0.2.20");

        assert!(said(&pool, &offer(THEM, false, None)).unwrap_err().contains("ProxyDHCP"));
    }

    #[test]
    fn a_router_without_the_m_flag_is_of_no_use() {
        let network = config::Network { advertise: false, ..network("eth1=fd77::10-fd77::20") };
        let address = "fe80::2".parse().unwrap();
        let of = |managed| BTreeSet::from([Router { address, managed }]);

        assert!(judge_routers(&network, &of(true), &[]).is_ok());
        assert!(
            judge_routers(&network, &of(false), &[]).unwrap_err().to_string().contains("M flag")
        );
        assert!(judge_routers(&network, &BTreeSet::new(), &[]).is_err());
    }

    #[test]
    fn a_name_that_firmware_cannot_look_up_is_found_before_it_is_told_it() {
        let boot =
            |text: &str| -> Boot { format!("[boot]\n{text}").parse::<Config>().unwrap().boot };
        let said = |settings: &str, dns: &[&str]| {
            let network = network("eth1=192.0.2.10-192.0.2.20,fd77::10-fd77::20");
            let dns = dns.iter().map(|server| server.parse().unwrap()).collect();
            let network = config::Network { dns, ..network };
            names(&boot(settings), &network).map(|found| found.map_err(|error| error.to_string()))
        };
        let named = "url = \"http://boot.example\"";
        let six = "url = \"http://192.0.2.1\"\nurl6 = \"http://boot.example\"";

        assert_eq!(said("url = \"http://192.0.2.1\"", &[]), None);
        assert!(said(named, &[]).unwrap().unwrap_err().contains("a name server over IPv4"));
        assert!(said(named, &["192.0.2.53"]).unwrap().unwrap_err().contains("over IPv6"));
        assert!(said(named, &["192.0.2.53", "fd77::53"]).unwrap().is_ok());
        assert!(said(six, &["192.0.2.53"]).unwrap().unwrap_err().contains("over IPv6"));
        assert!(names(&boot(named), &network("eth1=proxy")).is_none(), "the other server's");
    }

    #[test]
    fn a_pool_of_another_network_is_refused_and_one_with_our_address_is_not() {
        let addresses = ["192.0.2.1/24".parse().unwrap()];
        let said = |text| has(&network(text), &addresses).map_err(|error| error.to_string());

        assert_eq!(said("eth1=192.0.2.10-192.0.2.20").unwrap(), "192.0.2.1/24");
        assert!(
            said("eth1=198.51.100.1-198.51.100.9").unwrap_err().contains("is not in 192.0.2.0/24")
        );
        assert!(said("eth1=192.0.2.1-192.0.2.20").is_ok(), "it is kept back");
        assert!(said("eth1=fd77::1-fd77::2").unwrap_err().starts_with("no IPv6 address"));
    }
}
