//! Any text as a settings file: it is refused with an explanation, or everything derived from it at the start can be
//! built.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use server::config::Config;

fuzz_target!(|text: &str| match text.parse::<Config>() {
    Ok(config) => {
        let _ = (config.host(), config.policy(), config.power.sync_interval());
        let _ = config.database.url_in(Path::new("/var/lib/ferroboot"));
        let _ = config.urls(None);
        config.check().expect("what was checked is right");
    }
    Err(refused) => assert!(!format!("{refused:#}").is_empty()),
});
