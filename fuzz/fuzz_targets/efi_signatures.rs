//! Any bytes as a program with signatures.

#![no_main]

use efi::program_signatures;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = program_signatures(bytes);
});
