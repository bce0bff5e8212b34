//! Identifies a DHCPv4 client by the contents of its packet; nothing is guessed.

mod ipxe;

use std::fmt;

use hardware::{ClientArchitecture, ClientKind, Mac};

pub use self::ipxe::{Feature, Features};
use crate::v4::Packet;
use crate::v4::options as code;

/// A client, as its packet describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its MAC address.
    pub mac: Mac,
    /// Its kind.
    pub kind: ClientKind,
    /// Its architectures (option 93), the preferred one first.
    pub architectures: Vec<ClientArchitecture>,
    /// Its SMBIOS UUID (option 97), byte for byte: the first three fields are little-endian.
    pub machine_id: Option<[u8; 16]>,
    /// Its client identifier (option 61), byte for byte.
    pub client_id: Option<Vec<u8>>,
    /// Its network interface type (option 94).
    pub interface: Option<ClientInterface>,
    /// iPXE's features (option 175); empty for other clients.
    pub features: Features,
}

/// A client network interface identifier (RFC 4578 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientInterface {
    /// Its type; 1 is UNDI.
    pub kind: u8,
    /// Its version; 3 is the first of EFI.
    pub major: u8,
    /// The minor version.
    pub minor: u8,
}

/// The user class of our ramdisk agent.
pub const AGENT_USER_CLASS: &[u8] = b"ferroboot-agent";

impl Client {
    /// Identifies the sender of a packet.
    #[must_use]
    pub fn identify(packet: &Packet) -> Self {
        Self {
            mac: packet.chaddr,
            kind: kind_of(packet),
            architectures: architectures(packet),
            machine_id: machine_id(packet),
            client_id: packet.option(code::CLIENT_ID).map(<[u8]>::to_vec),
            interface: interface(packet),
            features: Features::of(packet),
        }
    }

    /// The architecture that selects the loader: the first in option 93, which may list several (RFC 4578 §2.1).
    #[must_use]
    pub fn architecture(&self) -> Option<ClientArchitecture> {
        self.architectures.first().copied()
    }
}

/// The kind of client that sent a packet.
#[must_use]
pub fn kind_of(packet: &Packet) -> ClientKind {
    let class = packet.option(code::VENDOR_CLASS).unwrap_or_default();
    // iPXE started by HTTP boot sends `PXEClient` in option 60. Only its user class and option 175 distinguish it
    // from firmware, so both are checked first.
    if has_user_class(packet, b"iPXE") || packet.option(code::IPXE).is_some() {
        ClientKind::Ipxe
    } else if has_user_class(packet, AGENT_USER_CLASS) {
        ClientKind::Agent
    } else if has_user_class(packet, b"GRUB") {
        // GRUB may keep the vendor class of the firmware that started it.
        ClientKind::Grub
    } else if class.starts_with(b"HTTPClient") {
        ClientKind::HttpClient
    } else if class.starts_with(b"PXEClient") {
        ClientKind::PxeClient
    } else if class.starts_with(b"GRUB") {
        ClientKind::Grub
    } else {
        ClientKind::System
    }
}

impl fmt::Display for ClientInterface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, major, minor } = self;
        match kind {
            1 => write!(f, "UNDI {major}.{minor}"),
            _ => write!(f, "interface {kind}, {major}.{minor}"),
        }
    }
}

/// RFC 3004 puts a length before each class. iPXE and others send the bare text, with or without a NUL after it.
fn has_user_class(packet: &Packet, wanted: &[u8]) -> bool {
    let Some(value) = packet.option(code::USER_CLASS) else { return false };
    value.starts_with(wanted) || classes(value).any(|class| class == wanted)
}

/// The classes of an RFC 3004 option. The last one may be truncated.
fn classes(mut value: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = value.split_first()?;
        let (class, after) = rest.split_at_checked(usize::from(*len)).unwrap_or((rest, &[]));
        value = after;
        Some(class)
    })
}

/// The architectures of option 93. If option 93 is truncated within a code, the architecture of the vendor class.
fn architectures(packet: &Packet) -> Vec<ClientArchitecture> {
    let (pairs, rest) = packet.option(code::ARCHITECTURE).unwrap_or_default().as_chunks::<2>();
    let codes: Vec<_> =
        pairs.iter().map(|pair| ClientArchitecture(u16::from_be_bytes(*pair))).collect();
    let is_whole = rest.is_empty() && !codes.is_empty();
    match architecture_in_class(packet).filter(|_| !is_whole) {
        Some(named) => vec![named],
        None => codes,
    }
}

/// The architecture in a vendor class: `HTTPClient:Arch:00016:UNDI:003000` has it in decimal.
fn architecture_in_class(packet: &Packet) -> Option<ClientArchitecture> {
    let class = std::str::from_utf8(packet.option(code::VENDOR_CLASS)?).ok()?;
    let mut parts = class.split(':').skip_while(|part| *part != "Arch");
    parts.nth(1)?.parse().ok().map(ClientArchitecture)
}

fn machine_id(packet: &Packet) -> Option<[u8; 16]> {
    // RFC 4578 §2.3: one byte of type, which must be 0, and 16 bytes. Firmware without a UUID omits the option or
    // sends all zeros or all ones, which identify nothing.
    let id: [u8; 16] = packet.option(code::MACHINE_ID)?.strip_prefix(&[0])?.try_into().ok()?;
    let blank = id.iter().all(|byte| *byte == 0) || id.iter().all(|byte| *byte == 0xff);
    (!blank).then_some(id)
}

fn interface(packet: &Packet) -> Option<ClientInterface> {
    let value = packet.option(code::INTERFACE)?.try_into().ok();
    value.map(|[kind, major, minor]: [u8; 3]| ClientInterface { kind, major, minor })
}

#[cfg(test)]
mod tests {
    use hardware::architecture::X64_HTTP;

    use super::*;
    use crate::v4::packet::tests::discover;

    fn with(options: &[(u8, &[u8])]) -> Client {
        let mut packet = discover([0x52, 0x54, 0, 0, 0, 1]);
        packet.options = options.iter().map(|(code, value)| (*code, value.to_vec())).collect();
        Client::identify(&packet)
    }

    #[test]
    fn firmware_that_wants_http_is_told_by_its_vendor_class() {
        let client = with(&[
            (code::VENDOR_CLASS, b"HTTPClient:Arch:00016:UNDI:003000"),
            (code::ARCHITECTURE, &[0, 0x10]),
        ]);

        assert_eq!(client.kind, ClientKind::HttpClient);
        assert_eq!(client.architecture(), Some(X64_HTTP));
    }

    #[test]
    fn ipxe_is_not_taken_for_the_firmware_whose_class_it_sends() {
        let class = (code::VENDOR_CLASS, &b"PXEClient:Arch:00007:UNDI:003010"[..]);

        assert_eq!(with(&[class, (code::USER_CLASS, b"iPXE")]).kind, ClientKind::Ipxe);
        assert_eq!(with(&[class, (code::USER_CLASS, b"\x04iPXE")]).kind, ClientKind::Ipxe);
        assert_eq!(with(&[class, (code::USER_CLASS, b"iPXE\0")]).kind, ClientKind::Ipxe);
        assert_eq!(
            with(&[class, (code::USER_CLASS, b"iPXEiPXE")]).kind,
            ClientKind::Ipxe,
            "sent twice"
        );
        assert_eq!(with(&[class, (code::IPXE, &[1, 1, 1])]).kind, ClientKind::Ipxe);
        assert_eq!(with(&[class]).kind, ClientKind::PxeClient);
    }

    #[test]
    fn the_architecture_is_read_from_the_class_where_option_93_is_missing() {
        let client = with(&[(code::VENDOR_CLASS, b"HTTPClient:Arch:00019:UNDI:003000")]);

        assert_eq!(client.architecture(), Some(ClientArchitecture(0x13)));
    }

    #[test]
    fn the_architecture_is_read_from_the_class_where_option_93_is_empty_or_cut() {
        for value in [&[][..], &[0], &[0, 0x10, 0]] {
            let mut packet = discover([0x52, 0x54, 0, 0, 0, 1]);
            let class = b"HTTPClient:Arch:00019:UNDI:003000".to_vec();
            packet.options =
                vec![(code::ARCHITECTURE, value.to_vec()), (code::VENDOR_CLASS, class)];

            let client = Client::identify(&Packet::parse(&packet.emit()).unwrap());

            assert_eq!(client.architectures, [ClientArchitecture(0x13)]);
        }
    }

    #[test]
    fn the_whole_codes_of_a_cut_option_93_count_where_the_class_says_none() {
        let architectures = |value: &[u8]| with(&[(code::ARCHITECTURE, value)]).architectures;

        assert_eq!(architectures(&[0, 0x10, 0]), [ClientArchitecture(0x10)]);
        assert_eq!(architectures(&[0]), []);
    }

    #[test]
    fn several_architectures_are_kept_in_their_order() {
        let client = with(&[(code::ARCHITECTURE, &[0, 0x10, 0, 0x07])]);

        assert_eq!(client.architectures, [ClientArchitecture(0x10), ClientArchitecture(0x07)]);
    }

    #[test]
    fn grub_is_told_by_its_user_class_or_its_vendor_class() {
        let class = (code::VENDOR_CLASS, &b"HTTPClient:Arch:00016:UNDI:003000"[..]);

        assert_eq!(with(&[class, (code::USER_CLASS, b"GRUB")]).kind, ClientKind::Grub);
        assert_eq!(with(&[(code::USER_CLASS, b"\x04GRUB")]).kind, ClientKind::Grub);
        assert_eq!(with(&[(code::VENDOR_CLASS, b"GRUB2.06")]).kind, ClientKind::Grub);
    }

    #[test]
    fn a_machine_id_of_zeros_or_ones_identifies_nothing() {
        assert_eq!(with(&[(code::MACHINE_ID, &[0; 17])]).machine_id, None);
        let mut ones = [0xff; 17];
        ones[0] = 0;
        assert_eq!(with(&[(code::MACHINE_ID, &ones)]).machine_id, None);
        ones[16] = 7;
        assert!(with(&[(code::MACHINE_ID, &ones)]).machine_id.is_some());
    }

    #[test]
    fn the_interface_to_the_card_is_read() {
        let interface = |value: &[u8]| with(&[(code::INTERFACE, value)]).interface;

        assert_eq!(interface(&[1, 3, 16]).unwrap().to_string(), "UNDI 3.16");
        assert_eq!(interface(&[1, 3]), None);
    }

    #[test]
    fn a_plain_system_and_our_agent_are_told_apart() {
        assert_eq!(with(&[(code::VENDOR_CLASS, b"udhcp 1.35")]).kind, ClientKind::System);
        assert_eq!(with(&[(code::USER_CLASS, b"\x0fferroboot-agent")]).kind, ClientKind::Agent);
    }
}
