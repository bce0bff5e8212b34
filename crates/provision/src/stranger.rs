//! Machines that ask for a boot though none of theirs is under way: one of them may be the machine of which nothing is heard,
//! with another MAC address than its port says. Most often nobody registered it; or two nodes have each other's ports.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use hardware::{ClientKind, Mac};

/// Of more than this many, the rest is only counted.
const MOST_NAMED: usize = 3;
/// How much earlier than the BMC's answer to the power-on a machine may already ask.
const BMC_ANSWERS_LATE: SignedDuration = SignedDuration::from_secs(3);

/// A machine that asked to boot over the network, and is no port of any node, or of one that is not to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootingStranger {
    /// Its MAC address.
    pub mac: Mac,
    /// The node whose port has this address, by its name or UUID; `None` for a stranger.
    pub port_of: Option<String>,
    /// As which client it asked.
    pub client: ClientKind,
    /// The network interface on which it was heard.
    pub interface: String,
    /// When it began to ask, after it had not been heard for a while, or never.
    pub since: Timestamp,
    /// When it was last heard.
    pub last: Timestamp,
}

/// What is known of the network around a machine of which nothing is heard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vicinity<'a> {
    /// The addresses of its node's ports.
    pub ports: &'a [Mac],
    /// Who asked for a boot that none was meant for.
    pub strangers: &'a [BootingStranger],
}

/// A stranger that may be the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate<'a> {
    stranger: &'a BootingStranger,
    /// The port whose address it would be, but for a slip.
    meant: Option<Mac>,
    /// How long after the power-on it began to ask.
    after: SignedDuration,
}

/// Those that may be the machine, the likeliest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Candidates<'a>(Vec<Candidate<'a>>);

impl<'a> Vicinity<'a> {
    /// Those that began to ask after the machine was switched on; and one whose address is nearly that of a port, if it
    /// was heard since.
    pub(crate) fn candidates(self, powered_on: Timestamp, now: Timestamp) -> Candidates<'a> {
        let candidate = |stranger: &'a BootingStranger| {
            // Those of a rack are often numbered one after the other.
            let is_port = stranger.port_of.is_some();
            let is_slip = |port: &Mac| !is_port && stranger.mac.is_slip_of(*port);
            let meant = self.ports.iter().copied().find(is_slip);
            let after = stranger.since.duration_since(powered_on).max(SignedDuration::ZERO);
            let from = powered_on - BMC_ANSWERS_LATE;
            let began = if meant.is_some() { stranger.last } else { stranger.since };
            (from <= began && stranger.since <= now).then_some(Candidate { stranger, meant, after })
        };
        let mut all: Vec<_> = self.strangers.iter().filter_map(candidate).collect();
        all.sort_by_key(|Candidate { stranger, meant, after }| {
            (meant.is_none(), stranger.port_of.is_some(), *after, stranger.mac)
        });
        Candidates(all)
    }
}

impl Candidates<'_> {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address is so much like a port's that it is hardly another machine's.
    pub(crate) fn is_a_slip(&self) -> bool {
        self.0.first().is_some_and(|first| first.meant.is_some())
    }

    /// The address that the port should have, if there is but one that it can be.
    pub(crate) fn likeliest(&self) -> Option<Mac> {
        match &self.0[..] {
            [first] => Some(first.stranger.mac),
            [first, second, ..] if first.meant.is_some() && second.meant.is_none() => {
                Some(first.stranger.mac)
            }
            _ => None,
        }
    }
}

/// `52:54:00:aa:bb:02, no port of any node, asked for HTTP boot on br0 3 s after power-on: is that this machine?`
impl fmt::Display for Candidates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (named, more) = self.0.split_at(self.0.len().min(MOST_NAMED));
        for (at, candidate) in named.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{candidate}")?;
        }
        match (more.len(), named.len()) {
            (0, 0 | 1) => f.write_str(": is that this machine?"),
            (0, _) => f.write_str(": is one of them this machine?"),
            (more, _) => write!(f, "; and {more} more: is one of them this machine?"),
        }
    }
}

impl fmt::Display for Candidate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BootingStranger { mac, port_of, client, interface, .. } = self.stranger;
        match (port_of, self.meant) {
            (Some(node), _) => write!(f, "{mac}, a port of node {node}, which is not to boot, ")?,
            (None, Some(meant)) => write!(f, "{mac}, no port of any node but nearly {meant}, ")?,
            (None, None) => write!(f, "{mac}, no port of any node, ")?,
        }
        let wish = match client {
            ClientKind::HttpClient => "HTTP boot",
            ClientKind::PxeClient => "PXE boot",
            ClientKind::Ipxe => "a script as iPXE",
            ClientKind::Grub | ClientKind::Agent | ClientKind::Firmware | ClientKind::System => {
                "an address"
            }
        };
        write!(f, "asked for {wish} on {interface} {} s after power-on", self.after.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 1]);
    const OTHER: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    const NEARLY: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 2]);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn stranger(mac: Mac, since: i64, last: i64) -> BootingStranger {
        let (client, interface) = (ClientKind::HttpClient, "br0".to_owned());
        let (since, last) = (at(since), at(last));
        BootingStranger { mac, port_of: None, client, interface, since, last }
    }

    /// What is asked of a machine that was switched on at 0 and is waited for until 60.
    fn asked(strangers: &[BootingStranger]) -> String {
        let vicinity = Vicinity { ports: &[PORT], strangers };
        vicinity.candidates(at(0), at(60)).to_string()
    }

    #[test]
    fn who_began_to_ask_after_the_machine_was_switched_on_may_be_that_machine() {
        let said = asked(&[stranger(OTHER, 3, 50), stranger(Mac([2; 6]), -500, 50)]);

        assert_eq!(
            said,
            "52:54:00:12:34:56, no port of any node, asked for HTTP boot on br0 3 s after power-on: is that this \
             machine?"
        );
    }

    #[test]
    fn an_address_that_is_nearly_a_ports_comes_first_even_if_it_asked_before() {
        let vicinity = [stranger(OTHER, 3, 50), stranger(NEARLY, -20, 50)];
        let found = Vicinity { ports: &[PORT], strangers: &vicinity }.candidates(at(0), at(60));

        assert!(
            found
                .to_string()
                .starts_with("52:54:00:aa:bb:02, no port of any node but nearly 52:54:00:aa:bb:01")
        );
        assert_eq!((found.is_a_slip(), found.likeliest()), (true, Some(NEARLY)));
        let gone = [stranger(NEARLY, -50, -20)];
        assert!(Vicinity { ports: &[PORT], strangers: &gone }.candidates(at(0), at(60)).is_empty());
    }

    #[test]
    fn a_port_of_another_node_that_is_not_to_boot_is_asked_about_after_strangers() {
        let port_of = Some("rack-08".to_owned());
        let other = BootingStranger { port_of, ..stranger(NEARLY, 2, 50) };

        let alone = asked(std::slice::from_ref(&other));
        let both = asked(&[other, stranger(OTHER, 3, 50)]);

        assert_eq!(
            alone,
            "52:54:00:aa:bb:02, a port of node rack-08, which is not to boot, asked for HTTP boot on br0 2 s after \
             power-on: is that this machine?"
        );
        assert!(both.starts_with("52:54:00:12:34:56, no port"), "{both}");
    }

    #[test]
    fn of_many_a_few_are_named_and_the_others_counted() {
        let many: Vec<_> =
            (1..=5).map(|last| stranger(Mac([2, 9, 9, 9, 9, last]), last.into(), 50)).collect();

        let said = asked(&many);

        assert_eq!(said.matches("no port of any node").count(), 3);
        assert!(said.ends_with("; and 2 more: is one of them this machine?"), "{said}");
    }
}
