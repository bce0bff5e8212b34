//! The body of a request, with limits for its length, its duration and the memory of all bodies.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep_until};

use super::admission::Phase;
use super::budget::BodyShare;
use super::port_state::ConnectionPlace;

/// The reason why a body is not read to its end.
#[derive(Debug, Error)]
pub enum BodyError {
    /// The body exceeds this port's length limit.
    #[error("the body is longer than the limit of {0} bytes")]
    TooLarge(u64),
    /// The body did not arrive in time.
    #[error("the body did not arrive within {0:?}")]
    TooSlow(Duration),
    /// All bodies together would exceed the memory limit.
    #[error("too many bodies are under way; try again later")]
    NoRoom,
    /// The connection broke, or the body is malformed.
    #[error("the body cannot be read")]
    Broken(#[from] hyper::Error),
}

/// The body of a request.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    limit: u64,
    /// Remaining bytes up to the limit.
    left: u64,
    time: Duration,
    until: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    /// `None` for a request without a body.
    share: Option<Arc<BodyShare>>,
    held: Arc<ConnectionPlace>,
}

impl RequestBody {
    pub(super) fn new(
        incoming: Incoming,
        limit: u64,
        time: Duration,
        share: Option<Arc<BodyShare>>,
        held: Arc<ConnectionPlace>,
    ) -> Self {
        let until = Instant::now() + time;
        Self { incoming, limit, left: limit, time, until, timer: None, share, held }
    }

    fn check(&mut self, frame: &Frame<Bytes>) -> Result<(), BodyError> {
        // Trailers are not read; hyper limits them like headers.
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        self.left = self.left.checked_sub(bytes).ok_or(BodyError::TooLarge(self.limit))?;
        let has_room = self.share.as_ref().is_none_or(|share| share.take(bytes));
        if has_room { Ok(()) } else { Err(BodyError::NoRoom) }
    }

    /// Events other than data: the time limit, or the loss of the share.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        if let Some(share) = &self.share {
            share.notice().reader.register(cx.waker());
            if share.notice().gives_way() {
                return Poll::Ready(BodyError::NoRoom);
            }
        }
        let until = self.until;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        timer.as_mut().poll(cx).map(|()| BodyError::TooSlow(self.time))
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // Checked before the peer gets `100 Continue`.
        if self.incoming.size_hint().lower() > self.left {
            return Poll::Ready(Some(Err(BodyError::TooLarge(self.limit))));
        }
        // The clock is checked first: a peer that sends a byte a second would otherwise always have data.
        if let Poll::Ready(error) = self.poll_end(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(self.check(&frame).map(|()| frame))),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => {
                self.held.enter(Phase::Answer);
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
