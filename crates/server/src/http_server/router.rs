//! A router of axum behind a port.

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse as _;
use http::{Request, StatusCode};
use hyper::body::Body as _;
use tower::ServiceExt as _;
use uuid::Uuid;

use super::answers::{AnswerBudget, NoRoom};
use super::{Answered, Caller, RequestBody, Service, WhenSent};
use crate::error::ApiError;

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
    router: Router,
    useful: UsefulAnswers,
    answers: AnswerBudget,
}

impl RouterService {
    /// One whose answers under way hold so many bytes of memory at most.
    pub(crate) fn new(router: Router, useful: UsefulAnswers, answers: u64) -> Self {
        Self { router, useful, answers: AnswerBudget::new(answers) }
    }
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
        let Some(account) = caller.account() else {
            return Answered { response, is_useful, when_sent: None };
        };
        match self.answers.take(account, response.body().size_hint().lower()) {
            Ok(share) => {
                let when_sent = share.map(|share| Box::new(move |_| drop(share)) as WhenSent);
                Answered { response, is_useful, when_sent }
            }
            Err(NoRoom) => {
                let text =
                    "Too many long answers are under way that are not taken; try again later.";
                let refused = ApiError::application(StatusCode::SERVICE_UNAVAILABLE, text);
                Answered { response: refused.into_response(), is_useful: false, when_sent: None }
            }
        }
    }
}
