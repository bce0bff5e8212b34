//! The body of a request, with a limit in length, in time and in what all bodies hold together.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep_until};

use super::budget::BodyShare;
use super::{Held, Phase};

/// Why a body is not read to its end.
#[derive(Debug, Error)]
pub enum BodyError {
    /// Longer than this port takes.
    #[error("the body is longer than {0} bytes, which is as much as is taken here")]
    TooLarge(u64),
    /// Not here after as long as a body may take.
    #[error("the body did not come to its end within {0:?}")]
    TooSlow(Duration),
    /// All bodies together would be too much.
    #[error("too many bodies are under way; try again later")]
    NoRoom,
    /// The connection broke, or what came is no body.
    #[error("the body cannot be read")]
    Broken(#[from] hyper::Error),
}

/// The body of a request.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    /// Bytes, and how many of them may still come.
    limit: u64,
    left: u64,
    time: Duration,
    until: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    /// None for a request without a body.
    share: Option<Arc<BodyShare>>,
    held: Arc<Held>,
}

impl RequestBody {
    pub(super) fn new(
        incoming: Incoming,
        limit: u64,
        time: Duration,
        share: Option<Arc<BodyShare>>,
        held: Arc<Held>,
    ) -> Self {
        let until = Instant::now() + time;
        Self { incoming, limit, left: limit, time, until, timer: None, share, held }
    }

    fn check(&mut self, frame: &Frame<Bytes>) -> Result<(), BodyError> {
        // Trailers are read by nobody; hyper limits them as it does heads.
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        self.left = self.left.checked_sub(bytes).ok_or(BodyError::TooLarge(self.limit))?;
        let has_room = self.share.as_ref().is_none_or(|share| share.take(bytes));
        if has_room { Ok(()) } else { Err(BodyError::NoRoom) }
    }

    /// What may have happened while nothing came.
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
        // Before the peer is told to go on (`100 Continue`).
        if self.incoming.size_hint().lower() > self.left {
            return Poll::Ready(Some(Err(BodyError::TooLarge(self.limit))));
        }
        // A peer that sends a byte a second is never waited for, so that the clock is looked at first.
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
