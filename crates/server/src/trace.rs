//! The recorder: whoever takes part in a boot says so here, and goes on at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use provision::{BootEvent, Node, What};
use store::{Clock, Store};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, timeout};
use tracing::{error, warn};
use uuid::Uuid;

use crate::address_book::AddressBook;

/// Events that may wait for the store before further ones are dropped (and that is logged).
///
/// Ten thousand machines that are switched on at once say four things each within seconds.
const WAITING: usize = 65_536;

/// Takes events of boots without ever blocking; clones share one queue.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: mpsc::Sender<Recorded>,
    queued: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
    hurry: Arc<Notify>,
    written: watch::Receiver<u64>,
    addresses: AddressBook,
}

/// What was recorded and is not in the store yet.
#[derive(Debug)]
pub struct Backlog {
    /// The events, in their order.
    pub recorded: mpsc::Receiver<Recorded>,
    hurry: Arc<Notify>,
    /// How many have left it.
    written: watch::Sender<u64>,
}

/// An event and its node, on the way to the store.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The node.
    pub node: Uuid,
    /// What happened.
    pub event: BootEvent,
}

impl Recorder {
    /// A recorder, and the queue that [`write()`] empties.
    #[must_use]
    pub fn new() -> (Self, Backlog) {
        let (queue, recorded) = mpsc::channel(WAITING);
        let (written, already) = watch::channel(0);
        let hurry = Arc::<Notify>::default();
        let backlog = Backlog { recorded, hurry: hurry.clone(), written };
        let (queued, lost) = (Arc::default(), Arc::default());
        let addresses = AddressBook::default();
        (Self { queue, queued, lost, hurry, written: already, addresses }, backlog)
    }

    /// Where the machines of boots under way were seen, by what was recorded.
    #[must_use]
    pub fn addresses(&self) -> &AddressBook {
        &self.addresses
    }

    /// Records what happened now in the node's latest attempt; without an attempt, nothing.
    pub fn record(&self, node: &Node, what: What) {
        self.addresses.note(node, &what);
        let Some(attempt) = &node.attempt else { return };
        let event = BootEvent { at: Clock::process().now(), attempt: attempt.id, what };
        if self.queue.try_send(Recorded { node: node.uuid, event }).is_ok() {
            self.queued.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
        // A database that cannot keep up must not be followed by a log that cannot.
        if lost.is_power_of_two() {
            warn!("the trace cannot keep up: {lost} events since the start are lost");
        }
    }

    /// Waits until what was recorded before is in the store, for whoever reads it there.
    pub async fn flush(&self) {
        let queued = self.queued.load(Ordering::Relaxed);
        let mut written = self.written.clone();
        while *written.borrow_and_update() < queued {
            self.hurry.notify_one();
            // Where nobody writes any more, there is nothing to wait for.
            if written.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Events that go into the store together at most. A batch takes a few milliseconds: whoever changes a node
/// waits for no longer, and whoever shares the processor with it hardly notices.
const BATCH: usize = 256;
/// How long to gather events, unless there are that many or somebody waits for them; a process that is killed
/// loses what it has gathered. The database brings each batch to the disk, for which answers would have to wait
/// in one of a hundred cases if that were done 20 times a second.
const GATHER: Duration = Duration::from_millis(250);
/// In a storm the writer rests for this many times as long as the last batch took: what else the machine
/// has to do then, DHCP above all, comes first.
const REST: u32 = 4;
/// As many events as may wait before there is no rest any more.
const HALF: usize = WAITING / 2;

/// Writes what is recorded until the last [`Recorder`] is gone.
pub async fn write(store: Store, backlog: Backlog) {
    let Backlog { mut recorded, hurry, written } = backlog;
    let mut waiting = Vec::new();
    while recorded.recv_many(&mut waiting, BATCH).await > 0 {
        let began = Instant::now();
        let events: Vec<_> =
            waiting.drain(..).map(|recorded| (recorded.node, recorded.event)).collect();
        if let Err(failed) = store.append_events(&events).await {
            error!(error = %failed, events = events.len(), "events of traces are lost");
        }
        written.send_modify(|written| *written += events.len() as u64);
        let rest = match recorded.len() {
            _ if recorded.is_closed() => continue,
            0..BATCH => GATHER.max(REST * began.elapsed()),
            BATCH..HALF => REST * began.elapsed(),
            HALF.. => continue,
        };
        timeout(rest, hurry.notified()).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::artifacts::tests::booting_node;

    /// A store with a node that is booting, and the folder that it is in.
    async fn store() -> (TempDir, Store, Node) {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/test.db", folder.path().display());
        let (store, node) = (Store::open(&url).await.unwrap(), booting_node());
        store.create_node(&node).await.unwrap();
        (folder, store, node)
    }

    fn told() -> What {
        What::Provider { name: "kea".to_owned(), told: "its URL".to_owned(), error: None }
    }

    #[tokio::test]
    async fn whoever_reads_a_trace_finds_what_was_recorded_before() {
        let (_folder, store, node) = store().await;
        let (recorder, backlog) = Recorder::new();
        let writer = tokio::spawn(write(store.clone(), backlog));

        for recorded in 1..=3 {
            recorder.record(&node, told());
            recorder.flush().await;

            assert_eq!(store.events(node.uuid, None).await.unwrap().len(), recorded);
        }
        drop(recorder);
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn whoever_reads_a_trace_finds_more_of_it_than_is_written_at_once() {
        let (_folder, store, node) = store().await;
        let (recorder, backlog) = Recorder::new();
        tokio::spawn(write(store.clone(), backlog));

        for _ in 0..3 * BATCH {
            recorder.record(&node, told());
        }
        recorder.flush().await;

        assert_eq!(store.events(node.uuid, None).await.unwrap().len(), 3 * BATCH);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_writer_that_is_gone() {
        let (recorder, backlog) = Recorder::new();
        recorder.queued.store(1, Ordering::Relaxed);

        drop(backlog);

        recorder.flush().await;
    }
}
