//! The records of the lease journal: fixed in size, each with a checksum that reveals a torn tail.

use crate::address_family::AddressFamily;
pub use crate::address_family::LeaseRecord;
use crate::leases::{LeaseHolder, Seconds};

/// The size of a record's checksum, in bytes.
pub(crate) const CHECKSUM_LEN: usize = 4;

impl<A: AddressFamily> LeaseRecord<A> {
    /// Appends the encoded record: the family's encoding and its CRC-32 in big-endian.
    pub fn encode(&self, into: &mut Vec<u8>) {
        let start = into.len();
        A::encode(self, into);
        let sum = crc32fast::hash(&into[start..]);
        into.extend(sum.to_be_bytes());
    }

    /// Decodes a record; `None` if its checksum does not match.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM_LEN>()?;
        let is_whole = bytes.len() == A::RECORD_LEN && *sum == crc32fast::hash(body).to_be_bytes();
        A::decode(body).filter(|_| is_whole)
    }

    /// A time mark. It has the form of a lease of the unspecified address, which is in no pool, so that versions
    /// without marks skip it.
    #[must_use]
    pub fn mark(mark: TimeMark) -> Self {
        let (until, binding) = match mark {
            TimeMark::Running(now) => (now, Some(A::KEPT)),
            TimeMark::Started(now) => (now, None),
        };
        let (client, address, holder) = (A::Client::default(), A::UNSPECIFIED, LeaseHolder::Known);
        Self { client, address, binding, until, holder }
    }

    /// The time mark of this record; `None` if the record is a lease.
    fn time_mark(&self) -> Option<TimeMark> {
        (self.address == A::UNSPECIFIED).then_some(match self.binding {
            Some(_) => TimeMark::Running(self.until),
            None => TimeMark::Started(self.until),
        })
    }
}

/// The records of a journal up to the first damaged one, where a crash cut the journal.
#[must_use]
pub fn read<A: AddressFamily>(bytes: &[u8]) -> Vec<LeaseRecord<A>> {
    bytes.chunks_exact(A::RECORD_LEN).map_while(LeaseRecord::decode).collect()
}

/// The time at which the following records were written, by the clock of the daemon's run that wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeMark {
    /// The first mark of a run.
    Started(Seconds),
    /// Any later mark of a run.
    Running(Seconds),
}

/// The leases of a journal's records, with their ends converted to the clock of this run.
///
/// The length of the daemon's downtime is unknown, since the system clock may have been set meanwhile. A clock set
/// forward would end leases that clients still use; a clock set back would prolong them. So the time from the newest
/// mark of a run to the start of the next run does not count. A lease that had ended at the mark stays ended; any
/// other lease is kept a little longer than its client may use it.
pub(crate) fn leases_by_this_clock<A: AddressFamily>(
    records: impl IntoIterator<Item = LeaseRecord<A>>,
    now: Seconds,
) -> impl Iterator<Item = LeaseRecord<A>> {
    // The offset from a run's clock to the clock of the first run.
    let (mut to_first, mut newest) = (0, None);
    let mut leases = Vec::new();
    for record in records {
        match record.time_mark() {
            Some(TimeMark::Started(start)) => {
                to_first += i128::from(newest.unwrap_or(start)) - i128::from(start);
                newest = Some(start);
            }
            Some(TimeMark::Running(mark)) => newest = Some(mark),
            None => leases.push((i128::from(record.until) + to_first, record)),
        }
    }
    // Journals of versions without marks have no newest mark.
    let to_this = newest.map_or(0, |newest| i128::from(now) - (i128::from(newest) + to_first));
    // No lease is longer than the 32 bits of option 51.
    let latest = now.saturating_add(u32::MAX.into());
    leases.into_iter().map(move |(end, record)| {
        let until = Seconds::try_from((end + to_this).max(0)).unwrap_or(latest).min(latest);
        LeaseRecord { until, ..record }
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use hardware::Mac;
    use proptest::prelude::*;

    use super::*;
    use crate::leases::tests::TestFamily;

    type Record4 = LeaseRecord<Ipv4Addr>;

    #[test]
    fn a_time_mark_is_no_lease_to_versions_that_know_no_marks() {
        fn check<A: TestFamily>(mark: TimeMark) {
            let mut bytes = Vec::new();
            LeaseRecord::<A>::mark(mark).encode(&mut bytes);
            let record = LeaseRecord::<A>::decode(&bytes).unwrap();

            assert_eq!(record.address.number(), 0, "in no pool, reserved for nobody");
            assert_eq!(record.time_mark(), Some(mark));
        }
        for mark in [TimeMark::Started(1_000), TimeMark::Running(1_000)] {
            check::<Ipv4Addr>(mark);
            check::<Ipv6Addr>(mark);
        }
    }

    fn ends(records: impl IntoIterator<Item = Record4>, now: Seconds) -> Vec<Seconds> {
        leases_by_this_clock(records, now).map(|record| record.until).collect()
    }

    fn ending(until: Seconds) -> Record4 {
        let (client, address) = (Mac([2; 6]), Ipv4Addr::LOCALHOST);
        LeaseRecord { client, address, binding: Some(()), until, holder: LeaseHolder::Guest }
    }

    #[test]
    fn time_stands_still_from_the_newest_mark_of_each_run_to_the_start_of_the_next() {
        let records = [
            LeaseRecord::mark(TimeMark::Started(1_000_000)),
            ending(1_000_100),
            LeaseRecord::mark(TimeMark::Running(1_000_010)),
            // The clock was set back by a day.
            LeaseRecord::mark(TimeMark::Started(900_000)),
            ending(900_100),
            LeaseRecord::mark(TimeMark::Running(900_020)),
            // The clock was set forward.
            LeaseRecord::mark(TimeMark::Started(2_000_000)),
            LeaseRecord::mark(TimeMark::Running(2_000_030)),
            ending(2_000_100),
        ];

        assert_eq!(ends(records, 500), [500 + 40, 500 + 50, 500 + 70]);
    }

    #[test]
    fn journals_of_versions_without_marks_are_read_as_they_were() {
        let old = [ending(1_000), ending(2_000)];
        assert_eq!(ends(old, 1_500), [1_000, 2_000]);

        let start = LeaseRecord::mark(TimeMark::Started(1_500));
        assert_eq!(ends([old[0], old[1], start], 5_000), [4_500, 5_500]);
    }

    fn holders() -> impl Strategy<Value = LeaseHolder> {
        prop_oneof![Just(LeaseHolder::Known), Just(LeaseHolder::Guest)]
    }

    fn records<A: TestFamily>() -> impl Strategy<Value = LeaseRecord<A>> {
        let fields = (any::<u8>(), any::<u8>(), any::<bool>(), 0..1_u64 << 63, holders());
        fields.prop_map(|(client, address, bound, until, holder)| LeaseRecord {
            client: A::client(client),
            address: A::at(address),
            binding: bound.then_some(A::BINDING),
            until,
            holder,
        })
    }

    fn encoded<A: AddressFamily>(records: &[LeaseRecord<A>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.encode(&mut bytes));
        assert_eq!(bytes.len(), records.len() * A::RECORD_LEN);
        bytes
    }

    fn cut<A: AddressFamily>(records: &[LeaseRecord<A>], at: usize) -> Result<(), TestCaseError> {
        let mut bytes = encoded(records);
        bytes.truncate(at);
        prop_assert_eq!(&read(&bytes)[..], &records[..records.len().min(at / A::RECORD_LEN)]);
        Ok(())
    }

    fn flip<A: AddressFamily>(record: LeaseRecord<A>, bit: usize) -> Result<(), TestCaseError> {
        let mut bytes = encoded(&[record]);
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(LeaseRecord::<A>::decode(&bytes), None);
        Ok(())
    }

    proptest! {
        #[test]
        fn a_journal_cut_anywhere_gives_the_records_before_the_cut(
            v4 in prop::collection::vec(records::<Ipv4Addr>(), 0..20),
            v6 in prop::collection::vec(records::<Ipv6Addr>(), 0..20),
            at in 0..1_040_usize,
        ) {
            cut(&v4, at)?;
            cut(&v6, at)?;
        }

        #[test]
        fn no_mark_brings_an_ended_lease_back_or_makes_one_last_forever(
            until: u64, marks in prop::collection::vec(any::<(bool, u64)>(), 0..4), now: u32,
        ) {
            let now = Seconds::from(now);
            let has_ended = marks.last().map_or(now, |(_, mark)| *mark) >= until;
            let marks = marks.into_iter().map(|(starts, at)| {
                LeaseRecord::mark(if starts { TimeMark::Started(at) } else { TimeMark::Running(at) })
            });
            let end = ends(marks.chain([ending(until)]), now)[0];

            prop_assert_eq!(end <= now, has_ended);
            prop_assert!(end <= now + Seconds::from(u32::MAX));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = read::<Ipv4Addr>(&bytes);
            let _ = read::<Ipv6Addr>(&bytes);
        }

        #[test]
        fn a_flipped_bit_is_seen(
            v4 in records::<Ipv4Addr>(), v6 in records::<Ipv6Addr>(), bit: usize,
        ) {
            flip(v4, bit)?;
            flip(v6, bit)?;
        }
    }
}
