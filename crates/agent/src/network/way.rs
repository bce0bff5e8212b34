//! Checks whether a link leads to Ironic's API, and from which local address.
//!
//! All addresses of the API are tried in parallel with a short delay (RFC 8305), so that an unreachable family costs
//! no time.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::debug;
use url::{Host, Url};

/// Delay before the next address is also tried (RFC 8305 §8).
const HEAD_START: Duration = Duration::from_millis(250);

/// Time limit for one address.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pause after the first failure, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// Retries until the API is reached, and returns the local address.
pub(super) async fn find(api: &Url, link: &str) -> IpAddr {
    let mut pause = FIRST_PAUSE;
    loop {
        match reach(api, link).await {
            Ok(own) => return own,
            Err(error) => debug!("{link} does not lead to {api} yet: {error}"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn reach(api: &Url, link: &str) -> io::Result<IpAddr> {
    let mut tries = JoinSet::new();
    let mut delay = Duration::ZERO;
    for address in addresses(api).await? {
        let link = link.to_owned();
        tries.spawn(async move {
            sleep(delay).await;
            timeout(PATIENCE, connect(address, &link)).await?
        });
        delay += HEAD_START;
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    while let Some(tried) = tries.join_next().await {
        match tried.map_err(io::Error::other).flatten() {
            Ok(stream) => match leads_back(stream.local_addr()?.ip(), stream.peer_addr()?.ip()) {
                true => return Ok(stream.local_addr()?.ip()),
                false => last = io::Error::other("from a link-local address alone"),
            },
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether Ironic can connect back. On a shared link, IPv6 uses the link-local address as long as duplicate address
/// detection runs for the other one; but that address is unusable without a link.
fn leads_back(own: IpAddr, api: IpAddr) -> bool {
    let link_local = |address| matches!(address, IpAddr::V6(it) if it.is_unicast_link_local());
    !link_local(own) || link_local(api)
}

async fn addresses(api: &Url) -> io::Result<Vec<SocketAddr>> {
    let port = api.port_or_known_default().unwrap_or(80);
    match api.host() {
        Some(Host::Ipv4(address)) => Ok(vec![(address, port).into()]),
        Some(Host::Ipv6(address)) => Ok(vec![(address, port).into()]),
        Some(Host::Domain(name)) => Ok(lookup_host((name, port)).await?.collect()),
        None => Ok(Vec::new()),
    }
}

async fn connect(to: SocketAddr, link: &str) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Another link may also have a route to the API.
    socket.bind_device(Some(link.as_bytes()))?;
    TcpSocket::from_std_stream(socket.into()).connect(to).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_local_address_is_none_to_be_called_back_at() {
        let can = |own: &str, api: &str| leads_back(own.parse().unwrap(), api.parse().unwrap());

        assert!(can("fd00::2", "fd00::1"));
        assert!(can("10.0.0.2", "10.0.0.1"));
        assert!(!can("fe80::2", "fd00::1"));
        assert!(can("fe80::2", "fe80::1"), "there is no other");
    }

    #[tokio::test]
    async fn an_address_in_the_url_needs_no_name_server() {
        for (url, address) in
            [("http://[fd00::1]:6385", "[fd00::1]:6385"), ("https://10.0.0.1", "10.0.0.1:443")]
        {
            let url: Url = url.parse().unwrap();
            assert_eq!(addresses(&url).await.unwrap(), [address.parse().unwrap()]);
        }
    }
}
