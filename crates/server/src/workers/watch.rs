//! Time: boots that go nowhere are explained and, at last, given up; old traces are forgotten.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join;
use jiff::{SignedDuration, Timestamp};
use provision::boot::BootMethod;
use provision::diagnosis::{Diagnosis, Verdict};
use provision::event::Silence;
use provision::{BootEvent, Event, Node, ProvisionState as State, step};
use store::{ChangeError, Clock, Retention, log_store_failure};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::context::WorkerContext;
use super::instances::{awaits_image, note_fetched};

const EVERY: Duration = Duration::from_secs(5);
const FORGET_EVERY: Duration = Duration::from_secs(3_600);
/// Traces that are read each time: when a whole hall is switched on, the database has better to do.
const LOOKS: usize = 500;
/// Traces that are read at once.
const TOGETHER: usize = 20;

/// What is remembered of each attempt that is under way.
#[derive(Debug, Default)]
struct Watched {
    /// In which round its trace was last read.
    round: u64,
    /// What was last said of it, so that it is said once.
    said: Option<(Verdict, Option<String>)>,
    /// The silence that is being waited out.
    silence: Option<MeasuredSilence>,
    /// When its machine was switched on, if that was before this daemon served.
    booted_before: Option<Timestamp>,
}

/// A silence from the moment on at which this daemon saw that it had begun: a clean is given up after a whole one, whatever
/// the system's clock says, or said when the times in the store were taken.
#[derive(Clone, Copy, Debug)]
struct MeasuredSilence {
    /// What was heard last.
    since: Timestamp,
    seen: Instant,
}

impl MeasuredSilence {
    /// The silence now: the one before, unless something was heard since.
    fn now(before: Option<Self>, last_heard: Timestamp, now: Instant) -> Self {
        match before {
            Some(silence) if silence.since == last_heard => silence,
            Some(_) | None => Self { since: last_heard, seen: now },
        }
    }

    /// How long it lasts. While the database could not be written nothing could be heard, so that it begins anew when
    /// the database has become `usable`.
    fn lasts(self, now: Instant, usable: Option<Duration>) -> Silence {
        let measured = now.saturating_duration_since(self.seen);
        let lasts = usable.map_or(measured, |usable| usable.min(measured));
        Silence { since: self.since, lasts: SignedDuration::try_from(lasts).unwrap_or_default() }
    }
}

/// Another DHCP service may take its time: boots are looked at meanwhile.
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
    let mut watched = HashMap::new();
    let mut round = 0;
    let mut look = interval(EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut forget = interval(FORGET_EVERY);
    loop {
        tokio::select! {
            _ = look.tick() => {
                round += 1;
                look_at_all(context, &mut watched, round, serving_since).await;
            }
            _ = forget.tick() => forget_old(context).await,
        }
    }
}

async fn look_at_all(
    context: &WorkerContext,
    watched: &mut HashMap<Uuid, Watched>,
    round: u64,
    serving_since: Instant,
) {
    let booting = context.nodes.index().booting();
    // An instance that has all of its image is on its own.
    let is_watched =
        |node: &&Arc<Node>| node.provision_state != State::Active || awaits_image(node);
    let watched_nodes = booting.iter().filter(is_watched);
    let mut booting: Vec<_> =
        watched_nodes.filter_map(|node| Some((node.live_attempt()?.id, node))).collect();
    note_silences(watched, &booting, round == 1);
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
            look_at(context, node, trace, watched, serving_since).await;
        }
    }
}

/// Brings the silences of all that wait up to date; what is over is forgotten. In the `first` round all boots are from
/// before this daemon served.
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

/// Without a trace, if it could not be read, a node is given up all the same once it is overdue.
async fn look_at(
    context: &WorkerContext,
    node: &Node,
    trace: Option<&[BootEvent]>,
    watched: &mut Watched,
    serving_since: Instant,
) {
    let Some(attempt) = node.live_attempt() else { return };
    if let Some(trace) = trace {
        note_fetched(context, node, trace).await;
    }
    let now = Clock::process().now();
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

/// Firmware whose fetch broke off when we ended does not try again by itself.
async fn boot_again(context: &WorkerContext, node: &Node) {
    let Some(attempt) = node.live_attempt().map(|attempt| attempt.id) else { return };
    match context.nodes.happen(node.uuid, None, &Event::BootMissed { attempt }).await {
        Ok(_) => info!(node.uuid = %node.uuid, "booting it again: we were away when it did"),
        // It came up, or is worked on, in this moment; or it is looked at again.
        Err(ChangeError::Refused(_) | ChangeError::Locked { .. } | ChangeError::NoSuchNode(_)) => {}
        Err(failed) => {
            log_store_failure(&failed, &format!("node {} was not booted again", node.uuid));
        }
    }
}

async fn give_up(context: &WorkerContext, node: Uuid, silence: Silence, why: Option<String>) {
    let tick = Event::Tick { silence: Some(silence), why };
    match context.nodes.happen(node, None, &tick).await {
        // Whoever works on it will be heard of, or be overdue again.
        Ok(_) | Err(ChangeError::Locked { .. } | ChangeError::NoSuchNode(_)) => {}
        Err(failed) => {
            log_store_failure(&failed, &format!("the clean of node {node} was not given up"));
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
        Ok(events) => info!(events, "old events of traces are forgotten"),
        Err(failed) => {
            log_store_failure(&failed, "old events of traces could not be forgotten");
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
        // A heartbeat after the system's clock was set back has an earlier time.
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
