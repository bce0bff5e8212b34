//! Templates of both families' messages, and parsers of the answers.

use std::iter;
use std::net::{IpAddr, Ipv4Addr};

const CLASS: &[u8] = b"HTTPClient:Arch:00016:UNDI:003000";

/// A server's packet.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The transaction ID, as parsed.
    pub(crate) exchange: u32,
    pub(crate) mac: u64,
    pub(crate) kind: Kind,
    pub(crate) address: Option<IpAddr>,
    pub(crate) has_url: bool,
    /// Options for the client's REQUEST.
    pub(crate) taken: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Offer,
    Ack,
    Other(u8),
}

/// A family's messages: a template with patches, followed by options.
pub(crate) struct Protocol {
    pub(crate) port: u16,
    pub(crate) template: Vec<u8>,
    /// The last options of the first message.
    pub(crate) first: Vec<u8>,
    /// The types of the first and the second message.
    pub(crate) kinds: (u8, u8),
    pub(crate) kind_at: usize,
    pub(crate) transaction_at: usize,
    pub(crate) mac_at: Vec<usize>,
    /// The offset of the length of the rest, if the message has one.
    pub(crate) length_at: Option<usize>,
    pub(crate) read: fn(&[u8]) -> Option<Answer>,
}

/// `DHCPv4` (RFC 2131), with the relay's address in `giaddr`.
pub(crate) fn four(relay: Ipv4Addr) -> Protocol {
    let mut template = vec![0; 240];
    template[..4].copy_from_slice(&[1, 1, 6, 1]);
    template[10] = 0x80; // to be answered by broadcast
    template[24..28].copy_from_slice(&relay.octets());
    template[236..].copy_from_slice(b"\x63\x82\x53\x63");
    let option = |code: u8, value: &[u8]| [&[code, value.len() as u8], value].concat();
    template.extend(option(53, &[0]));
    template.extend(option(55, &[1, 3, 6, 60, 67]));
    template.extend(option(57, b"\x05\xc0"));
    template.extend(option(60, CLASS));
    template.extend(option(93, b"\x00\x10"));
    template.extend(option(94, b"\x01\x03\x00"));
    Protocol {
        port: 67,
        template,
        first: vec![255],
        kinds: (1, 3),
        kind_at: 242,
        transaction_at: 5,
        mac_at: vec![28],
        length_at: None,
        read: read_four,
    }
}

fn read_four(packet: &[u8]) -> Option<Answer> {
    let mut rest = packet.get(240..)?;
    let (mut kind, mut server, mut has_url) = (0, None, false);
    while let [code, more @ ..] = rest
        && *code != 255
    {
        rest = more;
        if *code == 0 {
            continue;
        }
        let (length, more) = rest.split_first()?;
        let (value, more) = more.split_at_checked((*length).into())?;
        rest = more;
        match code {
            53 => kind = *value.first()?,
            54 => server = Some(value),
            67 => has_url = value.starts_with(b"http"),
            _ => {}
        }
    }
    let [a, b, c, d] = *packet[16..20].as_array()?;
    let address = Ipv4Addr::new(a, b, c, d);
    let taken = [&[50, 4, a, b, c, d, 54, 4][..], server.unwrap_or_default(), &[255]].concat();
    Some(Answer {
        exchange: u32::from_be_bytes([0, packet[5], packet[6], packet[7]]),
        mac: mac_number(&packet[28..34]),
        kind: match kind {
            2 => Kind::Offer,
            5 => Kind::Ack,
            other => Kind::Other(other),
        },
        address: (!address.is_unspecified() && server?.len() == 4).then_some(address.into()),
        has_url,
        taken,
    })
}

/// `DHCPv6` (RFC 8415) in a Relay-forward of one hop, with the client's MAC address (RFC 6939).
pub(crate) fn six(relay: &[u8; 16]) -> Protocol {
    let mut template = [&[12, 0], &relay[..], b"\xfe\x80", &[0; 14]].concat();
    template.extend(option_six(79, &[0, 1, 0, 0, 0, 0, 0, 0]));
    template.extend([0, 9, 0, 0]);
    let inner = template.len();
    template.extend([0; 4]);
    template.extend(option_six(1, &[0, 3, 0, 1, 0, 0, 0, 0, 0, 0]));
    template.extend(option_six(8, &[0; 2]));
    template.extend(option_six(6, &[0, 59, 0, 60, 0, 23, 0, 16]));
    template.extend(option_six(16, &[b"\x00\x00\x01\x57\x00\x21", CLASS].concat()));
    template.extend(option_six(61, b"\x00\x10"));
    template.extend(option_six(62, b"\x01\x03\x00"));
    Protocol {
        port: 547,
        template,
        first: option_six(3, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        kinds: (1, 3),
        kind_at: inner,
        transaction_at: inner + 1,
        // In the peer address, in option 79, and in the client identifier.
        mac_at: vec![26, 40, inner + 12],
        length_at: Some(inner - 2),
        read: read_six,
    }
}

fn read_six(packet: &[u8]) -> Option<Answer> {
    let inner = find_six(packet.get(34..)?, 9)?;
    let options = inner.get(4..)?;
    let (server, client) = (find_six(options, 2)?, find_six(options, 1)?);
    let lease = find_six(options, 3).unwrap_or_default();
    let address = lease.get(12..).and_then(|within| find_six(within, 5)?.first_chunk::<16>());
    Some(Answer {
        exchange: u32::from_be_bytes([0, inner[1], inner[2], inner[3]]),
        mac: mac_number(client.get(4..10)?),
        kind: match inner[0] {
            2 => Kind::Offer,
            7 => Kind::Ack,
            other => Kind::Other(other),
        },
        address: address.map(|&address| address.into()),
        has_url: find_six(options, 59).is_some_and(|url| url.starts_with(b"http")),
        taken: [option_six(2, server), option_six(3, lease)].concat(),
    })
}

fn find_six(mut options: &[u8], wanted: u16) -> Option<&[u8]> {
    iter::from_fn(|| {
        let (&[a, b, c, d], rest) = options.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(u16::from_be_bytes([c, d]).into())?;
        options = rest;
        Some((u16::from_be_bytes([a, b]), value))
    })
    .find_map(|(code, value)| (code == wanted).then_some(value))
}

fn option_six(code: u16, value: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), &(value.len() as u16).to_be_bytes(), value].concat()
}

pub(crate) fn mac_number(mac: &[u8]) -> u64 {
    mac.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}
