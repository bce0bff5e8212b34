//! Looks at BMCs while boots are silent: what they show of the firmware is in the trace, and in the diagnosis.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hardware::BmcObservation;
use jiff::Timestamp;
use provision::firmware_look::FirmwareLook;
use provision::{BootEvent, BootEventKind, Node};
use redfish::observe::BootWatch;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info};
use uuid::Uuid;

use super::context::WorkerContext;
use crate::bmcs::{BmcClient, BmcError};

/// Number of BMCs that are looked at together.
const AT_ONCE: usize = 32;
/// Time for the waits of one request, and of one look. A BMC that is busy now is looked at again later.
const REQUEST: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_secs(30);

/// The looks at the machines of silent boots.
#[derive(Debug)]
pub(super) struct BootObserver {
    attempts: HashMap<Uuid, Looks>,
    room: Arc<Semaphore>,
    /// Looks under way, with their attempts.
    under_way: JoinSet<(Uuid, BootWatch)>,
}

/// The looks at one attempt.
#[derive(Debug)]
struct Looks {
    count: u32,
    next: Instant,
    /// What is known beside the trace: where the log is, and its older entries. `None` during a look.
    watch: Option<BootWatch>,
    /// Whether the last look before a failure is made.
    is_last_made: bool,
}

impl BootObserver {
    pub(super) fn new() -> Self {
        let (attempts, room) = (HashMap::new(), Arc::new(Semaphore::new(AT_ONCE)));
        Self { attempts, room, under_way: JoinSet::new() }
    }

    /// Keeps the looks at these attempts alone, and takes the ends of looks.
    pub(super) fn keep(&mut self, live: &HashSet<Uuid>) {
        while let Some(done) = self.under_way.try_join_next() {
            if let Ok((attempt, watch)) = done
                && let Some(looks) = self.attempts.get_mut(&attempt)
            {
                looks.watch = Some(watch);
            }
        }
        self.attempts.retain(|attempt, _| live.contains(attempt));
    }

    /// Begins a look at the machine of `node`, if its silence asks for one and the time has come.
    pub(super) fn observe(
        &mut self,
        context: &WorkerContext,
        node: &Node,
        trace: &[BootEvent],
        now: Timestamp,
    ) {
        let Some(look) = FirmwareLook::due(node, trace, now) else { return };
        self.begin(context, node, look, false);
    }

    /// Begins the last look before the boot of `node` fails. Returns whether its end is to be awaited.
    pub(super) fn observe_last(
        &mut self,
        context: &WorkerContext,
        node: &Node,
        trace: &[BootEvent],
        now: Timestamp,
    ) -> bool {
        let Some(attempt) = node.live_attempt().map(|attempt| attempt.id) else { return false };
        let is_made = self.attempts.get(&attempt).is_some_and(|looks| looks.is_last_made);
        if !is_made && let Some(look) = FirmwareLook::due(node, trace, now) {
            self.begin(context, node, look, true);
        }
        self.attempts.get(&attempt).is_some_and(|looks| looks.watch.is_none())
    }

    fn begin(&mut self, context: &WorkerContext, node: &Node, look: FirmwareLook, is_last: bool) {
        let Some(attempt) = node.live_attempt().map(|attempt| attempt.id) else { return };
        let now = Instant::now();
        let looks = self.attempts.entry(attempt).or_insert_with(|| Looks {
            count: 0,
            next: now,
            watch: Some(BootWatch::default()),
            is_last_made: false,
        });
        if now < looks.next && !is_last {
            return;
        }
        let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else { return };
        let Some(mut watch) = looks.watch.take() else { return };
        looks.count += 1;
        looks.next = now + FirmwareLook::wait_after(looks.count);
        looks.is_last_made |= is_last;
        look.seen.iter().for_each(|seen| watch.take(seen));
        let (context, node) = (context.clone(), node.clone());
        self.under_way.spawn(async move {
            look_at(&context, &node, look.since_power_on, &mut watch).await;
            drop(place);
            (attempt, watch)
        });
    }
}

/// A look at a machine that does not follow a reset.
pub(super) async fn observe_once(context: &WorkerContext, node: &Node, since_power_on: Duration) {
    look_at(context, node, since_power_on, &mut BootWatch::default()).await;
}

/// One look; what is new goes into the trace. A BMC that does not answer says nothing.
async fn look_at(
    context: &WorkerContext,
    node: &Node,
    since_power_on: Duration,
    watch: &mut BootWatch,
) {
    let seen = timeout(LOOK, observe(context, node, since_power_on, watch)).await;
    match seen {
        Ok(Ok(news)) => {
            for observation in news {
                info!(node.uuid = %node.uuid, "{observation}");
                context.recorder.record(node, BootEventKind::BmcShows { observation });
            }
        }
        Ok(Err(failed)) => debug!(node.uuid = %node.uuid, error = %failed, "the BMC shows nothing"),
        Err(_) => debug!(node.uuid = %node.uuid, "the BMC shows nothing within {LOOK:?}"),
    }
}

async fn observe(
    context: &WorkerContext,
    node: &Node,
    since_power_on: Duration,
    watch: &mut BootWatch,
) -> Result<Vec<BmcObservation>, BmcError> {
    let bmc = BmcClient::unrecorded(&context.bmcs, node, REQUEST).await?;
    let machine = bmc.machine().await?;
    Ok(machine.observe(watch, since_power_on).await?)
}
