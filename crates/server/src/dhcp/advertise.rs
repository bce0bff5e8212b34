//! Router advertisements: in answer to solicitations, and periodically to all (RFC 4861 §6.2).

use std::fmt::Display;
use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};

use anyhow::Result;
use dhcp::v6::advertisement::{Advertisement, Prefix, is_solicitation};
use netboot::network_settings::NetworkSettings;
use netboot::router_advertisements::{
    MulticastSchedule, UnicastBudget, goodbye, router_advertisement,
};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::ipv6_link::Ipv6Link;
use super::socket::{self, Icmp6};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

#[derive(Debug)]
pub(super) struct Advertiser {
    link: Ipv6Link,
    socket: Icmp6,
    advertisement: Advertisement,
    /// Machines ignore advertisements from other than link-local addresses (RFC 4861 §6.1.2).
    source: Option<Ipv6Addr>,
    trouble: Trouble,
}

impl Advertiser {
    pub(super) fn open(link: &Ipv6Link, settings: &NetworkSettings) -> Result<Self> {
        let advertisement = router_advertisement(link.address, link.prefix_len, link.mac, settings);
        let socket = Icmp6::open(link)?;
        let (link, trouble) = (link.clone(), Trouble::default());
        Ok(Self { link, socket, advertisement, source: None, trouble })
    }

    pub(super) async fn run(mut self, end: &CancellationToken) {
        for Prefix { address, len, .. } in &self.advertisement.prefixes {
            info!("advertising {address}/{len} on {}", self.link.name);
        }
        let advertisement = self.advertisement.emit();
        let began = Instant::now();
        let (mut to_all, mut alone) = (MulticastSchedule::default(), UnicastBudget::default());
        loop {
            tokio::select! {
                () = sleep_until(began + to_all.next()) => match self.send(&advertisement, ALL_NODES).await {
                    true => to_all.sent(began.elapsed(), rand::random()),
                    false => to_all.failed(began.elapsed()),
                },
                came = self.socket.receive() => match came {
                    Ok((bytes, hops, from)) if is_solicitation(&bytes, hops, from) => {
                        debug!("{from} solicits on {}", self.link.name);
                        // The sender may have no address yet, or an invented one.
                        let now = began.elapsed();
                        let by_itself = !from.is_unspecified() && alone.admits(now);
                        if !by_itself || !self.send(&advertisement, from).await {
                            to_all.ask(now);
                        }
                    }
                    Ok(_) => {}
                    Err(error) => {
                        self.say(&error);
                        tokio::time::sleep(socket::AFTER_ERROR).await;
                    }
                },
                () = end.cancelled() => break,
            }
        }
        let goodbye = goodbye(self.advertisement.clone()).emit();
        self.send(&goodbye, ALL_NODES).await;
    }

    /// Sends an advertisement; returns whether it was sent.
    async fn send(&mut self, advertisement: &[u8], to: Ipv6Addr) -> bool {
        self.source = self.source.or_else(|| self.link.local());
        let Some(source) = self.source else {
            self.say(&"it has no link-local address that is ready");
            return false;
        };
        let to = SocketAddrV6::new(to, 0, 0, self.link.index);
        let sent: io::Result<()> = self.socket.send_from(advertisement, source, to).await;
        match &sent {
            Ok(()) => self.trouble.ends(),
            Err(error) if to.ip().is_multicast() => {
                // The source address may have changed.
                self.source = None;
                self.say(error);
            }
            // The sender of the solicitation determines the destination.
            Err(error) => debug!("cannot advertise to {to}: {error}"),
        }
        sent.is_ok()
    }

    fn say(&mut self, why: &dyn Display) {
        if self.trouble.begins() {
            warn!("cannot advertise on {} for now: {why}", self.link.name);
        }
    }
}

/// Whether a failure was logged already: a link may be down for days.
#[derive(Debug, Default)]
struct Trouble(bool);

impl Trouble {
    fn begins(&mut self) -> bool {
        !std::mem::replace(&mut self.0, true)
    }

    fn ends(&mut self) {
        self.0 = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_failing_is_said_once() {
        let mut trouble = Trouble::default();

        assert_eq!([trouble.begins(), trouble.begins()], [true, false]);
        trouble.ends();
        assert!(trouble.begins());
    }
}
