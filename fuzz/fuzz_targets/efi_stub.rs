//! Any bytes as a UEFI stub for images.

#![no_main]

use efi::{SharedFile, UkiStub};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let source = SharedFile { name: "stub".into(), len: bytes.len() as u64, sha256: [0; 32] };
    let _ = UkiStub::parse(source, bytes);
});
