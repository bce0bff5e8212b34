//! A BMC without a machine: Redfish's side of it, and word of each start.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request as HttpRequest, State};
use axum::response::{IntoResponse as _, Json, Response};
use redfish::brain::{Brain, Effect, NextBoot, Personality, Request};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Where it is, and what its machine was started from.
pub(crate) struct Bmc {
    pub(crate) address: SocketAddr,
    starts: UnboundedReceiver<NextBoot>,
}

#[derive(Clone)]
struct Shared {
    brain: Arc<Mutex<Brain>>,
    starts: UnboundedSender<NextBoot>,
}

impl Bmc {
    /// One with a system `1`, for `admin` with the password `secret`; it ends with the test.
    pub(crate) fn start(personality: Personality) -> Self {
        let mut brain = Brain::new("admin", "secret");
        brain.add_system("1", &["52:54:00:aa:bb:01".to_owned()], personality);
        let (sender, starts) = unbounded_channel();
        let shared = Shared { brain: Arc::new(Mutex::new(brain)), starts: sender };
        let runtime = Runtime::new().unwrap();
        let socket = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = socket.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(shared);
        thread::spawn(move || runtime.block_on(axum::serve(socket, router).into_future()));
        Self { address, starts }
    }

    /// What its machine was started from, once it is.
    pub(crate) fn started(&mut self) -> NextBoot {
        self.starts.blocking_recv().expect("the BMC lives as long as the test")
    }
}

async fn answer(State(shared): State<Shared>, request: HttpRequest<Body>) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 64 * 1024).await.unwrap();
    let header = |name| head.headers.get(name)?.to_str().ok();
    let request = Request {
        method: &head.method,
        path: head.uri.path(),
        authorization: header("authorization"),
        session_token: header("x-auth-token"),
        if_match: header("if-match"),
        body: &body,
        fresh: "fresh",
    };
    let mut brain = shared.brain.lock().unwrap();
    let (response, effect) = brain.answer(&request);
    match effect {
        Some(Effect::Start { system }) => start(&mut brain, &system, &shared.starts),
        Some(Effect::Restart { system }) => {
            brain.stopped(&system);
            start(&mut brain, &system, &shared.starts);
        }
        Some(Effect::Stop { system } | Effect::ShutDown { system }) => brain.stopped(&system),
        None => {}
    }
    match response.body {
        Some(body) => (response.status, Json(body)).into_response(),
        None => response.status.into_response(),
    }
}

fn start(brain: &mut Brain, system: &str, starts: &UnboundedSender<NextBoot>) {
    if let Some(boot) = brain.starts(system) {
        starts.send(boot).expect("the test listens");
    }
}
