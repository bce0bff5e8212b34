//! The recorder: whoever takes part in a boot says so here, and goes on at once.

use jiff::Timestamp;
use provision::{BootEvent, Node, What};
use store::Store;
use tokio::sync::mpsc;
use tracing::{error, warn};
use uuid::Uuid;

/// Events that may wait for the store before further ones are dropped (and that is logged).
const WAITING: usize = 16_384;

/// Takes events of boots without ever blocking; clones share one queue.
#[derive(Clone, Debug)]
pub struct Recorder(mpsc::Sender<Recorded>);

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
        (Self(sender), receiver)
    }

    /// Records what happened now in the node's latest attempt; without an attempt, nothing.
    pub fn record(&self, node: &Node, what: What) {
        let Some(attempt) = &node.attempt else { return };
        let event = BootEvent { at: Timestamp::now(), attempt: attempt.id, what };
        if self.0.try_send(Recorded { node: node.uuid, event }).is_err() {
            warn!(node.uuid = %node.uuid, "the trace cannot keep up: one event is lost");
        }
    }
}

/// Events that go into the store together.
const BATCH: usize = 512;

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
