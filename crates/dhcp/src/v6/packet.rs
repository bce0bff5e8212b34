//! The wire format: a message, and the relays that it passed.

use std::net::Ipv6Addr;

use thiserror::Error;

use super::options as code;

/// Number of relays that a message may pass. Relays forward hop counts below `HOP_COUNT_LIMIT` (8), and the first hop
/// count is 0 (RFC 8415 §7.6, §19.1.2).
const MOST_RELAYS: usize = 9;
/// Options that are of use even if truncated.
const READ_IN_PART: [u16; 4] =
    [code::IA_NA, code::RELAY_MESSAGE, code::VENDOR_CLASS, code::USER_CLASS];
const RELAY_FORWARD: u8 = 12;
const RELAY_REPLY: u8 = 13;

/// DHCPv6 message types between clients and servers (RFC 8415 §7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// SOLICIT.
    Solicit,
    /// ADVERTISE.
    Advertise,
    /// REQUEST.
    Request,
    /// CONFIRM.
    Confirm,
    /// RENEW.
    Renew,
    /// REBIND.
    Rebind,
    /// REPLY.
    Reply,
    /// RELEASE.
    Release,
    /// DECLINE.
    Decline,
    /// RECONFIGURE.
    Reconfigure,
    /// INFORMATION-REQUEST.
    InformationRequest,
}

impl MessageType {
    pub(crate) const ALL: [Self; 11] = [
        Self::Solicit,
        Self::Advertise,
        Self::Request,
        Self::Confirm,
        Self::Renew,
        Self::Rebind,
        Self::Reply,
        Self::Release,
        Self::Decline,
        Self::Reconfigure,
        Self::InformationRequest,
    ];

    /// The message type, the first byte of the message.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Solicit => 1,
            Self::Advertise => 2,
            Self::Request => 3,
            Self::Confirm => 4,
            Self::Renew => 5,
            Self::Rebind => 6,
            Self::Reply => 7,
            Self::Release => 8,
            Self::Decline => 9,
            Self::Reconfigure => 10,
            Self::InformationRequest => 11,
        }
    }

    /// Its name in the RFC.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Solicit => "SOLICIT",
            Self::Advertise => "ADVERTISE",
            Self::Request => "REQUEST",
            Self::Confirm => "CONFIRM",
            Self::Renew => "RENEW",
            Self::Rebind => "REBIND",
            Self::Reply => "REPLY",
            Self::Release => "RELEASE",
            Self::Decline => "DECLINE",
            Self::Reconfigure => "RECONFIGURE",
            Self::InformationRequest => "INFORMATION-REQUEST",
        }
    }
}

/// Options in wire order. A code may be repeated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(pub Vec<(u16, Vec<u8>)>);

/// A message between a client and a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its type.
    pub kind: MessageType,
    /// The client's transaction ID.
    pub transaction: [u8; 3],
    /// Its options.
    pub options: Options,
}

/// A relay that forwarded a message, and forwards its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// Hop count: number of relays nearer to the client.
    pub hops: u8,
    /// An address on the client's link, or unspecified if the relay uses only option 18.
    pub link: Ipv6Addr,
    /// The address that the relay received the message from.
    pub peer: Ipv6Addr,
    /// Its options without the relay message.
    pub options: Options,
}

/// A UDP payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The relays, the one nearest to the server first.
    pub relays: Vec<Relay>,
    /// The message.
    pub message: Message,
}

/// An identity association for addresses (IA_NA).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ia {
    /// The client's IAID.
    pub id: u32,
    /// The addresses that the client has or requests.
    pub addresses: Vec<Ipv6Addr>,
}

/// The reason for rejecting a message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseError {
    /// Shorter than its fixed part.
    #[error("a DHCPv6 message has at least {needed} bytes, this one {len}")]
    Short {
        /// The size of the fixed part in bytes.
        needed: usize,
        /// The size of the message in bytes.
        len: usize,
    },
    /// The message type is not one that clients send or receive.
    #[error("{}", in_words(*.0))]
    MessageType(u8),
    /// A relay's packet without a message in it.
    #[error("a relay's packet has no relay message (option 9)")]
    NoRelayMessage,
    /// RFC 8415 §16: only relays receive this type.
    #[error("it is an answer to a relay")]
    RelayReply,
    /// The message passed more relays than allowed.
    #[error("the message came through more than {MOST_RELAYS} relays")]
    TooManyRelays,
}

impl ParseError {
    /// Whether the message is well-formed but of a type that clients neither send nor receive, like a lease query.
    #[must_use]
    pub fn is_of_others(&self) -> bool {
        matches!(self, Self::MessageType(message) if code::message_of_others(*message).is_some())
    }
}

impl Packet {
    /// Reads a UDP payload that was sent to a server.
    ///
    /// # Errors
    /// The part that is wrong. Never panics.
    pub fn parse_request(bytes: &[u8]) -> Result<Self, ParseError> {
        match Self::open(bytes, &[RELAY_FORWARD]) {
            Err(ParseError::MessageType(RELAY_REPLY)) => Err(ParseError::RelayReply),
            result @ (Ok(_) | Err(_)) => result,
        }
    }

    /// Reads a UDP payload, to a server or from one.
    ///
    /// # Errors
    /// The part that is wrong. Never panics.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        Self::open(bytes, &[RELAY_FORWARD, RELAY_REPLY])
    }

    fn open(bytes: &[u8], envelopes: &[u8]) -> Result<Self, ParseError> {
        let mut relays = Vec::new();
        let mut inner = bytes.to_vec();
        while inner.first().is_some_and(|kind| envelopes.contains(kind)) {
            if relays.len() == MOST_RELAYS {
                return Err(ParseError::TooManyRelays);
            }
            let (relay, message) = Relay::parse(&inner)?;
            relays.push(relay);
            inner = message;
        }
        Ok(Self { relays, message: Message::parse(&inner)? })
    }

    /// An address on the client's link, from the relay nearest to the client that names one (RFC 8415 §13.1).
    #[must_use]
    pub fn link(&self) -> Option<Ipv6Addr> {
        let told = self.relays.iter().rev().map(|relay| relay.link);
        told.into_iter().find(|link| !link.is_unspecified())
    }

    /// The encoded message, in the RELAY-REPL envelopes for its relays.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let message = self.message.emit();
        self.relays.iter().rev().fold(message, |inner, relay| relay.emit_reply(&inner))
    }

    /// An answer that returns through the same relays.
    #[must_use]
    pub fn answered_by(&self, message: Message) -> Self {
        // RFC 8415 §19.3 and RFC 8357 §5.2: the answer echoes these options of the relay.
        let relays = self.relays.iter().map(|relay| {
            let own = [code::INTERFACE_ID, code::RELAY_PORT];
            let echoed = relay.options.0.iter().filter(|(code, _)| own.contains(code));
            Relay { options: Options(echoed.cloned().collect()), ..relay.clone() }
        });
        Self { relays: relays.collect(), message }
    }
}

impl Message {
    fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let (head, rest) = split(bytes, 4)?;
        let kind = MessageType::ALL.into_iter().find(|kind| kind.code() == head[0]);
        let kind = kind.ok_or(ParseError::MessageType(head[0]))?;
        let transaction = [head[1], head[2], head[3]];
        Ok(Self { kind, transaction, options: Options::parse(rest) })
    }

    fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind.code()];
        bytes.extend(self.transaction);
        self.options.emit_into(&mut bytes);
        bytes
    }

    /// Whether the client requests an option.
    #[must_use]
    pub fn asks_for(&self, code: u16) -> bool {
        let lists = self.options.all(code::OPTION_REQUEST);
        lists.flat_map(|list| list.chunks_exact(2)).any(|asked| *asked == code.to_be_bytes())
    }

    /// The client's associations, as far as they can be parsed.
    pub fn ias(&self) -> impl Iterator<Item = Ia> {
        self.options.all(code::IA_NA).filter_map(|value| {
            let (head, rest) = value.split_at_checked(12)?;
            let options = Options::parse(rest);
            let addresses = options.all(code::IA_ADDRESS).filter_map(|value| address(value, 0));
            let id = u32::from_be_bytes(head[..4].try_into().ok()?);
            Some(Ia { id, addresses: addresses.collect() })
        })
    }
}

impl Relay {
    fn parse(bytes: &[u8]) -> Result<(Self, Vec<u8>), ParseError> {
        let (head, rest) = split(bytes, 34)?;
        let mut options = Options::parse(rest);
        let message = options.get(code::RELAY_MESSAGE).ok_or(ParseError::NoRelayMessage)?.to_vec();
        // Only the first relay message is answered; a second one is dropped.
        options.0.retain(|(code, _)| *code != code::RELAY_MESSAGE);
        let link = address(head, 2).unwrap_or(Ipv6Addr::UNSPECIFIED);
        let peer = address(head, 18).unwrap_or(Ipv6Addr::UNSPECIFIED);
        Ok((Self { hops: head[1], link, peer, options }, message))
    }

    fn emit_reply(&self, message: &[u8]) -> Vec<u8> {
        let mut bytes = vec![RELAY_REPLY, self.hops];
        bytes.extend(self.link.octets());
        bytes.extend(self.peer.octets());
        self.options.emit_into(&mut bytes);
        write_option(&mut bytes, code::RELAY_MESSAGE, message);
        bytes
    }
}

impl Options {
    /// Parses options up to a truncated one: a client with a damaged message end can still boot.
    ///
    /// Containers of other options, the relay message and client identifications are used even if truncated.
    pub(crate) fn parse(mut bytes: &[u8]) -> Self {
        let mut options = Vec::new();
        while let Some((head, rest)) = bytes.split_first_chunk::<4>() {
            let code = u16::from_be_bytes([head[0], head[1]]);
            let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let Some((value, after)) = rest.split_at_checked(len) else {
                if READ_IN_PART.contains(&code) {
                    options.push((code, rest.to_vec()));
                }
                break;
            };
            options.push((code, value.to_vec()));
            bytes = after;
        }
        Self(options)
    }

    pub(crate) fn emit_into(&self, bytes: &mut Vec<u8>) {
        for (code, value) in &self.0 {
            write_option(bytes, *code, value);
        }
    }

    /// The first option of this code.
    #[must_use]
    pub fn get(&self, code: u16) -> Option<&[u8]> {
        self.all(code).next()
    }

    /// Every option of this code.
    pub fn all(&self, code: u16) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |(have, _)| *have == code).map(|(_, value)| value.as_slice())
    }

    /// Adds one at the end.
    pub(crate) fn put(&mut self, code: u16, value: impl Into<Vec<u8>>) {
        self.0.push((code, value.into()));
    }
}

/// Describes a message type that neither clients nor relays send to a server, nor a server to them.
fn in_words(message: u8) -> String {
    match code::message_of_others(message) {
        Some((name, about)) => format!("it is a {name} (message type {message}), {about}"),
        None => format!("message type {message} is unknown"),
    }
}

/// Appends an option. A value that exceeds the length field is cut; none of ours is that long.
fn write_option(bytes: &mut Vec<u8>, code: u16, value: &[u8]) {
    let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
    bytes.extend(code.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes.extend(&value[..usize::from(len)]);
}

fn split(bytes: &[u8], needed: usize) -> Result<(&[u8], &[u8]), ParseError> {
    bytes.split_at_checked(needed).ok_or(ParseError::Short { needed, len: bytes.len() })
}

pub(crate) fn address(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
    Some(Ipv6Addr::from(octets))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The first SOLICIT of OVMF 2022.11 for its HTTPv6 boot entry.
    pub(crate) const OVMF_SOLICIT: &str = "017e0b26000100120004443322116655887799aabbccddeeff000008000200000003000cdce51bc0ffffffff\
         ffffffff00060008003b003c00170010003e0003010300003d00020010001000270000015700214854545043\
         6c69656e743a417263683a30303031363a554e44493a303033303030";

    pub(crate) fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<_> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        digits.chunks(2).map(|pair| byte(pair).unwrap()).collect()
    }

    /// A packet as it looks from the client's side of these relays, outermost first.
    pub(crate) fn relayed(relays: &[Relay], message: &Message) -> Vec<u8> {
        relays.iter().rev().fold(message.emit(), |inner, relay| {
            let mut bytes = relay.emit_reply(&inner);
            bytes[0] = RELAY_FORWARD;
            bytes
        })
    }

    #[test]
    fn what_firmware_sends_is_read_as_it_says() {
        let packet = Packet::parse(&bytes(OVMF_SOLICIT)).unwrap();

        assert_eq!(packet.message.kind, MessageType::Solicit);
        assert_eq!(packet.message.transaction, [0x7e, 0x0b, 0x26]);
        let ias: Vec<_> = packet.message.ias().collect();
        assert_eq!(ias, [Ia { id: 0xdce5_1bc0, addresses: Vec::new() }]);
        assert_eq!(packet.message.options.get(code::ARCHITECTURE), Some(&[0, 0x10][..]));
        assert_eq!(packet.emit(), bytes(OVMF_SOLICIT));
    }

    #[test]
    fn an_answer_goes_back_through_every_relay_with_its_own_mark() {
        let message = Packet::parse(&bytes(OVMF_SOLICIT)).unwrap().message;
        let relay = |hops, mark: &[u8]| Relay {
            hops,
            link: "2001:db8::1".parse().unwrap(),
            peer: "fe80::1".parse().unwrap(),
            options: Options(vec![
                (code::INTERFACE_ID, mark.to_vec()),
                (37, vec![9]),
                (code::RELAY_PORT, vec![0, 0]),
            ]),
        };
        let sent = relayed(&[relay(1, b"core"), relay(0, b"rack")], &message);
        let packet = Packet::parse(&sent).unwrap();

        let answer = packet.answered_by(message).emit();

        assert_eq!(answer[0], RELAY_REPLY);
        let back = Packet::parse(&answer).unwrap();
        let marks: Vec<_> = back
            .relays
            .iter()
            .map(|relay| relay.options.get(code::INTERFACE_ID).unwrap())
            .collect();
        assert_eq!(marks, [b"core", b"rack"]);
        assert!(back.relays.iter().all(|relay| relay.options.get(37).is_none()));
        let ports = back.relays.iter().map(|relay| relay.options.get(code::RELAY_PORT));
        assert!(ports.eq([Some(&[0, 0][..]); 2]));
    }

    #[test]
    fn of_two_messages_in_one_envelope_the_second_is_dropped() {
        let message = Packet::parse(&bytes(OVMF_SOLICIT)).unwrap().message;
        let relay = Relay {
            hops: 0,
            link: Ipv6Addr::UNSPECIFIED,
            peer: Ipv6Addr::UNSPECIFIED,
            options: Options::default(),
        };
        let mut sent = relayed(&[relay], &message);
        write_option(&mut sent, code::RELAY_MESSAGE, b"another");

        let packet = Packet::parse(&sent).unwrap();

        assert_eq!(packet.message, message);
        assert_eq!(packet.relays[0].options, Options::default());
    }

    #[test]
    fn a_message_in_endless_envelopes_is_refused() {
        let message = Packet::parse(&bytes(OVMF_SOLICIT)).unwrap().message;
        let relay = Relay {
            hops: 0,
            link: Ipv6Addr::UNSPECIFIED,
            peer: Ipv6Addr::UNSPECIFIED,
            options: Options::default(),
        };
        let ten = vec![relay; 10];

        assert_eq!(Packet::parse(&relayed(&ten, &message)), Err(ParseError::TooManyRelays));
        // The hop counts are then 0 to 8.
        assert!(Packet::parse(&relayed(&ten[1..], &message)).is_ok());
    }

    #[test]
    fn an_answer_to_a_relay_is_no_request_however_it_is_wrapped() {
        let message = Packet::parse(&bytes(OVMF_SOLICIT)).unwrap().message;
        let relay = Relay {
            hops: 0,
            link: Ipv6Addr::UNSPECIFIED,
            peer: Ipv6Addr::UNSPECIFIED,
            options: Options::default(),
        };
        let bare = relay.emit_reply(&message.emit());
        let mut wrapped = relay.emit_reply(&bare);
        wrapped[0] = RELAY_FORWARD;

        assert_eq!(Packet::parse_request(&bare), Err(ParseError::RelayReply));
        assert_eq!(Packet::parse_request(&wrapped), Err(ParseError::RelayReply));
    }

    #[test]
    fn every_address_of_an_association_is_read() {
        let mut message = Packet::parse(&bytes(OVMF_SOLICIT)).unwrap().message;
        let held = |last| [&[0xfd; 15][..], &[last], &[0; 8]].concat();
        let mut value = vec![0; 12];
        Options([1, 2].map(|last| (code::IA_ADDRESS, held(last))).into()).emit_into(&mut value);
        message.options = Options(vec![(code::IA_NA, value)]);

        let ia = message.ias().next().unwrap();

        let last: Vec<_> = ia.addresses.iter().map(|address| address.octets()[15]).collect();
        assert_eq!(last, [1, 2]);
    }

    #[test]
    fn what_comes_before_an_option_that_is_cut_off_is_heard() {
        let whole = bytes(OVMF_SOLICIT);
        let options = Packet::parse(&whole).unwrap().message.options;
        for cut_off in [&[0][..], &[0, 24, 0, 3, 1], &[0, 24, 0xff, 0xff]] {
            let packet = Packet::parse(&[&whole[..], cut_off].concat()).unwrap();

            assert_eq!(packet.message.options, options);
        }
    }

    #[test]
    fn an_association_is_read_up_to_what_is_cut_off_in_it_or_after_it() {
        let held = [&[0xfd; 16][..], &[0; 8]].concat();
        let mut value = vec![7; 12];
        Options(vec![(code::IA_ADDRESS, held)]).emit_into(&mut value);
        value.extend([0, 13, 0, 9, 0]);
        let mut association = Vec::new();
        write_option(&mut association, code::IA_NA, &value);
        let whole = [&[1, 1, 2, 3][..], &association].concat();

        for bytes in [&whole[..], &whole[..whole.len() - 5], &whole[..whole.len() - 3]] {
            let ia = Packet::parse(bytes).unwrap().message.ias().next().unwrap();

            assert_eq!((ia.id, ia.addresses), (0x0707_0707, vec![Ipv6Addr::from([0xfd; 16])]));
        }
    }

    #[test]
    fn the_message_of_a_relay_is_read_up_to_what_is_cut_off_in_it_or_after_it() {
        let message = Packet::parse(&bytes(OVMF_SOLICIT)).unwrap().message;
        let relay = Relay {
            hops: 0,
            link: Ipv6Addr::UNSPECIFIED,
            peer: "fe80::1".parse().unwrap(),
            options: Options(vec![(code::INTERFACE_ID, b"rack".to_vec())]),
        };
        let whole = relayed(&[relay], &message);
        let last = message.options.0.last().unwrap().1.len();

        let cut = Packet::parse_request(&whole[..whole.len() - last]).unwrap();
        let trailing = Packet::parse_request(&[&whole[..], &[0, 37, 9]].concat()).unwrap();

        let (options, read) = (&message.options.0, &cut.message.options.0);
        assert_eq!(read[..read.len() - 1], options[..options.len() - 1]);
        assert_eq!(read.last(), Some(&(code::VENDOR_CLASS, Vec::new())));
        assert_eq!(trailing.message, message);
        assert_eq!(trailing.relays[0].options.get(code::INTERFACE_ID), Some(&b"rack"[..]));
    }

    #[test]
    fn a_lease_query_is_called_by_its_name_and_not_an_unknown_message() {
        for (message, name) in
            [(14, "LEASEQUERY"), (15, "LEASEQUERY-REPLY"), (17, "LEASEQUERY-DATA")]
        {
            let error = Packet::parse_request(&[message, 1, 2, 3]).unwrap_err();

            assert_eq!(error, ParseError::MessageType(message));
            assert!(error.to_string().contains(name), "{error}");
        }
        let unknown = Packet::parse_request(&[99, 1, 2, 3]).unwrap_err();
        assert_eq!(unknown.to_string(), "message type 99 is unknown");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(packet) = Packet::parse(&bytes) {
                let _ = packet.message.ias().count();
            }
        }

        #[test]
        fn what_is_sent_is_read_back(
            transaction in any::<[u8; 3]>(),
            options in proptest::collection::vec(
                (any::<u16>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
        ) {
            let message =
                Message { kind: MessageType::Request, transaction, options: Options(options) };
            let packet = Packet { relays: Vec::new(), message };
            prop_assert_eq!(Packet::parse(&packet.emit()).unwrap(), packet);
        }
    }
}
