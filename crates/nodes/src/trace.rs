//! The recorder: it accepts the events of boots without blocking the caller.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use provision::virtual_media::{is_read_by_running_system, joined_reads};
use provision::{Attempt, BootEvent, BootEventKind, Boots, Node};
use store::{Clock, Store, StoreError, log_store_failure};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, timeout};
use tracing::{error, warn};
use uuid::Uuid;

use crate::address_book::AddressBook;
use crate::boot_progress::BootProgressTable;
use crate::later_boots::{LaterBoot, LaterBoots};

/// Capacity of the queue; further events are dropped, and the loss is logged.
///
/// Ten thousand machines that are switched on at once cause four events each within seconds.
const WAITING: usize = 65_536;

/// Accepts events of boots without blocking; clones share one queue.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: mpsc::Sender<Recorded>,
    numbers: Arc<Mutex<EventNumbers>>,
    lost: Arc<AtomicU64>,
    hurry: Arc<Notify>,
    written: watch::Receiver<Written>,
    addresses: AddressBook,
    later_boots: LaterBoots,
    fetches: FetchEnds,
    progress: BootProgressTable,
}

/// The nodes with a fetch of their instance's image since the last [`next`](Self::next); clones share them.
#[derive(Clone, Debug, Default)]
pub struct FetchEnds {
    nodes: Arc<Mutex<HashSet<Uuid>>>,
    added: Arc<Notify>,
}

impl FetchEnds {
    fn note(&self, node: Uuid) {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).insert(node);
        self.added.notify_one();
    }

    /// Waits for such nodes.
    pub async fn next(&self) -> HashSet<Uuid> {
        loop {
            let added = self.added.notified();
            let nodes =
                std::mem::take(&mut *self.nodes.lock().unwrap_or_else(PoisonError::into_inner));
            if !nodes.is_empty() {
                return nodes;
            }
            added.await;
        }
    }
}

/// The recorded events that are not in the store yet.
#[derive(Debug)]
pub struct Backlog {
    /// The events, in their order.
    pub recorded: mpsc::Receiver<Recorded>,
    numbers: Arc<Mutex<EventNumbers>>,
    hurry: Arc<Notify>,
    written: watch::Sender<Written>,
}

/// The waiting events, by their position in the queue since start.
#[derive(Debug, Default)]
struct EventNumbers {
    /// The number of the last event.
    last: u64,
    /// The number of the last waiting event of each node.
    of_nodes: HashMap<Uuid, u64>,
}

/// The writer's progress.
#[derive(Debug, Default)]
struct Written {
    /// Number of events that have left the queue since start.
    events: u64,
    /// The failure of the last write, if it failed; the events stay and are retried.
    outage: Option<StoreError>,
}

/// An event and its node, on the way to the store.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The node.
    pub node: Uuid,
    /// The event.
    pub event: BootEvent,
}

impl Recorder {
    /// A recorder, and the queue that [`write()`] empties.
    #[must_use]
    pub fn new() -> (Self, Backlog) {
        let (queue, recorded) = mpsc::channel(WAITING);
        let (written, already) = watch::channel(Written::default());
        let (hurry, numbers) = (Arc::<Notify>::default(), Arc::<Mutex<EventNumbers>>::default());
        let backlog = Backlog { recorded, numbers: numbers.clone(), hurry: hurry.clone(), written };
        let (lost, addresses) = (Arc::default(), AddressBook::default());
        let (later_boots, fetches) = (LaterBoots::default(), FetchEnds::default());
        let (written, progress) = (already, BootProgressTable::default());
        let recorder = Self {
            queue,
            numbers,
            lost,
            hurry,
            written,
            addresses,
            later_boots,
            fetches,
            progress,
        };
        (recorder, backlog)
    }

    /// The addresses of machines in current boots.
    #[must_use]
    pub fn addresses(&self) -> &AddressBook {
        &self.addresses
    }

    /// The later boots of machines with an instance.
    pub fn later_boots(&self) -> &LaterBoots {
        &self.later_boots
    }

    /// The nodes with a fetch of their instance's image.
    pub fn fetches(&self) -> &FetchEnds {
        &self.fetches
    }

    /// The progress of boots.
    pub fn progress(&self) -> &BootProgressTable {
        &self.progress
    }

    /// Records an event in the node's latest attempt, with the current time; nothing without an attempt.
    pub fn record(&self, node: &Node, what: BootEventKind) {
        self.addresses.note(node, &what);
        let Some(attempt) = &node.attempt else { return };
        if is_read_by_running_system(node, &what) {
            return;
        }
        let what = what.shortened();
        let is_fetch =
            attempt.boots() == Boots::Instance && matches!(what, BootEventKind::Http { .. });
        if self.enqueue(node, attempt, what) {
            if is_fetch {
                self.fetches.note(node.uuid);
            }
            return;
        }
        let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
        // Exponentially fewer lines: the log must keep up where the database does not.
        if lost.is_power_of_two() {
            warn!("the trace cannot keep up: {lost} events were lost since the start");
        }
    }

    /// Records an event, and waits until it is in the store. Returns whether it was saved in time.
    pub async fn save(&self, node: &Node, what: BootEventKind, within: Duration) -> bool {
        self.record(node, what);
        matches!(timeout(within, self.flush_node(node.uuid)).await, Ok(Ok(())))
    }

    /// Whether there was room. Times, numbers and identities are assigned in one order, so the events of a boot have
    /// numbers before that boot is overtaken.
    fn enqueue(&self, node: &Node, attempt: &Attempt, what: BootEventKind) -> bool {
        let mut numbers = locked(&self.numbers);
        let attempt = self.later_boots.attempt_of(node, attempt, &what);
        let event = BootEvent { at: Clock::process().now(), attempt, what };
        self.progress.note(node, &event);
        if self.queue.try_send(Recorded { node: node.uuid, event }).is_err() {
            return false;
        }
        numbers.last += 1;
        let number = numbers.last;
        numbers.of_nodes.insert(node.uuid, number);
        true
    }

    /// Moves the events of a boot that will be no attempt to the attempt before it.
    ///
    /// # Errors
    /// [`StoreError`]: the caller must retry.
    pub async fn overtake(
        &self,
        store: &Store,
        node: Uuid,
        later: LaterBoot,
    ) -> Result<(), StoreError> {
        self.later_boots.overtake(node, later);
        self.flush_node(node).await?;
        store.move_events(node, later.id, later.before).await?;
        self.later_boots.note_moved(node, later);
        Ok(())
    }

    /// Waits until all events recorded so far are in the store, before the caller reads them there.
    ///
    /// It does not wait for a database that cannot be written: the events stay in memory until it can.
    pub async fn flush(&self) {
        let last = locked(&self.numbers).last;
        self.flush_to(last).await.ok();
    }

    /// Waits until a node's recorded events are in the store, before more of the node is saved: a crash then loses
    /// only the end of a trace.
    ///
    /// # Errors
    /// The outage that prevents the write; nothing more of the node may be saved then.
    pub async fn flush_node(&self, node: Uuid) -> Result<(), StoreError> {
        let last = locked(&self.numbers).of_nodes.get(&node).copied();
        match last {
            Some(last) => self.flush_to(last).await,
            None => Ok(()),
        }
    }

    async fn flush_to(&self, number: u64) -> Result<(), StoreError> {
        let mut written = self.written.clone();
        while written.borrow_and_update().events < number {
            self.hurry.notify_one();
            if written.changed().await.is_err() {
                // Without a writer there is nothing to wait for.
                break;
            }
            if let Some(outage) = written.borrow().outage.as_ref().and_then(StoreError::outage) {
                return Err(outage);
            }
        }
        Ok(())
    }
}

fn locked(numbers: &Mutex<EventNumbers>) -> MutexGuard<'_, EventNumbers> {
    numbers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Largest number of events in one batch. A batch takes a few milliseconds, which is the longest wait of a node's
/// change and hardly delays other tasks.
const BATCH: usize = 256;
/// Time to gather events, unless a batch is full or a caller waits; a killed process loses the gathered events. The
/// database syncs each batch to disk; at 20 batches a second one DHCP answer in a hundred would have to wait for it.
const GATHER: Duration = Duration::from_millis(250);
/// The writer rests for this multiple of the last batch's duration under load: other work of the host, DHCP above
/// all, comes first.
const REST: u32 = 4;
/// Number of waiting events at which the writer no longer rests.
const HALF: usize = WAITING / 2;

/// Retry interval after a failed write, unless a caller waits.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Number of tries to write the rest at the end of the daemon.
const LAST_TRIES: u32 = 3;

/// Writes recorded events until the last [`Recorder`] is gone. Events that the database cannot take wait in memory,
/// in their order.
pub async fn write(store: Store, mut backlog: Backlog) {
    let mut waiting = Vec::new();
    while backlog.recorded.recv_many(&mut waiting, BATCH).await > 0 {
        let began = Instant::now();
        let number = waiting.len() as u64;
        let events = waiting.drain(..).map(|recorded| (recorded.node, recorded.event));
        backlog.write_all(&store, &joined_reads(events.collect()), number).await;
        let rest = match backlog.recorded.len() {
            _ if backlog.recorded.is_closed() => continue,
            0..BATCH => GATHER.max(REST * began.elapsed()),
            BATCH..HALF => REST * began.elapsed(),
            HALF.. => continue,
        };
        timeout(rest, backlog.hurry.notified()).await.ok();
    }
}

impl Backlog {
    /// Writes `events`, which are all that the queue held of `number` events.
    async fn write_all(&self, store: &Store, events: &[(Uuid, BootEvent)], number: u64) {
        let mut last_tries = LAST_TRIES;
        while let Err(failed) = store.append_events(events).await {
            log_store_failure(&failed, "events of traces could not be written");
            if self.recorded.is_closed() {
                last_tries -= 1;
            }
            if !failed.is_outage() || last_tries == 0 {
                error!(events = events.len(), "events of traces are lost");
                break;
            }
            self.written.send_modify(|written| written.outage = Some(failed));
            timeout(TRY_AGAIN, self.hurry.notified()).await.ok();
        }
        let mut numbers = locked(&self.numbers);
        self.written.send_modify(|written| {
            written.events += number;
            written.outage = None;
            for (node, _) in events {
                if numbers.of_nodes.get(node).is_some_and(|number| *number <= written.events) {
                    numbers.of_nodes.remove(node);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use hardware::{ClientKind, HttpMethod, Mac};
    use provision::artifact::Artifact;
    use provision::test_nodes::booting_node;
    use provision::trace::{AnnouncementCause, BootAnnouncement, DhcpAnswer, DhcpService};
    use provision::{BootInterface, Event, Policy, PowerState, Procedure, ProvisionState};
    use store::StoreFailure as _;
    use tempfile::TempDir;

    use super::*;
    use crate::index::NodeIndex;
    use crate::nodes::Nodes;

    /// A store with a booting node, and its folder.
    async fn store() -> (TempDir, Store, Node) {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/test.db", folder.path().display());
        let store = Store::open(&url, &folder.path().join("ferroboot.key")).await.unwrap();
        let node = booting_node();
        store.create_node(&node).await.unwrap();
        (folder, store, node)
    }

    fn announced() -> BootEventKind {
        BootEventKind::Provider {
            name: DhcpService::Kea,
            told: BootAnnouncement::Boot {
                cause: AnnouncementCause::Begin,
                ports: Vec::new(),
                artifact: None,
                warnings: Vec::new(),
            },
            error: None,
        }
    }

    #[tokio::test]
    async fn whoever_reads_a_trace_finds_what_was_recorded_before() {
        let (_folder, store, node) = store().await;
        let (recorder, backlog) = Recorder::new();
        let writer = tokio::spawn(write(store.clone(), backlog));

        for recorded in 1..=3 {
            recorder.record(&node, announced());
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
            recorder.record(&node, announced());
        }
        recorder.flush().await;

        assert_eq!(store.events(node.uuid, None).await.unwrap().len(), 3 * BATCH);
    }

    /// The BMC reads 100 bytes of the image in the virtual CD drive.
    fn read(first: u64) -> BootEventKind {
        BootEventKind::Http {
            method: HttpMethod::Get,
            artifact: Some(Artifact::Iso),
            path: "boot.iso".to_owned(),
            remote: Some([192, 0, 2, 9].into()),
            user_agent: None,
            status: 206,
            error: None,
            range: Some(format!("bytes {first}-{}/10000", first + 99)),
            sent: 100,
            length: 100,
            millis: 1,
            tls: None,
        }
    }

    #[tokio::test]
    async fn adjoining_reads_of_an_image_are_one_event_and_nobody_waits_for_the_joined_ones() {
        let (_folder, store, node) = store().await;
        let (recorder, backlog) = Recorder::new();
        for number in 0..9 {
            recorder.record(&node, read(100 * number));
        }
        tokio::spawn(write(store.clone(), backlog));

        recorder.flush_node(node.uuid).await.unwrap();

        let events = store.events(node.uuid, None).await.unwrap();
        let [BootEvent { what: BootEventKind::Http { range, sent, .. }, .. }] = &events[..] else {
            panic!("it is one event: {events:?}");
        };
        assert_eq!((range.as_deref(), *sent), (Some("bytes 0-899/10000"), 900));
        recorder.flush().await;
    }

    #[tokio::test]
    async fn reads_of_a_running_system_from_its_virtual_cd_are_not_recorded() {
        let (_folder, store, node) = store().await;
        let (mut node, _) = instance_that_restarts(node);
        let (recorder, backlog) = Recorder::new();
        tokio::spawn(write(store.clone(), backlog));
        node.attempt.as_mut().unwrap().boot_interface = BootInterface::RedfishVirtualMedia;

        recorder.record(&node, read(0));
        recorder.flush().await;

        assert!(store.events(node.uuid, None).await.unwrap().is_empty());
        assert!(recorder.addresses().owner([192, 0, 2, 9].into()).is_none());
    }

    /// An active node whose machine has its instance's image, and an event of its firmware starting again.
    fn instance_that_restarts(node: Node) -> (Node, BootEventKind) {
        let mut node = Node { provision_state: ProvisionState::Active, ..node };
        let attempt = node.attempt.as_mut().unwrap();
        attempt.procedure = Procedure::Deploy;
        attempt.image_fetched_at = Some(attempt.started_at);
        let firmware_asks = BootEventKind::Dhcp {
            message: "DISCOVER".to_owned(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            client: ClientKind::HttpClient,
            architecture: None,
            answer: DhcpAnswer::Offer { address: [192, 0, 2, 8].into(), artifact: None },
            unlisted: 0,
        };
        (node, firmware_asks)
    }

    #[tokio::test]
    async fn what_was_recorded_of_a_boot_that_was_overtaken_goes_to_the_attempt_before_it() {
        let (_folder, store, node) = store().await;
        let (node, firmware_asks) = instance_that_restarts(node);
        let before = node.attempt.as_ref().unwrap().id;
        let (recorder, backlog) = Recorder::new();
        tokio::spawn(write(store.clone(), backlog));
        recorder.record(&node, firmware_asks.clone());
        let [(_, later)] = recorder.later_boots().unsaved().await[..] else { panic!("one began") };

        recorder.overtake(&store, node.uuid, later).await.unwrap();
        recorder.record(&node, firmware_asks);
        recorder.flush().await;

        assert_eq!(store.events(node.uuid, Some(before)).await.unwrap().len(), 2);
        assert!(store.events(node.uuid, Some(later.id)).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn nobody_waits_for_a_writer_that_is_gone() {
        let (recorder, backlog) = Recorder::new();
        locked(&recorder.numbers).last = 1;

        drop(backlog);

        recorder.flush().await;
    }

    #[tokio::test]
    async fn what_a_database_cannot_take_is_written_when_it_can_and_nobody_waits_meanwhile() {
        let (folder, store, node) = store().await;
        let (recorder, backlog) = Recorder::new();
        let other = format!("sqlite://{}/test.db", folder.path().display());
        let other = sqlx::SqlitePool::connect(&other).await.unwrap();
        recorder.record(&node, announced());
        let locking = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let writer = tokio::spawn(write(store.clone(), backlog));

        // A lock on SQLite counts as an outage after ten seconds, as long as another process holds it.
        let waited = timeout(Duration::from_secs(30), recorder.flush()).await;
        assert!(waited.is_ok(), "nobody waits for a database that cannot be written");
        assert!(store.events(node.uuid, None).await.unwrap().is_empty());
        locking.rollback().await.unwrap();
        recorder.flush().await;

        assert_eq!(store.events(node.uuid, None).await.unwrap().len(), 1);
        drop(recorder);
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn a_change_of_a_node_overtakes_nothing_that_was_recorded_of_it() {
        let (_folder, store, node) = store().await;
        let (recorder, backlog) = Recorder::new();
        tokio::spawn(write(store.clone(), backlog));
        let nodes = Nodes::new(store.clone(), NodeIndex::default(), Policy::default());
        let nodes = nodes.recorded_by(recorder.clone());

        for round in 1..=20 {
            recorder.record(&node, announced());
            let seen = Event::PowerSeen(PowerState::On);
            nodes.happen(node.uuid, None, &seen).await.unwrap();

            // The state that a crash right after the change would leave.
            assert_eq!(store.events(node.uuid, None).await.unwrap().len(), round);
        }
    }

    #[tokio::test]
    async fn a_change_of_a_node_whose_events_wait_for_an_outage_to_end_is_refused_as_an_outage() {
        let (_folder, store, node) = store().await;
        let (recorder, backlog) = Recorder::new();
        let nodes = Nodes::new(store.clone(), NodeIndex::default(), Policy::default());
        let nodes = nodes.recorded_by(recorder.clone());
        recorder.record(&node, announced());
        let seen = Event::PowerSeen(PowerState::On);

        // The writer's last try fails; then the database becomes writable before the writer retries.
        let last_attempt = async {
            backlog.hurry.notified().await;
            let outage = StoreError::from(sqlx::Error::PoolTimedOut);
            backlog.written.send_modify(|written| written.outage = Some(outage));
        };
        let (changed, ()) = tokio::join!(nodes.happen(node.uuid, None, &seen), last_attempt);

        let refused = changed.unwrap_err();
        assert!(refused.is_outage(), "{refused}");
        tokio::spawn(write(store.clone(), backlog));
        nodes.happen(node.uuid, None, &seen).await.unwrap();
        assert_eq!(store.events(node.uuid, None).await.unwrap().len(), 1);
    }
}
