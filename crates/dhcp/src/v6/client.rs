//! Who is asking, by what the message says and the way it came.

use std::net::Ipv6Addr;

use super::options as code;
use super::packet::{Options, Packet};
use crate::architecture::Architecture;
use crate::client::{AGENT_USER_CLASS, Kind};

/// A client, by its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// What sort it is.
    pub kind: Kind,
    /// Its architectures (option 61), the preferred one first.
    pub architectures: Vec<Architecture>,
    /// Its MAC address, by the surest of the signs there are.
    pub mac: Option<[u8; 6]>,
    /// Its DHCP unique identifier.
    pub duid: Vec<u8>,
    /// Its SMBIOS UUID, from a DUID of that kind (RFC 6355), byte for byte.
    pub machine_id: Option<[u8; 16]>,
}

impl Client {
    /// Reads off a packet, and the address it came from, who sent it.
    #[must_use]
    pub fn identify(packet: &Packet, from: Ipv6Addr) -> Self {
        let options = &packet.message.options;
        let duid = options.get(code::CLIENT_ID).unwrap_or_default().to_vec();
        Self {
            kind: kind(options, &duid),
            architectures: architectures(options),
            mac: mac(packet, from, &duid),
            machine_id: duid.strip_prefix(&[0, 4]).and_then(|uuid| uuid.try_into().ok()),
            duid,
        }
    }

    /// The architecture to choose by: the first it names.
    #[must_use]
    pub fn architecture(&self) -> Option<Architecture> {
        self.architectures.first().copied()
    }
}

fn kind(options: &Options, duid: &[u8]) -> Kind {
    let class = vendor_class(options).unwrap_or_default();
    // iPXE started by HTTP boot calls itself `PXEClient`; its user class comes first, as in DHCPv4.
    if has_user_class(options, b"iPXE") {
        Kind::Ipxe
    } else if has_user_class(options, AGENT_USER_CLASS) {
        Kind::Agent
    } else if class.starts_with(b"HTTPClient") {
        Kind::HttpClient
    } else if class.starts_with(b"PXEClient") {
        Kind::PxeClient
    } else if class.starts_with(b"GRUB") {
        Kind::Grub
    } else if is_ip6dxe(options, duid) {
        Kind::Firmware
    } else {
        Kind::System
    }
}

/// EDK2's IPv6 stack wants an address whenever a router says so: it names the machine by its SMBIOS UUID, asks for name
/// servers alone, and says nothing of a boot (`Ip6ConfigStartStatefulAutoConfig`). No running system is that curt. What asks
/// for nothing, as RELEASE, cannot be told apart.
fn is_ip6dxe(options: &Options, duid: &[u8]) -> bool {
    let asks_for_names_alone =
        options.get(code::OPTION_REQUEST) == Some(&code::DNS.to_be_bytes()[..]);
    let says_more = [code::USER_CLASS, code::VENDOR_CLASS, code::ARCHITECTURE]
        .iter()
        .any(|code| options.get(*code).is_some());
    duid.len() == 18 && duid.starts_with(&[0, 4]) && asks_for_names_alone && !says_more
}

/// The first class: an enterprise number, then texts with two bytes of length each.
fn vendor_class(options: &Options) -> Option<&[u8]> {
    let classes = options.get(code::VENDOR_CLASS)?.get(4..)?;
    texts(classes).next()
}

fn has_user_class(options: &Options, wanted: &[u8]) -> bool {
    options.get(code::USER_CLASS).is_some_and(|value| texts(value).any(|class| class == wanted))
}

fn texts(mut value: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = value.split_at_checked(2)?;
        let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
        let (text, after) = rest.split_at_checked(len)?;
        value = after;
        Some(text)
    })
}

fn architectures(options: &Options) -> Vec<Architecture> {
    let value = options.get(code::ARCHITECTURE).unwrap_or_default();
    value.chunks_exact(2).map(|pair| Architecture(u16::from_be_bytes([pair[0], pair[1]]))).collect()
}

/// What a relay saw on the wire, else what the link-local address was made of, else what the DUID
/// says, which may name another card of the machine, and stays when a card is replaced.
fn mac(packet: &Packet, from: Ipv6Addr, duid: &[u8]) -> Option<[u8; 6]> {
    let nearest = packet.relays.last();
    let told = nearest.and_then(|relay| relay.options.get(code::CLIENT_LINK_LAYER));
    let on_the_wire = told.and_then(|value| value.strip_prefix(&[0, 1])?.try_into().ok());
    let own = nearest.map_or(from, |relay| relay.peer);
    on_the_wire.or_else(|| of_link_local(own)).or_else(|| of_duid(duid))
}

/// A modified EUI-64 identifier has `ff:fe` in its middle and one bit turned (RFC 4291, appendix A).
fn of_link_local(address: Ipv6Addr) -> Option<[u8; 6]> {
    let octets = address.octets();
    match octets[8..] {
        [a, b, c, 0xff, 0xfe, d, e, f] if address.is_unicast_link_local() => {
            Some([a ^ 0b10, b, c, d, e, f])
        }
        _ => None,
    }
}

/// DUID-LLT and DUID-LL on Ethernet (RFC 8415 §11.2, §11.4).
fn of_duid(duid: &[u8]) -> Option<[u8; 6]> {
    match duid {
        [0, 1, 0, 1, _, _, _, _, mac @ ..] | [0, 3, 0, 1, mac @ ..] => mac.try_into().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::{OVMF_SOLICIT, bytes, relayed};
    use super::super::packet::{Message, MessageType, Relay};
    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0xaa, 0xbb, 1];

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

        assert_eq!(client.kind, Kind::HttpClient);
        assert_eq!(client.architecture(), Some(Architecture::X64_HTTP));
        assert_eq!(client.mac, Some(MAC));
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

        assert_eq!(client.mac, Some([2, 0, 0, 0, 0, 9]));
    }

    /// EDK2's Ip6Dxe asks for an address of its own beside every HTTP boot, with the machine's UUID.
    #[test]
    fn the_address_that_firmware_asks_for_beside_its_boot_is_no_boot() {
        let uuid = [&[0, 4][..], &[0xab; 16]].concat();
        let asked = with(vec![(code::CLIENT_ID, uuid), (code::OPTION_REQUEST, vec![0, 23])]);

        assert_eq!(asked.kind, Kind::Firmware);
        assert_eq!(asked.machine_id, Some([0xab; 16]));
    }

    #[test]
    fn a_system_that_is_named_like_firmware_asks_for_more_than_firmware_does() {
        let uuid = [&[0, 4][..], &[0xab; 16]].concat();
        let asks = |wants: &[u8]| {
            with(vec![(code::CLIENT_ID, uuid.clone()), (code::OPTION_REQUEST, wants.to_vec())]).kind
        };

        assert_eq!(asks(&[0, 23, 0, 24]), Kind::System);
        assert_eq!(asks(&[]), Kind::System);
    }

    #[test]
    fn a_private_link_local_address_leaves_it_to_the_duid() {
        let time = [1, 2, 3, 4];
        let llt = [&[0, 1, 0, 1][..], &time, &MAC].concat();

        assert_eq!(with(vec![(code::CLIENT_ID, llt)]).mac, Some(MAC));
        assert_eq!(
            with(vec![(code::CLIENT_ID, [&[0, 3, 0, 1][..], &MAC].concat())]).mac,
            Some(MAC)
        );
        assert_eq!(with(vec![(code::CLIENT_ID, vec![0, 2, 9])]).mac, None);
    }

    #[test]
    fn ipxe_and_our_agent_are_known_by_their_user_class() {
        let class = |text: &[u8]| [&(text.len() as u16).to_be_bytes()[..], text].concat();

        assert_eq!(with(vec![(code::USER_CLASS, class(b"iPXE"))]).kind, Kind::Ipxe);
        assert_eq!(with(vec![(code::USER_CLASS, class(AGENT_USER_CLASS))]).kind, Kind::Agent);
        assert_eq!(with(Vec::new()).kind, Kind::System);
    }
}
