//! Any version headers give a version that prints as its input, or an explanation.

#![no_main]

use ironic::version::Version;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|headers: (Option<&str>, Option<&str>)| {
    match Version::negotiate(headers.0, headers.1) {
        Ok(version) => {
            assert!((Version::MIN..=Version::MAX).contains(&version));
            assert_eq!(Version::negotiate(Some(&version.to_string()), None), Ok(version));
        }
        Err(bad) => assert!(!bad.to_string().is_empty()),
    }
});
