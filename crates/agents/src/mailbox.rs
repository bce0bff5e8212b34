//! Calls to agents that fetch them.
//!
//! The store has each call until it is answered, since the worker that makes it and the agent's connection may be at
//! different daemons. A waiting worker or request reads the store again when its node's call has changed: at once if
//! this daemon changed it, otherwise at the next look at all calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ironic::agent_channel::{AgentCallAnswer, CommandApiCall, FetchedAgentCall};
use store::{
    AgentCallProgress, Store, StoreError, StoredAgentAnswer, StoredAgentCall, log_store_failure,
};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::agent_answer::AgentAnswer;

/// Ironic's `[agent]command_timeout`, from the call to its answer.
const ANSWER: Duration = Duration::from_secs(60);
/// Polling interval for other daemons' calls and answers.
const EVERY: Duration = Duration::from_millis(500);

/// The calls to agents that fetch them; clones share it.
#[derive(Clone, Debug)]
pub struct AgentMailbox(Arc<SharedMailbox>);

#[derive(Debug)]
struct SharedMailbox {
    store: Store,
    /// The number of requests of agents that may wait at once.
    most: usize,
    waiting: Mutex<WaitingByNode>,
    ending: CancellationToken,
}

#[derive(Debug, Default)]
struct WaitingByNode {
    by_node: HashMap<Uuid, WaitingAtNode>,
    /// The number of waiting requests of agents.
    requests: usize,
    /// The number of the last request, which replaces the earlier one of its node.
    last: u64,
}

#[derive(Debug, Default)]
struct WaitingAtNode {
    changed: Arc<Notify>,
    waiters: usize,
    /// The number of the agent's last request.
    request: Option<u64>,
}

/// The answer to an agent's request for a call.
#[derive(Clone, Debug, PartialEq)]
pub enum NextAgentCall {
    /// A call.
    Call(FetchedAgentCall),
    /// There was none.
    Nothing,
    /// There is none, and no more requests may wait for one.
    NoPlace,
}

impl AgentMailbox {
    /// A mailbox in which at most this number of requests of agents wait at once.
    #[must_use]
    pub fn new(store: Store, most: usize) -> Self {
        let (waiting, ending) = (Mutex::default(), CancellationToken::new());
        Self(Arc::new(SharedMailbox { store, most, waiting, ending }))
    }

    /// The agent of a node's attempt.
    pub(crate) fn agent(&self, node: Uuid, attempt: Uuid) -> FetchingAgent<'_> {
        FetchingAgent { mailbox: self, node, attempt, patience: ANSWER }
    }

    /// The call that waits for the agent of this attempt. Waits for one until `until`, unless a later request of the
    /// same node comes, or the daemon ends.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn next(
        &self,
        node: Uuid,
        attempt: Uuid,
        until: Instant,
    ) -> Result<NextAgentCall, StoreError> {
        let Some(waiter) = self.wait_as_request(node) else {
            let call = self.waiting_call(node, attempt).await?;
            return Ok(call.map_or(NextAgentCall::NoPlace, NextAgentCall::Call));
        };
        loop {
            let changed = waiter.changed.notified();
            if let Some(call) = self.waiting_call(node, attempt).await? {
                return Ok(NextAgentCall::Call(call));
            }
            if !waiter.is_last() {
                return Ok(NextAgentCall::Nothing);
            }
            tokio::select! {
                () = changed => {}
                () = sleep_until(until) => return Ok(NextAgentCall::Nothing),
                () = self.0.ending.cancelled() => return Ok(NextAgentCall::Nothing),
            }
        }
    }

    /// Passes the answer of the agent of this attempt to the worker that made the call. An answer to a call that is
    /// over has no effect.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn answer(
        &self,
        node: Uuid,
        attempt: Uuid,
        answer: &AgentCallAnswer,
    ) -> Result<(), StoreError> {
        let AgentCallAnswer { id, status, body } = answer;
        let saved = StoredAgentAnswer { status: *status, body: body.to_string() };
        self.0.store.answer_agent_call(node, attempt, *id, &saved).await?;
        self.changed(node);
        Ok(())
    }

    /// Looks at the calls of all daemons, until `end`. Then all waiting requests end.
    pub async fn follow(self, end: CancellationToken) {
        let mut often = interval(EVERY);
        often.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = HashMap::new();
        loop {
            tokio::select! {
                _ = often.tick() => {}
                () = end.cancelled() => break,
            }
            if self.waiting().by_node.is_empty() {
                continue;
            }
            match self.0.store.agent_calls().await {
                Ok(calls) => self.note(&mut seen, calls),
                Err(failed) => log_store_failure(&failed, "calls to agents could not be read"),
            }
        }
        self.0.ending.cancel();
    }

    /// Wakes those who wait for calls that changed since the last look.
    fn note(
        &self,
        seen: &mut HashMap<Uuid, AgentCallProgress>,
        calls: impl IntoIterator<Item = AgentCallProgress>,
    ) {
        let before = std::mem::take(seen);
        seen.extend(calls.into_iter().map(|call| (call.node, call)));
        let changed = seen.iter().filter(|(node, call)| before.get(*node) != Some(*call));
        changed.for_each(|(node, _)| self.changed(*node));
    }

    async fn waiting_call(
        &self,
        node: Uuid,
        attempt: Uuid,
    ) -> Result<Option<FetchedAgentCall>, StoreError> {
        let Some(StoredAgentCall { id, call, .. }) = self.0.store.agent_call(node, attempt).await?
        else {
            return Ok(None);
        };
        let call = serde_json::from_str(&call)
            .map_err(|source| StoreError::Unreadable { what: "call to an agent", source })?;
        Ok(Some(FetchedAgentCall { id, call }))
    }

    fn changed(&self, node: Uuid) {
        if let Some(at_node) = self.waiting().by_node.get(&node) {
            at_node.changed.notify_waiters();
        }
    }

    /// `None` if as many requests wait as may.
    fn wait_as_request(&self, node: Uuid) -> Option<Waiter<'_>> {
        let mut waiting = self.waiting();
        let replaces = waiting.by_node.get(&node).is_some_and(|it| it.request.is_some());
        if waiting.requests >= self.0.most && !replaces {
            return None;
        }
        waiting.requests += 1;
        waiting.last += 1;
        let request = Some(waiting.last);
        let at_node = waiting.by_node.entry(node).or_default();
        at_node.waiters += 1;
        at_node.request = request;
        // The earlier request of this node sees that it is not the last one any more.
        at_node.changed.notify_waiters();
        Some(Waiter { mailbox: self, node, changed: Arc::clone(&at_node.changed), request })
    }

    fn wait_as_worker(&self, node: Uuid) -> Waiter<'_> {
        let mut waiting = self.waiting();
        let at_node = waiting.by_node.entry(node).or_default();
        at_node.waiters += 1;
        Waiter { mailbox: self, node, changed: Arc::clone(&at_node.changed), request: None }
    }

    fn waiting(&self) -> MutexGuard<'_, WaitingByNode> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker or an agent's request that waits for a change of a node's call.
#[derive(Debug)]
struct Waiter<'a> {
    mailbox: &'a AgentMailbox,
    node: Uuid,
    changed: Arc<Notify>,
    /// The number of the request; `None` for a worker.
    request: Option<u64>,
}

impl Waiter<'_> {
    /// Whether no later request of the node's agent has come.
    fn is_last(&self) -> bool {
        self.mailbox.waiting().by_node.get(&self.node).is_some_and(|it| it.request == self.request)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.mailbox.waiting();
        waiting.requests -= usize::from(self.request.is_some());
        let Some(at_node) = waiting.by_node.get_mut(&self.node) else { return };
        if self.request.is_some() && at_node.request == self.request {
            at_node.request = None;
        }
        at_node.waiters -= 1;
        if at_node.waiters == 0 {
            waiting.by_node.remove(&self.node);
        }
    }
}

/// An agent that fetches the calls to it.
#[derive(Debug)]
pub(crate) struct FetchingAgent<'a> {
    mailbox: &'a AgentMailbox,
    node: Uuid,
    attempt: Uuid,
    patience: Duration,
}

impl FetchingAgent<'_> {
    /// Makes a call, and waits for its answer.
    ///
    /// # Errors
    /// The reason why there is no answer.
    pub(crate) async fn exchange(&self, call: CommandApiCall) -> Result<AgentAnswer, String> {
        let id = Uuid::new_v4();
        let answered = self.call(id, &call).await;
        // Whatever happened: nobody waits for the answer any more.
        if let Err(failed) = self.mailbox.0.store.remove_agent_call(self.node, id).await {
            log_store_failure(&failed, "a call to an agent was not removed");
        }
        let StoredAgentAnswer { status, body } = answered
            .map_err(|failed| {
                log_store_failure(&failed, "a call to an agent failed");
                "the database failed".to_owned()
            })?
            .ok_or_else(|| {
                format!("it did not fetch and answer the call within {:?}", self.patience)
            })?;
        Ok(AgentAnswer { status, body: body.into_bytes() })
    }

    async fn call(
        &self,
        id: Uuid,
        call: &CommandApiCall,
    ) -> Result<Option<StoredAgentAnswer>, StoreError> {
        let Self { mailbox, node, attempt, patience } = *self;
        let store = &mailbox.0.store;
        let until = Instant::now() + patience;
        let call = serde_json::to_string(call).expect("a call has text keys");
        let waiter = mailbox.wait_as_worker(node);
        store.add_agent_call(&StoredAgentCall { id, node, attempt, call }).await?;
        mailbox.changed(node);
        loop {
            let changed = waiter.changed.notified();
            if let Some(answer) = store.agent_answer(node, id).await? {
                return Ok(Some(answer));
            }
            if timeout_at(until, changed).await.is_err() {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use provision::test_nodes::booting_node;
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    struct OneNode {
        store: Store,
        node: Uuid,
        attempt: Uuid,
        _dir: TempDir,
    }

    impl OneNode {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let url = format!("sqlite://{}/nodes.db", dir.path().display());
            let store = Store::open(&url, &dir.path().join("key")).await.unwrap();
            let node = booting_node();
            store.create_node(&node).await.unwrap();
            let attempt = node.live_attempt().unwrap().id;
            Self { store, node: node.uuid, attempt, _dir: dir }
        }

        async fn next(&self, mailbox: &AgentMailbox) -> NextAgentCall {
            mailbox.next(self.node, self.attempt, Instant::now() + LONG).await.unwrap()
        }

        async fn answers(&self, mailbox: &AgentMailbox, next: NextAgentCall) {
            let NextAgentCall::Call(FetchedAgentCall { id, call }) = next else { panic!("a call") };
            assert_eq!(call, CommandApiCall::List);
            let body = json!({ "commands": [] });
            let answer = AgentCallAnswer { id, status: 200, body };
            mailbox.answer(self.node, self.attempt, &answer).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_call_comes_to_the_request_that_waits_for_it_and_its_answer_to_the_worker() {
        let one = OneNode::new().await;
        let mailbox = AgentMailbox::new(one.store.clone(), 10);
        let worker = async {
            mailbox.agent(one.node, one.attempt).exchange(CommandApiCall::List).await.unwrap()
        };
        let agent = async {
            let next = one.next(&mailbox).await;
            one.answers(&mailbox, next).await;
        };

        let (answer, ()) = tokio::join!(worker, agent);

        assert_eq!((answer.status, &*answer.body), (200, &br#"{"commands":[]}"#[..]));
        assert_eq!(one.store.agent_calls().await.unwrap(), []);
        assert!(mailbox.waiting().by_node.is_empty());
        assert_eq!(mailbox.waiting().requests, 0);
    }

    #[tokio::test]
    async fn the_worker_and_the_agent_may_be_at_different_daemons() {
        let one = OneNode::new().await;
        let end = CancellationToken::new();
        let daemons = [(); 2].map(|()| AgentMailbox::new(one.store.clone(), 10));
        let follow = daemons.each_ref().map(|mailbox| mailbox.clone().follow(end.clone()));
        let following = follow.map(tokio::spawn);
        let [ours, theirs] = &daemons;
        let worker = async {
            ours.agent(one.node, one.attempt).exchange(CommandApiCall::List).await.unwrap()
        };
        let agent = async {
            let next = one.next(theirs).await;
            one.answers(theirs, next).await;
        };

        let (answer, ()) = tokio::join!(worker, agent);

        assert_eq!(answer.status, 200);
        end.cancel();
        for follow in following {
            follow.await.unwrap();
        }
        assert_eq!(one.next(theirs).await, NextAgentCall::Nothing, "the daemon ends");
    }

    #[tokio::test]
    async fn of_one_agents_requests_the_last_waits_and_of_all_only_so_many() {
        let one = OneNode::new().await;
        let mailbox = AgentMailbox::new(one.store.clone(), 1);
        let first = tokio::spawn({
            let (mailbox, node, attempt) = (mailbox.clone(), one.node, one.attempt);
            async move { mailbox.next(node, attempt, Instant::now() + LONG).await.unwrap() }
        });
        while mailbox.waiting().requests == 0 {
            tokio::task::yield_now().await;
        }
        let other = mailbox.next(Uuid::new_v4(), one.attempt, Instant::now() + LONG).await.unwrap();
        assert_eq!(other, NextAgentCall::NoPlace);

        let second = async { one.next(&mailbox).await };
        let after = async {
            let replaced = first.await.unwrap();
            let agent = mailbox.agent(one.node, one.attempt);
            let _ = tokio::time::timeout(EVERY, agent.exchange(CommandApiCall::List)).await;
            replaced
        };
        let (second, replaced) = tokio::join!(second, after);

        assert_eq!(replaced, NextAgentCall::Nothing);
        assert!(matches!(second, NextAgentCall::Call(_)), "{second:?}");
    }

    #[tokio::test]
    async fn an_agent_that_does_not_fetch_is_silent_and_its_call_is_gone() {
        let one = OneNode::new().await;
        let mailbox = AgentMailbox::new(one.store.clone(), 1);
        let patience = Duration::from_millis(10);
        let agent = FetchingAgent { patience, ..mailbox.agent(one.node, one.attempt) };

        let silent = agent.exchange(CommandApiCall::List).await.unwrap_err();

        assert_eq!(silent, "it did not fetch and answer the call within 10ms");
        assert_eq!(one.store.agent_calls().await.unwrap(), []);
        let until = Instant::now();
        let next = mailbox.next(one.node, one.attempt, until).await.unwrap();
        assert_eq!(next, NextAgentCall::Nothing);
    }
}
