//! Any body as a command, and any JSON as a disk hint: both are accepted or refused.

#![no_main]

use agent::action::{AgentAction, request};
use agent::disks::hints::{Hint, Traits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Ok(request) = request(body) {
        let _ = AgentAction::parse(&request);
    }
    if let Ok(json) = serde_json::from_slice(body)
        && let Ok(hint) = Hint::parse(&json)
    {
        hint.fits(&Traits::default());
    }
});
