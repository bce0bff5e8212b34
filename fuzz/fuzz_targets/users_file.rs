//! Any text is a file of users: it is refused with the line that is wrong, or has some, and no hash is in the words.

#![no_main]

use libfuzzer_sys::fuzz_target;
use server::api::guard::users_in;

fuzz_target!(|text: &str| match users_in(text) {
    Ok(users) => assert!(users > 0 && users <= text.lines().count()),
    Err(refused) => {
        let words = format!("{refused:#}");
        // The kinds of hashes are named; none of a file's is shown.
        let secrets = text.lines().filter_map(|line| line.split_once(":$2")?.1.get(5..));
        let mut secrets = secrets.filter(|secret| secret.len() >= 40);
        assert!(!secrets.any(|secret| words.contains(secret)), "{words}");
    }
});
