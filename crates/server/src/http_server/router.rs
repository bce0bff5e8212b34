//! A router of axum behind a port.

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use tower::ServiceExt as _;
use uuid::Uuid;

use super::{Answered, Caller, RequestBody, Service};

/// Put into an answer's extensions by who knows it: the node whose machine has shown its token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServedNode(pub(crate) Uuid);

/// Which answers are what a peer came for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UsefulAnswers {
    /// All that are no errors.
    NoErrors,
    /// Those to machines of nodes.
    ServedNodes,
}

/// The router, as a port's service.
#[derive(Clone, Debug)]
pub(crate) struct RouterService {
    pub(crate) router: Router,
    pub(crate) useful: UsefulAnswers,
}

impl Service for RouterService {
    type Body = Body;

    async fn answer(&self, request: Request<RequestBody>, caller: &Caller) -> Answered<Body> {
        let answer = self.router.clone().oneshot(request.map(Body::new)).await;
        let response = answer.unwrap_or_else(|never| match never {});
        let node = response.extensions().get::<ServedNode>().map(|ServedNode(node)| *node);
        if let Some(node) = node {
            caller.is_for(node);
        }
        let is_useful = match self.useful {
            UsefulAnswers::NoErrors => response.status() < StatusCode::BAD_REQUEST,
            UsefulAnswers::ServedNodes => node.is_some(),
        };
        Answered { response, is_useful, when_sent: None }
    }
}
