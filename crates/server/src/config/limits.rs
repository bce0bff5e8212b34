//! `[limits]`: limits of the API, the agent port and the boot listener.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Deserialize;
use transport::http_server::{BodyLimits, ConnectionLimits};

use super::addresses::AddressOrNetwork;

/// `[limits]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitConfig {
    /// Connections of all ports: half of them for the boot listener, a quarter for each other port. Fewer if the
    /// limit of open files is lower.
    pub connections: usize,
    /// The share in percent, for one peer, of the connections that a port serves at once (two thirds of its
    /// connections): an IPv4 address, an IPv6 /64, or a node whose machine has a valid ticket.
    pub peer_percent: u8,
    /// Addresses and networks of proxies and of NAT, which have no limit of their own.
    pub exempt: Vec<AddressOrNetwork>,
    /// Seconds until the first byte of a request.
    pub idle_secs: u32,
    /// Seconds from there until the end of its head.
    pub head_secs: u32,
    /// Seconds from there until the end of its body.
    pub body_secs: u32,
    /// Seconds without progress while a peer takes an answer.
    pub stall_secs: u32,
    /// Seconds without a successful answer on a connection.
    pub fruitless_secs: u32,
    /// Seconds for current answers when the service ends.
    pub end_secs: u32,
    /// Memory for the bodies of current requests on each port, in MiB.
    pub bodies_mib: u32,
    /// Memory for current answers of the API and of the agent port each, in MiB; at most a quarter for one peer,
    /// except for a single answer.
    pub answers_mib: u32,
}

impl Default for LimitConfig {
    fn default() -> Self {
        Self {
            connections: 4_096,
            peer_percent: 25,
            exempt: Vec::new(),
            idle_secs: 60,
            head_secs: 30,
            body_secs: 30,
            stall_secs: 60,
            fruitless_secs: 120,
            end_secs: 20,
            bodies_mib: 32,
            answers_mib: 64,
        }
    }
}

impl LimitConfig {
    /// The limits of a port with this share of connections, a third of which wait for a place. By default a storm of
    /// a thousand machines behind one address has room then: as many as one peer may have, and the others wait.
    #[must_use]
    pub fn of_port(&self, share: usize) -> ConnectionLimits {
        let waiting = share / 3;
        let connections = share - waiting;
        let secs = |secs: u32| Duration::from_secs(secs.into());
        ConnectionLimits {
            connections,
            waiting,
            per_peer: (connections * usize::from(self.peer_percent) / 100).max(1),
            exempt: self.exempt.iter().map(|AddressOrNetwork(net)| *net).collect(),
            idle: secs(self.idle_secs),
            head: secs(self.head_secs),
            body: secs(self.body_secs),
            stall: secs(self.stall_secs),
            fruitless: secs(self.fruitless_secs),
            end: secs(self.end_secs),
        }
    }

    /// The limits of bodies, with `each` as the length of one in bytes.
    #[must_use]
    pub fn of_bodies(&self, each: usize) -> BodyLimits {
        BodyLimits { each: each as u64, all: u64::from(self.bodies_mib) << 20 }
    }

    /// Memory for current answers, in bytes.
    #[must_use]
    pub fn answers(&self) -> u64 {
        u64::from(self.answers_mib) << 20
    }

    pub(super) fn check(&self) -> Result<()> {
        ensure!(
            (16..=1_000_000).contains(&self.connections),
            "limits.connections must be from 16 to 1000000"
        );
        ensure!(
            (1..=100).contains(&self.peer_percent),
            "limits.peer_percent must be from 1 to 100"
        );
        let all = [
            ("idle_secs", self.idle_secs),
            ("head_secs", self.head_secs),
            ("body_secs", self.body_secs),
            ("stall_secs", self.stall_secs),
            ("fruitless_secs", self.fruitless_secs),
            ("end_secs", self.end_secs),
        ];
        for (name, secs) in all {
            ensure!((1..=86_400).contains(&secs), "limits.{name} must be from 1 to 86400");
        }
        for (name, mib) in [("bodies_mib", self.bodies_mib), ("answers_mib", self.answers_mib)] {
            ensure!((2..=1 << 20).contains(&mib), "limits.{name} must be from 2 to 1048576");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::config::tests::refusal;

    #[test]
    fn limits_that_would_let_nobody_in_are_refused_in_words() {
        let text = "[limits]\nexempt = [\"192.0.2.1\", \"2001:db8::/32\"]\npeer_percent = 10";
        let limits = text.parse::<Config>().unwrap().limits.of_port(400);
        assert_eq!((limits.connections, limits.waiting, limits.per_peer), (267, 133, 26));
        assert_eq!(
            limits.exempt,
            ["192.0.2.1/32", "2001:db8::/32"].map(|net| net.parse().unwrap())
        );

        assert!(
            refusal("[limits]\nconnections = 0").contains("limits.connections must be from 16")
        );
        assert!(refusal("[limits]\npeer_percent = 0").contains("limits.peer_percent must be"));
        assert!(refusal("[limits]\nhead_secs = 0").contains("limits.head_secs must be from 1"));
        assert!(refusal("[limits]\nbodies_mib = 0").contains("limits.bodies_mib must be from 2"));
        assert!(refusal("[limits]\nexempt = [\"proxy\"]").contains("neither an address nor a net"));
    }
}
