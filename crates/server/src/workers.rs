//! The workers: they claim work, do it, and report the result as an [`Event`].
//!
//! Work is claimed with a lease that is renewed during the work, so that a dead daemon's work is claimed again. Each
//! kind of work has a file; `watch` handles timeouts.

mod bmc_step;
mod boot;
mod boot_target;
mod context;
mod instances;
mod not_carried_out;
mod observe;
mod power;
mod power_sync;
mod steps;
mod tear_down;
mod verify;
mod watch;
mod way;
mod work_place;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ironic::step_plan::StepWork;
use jiff::SignedDuration;
use provision::{Event, Work};
use store::{ChangeError, Claimed, Clock, StoreFailure as _, WorkError, log_store_failure};
use tokio::sync::Semaphore;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, error, info, info_span, warn};
use uuid::Uuid;

pub use self::context::WorkerContext;
use self::work_place::WorkPlace;

/// Number of concurrent pieces of work. Most of their time is waiting for BMCs.
const AT_ONCE: usize = 64;
/// Duration of a claim. Another daemon takes over after this time.
pub(crate) const LEASE: SignedDuration = SignedDuration::from_secs(60);
const RENEW_EVERY: Duration = Duration::from_secs(15);
/// Polling interval for other daemons' work, and for work whose time has come.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Retry interval for saving a result.
const SAVE_AGAIN: Duration = Duration::from_secs(1);

/// The workers of a daemon.
#[derive(Clone, Debug)]
pub struct Workers(WorkerContext);

impl Workers {
    /// Workers with this context.
    #[must_use]
    pub fn new(context: WorkerContext) -> Self {
        Self(context)
    }

    /// Works until `end`; unfinished work is left for the next claim.
    pub async fn run(self, end: CancellationToken) {
        let context = &self.0;
        let mut regular = JoinSet::new();
        regular.spawn(watch::run(context.clone(), end.clone()));
        regular.spawn(instances::run(context.clone(), end.clone()));
        if let Some(every) = context.power_sync {
            regular.spawn(power_sync::run(context.clone(), every, end.clone()));
        }
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut under_way = JoinSet::new();
        let mut in_hand = HashMap::new();
        loop {
            let place = tokio::select! {
                place = WorkPlace::of(&room) => place,
                () = end.cancelled() => break,
            };
            while let Some(done) = under_way.try_join_next_with_id() {
                note_end(&mut in_hand, done);
            }
            let nodes = in_hand.values().copied().collect();
            let store = self.0.nodes.store();
            let claimed = tokio::select! {
                claimed = store.claim_work_beside(&self.0.daemon, Clock::process().now(), LEASE, &nodes) => claimed,
                () = end.cancelled() => break,
            };
            match claimed {
                Ok(Some(claimed)) => {
                    let (workers, node) = (self.clone(), claimed.node.uuid);
                    let task = under_way.spawn(async move { workers.work(claimed, place).await });
                    in_hand.insert(task.id(), node);
                    continue;
                }
                Ok(None) => {}
                Err(failed) => log_store_failure(&failed, "work could not be claimed"),
            }
            // New work of a node may be added before its current worker ends, and can be claimed only after that.
            let ends = !under_way.is_empty();
            tokio::select! {
                () = self.0.nodes.store().work_added() => {}
                Some(done) = under_way.join_next_with_id(), if ends => note_end(&mut in_hand, done),
                () = sleep(LOOK_EVERY) => {}
                () = end.cancelled() => break,
            }
        }
        under_way.shutdown().await;
        regular.shutdown().await;
    }

    async fn work(&self, claimed: Claimed, place: WorkPlace) {
        let (node, work) = (claimed.node.uuid, claimed.work.name());
        let span = info_span!("work", node.uuid = %node, work);
        let done = async {
            if claimed.claims > 1 {
                warn!(phase = ?claimed.progress, "taking over work that was begun before");
            }
            let under_way = self.0.nodes.begin_work(&claimed.claim);
            tokio::select! {
                () = under_way.cancelled.cancelled() => info!("the work is taken away, and ends"),
                () = self.bring_to_an_end(&claimed, &place) => {}
                lost = self.keep(&claimed) => warn!(error = %lost, "another daemon has taken over"),
            }
        };
        done.instrument(span).await;
    }

    async fn bring_to_an_end(&self, claimed: &Claimed, place: &WorkPlace) {
        match self.event_of(claimed, place).await {
            Ok(event) => self.finish(claimed, event).await,
            Err(lost @ WorkError::ClaimLost(_)) => {
                warn!(error = %lost, "another daemon has taken over");
            }
            // The machine's state is unknown, so the work must not fail.
            Err(failed @ WorkError::Store(_)) => {
                log_store_failure(&failed, "the work is put back, since the database failed");
                self.put_back(claimed).await;
            }
        }
    }

    /// Does the work. Only failures of the store are errors; any other failure is an event.
    async fn event_of(&self, claimed: &Claimed, place: &WorkPlace) -> Result<Event, WorkError> {
        let node = &claimed.node;
        Ok(match claimed.work {
            Work::Verify => verify::run(&self.0, node).await,
            Work::Boot { attempt } => boot::run(&self.0, claimed, attempt, place).await?,
            Work::AskSteps { attempt } => {
                steps::run(&self.0, claimed, attempt, StepWork::Ask).await
            }
            Work::RunStep { attempt, index } => {
                steps::run(&self.0, claimed, attempt, StepWork::Run { index }).await
            }
            Work::CheckStep { attempt, .. } => {
                steps::run(&self.0, claimed, attempt, StepWork::Check).await
            }
            Work::RunBmcStep { attempt, index } => {
                bmc_step::run(&self.0, claimed, attempt, index).await?
            }
            Work::TearDown { attempt } => tear_down::run(&self.0, claimed, attempt).await?,
            Work::SetPower { target } => power::run(&self.0, claimed, target).await?,
        })
    }

    /// Renews the claim until that fails.
    async fn keep(&self, claimed: &Claimed) -> WorkError {
        let mut often = interval(RENEW_EVERY);
        often.set_missed_tick_behavior(MissedTickBehavior::Delay);
        often.tick().await;
        loop {
            often.tick().await;
            match self.0.nodes.store().renew(&claimed.claim, Clock::process().now(), LEASE).await {
                Ok(()) => {}
                Err(lost @ WorkError::ClaimLost(_)) => return lost,
                // The lease outlasts a few failures.
                Err(failed) => log_store_failure(&failed, "a claim was not renewed"),
            }
        }
    }

    /// Saves the result of the work, as soon as the database can be written. The claim is renewed meanwhile.
    async fn finish(&self, claimed: &Claimed, event: Event) {
        let claim = &claimed.claim;
        loop {
            match self.0.nodes.happen(claim.node, Some(claim), &event).await {
                Ok(_) => return,
                Err(ChangeError::ClaimLost(_)) => {
                    info!("the work was taken away, and its result is not needed");
                    return;
                }
                Err(ChangeError::Refused(refused)) => {
                    debug!(?event, %refused, "the work is not needed any more");
                    return self.drop_work(claimed).await;
                }
                Err(failed) => {
                    log_store_failure(&failed, "the result of the work could not be saved");
                    if !failed.is_outage() {
                        // The lease will expire, and the work is claimed again.
                        return;
                    }
                }
            }
            sleep(SAVE_AGAIN).await;
        }
    }

    async fn drop_work(&self, claimed: &Claimed) {
        while let Err(failed) = self.0.nodes.store().drop_work(&claimed.claim).await {
            log_store_failure(&failed, "work that is not needed was not dropped");
            if !failed.is_outage() {
                return;
            }
            sleep(SAVE_AGAIN).await;
        }
    }

    /// Ends the claim on work that is to be done again.
    async fn put_back(&self, claimed: &Claimed) {
        let delay = SignedDuration::try_from(SAVE_AGAIN).unwrap_or_default();
        let store = self.0.nodes.store();
        while let Err(failed) = store.put_back(&claimed.claim, Clock::process().now(), delay).await
        {
            log_store_failure(&failed, "work could not be put back");
            if !failed.is_outage() {
                return;
            }
            sleep(SAVE_AGAIN).await;
        }
    }
}

/// Records that the work on a node has ended.
fn note_end(in_hand: &mut HashMap<Id, Uuid>, done: Result<(Id, ()), JoinError>) {
    let task = match done {
        Ok((task, ())) => task,
        Err(failed) => {
            error!(error = %failed, "a worker ended in the middle of its work");
            failed.id()
        }
    };
    in_hand.remove(&task);
}
