//! `POST /v1/heartbeat/{node}/calls`: an agent fetches the calls to it, and answers them.
//!
//! The key in the agent's heartbeats authorizes a request, before its body is read: of the attempt's first agent, so
//! that neither an older attempt's agent nor a second one that knows the token gets a call.

use std::time::Duration;

use agents::NextAgentCall;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use ironic::agent_channel::{AgentCallAnswer, KEY_HEADER, WAIT_SECS};
use provision::Stage;
use serde::Deserialize as _;
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;
use transport::http_server::{ConnectionOwner, ServedNode};
use uuid::Uuid;

use super::agent_calls::CallOwner;
use super::context::ApiContext;
use super::extract::{JsonBody, PathParams, PeerAddress};
use crate::error::ApiError;

/// Seconds until an agent asks again that must not wait for a call.
const ASK_AGAIN_SECS: &str = "5";

pub(super) async fn next_call(
    State(api): State<ApiContext>,
    PeerAddress(from): PeerAddress,
    PathParams(ident): PathParams<String>,
    connection: Option<Extension<ConnectionOwner>>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let caller = api.fetching_agent(&ident, &headers);
    let owner = caller.map_or(CallOwner::Anybody, |(node, _)| CallOwner::Machine(node));
    api.admit(from, owner)?;
    // The answer does not tell what is wrong, so that guessing reveals nothing.
    let (node, attempt) = caller.ok_or_else(ApiError::nothing_here)?;
    if let Some(Extension(connection)) = connection {
        // While the request waits, its connection must not count for an address that the machines of a site share.
        connection.is_node(node);
    }
    let JsonBody(body) = JsonBody::from_request(request, &()).await?;
    let until = if body.is_null() {
        Instant::now() + Duration::from_secs(WAIT_SECS)
    } else {
        let answer = AgentCallAnswer::deserialize(body)
            .map_err(|bad| ApiError::bad_request(format!("This is no answer to a call: {bad}.")))?;
        api.mailbox.answer(node, attempt, &answer).await?;
        // The agent learns at once that its answer arrived.
        Instant::now()
    };
    let next = api.mailbox.next(node, attempt, until).await?;
    let answer = match next {
        NextAgentCall::Call(call) => Json(call).into_response(),
        NextAgentCall::Nothing => StatusCode::NO_CONTENT.into_response(),
        NextAgentCall::NoPlace => {
            (StatusCode::NO_CONTENT, [(header::RETRY_AFTER, ASK_AGAIN_SECS)]).into_response()
        }
    };
    Ok((Extension(ServedNode(node)), answer).into_response())
}

impl ApiContext {
    /// The node and the attempt whose agent sent this request, from the data in memory.
    fn fetching_agent(&self, ident: &str, headers: &HeaderMap) -> Option<(Uuid, Uuid)> {
        let given = headers.get(KEY_HEADER)?.as_bytes();
        let (node, _) = self.nodes.index().by_uuid(Uuid::try_parse(ident).ok()?)?;
        // A procedure that has failed or was aborted calls its agent no more.
        let stage = node.provision_state.stage().filter(|stage| *stage != Stage::Failed);
        let attempt = stage.and_then(|_| node.live_attempt())?;
        let key = attempt.agent.as_ref()?.channel_key.as_ref()?;
        bool::from(key.0.as_bytes().ct_eq(given)).then_some((node.uuid, attempt.id))
    }
}
