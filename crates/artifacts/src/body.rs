//! The body of an answer: a range of the contents, read as fast as the peer takes it.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use nodes::RunningFetch;

use transport::http_server::FileParts;

use crate::contents::Contents;

/// The range that is still to be sent.
pub(crate) struct Body {
    contents: Arc<Contents>,
    left: Range<u64>,
    /// `None` if the connection can take no parts of files.
    file_parts: Option<FileParts>,
    reading: Option<Reading>,
    fetch: Option<RunningFetch>,
}

type Reading = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>;

impl Body {
    /// `fetch` counts the bytes.
    pub(crate) fn new(
        contents: Arc<Contents>,
        range: Range<u64>,
        file_parts: Option<FileParts>,
        fetch: Option<RunningFetch>,
    ) -> Self {
        Self { contents, left: range, file_parts, reading: None, fetch }
    }

    /// The next bytes, if nothing has to be awaited for them.
    fn at_once(&self) -> Option<Bytes> {
        if self.reading.is_some() {
            return None;
        }
        let part =
            || Some((self.file_parts.as_ref()?, self.contents.cached_part(self.left.clone())?));
        match part() {
            Some((parts, part)) => Some(parts.push(part)),
            None => self.contents.read_cached(self.left.clone()),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let at_once = self.at_once();
        let Self { contents, left, reading, fetch, .. } = &mut *self;
        let bytes = match at_once {
            Some(bytes) => bytes,
            None => {
                let reader = reading.get_or_insert_with(|| {
                    let (contents, left) = (Arc::clone(contents), left.clone());
                    Box::pin(async move { contents.read(left).await })
                });
                let read = ready!(reader.as_mut().poll(cx));
                *reading = None;
                read?
            }
        };
        left.start += bytes.len() as u64;
        if let Some(fetch) = fetch {
            fetch.sent(bytes.len() as u64);
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.end - self.left.start)
    }
}
