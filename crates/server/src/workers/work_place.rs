//! The places of concurrent work.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One of the places for concurrent work.
#[derive(Debug)]
pub(super) struct WorkPlace {
    room: Arc<Semaphore>,
    own: Mutex<Option<OwnedSemaphorePermit>>,
}

impl WorkPlace {
    pub(super) async fn of(room: &Arc<Semaphore>) -> Self {
        let own = Arc::clone(room).acquire_owned().await.ok();
        Self { room: Arc::clone(room), own: Mutex::new(own) }
    }

    /// Lends the place to others while `waited_for` runs: image servers may take hours, and must not block the work
    /// on other nodes.
    pub(super) async fn lend<T>(&self, waited_for: impl Future<Output = T>) -> T {
        let own = |permit| {
            std::mem::replace(&mut *self.own.lock().unwrap_or_else(PoisonError::into_inner), permit)
        };
        drop(own(None));
        let done = waited_for.await;
        drop(own(Arc::clone(&self.room).acquire_owned().await.ok()));
        done
    }
}
