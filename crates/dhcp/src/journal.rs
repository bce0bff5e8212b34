//! The journal's records: fixed in size, each with a checksum, so that a torn tail is seen.

use std::net::Ipv4Addr;

use crate::leases::{Holder, Lease, Seconds};

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
    /// A time mark. It has the form of a lease of 0.0.0.0, which no pool has, so versions that know no marks leave it
    /// out.
    #[must_use]
    pub fn mark(mark: TimeMark) -> Self {
        let (until, state) = match mark {
            TimeMark::Running(now) => (now, State::Bound),
            TimeMark::Started(now) => (now, State::Declined),
        };
        let (address, holder) = (Ipv4Addr::UNSPECIFIED, Holder::Known);
        Self(Lease { mac: [0; 6], address, until, state, holder })
    }

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

/// When the records after it were written, by the clock of the daemon's run that wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeMark {
    /// The first of a run.
    Started(Seconds),
    /// Any other.
    Running(Seconds),
}

/// A record of either family.
pub(crate) trait Timed {
    /// The time mark that it is, if it is no lease.
    fn time_mark(&self) -> Option<TimeMark>;
    /// When the lease ends.
    fn end(&mut self) -> &mut Seconds;
}

impl Timed for Record {
    fn time_mark(&self) -> Option<TimeMark> {
        let Lease { address, until, state, .. } = self.0;
        address.is_unspecified().then_some(match state {
            State::Declined => TimeMark::Started(until),
            State::Offered | State::Bound => TimeMark::Running(until),
        })
    }

    fn end(&mut self) -> &mut Seconds {
        &mut self.0.until
    }
}

/// The leases among a journal's records, each with its end by the clock of this run.
///
/// Nobody knows for how long the daemon was stopped, since the system's clock may have been set meanwhile: forward,
/// and leases would end that their clients still use; back, and they would not end for as long. So the time from the
/// newest mark of a run to the start of the next does not count. A lease that had ended at the mark stays ended, and
/// any other is kept for a little longer than its client may use it.
pub(crate) fn leases_by_this_clock<R: Timed>(
    records: impl IntoIterator<Item = R>,
    now: Seconds,
) -> impl Iterator<Item = R> {
    // What to add to a time of a run for one by the clock of the first run.
    let (mut to_first, mut newest) = (0, None);
    let mut leases = Vec::new();
    for mut record in records {
        match record.time_mark() {
            Some(TimeMark::Started(start)) => {
                to_first += i128::from(newest.unwrap_or(start)) - i128::from(start);
                newest = Some(start);
            }
            Some(TimeMark::Running(mark)) => newest = Some(mark),
            None => leases.push((i128::from(*record.end()) + to_first, record)),
        }
    }
    // Journals of versions without marks have none.
    let to_this = newest.map_or(0, |newest| i128::from(now) - (i128::from(newest) + to_first));
    // No lease is given for longer than the 32 bits of its option say.
    let latest = now.saturating_add(u32::MAX.into());
    leases.into_iter().map(move |(end, mut record)| {
        *record.end() = Seconds::try_from((end + to_this).max(0)).unwrap_or(latest).min(latest);
        record
    })
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

    #[test]
    fn a_time_mark_is_no_lease_to_versions_that_know_no_marks() {
        for mark in [TimeMark::Started(1_000), TimeMark::Running(1_000)] {
            let record = Record::decode(&Record::mark(mark).encode()).unwrap();

            assert_eq!(record.0.address, Ipv4Addr::UNSPECIFIED, "in no pool, reserved for nobody");
            assert_eq!(record.time_mark(), Some(mark));
        }
    }

    fn ends(records: impl IntoIterator<Item = Record>, now: Seconds) -> Vec<Seconds> {
        leases_by_this_clock(records, now).map(|record| record.0.until).collect()
    }

    fn ending(until: Seconds) -> Record {
        let (mac, address) = ([2; 6], Ipv4Addr::LOCALHOST);
        Record(Lease { mac, address, until, state: State::Bound, holder: Holder::Guest })
    }

    #[test]
    fn time_stands_still_from_the_newest_mark_of_each_run_to_the_start_of_the_next() {
        let records = [
            Record::mark(TimeMark::Started(1_000_000)),
            ending(1_000_100),
            Record::mark(TimeMark::Running(1_000_010)),
            // A clock that was set back by a day.
            Record::mark(TimeMark::Started(900_000)),
            ending(900_100),
            Record::mark(TimeMark::Running(900_020)),
            // And forward.
            Record::mark(TimeMark::Started(2_000_000)),
            Record::mark(TimeMark::Running(2_000_030)),
            ending(2_000_100),
        ];

        assert_eq!(ends(records, 500), [500 + 40, 500 + 50, 500 + 70]);
    }

    #[test]
    fn journals_of_versions_without_marks_are_read_as_they_were() {
        let old = [ending(1_000), ending(2_000)];
        assert_eq!(ends(old, 1_500), [1_000, 2_000]);

        let start = Record::mark(TimeMark::Started(1_500));
        assert_eq!(ends([old[0], old[1], start], 5_000), [4_500, 5_500]);
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
        fn no_mark_brings_an_ended_lease_back_or_makes_one_last_forever(
            until: u64, marks in prop::collection::vec(any::<(bool, u64)>(), 0..4), now: u32,
        ) {
            let now = Seconds::from(now);
            let has_ended = marks.last().map_or(now, |(_, mark)| *mark) >= until;
            let marks = marks.into_iter().map(|(starts, at)| {
                Record::mark(if starts { TimeMark::Started(at) } else { TimeMark::Running(at) })
            });
            let end = ends(marks.chain([ending(until)]), now)[0];

            prop_assert_eq!(end <= now, has_ended);
            prop_assert!(end <= now + Seconds::from(u32::MAX));
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
