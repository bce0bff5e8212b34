//! Requests machines' boot URLs, with a time limit.

use std::collections::BTreeSet;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, anyhow};
use futures::future::join_all;
use http::StatusCode;
use netboot::network_check::boot_url::{CheckedUrl, FetchFailure, UrlHost};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use tokio::time::timeout;
use transport::host_addresses::host_addresses;

use crate::dhcp::probe::names;

/// Time limit for an answer; name resolution takes at most two seconds before that.
const PATIENCE: Duration = Duration::from_secs(3);
/// Number of bytes of an answer to read.
const ENOUGH: usize = 1_024;

/// Checks that machines reach the URL.
///
/// # Errors
/// The reason why not.
pub(super) async fn reached(checked: &CheckedUrl<'_>) -> Result<String> {
    if let Some(why) = checked.why_not_fetched() {
        return Ok(why);
    }
    let at = addresses(checked).await?;
    let own = host_addresses();
    let is_own = at.iter().all(|address| own.contains(address));
    if is_own {
        checked.expect_listening(&at)?;
    }
    let interface = checked.network.interface.as_str();
    match fetch(checked, &at, (!is_own).then_some(interface)).await {
        Ok((status, text)) => Ok(checked.judge(status, &text)?),
        Err(error) if is_own && refused(&error) => Ok(checked.judge_silence()?),
        Err(error) if error.is_timeout() => {
            Err(checked.fault(&at, FetchFailure::Timeout(PATIENCE.as_secs())).into())
        }
        Err(error) => Err(checked.fault(&at, FetchFailure::Connection(chain(&error))).into()),
    }
}

/// The addresses of the URL's host, as machines resolve it.
async fn addresses(checked: &CheckedUrl<'_>) -> Result<BTreeSet<IpAddr>> {
    let (name, servers) = match checked.host()? {
        UrlHost::Address(address) => return Ok([address].into()),
        UrlHost::Name(name, servers) => (name, servers),
    };
    let own = host_addresses();
    let asked = join_all(servers.iter().map(|server| {
        let interface = checked.network.interface.as_str();
        names::addresses(name, *server, (!own.contains(server)).then_some(interface))
    }));
    let mut found = BTreeSet::new();
    for (server, answer) in servers.iter().zip(asked.await) {
        found.extend(answer.map_err(|why| {
            let url = checked.url();
            anyhow!(
                "the name server {server} {why:#}, so machines do not find {name} of {url}: let it know the name, \
                 or set dns to one that does"
            )
        })?);
    }
    Ok(found)
}

async fn fetch(
    checked: &CheckedUrl<'_>,
    at: &BTreeSet<IpAddr>,
    interface: Option<&str>,
) -> Result<(StatusCode, String), reqwest::Error> {
    // reqwest panics if the process has no crypto provider; an error means that it has one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .timeout(PATIENCE)
        .user_agent(concat!("ferroboot/", env!("CARGO_PKG_VERSION")));
    // Only what answers is of interest at this host's own listener, whose CA the host itself may not trust.
    let is_own = interface.is_none();
    client = client.danger_accept_invalid_certs(is_own);
    if let Some(name) = checked.url().domain() {
        let at: Vec<_> = at.iter().map(|address| SocketAddr::new(*address, 0)).collect();
        client = client.resolve_to_addrs(name, &at);
    }
    // A connection to this host itself uses no interface.
    if let Some(interface) = interface {
        client = client.interface(interface);
    }
    let response = client.build()?.get(checked.refused_file()).send().await?;
    Ok((response.status(), text(response).await))
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

fn refused(error: &reqwest::Error) -> bool {
    chain(error).contains("onnection refused")
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
    use netboot::ticket::TicketRefusal;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::Config;

    /// A configuration with a boot listener and a machines' URL.
    fn config(port: u16, url: &str) -> Config {
        format!(
            "[boot]\nlisten = \"[::]:{port}\"\n{url}\n[[dhcp.network]]\ninterface = \"lo\"\n\
             pool = \"127.0.0.10-127.0.0.20\""
        )
        .parse()
        .unwrap()
    }

    async fn said(config: &Config, is_running: bool) -> Result<String, String> {
        let (network, near) = (&config.dhcp.networks[0], "127.0.0.1/8".parse().unwrap());
        let (urls, listen) = (config.urls(None), config.boot.listen.of_urls(config.tls.only));
        let checked = CheckedUrl::new(&urls, network, near, listen, is_running).unwrap();
        reached(&checked).await.map_err(|error| format!("{error:#}"))
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

        let ours = said(&config(ours, ""), true).await;
        let page = said(&config(page, ""), true).await.unwrap_err();
        let down = said(&config(down, ""), true).await.unwrap_err();

        assert!(ours.unwrap().ends_with("answers"));
        assert!(page.starts_with("another program answers at"), "{page}");
        assert!(down.contains("answers 502 Bad Gateway"), "{down}");
    }

    #[tokio::test]
    async fn our_listener_may_be_silent_only_while_the_service_does_not_run() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let before = format!("url = \"https://127.0.0.1:{port}\"");

        assert!(said(&config(port, ""), false).await.unwrap().ends_with("once the service runs"));
        assert!(said(&config(port, ""), true).await.unwrap_err().starts_with("nothing answers"));
        let behind = said(&config(8080, &before), false).await.unwrap_err();
        assert!(behind.starts_with("nothing answers at https"), "{behind}");
    }

    #[tokio::test]
    async fn what_answers_nothing_is_not_waited_for_long() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();

        let refused = said(&config(port, ""), true).await.unwrap_err();

        assert!(refused.contains("no answer within 3 s"), "{refused}");
    }
}
