//! Any bytes may be given out as a UEFI program to build images on.

#![no_main]

use efi::{SharedFile, UkiStub};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let source = SharedFile { name: "stub".into(), len: bytes.len() as u64, sha256: [0; 32] };
    let _ = UkiStub::parse(source, bytes);
});
