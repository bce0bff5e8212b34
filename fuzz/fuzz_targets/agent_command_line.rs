//! Any text as a kernel command line: the agent goes on, and the log does not contain the token.

#![no_main]

use agent::cmdline::AgentOptions;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (options, _ignored) = AgentOptions::parse(text);
    let shown = format!("{options:?}");
    let Some(token) = options.token else { return };
    // Other arguments may contain the same text.
    assert!(text.matches(&token).count() > 1 || !shown.contains(&token));
});
