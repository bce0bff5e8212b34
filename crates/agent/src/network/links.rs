//! Network cards: which are there, and which are worth asking for an address.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::mac::Mac;

/// How long the card that the machine was booted from has the wire to itself. Spanning tree holds a port back for
/// 30 s; a card that has no carrier by then has none.
pub const PREFERENCE: Duration = Duration::from_secs(45);

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// `eth0`
    pub name: String,
    /// Its number in the kernel.
    pub index: u32,
    /// Its hardware address.
    pub mac: Mac,
    /// Whether something is at the other end of its cable. Only a link that is up knows.
    pub carrier: bool,
}

/// What the command line says about links.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `ipa-network-interface`
    pub name: Option<String>,
    /// `BOOTIF`
    pub mac: Option<Mac>,
}

impl Wanted {
    /// The links to ask on after `waited`: the wanted one, and when it does not lead anywhere, all of them.
    pub fn candidates<'a>(&self, links: &'a [Link], waited: Duration) -> Vec<&'a Link> {
        let anything = self.name.is_none() && self.mac.is_none();
        let all = anything || waited >= PREFERENCE;
        links.iter().filter(|link| link.carrier && (all || self.is(link))).collect()
    }

    fn is(&self, link: &Link) -> bool {
        match (&self.name, self.mac) {
            (Some(name), _) => *name == link.name,
            (None, Some(mac)) => mac == link.mac,
            (None, None) => false,
        }
    }
}

/// The machine's network cards; bridges, tunnels and the loopback have no device behind them.
pub fn present() -> Vec<Link> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().filter_map(Result::ok);
    let mut links: Vec<_> = entries.filter_map(|entry| read(&entry.path())).collect();
    links.sort_by_key(|link| link.index);
    links
}

fn read(folder: &Path) -> Option<Link> {
    const ETHERNET: &str = "1";

    let value = |file: &str| Some(fs::read_to_string(folder.join(file)).ok()?.trim().to_owned());
    if !folder.join("device").exists() || value("type")? != ETHERNET {
        return None;
    }
    Some(Link {
        name: folder.file_name()?.to_str()?.to_owned(),
        index: value("ifindex")?.parse().ok()?,
        mac: value("address")?.parse().ok()?,
        carrier: value("carrier").is_some_and(|carrier| carrier == "1"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_that_leads_nowhere_does_not_stop_the_other() {
        let links = [link("eth0", 1, false), link("eth1", 2, true)];

        assert_eq!(names(&Wanted::default(), &links, 0), ["eth1"]);
    }

    #[test]
    fn the_card_the_machine_was_booted_from_comes_first() {
        let links = [link("eth0", 1, true), link("eth1", 2, true)];
        let wanted = Wanted { mac: Some(links[1].mac), name: None };

        assert_eq!(names(&wanted, &links, 0), ["eth1"]);
        assert_eq!(names(&wanted, &links, 45), ["eth0", "eth1"]);
    }

    #[test]
    fn a_name_on_the_command_line_outranks_bootif() {
        let links = [link("eth0", 1, true), link("eth1", 2, true)];
        let wanted = Wanted { mac: Some(links[1].mac), name: Some("eth0".to_owned()) };

        assert_eq!(names(&wanted, &links, 0), ["eth0"]);
    }

    fn link(name: &str, number: u8, carrier: bool) -> Link {
        let mac = Mac([0x52, 0x54, 0, 0, 0, number]);
        Link { name: name.to_owned(), index: number.into(), mac, carrier }
    }

    fn names<'a>(wanted: &Wanted, links: &'a [Link], seconds: u64) -> Vec<&'a str> {
        let candidates = wanted.candidates(links, Duration::from_secs(seconds));
        candidates.into_iter().map(|link| link.name.as_str()).collect()
    }
}
