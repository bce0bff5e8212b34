//! The body of an answer, as hyper reads it: it reports its end to its connection's progress, and may hold its last
//! byte back.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::progress::AnswerProgress;

/// The body of an answer.
pub(super) struct AnswerBody<B> {
    body: B,
    progress: AnswerProgress,
    /// The last byte is sent at its end.
    before_last_byte: Option<BoxFuture<'static, ()>>,
    /// The last byte, while it is held back.
    last_byte: Option<Bytes>,
}

impl<B: HttpBody> AnswerBody<B> {
    /// `before_last_byte` runs once the socket has taken all bytes but the last one.
    pub(super) fn new(
        body: B,
        progress: AnswerProgress,
        before_last_byte: Option<BoxFuture<'static, ()>>,
    ) -> Self {
        let others = body.size_hint().lower().saturating_sub(1);
        let before_last_byte = before_last_byte.map(|before| {
            let progress = progress.clone();
            async move {
                progress.took(others).await;
                before.await;
            }
            .boxed()
        });
        Self { body, progress, before_last_byte, last_byte: None }
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> AnswerBody<B> {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let (Some(_), Some(before)) = (&self.last_byte, &mut self.before_last_byte) {
            ready!(before.poll_unpin(cx));
            self.before_last_byte = None;
        }
        if let Some(last_byte) = self.last_byte.take() {
            return Poll::Ready(Some(Ok(Frame::data(last_byte))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let is_last = self.body.is_end_stream() && self.before_last_byte.is_some();
        Poll::Ready(
            frame
                .map(|read| read.map(|frame| frame.map_data(|data| self.hold_back(data, is_last)))),
        )
    }

    /// The bytes to send now.
    fn hold_back(&mut self, mut data: Bytes, is_last: bool) -> Bytes {
        if is_last && !data.is_empty() {
            self.last_byte = Some(data.split_off(data.len() - 1));
        }
        data
    }
}

impl<B> HttpBody for AnswerBody<B>
where
    B: HttpBody<Data = Bytes, Error: std::error::Error> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(self.poll_body(cx));
        if let Some(Err(error)) = &frame {
            self.progress.failed(error.to_string());
        }
        if frame.is_none() || self.is_end_stream() {
            self.progress.all_given();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.last_byte.is_none() && self.body.is_end_stream()
    }

    /// The answer's head is written before any byte is held back.
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for AnswerBody<B> {
    fn drop(&mut self) {
        self.progress.all_given();
    }
}
