//! All changes of a node: decide, save, update the index.
//!
//! The API, the workers and the agents' calls all use it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hardware::BootChange;
use jiff::{SignedDuration, Timestamp};
use provision::boot::bootable;
use provision::node::{FreshAttempt, Secret};
use provision::{Context, Event, Node, Outcome, Policy, Port, ProvisionState, Refused, Work, step};
use store::{
    Change, ChangeError, ChangeNumber, Claim, Clock, CreateNodeError, ListError, NodeFilter,
    PortChangeError, PortError, SavedNode, Store, StoreError,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::index::NodeIndex;
use crate::trace::Recorder;

/// Number of tries to change a locked node, and the interval between them: Ironic's
/// `[conductor]node_locked_retry_attempts` and `…_interval`.
const TRIES: u32 = 3;
const BETWEEN_TRIES: Duration = Duration::from_secs(1);
/// Number of changes in one read.
const PAGE: u32 = 500;
/// Time for a worker's last request to take effect after its work was taken away: the reset of a BMC, and the time
/// until another daemon sees that it has lost the claim.
const SETTLE: SignedDuration = SignedDuration::from_secs(20);

/// The nodes, in the store and in the index; clones share both.
#[derive(Clone, Debug)]
pub struct Nodes {
    store: Store,
    index: NodeIndex,
    policy: Policy,
    /// The recorder whose events of a node are saved before the node is changed.
    recorder: Option<Recorder>,
    under_way: ClaimsUnderWay,
}

impl Nodes {
    /// The nodes of `store`; the caller fills the index with [`Nodes::load`].
    #[must_use]
    pub fn new(store: Store, index: NodeIndex, policy: Policy) -> Self {
        Self { store, index, policy, under_way: ClaimsUnderWay::default(), recorder: None }
    }

    /// Saves the recorded events of a node before each change of it: a crash loses only the end of a trace.
    #[must_use]
    pub fn recorded_by(self, recorder: Recorder) -> Self {
        Self { recorder: Some(recorder), ..self }
    }

    /// Fills the index from the store.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn load(&self) -> Result<(), StoreError> {
        let everything = self.store.all_changes().await?;
        let nodes = everything.changes.iter().filter_map(|change| change.state.as_ref());
        let stored = nodes.filter_map(|(node, _)| last_time(node)).max();
        self.index.load(everything);
        // New times must not precede stored ones, even if the system clock was set back.
        if let Some(behind) = stored.and_then(|stored| Clock::process().catch_up(stored)) {
            let seconds = behind.as_secs();
            warn!(
                "the system clock is {seconds} s behind the last stored time; this daemon continues from the stored time"
            );
        }
        Ok(())
    }

    /// Brings the index up to date with the changes of all daemons.
    ///
    /// # Errors
    /// [`StoreError`]; the index may then have some of the changes, and the rest follow at the next call.
    pub async fn follow(&self) -> Result<(), StoreError> {
        // Two concurrent calls would read the same changes; the index applies each once.
        loop {
            let followed = self.index.followed();
            let Some(page) = self.store.changes_since(followed, PAGE).await? else {
                info!(%followed, "the database no longer has all changes since then: reading everything");
                return self.load().await;
            };
            let is_last = page.is_last;
            self.index.follow(page);
            if is_last {
                return Ok(());
            }
        }
    }

    /// The boots that machines may fetch images for now, as nodes and attempts; other daemons may have begun them.
    ///
    /// # Errors
    /// [`ListError`] if the store fails.
    pub async fn under_way(&self) -> Result<HashSet<(Uuid, Uuid)>, ListError> {
        let mut under_way = HashSet::new();
        for state in ProvisionState::ALL.into_iter().filter(|state| state.may_boot()) {
            let provision_state = Some(state.to_string());
            let filter = NodeFilter { provision_state, ..NodeFilter::default() };
            for found in self.store.nodes(&filter).await? {
                under_way.extend(bootable(&found.node).map(|boot| (found.node.uuid, boot.id)));
            }
        }
        Ok(under_way)
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The index.
    #[must_use]
    pub fn index(&self) -> &NodeIndex {
        &self.index
    }

    /// Applies an event to a node, as [`provision::step()`] decides.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing has changed then.
    pub async fn happen(
        &self,
        node: Uuid,
        claim: Option<&Claim>,
        event: &Event,
    ) -> Result<Node, ChangeError<Refused>> {
        self.happen_as(node, claim, |_| Ok(event.clone())).await
    }

    async fn happen_as<E: From<Refused>>(
        &self,
        node: Uuid,
        claim: Option<&Claim>,
        event: impl Fn(&Node) -> Result<Event, E>,
    ) -> Result<Node, ChangeError<E>> {
        let mut before = None;
        let context = self.context();
        let decide = |node: &Node| {
            before = Some(SeenNode::of(node));
            Ok(step(node, &event(node)?, &context)?)
        };
        // The time of the change is taken before this, so that events recorded later also have later times.
        self.save_recorded(node).await?;
        let changed = self.store.change(node, claim, context.now, decide).await;
        let node = self.noted(changed?);
        say_changes(before, &node);
        Ok(node)
    }

    /// Applies its event to each of several nodes, all in one transaction. The results are in the order of `events`,
    /// which has each node once.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing has changed then.
    pub async fn happen_to_all(
        &self,
        events: &[(Uuid, Event)],
    ) -> Result<Vec<Result<Node, ChangeError<Refused>>>, ChangeError<Refused>> {
        let nodes: Vec<_> = events.iter().map(|(node, _)| *node).collect();
        let by_node: HashMap<_, _> = events.iter().map(|(node, event)| (*node, event)).collect();
        let context = self.context();
        for node in &nodes {
            self.save_recorded(*node).await?;
        }
        let decide = |node: &Node| step(node, by_node[&node.uuid], &context);
        let changed = self.store.change_all(&nodes, context.now, decide).await?;
        Ok(changed.into_iter().map(|changed| Ok(self.noted(changed?))).collect())
    }

    /// Applies an event to a node, unless the node was changed after `since`: then `None`. For events based on
    /// observations that others may have outdated.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing has changed then.
    pub async fn happen_unless_changed(
        &self,
        node: Uuid,
        since: ChangeNumber,
        event: &Event,
    ) -> Result<Option<Node>, ChangeError<Refused>> {
        let mut before = None;
        let context = self.context();
        let decide = |node: &Node| {
            before = Some(SeenNode::of(node));
            step(node, event, &context)
        };
        self.save_recorded(node).await?;
        let changed = self.store.change_unless_changed(node, since, context.now, decide).await?;
        let Some(saved) = changed else { return Ok(None) };
        let node = self.noted(saved);
        say_changes(before, &node);
        Ok(Some(node))
    }

    /// The node after the event, if the event would begin a boot.
    #[must_use]
    pub fn as_booting(&self, node: &Node, event: &Event) -> Option<Node> {
        let outcome = step(node, event, &self.context()).ok()?;
        let boots = match outcome.work {
            Some(Work::Boot { .. }) => true,
            // The ramdisk boots after the daemon's own steps, if others follow.
            Some(Work::RunBmcStep { .. }) => {
                outcome.node.live_attempt().is_some_and(|attempt| attempt.run.needs_agent())
            }
            Some(
                Work::Verify
                | Work::AskSteps { .. }
                | Work::RunStep { .. }
                | Work::CheckStep { .. }
                | Work::TearDown { .. }
                | Work::SetPower { .. },
            )
            | None => false,
        };
        boots.then_some(outcome.node)
    }

    /// The outcome of an event, without saving it. For events that any client can send: most are refused or change
    /// nothing, and need no transaction.
    ///
    /// # Errors
    /// [`Refused`]
    pub fn foresee(&self, node: &Node, event: &Event) -> Result<Outcome, Refused> {
        let (now, policy) = (Clock::process().now(), self.policy.clone());
        step(node, event, &Context { now, policy, fresh: fresh() })
    }

    /// [`Nodes::happen`] for callers other than workers: retries while a worker holds the node.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing has changed then.
    pub async fn ask(&self, node: Uuid, event: &Event) -> Result<Node, ChangeError<Refused>> {
        patiently(|| self.happen(node, None, event)).await
    }

    /// [`Nodes::ask`], with an event that depends on the node at that time.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing has changed then.
    pub async fn ask_for<E: From<Refused>>(
        &self,
        node: Uuid,
        event: impl Fn(&Node) -> Result<Event, E>,
    ) -> Result<Node, ChangeError<E>> {
        patiently(|| self.happen_as(node, None, &event)).await
    }

    /// [`Nodes::ask_for`], but takes the work away from the worker that holds the node. Work in this process ends at
    /// once; in another process it ends at the next renewal of the claim, or before the next request that changes
    /// something.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing has changed then.
    pub async fn interrupt<E: From<Refused>>(
        &self,
        node: Uuid,
        event: impl Fn(&Node) -> Result<Event, E>,
    ) -> Result<Node, ChangeError<E>> {
        let context = self.context();
        let mut before = None;
        let decide = |node: &Node| {
            before = Some(SeenNode::of(node));
            Ok(step(node, &event(node)?, &context)?)
        };
        self.save_recorded(node).await?;
        let (changed, lost) = self.store.take_over(node, context.now, SETTLE, decide).await?;
        if let Some(claim) = &lost {
            self.under_way.cancel(claim);
            info!(node.uuid = %node, daemon = %claim.daemon, "the work on it was taken away");
        }
        let node = self.noted(changed);
        say_changes(before, &node);
        Ok(node)
    }

    /// Registers work of this process; the work must end when the result's token is cancelled.
    pub fn begin_work(&self, claim: &Claim) -> WorkUnderWay {
        self.under_way.begin(claim)
    }

    async fn save_recorded(&self, node: Uuid) -> Result<(), StoreError> {
        match &self.recorder {
            Some(recorder) => recorder.flush_node(node).await,
            None => Ok(()),
        }
    }

    fn context(&self) -> Context {
        Context { now: Clock::process().now(), policy: self.policy.clone(), fresh: fresh() }
    }

    /// Changes settings of a node with `decide`.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing has changed then.
    pub async fn set<E>(
        &self,
        node: Uuid,
        decide: impl Fn(&Node) -> Result<Node, E>,
    ) -> Result<Node, ChangeError<E>> {
        let now = Clock::process().now();
        let decide = |node: &Node| {
            let mut next = decide(node)?;
            next.updated_at = Some(now);
            Ok(Change::from(next))
        };
        let changed = patiently(|| self.store.change(node, None, now, &decide)).await?;
        Ok(self.noted(changed))
    }

    /// Adds a node.
    ///
    /// # Errors
    /// [`CreateNodeError`]
    pub async fn create(&self, node: &Node) -> Result<(), CreateNodeError> {
        let number = self.store.create_node(node).await?;
        self.index.note_node(SavedNode { number, node: node.clone() });
        Ok(())
    }

    /// Deletes a node if `check` allows it. Returns what boots changed at its BMC and nothing undoes any more.
    ///
    /// # Errors
    /// [`ChangeError`]; the node is still there then.
    pub async fn delete<E>(
        &self,
        node: Uuid,
        check: impl Fn(&Node) -> Result<(), E>,
    ) -> Result<Vec<BootChange>, ChangeError<E>> {
        let (number, left) =
            patiently(|| self.store.delete_node(node, Clock::process().now(), &check)).await?;
        self.index.note_deletion(node, number);
        Ok(left)
    }

    /// Adds a port.
    ///
    /// # Errors
    /// [`PortError`]
    pub async fn create_port(&self, port: &Port) -> Result<(), PortError> {
        let saved = patiently(|| self.store.create_port(port, Clock::process().now())).await?;
        self.index.note_ports(saved);
        Ok(())
    }

    /// Changes a port with `decide`, which gets the port and its node; may move the port to another node.
    ///
    /// # Errors
    /// [`PortChangeError`]; nothing has changed then.
    pub async fn change_port<E>(
        &self,
        port: Uuid,
        decide: impl Fn(&Port, &Node) -> Result<Port, E>,
    ) -> Result<Port, PortChangeError<E>> {
        let now = Clock::process().now();
        let decide =
            |port: &Port, node: &Node| Ok(Port { updated_at: Some(now), ..decide(port, node)? });
        let changed =
            patiently(|| self.store.change_port(port, Clock::process().now(), &decide)).await?;
        changed.of_nodes.into_iter().for_each(|ports| self.index.note_ports(ports));
        Ok(changed.port)
    }

    /// Deletes a port if `check` allows it.
    ///
    /// # Errors
    /// [`PortChangeError`]; the port is still there then.
    pub async fn delete_port<E>(
        &self,
        port: Uuid,
        check: impl Fn(&Port) -> Result<(), E>,
    ) -> Result<(), PortChangeError<E>> {
        let saved =
            patiently(|| self.store.delete_port(port, Clock::process().now(), &check)).await?;
        self.index.note_ports(saved);
        Ok(())
    }

    /// Applies a change to the index. A failed change may have been saved if the connection was lost before the
    /// answer to COMMIT: the index then follows it like another daemon's change.
    fn noted(&self, saved: SavedNode) -> Node {
        self.index.note_node(saved.clone());
        saved.node
    }
}

/// The parts of a node whose changes are logged.
struct SeenNode {
    state: ProvisionState,
    last_error: Option<String>,
}

impl SeenNode {
    fn of(node: &Node) -> Self {
        Self { state: node.provision_state, last_error: node.last_error.clone() }
    }
}

fn say_changes(before: Option<SeenNode>, node: &Node) {
    let (name, state) = (display_name(node), node.provision_state);
    if before.as_ref().is_none_or(|before| before.state != state) {
        info!(node.uuid = %node.uuid, node.state = %state, "node {name} is now in state {state}");
    }
    let error_before = before.and_then(|before| before.last_error);
    if let Some(failed) = node.last_error.as_ref().filter(|_| node.last_error != error_before) {
        warn!(node.uuid = %node.uuid, "node {name}: {failed}");
    }
}

/// The node's name for log lines.
fn display_name(node: &Node) -> &str {
    node.name.as_deref().unwrap_or("without a name")
}

/// The claims whose work runs in this process; clones share them.
#[derive(Clone, Debug, Default)]
struct ClaimsUnderWay(Arc<Mutex<HashMap<Claim, CancellationToken>>>);

/// Work in this process, registered until this is dropped.
#[derive(Debug)]
pub struct WorkUnderWay {
    claim: Claim,
    claims: ClaimsUnderWay,
    /// Cancelled to end the work.
    pub cancelled: CancellationToken,
}

impl ClaimsUnderWay {
    fn begin(&self, claim: &Claim) -> WorkUnderWay {
        let cancelled = CancellationToken::new();
        self.locked().insert(claim.clone(), cancelled.clone());
        WorkUnderWay { claim: claim.clone(), claims: self.clone(), cancelled }
    }

    fn cancel(&self, claim: &Claim) {
        if let Some(cancelled) = self.locked().get(claim) {
            cancelled.cancel();
        }
    }

    // A panic elsewhere cannot leave the map half-changed.
    fn locked(&self) -> MutexGuard<'_, HashMap<Claim, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WorkUnderWay {
    fn drop(&mut self) {
        self.claims.locked().remove(&self.claim);
    }
}

/// The newest stored time of a node.
fn last_time(node: &Node) -> Option<Timestamp> {
    let attempt = node.attempt.as_ref();
    let heard =
        attempt.and_then(|attempt| attempt.agent.as_ref()).map(|agent| agent.last_heartbeat);
    let on = attempt.and_then(|attempt| attempt.powered_on_at);
    [node.updated_at, heard, on].into_iter().flatten().max()
}

/// Retries while a worker holds the node, since most of its turns are short.
async fn patiently<T, E: MaybeLocked, F>(mut attempt: impl FnMut() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    for _ in 1..TRIES {
        match attempt().await {
            Err(failed) if failed.is_locked() => tokio::time::sleep(BETWEEN_TRIES).await,
            done => return done,
        }
    }
    attempt().await
}

/// Errors of changes, some of which mean that a worker holds the node.
trait MaybeLocked {
    fn is_locked(&self) -> bool;
}

impl<E> MaybeLocked for ChangeError<E> {
    fn is_locked(&self) -> bool {
        matches!(self, Self::Locked { .. })
    }
}

impl MaybeLocked for PortError {
    fn is_locked(&self) -> bool {
        matches!(self, Self::Locked { .. } | Self::Moving(_))
    }
}

impl<E> MaybeLocked for PortChangeError<E> {
    fn is_locked(&self) -> bool {
        matches!(self, Self::Port(failed) if failed.is_locked())
    }
}

/// Random values for a new attempt: 128 bits of ticket, 256 of token.
fn fresh() -> FreshAttempt {
    FreshAttempt {
        attempt: Uuid::new_v4(),
        ticket: Secret(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>())),
        agent_token: Secret(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())),
    }
}
