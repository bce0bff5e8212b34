//! Any text is a kernel command line: the agent goes on, and the token is in no log.

#![no_main]

use agent::cmdline::AgentOptions;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (options, _ignored) = AgentOptions::parse(text);
    let shown = format!("{options:?}");
    let Some(token) = options.token else { return };
    // Other arguments may hold the same text.
    assert!(text.matches(&token).count() > 1 || !shown.contains(&token));
});
