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

/// The signers of what this service sends, as far as a database of Secure Boot has their certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeldSigners {
    /// [`MicrosoftUefiCa::Ca2011`].
    pub microsoft_2011: bool,
    /// [`MicrosoftUefiCa::Ca2023`].
    pub microsoft_2023: bool,
    /// The certificate that signs this service's images; false as well if they are not signed.
    pub sign_certificate: bool,
}

impl HeldSigners {
    /// Whether one of these authorities is among them.
    #[must_use]
    pub fn have_any(self, authorities: &[MicrosoftUefiCa]) -> bool {
        authorities.iter().any(|authority| match authority {
            MicrosoftUefiCa::Ca2011 => self.microsoft_2011,
            MicrosoftUefiCa::Ca2023 => self.microsoft_2023,
        })
    }

    /// In words; empty if there are none.
    fn words(self) -> String {
        let held = [
            (self.microsoft_2011, "Microsoft's CA of 2011"),
            (self.microsoft_2023, "Microsoft's CA of 2023"),
            (self.sign_certificate, "the certificate that signs this service's images"),
        ];
        let held: Vec<_> = held.iter().filter(|(held, _)| *held).map(|(_, words)| *words).collect();
        held.join(" and ")
    }
}

/// What firmware with Secure Boot starts of all that this service sends, by its databases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SecureBootTrust {
    /// The signers in `db`.
    #[serde(flatten)]
    pub allowed: HeldSigners,
    /// The signers in `dbx`; `None` if it was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forbidden: Option<HeldSigners>,
}

impl SecureBootTrust {
    /// Whether the firmware starts a loader with signatures of these authorities: one in `db` is enough, and one in `dbx`
    /// too many (UEFI §32.5.1; EDK2 `DxeImageVerificationHandler`).
    #[must_use]
    pub fn starts_signed_by(self, authorities: &[MicrosoftUefiCa]) -> bool {
        self.allowed.have_any(authorities) && !self.forbids(authorities)
    }

    /// Whether `dbx` has one of these authorities.
    #[must_use]
    pub fn forbids(self, authorities: &[MicrosoftUefiCa]) -> bool {
        self.forbidden.is_some_and(|forbidden| forbidden.have_any(authorities))
    }

    /// Whether `dbx` has the certificate that signs this service's images.
    #[must_use]
    pub fn forbids_own_images(self) -> bool {
        self.forbidden.is_some_and(|forbidden| forbidden.sign_certificate)
    }
}

/// `db holds Microsoft's CA of 2011, and dbx forbids Microsoft's CA of 2023`.
impl fmt::Display for SecureBootTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.allowed.words() {
            none if none.is_empty() => f.write_str(
                "db holds neither Microsoft's CA of 2011 or 2023 nor the certificate that signs this service's images",
            )?,
            held => write!(f, "db holds {held}")?,
        }
        match self.forbidden.unwrap_or_default().words() {
            none if none.is_empty() => Ok(()),
            forbidden => write!(f, ", and dbx forbids {forbidden}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OLD: HeldSigners =
        HeldSigners { microsoft_2011: true, microsoft_2023: false, sign_certificate: false };
    const NEW: HeldSigners =
        HeldSigners { microsoft_2011: false, microsoft_2023: true, sign_certificate: false };
    const ALL: HeldSigners =
        HeldSigners { microsoft_2011: true, microsoft_2023: true, sign_certificate: true };

    fn allows(allowed: HeldSigners) -> SecureBootTrust {
        SecureBootTrust { allowed, forbidden: None }
    }

    #[test]
    fn one_signature_in_db_is_enough_and_one_in_dbx_too_many() {
        use MicrosoftUefiCa::{Ca2011, Ca2023};
        let forbids = |forbidden| SecureBootTrust { allowed: ALL, forbidden: Some(forbidden) };
        for (trust, signed_by, starts) in [
            (allows(OLD), &[Ca2011][..], true),
            (allows(OLD), &[Ca2023], false),
            (allows(OLD), &[Ca2023, Ca2011], true),
            (allows(NEW), &[Ca2011], false),
            (allows(NEW), &[Ca2011, Ca2023], true),
            (allows(NEW), &[], false),
            (forbids(HeldSigners::default()), &[Ca2011, Ca2023], true),
            (forbids(OLD), &[Ca2011, Ca2023], false),
            (forbids(OLD), &[Ca2023], true),
        ] {
            assert_eq!(trust.starts_signed_by(signed_by), starts, "{trust} {signed_by:?}");
        }
    }

    #[test]
    fn what_the_databases_hold_is_said_in_words() {
        assert_eq!(
            allows(ALL).to_string(),
            "db holds Microsoft's CA of 2011 and Microsoft's CA of 2023 and the certificate that signs this service's \
             images"
        );
        assert!(SecureBootTrust::default().to_string().starts_with("db holds neither"));
        let forbids = SecureBootTrust { allowed: NEW, forbidden: Some(OLD) };
        assert_eq!(
            forbids.to_string(),
            "db holds Microsoft's CA of 2023, and dbx forbids Microsoft's CA of 2011"
        );
    }

    #[test]
    fn what_was_stored_before_dbx_was_read_is_still_understood() {
        let stored =
            json!({ "microsoft_2011": true, "microsoft_2023": false, "sign_certificate": false });

        let trust: SecureBootTrust = serde_json::from_value(stored.clone()).unwrap();

        assert_eq!(trust, allows(OLD));
        assert_eq!(serde_json::to_value(trust).unwrap(), stored);
        let forbids = SecureBootTrust { forbidden: Some(NEW), ..trust };
        let value = serde_json::to_value(forbids).unwrap();
        assert_eq!(serde_json::from_value::<SecureBootTrust>(value).unwrap(), forbids);
    }
}
