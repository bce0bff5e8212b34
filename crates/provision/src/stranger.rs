//! Strangers: machines that request a boot although none of theirs is under way. One of them may be the silent
//! machine, with another MAC address than its port. Most often it is not registered, or two nodes have each other's
//! ports.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use hardware::{ClientKind, Mac};

/// Number of strangers to name; further ones are only counted.
const MOST_NAMED: usize = 3;
/// Time by which a machine's first request may precede the BMC's answer to the power-on.
const BMC_ANSWERS_LATE: SignedDuration = SignedDuration::from_secs(3);

/// A machine that requested a network boot and is not a port of any node, or of a node that is not to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootingStranger {
    /// Its MAC address.
    pub mac: Mac,
    /// The node of this MAC address, by name or UUID; `None` for a stranger.
    pub port_of: Option<String>,
    /// The kind of client.
    pub client: ClientKind,
    /// The network interface that received the request.
    pub interface: String,
    /// The time of its first request, or of the first one after a longer silence.
    pub since: Timestamp,
    /// The time of its last request.
    pub last: Timestamp,
}

/// What is known of a machine beside the trace of its boot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vicinity<'a> {
    /// The MAC addresses of its node's ports.
    pub ports: &'a [Mac],
    /// The machines whose boot requests had no answer.
    pub strangers: &'a [BootingStranger],
    /// Whether its BMC last showed Secure Boot enabled.
    pub secure_boot: Option<bool>,
}

/// A stranger that may be the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate<'a> {
    stranger: &'a BootingStranger,
    /// The port whose MAC address differs from this one only by a typing error.
    meant: Option<Mac>,
    /// Time from the power-on to its first request.
    after: SignedDuration,
}

/// The strangers that may be the machine, likeliest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Candidates<'a>(Vec<Candidate<'a>>);

impl<'a> Vicinity<'a> {
    /// The strangers whose first request followed the power-on, and those whose MAC address resembles a port's and
    /// that sent any request since then.
    pub(crate) fn candidates(self, powered_on: Timestamp, now: Timestamp) -> Candidates<'a> {
        let candidate = |stranger: &'a BootingStranger| {
            // MAC addresses within a rack are often consecutive, so a registered port's similarity means nothing.
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
    /// Whether the list is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a MAC address resembles a port's so much that it is hardly another machine's.
    pub(crate) fn is_a_slip(&self) -> bool {
        self.0.first().is_some_and(|first| first.meant.is_some())
    }

    /// The correct MAC address of the port, if there is only one possibility.
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

    /// The question about a machine that was switched on at 0 and is awaited until 60.
    fn asked(strangers: &[BootingStranger]) -> String {
        let vicinity = Vicinity { ports: &[PORT], strangers, secure_boot: None };
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
        let found = Vicinity { ports: &[PORT], strangers: &vicinity, secure_boot: None }
            .candidates(at(0), at(60));

        assert!(
            found
                .to_string()
                .starts_with("52:54:00:aa:bb:02, no port of any node but nearly 52:54:00:aa:bb:01")
        );
        assert_eq!((found.is_a_slip(), found.likeliest()), (true, Some(NEARLY)));
        let gone = [stranger(NEARLY, -50, -20)];
        assert!(
            Vicinity { ports: &[PORT], strangers: &gone, secure_boot: None }
                .candidates(at(0), at(60))
                .is_empty()
        );
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
