//! A BMC without a machine: the Redfish side, and notice of each start.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Json, Response};
use redfish::emulator::{Emulator, EmulatorRequest, NextBoot, Platform, PowerEffect};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Its address, and the boot target of each start.
pub(crate) struct Bmc {
    pub(crate) address: SocketAddr,
    starts: UnboundedReceiver<NextBoot>,
}

#[derive(Clone)]
struct Shared {
    emulator: Arc<Mutex<Emulator>>,
    starts: UnboundedSender<NextBoot>,
}

impl Bmc {
    /// A BMC with a system `1`, for the user `admin` with the password `secret`; it ends with the test.
    pub(crate) fn start() -> Self {
        let mut emulator = Emulator::new("admin", "secret");
        emulator.add_system("1", &["52:54:00:aa:bb:01".to_owned()], Platform::Generic);
        let (sender, starts) = unbounded_channel();
        let shared = Shared { emulator: Arc::new(Mutex::new(emulator)), starts: sender };
        let runtime = Runtime::new().unwrap();
        let socket = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = socket.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(shared);
        thread::spawn(move || runtime.block_on(axum::serve(socket, router).into_future()));
        Self { address, starts }
    }

    /// Waits for a start; returns its boot target.
    pub(crate) fn started(&mut self) -> NextBoot {
        self.starts.blocking_recv().expect("the BMC lives as long as the test")
    }
}

async fn answer(State(shared): State<Shared>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 64 * 1024).await.unwrap();
    let header = |name| head.headers.get(name)?.to_str().ok();
    let request = EmulatorRequest {
        method: &head.method,
        path: head.uri.path(),
        authorization: header("authorization"),
        session_token: header("x-auth-token"),
        if_match: header("if-match"),
        body: &body,
        fresh: "fresh",
        now: Duration::ZERO,
    };
    let mut emulator = shared.emulator.lock().unwrap();
    let (response, effect) = emulator.answer(&request);
    match effect {
        Some(PowerEffect::Start { system }) => start(&mut emulator, &system, &shared.starts),
        Some(PowerEffect::Restart { system }) => {
            emulator.stopped(&system, Duration::ZERO);
            start(&mut emulator, &system, &shared.starts);
        }
        Some(PowerEffect::Stop { system } | PowerEffect::ShutDown { system }) => {
            emulator.stopped(&system, Duration::ZERO)
        }
        Some(PowerEffect::Interrupt { .. }) | None => {}
    }
    match response.body {
        Some(body) => (response.status, Json(body)).into_response(),
        None => response.status.into_response(),
    }
}

fn start(emulator: &mut Emulator, system: &str, starts: &UnboundedSender<NextBoot>) {
    if let Some(boot) = emulator.starts(system, Duration::ZERO) {
        starts.send(boot).expect("the test listens");
    }
}
