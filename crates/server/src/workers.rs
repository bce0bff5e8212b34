//! The workers: they claim work, do it, and say what came of it as an [`Event`].
//!
//! Work is claimed with a lease that is renewed while it is done, so that what a daemon leaves
//! behind when it dies is claimed again. Each kind of work has a file; `watch` looks after time.

mod boot;
mod power;
mod power_sync;
mod steps;
mod tear_down;
mod verify;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use provision::boot::HttpLoader;
use provision::{Event, Node, Policy, Work};
use store::{ChangeError, Claimed, WorkError};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, error, info_span, warn};

use crate::artifacts::Artifacts;
use crate::change::Nodes;
use crate::dhcp::BootingStrangers;
use crate::providers::Providers;
use crate::trace::Recorder;
use crate::urls::Urls;

/// How many pieces of work are under way at once. Most of their time is waiting for BMCs.
const AT_ONCE: usize = 64;
/// For how long work is claimed at a time. Another daemon takes over after this long.
const LEASE: SignedDuration = SignedDuration::from_secs(60);
const RENEW_EVERY: Duration = Duration::from_secs(15);
/// How often other daemons' work, and work whose time comes, is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What all workers use; clones share it.
#[derive(Clone, Debug)]
pub struct Workers {
    /// The nodes and their work.
    pub nodes: Nodes,
    /// Hears of every exchange.
    pub recorder: Recorder,
    /// What machines are booted with.
    pub artifacts: Artifacts,
    /// Where they fetch it.
    pub urls: Urls,
    /// What this daemon calls itself.
    pub host: String,
    /// The DHCP service that machines are booted by.
    pub providers: Providers,
    /// How long silence may last.
    pub policy: Policy,
    /// How often the power of resting machines is looked at; never, if `None`.
    pub power_sync: Option<Duration>,
    /// Who asked for a boot and is nobody's port, for diagnoses.
    pub strangers: BootingStrangers,
    /// What `http` starts first, for diagnoses.
    pub loader: HttpLoader,
}

impl Workers {
    /// Works until `end`; what is under way then is left for the next claim.
    pub async fn run(self, end: CancellationToken) {
        let mut regular = JoinSet::new();
        regular.spawn(watch::run(self.clone(), end.clone()));
        if let Some(every) = self.power_sync {
            regular.spawn(power_sync::run(self.clone(), every, end.clone()));
        }
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut under_way = JoinSet::new();
        loop {
            let permit = tokio::select! {
                permit = Arc::clone(&room).acquire_owned() => permit,
                () = end.cancelled() => break,
            };
            match self.nodes.store().claim_work(&self.host, Timestamp::now(), LEASE).await {
                Ok(Some(claimed)) => {
                    let workers = self.clone();
                    under_way.spawn(async move {
                        workers.work(claimed).await;
                        drop(permit);
                    });
                }
                Ok(None) => {
                    tokio::select! {
                        () = self.nodes.store().work_added() => {}
                        () = sleep(LOOK_EVERY) => {}
                        () = end.cancelled() => break,
                    }
                }
                Err(failed) => {
                    error!(error = %failed, "work could not be claimed");
                    sleep(LOOK_EVERY).await;
                }
            }
            while let Some(done) = under_way.try_join_next() {
                if let Err(failed) = done {
                    error!(error = %failed, "a worker ended in the middle of its work");
                }
            }
        }
        under_way.shutdown().await;
        regular.shutdown().await;
    }

    async fn work(&self, claimed: Claimed) {
        let (node, work) = (claimed.node.uuid, claimed.work.name());
        let span = info_span!("work", node.uuid = %node, work);
        let done = async {
            if claimed.claims > 1 {
                warn!("taking over work that was begun before");
            }
            let event = tokio::select! {
                event = self.event_of(&claimed) => event,
                lost = self.keep(&claimed) => {
                    warn!(error = %lost, "another daemon has taken over");
                    return;
                }
            };
            self.finish(&claimed, event).await;
        };
        done.instrument(span).await;
    }

    /// Does the work.
    async fn event_of(&self, claimed: &Claimed) -> Event {
        let node = &claimed.node;
        match claimed.work {
            Work::Verify => verify::run(self, node).await,
            Work::Boot { attempt } => boot::run(self, claimed, attempt).await,
            Work::AskSteps { attempt } => steps::ask(self, node, attempt).await,
            Work::RunStep { attempt, index } => steps::run(self, node, attempt, index).await,
            Work::CheckStep { attempt, .. } => steps::check(self, node, attempt).await,
            Work::TearDown { attempt } => tear_down::run(self, node, attempt).await,
            Work::SetPower { target } => power::run(self, claimed, target).await,
        }
    }

    /// Renews the claim until that fails.
    async fn keep(&self, claimed: &Claimed) -> WorkError {
        let mut often = interval(RENEW_EVERY);
        often.set_missed_tick_behavior(MissedTickBehavior::Delay);
        often.tick().await;
        loop {
            often.tick().await;
            match self.nodes.store().renew(&claimed.claim, Timestamp::now(), LEASE).await {
                Ok(()) => {}
                Err(lost @ WorkError::ClaimLost(_)) => return lost,
                // The lease outlasts a few failures.
                Err(WorkError::Store(failed)) => warn!(error = %failed, "a claim was not renewed"),
            }
        }
    }

    async fn finish(&self, claimed: &Claimed, event: Event) {
        match self.nodes.happen(claimed.claim.node, Some(&claimed.claim), &event).await {
            Ok(_) => {}
            Err(ChangeError::Refused(refused)) => {
                debug!(?event, %refused, "the work is not needed any more");
                if let Err(failed) = self.nodes.store().drop_work(&claimed.claim).await {
                    warn!(error = %failed, "work that is not needed was not dropped");
                }
            }
            // The lease ends by itself, and the work is claimed again.
            Err(failed) => error!(error = %failed, "the result of the work could not be saved"),
        }
    }
}

/// The node's attempt, if it is the one that the work is for.
fn attempt_of(node: &Node, attempt: uuid::Uuid) -> Option<&provision::Attempt> {
    node.live_attempt().filter(|live| live.id == attempt)
}
