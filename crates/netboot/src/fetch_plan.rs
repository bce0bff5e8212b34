//! The answer to a request for a file: all of it, a part, or an error status (RFC 9110 §13, §14).

use std::ops::Range;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// The conditions of a request; each field is the header of that name.
#[derive(Clone, Copy, Debug, Default)]
pub struct FetchRequest<'a> {
    /// Whether the method is HEAD, which ignores ranges.
    pub head: bool,
    /// `Range`.
    pub range: Option<&'a str>,
    /// `If-Match`.
    pub if_match: Option<&'a str>,
    /// `If-None-Match`.
    pub if_none_match: Option<&'a str>,
    /// `If-Range`.
    pub if_range: Option<&'a str>,
    /// `If-Modified-Since`.
    pub if_modified_since: Option<&'a str>,
    /// `If-Unmodified-Since`.
    pub if_unmodified_since: Option<&'a str>,
}

/// The properties of the file.
#[derive(Clone, Copy, Debug)]
pub struct Representation<'a> {
    /// Its length in bytes.
    pub len: u64,
    /// Its strong entity tag, with the quotes.
    pub etag: &'a str,
    /// Its modification time.
    pub modified: Timestamp,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchPlan {
    /// 200 with the whole file.
    Whole,
    /// 206 with these bytes, at least one.
    Part(Range<u64>),
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
    /// 416.
    Unsatisfiable,
}

/// Decides, in the order of RFC 9110 §13.2.2.
#[must_use]
pub fn plan(request: &FetchRequest<'_>, file: &Representation<'_>) -> FetchPlan {
    let precondition = match (request.if_match, request.if_unmodified_since.and_then(date)) {
        (Some(tags), _) => matches_strongly(tags, file.etag),
        (None, Some(since)) => seconds(file) <= since,
        (None, None) => true,
    };
    if !precondition {
        return FetchPlan::PreconditionFailed;
    }
    let known = match (request.if_none_match, request.if_modified_since.and_then(date)) {
        (Some(tags), _) => matches_weakly(tags, file.etag),
        (None, Some(since)) => seconds(file) <= since,
        (None, None) => false,
    };
    if known {
        return FetchPlan::NotModified;
    }
    let range = request.range.filter(|_| !request.head && still_the_same(request, file));
    match range.map_or(RequestedRange::Everything, |range| requested(range, file.len)) {
        RequestedRange::Everything => FetchPlan::Whole,
        RequestedRange::Part(range) => FetchPlan::Part(range),
        RequestedRange::Nothing => FetchPlan::Unsatisfiable,
    }
}

/// `If-Range`: a part is useful only to a client with other parts of the same file.
fn still_the_same(request: &FetchRequest<'_>, file: &Representation<'_>) -> bool {
    match request.if_range.map(str::trim) {
        None => true,
        Some(tag) if tag.starts_with(['"', 'W']) => tag == file.etag,
        Some(text) => date(text) == Some(seconds(file)),
    }
}

fn matches_strongly(tags: &str, etag: &str) -> bool {
    tags.trim() == "*" || tags.split(',').any(|tag| tag.trim() == etag)
}

fn matches_weakly(tags: &str, etag: &str) -> bool {
    let plain = |tag: &str| tag.trim().trim_start_matches("W/") == etag;
    tags.trim() == "*" || tags.split(',').any(plain)
}

/// HTTP dates have a resolution of one second.
fn seconds(file: &Representation<'_>) -> i64 {
    file.modified.as_second()
}

/// An invalid date is ignored (RFC 9110 §13.1.3).
fn date(text: &str) -> Option<i64> {
    let date = DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    Some(date.as_second())
}

enum RequestedRange {
    Everything,
    Part(Range<u64>),
    Nothing,
}

/// `bytes=0-99`, `bytes=100-` or `bytes=-100`. Multiple ranges, other units and malformed values are answered with
/// the whole file, as RFC 9110 §14.2 allows.
fn requested(range: &str, len: u64) -> RequestedRange {
    let Some((first, last)) = one_range(range) else { return RequestedRange::Everything };
    let range = match (first, last) {
        (Some(first), Some(last)) if first > last => return RequestedRange::Everything,
        (Some(first), Some(last)) => first..last.saturating_add(1).min(len),
        (Some(first), None) => first..len,
        (None, Some(suffix)) => len.saturating_sub(suffix)..len,
        (None, None) => return RequestedRange::Everything,
    };
    if range.is_empty() { RequestedRange::Nothing } else { RequestedRange::Part(range) }
}

fn one_range(range: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, range) = range.trim().split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    unit.eq_ignore_ascii_case("bytes").then_some(())?;
    Some((position(first)?, position(last)?))
}

/// Only digits: Rust would parse `+5` as a number.
fn position(digits: &str) -> Option<Option<u64>> {
    if digits.is_empty() {
        return Some(None);
    }
    let digits_only = digits.bytes().all(|b| b.is_ascii_digit());
    // A number that overflows lies behind the end of any file.
    digits_only.then(|| Some(digits.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ETAG: &str = "\"0123\"";

    fn file() -> Representation<'static> {
        Representation { len: 100, etag: ETAG, modified: "2026-01-02T03:04:05.6Z".parse().unwrap() }
    }

    fn ranged(range: &str) -> FetchPlan {
        plan(&FetchRequest { range: Some(range), ..FetchRequest::default() }, &file())
    }

    #[test]
    fn without_conditions_it_is_all_of_it() {
        assert_eq!(plan(&FetchRequest::default(), &file()), FetchPlan::Whole);
    }

    #[test]
    fn ranges_are_cut_at_the_end() {
        assert_eq!(ranged("bytes=0-0"), FetchPlan::Part(0..1));
        assert_eq!(ranged("bytes=90-"), FetchPlan::Part(90..100));
        assert_eq!(ranged("bytes=90-500"), FetchPlan::Part(90..100));
        assert_eq!(ranged("bytes=-10"), FetchPlan::Part(90..100));
        assert_eq!(ranged("bytes=-500"), FetchPlan::Part(0..100));
    }

    #[test]
    fn a_range_behind_the_end_is_unsatisfiable() {
        assert_eq!(ranged("bytes=100-"), FetchPlan::Unsatisfiable);
        assert_eq!(ranged("bytes=99999999999999999999999-"), FetchPlan::Unsatisfiable);
        assert_eq!(ranged("bytes=-0"), FetchPlan::Unsatisfiable);
    }

    #[test]
    fn what_is_no_single_range_gets_everything() {
        for range in ["bytes=0-1,5-6", "bytes=5-4", "bytes=-", "bytes=+1-2", "lines=1-2", "x", ""] {
            assert_eq!(ranged(range), FetchPlan::Whole, "{range}");
        }
    }

    #[test]
    fn head_is_answered_as_if_there_were_no_range() {
        let request =
            FetchRequest { head: true, range: Some("bytes=0-1"), ..FetchRequest::default() };
        assert_eq!(plan(&request, &file()), FetchPlan::Whole);
    }

    #[test]
    fn a_resumed_fetch_of_another_image_fails_rather_than_mixing_two() {
        let resume = |tag| {
            let request = FetchRequest {
                range: Some("bytes=50-"),
                if_match: Some(tag),
                ..FetchRequest::default()
            };
            plan(&request, &file())
        };
        assert_eq!(resume(ETAG), FetchPlan::Part(50..100));
        assert_eq!(resume("\"other\", \"0123\""), FetchPlan::Part(50..100));
        assert_eq!(resume("\"other\""), FetchPlan::PreconditionFailed);
        assert_eq!(resume("W/\"0123\""), FetchPlan::PreconditionFailed);
    }

    #[test]
    fn if_range_gets_the_whole_of_a_changed_file() {
        let part = |tag| {
            let request = FetchRequest {
                range: Some("bytes=50-"),
                if_range: Some(tag),
                ..FetchRequest::default()
            };
            plan(&request, &file())
        };
        assert_eq!(part(ETAG), FetchPlan::Part(50..100));
        assert_eq!(part("Fri, 02 Jan 2026 03:04:05 GMT"), FetchPlan::Part(50..100));
        assert_eq!(part("\"other\""), FetchPlan::Whole);
        assert_eq!(part("Fri, 02 Jan 2026 03:04:06 GMT"), FetchPlan::Whole);
    }

    #[test]
    fn whoever_has_it_already_is_told_so() {
        let request = FetchRequest { if_none_match: Some("W/\"0123\""), ..FetchRequest::default() };
        assert_eq!(plan(&request, &file()), FetchPlan::NotModified);
        let since = Some("Fri, 02 Jan 2026 03:04:05 GMT");
        let request = FetchRequest { if_modified_since: since, ..FetchRequest::default() };
        assert_eq!(plan(&request, &file()), FetchPlan::NotModified);
    }

    #[test]
    fn firmware_without_a_strong_tag_resumes_by_date() {
        let resume = |date| {
            let request = FetchRequest {
                range: Some("bytes=50-"),
                if_unmodified_since: Some(date),
                ..FetchRequest::default()
            };
            plan(&request, &file())
        };
        assert_eq!(resume("Fri, 02 Jan 2026 03:04:05 GMT"), FetchPlan::Part(50..100));
        assert_eq!(resume("Fri, 02 Jan 2026 03:04:04 GMT"), FetchPlan::PreconditionFailed);
        assert_eq!(resume("yesterday"), FetchPlan::Part(50..100));
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_file(range in "(bytes=)?[0-9,+ -]{0,30}", len in 0u64..1000) {
            let request = FetchRequest { range: Some(&range), ..FetchRequest::default() };
            let file = Representation { len, ..file() };
            if let FetchPlan::Part(part) = plan(&request, &file) {
                prop_assert!(part.start < part.end && part.end <= len);
            }
        }

        #[test]
        fn no_header_makes_it_panic(a in "\\PC{0,40}", b in "\\PC{0,40}") {
            let request = FetchRequest {
                range: Some(&a),
                if_range: Some(&b),
                if_modified_since: Some(&a),
                if_unmodified_since: Some(&b),
                if_none_match: Some(&b),
                ..FetchRequest::default()
            };
            let _ = plan(&request, &file());
        }
    }
}
