//! The progress of the boots that this daemon serves, in memory, with the fetches under way: for a live view that
//! costs no query.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use provision::{Artifact, BootEvent, BootProgress, Node};
use uuid::Uuid;

/// The progress of boots; clones share it.
#[derive(Clone, Debug, Default)]
pub struct BootProgressTable(Arc<SharedProgress>);

#[derive(Debug, Default)]
struct SharedProgress {
    boots: Mutex<HashMap<Uuid, BootProgress>>,
    fetches: Mutex<HashMap<u64, Arc<FetchCount>>>,
    next: AtomicU64,
    sent: AtomicU64,
}

#[derive(Debug)]
struct FetchCount {
    attempt: Uuid,
    artifact: Artifact,
    length: u64,
    sent: AtomicU64,
}

/// A fetch under way. Dropping it ends it.
#[derive(Debug)]
pub struct RunningFetch {
    number: u64,
    count: Arc<FetchCount>,
    shared: Arc<SharedProgress>,
}

/// The progress of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchProgress {
    /// The file.
    pub artifact: Artifact,
    /// Number of bytes passed on to the connection. The machine has up to a socket's buffer less.
    pub sent: u64,
    /// Number of bytes of the answer.
    pub length: u64,
}

impl BootProgressTable {
    /// Adds an event of the node's latest attempt.
    pub(crate) fn note(&self, node: &Node, event: &BootEvent) {
        let live = node.live_attempt().filter(|attempt| attempt.id == event.attempt);
        let Some(attempt) = live else { return };
        let mut boots = locked(&self.0.boots);
        let boot = boots
            .entry(attempt.id)
            .or_insert_with(|| BootProgress::new(attempt.id, attempt.started_at));
        boot.take(attempt.boot_interface, event);
    }

    /// A fetch of a file begins.
    #[must_use]
    pub fn begin_fetch(&self, attempt: Uuid, artifact: Artifact, length: u64) -> RunningFetch {
        let shared = Arc::clone(&self.0);
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let count = Arc::new(FetchCount { attempt, artifact, length, sent: AtomicU64::new(0) });
        locked(&shared.fetches).insert(number, Arc::clone(&count));
        RunningFetch { number, count, shared }
    }

    /// The progress of an attempt; `None` if this daemon saw nothing of it.
    #[must_use]
    pub fn of(&self, attempt: Uuid) -> Option<BootProgress> {
        locked(&self.0.boots).get(&attempt).cloned()
    }

    /// The largest fetch under way of each attempt.
    #[must_use]
    pub fn fetches(&self) -> HashMap<Uuid, FetchProgress> {
        let mut largest = HashMap::<Uuid, FetchProgress>::new();
        for count in locked(&self.0.fetches).values() {
            let &FetchCount { attempt, artifact, length, ref sent } = &**count;
            let fetch = FetchProgress { artifact, sent: sent.load(Ordering::Relaxed), length };
            let known = largest.entry(attempt).or_insert(fetch);
            if (known.length, known.sent) < (fetch.length, fetch.sent) {
                *known = fetch;
            }
        }
        largest
    }

    /// Number of bytes of files passed on to connections since the start.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Forgets all attempts but these.
    pub(crate) fn keep(&self, live: &HashSet<Uuid>) {
        locked(&self.0.boots).retain(|attempt, _| live.contains(attempt));
    }
}

impl RunningFetch {
    /// Counts bytes passed on to the connection.
    pub fn sent(&self, bytes: u64) {
        self.count.sent.fetch_add(bytes, Ordering::Relaxed);
        self.shared.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for RunningFetch {
    fn drop(&mut self) {
        locked(&self.shared.fetches).remove(&self.number);
    }
}

/// A panic elsewhere leaves nothing half done under these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_fetch_of_an_attempt_is_shown_until_it_ends() {
        let table = BootProgressTable::default();
        let attempt = Uuid::from_u128(1);
        let iso = table.begin_fetch(attempt, Artifact::Iso, 1_000);
        let script = table.begin_fetch(attempt, Artifact::IpxeScript, 10);
        iso.sent(300);
        script.sent(10);

        let shown = FetchProgress { artifact: Artifact::Iso, sent: 300, length: 1_000 };
        assert_eq!(table.fetches(), HashMap::from([(attempt, shown)]));
        drop((iso, script));
        assert_eq!(table.fetches(), HashMap::new());
        assert_eq!(table.sent(), 310);
    }
}
