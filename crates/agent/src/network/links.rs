//! Network cards and their VLANs: the candidates for DHCP.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use hardware::Mac;
use thiserror::Error;

/// Time during which only the boot's network card is used. Spanning tree blocks a port for 30 s; a card without a
/// carrier by then has none.
pub const PREFERENCE: Duration = Duration::from_secs(45);

/// A network card, or a VLAN on one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkLink {
    /// `eth0`
    pub name: String,
    /// Its number in the kernel.
    pub index: u32,
    /// Its hardware address.
    pub mac: Mac,
    /// Whether it has a carrier. Only a link that is up reports it.
    pub carrier: bool,
    /// Its kind.
    pub kind: LinkKind,
}

/// The kind of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// A network card.
    Card,
    /// A VLAN.
    Vlan {
        /// The index of the underlying link.
        on: u32,
    },
}

/// The command line's settings for links.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WantedLinks {
    /// `ipa-network-interface`
    pub name: Option<String>,
    /// `BOOTIF`
    pub mac: Option<Mac>,
    /// `vlan` and `ipa-enable-vlan-interfaces`
    pub vlans: Vec<Vlan>,
}

/// A VLAN to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vlan {
    /// Its ID, 1 to 4094.
    pub id: u16,
    /// The name of its link; by default the card's name, a dot and the ID.
    pub name: Option<String>,
    /// Its card.
    pub on: VlanCard,
    /// Whether the card's untagged network is left unused.
    pub only: bool,
}

/// The card of a VLAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VlanCard {
    /// The wanted card, or each card.
    Wanted,
    /// The card with this name.
    Name(String),
    /// The card with this MAC address: Linux numbers cards in the order of detection.
    Mac(Mac),
}

/// The reason for rejecting a VLAN.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotAVlan {
    /// The ID is missing or invalid.
    #[error("{0:?} has no number of a VLAN in it, from 1 to 4094")]
    NoNumber(String),
    /// ironic-python-agent would detect a card's VLANs by LLDP.
    #[error("VLANs are not looked for by LLDP; name them, as `{0}.101`")]
    Lldp(String),
}

impl WantedLinks {
    /// The candidate links after `waited`: the wanted ones and, after they have led nowhere, all.
    pub fn candidates<'a>(
        &self,
        links: &'a [NetworkLink],
        waited: Duration,
    ) -> Vec<&'a NetworkLink> {
        let anything = self.name.is_none() && self.mac.is_none();
        let all = anything || waited >= PREFERENCE;
        let is_used = |link: &NetworkLink| link.carrier && !self.is_only_tagged(link);
        links.iter().filter(|link| is_used(link) && (all || self.is(link, links))).collect()
    }

    /// The VLAN links to create on a card, by name.
    pub fn vlans_of(&self, card: &NetworkLink) -> Vec<(String, u16)> {
        let own = self.vlans.iter().filter(|vlan| self.is_on(vlan, card));
        let name = |vlan: &Vlan| {
            let usual = || format!("{}.{}", card.name, vlan.id);
            vlan.name.clone().unwrap_or_else(usual)
        };
        own.map(|vlan| (name(vlan), vlan.id)).collect()
    }

    fn is(&self, link: &NetworkLink, links: &[NetworkLink]) -> bool {
        let on = |on| links.iter().any(|card| card.index == on && self.is(card, links));
        let through = matches!(link.kind, LinkKind::Vlan { on: card } if on(card));
        through || self.is_by_itself(link)
    }

    fn is_by_itself(&self, link: &NetworkLink) -> bool {
        match (&self.name, self.mac) {
            (Some(name), _) => *name == link.name,
            (None, Some(mac)) => mac == link.mac,
            (None, None) => false,
        }
    }

    fn is_on(&self, vlan: &Vlan, card: &NetworkLink) -> bool {
        let anything = self.name.is_none() && self.mac.is_none();
        let fits = match &vlan.on {
            VlanCard::Wanted => anything || self.is_by_itself(card),
            VlanCard::Name(name) => *name == card.name,
            VlanCard::Mac(mac) => *mac == card.mac,
        };
        card.kind == LinkKind::Card && fits
    }

    fn is_only_tagged(&self, link: &NetworkLink) -> bool {
        self.vlans.iter().any(|vlan| vlan.only && self.is_on(vlan, link))
    }
}

impl Vlan {
    /// Parses an item of `ipa-enable-vlan-interfaces`: `eth0.101`, in addition to `eth0` itself.
    ///
    /// # Errors
    ///
    /// It names only a card, or all cards.
    pub fn beside(text: &str) -> Result<Self, NotAVlan> {
        let Some((card, id)) = text.rsplit_once('.') else {
            let card = if text == "all" { "eth0" } else { text };
            return Err(NotAVlan::Lldp(card.to_owned()));
        };
        Ok(Self { id: number(id)?, name: None, on: VlanCard::Name(card.to_owned()), only: false })
    }
}

impl FromStr for Vlan {
    type Err = NotAVlan;

    /// Parses dracut's `NAME:CARD`, where the ID ends the name (`vlan5:eth0`, `eth0.0005:eth0`) and the card may be a
    /// MAC address; or the ID alone, for the wanted card.
    fn from_str(text: &str) -> Result<Self, NotAVlan> {
        let Some((name, card)) = text.split_once(':') else {
            return Ok(Self { id: number(text)?, name: None, on: VlanCard::Wanted, only: true });
        };
        let digits = name.trim_start_matches(|it: char| it != '.' && !it.is_ascii_digit());
        let digits = name.rsplit_once('.').map_or(digits, |(_, digits)| digits);
        let on = card.parse().map_or_else(|_| VlanCard::Name(card.to_owned()), VlanCard::Mac);
        Ok(Self { id: number(digits)?, name: Some(name.to_owned()), on, only: true })
    }
}

/// IEEE 802.1Q reserves 0 and 4095.
fn number(text: &str) -> Result<u16, NotAVlan> {
    let number = text.parse().ok().filter(|id| (1..=4094).contains(id));
    number.ok_or_else(|| NotAVlan::NoNumber(text.to_owned()))
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Card => "network card",
            Self::Vlan { .. } => "VLAN",
        })
    }
}

impl fmt::Display for NetworkLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.mac)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_card_that_leads_nowhere_does_not_stop_the_other() {
        let links = [link("eth0", 1, false), link("eth1", 2, true)];

        assert_eq!(names(&WantedLinks::default(), &links, 0), ["eth1"]);
    }

    #[test]
    fn the_card_the_machine_was_booted_from_comes_first() {
        let links = [link("eth0", 1, true), link("eth1", 2, true)];
        let wanted = WantedLinks { mac: Some(links[1].mac), ..WantedLinks::default() };

        assert_eq!(names(&wanted, &links, 0), ["eth1"]);
        assert_eq!(names(&wanted, &links, 45), ["eth0", "eth1"]);
    }

    #[test]
    fn a_name_on_the_command_line_outranks_bootif() {
        let links = [link("eth0", 1, true), link("eth1", 2, true)];
        let name = Some("eth0".to_owned());
        let wanted = WantedLinks { mac: Some(links[1].mac), name, ..WantedLinks::default() };

        assert_eq!(names(&wanted, &links, 0), ["eth0"]);
    }

    #[test]
    fn a_vlan_by_its_number_takes_the_place_of_the_boot_cards_own_network() {
        let cards = [link("eth0", 1, true), link("eth1", 2, true)];
        let vlans = vec!["101".parse().unwrap()];
        let wanted = WantedLinks { mac: Some(cards[1].mac), vlans, ..WantedLinks::default() };
        let tagged = NetworkLink { kind: LinkKind::Vlan { on: 2 }, ..link("eth1.101", 2, true) };
        let links = [&cards[..], &[tagged]].concat();

        assert_eq!(wanted.vlans_of(&cards[0]), []);
        assert_eq!(wanted.vlans_of(&cards[1]), [("eth1.101".to_owned(), 101)]);
        assert_eq!(names(&wanted, &links, 0), ["eth1.101"]);
        assert_eq!(names(&wanted, &links, 45), ["eth0", "eth1.101"]);
    }

    #[test]
    fn vlan_interfaces_of_ironic_python_agent_are_asked_beside_their_card() {
        let card = link("eth0", 1, true);
        let wanted = WantedLinks {
            vlans: vec![Vlan::beside("eth0.101").unwrap()],
            ..WantedLinks::default()
        };
        let tagged =
            NetworkLink { kind: LinkKind::Vlan { on: 1 }, index: 7, ..link("eth0.101", 1, true) };

        assert_eq!(wanted.vlans_of(&card), [("eth0.101".to_owned(), 101)]);
        assert_eq!(names(&wanted, &[card, tagged], 0), ["eth0", "eth0.101"]);
        assert!(Vlan::beside("eth0").unwrap_err().to_string().contains("`eth0.101`"));
        assert!(Vlan::beside("eth0.4095").is_err());
    }

    #[test]
    fn dracuts_names_of_vlans_are_understood() {
        let on = VlanCard::Name("eth0".to_owned());
        for name in ["vlan0005", "vlan5", "eth0.0005", "eth0.5"] {
            let vlan: Vlan = format!("{name}:eth0").parse().unwrap();
            let name = Some(name.to_owned());
            assert_eq!(vlan, Vlan { id: 5, name, on: on.clone(), only: true });
        }
        let by_mac: Vlan = "vlan5:52:54:00:00:00:01".parse().unwrap();
        assert_eq!(by_mac.on, VlanCard::Mac(Mac([0x52, 0x54, 0, 0, 0, 1])));
        assert!("vlan:eth0".parse::<Vlan>().is_err());
        assert!("0".parse::<Vlan>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text: String) {
            let _ = (text.parse::<Vlan>(), Vlan::beside(&text));
        }
    }

    fn link(name: &str, number: u8, carrier: bool) -> NetworkLink {
        let mac = Mac([0x52, 0x54, 0, 0, 0, number]);
        NetworkLink {
            name: name.to_owned(),
            index: number.into(),
            mac,
            carrier,
            kind: LinkKind::Card,
        }
    }

    fn names<'a>(wanted: &WantedLinks, links: &'a [NetworkLink], seconds: u64) -> Vec<&'a str> {
        let candidates = wanted.candidates(links, Duration::from_secs(seconds));
        candidates.into_iter().map(|link| link.name.as_str()).collect()
    }
}
