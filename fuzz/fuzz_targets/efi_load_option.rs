//! A parsed boot option, encoded and parsed again, is the same.

#![no_main]

use efi::variables::LoadOption;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(option) = LoadOption::parse(bytes) else { return };
    assert_eq!(LoadOption::parse(&option.to_bytes()).as_ref(), Ok(&option));
});
