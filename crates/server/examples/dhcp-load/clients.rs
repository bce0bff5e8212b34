//! The clients: their messages, and their checks of answers.

use std::collections::HashMap;
use std::net::IpAddr;

use hardware::Mac;

use crate::Awaits;
use crate::protocol::{Answer, Kind, Protocol, mac_number};

/// The clients' messages, and their checks of answers.
pub(crate) struct Clients {
    protocol: Protocol,
    first_mac: u64,
    pub(crate) count: u32,
    expect_url: bool,
    /// The transaction of the first exchange: it differs in each run, since a server may still be busy with the last
    /// one.
    transaction: u32,
    owners: HashMap<IpAddr, u64>,
    pub(crate) wrong: u64,
    pub(crate) why: Option<String>,
}

impl Clients {
    pub(crate) fn new(protocol: Protocol, first: Mac, count: u32, expect_url: bool) -> Self {
        let transaction = rand::random_range(0..1 << 24);
        let (first_mac, owners) = (mac_number(&first.0), HashMap::with_capacity(count as usize));
        Self { protocol, first_mac, count, expect_url, transaction, owners, wrong: 0, why: None }
    }

    pub(crate) fn discover(&self, exchange: u32, into: &mut Vec<u8>) {
        self.say(exchange, self.protocol.kinds.0, &self.protocol.first, into);
    }

    pub(crate) fn request(&self, offer: &Answer, into: &mut Vec<u8>) {
        self.say(offer.exchange, self.protocol.kinds.1, &offer.taken, into);
    }

    fn say(&self, exchange: u32, kind: u8, last: &[u8], into: &mut Vec<u8>) {
        let Protocol { template, kind_at, transaction_at, mac_at, length_at, .. } = &self.protocol;
        into.extend(template);
        into.extend(last);
        into[*kind_at] = kind;
        let transaction = (self.transaction + exchange) & 0xff_ffff;
        into[*transaction_at..*transaction_at + 3].copy_from_slice(&transaction.to_be_bytes()[1..]);
        let mac = (self.first_mac + u64::from(exchange % self.count)).to_be_bytes();
        for at in mac_at {
            into[*at..at + 6].copy_from_slice(&mac[2..]);
        }
        if let Some(at) = *length_at {
            let length = into.len() - at - 2;
            into[at..at + 2].copy_from_slice(&(length as u16).to_be_bytes());
        }
    }

    /// The answer in a packet, if it is for a client of this run.
    pub(crate) fn hear(&mut self, packet: &[u8]) -> Option<Answer> {
        let Some(mut answer) = (self.protocol.read)(packet) else {
            self.wrong(|| "a packet that is not an answer of a DHCP server".to_owned());
            return None;
        };
        answer.exchange = answer.exchange.wrapping_sub(self.transaction) & 0xff_ffff;
        let client = self.first_mac + u64::from(answer.exchange % self.count);
        (answer.mac == client).then_some(answer)
    }

    /// Whether the answer is the expected one and permits a boot.
    pub(crate) fn believe(&mut self, awaits: Awaits, answer: &Answer) -> bool {
        let awaited = match (awaits, answer.kind) {
            (Awaits::Nothing, _) | (Awaits::Ack, Kind::Offer) => return false,
            (Awaits::Offer, Kind::Offer) => true,
            (Awaits::Ack, Kind::Ack) => true,
            (Awaits::Offer, Kind::Ack) | (_, Kind::Other(_)) => false,
        };
        let Some(address) = answer.address.filter(|_| awaited) else {
            self.wrong(|| format!("{:?} with the address {:?}", answer.kind, answer.address));
            return false;
        };
        if self.expect_url && answer.kind == Kind::Offer && !answer.has_url {
            self.wrong(|| format!("an offer of {address} without a URL"));
            return false;
        }
        // An offered address may be offered to another client.
        let owner = match answer.kind {
            Kind::Ack => *self.owners.entry(address).or_insert(answer.mac),
            Kind::Offer | Kind::Other(_) => answer.mac,
        };
        if owner != answer.mac {
            self.wrong(|| format!("{address} for {:012x} and for {owner:012x}", answer.mac));
        }
        owner == answer.mac
    }

    fn wrong(&mut self, why: impl FnOnce() -> String) {
        self.wrong += 1;
        self.why.get_or_insert_with(why);
    }
}
