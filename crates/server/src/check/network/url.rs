//! Checks that machines can reach their boot URL, by a machine's request with a time limit.

use std::collections::BTreeSet;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use dhcp::v4::reply::LONGEST_URL;
use futures::future::join_all;
use hardware::CpuArch;
use http::StatusCode;
use ipnet::IpNet;
use netboot::network_settings::NetworkSettings;
use netboot::ticket::TicketRefusal;
use netboot::urls::IpFamily;
use provision::boot::Artifact;
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use tokio::time::timeout;
use transport::host_addresses::host_addresses;
use url::{Host, Url};

use crate::config::Config;
use crate::dhcp::probe::names;

/// Time limit for an answer; name resolution takes at most two seconds before that.
const PATIENCE: Duration = Duration::from_secs(3);
/// A ticket of the usual length that no node has.
const NOBODYS: &str = "ferroboot-check-network";
/// Number of bytes of an answer to read.
const ENOUGH: usize = 1_024;

/// The URL of one family's machines on a network.
#[derive(Clone, Copy, Debug)]
pub(super) struct FetchedUrl<'a> {
    pub(super) config: &'a Config,
    pub(super) network: &'a NetworkSettings,
    /// The service's address with its network.
    pub(super) near: IpNet,
    /// Whether the service is running.
    pub(super) is_running: bool,
}

/// Checks that machines reach it.
///
/// # Errors
/// The reason why not.
pub(super) async fn reached(told: FetchedUrl<'_>) -> Result<String> {
    let base = told.config.urls(None).fetched_from(told.near.addr());
    if told.near.addr().is_ipv4() {
        fits(&base)?;
    }
    let url = Url::parse(&base).with_context(|| format!("{base} is no URL"))?;
    if let Some(name) = url.domain()
        && told.network.proxy
        && told.near.addr().is_ipv4()
    {
        return Ok(format!(
            "{url} was not fetched: the other server says who knows the name {name}"
        ));
    }
    let at = addresses(&url, told).await?;
    let own = host_addresses();
    let is_own = at.iter().all(|address| own.contains(address));
    if is_own {
        expect_listening(&url, &at, told)?;
    }
    match fetch(&url, &at, (!is_own).then_some(told.network.interface.as_str())).await {
        Ok(answer) => judge(&url, &answer),
        Err(error) if is_own && refused(&error) => not_listening(&url, told),
        Err(error) => Err(in_words(&url, &at, &error, told)),
    }
}

/// Checks that firmware accepts URLs below this one over IPv4.
///
/// # Errors
/// They are too long.
pub(in crate::check) fn fits(base: &str) -> Result<()> {
    // Tickets are 16 bytes in base 64.
    let file = Artifact::boot_loader(CpuArch::X64).file_name();
    let len = base.trim_end_matches('/').len() + "/boot/".len() + 22 + 1 + file.len();
    ensure!(
        len <= LONGEST_URL,
        "URLs below {base} have {len} bytes, and firmware takes {LONGEST_URL} at most over IPv4: set a shorter \
         url in [boot]"
    );
    Ok(())
}

/// The addresses of the URL's host, as machines resolve it.
async fn addresses(url: &Url, told: FetchedUrl<'_>) -> Result<BTreeSet<IpAddr>> {
    let name = match url.host().context("the URL names no host")? {
        Host::Ipv4(address) => return Ok([address.into()].into()),
        Host::Ipv6(address) => return Ok([address.into()].into()),
        Host::Domain(name) => name,
    };
    let family = IpFamily::of(told.near.addr());
    let servers: Vec<_> =
        told.network.dns.iter().copied().filter(|server| IpFamily::of(*server) == family).collect();
    ensure!(
        !servers.is_empty(),
        "{url} has the name {name} in it, and machines here get no name server of {}: set dns",
        if family == IpFamily::V4 { "IPv4" } else { "IPv6" }
    );
    let own = host_addresses();
    let asked = join_all(servers.iter().map(|server| {
        let interface = told.network.interface.as_str();
        names::addresses(name, *server, (!own.contains(server)).then_some(interface))
    }));
    let mut found = BTreeSet::new();
    for (server, answer) in servers.iter().zip(asked.await) {
        found.extend(answer.map_err(|why| {
            anyhow!(
                "the name server {server} {why:#}, so machines do not find {name} of {url}: let it know the name, \
                 or set dns to one that does"
            )
        })?);
    }
    Ok(found)
}

/// Checks that the boot listener listens at the URL, if the URL is its port on this host.
fn expect_listening(url: &Url, at: &BTreeSet<IpAddr>, told: FetchedUrl<'_>) -> Result<()> {
    let listen = told.config.boot.listen;
    let is_elsewhere =
        |address: &&IpAddr| !listen.ip().is_unspecified() && **address != listen.ip();
    if url.port_or_known_default() == Some(listen.port())
        && let Some(address) = at.iter().find(is_elsewhere)
    {
        bail!(
            "machines get the URL {url}, but the boot listener is on {listen} alone, not on {address}: set listen \
             in [boot] to [::]:{}",
            listen.port()
        );
    }
    Ok(())
}

async fn fetch(
    url: &Url,
    at: &BTreeSet<IpAddr>,
    interface: Option<&str>,
) -> Result<UrlAnswer, reqwest::Error> {
    // reqwest panics if the process has no crypto provider; an error means that it has one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .timeout(PATIENCE)
        .user_agent(concat!("ferroboot/", env!("CARGO_PKG_VERSION")));
    if let Some(name) = url.domain() {
        let at: Vec<_> = at.iter().map(|address| SocketAddr::new(*address, 0)).collect();
        client = client.resolve_to_addrs(name, &at);
    }
    // A connection to this host itself uses no interface.
    if let Some(interface) = interface {
        client = client.interface(interface);
    }
    let base = url.as_str().trim_end_matches('/');
    let path = format!("{base}/boot/{NOBODYS}/{}", Artifact::IpxeScript.file_name());
    let response = client.build()?.get(path).send().await?;
    Ok(UrlAnswer { status: response.status(), text: text(response).await })
}

/// The beginning of the body, whose length is unknown.
async fn text(mut response: Response) -> String {
    let mut bytes = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await
            && bytes.len() < ENOUGH
        {
            bytes.extend(chunk);
        }
    };
    // A partial text suffices.
    timeout(PATIENCE, read).await.ok();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[derive(Clone, Debug)]
struct UrlAnswer {
    status: StatusCode,
    text: String,
}

/// Checks for the boot listener's answer to an unknown ticket.
fn judge(url: &Url, UrlAnswer { status, text }: &UrlAnswer) -> Result<String> {
    let says =
        |refusal: TicketRefusal| *status == refusal.status() && text.trim() == refusal.to_string();
    if says(TicketRefusal::UnknownTicket) {
        return Ok(format!("{url} answers"));
    }
    ensure!(
        !says(TicketRefusal::Elsewhere),
        "{url} leads to a boot listener with another path, so machines get no image: let the proxy \
         before it remove {} from the path",
        url.path()
    );
    ensure!(
        !status.is_server_error(),
        "{url} answers {status}, so machines get no image: check the service there, or the proxy \
         before it"
    );
    bail!(
        "another program answers at {url} ({status}), so machines get no image: stop it, or set listen \
         and url in [boot] to another port"
    )
}

fn not_listening(url: &Url, told: FetchedUrl<'_>) -> Result<String> {
    let listen = told.config.boot.listen;
    let is_listeners = url.scheme() == "http" && url.port_or_known_default() == Some(listen.port());
    match (is_listeners, told.is_running) {
        (true, false) => Ok(format!("{url}, once the service runs")),
        (true, true) => bail!(
            "nothing answers at {url}, although the service runs: was it started with other settings? restart it"
        ),
        (false, _) => bail!(
            "nothing answers at {url}, and the boot listener is on {listen}: start the proxy that forwards requests \
             to it, or set url in [boot]"
        ),
    }
}

fn refused(error: &reqwest::Error) -> bool {
    chain(error).contains("onnection refused")
}

fn in_words(
    url: &Url,
    at: &BTreeSet<IpAddr>,
    error: &reqwest::Error,
    told: FetchedUrl<'_>,
) -> anyhow::Error {
    let interface = &told.network.interface;
    let why = chain(error);
    if why.contains("certificate") {
        return anyhow!(
            "the certificate of {url} is not trusted by this host ({}); firmware has its own list of \
             authorities: put the one that signed it there, and into this host's to have it checked",
            why.rsplit(": ").next().unwrap_or_default()
        );
    }
    let is_far = !at.iter().any(|address| told.near.contains(address));
    // Machines use the network's router, but this host uses its own routing table.
    let router = told.network.router.filter(|_| is_far && told.near.addr().is_ipv4());
    let way = match router {
        Some(router) => format!("a route by {router} on this host, such as machines have"),
        None => "the way there (router, firewall)".to_owned(),
    };
    let why = match error.is_timeout() {
        true => format!("no answer within {} s", PATIENCE.as_secs()),
        false => why,
    };
    anyhow!(
        "{url} cannot be reached from {interface} ({why}), so machines get nothing to boot: look at {way}, and \
         at the service there"
    )
}

/// The causes, innermost last, without the first, which repeats the URL.
fn chain(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    causes.join(": ")
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn told<'a>(config: &'a Config, is_running: bool) -> FetchedUrl<'a> {
        FetchedUrl {
            config,
            network: &config.dhcp.networks[0],
            near: "127.0.0.1/8".parse().unwrap(),
            is_running,
        }
    }

    /// A configuration with a boot listener, a machines' URL, and name servers.
    fn config(port: u16, url: &str, more: &str) -> Config {
        format!(
            "[boot]\nlisten = \"[::]:{port}\"\n{url}\n[[dhcp.network]]\ninterface = \"lo\"\n\
             pool = \"127.0.0.10-127.0.0.20\"\n{more}"
        )
        .parse()
        .unwrap()
    }

    async fn said(config: &Config, is_running: bool) -> Result<String, String> {
        reached(told(config, is_running)).await.map_err(|error| format!("{error:#}"))
    }

    /// A server with this constant answer; returns its port.
    async fn answers(answer: String) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(stream.read(&mut [0; 1_000]).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        port
    }

    fn with(status: &str, body: &str) -> String {
        let len = body.len();
        format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}")
    }

    #[tokio::test]
    async fn our_boot_listener_is_told_from_others() {
        let unknown = format!("{}\n", TicketRefusal::UnknownTicket);
        let ours = answers(with("404 Not Found", &unknown)).await;
        let page = answers(with("200 OK", "hi")).await;
        let down = answers(with("502 Bad Gateway", "")).await;

        let ours = said(&config(ours, "", ""), true).await;
        let page = said(&config(page, "", ""), true).await.unwrap_err();
        let down = said(&config(down, "", ""), true).await.unwrap_err();

        assert!(ours.unwrap().ends_with("answers"));
        assert!(page.starts_with("another program answers at"), "{page}");
        assert!(down.contains("answers 502 Bad Gateway"), "{down}");
    }

    #[tokio::test]
    async fn our_listener_may_be_silent_only_while_the_service_does_not_run() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let before = format!("url = \"https://127.0.0.1:{port}\"");

        assert!(
            said(&config(port, "", ""), false).await.unwrap().ends_with("once the service runs")
        );
        assert!(
            said(&config(port, "", ""), true).await.unwrap_err().starts_with("nothing answers")
        );
        let behind = said(&config(8080, &before, ""), false).await.unwrap_err();
        assert!(behind.starts_with("nothing answers at https"), "{behind}");
    }

    #[tokio::test]
    async fn a_listener_on_another_address_is_named() {
        let elsewhere = Config {
            boot: crate::config::BootConfig {
                listen: "127.0.0.9:8080".parse().unwrap(),
                ..crate::config::BootConfig::default()
            },
            ..config(8080, "", "")
        };

        let refused = said(&elsewhere, false).await.unwrap_err();

        assert!(refused.contains("is on 127.0.0.9:8080 alone, not on 127.0.0.1"), "{refused}");
    }

    #[tokio::test]
    async fn a_name_without_a_name_server_and_a_url_that_is_too_long_are_wrong() {
        let name = config(8080, "url = \"http://boot.example\"", "");
        let long = config(8080, &format!("url = \"http://192.0.2.1/{}\"", "a".repeat(230)), "");

        assert!(said(&name, false).await.unwrap_err().contains("no name server of IPv4: set dns"));
        assert!(said(&long, false).await.unwrap_err().contains("firmware takes 254 at most"));
    }

    #[tokio::test]
    async fn what_answers_nothing_is_not_waited_for_long() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();

        let refused = said(&config(port, "", ""), true).await.unwrap_err();

        assert!(refused.contains("no answer within 3 s"), "{refused}");
    }
}
