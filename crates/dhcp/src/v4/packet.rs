//! The wire format. A damaged message is used up to the damage: firmware with one wrong byte can still boot.

use std::net::Ipv4Addr;
use std::ops::Range;

use hardware::Mac;
use thiserror::Error;

use super::options as code;

/// The fixed part before the magic cookie (RFC 2131 §2).
const HEADER: usize = 236;
/// `file` without its last byte, which is a NUL in any case (RFC 2131 §2).
const FILE: Range<usize> = 108..235;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Least size of a BOOTP message; some relays and clients drop shorter ones (RFC 1542 §2.1).
const LEAST: usize = 300;
/// Largest message that EDK2 accepts, without the IP header (`DHCP_DEFAULT_MAX_MESSAGE_SIZE`, `Dhcp4Io.c`). EDK2
/// drops larger ones silently.
pub const LARGEST: usize = 1472;

/// Whether a packet comes from a client or a server (`op`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// BOOTREQUEST.
    Request,
    /// BOOTREPLY.
    Reply,
}

/// DHCP message types (RFC 2132 §9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// DHCPDISCOVER.
    Discover,
    /// DHCPOFFER.
    Offer,
    /// DHCPREQUEST.
    Request,
    /// DHCPDECLINE.
    Decline,
    /// DHCPACK.
    Ack,
    /// DHCPNAK.
    Nak,
    /// DHCPRELEASE.
    Release,
    /// DHCPINFORM.
    Inform,
}

impl MessageType {
    pub(crate) const ALL: [Self; 8] = [
        Self::Discover,
        Self::Offer,
        Self::Request,
        Self::Decline,
        Self::Ack,
        Self::Nak,
        Self::Release,
        Self::Inform,
    ];

    /// The value of option 53.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Discover => 1,
            Self::Offer => 2,
            Self::Request => 3,
            Self::Decline => 4,
            Self::Ack => 5,
            Self::Nak => 6,
            Self::Release => 7,
            Self::Inform => 8,
        }
    }

    /// Its name without the `DHCP` in front.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Discover => "DISCOVER",
            Self::Offer => "OFFER",
            Self::Request => "REQUEST",
            Self::Decline => "DECLINE",
            Self::Ack => "ACK",
            Self::Nak => "NAK",
            Self::Release => "RELEASE",
            Self::Inform => "INFORM",
        }
    }

    fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|message| message.code() == code)
    }
}

/// The hardware address type of a message (RFC 2131 §2). Only the client depends on it: it may compare the reply's
/// with its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// `htype`, an ARP hardware type.
    pub htype: u8,
    /// `hlen`, the length of the hardware address in bytes.
    pub hlen: u8,
}

impl Hardware {
    /// Ethernet, the usual type.
    pub const ETHERNET: Self = Self { htype: 1, hlen: 6 };
    /// `htype` of Ethernet and of IEEE 802 networks; both have MAC addresses.
    const MAC_TYPES: [u8; 2] = [1, 6];

    /// Whether `chaddr` begins with a MAC address. Some clients send the field's 16 bytes as its length, or 0.
    fn has_mac(self, chaddr: Mac) -> bool {
        let is_mac = self.hlen == 6 || Self::MAC_TYPES.contains(&self.htype);
        is_mac && (self == Self::ETHERNET || chaddr != Mac([0; 6]))
    }
}

/// A DHCPv4 message over Ethernet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// From a client or a server.
    pub op: Op,
    /// `htype` and `hlen`.
    pub hardware: Hardware,
    /// Number of relays passed.
    pub hops: u8,
    /// The client's transaction ID.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// Whether the client needs a broadcast reply.
    pub broadcast: bool,
    /// The client's address, if it has one.
    pub ciaddr: Ipv4Addr,
    /// The address for the client.
    pub yiaddr: Ipv4Addr,
    /// The next server.
    pub siaddr: Ipv4Addr,
    /// The first relay's address.
    pub giaddr: Ipv4Addr,
    /// The client's MAC address.
    pub chaddr: Mac,
    /// `file`, up to its first NUL; empty where it is not used.
    pub file: Vec<u8>,
    /// Its type, option 53.
    pub message: MessageType,
    /// All other options, in wire order; each code once (RFC 3396 joins split options).
    pub options: Vec<(u8, Vec<u8>)>,
}

/// The reason for rejecting a message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseError {
    /// Shorter than the fixed part and the cookie.
    #[error("a DHCP message has at least 240 bytes, this one {0}")]
    Short(usize),
    /// Neither request nor reply.
    #[error("op is {0}, not 1 or 2")]
    Op(u8),
    /// Not Ethernet.
    #[error("hardware type {htype} with {hlen} bytes of address is not Ethernet")]
    NotEthernet {
        /// `htype`.
        htype: u8,
        /// `hlen`.
        hlen: u8,
    },
    /// BOOTP without DHCP, or another protocol.
    #[error("the magic cookie is missing")]
    NoCookie,
    /// An option claims more bytes than the packet has, and no message type comes before it.
    #[error("option {code} needs {needed} bytes, {left} left, and no message type comes before it")]
    Truncated {
        /// The option.
        code: u8,
        /// Its length byte.
        needed: usize,
        /// The remaining bytes.
        left: usize,
    },
    /// Option 53 is missing or unknown.
    #[error("there is no DHCP message type (option 53)")]
    NoMessageType,
    /// The message type of option 53 is not one that clients send or receive.
    #[error("{}", in_words(*.0))]
    MessageType(u8),
    /// An option has an invalid size.
    #[error("option {code} cannot have {len} bytes")]
    Size {
        /// The option.
        code: u8,
        /// Its length.
        len: usize,
    },
}

impl ParseError {
    /// Whether the message is well-formed but of a type that clients neither send nor receive, like a lease query.
    #[must_use]
    pub fn is_of_others(&self) -> bool {
        matches!(self, Self::MessageType(message) if code::message_of_others(*message).is_some())
    }

    /// A short name, for counters.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Short(_) => "short",
            Self::Op(_) => "op",
            Self::NotEthernet { .. } => "not_ethernet",
            Self::NoCookie => "no_cookie",
            Self::Truncated { .. } => "truncated",
            Self::NoMessageType => "no_message_type",
            Self::MessageType(_) => "message_type",
            Self::Size { .. } => "size",
        }
    }
}

impl Packet {
    /// Reads a UDP payload.
    ///
    /// Bytes after the end option are ignored, and the end option may be missing. A truncated option and all after it
    /// are ignored, except for the beginning of a class. Parameter request lists and client descriptions of an
    /// invalid size are ignored, as EDK2's own reader does. Of a repeated option with a fixed size, the first value
    /// counts.
    ///
    /// # Errors
    /// The part that is wrong. Never panics.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let header = bytes.get(..HEADER + 4).ok_or(ParseError::Short(bytes.len()))?;
        let op = match header[0] {
            1 => Op::Request,
            2 => Op::Reply,
            other => return Err(ParseError::Op(other)),
        };
        if header[HEADER..] != COOKIE {
            return Err(ParseError::NoCookie);
        }
        let (message, options, file_is_options) = read_options(bytes)?;
        let hardware = Hardware { htype: header[1], hlen: header[2] };
        let chaddr = Mac(array(header, 28));
        if !hardware.has_mac(chaddr) {
            let Hardware { htype, hlen } = hardware;
            return Err(ParseError::NotEthernet { htype, hlen });
        }
        Ok(Self {
            op,
            hardware,
            hops: header[3],
            xid: u32::from_be_bytes(array(header, 4)),
            secs: u16::from_be_bytes(array(header, 8)),
            broadcast: header[10] & 0x80 != 0,
            ciaddr: address(header, 12),
            yiaddr: address(header, 16),
            siaddr: address(header, 20),
            giaddr: address(header, 24),
            chaddr,
            file: if file_is_options { Vec::new() } else { until_nul(&header[FILE]) },
            message,
            options,
        })
    }

    /// The encoded message, padded to at least 300 bytes.
    ///
    /// Option 53 comes first, the rest in the order of `options`. An option over 255 bytes is split (RFC 3396).
    /// `file` is cut to 127 bytes.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len().max(LEAST));
        bytes.resize(HEADER, 0);
        bytes[0] = match self.op {
            Op::Request => 1,
            Op::Reply => 2,
        };
        (bytes[1], bytes[2]) = (self.hardware.htype, self.hardware.hlen);
        bytes[3] = self.hops;
        bytes[4..8].copy_from_slice(&self.xid.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.secs.to_be_bytes());
        bytes[10] = if self.broadcast { 0x80 } else { 0 };
        bytes[12..16].copy_from_slice(&self.ciaddr.octets());
        bytes[16..20].copy_from_slice(&self.yiaddr.octets());
        bytes[20..24].copy_from_slice(&self.siaddr.octets());
        bytes[24..28].copy_from_slice(&self.giaddr.octets());
        bytes[28..34].copy_from_slice(&self.chaddr.0);
        let file = &self.file[..self.file.len().min(FILE.len())];
        bytes[FILE][..file.len()].copy_from_slice(file);
        bytes.extend(COOKIE);
        bytes.extend([code::MESSAGE_TYPE, 1, self.message.code()]);
        for (code, value) in &self.options {
            write_option(&mut bytes, *code, value);
        }
        bytes.push(code::END);
        bytes.resize(bytes.len().max(LEAST), code::PAD);
        bytes
    }

    /// The size of [`Packet::emit`]'s result in bytes, without the padding to 300.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a message is never empty")]
    pub fn len(&self) -> usize {
        let sizes = self.options.iter().map(|(_, value)| size_of_option(value.len()));
        HEADER + COOKIE.len() + size_of_option(1) + sizes.sum::<usize>() + 1
    }

    /// The value of an option; option 53 is [`Packet::message`].
    #[must_use]
    pub fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.iter().find(|(have, _)| *have == code).map(|(_, value)| value.as_slice())
    }

    /// An option that holds one address.
    #[must_use]
    pub fn option_address(&self, code: u8) -> Option<Ipv4Addr> {
        self.option(code)?.try_into().ok().map(|bytes: [u8; 4]| Ipv4Addr::from(bytes))
    }

    /// An option that holds addresses.
    #[must_use]
    pub fn option_addresses(&self, code: u8) -> Vec<Ipv4Addr> {
        let chunks = self.option(code).unwrap_or_default().chunks_exact(4);
        chunks.map(|bytes| address(bytes, 0)).collect()
    }

    /// An option that holds 32 bits.
    #[must_use]
    pub fn option_u32(&self, code: u8) -> Option<u32> {
        self.option(code)?.try_into().ok().map(u32::from_be_bytes)
    }
}

type OptionList = Vec<(u8, Vec<u8>)>;

/// The message type, all other options, and whether `file` holds options.
fn read_options(bytes: &[u8]) -> Result<(MessageType, OptionList, bool), ParseError> {
    let mut options = OptionList::new();
    let cut_off = read_area(&bytes[HEADER + 4..], &mut options);
    let overload = take(&mut options, code::OVERLOAD).and_then(|value| value.first().copied());
    // RFC 2131 §4.1: `file` comes first, then `sname`.
    let file_is_options = matches!(overload, Some(1 | 3));
    if file_is_options {
        read_area(&bytes[108..236], &mut options);
    }
    if matches!(overload, Some(2 | 3)) {
        read_area(&bytes[44..108], &mut options);
    }
    // An overload option inside the overloaded fields is meaningless, and must not be sent again.
    take(&mut options, code::OVERLOAD);
    let message = take(&mut options, code::MESSAGE_TYPE).and_then(|value| value.first().copied());
    let message = message.ok_or_else(|| cut_off.unwrap_or(ParseError::NoMessageType))?;
    let message = MessageType::of_code(message).ok_or(ParseError::MessageType(message))?;
    options.retain(|(code, value)| is_usable(*code, value.len(), message));
    check_server_id(&options)?;
    Ok((message, options, file_is_options))
}

/// Adds the options of an area. Returns an error for a truncated option.
fn read_area(mut area: &[u8], options: &mut OptionList) -> Option<ParseError> {
    while let [code, rest @ ..] = area {
        match *code {
            code::PAD => area = rest,
            code::END => return None,
            code => {
                let [len, rest @ ..] = rest else {
                    return Some(ParseError::Truncated { code, needed: 1, left: 0 });
                };
                let needed = usize::from(*len);
                let Some((value, after)) = rest.split_at_checked(needed) else {
                    // The beginning of these texts identifies the client.
                    if [code::VENDOR_CLASS, code::USER_CLASS].contains(&code) {
                        join(options, code, rest);
                    }
                    return Some(ParseError::Truncated { code, needed, left: rest.len() });
                };
                join(options, code, value);
                area = after;
            }
        }
    }
    None
}

/// RFC 3396: the parts of a repeated option form one value. A repeated option that is complete was sent twice, not
/// split.
fn join(options: &mut OptionList, code: u8, value: &[u8]) {
    match options.iter_mut().find(|(have, _)| *have == code) {
        Some((_, have)) if Some(have.len()) == code::fixed_size(code) => {}
        Some((_, have)) => have.extend_from_slice(value),
        None => options.push((code, value.to_vec())),
    }
}

/// Whether an optional option can be used: the client's requests and descriptions of itself. A machine with an error
/// in one of them should still boot.
fn is_usable(code: u8, len: usize, message: MessageType) -> bool {
    match code {
        code::REQUESTED_ADDRESS | code::LEASE_TIME | code::SUBNET_MASK => len == 4,
        code::MAX_SIZE => len == 2,
        // The server identifier matters only in messages to a chosen server.
        code::SERVER_ID => len == 4 || chooses_a_server(message),
        _ => true,
    }
}

/// Whether a message is for one server alone, or from one.
fn chooses_a_server(message: MessageType) -> bool {
    match message {
        MessageType::Request
        | MessageType::Decline
        | MessageType::Release
        | MessageType::Offer
        | MessageType::Ack
        | MessageType::Nak => true,
        MessageType::Discover | MessageType::Inform => false,
    }
}

/// Rejects a truncated server identifier: the decision depends on it.
fn check_server_id(options: &OptionList) -> Result<(), ParseError> {
    let named = options.iter().find(|(code, _)| *code == code::SERVER_ID);
    match named.map(|(_, value)| value.len()).filter(|len| *len != 4) {
        Some(len) => Err(ParseError::Size { code: code::SERVER_ID, len }),
        None => Ok(()),
    }
}

/// Describes a message type that neither clients send nor servers send to clients.
fn in_words(message: u8) -> String {
    match code::message_of_others(message) {
        Some((name, about)) => format!("it is a {name} (message type {message}), {about}"),
        None => format!("message type {message} is unknown"),
    }
}

fn take(options: &mut OptionList, code: u8) -> Option<Vec<u8>> {
    let at = options.iter().position(|(have, _)| *have == code)?;
    Some(options.remove(at).1)
}

fn write_option(bytes: &mut Vec<u8>, code: u8, value: &[u8]) {
    if value.is_empty() {
        bytes.extend([code, 0]);
    }
    for part in value.chunks(part_of(value.len())) {
        let len = u8::try_from(part.len()).expect("parts are at most 255 bytes");
        bytes.extend([code, len]);
        bytes.extend(part);
    }
}

/// The size of an option's parts (RFC 3396). EDK2 checks the size of each part by itself (`DhcpValidateOptions`), so
/// the parts are nearly equal, and none cuts an address.
fn part_of(len: usize) -> usize {
    if len <= 255 { 255 } else { len.div_ceil(len.div_ceil(252)).next_multiple_of(4) }
}

/// The size of an option with a code and a length for each part.
fn size_of_option(len: usize) -> usize {
    len + 2 * len.div_ceil(part_of(len)).max(1)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the fixed part was checked to be there")
}

fn address(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::from(array::<4>(bytes, at))
}

fn until_nul(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().take_while(|byte| *byte != 0).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A plain DISCOVER.
    pub(crate) fn discover(chaddr: impl Into<Mac>) -> Packet {
        Packet {
            op: Op::Request,
            hardware: Hardware::ETHERNET,
            hops: 0,
            xid: 0x1234_5678,
            secs: 0,
            broadcast: true,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: Ipv4Addr::UNSPECIFIED,
            chaddr: chaddr.into(),
            file: Vec::new(),
            message: MessageType::Discover,
            options: Vec::new(),
        }
    }

    prop_compose! {
        fn packets()(
            xid: u32, secs: u16, broadcast: bool, chaddr: [u8; 6], addresses: [u32; 4], hops: u8,
            request: bool, kind in 0..8_usize, file in prop::collection::vec(1..=255_u8, 0..128),
            options in prop::collection::btree_map(
                (60..=254_u8).prop_filter("sized", |code| *code != code::ARCHITECTURE),
                prop::collection::vec(any::<u8>(), 0..600),
                0..6,
            ),
        ) -> Packet {
            let [ciaddr, yiaddr, siaddr, giaddr] = addresses.map(Ipv4Addr::from);
            Packet {
                op: if request { Op::Request } else { Op::Reply },
                hardware: Hardware::ETHERNET,
                hops, xid, secs, broadcast, ciaddr, yiaddr, siaddr, giaddr, chaddr: Mac(chaddr), file,
                message: MessageType::ALL[kind],
                options: options.into_iter().collect(),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_sent_is_read_back(packet in packets()) {
            let bytes = packet.emit();
            prop_assert_eq!(bytes.len(), packet.len().max(LEAST));
            prop_assert_eq!(Packet::parse(&bytes), Ok(packet));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Packet::parse(&bytes);
        }

        #[test]
        fn no_options_make_it_panic(
            options in prop::collection::vec(any::<u8>(), 0..400),
            fields in prop::collection::vec(any::<u8>(), 192),
        ) {
            let mut bytes = discover([2; 6]).emit();
            bytes[44..236].copy_from_slice(&fields);
            bytes.truncate(243);
            bytes.extend(options);
            let _ = Packet::parse(&bytes);
        }

        #[test]
        fn a_reference_decoder_reads_the_same(mut packet in packets()) {
            use dhcproto::{Decodable as _, Decoder, v4};
            // The other parser stops silently at an option with an invalid value. Options for private use (RFC 2132
            // §2) have no invalid values.
            packet.options.retain(|(code, _)| *code >= 224);
            let bytes = packet.emit();
            let theirs = v4::Message::decode(&mut Decoder::new(&bytes)).unwrap();
            prop_assert_eq!(theirs.xid(), packet.xid);
            prop_assert_eq!(theirs.yiaddr(), packet.yiaddr);
            prop_assert_eq!(theirs.chaddr(), packet.chaddr.0);
            prop_assert_eq!(
                theirs.opts().msg_type().map(u8::from),
                Some(packet.message.code())
            );
        }
    }

    /// A DISCOVER with these bytes as its options, without an end option.
    fn with_options(options: &[u8]) -> Vec<u8> {
        let mut bytes = discover([2; 6]).emit();
        bytes.truncate(HEADER + COOKIE.len());
        bytes.extend(options);
        bytes
    }

    const DISCOVER: [u8; 3] = [code::MESSAGE_TYPE, 1, 1];

    #[test]
    fn what_comes_before_an_option_that_is_cut_off_is_heard() {
        for cut_off in [&[code::VENDOR_CLASS][..], &[code::DOMAIN, 10, b'H', b'T'], &[7]] {
            let options = [&DISCOVER[..], &[code::HOST_NAME, 1, b'a'], cut_off].concat();

            let packet = Packet::parse(&with_options(&options)).unwrap();

            assert_eq!(packet.message, MessageType::Discover);
            assert_eq!(packet.options, [(code::HOST_NAME, b"a".to_vec())]);
        }
    }

    #[test]
    fn a_class_that_is_cut_off_is_heard_as_far_as_it_goes() {
        for code in [code::VENDOR_CLASS, code::USER_CLASS] {
            let options = [&DISCOVER[..], &[code, 40], b"HTTPClient:Arch:00016"].concat();

            let packet = Packet::parse(&with_options(&options)).unwrap();

            assert_eq!(packet.option(code), Some(&b"HTTPClient:Arch:00016"[..]));
        }
    }

    #[test]
    fn a_message_whose_type_comes_after_an_option_that_is_cut_off_is_refused_for_that() {
        let cut_off = [code::VENDOR_CLASS, 10, b'H', b'T'];

        let error = Packet::parse(&with_options(&cut_off)).unwrap_err();

        assert!(error.to_string().starts_with("option 60 needs 10 bytes, 2 left"), "{error}");
    }

    #[test]
    fn fields_that_hold_broken_options_cost_nothing_but_those() {
        let mut bytes = with_options(&[&DISCOVER[..], &[code::OVERLOAD, 1, 3]].concat());
        bytes[108..114].copy_from_slice(&[code::HOST_NAME, 1, b'a', code::DOMAIN, 200, 0]);
        bytes[44..47].copy_from_slice(&[code::ROUTER, 200, 0]);

        let packet = Packet::parse(&bytes).unwrap();

        assert_eq!(packet.options, [(code::HOST_NAME, b"a".to_vec())]);
    }

    #[test]
    fn an_option_of_a_fixed_size_that_comes_twice_is_what_it_was_first() {
        let server = |last| [code::SERVER_ID, 4, 10, 0, 0, last];
        let wanted = |last| [code::REQUESTED_ADDRESS, 4, 10, 0, 0, last];
        let options = [
            &[code::MESSAGE_TYPE, 1, 3, code::MESSAGE_TYPE, 1, 1][..],
            &[server(1), server(2), wanted(8), wanted(9)].concat(),
        ];

        let packet = Packet::parse(&with_options(&options.concat())).unwrap();

        assert_eq!(packet.message, MessageType::Request);
        assert_eq!(packet.option_address(code::SERVER_ID), Some(Ipv4Addr::new(10, 0, 0, 1)));
        let wanted = packet.option_address(code::REQUESTED_ADDRESS);
        assert_eq!(wanted, Some(Ipv4Addr::new(10, 0, 0, 8)));
    }

    #[test]
    fn a_mac_address_is_taken_whatever_is_said_of_its_kind_and_length() {
        let read = |htype, hlen, chaddr: Mac| {
            let mut bytes = with_options(&DISCOVER);
            bytes[1..3].copy_from_slice(&[htype, hlen]);
            bytes[28..34].copy_from_slice(&chaddr.0);
            Packet::parse(&bytes).map(|packet| (packet.chaddr, packet.hardware))
        };
        let mac = Mac([0x52, 0x54, 0, 0, 0, 1]);

        for (htype, hlen) in [(1, 6), (1, 16), (1, 0), (6, 6), (6, 0), (0, 6), (32, 6)] {
            assert_eq!(read(htype, hlen, mac), Ok((mac, Hardware { htype, hlen })));
        }
        for (htype, hlen, chaddr) in [(32, 20, mac), (1, 0, Mac([0; 6])), (0, 0, mac)] {
            let not_ethernet = Err(ParseError::NotEthernet { htype, hlen });
            assert_eq!(read(htype, hlen, chaddr), not_ethernet);
        }
    }

    #[test]
    fn a_lease_query_is_called_by_its_name_and_not_an_unknown_message() {
        for (message, name) in [(10, "DHCPLEASEQUERY"), (13, "DHCPLEASEACTIVE")] {
            let mut bytes = with_options(&[code::MESSAGE_TYPE, 1, message]);
            // A query by address has no hardware type (RFC 4388 §6.2).
            bytes[1..3].fill(0);

            let error = Packet::parse(&bytes).unwrap_err();

            assert_eq!(error, ParseError::MessageType(message));
            assert!(error.to_string().contains(name), "{error}");
        }
        let unknown = Packet::parse(&with_options(&[code::MESSAGE_TYPE, 1, 99])).unwrap_err();
        assert_eq!(unknown.to_string(), "message type 99 is unknown");
    }

    #[test]
    fn a_wish_that_cannot_be_read_is_passed_over_and_the_rest_of_the_packet_heard() {
        for code in [code::REQUESTED_ADDRESS, code::LEASE_TIME, code::MAX_SIZE, code::SERVER_ID] {
            for len in [0, 1, 3, 5] {
                let mut packet = discover([2; 6]);
                packet.options = vec![(code, vec![7; len]), (code::HOST_NAME, b"a".to_vec())];

                let read = Packet::parse(&packet.emit()).unwrap();

                assert_eq!(read.options, [(code::HOST_NAME, b"a".to_vec())], "option {code}");
            }
        }
    }

    #[test]
    fn half_a_server_identifier_is_no_message_for_anybody() {
        let mut packet = Packet { message: MessageType::Request, ..discover([2; 6]) };
        packet.options.push((code::SERVER_ID, vec![10, 0, 0]));

        let error = Packet::parse(&packet.emit()).unwrap_err();

        assert_eq!(error, ParseError::Size { code: code::SERVER_ID, len: 3 });
    }

    #[test]
    fn an_option_in_two_parts_is_cut_between_addresses_and_leaves_no_crumb() {
        for len in [256, 505, 757, 1_000] {
            let mut bytes = Vec::new();
            write_option(&mut bytes, code::DNS, &vec![7; len]);

            let (parts, all) = (code::sub_options(&bytes), bytes.len());
            let sizes: Vec<_> = parts.map(|(_, part)| part.len()).collect();
            assert_eq!(sizes.iter().sum::<usize>() + 2 * sizes.len(), all);
            let (last, others) = sizes.split_last().unwrap();
            assert!(*last > 100 && others.iter().all(|size| size.is_multiple_of(4)), "{sizes:?}");
        }
    }

    #[test]
    fn options_in_the_file_and_sname_fields_are_read() {
        let mut bytes = discover([2; 6]).emit();
        bytes.truncate(243);
        bytes.extend([code::OVERLOAD, 1, 3, code::END]);
        bytes[108..113].copy_from_slice(&[code::HOST_NAME, 2, b'a', b'b', code::END]);
        bytes[44..48].copy_from_slice(&[code::HOST_NAME, 1, b'c', code::END]);

        let packet = Packet::parse(&bytes).unwrap();

        assert_eq!(packet.option(code::HOST_NAME), Some(&b"abc"[..]));
        assert!(packet.file.is_empty());
    }

    #[test]
    fn an_overload_inside_the_overloaded_fields_is_dropped() {
        let mut bytes = discover([2; 6]).emit();
        bytes.truncate(243);
        bytes.extend([code::OVERLOAD, 1, 1, code::END]);
        bytes[108..112].copy_from_slice(&[code::OVERLOAD, 1, 2, code::END]);

        let packet = Packet::parse(&bytes).unwrap();

        assert_eq!(Packet::parse(&packet.emit()), Ok(packet));
    }

    #[test]
    fn a_file_name_that_fills_its_field_is_cut_where_its_nul_should_be() {
        let mut bytes = discover([2; 6]).emit();
        bytes[108..236].fill(b'x');

        let packet = Packet::parse(&bytes).unwrap();

        assert_eq!(packet.file.len(), 127);
        assert_eq!(Packet::parse(&packet.emit()), Ok(packet));
    }

    #[test]
    fn a_short_message_is_padded_to_what_bootp_relays_forward() {
        assert_eq!(discover([2; 6]).emit().len(), 300);
    }
}
