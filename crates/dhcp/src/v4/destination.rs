//! The destination of a reply (RFC 2131 §4.1).

use std::net::{Ipv4Addr, SocketAddrV4};

use hardware::Mac;

use super::packet::{MessageType, Packet};
use super::relay::relayed;

/// The port of servers and relays.
pub const SERVER: u16 = 67;
/// The port of clients.
pub const CLIENT: u16 = 68;

/// The destination of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To a relay, or to a client that has an address.
    Unicast(SocketAddrV4),
    /// To all hosts on the link of the request.
    Broadcast,
    /// To a client that does not answer ARP for its address yet: in a raw frame ([`frame`](super::frame)), or by
    /// broadcast if that fails.
    Link {
        /// Its MAC address.
        mac: Mac,
        /// The address it is given.
        address: Ipv4Addr,
    },
}

/// The destination of the reply to a request that came `from` there to port 67.
///
/// `ciaddr` is used only if it is the source address. Clients without an address may put their former address into
/// `ciaddr`, and a reply to that address would be lost.
///
/// A request to port 4011 is answered at its source.
#[must_use]
pub fn destination(request: &Packet, from: SocketAddrV4, reply: &Packet) -> Destination {
    let own = request.ciaddr;
    let informs = request.message == MessageType::Inform && !own.is_unspecified();
    let is_there = !own.is_unspecified() && own == *from.ip();
    if let Some(relay) = relayed(request).filter(|_| !informs) {
        let port = if relay.has_own_port { from.port() } else { SERVER };
        Destination::Unicast(SocketAddrV4::new(request.giaddr, port))
    } else if reply.message == MessageType::Nak {
        Destination::Broadcast
    } else if informs && !from.ip().is_unspecified() {
        // RFC 2131 §4.3.5: directly, not through the relay.
        Destination::Unicast(SocketAddrV4::new(own, CLIENT))
    } else if is_there && own == reply.yiaddr {
        // A client must not direct a reply to any address but its own.
        Destination::Unicast(SocketAddrV4::new(own, CLIENT))
    } else if request.broadcast || (reply.yiaddr.is_unspecified() && !informs) {
        Destination::Broadcast
    } else {
        let address = if informs { own } else { reply.yiaddr };
        Destination::Link { mac: request.chaddr, address }
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::RELAY_AGENT;
    use super::super::packet::tests::discover;
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);
    const GIVEN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
    const RELAY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
    const FROM: SocketAddrV4 = SocketAddrV4::new(RELAY, 1067);

    /// The source address of clients without an address.
    const NOWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT);

    fn to(request: &Packet, message: MessageType) -> Destination {
        to_sender(FROM, request, message)
    }

    fn to_sender(from: SocketAddrV4, request: &Packet, message: MessageType) -> Destination {
        let yiaddr = if message == MessageType::Nak { Ipv4Addr::UNSPECIFIED } else { GIVEN };
        destination(request, from, &Packet { message, yiaddr, ..request.clone() })
    }

    fn unicast(address: Ipv4Addr, port: u16) -> Destination {
        Destination::Unicast(SocketAddrV4::new(address, port))
    }

    #[test]
    fn a_relay_gets_every_answer_on_the_servers_port_whatever_the_client_asks_for() {
        let request = Packet { giaddr: RELAY, ciaddr: GIVEN, ..discover(MAC) };

        for message in [MessageType::Offer, MessageType::Ack, MessageType::Nak] {
            assert_eq!(to(&request, message), unicast(RELAY, SERVER));
        }
    }

    #[test]
    fn a_relay_without_the_servers_port_gets_every_answer_where_it_sends_from() {
        let mut request = Packet { giaddr: RELAY, ..discover(MAC) };
        request.options.push((RELAY_AGENT, vec![1, 1, 7, 19, 0]));

        assert_eq!(to(&request, MessageType::Offer), unicast(RELAY, FROM.port()));
    }

    #[test]
    fn a_client_that_renews_is_answered_at_its_address() {
        let request = Packet { message: MessageType::Request, ciaddr: GIVEN, ..discover(MAC) };
        let from = SocketAddrV4::new(GIVEN, CLIENT);

        assert_eq!(to_sender(from, &request, MessageType::Ack), unicast(GIVEN, CLIENT));
    }

    #[test]
    fn a_client_that_names_an_address_which_it_does_not_send_from_is_answered_by_its_mac_address() {
        for message in [MessageType::Discover, MessageType::Request] {
            let deaf = Packet { message, ciaddr: GIVEN, broadcast: false, ..discover(MAC) };
            let hears = Packet { broadcast: true, ..deaf.clone() };
            for reply in [MessageType::Offer, MessageType::Ack] {
                let link = Destination::Link { mac: MAC, address: GIVEN };
                assert_eq!(to_sender(NOWHERE, &deaf, reply), link);
                assert_eq!(to_sender(NOWHERE, &hears, reply), Destination::Broadcast);
            }
        }
    }

    #[test]
    fn who_asks_for_the_rest_and_does_not_send_from_its_address_is_answered_by_its_mac_address() {
        let own = Ipv4Addr::new(10, 0, 0, 9);
        let inform = |broadcast| Packet {
            message: MessageType::Inform,
            ciaddr: own,
            broadcast,
            ..discover(MAC)
        };
        let ack = |request: &Packet| {
            destination(request, NOWHERE, &Packet { message: MessageType::Ack, ..discover(MAC) })
        };

        assert_eq!(ack(&inform(false)), Destination::Link { mac: MAC, address: own });
        assert_eq!(ack(&inform(true)), Destination::Broadcast);
    }

    #[test]
    fn a_client_that_must_start_over_hears_it_even_without_a_good_address() {
        let request = Packet { ciaddr: GIVEN, broadcast: false, ..discover(MAC) };

        assert_eq!(to(&request, MessageType::Nak), Destination::Broadcast);
    }

    #[test]
    fn firmware_that_asks_for_broadcasts_gets_them_and_others_a_frame_of_their_own() {
        let firmware = discover(MAC);
        let loader = Packet { broadcast: false, ..discover(MAC) };

        assert_eq!(to(&firmware, MessageType::Offer), Destination::Broadcast);
        assert_eq!(to(&loader, MessageType::Offer), Destination::Link { mac: MAC, address: GIVEN });
    }

    #[test]
    fn a_proxys_offer_has_no_address_to_send_it_to() {
        let loader = Packet { broadcast: false, ..discover(MAC) };

        assert_eq!(destination(&loader, FROM, &loader), Destination::Broadcast);
    }

    #[test]
    fn nobody_sends_our_answers_to_a_third_machine() {
        let third = Ipv4Addr::new(198, 51, 100, 1);
        let request = Packet { ciaddr: third, ..discover(MAC) };

        assert_eq!(to(&request, MessageType::Ack), Destination::Broadcast);
    }

    #[test]
    fn who_has_an_address_of_his_own_hears_the_rest_there_past_the_relay() {
        let own = Ipv4Addr::new(10, 0, 0, 9);
        let request =
            Packet { message: MessageType::Inform, ciaddr: own, giaddr: RELAY, ..discover(MAC) };

        assert_eq!(destination(&request, FROM, &discover(MAC)), unicast(own, CLIENT));
    }
}
