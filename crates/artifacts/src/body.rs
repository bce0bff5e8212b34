//! The body of an answer: a range of the contents, read as fast as the peer takes it.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::contents::Contents;

/// The range that is still to be sent.
pub(crate) struct Body {
    contents: Arc<Contents>,
    left: Range<u64>,
    reading: Option<Reading>,
}

type Reading = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>;

impl Body {
    pub(crate) fn new(contents: Arc<Contents>, range: Range<u64>) -> Self {
        Self { contents, left: range, reading: None }
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
        let Self { contents, left, reading } = &mut *self;
        let reader = reading.get_or_insert_with(|| {
            let (contents, left) = (Arc::clone(contents), left.clone());
            Box::pin(async move { contents.read(left).await })
        });
        let read = ready!(reader.as_mut().poll(cx));
        *reading = None;
        let bytes = read?;
        left.start += bytes.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.end - self.left.start)
    }
}
