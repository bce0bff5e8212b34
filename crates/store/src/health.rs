//! Whether the database can be used, from the results of the last operations; logged once when it changes.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tracing::{error, info};

use crate::error::{StoreError, StoreFailure};

/// The state of the database; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Health {
    shared: Arc<HealthState>,
}

#[derive(Debug, Default)]
struct HealthState {
    disk_full: AtomicU64,
    unavailable: AtomicU64,
    other: AtomicU64,
    outage: Mutex<Outage>,
}

/// A current outage, or the end of the last one.
#[derive(Debug, Default)]
struct Outage {
    since: Option<Instant>,
    failures: u64,
    ended: Option<Instant>,
}

/// Number of failed operations since start, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailureCounts {
    /// The disk was full.
    pub disk_full: u64,
    /// The database did not answer, was locked, or its disk failed.
    pub unavailable: u64,
    /// Any other error of the database.
    pub other: u64,
}

impl Health {
    /// Number of failed operations since start.
    #[must_use]
    pub fn failures(&self) -> FailureCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let HealthState { disk_full, unavailable, other, .. } = &*self.shared;
        FailureCounts {
            disk_full: read(disk_full),
            unavailable: read(unavailable),
            other: read(other),
        }
    }

    /// Whether the last write failed because the disk is full or the database does not answer.
    #[must_use]
    pub fn is_out(&self) -> bool {
        self.outage().since.is_some()
    }

    /// Time since the end of the last outage: zero during an outage, `None` if there was none.
    ///
    /// Messages may have been lost during an outage, so timeouts of silence start again after it.
    #[must_use]
    pub fn usable_for(&self) -> Option<Duration> {
        let outage = self.outage();
        match (outage.since, outage.ended) {
            (Some(_), _) => Some(Duration::ZERO),
            (None, ended) => ended.map(|ended| ended.elapsed()),
        }
    }

    /// Records the result of a transaction.
    pub(crate) fn note_write<T, E: StoreFailure>(&self, done: &Result<T, E>) {
        match done.as_ref().err().and_then(E::of_store) {
            Some(failed) => self.note_failure(failed),
            None => self.note_success(),
        }
    }

    /// Records a failed operation. Reads may succeed while the disk is full, so only a successful write ends an
    /// outage.
    pub(crate) fn note_failure(&self, failed: &StoreError) {
        let counter = if matches!(failed, StoreError::DiskFull(_)) {
            &self.shared.disk_full
        } else if failed.is_outage() {
            &self.shared.unavailable
        } else {
            &self.shared.other
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if !failed.is_outage() {
            return;
        }
        let mut outage = self.outage();
        outage.failures += 1;
        if outage.since.is_none() {
            outage.since = Some(Instant::now());
            let cause = std::error::Error::source(failed).map(ToString::to_string);
            error!(
                cause = cause.unwrap_or_default(),
                "{failed}; nothing can be saved until then. Further failures are counted, not logged"
            );
        }
    }

    fn note_success(&self) {
        let mut outage = self.outage();
        let Some(since) = outage.since.take() else { return };
        outage.ended = Some(Instant::now());
        let (failures, seconds) = (std::mem::take(&mut outage.failures), since.elapsed().as_secs());
        info!("the database can be written again, after {seconds} s and {failures} failures");
    }

    fn outage(&self) -> std::sync::MutexGuard<'_, Outage> {
        self.shared.outage.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
