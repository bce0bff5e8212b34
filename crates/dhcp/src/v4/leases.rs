//! IPv4 leases: a client is a MAC address, and has one binding of its address.

use std::net::Ipv4Addr;

use hardware::Mac;

use crate::address_family::{AddressFamily, LeaseBindings};
use crate::journal::{CHECKSUM_LEN, LeaseRecord};
use crate::leases::{LeaseHolder, LeasePlace, Seconds};

/// The only binding of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoleBinding(Option<Seconds>);

impl LeaseBindings<()> for SoleBinding {
    fn bind(&mut self, (): (), until: Seconds) {
        self.0 = Some(until);
    }

    fn each(&self) -> impl Iterator<Item = ((), Seconds)> {
        self.0.map(|until| ((), until)).into_iter()
    }
}

impl AddressFamily for Ipv4Addr {
    /// A MAC address.
    type Client = Mac;
    type Binding = ();
    type Bindings = SoleBinding;

    const UNSPECIFIED: Self = Self::UNSPECIFIED;
    const KEPT: () = ();
    /// First the addresses that were only offered to guests, then the longest free of other known machines, and last
    /// the declined ones: the other host may be gone, or never existed.
    const TAKEN_FOR_KNOWN: &'static [LeasePlace] =
        &[LeasePlace::OfferedToGuest, LeasePlace::EndedOfKnown, LeasePlace::Declined];
    const RECORD_LEN: usize = 20 + CHECKSUM_LEN;

    fn number(self) -> u128 {
        self.to_bits().into()
    }

    fn next(self) -> Option<Self> {
        self.to_bits().checked_add(1).map(Self::from_bits)
    }

    /// Kind, holder, MAC address, address, end; integers are big-endian.
    fn encode(record: &LeaseRecord<Self>, into: &mut Vec<u8>) {
        into.push(match record.binding {
            Some(()) => 1,
            None => 2,
        });
        into.push(match record.holder {
            LeaseHolder::Known => 0,
            LeaseHolder::Guest => 1,
        });
        into.extend(record.client.0);
        into.extend(record.address.octets());
        into.extend(record.until.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<LeaseRecord<Self>> {
        let ([kind, holder], rest) = bytes.split_first_chunk()?;
        let (client, rest) = rest.split_first_chunk()?;
        let (address, until) = rest.split_first_chunk::<4>()?;
        let binding = match kind {
            1 => Some(()),
            2 => None,
            _ => return None,
        };
        let holder = match holder {
            0 => LeaseHolder::Known,
            1 => LeaseHolder::Guest,
            _ => return None,
        };
        let (client, address) = (Mac(*client), Self::from(*address));
        let until = Seconds::from_be_bytes(until.try_into().ok()?);
        Some(LeaseRecord { client, address, binding, until, holder })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leases::LeaseClaim;
    use crate::leases::tests::{GUEST, TestFamily as _, bound, offered, plain};

    #[test]
    fn a_known_node_takes_what_a_guest_was_only_offered_before_what_another_node_had() {
        let mut leases = plain::<Ipv4Addr>();
        let other = bound(&mut leases, 1, LeaseClaim::Known, 0);
        for client in 10..13 {
            leases.offer(Ipv4Addr::client(client), None, GUEST, 500).unwrap();
        }

        assert!(offered(&mut leases, 2, 501).is_some_and(|address| address != other));
    }

    #[test]
    fn an_address_that_was_in_use_is_better_than_none_for_a_known_node_only() {
        let mut leases = plain::<Ipv4Addr>();
        let declined = bound(&mut leases, 1, LeaseClaim::Known, 0);
        leases.decline(Ipv4Addr::client(1), declined, 10).unwrap();
        for client in 2..=4 {
            bound(&mut leases, client, LeaseClaim::Known, 10);
        }

        assert_eq!(leases.offer(Ipv4Addr::client(5), None, GUEST, 11), None);
        assert_eq!(offered(&mut leases, 6, 11), Some(declined));
    }

    #[test]
    fn a_known_node_takes_what_a_guest_was_only_offered_but_not_what_it_has() {
        let mut leases = plain::<Ipv4Addr>();
        for client in 10..13 {
            bound(&mut leases, client, GUEST, 0);
        }
        let lent = leases.offer(Ipv4Addr::client(13), None, GUEST, 0).unwrap();

        assert_eq!(offered(&mut leases, 1, 1), Some(lent));
        assert_eq!(
            leases.bind(Ipv4Addr::client(13), lent, (), 100, GUEST, 1),
            None,
            "it was taken from it"
        );
        assert_eq!(offered(&mut leases, 2, 1), None);
    }

    #[test]
    fn a_record_that_was_written_before_both_families_had_one_table_is_read_and_written_the_same() {
        let written = [
            "01000200000000010a000002000000006b49d2005653b3fa",
            "02010200000000020a000003000000006b49d458b74378a5",
        ];
        let records = [
            LeaseRecord {
                client: Ipv4Addr::client(1),
                address: Ipv4Addr::at(2),
                binding: Some(()),
                until: 1_800_000_000,
                holder: LeaseHolder::Known,
            },
            LeaseRecord {
                client: Ipv4Addr::client(2),
                address: Ipv4Addr::at(3),
                binding: None,
                until: 1_800_000_600,
                holder: LeaseHolder::Guest,
            },
        ];

        for (written, record) in written.into_iter().zip(records) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, written);
            assert_eq!(LeaseRecord::decode(&bytes), Some(record));
        }
    }
}
