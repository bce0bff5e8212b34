//! Timeouts: stuck boots are diagnosed and finally failed; old traces are deleted.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join;
use jiff::{SignedDuration, Timestamp};
use provision::boot::BootMethod;
use provision::diagnosis::{Diagnosis, Verdict};
use provision::event::Silence;
use provision::instance_boot::awaits_image;
use provision::{BootEvent, Event, Node, ProvisionState as State, step};
use store::{ChangeError, Clock, Retention, log_store_failure};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::context::WorkerContext;
use super::instances::note_fetched;
use super::observe::BootObserver;

const EVERY: Duration = Duration::from_secs(5);
const FORGET_EVERY: Duration = Duration::from_secs(3_600);
/// Number of traces read in one round, to limit the load when a whole hall is switched on.
const LOOKS: usize = 500;
/// Number of traces read at once.
const TOGETHER: usize = 20;

/// The state of each current attempt.
#[derive(Debug, Default)]
struct Watched {
    /// The round in which its trace was last read.
    round: u64,
    /// The last logged diagnosis, so that each is logged once.
    said: Option<(Verdict, Option<String>)>,
    /// The current silence.
    silence: Option<MeasuredSilence>,
    /// The time of the power-on, if it preceded the start of this daemon.
    booted_before: Option<Timestamp>,
}

/// A silence measured from the moment at which this daemon noticed it: a clean fails after a whole timeout, whatever
/// the system clock shows, or showed when stored times were taken.
#[derive(Clone, Copy, Debug)]
struct MeasuredSilence {
    /// The time of the last sign of life.
    since: Timestamp,
    seen: Instant,
}

impl MeasuredSilence {
    /// The current silence: the former one, unless there was a sign of life since.
    fn now(before: Option<Self>, last_heard: Timestamp, now: Instant) -> Self {
        match before {
            Some(silence) if silence.since == last_heard => silence,
            Some(_) | None => Self { since: last_heard, seen: now },
        }
    }

    /// Its duration. Calls could not be recorded during an outage of the database, so it starts anew when the
    /// database became `usable`.
    fn lasts(self, now: Instant, usable: Option<Duration>) -> Silence {
        let measured = now.saturating_duration_since(self.seen);
        let lasts = usable.map_or(measured, |usable| usable.min(measured));
        Silence { since: self.since, lasts: SignedDuration::try_from(lasts).unwrap_or_default() }
    }
}

/// An external DHCP service may be slow: boots are watched meanwhile.
pub(super) async fn run(context: WorkerContext, end: CancellationToken) {
    tokio::select! {
        ((), ()) = join(watch(&context), tidy(&context)) => {}
        () = end.cancelled() => {}
    }
}

async fn tidy(context: &WorkerContext) {
    let mut look = interval(EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        context.providers.tidy(&context.nodes).await;
    }
}

async fn watch(context: &WorkerContext) {
    let serving_since = Instant::now();
    let (mut watched, mut observer) = (HashMap::new(), BootObserver::new());
    let mut round = 0;
    let mut look = interval(EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut forget = interval(FORGET_EVERY);
    loop {
        tokio::select! {
            _ = look.tick() => {
                round += 1;
                look_at_all(context, &mut watched, &mut observer, round, serving_since).await;
            }
            _ = forget.tick() => forget_old(context).await,
        }
    }
}

async fn look_at_all(
    context: &WorkerContext,
    watched: &mut HashMap<Uuid, Watched>,
    observer: &mut BootObserver,
    round: u64,
    serving_since: Instant,
) {
    let booting = context.nodes.index().booting();
    // An instance with its whole image needs no watching.
    let is_watched =
        |node: &&Arc<Node>| node.provision_state != State::Active || awaits_image(node);
    let watched_nodes = booting.iter().filter(is_watched);
    let mut booting: Vec<_> =
        watched_nodes.filter_map(|node| Some((node.live_attempt()?.id, node))).collect();
    note_silences(watched, &booting, round == 1);
    observer.keep(&booting.iter().map(|(attempt, _)| *attempt).collect());
    booting.sort_by_key(|(attempt, _)| watched.get(attempt).map_or(0, |watched| watched.round));
    let overdue = |(attempt, node): &(Uuid, &Arc<Node>)| {
        let silence = watched.get(attempt).and_then(|watched| lasting(context, watched));
        silence.is_some_and(|silence| step::is_overdue(node, silence, &context.policy))
    };
    let looks = booting.into_iter().enumerate();
    let looks = looks.filter(|(at, look)| *at < LOOKS || overdue(look));
    let looks: Vec<_> = looks.map(|(_, look)| look).collect();
    context.recorder.flush().await;
    for looks in looks.chunks(TOGETHER) {
        let attempts: Vec<_> = looks.iter().map(|(attempt, node)| (node.uuid, *attempt)).collect();
        let traces = context.nodes.store().traces(&attempts).await;
        let traces =
            traces.inspect_err(|failed| log_store_failure(failed, "traces could not be read"));
        for (attempt, node) in looks {
            let watched = watched.entry(*attempt).or_default();
            watched.round = round;
            let trace = |traces| HashMap::get(traces, attempt).map_or(&[][..], Vec::as_slice);
            let trace = traces.as_ref().ok().map(trace);
            look_at(context, node, trace, watched, observer, serving_since).await;
        }
    }
}

/// Updates the silences of all waiting nodes; removes ended ones. In the `first` round all boots precede this
/// daemon's start.
fn note_silences(
    watched: &mut HashMap<Uuid, Watched>,
    booting: &[(Uuid, &Arc<Node>)],
    first: bool,
) {
    let live: HashSet<_> = booting.iter().map(|(attempt, _)| *attempt).collect();
    watched.retain(|attempt, _| live.contains(attempt));
    for (attempt, node) in booting {
        let watched = watched.entry(*attempt).or_default();
        if first {
            watched.booted_before = node.live_attempt().and_then(|attempt| attempt.powered_on_at);
        }
        if let Some(heard) = step::last_heard(node) {
            let now = Instant::now();
            watched.silence = Some(MeasuredSilence::now(watched.silence, heard, now));
        }
    }
}

fn lasting(context: &WorkerContext, watched: &Watched) -> Option<Silence> {
    let usable = context.nodes.store().health().usable_for();
    watched.silence.map(|silence| silence.lasts(Instant::now(), usable))
}

/// If the trace cannot be read, an overdue node still fails.
async fn look_at(
    context: &WorkerContext,
    node: &Node,
    trace: Option<&[BootEvent]>,
    watched: &mut Watched,
    observer: &mut BootObserver,
    serving_since: Instant,
) {
    let Some(attempt) = node.live_attempt() else { return };
    let now = Clock::process().now();
    if let Some(trace) = trace {
        note_fetched(context, node, trace).await;
        observer.observe(context, node, trace, now);
    }
    let method = BootMethod::of(attempt, context.loader);
    let diagnosis = trace.and_then(|trace| {
        context.strangers.diagnose(context.nodes.index(), node.uuid, method, trace, now)
    });
    if let Some(diagnosis) = &diagnosis {
        say(node, diagnosis, &mut watched.said);
    }
    let stuck = diagnosis.as_ref().is_some_and(|it| it.verdict == Verdict::Stuck);
    let booted = watched.booted_before.is_some_and(|on| attempt.powered_on_at == Some(on));
    let served = SignedDuration::try_from(serving_since.elapsed()).unwrap_or_default();
    if stuck && step::may_have_missed(node, booted, served) {
        boot_again(context, node).await;
    }
    if let Some(silence) = lasting(context, watched)
        && step::is_overdue(node, silence, &context.policy)
        && !trace.is_some_and(|trace| observer.observe_last(context, node, trace, now))
    {
        give_up(context, node.uuid, silence, diagnosis.map(|diagnosis| diagnosis.text)).await;
    }
}

fn say(node: &Node, diagnosis: &Diagnosis, said: &mut Option<(Verdict, Option<String>)>) {
    let saying = Some((diagnosis.verdict, diagnosis.hint.clone()));
    if *said == saying {
        return;
    }
    *said = saying;
    let (name, hint) = (&node.name, diagnosis.hint.as_deref().unwrap_or("see the boot trace"));
    let name = name.clone().unwrap_or_else(|| node.uuid.to_string());
    match diagnosis.verdict {
        Verdict::Waiting => {
            info!(node.uuid = %node.uuid, "node {name}: {}; {hint}", diagnosis.text);
        }
        Verdict::Stuck | Verdict::Failed => {
            warn!(node.uuid = %node.uuid, "node {name}: {}; {hint}", diagnosis.text);
        }
    }
}

/// Firmware whose fetch was interrupted by the daemon's end does not retry by itself.
async fn boot_again(context: &WorkerContext, node: &Node) {
    let Some(attempt) = node.live_attempt().map(|attempt| attempt.id) else { return };
    match context.nodes.happen(node.uuid, None, &Event::BootMissed { attempt }).await {
        Ok(_) => {
            info!(node.uuid = %node.uuid, "booting it again: the daemon was not running during its boot")
        }
        // It came up at this moment, or a worker holds it; otherwise it is checked again.
        Err(ChangeError::Refused(_) | ChangeError::Locked { .. } | ChangeError::NoSuchNode(_)) => {}
        Err(failed) => {
            log_store_failure(&failed, &format!("node {} was not booted again", node.uuid));
        }
    }
}

async fn give_up(context: &WorkerContext, node: Uuid, silence: Silence, why: Option<String>) {
    let tick = Event::Tick { silence: Some(silence), why };
    match context.nodes.happen(node, None, &tick).await {
        // A worker's node will show progress, or be overdue again.
        Ok(_) | Err(ChangeError::Locked { .. } | ChangeError::NoSuchNode(_)) => {}
        Err(failed) => {
            log_store_failure(
                &failed,
                &format!("the overdue work on node {node} was not given up"),
            );
        }
    }
}

async fn forget_old(context: &WorkerContext) {
    let (store, now) = (context.nodes.store(), Clock::process().now());
    if let Err(failed) = store.prune_deletions(now).await {
        log_store_failure(&failed, "old deletions could not be forgotten");
    }
    match store.prune_events(now, &Retention::default()).await {
        Ok(0) => {}
        Ok(events) => info!(events, "old events of traces were deleted"),
        Err(failed) => {
            log_store_failure(&failed, "old events of traces could not be deleted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_silence_is_measured_from_when_it_was_first_seen_whatever_time_was_stored() {
        let start = Instant::now();
        // As after a restart with a clock that jumped by hours, in either direction.
        for heard in ["2020-01-01T00:00:00Z", "2040-01-01T00:00:00Z"] {
            let silence = MeasuredSilence::now(None, at(heard), start);
            let later = MeasuredSilence::now(Some(silence), at(heard), start + MINUTE);

            let lasts = later.lasts(start + 2 * MINUTE, None);

            assert_eq!(lasts, Silence { since: at(heard), lasts: SignedDuration::from_mins(2) });
        }
    }

    #[test]
    fn whatever_is_heard_begins_another_silence() {
        let start = Instant::now();
        let silence = MeasuredSilence::now(None, at("2026-01-01T00:00:00Z"), start);
        // A heartbeat after the system clock was set back has an earlier time.
        let heard = at("2025-12-31T22:00:00Z");

        let next = MeasuredSilence::now(Some(silence), heard, start + MINUTE);

        assert_eq!(next.lasts(start + MINUTE, None).lasts, SignedDuration::ZERO);
    }

    #[test]
    fn what_could_not_be_heard_during_an_outage_is_waited_for_anew() {
        let start = Instant::now();
        let silence = MeasuredSilence::now(None, at("2026-01-01T00:00:00Z"), start);

        let during = silence.lasts(start + 60 * MINUTE, Some(Duration::ZERO));
        let after = silence.lasts(start + 60 * MINUTE, Some(MINUTE));

        assert_eq!(during.lasts, SignedDuration::ZERO);
        assert_eq!(after.lasts, SignedDuration::from_mins(1));
    }
}
