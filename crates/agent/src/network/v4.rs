//! IPv4 on one link: leases an address by DHCP, configures the link, and renews the lease.

mod arp;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use dhcp::v4::lease_client::{ClientLease, LeaseClient};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::gained::{Family, GainedSettings};
use super::kernel::{KernelNetwork, KernelRoute, Lifetime};
use super::links::NetworkLink;

const SERVERS: (Ipv4Addr, u16) = (Ipv4Addr::BROADCAST, 67);

/// Number of declined addresses. More conflicts mean that one host answers for all addresses (proxy ARP), and the
/// server is right.
const MOST_DECLINED: u32 = 3;

/// Leases an address and renews it until cancelled. Each lease that differs from the previous one is reported.
///
/// # Errors
///
/// The link cannot be used.
pub(super) async fn run(
    kernel: KernelNetwork,
    link: NetworkLink,
    tell: mpsc::Sender<GainedSettings>,
) -> Result<Infallible> {
    let name = &link.name;
    let socket = socket(name).with_context(|| format!("opening a socket on {name}"))?;
    let clock = Instant::now();
    let mut client = LeaseClient::new(link.mac, rand::random(), 0);
    let (mut last, mut declined) = (None, 0);
    loop {
        let lease = exchange(&mut client, &socket, clock).await?;
        if last.as_ref() == Some(&lease) {
            // The kernel removes an address that is not renewed.
            configure(&kernel, &link, &lease).await?;
            continue;
        }
        let is_new = last.as_ref().is_none_or(|last: &ClientLease| last.address != lease.address);
        if is_new && declined < MOST_DECLINED && is_taken(&link, lease.address).await {
            declined += 1;
            if let Some(decline) = client.decline(millis(clock)) {
                // It is sent once; a server that does not receive it can detect the conflict itself.
                let _ = socket.send_to(&decline, SERVERS).await;
            }
            continue;
        }
        configure(&kernel, &link, &lease).await?;
        info!("{name} has address {}/{} from {}", lease.address, lease.prefix, lease.server);
        let before = last.as_ref().map(|last: &ClientLease| last.address);
        if let Some(before) = before.filter(|before| *before != lease.address) {
            let removed = kernel.remove_address(link.index, before.into()).await;
            removed.with_context(|| format!("taking {before} from {name}"))?;
        }
        // The receiver is gone only when the agent ends.
        let _ = tell.send(gained(&link, &lease)).await;
        last = Some(lease);
    }
}

async fn is_taken(link: &NetworkLink, address: Ipv4Addr) -> bool {
    match arp::is_taken(link, address).await {
        Ok(true) => {
            warn!("another host on {} has {address}: requesting another address", link.name);
            true
        }
        Ok(false) => false,
        Err(error) => {
            debug!(
                "the check whether another host on {} has {address} failed: {error:#}",
                link.name
            );
            false
        }
    }
}

fn gained(link: &NetworkLink, lease: &ClientLease) -> GainedSettings {
    let any = |addresses: &[Ipv4Addr]| addresses.iter().copied().map(Into::into).collect();
    GainedSettings {
        link: link.clone(),
        family: Family::V4,
        dns: any(&lease.dns),
        ntp: any(&lease.ntp),
    }
}

/// Sends and receives until there is a new lease.
async fn exchange(
    client: &mut LeaseClient,
    socket: &UdpSocket,
    clock: Instant,
) -> Result<ClientLease> {
    let now = || millis(clock);
    let mut packet = vec![0; 1500];
    loop {
        tokio::select! {
            () = sleep_until(clock + Duration::from_millis(client.wake())) => {
                let server = client.server(now());
                if let Some(packet) = client.due(now()) {
                    // A link that is coming up may refuse; the client retransmits.
                    let _ = socket.send_to(&packet, (server, SERVERS.1)).await;
                }
            }
            received = socket.recv(&mut packet) => {
                let len = received.context("receiving")?;
                if client.receive(&packet[..len], now()) && let Some(lease) = client.lease() {
                    return Ok(lease.clone());
                }
            }
        }
    }
}

fn millis(clock: Instant) -> u64 {
    u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn socket(link: &str) -> Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(link.as_bytes()))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 68)).into())?;
    Ok(UdpSocket::from_std(socket.into())?)
}

/// Configures the link from the lease: MTU, address, routes.
async fn configure(kernel: &KernelNetwork, link: &NetworkLink, lease: &ClientLease) -> Result<()> {
    let NetworkLink { name, index, .. } = link;
    let ClientLease { address, prefix, secs, .. } = lease;
    if let Some(mtu) = lease.mtu
        && let Err(error) = kernel.set_mtu(*index, mtu).await
    {
        warn!("{name} keeps its MTU, it does not take {mtu}: {error:#}");
    }
    // An earlier agent may have left the same address.
    let lifetime = Lifetime { preferred_secs: *secs, valid_secs: *secs };
    let given = kernel.add_address(*index, (*address).into(), *prefix, lifetime).await;
    given.with_context(|| format!("giving {name} its address"))?;
    for route in routes(lease) {
        let added = kernel.add_route(*index, route).await;
        added.with_context(|| format!("adding the route to {}/{}", route.to, route.prefix))?;
    }
    Ok(())
}

/// RFC 3442: classless routes replace the router option.
fn routes(lease: &ClientLease) -> Vec<KernelRoute> {
    // A router of 0.0.0.0 means that the destination is on the link.
    let through = |router: Ipv4Addr| Some(router).filter(|router| !router.is_unspecified());
    let route = |(to, prefix, router)| KernelRoute { to, prefix, router: through(router) };
    let default = lease.router.map(|router| (Ipv4Addr::UNSPECIFIED, 0, router));
    match &lease.routes[..] {
        [] => default.into_iter().map(route).collect(),
        routes => routes.iter().copied().map(route).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classless_routes_replace_the_router() {
        let router = Ipv4Addr::new(10, 0, 0, 1);
        let other = (Ipv4Addr::new(10, 9, 0, 0), 16, Ipv4Addr::UNSPECIFIED);
        let lease = |routes| ClientLease {
            address: Ipv4Addr::new(10, 0, 0, 5),
            prefix: 24,
            router: Some(router),
            routes,
            dns: Vec::new(),
            ntp: Vec::new(),
            mtu: None,
            server: router,
            secs: 600,
            renew_secs: 300,
            rebind_secs: 525,
        };

        let default = KernelRoute { to: Ipv4Addr::UNSPECIFIED, prefix: 0, router: Some(router) };
        assert_eq!(routes(&lease(vec![])), [default]);
        let on_link = KernelRoute { to: other.0, prefix: 16, router: None };
        assert_eq!(routes(&lease(vec![other])), [on_link]);
    }
}
