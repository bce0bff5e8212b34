//! Limits of concurrent TFTP transfers.
//!
//! Any host can send requests, from any forged address, and each transfer has a socket. So few transfers may be under
//! way, and those of machines with an address from this DHCP server are counted separately.

use std::collections::HashMap;
use std::net::IpAddr;

/// Number of concurrent transfers of machines with an address from this service.
const OF_KNOWN: usize = 96;
/// Number of concurrent transfers of all other machines.
pub const OF_STRANGERS: usize = 32;
/// Number of concurrent transfers of one address. Firmware requests the file's size first, and abandons that
/// transfer.
const OF_ADDRESS: usize = 8;

/// Numbers of current transfers.
#[derive(Debug, Default)]
pub struct TransferCounts {
    of_known: usize,
    of_strangers: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The reason for refusing a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoTransfer {
    /// Too many of its address.
    Address,
    /// Too many of machines in boots.
    Known,
    /// Too many of all other machines.
    Strangers,
}

impl NoTransfer {
    /// The reason, in words.
    #[must_use]
    pub fn why(self) -> String {
        match self {
            Self::Address => format!("{OF_ADDRESS} of its transfers are under way"),
            Self::Known => format!("{OF_KNOWN} transfers of machines in boots are under way"),
            Self::Strangers => {
                format!("{OF_STRANGERS} transfers of machines that are not known are under way")
            }
        }
    }
}

impl TransferCounts {
    /// The number of transfers of machines that are in no boot.
    #[must_use]
    pub fn of_strangers(&self) -> usize {
        self.of_strangers
    }

    /// Counts a transfer; `is_known` means that its machine is in a boot.
    ///
    /// # Errors
    /// [`NoTransfer`]
    pub fn admit(&mut self, client: IpAddr, is_known: bool) -> Result<(), NoTransfer> {
        if self.by_address.get(&client).is_some_and(|of_it| *of_it >= OF_ADDRESS) {
            return Err(NoTransfer::Address);
        }
        let (count, most, full) = match is_known {
            true => (&mut self.of_known, OF_KNOWN, NoTransfer::Known),
            false => (&mut self.of_strangers, OF_STRANGERS, NoTransfer::Strangers),
        };
        if *count >= most {
            return Err(full);
        }
        *count += 1;
        *self.by_address.entry(client).or_default() += 1;
        Ok(())
    }

    /// Removes a transfer that was admitted with these arguments.
    pub fn end(&mut self, client: IpAddr, is_known: bool) {
        let count = if is_known { &mut self.of_known } else { &mut self.of_strangers };
        *count = count.saturating_sub(1);
        if let Some(of_it) = self.by_address.get_mut(&client) {
            *of_it = of_it.saturating_sub(1);
            if *of_it == 0 {
                self.by_address.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_take_nothing_from_machines_in_a_boot_and_no_address_takes_much() {
        let mut counts = TransferCounts::default();
        let address = |last: usize| IpAddr::from([192, 0, 2, u8::try_from(last).unwrap()]);

        for _ in 0..OF_ADDRESS {
            assert_eq!(counts.admit(address(1), false), Ok(()));
        }
        assert_eq!(counts.admit(address(1), false), Err(NoTransfer::Address));
        let others = (2..200).filter(|last| counts.admit(address(*last), false).is_ok()).count();
        assert_eq!(others, OF_STRANGERS - OF_ADDRESS);
        assert_eq!(counts.admit(address(250), false), Err(NoTransfer::Strangers));
        assert_eq!(counts.admit(address(251), true), Ok(()));

        counts.end(address(1), false);
        assert_eq!(counts.admit(address(250), false), Ok(()));
    }
}
