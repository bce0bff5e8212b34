//! The recorder: whoever takes part in a boot says so here, and goes on at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use provision::{BootEvent, Node, What};
use store::Store;
use tokio::sync::mpsc;
use tracing::{error, warn};
use uuid::Uuid;

/// Events that may wait for the store before further ones are dropped (and that is logged).
///
/// Ten thousand machines that are switched on at once say four things each within seconds.
const WAITING: usize = 65_536;

/// Takes events of boots without ever blocking; clones share one queue.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: mpsc::Sender<Recorded>,
    lost: Arc<AtomicU64>,
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
    /// A recorder, and the queue that its writer empties in batches.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Recorded>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self { queue: sender, lost: Arc::default() }, receiver)
    }

    /// Records what happened now in the node's latest attempt; without an attempt, nothing.
    pub fn record(&self, node: &Node, what: What) {
        let Some(attempt) = &node.attempt else { return };
        let event = BootEvent { at: Timestamp::now(), attempt: attempt.id, what };
        if self.queue.try_send(Recorded { node: node.uuid, event }).is_err() {
            let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
            // A database that cannot keep up must not be followed by a log that cannot.
            if lost.is_power_of_two() {
                warn!("the trace cannot keep up: {lost} events since the start are lost");
            }
        }
    }
}

/// Events that go into the store together. Many more would keep a thread busy for so long that DHCP
/// waits for it.
const BATCH: usize = 256;

/// Writes what is recorded until the last [`Recorder`] is gone.
pub async fn write(store: Store, mut recorded: mpsc::Receiver<Recorded>) {
    let mut waiting = Vec::new();
    while recorded.recv_many(&mut waiting, BATCH).await > 0 {
        let events: Vec<_> =
            waiting.drain(..).map(|recorded| (recorded.node, recorded.event)).collect();
        if let Err(failed) = store.append_events(&events).await {
            error!(error = %failed, events = events.len(), "events of traces are lost");
        }
    }
}
