//! `/v1/lookup` and `/v1/heartbeat`: the calls of the agent in a ramdisk.
//!
//! A call is refused unless [`provision::step()`] expects it. Accepted and refused calls are both in the trace of the
//! node's boot. Any host can call, so there are limits on what is read, answered, recorded and logged.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use hardware::Mac;
use ironic::ClientView;
use ironic::agent::{self, Lookup};
use ironic::agent_channel;
use provision::addresses::{belongs, token_for};
use provision::event::AgentLookup;
use provision::trace::{AgentCaller, AgentOutcome, CallRefusal};
use provision::{Attempt, BootEventKind, Event, Node, ProvisionState, Refused};
use store::{ChangeError, NodeKey};
use subtle::ConstantTimeEq as _;
use tracing::{info, warn};
use transport::http_server::ServedNode;
use transport::repeats;
use uuid::Uuid;

use super::agent_calls::{AgentRequest, CallKind, CallOwner, CallSource};
use super::context::ApiContext;
use super::extract::{JsonBody, PathParams, PeerAddress, RawQuery, ReceivedAt};
use super::query::Query;
use crate::error::ApiError;

/// The node after a call, or the reason for refusing the call.
type CallOutcome = Result<Node, ChangeError<Refused>>;

pub(super) async fn lookup(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    ReceivedAt(at): ReceivedAt,
    PeerAddress(from): PeerAddress,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Lookup>, ApiError> {
    let macs = agent::lookup_addresses(&raw, query.take("addresses").as_deref())
        .map_err(|bad| ApiError::bad_request(bad.to_string()))?;
    let uuid = query.take("node_uuid").and_then(|text| Uuid::try_parse(&text).ok());
    api.admit(from, api.caller_by_address(from, &macs, uuid))?;
    let Some(before) = find(&api, &macs, uuid).await? else {
        // The answer does not tell what is missing, so that guessing reveals nothing.
        return Err(ApiError::nothing_here());
    };
    let attempt = before.live_attempt().map(|attempt| attempt.id).unwrap_or_default();
    let seen = api.recorder.addresses().of(attempt);
    let lookup = AgentLookup { from, fetched: seen.fetched, leased: seen.leased, at };
    let asked = api.ask_as_agent(&before, &Event::AgentLooksUp(lookup)).await;
    let call = RecordedAgentCall { api: &api, node: &before, request: AgentRequest::Lookup, from };
    call.record(&asked, found_by(&macs));
    let node = asked?;
    let token = token_for(&node, from, at);
    let timeout = api.settings.heartbeat_timeout_secs;
    // Ironic ignores this header, and ironic-python-agent does not send it.
    let channel = headers.contains_key(agent_channel::HEADER).then_some(agent_channel::VERSION);
    Ok(Json(agent::lookup(&node, token, &view, timeout, channel)))
}

/// The node with this UUID, or with ports of these MAC addresses; none if the ports belong to several nodes.
async fn find(
    api: &ApiContext,
    macs: &[Mac],
    uuid: Option<Uuid>,
) -> Result<Option<Node>, ApiError> {
    let store = api.nodes.store();
    let found = match uuid {
        Some(uuid) => Some(uuid),
        None => {
            let ports = store.ports_at(macs).await?;
            let first = ports.first().map(|port| port.node_uuid);
            first.filter(|node| ports.iter().all(|port| port.node_uuid == *node))
        }
    };
    let Some(uuid) = found else { return Ok(None) };
    Ok(store.node(&NodeKey::Uuid(uuid)).await?.map(|found| found.node))
}

/// The MAC addresses of a lookup for the trace, limited to the usual number of a machine.
fn found_by(macs: &[Mac]) -> AgentOutcome {
    const NAMED: usize = 8;
    let addresses: Vec<_> = macs.iter().take(NAMED).copied().collect();
    AgentOutcome::Found { more: macs.len() - addresses.len(), addresses }
}

pub(super) async fn heartbeat(
    State(api): State<ApiContext>,
    ReceivedAt(at): ReceivedAt,
    PeerAddress(from): PeerAddress,
    PathParams(ident): PathParams<String>,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Extension<ServedNode>), ApiError> {
    let settings = &api.settings;
    let heartbeat = agent::heartbeat(&body, settings.agent_require_tls, at);
    let heartbeat = heartbeat.map_err(|bad| ApiError::bad_request(bad.to_string()));
    let caller = match &heartbeat {
        Ok(heartbeat) => api.caller_by_token(from, &ident, &heartbeat.agent_token),
        Err(_) => CallOwner::Anybody,
    };
    api.admit(from, caller)?;
    let heartbeat = heartbeat?;
    let key = NodeKey::from(ident.as_str());
    let Some(found) = api.nodes.store().node(&key).await? else {
        return Err(ApiError::nothing_here());
    };
    let alive = AgentOutcome::Alive {
        callback_url: heartbeat.callback_url.to_string(),
        version: heartbeat.agent_version.clone(),
        fetches_calls: heartbeat.channel_key.is_some(),
    };
    let asked = api.ask_as_agent(&found.node, &Event::AgentAlive(heartbeat)).await;
    let call =
        RecordedAgentCall { api: &api, node: &found.node, request: AgentRequest::Heartbeat, from };
    call.record(&asked, alive);
    asked?;
    // The token was valid: the connection belongs to the node's machine.
    Ok((StatusCode::ACCEPTED, Extension(ServedNode(found.node.uuid))))
}

impl ApiContext {
    /// Applies a call to a node that was just read. A call that is refused or changes nothing writes nothing, so that
    /// strangers cannot keep the database busy.
    async fn ask_as_agent(&self, node: &Node, event: &Event) -> CallOutcome {
        match self.nodes.foresee(node, event) {
            // The token is valid, and the worker that starts the machine may be about to record that it is on.
            Err(Refused::NoAgentExpected { state: ProvisionState::Cleaning, .. }) => {
                self.nodes.ask(node.uuid, event).await
            }
            Err(refused) => Err(ChangeError::Refused(refused)),
            Ok(foreseen) if foreseen.node == *node && foreseen.work.is_none() => Ok(foreseen.node),
            Ok(_) => self.nodes.ask(node.uuid, event).await,
        }
    }

    pub(super) fn admit(&self, from: IpAddr, caller: CallOwner) -> Result<(), ApiError> {
        let admitted = self.agent_calls.admit(from, caller, repeats::uptime());
        admitted.map_err(|refused| {
            if let Some(more) = repeats::line("too many calls of agents", CallSource::from(from)) {
                warn!(
                    "lookups and heartbeats of {from} are refused, since there are too many{more}"
                );
            }
            ApiError::too_many(refused.to_string())
        })
    }

    /// The owner of a lookup, from the data in memory.
    fn caller_by_address(&self, from: IpAddr, macs: &[Mac], uuid: Option<Uuid>) -> CallOwner {
        let (index, addresses) = (self.nodes.index(), self.recorder.addresses());
        let named = match uuid {
            Some(uuid) => index.by_uuid(uuid).map(|(node, _)| node),
            None => macs.iter().find_map(|mac| index.by_mac(*mac)).map(|found| found.node),
        };
        let named = named.as_ref().and_then(|node| Some((node, node.live_attempt()?)));
        // Behind NAT, an address belongs to several machines: the named one counts.
        let is_at = |(node, attempt): &(&Arc<Node>, &Attempt)| {
            addresses.of(attempt.id).holds(from) || belongs(node, attempt, from)
        };
        match (named.filter(is_at), addresses.owner(from), named) {
            (Some((node, _)), _, _) => CallOwner::Machine(node.uuid),
            (None, Some(owner), _) => CallOwner::Machine(owner),
            (None, None, Some((node, _))) => CallOwner::Names(node.uuid),
            (None, None, None) => CallOwner::Anybody,
        }
    }

    /// The owner of a heartbeat, from the data in memory. A valid token proves it, whatever the address.
    fn caller_by_token(&self, from: IpAddr, ident: &str, token: &str) -> CallOwner {
        let named = Uuid::try_parse(ident).ok().and_then(|uuid| self.nodes.index().by_uuid(uuid));
        let is_its_own = named
            .as_ref()
            .and_then(|(node, _)| node.live_attempt())
            .is_some_and(|it| bool::from(it.agent_token.0.as_bytes().ct_eq(token.as_bytes())));
        match named {
            Some((node, _)) if is_its_own => CallOwner::Machine(node.uuid),
            Some(_) | None => match self.recorder.addresses().owner(from) {
                Some(node) => CallOwner::Machine(node),
                None => CallOwner::Anybody,
            },
        }
    }
}

/// A lookup or heartbeat about a node.
#[derive(Clone, Copy)]
struct RecordedAgentCall<'a> {
    api: &'a ApiContext,
    /// The node before the call.
    node: &'a Node,
    request: AgentRequest,
    from: IpAddr,
}

impl RecordedAgentCall<'_> {
    /// Records the outcome in the trace and the log; `accepted` is that of an accepted call.
    fn record(self, asked: &CallOutcome, accepted: AgentOutcome) {
        let failed = |error: String| AgentOutcome::Failed { error };
        let (outcome, refused) = match asked {
            Ok(_) => (accepted, None),
            Err(ChangeError::Refused(refused)) => {
                (failed(refused.to_string()), CallRefusal::of(refused))
            }
            // A worker holds the node: the agent retries.
            Err(error) => (failed(error.to_string()), Some(CallRefusal::NotNow)),
        };
        self.log(&outcome);
        // A call without a live attempt belongs to no trace.
        let Some(attempt) = self.node.live_attempt() else { return };
        let kind = CallKind {
            attempt: attempt.id,
            request: self.request,
            source: self.from.into(),
            is_taken: asked.is_ok(),
            refused,
        };
        let Some(unlisted) = self.api.agent_calls.to_write_down(kind, repeats::uptime()) else {
            return;
        };
        let is_known = self.is_known(asked);
        let caller = AgentCaller { remote: self.from, is_known, refused, unlisted };
        let call = self.request.into();
        let what = BootEventKind::Agent { call, outcome, caller: Some(caller) };
        self.api.recorder.record(self.node, what);
    }

    /// Whether the token or the address proves that the caller is the machine's agent.
    fn is_known(self, asked: &CallOutcome) -> bool {
        let node = asked.as_ref().unwrap_or(self.node);
        let Some(attempt) = node.live_attempt() else { return false };
        let has_token = self.request == AgentRequest::Heartbeat && asked.is_ok();
        let seen = self.api.recorder.addresses().of(attempt.id);
        has_token || seen.holds(self.from) || belongs(node, attempt, self.from)
    }

    fn log(self, outcome: &AgentOutcome) {
        let Self { node, request, from, .. } = self;
        let uuid = node.uuid;
        match (outcome.error(), request) {
            (Some(error), _) => {
                let call = request.name();
                if let Some(more) = repeats::line(call, (uuid, CallSource::from(from))) {
                    warn!(node.uuid = %uuid, "the {call} of an agent at {from} for node {uuid} is refused: {error}{more}");
                }
            }
            (None, AgentRequest::Lookup) => {
                if let Some(more) = repeats::line("lookup taken", uuid) {
                    info!(node.uuid = %uuid, "the agent on node {uuid} looked itself up from {from}{more}");
                }
            }
            (None, AgentRequest::Heartbeat) => {}
        }
    }
}
