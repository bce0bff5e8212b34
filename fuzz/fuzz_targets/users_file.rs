//! Any text as a users file: it is refused with the invalid line, or has users, and no message contains a hash.

#![no_main]

use libfuzzer_sys::fuzz_target;
use server::api::guard::users_in;

const BCRYPT_KINDS: [&str; 3] = ["$2a$", "$2b$", "$2y$"];

fuzz_target!(|text: &str| match users_in(text) {
    Ok(users) => assert!(users > 0 && users <= text.lines().count()),
    Err(refused) => {
        let words = format!("{refused:#}");
        // Messages name the kinds of hashes, but show none of a file's.
        let hashes =
            text.lines().filter_map(|line| line.split_once(':')).map(|(_, hash)| hash.trim());
        let is_hash = |hash: &&str| {
            hash.len() >= 40 && BCRYPT_KINDS.iter().any(|kind| hash.starts_with(kind))
        };
        assert!(!hashes.filter(is_hash).any(|hash| words.contains(hash)), "{words}");
    }
});
