//! Any bytes are a capture, as somebody hands it to `ferroboot replay`: each frame is counted, or it is said why not.

#![no_main]

use ferroboot::replay::summary;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|capture: &[u8]| match summary(capture) {
    Ok((words, _)) => assert!(words.contains("frames"), "{words}"),
    Err(refused) => assert!(!format!("{refused:#}").is_empty()),
});
