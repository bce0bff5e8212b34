//! Any bytes as the manifest of a boot set: its digests are parsed, or an error is returned.

#![no_main]

use libfuzzer_sys::fuzz_target;
use netboot::boot_set::BootSetManifest;

fuzz_target!(|json: &[u8]| match BootSetManifest::parse(json) {
    Ok(manifest) => {
        for name in manifest.names() {
            assert!(matches!(manifest.file(name), Ok(Some(_)) | Err(_)));
        }
    }
    Err(refused) => assert!(!refused.to_string().is_empty()),
});
