//! An answer, and the contents of its body.

use std::ops::Range;
use std::sync::Arc;

use jiff::Timestamp;
use netboot::fetch_answer::{FetchAnswer, FetchBody, FetchRefusal};
use netboot::fetch_plan::{FetchRequest, Representation};

use crate::contents::Contents;

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: FetchAnswer,
    pub(crate) contents: Arc<Contents>,
    /// The byte range of the contents.
    pub(crate) range: Range<u64>,
}

impl Answer {
    /// The answer to a valid request for a file with the time `modified`.
    pub(crate) fn planned(
        request: &FetchRequest<'_>,
        contents: Arc<Contents>,
        modified: Timestamp,
    ) -> Self {
        let file = Representation { len: contents.image.len(), etag: &contents.etag, modified };
        let head = FetchAnswer::planned(request, &file, contents.content_type);
        match &head.body {
            FetchBody::Part(range) => Self { range: range.clone(), contents, head },
            FetchBody::Sentence(_) => Self::in_words(head),
        }
    }

    /// The answer to a request that gets no file.
    pub(crate) fn refused(refusal: &FetchRefusal) -> Self {
        Self::in_words(FetchAnswer::refused(refusal))
    }

    fn in_words(head: FetchAnswer) -> Self {
        let sentence = match &head.body {
            FetchBody::Sentence(sentence) => sentence.clone(),
            FetchBody::Part(_) => String::new(),
        };
        let contents = Arc::new(Contents::sentence(sentence));
        Self { range: 0..contents.image.len(), contents, head }
    }
}
