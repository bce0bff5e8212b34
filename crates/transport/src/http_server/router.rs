//! An axum router behind a port.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{Request, Response, StatusCode};
use hyper::body::Body as _;
use tower::ServiceExt as _;
use uuid::Uuid;

use super::answers::{AnswerBudget, NoRoom};
use super::{Answered, Caller, FileParts, HttpService, PortPeers, RequestBody, WhenSent};

/// An extension of an answer: the node whose machine presented its token.
#[derive(Clone, Copy, Debug)]
pub struct ServedNode(pub Uuid);

/// The answers that count as useful for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsefulAnswers {
    /// All answers except errors.
    NoErrors,
    /// Answers to machines of nodes.
    ServedNodes,
}

/// The router as a port's service.
#[derive(Clone, Debug)]
pub struct RouterService {
    router: Router,
    useful: UsefulAnswers,
    answers: AnswerBudget,
    /// The answer when the memory for answers is exhausted.
    overloaded: fn() -> Response<Body>,
    peers: Arc<dyn PortPeers>,
}

impl RouterService {
    /// A service whose current answers hold at most `answers` bytes of memory. Beyond that, peers with slow downloads
    /// get `overloaded`.
    #[must_use]
    pub fn new(
        router: Router,
        useful: UsefulAnswers,
        answers: u64,
        overloaded: fn() -> Response<Body>,
        peers: Arc<dyn PortPeers>,
    ) -> Self {
        let answers = AnswerBudget::new(answers);
        Self { router, useful, answers, overloaded, peers }
    }
}

impl HttpService for RouterService {
    type Body = Body;

    fn peers(&self) -> &dyn PortPeers {
        &*self.peers
    }

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
        let answered = |response, is_useful, when_sent| Answered {
            response,
            is_useful,
            before_last_byte: None,
            when_sent,
            file_parts: FileParts::default(),
        };
        let Some(account) = caller.account() else { return answered(response, is_useful, None) };
        match self.answers.take(account, response.body().size_hint().lower()) {
            Ok(share) => {
                let when_sent = share.map(|share| Box::new(move |_| drop(share)) as WhenSent);
                answered(response, is_useful, when_sent)
            }
            Err(NoRoom) => answered((self.overloaded)(), false, None),
        }
    }
}
