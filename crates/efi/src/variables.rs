//! The UEFI variables of a virtual machine, edited in its flash image while the machine is off.
//!
//! [`VariableStore`] is the variable store of EDK2 (OVMF, AAVMF) with its records; [`LoadOption`] is the value of a
//! `Boot####` variable. With both, a BMC can set the next boot to a boot from a URL:
//! [`VariableStore::boot_once_from`].

mod load_option;
mod signature_list;
mod store;

pub use self::load_option::{DevicePath, DevicePathNode, IpVersion, LoadOption, LoadOptionError};
pub use self::signature_list::{
    EfiSignature, EfiSignatureData, SignatureListError, parse_signature_lists, signature_lists,
};
pub use self::store::{SetVariableError, UefiVariable, VariableStore, VariableStoreError};

use hardware::SecureBootDatabase;
use uuid::{Uuid, uuid};

/// `EFI_GLOBAL_VARIABLE`: the vendor of `Boot####`, `BootNext` and `BootOrder`.
pub const GLOBAL: Uuid = uuid!("8be4df61-93ca-11d2-aa0d-00e098032b8c");

/// Non-volatile, with boot-time and runtime access: required for boot variables.
pub const NON_VOLATILE_BOOT_RUNTIME: u32 = 0x7;

/// The first number that [`VariableStore::boot_once_from`] tries. Firmware counts from 0, so high numbers do not
/// collide with its own.
const FIRST_OF_OURS: u16 = 0x0099;

/// The description that identifies this project's entry.
const OUR_DESCRIPTION: &str = "Ferroboot: boot once over HTTP";

/// The vendor of `TlsCaCertificate` (EDK2 `NetworkPkg/Include/Guid/TlsAuthentication.h`).
const TLS_CA: Uuid = uuid!("fd2340d0-3dab-4349-a6c7-3b4f12b48eae");
/// `EFI_IMAGE_SECURITY_DATABASE_GUID`: the vendor of `db` and `dbx`.
const IMAGE_SECURITY_DATABASE: Uuid = uuid!("d719b2cb-3d3a-4596-a3bc-dad00e67656f");
/// [`NON_VOLATILE_BOOT_RUNTIME`] and `EFI_VARIABLE_TIME_BASED_AUTHENTICATED_WRITE_ACCESS`: required for keys.
const AUTHENTICATED_BOOT_RUNTIME: u32 = 0x27;
/// The owner of this project's entries in signature lists.
pub const SIGNATURE_OWNER: Uuid = uuid!("fe440b00-7c1d-4e0f-9b2a-6d1f3c5e7a90");
/// The vendor of `SecureBootEnable` (EDK2 `MdeModulePkg/Include/Guid/ImageAuthentication.h` and
/// `SecurityPkg/Include/Guid/SecureBootConfigHii.h`, `gEfiSecureBootEnableDisableGuid`).
const SECURE_BOOT_ENABLE: Uuid = uuid!("f0a30bc7-af08-4556-99c4-001009c93a44");
const SECURE_BOOT_ENABLE_NAME: &str = "SecureBootEnable";
/// Non-volatile, with boot-time access alone.
const NON_VOLATILE_BOOT: u32 = 0x3;

impl VariableStore {
    /// Sets the authorities (DER) that the firmware trusts for HTTPS boot, in place of all former ones; none removes
    /// the variable.
    ///
    /// # Errors
    /// [`SetVariableError`] if the variable or the store has no room.
    pub fn set_tls_authorities(
        &mut self,
        certificates: &[Vec<u8>],
    ) -> Result<(), SetVariableError> {
        const NAME: &str = "TlsCaCertificate";
        let lists = signature_lists(&own_signatures(certificates));
        let current = self.get(NAME, TLS_CA).map(|variable| variable.data.to_vec());
        if lists.is_empty() {
            self.delete(NAME, TLS_CA);
            return Ok(());
        }
        if current.as_ref() == Some(&lists) {
            return Ok(());
        }
        self.set(NAME, TLS_CA, NON_VOLATILE_BOOT_RUNTIME, &lists)
    }

    /// Enrols a certificate (DER) as platform key, as key-exchange key and in `db`, in place of all former ones: at its next
    /// start, firmware with Secure Boot leaves the setup mode and starts only what the certificate's key has signed.
    ///
    /// # Errors
    /// [`SetVariableError`] if a variable or the store has no room.
    pub fn enroll_secure_boot(&mut self, certificate: &[u8]) -> Result<(), SetVariableError> {
        let list = own_signatures(&[certificate.to_vec()]);
        // The platform key comes last: with it the firmware is in user mode (UEFI §32.3).
        for database in [
            SecureBootDatabase::Allowed,
            SecureBootDatabase::KeyExchangeKeys,
            SecureBootDatabase::PlatformKey,
        ] {
            self.set_secure_boot_database(database, &list)?;
        }
        Ok(())
    }

    /// The signatures in a database of Secure Boot; none if the variable is absent.
    ///
    /// # Errors
    /// [`SignatureListError`]
    pub fn secure_boot_database(
        &self,
        database: SecureBootDatabase,
    ) -> Result<Vec<EfiSignature>, SignatureListError> {
        let variable = self.get(database.name(), vendor_of(database));
        variable.map_or(Ok(Vec::new()), |variable| parse_signature_lists(variable.data))
    }

    /// Sets a database of Secure Boot, as firmware does after it has checked a signature; without signatures the variable is
    /// removed. The firmware obeys at its next start.
    ///
    /// # Errors
    /// [`SetVariableError`] if the variable or the store has no room.
    pub fn set_secure_boot_database(
        &mut self,
        database: SecureBootDatabase,
        signatures: &[EfiSignature],
    ) -> Result<(), SetVariableError> {
        let (name, vendor) = (database.name(), vendor_of(database));
        if signatures.is_empty() {
            self.delete(name, vendor);
            return Ok(());
        }
        self.write(name, vendor, AUTHENTICATED_BOOT_RUNTIME, &signature_lists(signatures))
    }

    /// Whether EDK2 enforces Secure Boot as soon as there is a platform key (`SecureBootEnable`). Without the variable it
    /// does (`AuthVariableLib`, `InitializeSecureBootVariables`).
    #[must_use]
    pub fn is_secure_boot_enabled(&self) -> bool {
        self.get(SECURE_BOOT_ENABLE_NAME, SECURE_BOOT_ENABLE)
            .is_none_or(|variable| variable.data == [1])
    }

    /// Sets what [`Self::is_secure_boot_enabled`] returns.
    ///
    /// # Errors
    /// [`SetVariableError`] if the store has no room.
    pub fn enable_secure_boot(&mut self, is_enabled: bool) -> Result<(), SetVariableError> {
        if self.is_secure_boot_enabled() == is_enabled {
            return Ok(());
        }
        let value = [u8::from(is_enabled)];
        self.set(SECURE_BOOT_ENABLE_NAME, SECURE_BOOT_ENABLE, NON_VOLATILE_BOOT, &value)
    }

    /// The number in `BootNext`; absent after the firmware has used it.
    #[must_use]
    pub fn boot_next(&self) -> Option<u16> {
        match self.get("BootNext", GLOBAL)?.data {
            [low, high] => Some(u16::from_le_bytes([*low, *high])),
            _ => None,
        }
    }

    /// Sets `BootNext`: only the next boot starts the `Boot####` with this number.
    ///
    /// # Errors
    /// [`SetVariableError::Full`] if the store has no room.
    pub fn set_boot_next(&mut self, number: u16) -> Result<(), SetVariableError> {
        self.set("BootNext", GLOBAL, NON_VOLATILE_BOOT_RUNTIME, &number.to_le_bytes())
    }

    /// The numbers in `BootOrder`; empty if it is absent, as before the first boot.
    #[must_use]
    pub fn boot_order(&self) -> Vec<u16> {
        let order = self.get("BootOrder", GLOBAL).map_or(&[][..], |variable| variable.data);
        let (numbers, _) = order.as_chunks();
        numbers.iter().map(|number| u16::from_le_bytes(*number)).collect()
    }

    /// Sets `BootOrder`.
    ///
    /// # Errors
    /// [`SetVariableError::Full`] if the store has no room.
    pub fn set_boot_order(&mut self, order: &[u16]) -> Result<(), SetVariableError> {
        let data: Vec<u8> = order.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.set("BootOrder", GLOBAL, NON_VOLATILE_BOOT_RUNTIME, &data)
    }

    /// All readable `Boot####`, by number.
    #[must_use]
    pub fn boot_options(&self) -> Vec<(u16, LoadOption)> {
        let mut options: Vec<_> = self
            .list()
            .into_iter()
            .filter(|variable| variable.vendor == GLOBAL)
            .filter_map(|variable| {
                let number = boot_number(&variable.name)?;
                Some((number, LoadOption::parse(variable.data).ok()?))
            })
            .collect();
        options.sort_by_key(|(number, _)| *number);
        options
    }

    /// Sets `Boot####`.
    ///
    /// # Errors
    /// [`SetVariableError::Full`] if the store has no room.
    pub fn set_boot_option(
        &mut self,
        number: u16,
        option: &LoadOption,
    ) -> Result<(), SetVariableError> {
        let name = format!("Boot{number:04X}");
        self.set(&name, GLOBAL, NON_VOLATILE_BOOT_RUNTIME, &option.to_bytes())
    }

    /// Removes `Boot####`; returns whether it existed.
    pub fn delete_boot_option(&mut self, number: u16) -> bool {
        self.delete(&format!("Boot{number:04X}"), GLOBAL)
    }

    /// Sets the next boot, and only that one, to HTTP boot from `url`.
    ///
    /// Writes a `Boot####` with the bare device path `Uri(url)` and points `BootNext` to it. The firmware tries its
    /// network interfaces in turn, with an address from any DHCP server (`EfiBootManagerExpandUriDevicePath`).
    /// `BootOrder` stays unchanged.
    ///
    /// # Errors
    /// [`SetVariableError::Full`] if the store has no room.
    pub fn boot_once_from(&mut self, url: &str) -> Result<(), SetVariableError> {
        self.forget_boot_once();
        let number = self.add_of_ours(LoadOption::from_uri(OUR_DESCRIPTION, url).path)?;
        self.set_boot_next(number)
    }

    /// Sets the next boot to the first of `paths` that leads to a bootable file.
    ///
    /// The first path is in `BootNext`. The others are at the front of `BootOrder`, and stay there until
    /// [`Self::forget_boot_once`]. OVMF puts its own order over that of this variable, unless no device of the
    /// machine has a `bootindex`.
    ///
    /// # Errors
    /// [`SetVariableError::Full`] if the store has no room.
    pub fn boot_once_along(
        &mut self,
        paths: impl IntoIterator<Item = DevicePath>,
    ) -> Result<(), SetVariableError> {
        self.forget_boot_once();
        let numbers = paths.into_iter().map(|path| self.add_of_ours(path));
        let numbers: Vec<u16> = numbers.collect::<Result<_, _>>()?;
        let Some((first, others)) = numbers.split_first() else {
            return Ok(());
        };
        if !others.is_empty() {
            let order = [others, &self.boot_order()].concat();
            self.set_boot_order(&order)?;
        }
        self.set_boot_next(*first)
    }

    fn add_of_ours(&mut self, path: DevicePath) -> Result<u16, SetVariableError> {
        let taken: Vec<u16> = self.boot_numbers();
        let number = (FIRST_OF_OURS..=u16::MAX)
            .find(|number| !taken.contains(number))
            .ok_or(SetVariableError::Full { needed: 0, left: 0 })?;
        self.set_boot_option(number, &LoadOption::active(OUR_DESCRIPTION, path))?;
        Ok(number)
    }

    /// Reverts [`Self::boot_once_from`] and [`Self::boot_once_along`]: removes their entries, used or not, also from
    /// `BootNext` and `BootOrder`.
    pub fn forget_boot_once(&mut self) {
        let ours = self.boot_once_numbers();
        if self.boot_next().is_some_and(|next| ours.contains(&next)) {
            self.delete("BootNext", GLOBAL);
        }
        let order = self.boot_order();
        let others: Vec<u16> =
            order.iter().copied().filter(|number| !ours.contains(number)).collect();
        if others.is_empty() && !order.is_empty() {
            self.delete("BootOrder", GLOBAL);
        } else if others != order {
            // If the write fails, the firmware skips numbers without an entry.
            let _ = self.set_boot_order(&others);
        }
        for number in ours {
            self.delete_boot_option(number);
        }
    }

    /// The URL that [`Self::boot_once_from`] set, until the firmware has used it.
    #[must_use]
    pub fn boots_once_from(&self) -> Option<String> {
        let next = self.boot_next()?;
        let (_, option) = self.boot_options().into_iter().find(|(number, _)| *number == next)?;
        option.path.uri().map(str::to_owned)
    }

    fn boot_once_numbers(&self) -> Vec<u16> {
        self.boot_options()
            .into_iter()
            .filter(|(_, option)| option.description == OUR_DESCRIPTION)
            .map(|(number, _)| number)
            .collect()
    }

    /// All numbers, including those of unreadable entries, so that none is overwritten.
    fn boot_numbers(&self) -> Vec<u16> {
        self.list().iter().filter_map(|variable| boot_number(&variable.name)).collect()
    }
}

/// Certificates (DER) as signatures of this project.
#[must_use]
pub fn own_signatures(certificates: &[Vec<u8>]) -> Vec<EfiSignature> {
    let signature = |certificate: &Vec<u8>| EfiSignature {
        owner: SIGNATURE_OWNER,
        data: EfiSignatureData::X509(certificate.clone()),
    };
    certificates.iter().map(signature).collect()
}

fn vendor_of(database: SecureBootDatabase) -> Uuid {
    match database {
        SecureBootDatabase::PlatformKey | SecureBootDatabase::KeyExchangeKeys => GLOBAL,
        SecureBootDatabase::Allowed | SecureBootDatabase::Forbidden => IMAGE_SECURITY_DATABASE,
    }
}

/// The number in the name `Boot####`: four upper-case hexadecimal digits (UEFI §3.3).
fn boot_number(name: &str) -> Option<u16> {
    let digits = name.strip_prefix("Boot")?;
    let exact = digits.len() == 4
        && digits.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    exact.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use hardware::Mac;

    use super::*;

    const URL: &str = "http://10.0.0.1:8080/boot/x/boot.iso";

    #[test]
    fn keys_are_enrolled_once_and_then_need_a_signature() {
        let mut store = VariableStore::empty();
        store.enroll_secure_boot(b"old").unwrap();

        store.enroll_secure_boot(b"a certificate").unwrap();

        let names: Vec<_> = store.list().into_iter().map(|variable| variable.name).collect();
        assert_eq!(names, ["db", "KEK", "PK"]);
        let db = store.get("db", IMAGE_SECURITY_DATABASE).unwrap();
        assert_eq!((db.attributes, &db.data[44..]), (0x27, &b"a certificate"[..]));
        let refused = store.set("PK", GLOBAL, NON_VOLATILE_BOOT_RUNTIME, b"");
        assert_eq!(refused, Err(SetVariableError::Authenticated("PK".into())));
    }

    #[test]
    fn a_database_of_secure_boot_is_changed_and_emptied() {
        let mut store = VariableStore::empty_for_virt(0x0C_0000).unwrap();
        let signatures = |digests: &[u8]| -> Vec<_> {
            let signature = |digest: &u8| EfiSignature {
                owner: SIGNATURE_OWNER,
                data: EfiSignatureData::Sha256([*digest; 32]),
            };
            digests.iter().map(signature).collect()
        };
        let forbidden = |store: &VariableStore| {
            store.secure_boot_database(SecureBootDatabase::Forbidden).unwrap().len()
        };

        // A list of Microsoft's size needs more room than other variables may have.
        for count in [2, 300, 0] {
            let all = signatures(&vec![7; count]);
            store.set_secure_boot_database(SecureBootDatabase::Forbidden, &all).unwrap();
            assert_eq!(forbidden(&store), count);
        }
        assert!(store.list().is_empty());
        assert!(store.is_secure_boot_enabled());
        store.enable_secure_boot(false).unwrap();
        assert!(!store.is_secure_boot_enabled());
        store.enable_secure_boot(true).unwrap();
        assert!(store.is_secure_boot_enabled());
    }

    #[test]
    fn the_next_boot_is_from_the_url_and_the_order_stays() {
        let mut store = VariableStore::empty();
        store.set_boot_order(&[0, 3]).unwrap();

        store.boot_once_from(URL).unwrap();

        assert_eq!(store.boot_next(), Some(0x99));
        assert_eq!(store.boots_once_from().as_deref(), Some(URL));
        assert_eq!(store.boot_order(), [0, 3]);
    }

    #[test]
    fn of_several_paths_the_first_is_next_and_the_others_lead_the_order() {
        let mut store = VariableStore::empty();
        store.set_boot_order(&[0, 3]).unwrap();
        let paths = [IpVersion::V4, IpVersion::V6]
            .map(|version| DevicePath::http_boot(16, Mac([2, 0, 0, 0, 0, 1]), version));

        store.boot_once_along(paths).unwrap();

        assert_eq!((store.boot_next(), store.boot_order()), (Some(0x99), vec![0x9A, 0, 3]));
        store.forget_boot_once();
        assert_eq!((store.boot_next(), store.boot_order()), (None, vec![0, 3]));
        assert!(store.boot_options().is_empty());
    }

    #[test]
    fn an_order_that_was_only_ours_is_gone_with_our_entries() {
        let mut store = VariableStore::empty();
        let paths = [IpVersion::V6, IpVersion::V4]
            .map(|version| DevicePath::http_boot(16, Mac([2, 0, 0, 0, 0, 1]), version));
        store.boot_once_along(paths).unwrap();

        store.forget_boot_once();

        assert_eq!(store.get("BootOrder", GLOBAL), None);
    }

    #[test]
    fn a_second_url_takes_the_place_of_the_first() {
        let mut store = VariableStore::empty();
        store.boot_once_from("http://old/a.efi").unwrap();

        store.boot_once_from(URL).unwrap();

        assert_eq!(store.boot_options().len(), 1);
        assert_eq!(store.boots_once_from().as_deref(), Some(URL));
    }

    #[test]
    fn an_entry_of_somebody_else_is_never_written_over() {
        let mut store = VariableStore::empty();
        let theirs = LoadOption::from_uri("theirs", "http://theirs/a.efi");
        store.set_boot_option(0x99, &theirs).unwrap();

        store.boot_once_from(URL).unwrap();

        assert_eq!(store.boot_next(), Some(0x9A));
        assert_eq!(store.boot_options()[0], (0x99, theirs));
    }

    #[test]
    fn forgetting_leaves_the_boot_next_of_somebody_else() {
        let mut store = VariableStore::empty();
        store.boot_once_from(URL).unwrap();
        store.set_boot_next(3).unwrap();

        store.forget_boot_once();

        assert_eq!(store.boot_next(), Some(3));
        assert!(store.boot_options().is_empty());
    }

    #[test]
    fn only_four_capital_hexadecimal_digits_make_a_boot_number() {
        assert_eq!(boot_number("Boot009A"), Some(0x9A));
        for other in ["Boot009a", "Boot9A", "BootNext", "BootOrder", "Boot+123", "Driver0001"] {
            assert_eq!(boot_number(other), None, "{other}");
        }
    }
}
