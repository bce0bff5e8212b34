//! Hardware addresses, in the ways firmware, loaders and kernels write them.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// An Ethernet address; displayed as `52:54:00:12:34:56`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// A text that is no Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no hardware address")]
pub struct NotAMac(String);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = NotAMac;

    /// Takes colons or dashes, and PXELINUX's `BOOTIF` form, which has the hardware type 01 (Ethernet) in front.
    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let not_a_mac = || NotAMac(text.to_owned());
        let octets: Vec<_> = text.split([':', '-']).collect();
        let octets = match &octets[..] {
            ["01", octets @ ..] if octets.len() == 6 => octets,
            octets => octets,
        };
        let mut mac = [0; 6];
        if octets.len() != mac.len() {
            return Err(not_a_mac());
        }
        for (byte, octet) in mac.iter_mut().zip(octets) {
            if octet.len() != 2 || !octet.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(not_a_mac());
            }
            *byte = u8::from_str_radix(octet, 16).map_err(|_| not_a_mac())?;
        }
        Ok(Self(mac))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn loaders_write_bootif_with_or_without_the_hardware_type() {
        let mac = Mac([0x52, 0x54, 0, 0xAA, 0xBB, 1]);

        for text in ["52:54:00:aa:bb:01", "52-54-00-AA-BB-01", "01-52-54-00-aa-bb-01"] {
            assert_eq!(text.parse(), Ok(mac), "{text}");
        }
        for text in
            ["", "52:54:00:aa:bb", "02-52-54-00-aa-bb-01", "5:54:00:aa:bb:01", "+5:54:00:aa:bb:01"]
        {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_address_survives_being_written_and_read(mac: [u8; 6]) {
            prop_assert_eq!(Mac(mac).to_string().parse(), Ok(Mac(mac)));
        }

        #[test]
        fn any_text_is_read_without_panic(text: String) {
            let _ = text.parse::<Mac>();
        }
    }
}
