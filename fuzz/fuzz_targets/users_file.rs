//! Any text is a file of users: it is refused with the line that is wrong, or has some, and no hash is in the words.

#![no_main]

use libfuzzer_sys::fuzz_target;
use server::api::guard::users_in;

fuzz_target!(|text: &str| match users_in(text) {
    Ok(users) => assert!(users > 0 && users <= text.lines().count()),
    Err(refused) => assert!(!format!("{refused:#}").contains("$2y$")),
});
