//! Any bytes are the manifest of a boot set: its digests are read, or it is said what is wrong.

#![no_main]

use libfuzzer_sys::fuzz_target;
use server::artifacts::digests;

fuzz_target!(|manifest: &[u8]| match digests(manifest) {
    Ok(files) => assert!(files.len() <= manifest.len()),
    Err(refused) => assert!(!format!("{refused:#}").is_empty()),
});
