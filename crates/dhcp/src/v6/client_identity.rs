//! Identifies a DHCPv6 client by the contents of its message and the path that the message took.

use std::net::Ipv6Addr;

use hardware::{ClientArchitecture, ClientKind, Mac};

use super::leases::{Identity, Owner};
use super::options as code;
use super::packet::{Options, Packet, Relay};
use crate::client::AGENT_USER_CLASS;

/// A client, as its message describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its kind.
    pub kind: ClientKind,
    /// Its architectures (option 61), the preferred one first.
    pub architectures: Vec<ClientArchitecture>,
    /// The MAC address of the requesting network card, from a relay's option 79 or from its link-local address.
    pub card: Option<Mac>,
    /// The MAC address in its DUID. It may belong to another card of the machine, and stays when a card is replaced.
    pub named: Option<Mac>,
    /// The source address of its message, as seen by the nearest relay if there is one.
    pub peer: Ipv6Addr,
    /// Its DHCP unique identifier.
    pub duid: Vec<u8>,
    /// Its SMBIOS UUID, from a DUID-UUID (RFC 6355), byte for byte. `None` for all zeros or all ones, which firmware
    /// without a UUID sends.
    pub machine_id: Option<[u8; 16]>,
}

impl Client {
    /// Identifies the sender of a packet that came from an address.
    #[must_use]
    pub fn identify(packet: &Packet, from: Ipv6Addr) -> Self {
        let options = &packet.message.options;
        let duid = options.get(code::CLIENT_ID).unwrap_or_default().to_vec();
        Self {
            kind: kind(options, &duid),
            architectures: architectures(options),
            card: card(packet, from),
            named: of_duid(&duid),
            peer: peer(packet, from),
            machine_id: machine_id(&duid),
            duid,
        }
    }

    /// Its MAC address, from the most reliable source available.
    #[must_use]
    pub fn mac(&self) -> Option<Mac> {
        self.card.or(self.named)
    }

    /// The owner of the requested addresses: the card, whatever DUID the machine sends.
    ///
    /// A client with an unknown card is distinguished by its source address, since no two machines on a link share
    /// one. Neither the DUID (firmware derives it from the SMBIOS UUID, and some boards share one) nor the MAC
    /// address in the DUID (which a copied disk duplicates) is unique. Firmware has another IAID at each boot; a
    /// running system keeps its IAIDs for the life of its installation.
    #[must_use]
    pub fn owner(&self) -> Owner {
        match (self.card, self.kind) {
            (Some(mac), _) => Owner::Card(of_card(mac)),
            (None, ClientKind::System) => Owner::System(self.of_peer()),
            (
                None,
                ClientKind::HttpClient
                | ClientKind::PxeClient
                | ClientKind::Ipxe
                | ClientKind::Grub
                | ClientKind::Agent
                | ClientKind::Firmware,
            ) => Owner::Card(self.of_peer()),
        }
    }

    /// The identity without its association: `0xff`, a part of the DUID's checksum, four bytes for an IAID, and the
    /// lower half of the source address.
    fn of_peer(&self) -> Identity {
        let mut identity = [0; 16];
        identity[..4].copy_from_slice(&crc32fast::hash(&self.duid).to_be_bytes());
        identity[0] = 0xff;
        identity[8..].copy_from_slice(&self.peer.octets()[8..]);
        identity
    }

    /// The architecture that selects the loader: the first in option 61.
    #[must_use]
    pub fn architecture(&self) -> Option<ClientArchitecture> {
        self.architectures.first().copied()
    }
}

/// The lease identity of a card, from its MAC address.
#[must_use]
pub fn of_card(mac: Mac) -> Identity {
    let mut identity = *b"ferroboot:------";
    identity[10..].copy_from_slice(&mac.0);
    identity
}

fn kind(options: &Options, duid: &[u8]) -> ClientKind {
    let is_of = |class: &[u8]| vendor_classes(options).any(|text| text.starts_with(class));
    // iPXE started by HTTP boot sends `PXEClient`, so its user class is checked first, as in DHCPv4.
    if has_user_class(options, b"iPXE") {
        ClientKind::Ipxe
    } else if has_user_class(options, AGENT_USER_CLASS) {
        ClientKind::Agent
    } else if is_of(b"HTTPClient") {
        ClientKind::HttpClient
    } else if is_of(b"PXEClient") {
        ClientKind::PxeClient
    } else if is_of(b"GRUB") {
        ClientKind::Grub
    } else if is_ip6dxe(options, duid) {
        ClientKind::Firmware
    } else {
        ClientKind::System
    }
}

/// EDK2's IPv6 stack requests an address whenever a router advertisement tells it to: it sends a DUID-UUID, requests
/// only name servers, and sends no boot options (`Ip6ConfigStartStatefulAutoConfig`). No running system requests so
/// little. A message without an option request, like RELEASE, cannot be distinguished.
fn is_ip6dxe(options: &Options, duid: &[u8]) -> bool {
    let asks_for_names_alone =
        options.get(code::OPTION_REQUEST) == Some(&code::DNS.to_be_bytes()[..]);
    let says_more = [code::USER_CLASS, code::VENDOR_CLASS, code::ARCHITECTURE]
        .iter()
        .any(|code| options.get(*code).is_some());
    duid.len() == 18 && duid.starts_with(&[0, 4]) && asks_for_names_alone && !says_more
}

/// The texts of vendor classes: an enterprise number, then texts with two bytes of length each (RFC 8415 §21.16).
/// Some clients omit the length.
fn vendor_classes(options: &Options) -> impl Iterator<Item = &[u8]> {
    let values = options.all(code::VENDOR_CLASS).filter_map(|value| value.get(4..));
    values.flat_map(|value| texts(value).chain([value]))
}

fn has_user_class(options: &Options, wanted: &[u8]) -> bool {
    let is_wanted = |value: &[u8]| value.starts_with(wanted) || texts(value).any(|c| c == wanted);
    options.all(code::USER_CLASS).any(is_wanted)
}

/// The texts of an option. The last one may be truncated.
fn texts(mut value: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = value.split_at_checked(2)?;
        let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
        let (text, after) = rest.split_at_checked(len).unwrap_or((rest, &[]));
        value = after;
        Some(text)
    })
}

fn architectures(options: &Options) -> Vec<ClientArchitecture> {
    let codes = options.all(code::ARCHITECTURE).flat_map(|value| value.chunks_exact(2));
    let told: Vec<_> =
        codes.map(|pair| ClientArchitecture(u16::from_be_bytes([pair[0], pair[1]]))).collect();
    if told.is_empty() {
        return vendor_classes(options).find_map(architecture_in).into_iter().collect();
    }
    told
}

/// The architecture in a vendor class: `HTTPClient:Arch:00016:UNDI:003000` has it in decimal.
fn architecture_in(class: &[u8]) -> Option<ClientArchitecture> {
    let class = std::str::from_utf8(class).ok()?;
    let mut parts = class.split(':').skip_while(|part| *part != "Arch");
    parts.nth(1)?.parse().ok().map(ClientArchitecture)
}

/// The card's MAC address: from the relay nearest to the client, otherwise from the link-local address.
fn card(packet: &Packet, from: Ipv6Addr) -> Option<Mac> {
    let seen = |relay: &Relay| {
        let ethernet = relay.options.get(code::CLIENT_LINK_LAYER)?.strip_prefix(&[0, 1])?;
        ethernet.try_into().ok()
    };
    packet.relays.iter().rev().find_map(seen).or_else(|| of_link_local(peer(packet, from)))
}

fn peer(packet: &Packet, from: Ipv6Addr) -> Ipv6Addr {
    packet.relays.last().map_or(from, |relay| relay.peer)
}

fn machine_id(duid: &[u8]) -> Option<[u8; 16]> {
    let id: [u8; 16] = duid.strip_prefix(&[0, 4])?.try_into().ok()?;
    (![[0; 16], [0xff; 16]].contains(&id)).then_some(id)
}

/// The MAC address of a modified EUI-64 identifier, which has `ff:fe` in its middle and one bit inverted (RFC 4291,
/// appendix A).
fn of_link_local(address: Ipv6Addr) -> Option<Mac> {
    let octets = address.octets();
    match octets[8..] {
        [a, b, c, 0xff, 0xfe, d, e, f] if address.is_unicast_link_local() => {
            Some(Mac([a ^ 0b10, b, c, d, e, f]))
        }
        _ => None,
    }
}

/// The MAC address of a DUID-LLT or DUID-LL on Ethernet (RFC 8415 §11.2, §11.4).
fn of_duid(duid: &[u8]) -> Option<Mac> {
    match duid {
        [0, 1, 0, 1, _, _, _, _, mac @ ..] | [0, 3, 0, 1, mac @ ..] => mac.try_into().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hardware::architecture::X64_HTTP;

    use super::super::packet::tests::{OVMF_SOLICIT, bytes, relayed};
    use super::super::packet::{Message, MessageType};
    use super::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 1]);

    fn link_local() -> Ipv6Addr {
        "fe80::5054:ff:feaa:bb01".parse().unwrap()
    }

    fn with(options: Vec<(u16, Vec<u8>)>) -> Client {
        let message = Message {
            kind: MessageType::Solicit,
            transaction: [1, 2, 3],
            options: Options(options),
        };
        Client::identify(&Packet { relays: Vec::new(), message }, "fe80::1".parse().unwrap())
    }

    #[test]
    fn firmware_is_known_by_class_architecture_address_and_uuid() {
        let packet = Packet::parse(&bytes(OVMF_SOLICIT)).unwrap();

        let client = Client::identify(&packet, link_local());

        assert_eq!(client.kind, ClientKind::HttpClient);
        assert_eq!(client.architecture(), Some(X64_HTTP));
        assert_eq!(client.card, Some(MAC));
        // 11223344-5566-7788-99aa-bbccddeeff00, its first three fields little-endian.
        assert_eq!(client.machine_id.unwrap()[..4], [0x44, 0x33, 0x22, 0x11]);
    }

    #[test]
    fn what_a_relay_saw_on_the_wire_wins_over_the_link_local_address() {
        let message = Packet::parse(&bytes(OVMF_SOLICIT)).unwrap().message;
        let seen = vec![0, 1, 2, 0, 0, 0, 0, 9];
        let relay = Relay {
            hops: 0,
            link: "2001:db8::1".parse().unwrap(),
            peer: link_local(),
            options: Options(vec![(code::CLIENT_LINK_LAYER, seen)]),
        };
        let packet = Packet::parse(&relayed(&[relay], &message)).unwrap();

        let client = Client::identify(&packet, "2001:db8::ffff".parse().unwrap());

        assert_eq!(client.card, Some(Mac([2, 0, 0, 0, 0, 9])));
    }

    #[test]
    fn of_relays_that_saw_a_card_the_one_next_to_the_client_is_believed() {
        let message = Packet::parse(&bytes(OVMF_SOLICIT)).unwrap().message;
        let relay = |card: Option<u8>| Relay {
            hops: 0,
            link: "2001:db8::1".parse().unwrap(),
            peer: "fe80::1".parse().unwrap(),
            options: Options(
                card.map(|last| (code::CLIENT_LINK_LAYER, vec![0, 1, 2, 0, 0, 0, 0, last]))
                    .into_iter()
                    .collect(),
            ),
        };
        let card = |relays: &[Relay]| {
            let packet = Packet::parse(&relayed(relays, &message)).unwrap();
            Client::identify(&packet, "2001:db8::ffff".parse().unwrap()).card
        };

        assert_eq!(card(&[relay(Some(1)), relay(Some(2))]), Some(Mac([2, 0, 0, 0, 0, 2])));
        assert_eq!(card(&[relay(Some(1)), relay(None)]), Some(Mac([2, 0, 0, 0, 0, 1])));
    }

    #[test]
    fn a_card_is_told_from_the_one_that_the_machine_is_named_by() {
        let duid = [&[0, 3, 0, 1][..], &[2, 0, 0, 0, 0, 7]].concat();
        let options = Options(vec![(code::CLIENT_ID, duid)]);
        let message = Message { kind: MessageType::Solicit, transaction: [1, 2, 3], options };

        let client = Client::identify(&Packet { relays: Vec::new(), message }, link_local());

        assert_eq!(client.card, Some(MAC));
        assert_eq!(client.named, Some(Mac([2, 0, 0, 0, 0, 7])));
        assert_eq!(client.mac(), Some(MAC));
    }

    #[test]
    fn a_machine_id_of_zeros_or_ones_identifies_nothing() {
        let named = |byte| {
            let duid = [&[0, 4][..], &[byte; 16]].concat();
            with(vec![(code::CLIENT_ID, duid)]).machine_id
        };

        assert_eq!([0, 0xff, 7].map(named), [None, None, Some([7; 16])]);
    }

    #[test]
    fn any_vendor_class_of_several_says_what_the_client_is() {
        let class = |texts: &[&[u8]]| {
            let sized = |text: &&[u8]| [&(text.len() as u16).to_be_bytes()[..], text].concat();
            let texts: Vec<_> = texts.iter().flat_map(sized).collect();
            (code::VENDOR_CLASS, [&[0, 0, 1, 0x57][..], &texts].concat())
        };
        let http = b"HTTPClient:Arch:00019:UNDI:003000";

        assert_eq!(with(vec![class(&[b"vendor"]), class(&[http])]).kind, ClientKind::HttpClient);
        assert_eq!(with(vec![class(&[b"vendor", b"PXEClient"])]).kind, ClientKind::PxeClient);
    }

    #[test]
    fn the_architecture_is_read_from_the_class_where_option_61_says_none() {
        let class = [&[0, 0, 1, 0x57, 0, 33][..], b"HTTPClient:Arch:00019:UNDI:003000"].concat();
        let class = (code::VENDOR_CLASS, class);
        let codes = |value: &[u8]| (code::ARCHITECTURE, value.to_vec());
        let architectures = |options| with(options).architectures;

        assert_eq!(architectures(vec![class.clone()]), [ClientArchitecture(0x13)]);
        assert_eq!(architectures(vec![class.clone(), codes(&[])]), [ClientArchitecture(0x13)]);
        let several = [ClientArchitecture(0x10), ClientArchitecture(7)];
        assert_eq!(architectures(vec![class, codes(&[0, 0x10, 0, 7])]), several);
    }

    /// EDK2's Ip6Dxe requests its own address beside every HTTP boot, with the machine's UUID.
    #[test]
    fn the_address_that_firmware_asks_for_beside_its_boot_is_no_boot() {
        let uuid = [&[0, 4][..], &[0xab; 16]].concat();
        let asked = with(vec![(code::CLIENT_ID, uuid), (code::OPTION_REQUEST, vec![0, 23])]);

        assert_eq!(asked.kind, ClientKind::Firmware);
        assert_eq!(asked.machine_id, Some([0xab; 16]));
    }

    #[test]
    fn a_system_that_is_named_like_firmware_asks_for_more_than_firmware_does() {
        let uuid = [&[0, 4][..], &[0xab; 16]].concat();
        let asks = |wants: &[u8]| {
            with(vec![(code::CLIENT_ID, uuid.clone()), (code::OPTION_REQUEST, wants.to_vec())]).kind
        };

        assert_eq!(asks(&[0, 23, 0, 24]), ClientKind::System);
        assert_eq!(asks(&[]), ClientKind::System);
    }

    #[test]
    fn a_vendor_class_that_is_cut_off_or_has_no_length_says_what_the_client_is() {
        let class = |value: &[u8]| {
            with(vec![(code::VENDOR_CLASS, [&[0, 0, 1, 0x57][..], value].concat())]).kind
        };

        assert_eq!(class(b"\0\x21HTTPClient:Arch"), ClientKind::HttpClient);
        assert_eq!(class(b"HTTPClient:Arch:00016"), ClientKind::HttpClient);
        assert_eq!(class(b"\0\x21HTTP"), ClientKind::System);
    }

    #[test]
    fn a_private_link_local_address_leaves_it_to_the_duid() {
        let time = [1, 2, 3, 4];
        let llt = [&[0, 1, 0, 1][..], &time, &MAC.0].concat();

        assert_eq!(with(vec![(code::CLIENT_ID, llt)]).mac(), Some(MAC));
        assert_eq!(
            with(vec![(code::CLIENT_ID, [&[0, 3, 0, 1][..], &MAC.0].concat())]).mac(),
            Some(MAC)
        );
        assert_eq!(with(vec![(code::CLIENT_ID, vec![0, 2, 9])]).mac(), None);
    }

    #[test]
    fn ipxe_and_our_agent_are_known_by_their_user_class() {
        let class = |text: &[u8]| [&(text.len() as u16).to_be_bytes()[..], text].concat();

        assert_eq!(with(vec![(code::USER_CLASS, class(b"iPXE"))]).kind, ClientKind::Ipxe);
        assert_eq!(with(vec![(code::USER_CLASS, class(AGENT_USER_CLASS))]).kind, ClientKind::Agent);
        assert_eq!(with(Vec::new()).kind, ClientKind::System);
    }
}
