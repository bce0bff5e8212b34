//! Secure Boot: the databases of a machine's firmware, and the programs that it starts by them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A database of Secure Boot (UEFI §32.3), under its name as a variable, which is also its Redfish `DatabaseId`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecureBootDatabase {
    /// `PK`: the platform key. Without one, the firmware is in setup mode and starts anything.
    PlatformKey,
    /// `KEK`: the keys that may sign changes of the other databases.
    KeyExchangeKeys,
    /// `db`: what the firmware starts.
    Allowed,
    /// `dbx`: what it does not start, whoever signed it.
    Forbidden,
}

impl SecureBootDatabase {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::PlatformKey, Self::KeyExchangeKeys, Self::Allowed, Self::Forbidden];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PlatformKey => "PK",
            Self::KeyExchangeKeys => "KEK",
            Self::Allowed => "db",
            Self::Forbidden => "dbx",
        }
    }
}

/// An authority of Microsoft that signs loaders of other vendors, such as shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MicrosoftUefiCa {
    /// `Microsoft Corporation UEFI CA 2011`. It expired in June 2026, which firmware ignores.
    Ca2011,
    /// `Microsoft UEFI CA 2023`.
    Ca2023,
}

/// The certificates in `db` by which firmware with Secure Boot starts a loader, as far as this service has such loaders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SecureBootTrust {
    /// [`MicrosoftUefiCa::Ca2011`].
    pub microsoft_2011: bool,
    /// [`MicrosoftUefiCa::Ca2023`].
    pub microsoft_2023: bool,
    /// The certificate that signs this service's images; false as well if they are not signed.
    pub sign_certificate: bool,
}

impl SecureBootTrust {
    /// Whether `db` has the certificate of an authority.
    #[must_use]
    pub fn holds(self, authority: MicrosoftUefiCa) -> bool {
        match authority {
            MicrosoftUefiCa::Ca2011 => self.microsoft_2011,
            MicrosoftUefiCa::Ca2023 => self.microsoft_2023,
        }
    }

    /// Whether the firmware starts a loader with signatures of these authorities: one that it trusts is enough.
    #[must_use]
    pub fn starts_signed_by(self, authorities: &[MicrosoftUefiCa]) -> bool {
        authorities.iter().any(|authority| self.holds(*authority))
    }
}

/// `db holds Microsoft's CA of 2011`.
impl fmt::Display for SecureBootTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = [
            (self.microsoft_2011, "Microsoft's CA of 2011"),
            (self.microsoft_2023, "Microsoft's CA of 2023"),
            (self.sign_certificate, "the certificate that signs this service's images"),
        ];
        let held: Vec<_> = held.iter().filter(|(held, _)| *held).map(|(_, words)| *words).collect();
        match held.as_slice() {
            [] => f.write_str(
                "db holds neither Microsoft's CA of 2011 or 2023 nor the certificate that signs this service's images",
            ),
            held => write!(f, "db holds {}", held.join(" and ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_trusted_signature_of_several_is_enough() {
        use MicrosoftUefiCa::{Ca2011, Ca2023};
        let old = SecureBootTrust { microsoft_2011: true, ..SecureBootTrust::default() };
        let new = SecureBootTrust { microsoft_2023: true, ..SecureBootTrust::default() };

        for (trust, signed_by, starts) in [
            (old, &[Ca2011][..], true),
            (old, &[Ca2023], false),
            (old, &[Ca2023, Ca2011], true),
            (new, &[Ca2011], false),
            (new, &[Ca2011, Ca2023], true),
            (new, &[], false),
        ] {
            assert_eq!(trust.starts_signed_by(signed_by), starts, "{trust} {signed_by:?}");
        }
    }

    #[test]
    fn what_db_holds_is_said_in_words() {
        let all =
            SecureBootTrust { microsoft_2011: true, microsoft_2023: true, sign_certificate: true };
        assert_eq!(
            all.to_string(),
            "db holds Microsoft's CA of 2011 and Microsoft's CA of 2023 and the certificate that signs this service's \
             images"
        );
        assert!(SecureBootTrust::default().to_string().starts_with("db holds neither"));
    }
}
