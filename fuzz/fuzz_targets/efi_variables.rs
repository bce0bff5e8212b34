//! Any bytes as a machine's variables; a value that is set in a valid store is read back.

#![no_main]

use efi::variables::VariableStore;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut store) = VariableStore::parse(bytes.to_vec()) else { return };
    if store.boot_once_from("http://192.0.2.1/boot.iso").is_ok() {
        let again = VariableStore::parse(store.as_bytes().to_vec()).expect("what we write can be read");
        assert_eq!(again.boots_once_from().as_deref(), Some("http://192.0.2.1/boot.iso"));
    }
    store.forget_boot_once();
    assert_eq!(store.boots_once_from(), None);
});
