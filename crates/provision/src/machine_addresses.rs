//! The network addresses of a machine in one attempt.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Number of addresses of each kind per attempt; new addresses displace the oldest.
const MOST_ADDRESSES: usize = 16;

/// The addresses of a machine in one attempt, and the address that holds the token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineAddresses {
    /// Addresses that fetched an image with the attempt's ticket.
    pub fetched: Vec<IpAddr>,
    /// Addresses that this DHCP server leased to the node's network cards.
    pub leased: Vec<IpAddr>,
    /// The address that got the token in answer to a lookup.
    pub token_holder: Option<TokenHolder>,
}

/// The holder of an attempt's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenHolder {
    /// The address of the lookup.
    pub address: IpAddr,
    /// The time of the latest lookup that was answered with the token.
    pub at: Timestamp,
}

impl MachineAddresses {
    /// Adds addresses, each once; the number of kept addresses is limited.
    pub fn add(&mut self, fetched: &[IpAddr], leased: &[IpAddr]) {
        for (known, seen) in [(&mut self.fetched, fetched), (&mut self.leased, leased)] {
            for address in seen.iter().map(IpAddr::to_canonical) {
                if known.contains(&address) {
                    continue;
                }
                if known.len() >= MOST_ADDRESSES {
                    known.remove(0);
                }
                known.push(address);
            }
        }
    }

    /// Whether no address is known yet.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether this is a known address of the machine.
    #[must_use]
    pub fn holds(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.fetched.contains(&address) || self.leased.contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_count_once_in_whichever_form_and_the_oldest_make_room() {
        let mut addresses = MachineAddresses::default();
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);

        addresses.add(&["::ffff:192.0.2.1".parse().unwrap(), address(1)], &[]);
        assert_eq!(addresses.fetched, [address(1)]);
        addresses.add(&(1..=20).map(address).collect::<Vec<_>>(), &[]);

        assert_eq!(addresses.fetched.len(), MOST_ADDRESSES);
        assert!(addresses.holds(address(20)) && !addresses.holds(address(1)));
        assert!(addresses.holds("::ffff:192.0.2.20".parse().unwrap()));
    }
}
