//! Any bytes as a machine's variables, and as signature lists; a value that is set in a valid store is read back.

#![no_main]

use efi::variables::{VariableStore, parse_signature_lists, signature_lists};
use hardware::SecureBootDatabase;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(signatures) = parse_signature_lists(bytes) {
        let again = parse_signature_lists(&signature_lists(&signatures));
        assert_eq!(again, Ok(signatures));
    }
    let Ok(mut store) = VariableStore::parse(bytes.to_vec()) else { return };
    for database in SecureBootDatabase::ALL {
        let _ = store.secure_boot_database(database);
    }
    if store.boot_once_from("http://192.0.2.1/boot.iso").is_ok() {
        let again = VariableStore::parse(store.as_bytes().to_vec()).expect("what we write can be read");
        assert_eq!(again.boots_once_from().as_deref(), Some("http://192.0.2.1/boot.iso"));
    }
    store.forget_boot_once();
    assert_eq!(store.boots_once_from(), None);
});
