//! Any bytes as a capture for `ferroboot replay`: each frame is counted, or an error is returned.

#![no_main]

use ferroboot::replay::summary;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|capture: &[u8]| match summary(capture) {
    Ok((words, _)) => assert!(words.contains("frames"), "{words}"),
    Err(refused) => assert!(!format!("{refused:#}").is_empty()),
});
