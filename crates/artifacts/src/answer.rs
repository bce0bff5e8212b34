//! An answer's head, in the form that firmware takes.

use std::ops::Range;
use std::sync::Arc;

use http::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use netboot::fetch_plan::{FetchPlan, FetchRequest, Representation, plan};
use netboot::ticket::TicketRefusal;
use thiserror::Error;

use crate::body::Body;
use crate::contents::Contents;

/// What a request gets.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) contents: Arc<Contents>,
    /// Of the contents.
    pub(crate) range: Range<u64>,
    /// Why it is not what was asked for.
    pub(crate) error: Option<String>,
    /// Beside length and type.
    headers: Vec<(HeaderName, String)>,
}

/// Why a request gets no file.
#[derive(Debug, Error)]
pub(crate) enum Refused {
    /// Because of its path or ticket.
    #[error(transparent)]
    Ticket(#[from] TicketRefusal),
    /// Because of its method.
    #[error("only GET and HEAD are answered")]
    Method,
    /// Because the image cannot be made.
    #[error("{0:#}")]
    Unavailable(anyhow::Error),
}

impl Refused {
    fn status(&self) -> StatusCode {
        match self {
            Self::Ticket(refusal) => refusal.status(),
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What the peer is told, which is not where our files are.
    fn words(&self) -> String {
        match self {
            Self::Ticket(_) | Self::Method => self.to_string(),
            Self::Unavailable(_) => "there is no image to boot; the node's trace says why".into(),
        }
    }
}

impl Answer {
    /// The answer to a good request for a file that came to be at `modified`.
    pub(crate) fn planned(
        asked: &FetchRequest<'_>,
        contents: Arc<Contents>,
        modified: Timestamp,
    ) -> Self {
        let len = contents.image.len();
        let entity = Representation { len, etag: &contents.etag, modified };
        let about_it = vec![
            (ETAG, contents.etag.clone()),
            (LAST_MODIFIED, http_date(modified)),
            (ACCEPT_RANGES, "bytes".to_owned()),
        ];
        match plan(asked, &entity) {
            FetchPlan::Whole => Self {
                status: StatusCode::OK,
                range: 0..len,
                contents,
                error: None,
                headers: about_it,
            },
            FetchPlan::Part(range) => {
                let part = format!("bytes {}-{}/{len}", range.start, range.end - 1);
                let headers = [about_it, vec![(CONTENT_RANGE, part)]].concat();
                let status = StatusCode::PARTIAL_CONTENT;
                Self { status, range, contents, error: None, headers }
            }
            FetchPlan::NotModified => Self {
                status: StatusCode::NOT_MODIFIED,
                range: 0..0,
                contents,
                error: None,
                headers: about_it,
            },
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

    /// A sentence: shim waits for ever after an error without a body (`httpboot.c`).
    pub(crate) fn refused(refused: &Refused) -> Self {
        let headers = match refused {
            Refused::Method => vec![(ALLOW, "GET, HEAD".to_owned())],
            Refused::Ticket(_) | Refused::Unavailable(_) => Vec::new(),
        };
        let answer = Self::in_words(refused.status(), &refused.words(), headers);
        Self { error: Some(refused.to_string()), ..answer }
    }

    fn in_words(status: StatusCode, words: &str, headers: Vec<(HeaderName, String)>) -> Self {
        let contents = Arc::new(Contents::words(words));
        let range = 0..contents.image.len();
        Self { status, contents, range, error: Some(words.to_owned()), headers }
    }

    /// `Content-Range`, if it has one.
    pub(crate) fn content_range(&self) -> Option<&str> {
        let found = self.headers.iter().find(|(name, _)| name == CONTENT_RANGE);
        found.map(|(_, value)| value.as_str())
    }

    /// The same head whether or not `body` is the whole of it, as for HEAD.
    pub(crate) fn response(self, body: Body) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if self.status != StatusCode::NOT_MODIFIED {
            // Before all others: shim 16.0 misses it elsewhere. With it, hyper never sends chunks,
            // which EDK2's loaders do not read.
            headers.insert(CONTENT_LENGTH, (self.range.end - self.range.start).into());
            let content_type = self.contents.content_type;
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        add(headers, self.headers);
        response
    }
}

/// None of them is ever empty: OVMF hangs on an empty value.
fn add(headers: &mut HeaderMap, more: Vec<(HeaderName, String)>) {
    for (name, value) in more {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

fn http_date(at: Timestamp) -> String {
    // Years of more than four digits have no form in HTTP; no attempt starts then.
    DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap_or_default()
}
