//! The places of work that is under way at once.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A place among those of the work that is under way at once.
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

    /// Gives the place to others while `waited_for` is: image servers may take hours, and those of some nodes must
    /// not keep the work on others from being done.
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
