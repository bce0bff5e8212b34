//! IPv6 on one link: the kernel forms addresses from router advertisements (RFC 4862); DHCPv6 provides one if a
//! router says so, or if there is no router.

mod socket;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, Result};
use dhcp::limits::Millis;
use dhcp::v6::advertisement::{Advertisement, solicitation};
use dhcp::v6::lease_client::{ClientLease, LeaseClient};
use hardware::Mac;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use self::socket::{RouterSocket, ServerSocket};
use super::gained::{Family, GainedSettings};
use super::kernel::{AddressState, KernelNetwork, Lifetime, NetworkSnapshot, set_ipv6};
use super::links::NetworkLink;

/// The pause after the first solicitation, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Number of unanswered solicitations after which a DHCPv6 server is searched for anyway.
const IN_VAIN: u32 = 2;

/// The requests to DHCPv6. They only ever increase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Asks {
    Nothing,
    Settings,
    Address,
}

/// Runs IPv6 until cancelled. Each change of addresses or name servers is reported.
///
/// # Errors
///
/// The link cannot be used.
pub(super) async fn run(
    kernel: KernelNetwork,
    link: NetworkLink,
    mut present: watch::Receiver<NetworkSnapshot>,
    tell: mpsc::Sender<GainedSettings>,
) -> Result<Infallible> {
    // An earlier agent may have changed these settings.
    for (setting, value) in [("disable_ipv6", "0"), ("accept_ra", "1"), ("autoconf", "1")] {
        set_ipv6(&link.name, setting, value);
    }
    // Nothing can be sent without a link-local address.
    let ready = present.wait_for(|present| present.has_link_local(link.index)).await;
    drop(ready.context("the kernel sends no more events")?);
    let opening = || format!("opening a socket on {}", link.name);
    let (routers, servers) = (
        RouterSocket::open(&link).with_context(opening)?,
        ServerSocket::open(&link).with_context(opening)?,
    );
    let mut line = Line::new(kernel, link, tell);
    loop {
        let seen = present.borrow_and_update().clone();
        line.look(&seen).await;
        tokio::select! {
            changed = present.changed() => changed.context("the kernel sends no more events")?,
            () = sleep_until(line.solicit_at) => line.solicit(&routers).await,
            came = routers.receive() => {
                let (message, hops, from) = came.context("listening to routers")?;
                if let Ok(heard) = Advertisement::parse(&message, hops, from) {
                    line.hear(heard, from);
                }
            }
            () = sleep_until(line.wake()) => line.send(&servers).await,
            came = servers.receive() => {
                line.receive(&came.context("listening to DHCPv6 servers")?).await?;
            }
        }
    }
}

/// A link, and the state of its network.
struct Line {
    kernel: KernelNetwork,
    link: NetworkLink,
    tell: mpsc::Sender<GainedSettings>,
    clock: Instant,
    solicit_at: Instant,
    solicited: u32,
    heard: Option<Advertisement>,
    asks: Asks,
    client: Option<LeaseClient>,
    given: Option<Ipv6Addr>,
    last: (BTreeSet<Ipv6Addr>, Vec<Ipv6Addr>, Vec<Ipv6Addr>),
}

impl Line {
    fn new(kernel: KernelNetwork, link: NetworkLink, tell: mpsc::Sender<GainedSettings>) -> Self {
        let clock = Instant::now();
        Self {
            kernel,
            link,
            tell,
            clock,
            solicit_at: clock,
            solicited: 0,
            heard: None,
            asks: Asks::Nothing,
            client: None,
            given: None,
            last: Default::default(),
        }
    }

    fn now(&self) -> Millis {
        u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Reports changes, and declines an address that another host has.
    async fn look(&mut self, present: &NetworkSnapshot) {
        let (index, now) = (self.link.index, self.now());
        let doubtful = self.given.filter(|given| {
            present.state(index, IpAddr::V6(*given)) == Some(AddressState::Duplicate)
        });
        if let (Some(taken), Some(client)) = (doubtful, &mut self.client) {
            warn!("another host on {} has {taken}: requesting another address", self.link.name);
            client.decline(now);
            self.take_away(taken).await;
            self.given = None;
        }
        let addresses: BTreeSet<_> = addresses(present, index).collect();
        let found = (addresses, self.name_servers(), self.time_servers());
        if found == self.last || found.0.is_empty() {
            return;
        }
        for address in found.0.difference(&self.last.0) {
            info!("{} has address {address}", self.link.name);
        }
        let [dns, ntp] =
            [&found.1, &found.2].map(|all| all.iter().copied().map(IpAddr::V6).collect());
        let gained = GainedSettings { link: self.link.clone(), family: Family::V6, dns, ntp };
        // The receiver is gone only when the agent ends.
        let _ = self.tell.send(gained).await;
        self.last = found;
    }

    /// The name servers of routers and of DHCPv6.
    fn name_servers(&self) -> Vec<Ipv6Addr> {
        let advertised = self.heard.iter().flat_map(|heard| &heard.dns);
        let advertised = advertised.filter(|server| server.secs > 0).map(|server| server.address);
        let told = self.client.as_ref().and_then(LeaseClient::name_servers);
        advertised.chain(told.unwrap_or_default().iter().copied()).collect()
    }

    /// The time servers. Link-local ones are left out: the receiver could not tell their link.
    fn time_servers(&self) -> Vec<Ipv6Addr> {
        let told = self.client.as_ref().and_then(LeaseClient::time_servers).unwrap_or_default();
        told.iter().filter(|server| !server.is_unicast_link_local()).copied().collect()
    }

    async fn solicit(&mut self, routers: &RouterSocket) {
        if self.solicited >= IN_VAIN {
            self.ask(asks(None, self.solicited));
        }
        // A link that is coming up may refuse; the solicitation is repeated.
        let _ = routers.send(&solicitation(Some(self.link.mac)), &self.link).await;
        let pause = FIRST_PAUSE.saturating_mul(1 << self.solicited.min(6)).min(LONGEST_PAUSE);
        self.solicited += 1;
        self.solicit_at = Instant::now() + pause;
    }

    fn hear(&mut self, heard: Advertisement, from: Ipv6Addr) {
        if self.heard.as_ref() != Some(&heard) {
            let Advertisement { managed, other, .. } = heard;
            debug!("{from} advertises on {}: M {managed}, O {other}", self.link.name);
        }
        // From now on routers send unsolicited advertisements, often enough to renew their lifetimes.
        self.solicit_at = Instant::now() + Duration::from_secs(365 * 86_400);
        self.ask(asks(Some(&heard), self.solicited));
        self.heard = Some(heard);
    }

    fn ask(&mut self, asks: Asks) {
        if asks <= self.asks {
            return;
        }
        self.asks = asks;
        let (mac, random, now) = (self.link.mac, rand::random(), self.now());
        // DUID-LL (RFC 8415 §11.4), the same at every boot.
        let duid = [&[0, 3, 0, 1][..], &mac.0].concat();
        self.client = match asks {
            Asks::Nothing => None,
            Asks::Settings => Some(LeaseClient::for_settings(duid, random, now)),
            Asks::Address => {
                info!("asking for an IPv6 address on {}", self.link.name);
                let Mac([_, _, association @ ..]) = mac;
                Some(LeaseClient::new(duid, u32::from_be_bytes(association), random, now))
            }
        };
    }

    /// The time of the DHCPv6 client's next message.
    fn wake(&self) -> Instant {
        const NEVER: Millis = 365 * 86_400_000;
        let wake = self.client.as_ref().map_or(NEVER, LeaseClient::wake);
        self.clock + Duration::from_millis(wake.min(self.now() + NEVER))
    }

    async fn send(&mut self, servers: &ServerSocket) {
        let now = self.now();
        let due = self.client.as_mut().and_then(|client| client.due(rand::random(), now));
        if let Some(message) = due {
            // As with solicitations.
            let _ = servers.send(&message, &self.link).await;
        }
    }

    async fn receive(&mut self, message: &[u8]) -> Result<()> {
        let now = self.now();
        let Some(client) = &mut self.client else { return Ok(()) };
        if !client.receive(message, now) {
            return Ok(());
        }
        let Some(lease) = client.lease().cloned() else { return Ok(()) };
        let ClientLease { address, preferred_secs, valid_secs, .. } = lease;
        let (index, prefix) = (self.link.index, prefix(self.heard.as_ref()));
        // Added again at each renewal, since the kernel removes an address that is not renewed.
        let lifetime = Lifetime { preferred_secs, valid_secs };
        let given = self.kernel.add_address(index, address.into(), prefix, lifetime).await;
        given.with_context(|| format!("giving {} its address", self.link.name))?;
        if let Some(before) = self.given.replace(address).filter(|before| *before != address) {
            self.take_away(before).await;
        }
        Ok(())
    }

    async fn take_away(&self, address: Ipv6Addr) {
        if let Err(error) = self.kernel.remove_address(self.link.index, address.into()).await {
            warn!("{} keeps {address}: {error:#}", self.link.name);
        }
    }
}

/// RFC 4861 §4.2. Without a router the firmware must have had its address from some DHCPv6 server, too.
fn asks(heard: Option<&Advertisement>, solicited: u32) -> Asks {
    match heard {
        Some(heard) if heard.managed => Asks::Address,
        Some(heard) if heard.other => Asks::Settings,
        None if solicited >= IN_VAIN => Asks::Address,
        Some(_) | None => Asks::Nothing,
    }
}

/// A DHCPv6 address has no prefix length; routers advertise it. Without a router, EDK2 assumes /64 (`Ip6SetAddress`).
fn prefix(heard: Option<&Advertisement>) -> u8 {
    heard.map_or(64, |_| 128)
}

/// The addresses that other networks can reach.
fn addresses(present: &NetworkSnapshot, index: u32) -> impl Iterator<Item = Ipv6Addr> {
    let v6 = |address| if let IpAddr::V6(address) = address { Some(address) } else { None };
    present.reachable(index).filter_map(v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dhcpv6_is_asked_for_what_the_router_says_and_for_all_where_there_is_no_router() {
        let heard = |managed, other| {
            let advertisement = Advertisement {
                managed,
                other,
                router_secs: 0,
                mac: None,
                mtu: None,
                prefixes: Vec::new(),
                dns: Vec::new(),
                search: Vec::new(),
            };
            asks(Some(&advertisement), 1)
        };

        assert_eq!(heard(true, true), Asks::Address);
        assert_eq!(heard(false, true), Asks::Settings);
        assert_eq!(heard(false, false), Asks::Nothing);
        assert_eq!(
            [0, 1, 2].map(|solicited| asks(None, solicited)),
            [Asks::Nothing, Asks::Nothing, Asks::Address]
        );
    }
}
