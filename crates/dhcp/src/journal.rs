//! The journal's records: fixed in size, each with a checksum, so that a torn tail is seen.

use std::net::Ipv4Addr;

use crate::leases::{Holder, Lease};

/// The size of a record, in bytes.
pub const RECORD: usize = 24;

/// A lease, as it became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record(pub Lease);

/// What a lease is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Set aside for whoever it was offered to; never in a journal.
    Offered,
    /// Given to a client.
    Bound,
    /// Found in use by somebody else.
    Declined,
}

impl Record {
    /// Kind, holder, MAC address, address, end, CRC-32 of all before it; integers are big-endian.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD] {
        let Lease { mac, address, until, state, holder } = self.0;
        let mut bytes = [0; RECORD];
        bytes[0] = match state {
            State::Offered => 0,
            State::Bound => 1,
            State::Declined => 2,
        };
        bytes[1] = match holder {
            Holder::Known => 0,
            Holder::Guest => 1,
        };
        bytes[2..8].copy_from_slice(&mac);
        bytes[8..12].copy_from_slice(&address.octets());
        bytes[12..20].copy_from_slice(&until.to_be_bytes());
        let sum = crc32fast::hash(&bytes[..20]);
        bytes[20..].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// The record in these bytes, unless they are damaged.
    #[must_use]
    pub fn decode(bytes: &[u8; RECORD]) -> Option<Self> {
        let sum = u32::from_be_bytes([bytes[20], bytes[21], bytes[22], bytes[23]]);
        if sum != crc32fast::hash(&bytes[..20]) {
            return None;
        }
        let state = match bytes[0] {
            1 => State::Bound,
            2 => State::Declined,
            _ => return None,
        };
        let holder = match bytes[1] {
            0 => Holder::Known,
            1 => Holder::Guest,
            _ => return None,
        };
        let mac = bytes[2..8].try_into().ok()?;
        let address: [u8; 4] = bytes[8..12].try_into().ok()?;
        let until = u64::from_be_bytes(bytes[12..20].try_into().ok()?);
        Some(Self(Lease { mac, address: Ipv4Addr::from(address), until, state, holder }))
    }
}

/// The records of a journal up to the first damaged one, which is where a crash cut it.
#[must_use]
pub fn read(bytes: &[u8]) -> Vec<Record> {
    let records = bytes.chunks_exact(RECORD).map_while(|chunk| {
        let chunk: &[u8; RECORD] = chunk.try_into().ok()?;
        Record::decode(chunk)
    });
    records.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn records()(mac: [u8; 6], address: u32, until: u64, bound: bool, known: bool) -> Record {
            let state = if bound { State::Bound } else { State::Declined };
            let holder = if known { Holder::Known } else { Holder::Guest };
            Record(Lease { mac, address: address.into(), until, state, holder })
        }
    }

    proptest! {
        #[test]
        fn a_journal_cut_anywhere_gives_the_records_before_the_cut(
            records in prop::collection::vec(records(), 0..20), cut in 0..480_usize,
        ) {
            let mut bytes: Vec<u8> = records.iter().flat_map(Record::encode).collect();
            bytes.truncate(cut);

            let read = read(&bytes);

            prop_assert_eq!(&read[..], &records[..records.len().min(cut / RECORD)]);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }

        #[test]
        fn a_flipped_bit_is_seen(record in records(), bit in 0..RECORD * 8) {
            let mut bytes = record.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Record::decode(&bytes), None);
        }
    }
}
