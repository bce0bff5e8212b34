//! Any path and headers of a request to the boot listener get a decision, and a partial answer is within the file.
//!
//! The input is text: a path, and each on a separate line `Range`, `If-Range`, `If-Match` and `If-Modified-Since`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use netboot::fetch_plan::{FetchPlan, FetchRequest, Representation, plan};
use netboot::ticket::boot_path;

const LEN: u64 = 1000;

fuzz_target!(|text: &str| {
    let mut lines = text.lines();
    if let Ok(path) = boot_path(lines.next().unwrap_or_default()) {
        for part in [path.ticket, path.file] {
            assert!(!part.is_empty() && !part.contains(['/', '\\', '\0']) && part != "..");
        }
    }
    let [range, if_range, if_match, if_modified_since] = [(); 4].map(|()| lines.next());
    let request = FetchRequest {
        head: false,
        range,
        if_match,
        if_none_match: if_match,
        if_range,
        if_modified_since,
        if_unmodified_since: if_modified_since,
    };
    let modified = jiff::Timestamp::UNIX_EPOCH;
    match plan(&request, &Representation { len: LEN, etag: "\"tag\"", modified }) {
        FetchPlan::Part(part) => assert!(part.start < part.end && part.end <= LEN),
        FetchPlan::Whole | FetchPlan::NotModified | FetchPlan::PreconditionFailed | FetchPlan::Unsatisfiable => {}
    }
});
