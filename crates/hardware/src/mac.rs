//! An Ethernet address, in Ironic's spelling: lower case, with colons.

use std::array::TryFromSliceError;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A MAC address (IEEE 802 MAC-48).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// The text is not a MAC address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected a MAC address such as 52:54:00:aa:bb:01, got {0:?}")]
pub struct NotAMac(pub String);

impl Mac {
    /// The form with dashes, as in PXELINUX's `BOOTIF` and in file names.
    #[must_use]
    pub fn dashed(self) -> String {
        self.to_string().replace(':', "-")
    }

    /// Whether the addresses differ by a typing error: one digit differs, or two adjacent digits are swapped.
    #[must_use]
    pub fn is_slip_of(self, other: Self) -> bool {
        let digits = |mac: Self| mac.0.map(|byte| [byte >> 4, byte & 0xf]).concat();
        let (own, other) = (digits(self), digits(other));
        let differ: Vec<_> = (0..own.len()).filter(|at| own[*at] != other[*at]).collect();
        match differ[..] {
            [_] => true,
            [one, two] => one + 1 == two && own[one] == other[two] && own[two] == other[one],
            _ => false,
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = NotAMac;

    /// Accepts colons or dashes, in either case.
    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let wrong = || NotAMac(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(wrong)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}

impl From<[u8; 6]> for Mac {
    fn from(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }
}

impl TryFrom<&[u8]> for Mac {
    type Error = TryFromSliceError;

    /// Accepts six bytes in wire order.
    fn try_from(bytes: &[u8]) -> Result<Self, TryFromSliceError> {
        bytes.try_into().map(Self)
    }
}

impl TryFrom<String> for Mac {
    type Error = NotAMac;

    fn try_from(text: String) -> Result<Self, NotAMac> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes: [u8; 6]) {
            let mac = Mac(bytes);
            prop_assert_eq!(mac.to_string().parse(), Ok(mac));
            prop_assert_eq!(mac.dashed().to_uppercase().parse(), Ok(mac));
        }

        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = text.parse::<Mac>();
        }
    }

    #[test]
    fn a_slip_is_one_digit_or_two_that_changed_places() {
        let is_slip = |text: &str| {
            let meant: Mac = "52:54:00:aa:bb:01".parse().unwrap();
            meant.is_slip_of(text.parse().unwrap())
        };

        for slip in ["52:54:00:aa:bb:02", "25:54:00:aa:bb:01", "52:54:00:aa:b0:b1"] {
            assert!(is_slip(slip), "{slip}");
        }
        for other in ["52:54:00:aa:bb:01", "52:54:00:aa:bb:12", "52:54:00:a1:bb:0a"] {
            assert!(!is_slip(other), "{other}");
        }
    }

    #[test]
    fn a_sign_is_not_a_digit() {
        assert!("+1:00:00:00:00:00".parse::<Mac>().is_err());
    }
}
