//! The link of a client behind a relay.

use std::net::Ipv4Addr;

use super::options::{self as code, sub_options};
use super::packet::Packet;

/// Link selection (RFC 3527 §3).
const LINK_SELECTION: u8 = 5;
/// Server identifier override (RFC 5107 §4).
const SERVER_ID_OVERRIDE: u8 = 11;
/// The relay listens on its source port (RFC 8357 §5.1).
const RELAY_PORT: u8 = 19;

/// The information that a relay adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayInformation {
    /// An address on the client's link.
    pub link: Ipv4Addr,
    /// The server identifier for the reply, so that renewals also pass the relay.
    pub server_id: Option<Ipv4Addr>,
    /// Whether replies go to the relay's source port instead of the servers' port.
    pub has_own_port: bool,
}

/// The relay information of a message; `None` if it was not relayed.
///
/// A relay's own address may be on another link than the client, so `giaddr` is only the reply's destination. The
/// client's link is then in sub-option 5 of option 82 (RFC 3527) or in option 118 (RFC 3011). Without `giaddr` both
/// are ignored: otherwise any client could take addresses of any link.
#[must_use]
pub fn relayed(packet: &Packet) -> Option<RelayInformation> {
    let relay = Some(packet.giaddr).filter(|relay| !relay.is_unspecified())?;
    let information = packet.option(code::RELAY_AGENT).unwrap_or_default();
    let told = |wanted| {
        let value = sub_options(information).find(|(code, _)| *code == wanted)?.1;
        value.try_into().ok().map(|octets: [u8; 4]| Ipv4Addr::from(octets))
    };
    let selected = || packet.option_address(code::SUBNET_SELECTION);
    let link = told(LINK_SELECTION).or_else(selected).unwrap_or(relay);
    let has_own_port = sub_options(information).any(|(code, _)| code == RELAY_PORT);
    Some(RelayInformation { link, server_id: told(SERVER_ID_OVERRIDE), has_own_port })
}

/// An address on the link of a message that was sent from `from` to `to`; `None` for the link on which it arrived.
///
/// A client with an address sends directly to the server, not through its relay (RFC 2131 §4.3.2), and only its own
/// address identifies its link. Broadcasts and messages from the unspecified address pass no router: their sender is
/// on this link, whatever address it has from elsewhere.
#[must_use]
pub fn link(packet: &Packet, from: Ipv4Addr, to: Ipv4Addr) -> Option<Ipv4Addr> {
    let is_here = to.is_broadcast() || from.is_unspecified();
    let own = || Some(packet.ciaddr).filter(|own| !own.is_unspecified() && !is_here);
    relayed(packet).map(|relayed| relayed.link).or_else(own)
}

/// The server identifier of a message (option 54), if it is a valid address.
#[must_use]
pub(super) fn named_server(request: &Packet) -> Option<Ipv4Addr> {
    let named = request.option_address(code::SERVER_ID)?;
    (!named.is_unspecified() && !named.is_broadcast()).then_some(named)
}

/// The server identifier for the reply (RFC 5107 §4).
#[must_use]
pub fn server_id(request: &Packet, server: Ipv4Addr) -> Ipv4Addr {
    relayed(request).and_then(|relayed| relayed.server_id).unwrap_or(server)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::packet::tests::discover;
    use super::*;

    const RELAY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn through(giaddr: Ipv4Addr, information: &[u8]) -> Option<RelayInformation> {
        let mut packet = discover([2; 6]);
        packet.giaddr = giaddr;
        packet.options.push((code::RELAY_AGENT, information.to_vec()));
        relayed(&packet)
    }

    #[test]
    fn a_client_is_on_the_link_that_its_relay_names_and_else_on_the_relays_own() {
        let link = Ipv4Addr::new(192, 0, 2, 1);

        assert_eq!(through(RELAY, &[1, 2, 7, 7]).unwrap().link, RELAY);
        assert_eq!(through(RELAY, &[1, 2, 7, 7, 5, 4, 192, 0, 2, 1]).unwrap().link, link);
    }

    #[test]
    fn the_client_may_name_its_link_too_but_the_relay_knows_better() {
        let subnet = [(code::SUBNET_SELECTION, vec![198, 51, 100, 0])];
        let named = |options: &[(u8, Vec<u8>)]| {
            let packet = discover([2; 6]);
            relayed(&Packet { giaddr: RELAY, options: options.to_vec(), ..packet }).unwrap().link
        };
        let both = [&subnet[..], &[(code::RELAY_AGENT, vec![5, 4, 192, 0, 2, 1])]].concat();

        assert_eq!(named(&subnet), Ipv4Addr::new(198, 51, 100, 0));
        assert_eq!(named(&both), Ipv4Addr::new(192, 0, 2, 1));
    }

    #[test]
    fn nobody_takes_addresses_of_another_link_by_playing_the_relay() {
        assert_eq!(
            through(Ipv4Addr::UNSPECIFIED, &[5, 4, 192, 0, 2, 1, 11, 4, 192, 0, 2, 9]),
            None
        );
    }

    #[test]
    fn a_client_that_renews_past_its_relay_is_on_the_link_of_its_address() {
        let own = Ipv4Addr::new(192, 0, 2, 50);
        let renewal = Packet { ciaddr: own, ..discover([2; 6]) };

        assert_eq!(link(&renewal, own, SERVER), Some(own));
        assert_eq!(link(&renewal, Ipv4Addr::UNSPECIFIED, SERVER), None);
        assert_eq!(link(&Packet { giaddr: RELAY, ..renewal }, own, SERVER), Some(RELAY));
        assert_eq!(link(&discover([2; 6]), own, SERVER), None);
    }

    #[test]
    fn a_client_that_is_heard_by_everybody_is_here_whatever_address_it_has() {
        let moved = Packet { ciaddr: Ipv4Addr::new(192, 0, 2, 50), ..discover([2; 6]) };

        let from = moved.ciaddr;
        assert_eq!(link(&moved, from, Ipv4Addr::BROADCAST), None);
        let relayed = Packet { giaddr: RELAY, ..moved };
        assert_eq!(link(&relayed, from, Ipv4Addr::BROADCAST), Some(RELAY));
    }

    #[test]
    fn a_relay_that_stands_in_for_the_server_is_heard() {
        let told = through(RELAY, &[11, 4, 192, 0, 2, 254]).unwrap();

        assert_eq!(told.server_id, Some(Ipv4Addr::new(192, 0, 2, 254)));
    }

    proptest! {
        #[test]
        fn no_information_panics(bytes in proptest::collection::vec(any::<u8>(), 0..255)) {
            let _ = through(RELAY, &bytes);
        }
    }
}
