//! The answer to a fetch: its status, its headers in the form that firmware accepts, and the range of its body.

use std::ops::Range;

use http::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use thiserror::Error;

use crate::fetch_plan::{FetchPlan, FetchRequest, Representation, plan};
use crate::ticket::TicketRefusal;

/// The answer to a request for a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchAnswer {
    /// The status.
    pub status: StatusCode,
    /// The body, except for HEAD.
    pub body: FetchBody,
    /// The error, for the trace.
    pub error: Option<String>,
    content_type: &'static str,
    /// Further headers, besides length and type.
    headers: Vec<(HeaderName, String)>,
}

/// The body of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchBody {
    /// A range of the file.
    Part(Range<u64>),
    /// A line of text instead of the file.
    Sentence(String),
}

/// The reason for refusing a request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FetchRefusal {
    /// The path or the ticket is not valid.
    #[error(transparent)]
    Ticket(#[from] TicketRefusal),
    /// The method is not supported.
    #[error("only GET and HEAD are answered")]
    Method,
    /// The image is not available, for this reason.
    #[error("{0}")]
    Unavailable(String),
}

impl FetchRefusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Ticket(refusal) => refusal.status(),
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The text for the peer, which does not reveal local paths.
    fn words(&self) -> String {
        match self {
            Self::Ticket(_) | Self::Method => self.to_string(),
            Self::Unavailable(_) => "there is no image to boot; the node's trace says why".into(),
        }
    }
}

impl FetchAnswer {
    /// The answer to a valid request for an existing file.
    #[must_use]
    pub fn planned(
        request: &FetchRequest<'_>,
        file: &Representation<'_>,
        content_type: &'static str,
    ) -> Self {
        let len = file.len;
        let about_it = vec![
            (ETAG, file.etag.to_owned()),
            (LAST_MODIFIED, http_date(file.modified)),
            (ACCEPT_RANGES, "bytes".to_owned()),
        ];
        let part = |status, range, headers| Self {
            status,
            body: FetchBody::Part(range),
            error: None,
            content_type,
            headers,
        };
        match plan(request, file) {
            FetchPlan::Whole => part(StatusCode::OK, 0..len, about_it),
            FetchPlan::Part(range) => {
                let shown = format!("bytes {}-{}/{len}", range.start, range.end - 1);
                let headers = [about_it, vec![(CONTENT_RANGE, shown)]].concat();
                part(StatusCode::PARTIAL_CONTENT, range, headers)
            }
            FetchPlan::NotModified => part(StatusCode::NOT_MODIFIED, 0..0, about_it),
            FetchPlan::PreconditionFailed => Self::in_words(
                StatusCode::PRECONDITION_FAILED,
                "the file is another one than before",
                about_it,
            ),
            FetchPlan::Unsatisfiable => Self::in_words(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "the range lies behind the end of the file",
                vec![(CONTENT_RANGE, format!("bytes */{len}"))],
            ),
        }
    }

    /// The answer to a refused request.
    #[must_use]
    pub fn refused(refusal: &FetchRefusal) -> Self {
        let headers = match refusal {
            FetchRefusal::Method => vec![(ALLOW, "GET, HEAD".to_owned())],
            FetchRefusal::Ticket(_) | FetchRefusal::Unavailable(_) => Vec::new(),
        };
        let answer = Self::in_words(refusal.status(), &refusal.words(), headers);
        Self { error: Some(refusal.to_string()), ..answer }
    }

    /// An answer with a text. shim waits forever after an error without a body (`httpboot.c`).
    fn in_words(status: StatusCode, words: &str, headers: Vec<(HeaderName, String)>) -> Self {
        Self {
            status,
            body: FetchBody::Sentence(format!("{words}\n")),
            error: Some(words.to_owned()),
            content_type: "text/plain",
            headers,
        }
    }

    /// Whether the status is not an error.
    #[must_use]
    pub fn is_useful(&self) -> bool {
        !self.status.is_client_error() && !self.status.is_server_error()
    }

    /// The `Content-Range` header, if there is one.
    #[must_use]
    pub fn content_range(&self) -> Option<&str> {
        let found = self.headers.iter().find(|(name, _)| name == CONTENT_RANGE);
        found.map(|(_, value)| value.as_str())
    }

    /// The headers, the same for GET and HEAD.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.status != StatusCode::NOT_MODIFIED {
            // First of all headers: shim 16.0 does not find it elsewhere. With it, hyper never sends chunks, which
            // EDK2's loaders do not support.
            headers.insert(CONTENT_LENGTH, self.body.len().into());
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        }
        for (name, value) in &self.headers {
            // No value is empty: OVMF hangs on an empty value.
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        headers
    }
}

impl FetchBody {
    fn len(&self) -> u64 {
        match self {
            Self::Part(range) => range.end - range.start,
            Self::Sentence(sentence) => sentence.len() as u64,
        }
    }
}

fn http_date(at: Timestamp) -> String {
    // Years of more than four digits have no form in HTTP; no attempt starts then.
    DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: &str = "\"0123\"";

    fn answer(request: &FetchRequest<'_>) -> FetchAnswer {
        let modified = "2026-01-02T03:04:05.6Z".parse().unwrap();
        let file = Representation { len: 100, etag: ETAG, modified };
        FetchAnswer::planned(request, &file, "application/efi")
    }

    fn shown(answer: &FetchAnswer) -> Vec<(String, String)> {
        let headers = answer.headers();
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        headers.iter().map(text).collect()
    }

    #[test]
    fn the_length_comes_before_all_other_headers() {
        let request = FetchRequest { range: Some("bytes=90-"), ..FetchRequest::default() };

        let part = answer(&request);

        assert_eq!(
            (part.status, &part.body),
            (StatusCode::PARTIAL_CONTENT, &FetchBody::Part(90..100))
        );
        let expected = [
            ("content-length", "10"),
            ("content-type", "application/efi"),
            ("etag", ETAG),
            ("last-modified", "Fri, 02 Jan 2026 03:04:05 GMT"),
            ("accept-ranges", "bytes"),
            ("content-range", "bytes 90-99/100"),
        ];
        assert_eq!(shown(&part), expected.map(|(name, value)| (name.into(), value.into())));
        assert!(part.is_useful());
    }

    #[test]
    fn what_is_known_already_has_neither_length_nor_type() {
        let known = answer(&FetchRequest { if_none_match: Some(ETAG), ..FetchRequest::default() });

        assert_eq!(known.status, StatusCode::NOT_MODIFIED);
        let headers = known.headers();
        assert!(!headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(CONTENT_TYPE));
        assert_eq!(headers["etag"], ETAG);
    }

    #[test]
    fn every_refusal_is_a_sentence_since_shim_waits_for_one() {
        let wrong = FetchRequest { range: Some("bytes=100-"), ..FetchRequest::default() };
        let changed = FetchRequest { if_match: Some("\"other\""), ..FetchRequest::default() };

        for refused in [
            answer(&wrong),
            answer(&changed),
            FetchAnswer::refused(&FetchRefusal::Method),
            FetchAnswer::refused(&TicketRefusal::Over.into()),
            FetchAnswer::refused(&FetchRefusal::Unavailable("/srv is empty".to_owned())),
        ] {
            let FetchBody::Sentence(sentence) = &refused.body else { panic!("{refused:?}") };
            assert!(sentence.len() > 10 && sentence.ends_with('\n'), "{sentence}");
            let headers = refused.headers();
            assert_eq!(headers[CONTENT_LENGTH], sentence.len().to_string());
            assert_eq!(headers[CONTENT_TYPE], "text/plain");
            assert!(!refused.is_useful() && refused.error.is_some());
        }
        assert_eq!(answer(&wrong).content_range(), Some("bytes */100"));
    }

    #[test]
    fn why_an_image_cannot_be_made_is_for_the_trace_and_not_for_the_machine() {
        let refused = FetchAnswer::refused(&FetchRefusal::Unavailable("/srv is empty".to_owned()));

        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.error.as_deref(), Some("/srv is empty"));
        assert!(matches!(&refused.body, FetchBody::Sentence(told) if !told.contains("/srv")));
    }
}
