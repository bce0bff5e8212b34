//! The emulator behind HTTP, with a list of changing requests; answers can be held.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Json, Response};
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method};
use redfish::emulator::{Emulator, EmulatorRequest, FaultRule, NextBoot, Platform, PowerEffect};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;

pub(crate) const NO_FAULTS: Vec<FaultRule> = Vec::new();
pub(crate) const USERNAME: &str = "admin";
pub(crate) const PASSWORD: &str = "secret";
const SYSTEM: &str = "1";
/// The address of the machine's card.
pub(crate) const CARD: &str = "52:54:00:00:00:09";

/// A BMC with one machine; clones share it.
#[derive(Clone)]
pub(crate) struct Bmc {
    url: String,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<Inside>,
    reached: Notify,
    let_go: Notify,
}

struct Inside {
    emulator: Emulator,
    changes: Vec<String>,
    /// Number of GETs of certificates.
    looks_at_certificates: usize,
    booted_from: Option<String>,
    /// The request whose answer is to be held.
    hold: Option<String>,
}

/// An answer that is held until released.
pub(crate) struct Held(Arc<Shared>);

impl Held {
    /// Waits until the change was made and its answer is held.
    pub(crate) async fn reached(&self) {
        self.0.reached.notified().await;
    }

    pub(crate) fn let_go(&self) {
        self.0.let_go.notify_one();
    }
}

impl Bmc {
    pub(crate) async fn start(faults: Vec<FaultRule>) -> Self {
        Self::of(Platform::Generic, faults).await
    }

    pub(crate) async fn of(platform: Platform, faults: Vec<FaultRule>) -> Self {
        let mut emulator = Emulator::new(USERNAME, PASSWORD);
        emulator.add_system(SYSTEM, &[CARD.to_owned()], platform);
        emulator.set_faults(faults);
        let inside = Inside {
            emulator,
            changes: Vec::new(),
            looks_at_certificates: 0,
            booted_from: None,
            hold: None,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(inside),
            reached: Notify::new(),
            let_go: Notify::new(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, shared }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn switch_on(&self) {
        self.shared.state.lock().unwrap().emulator.starts(SYSTEM, Duration::ZERO);
    }

    /// All changing requests so far.
    pub(crate) fn changes(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().changes.clone()
    }

    /// A resource as it is.
    pub(crate) fn resource(&self, path: &str) -> Value {
        self.shared.state.lock().unwrap().emulator.resource(path).unwrap_or_default()
    }

    /// Number of GETs of the certificates that the firmware trusts.
    pub(crate) fn looks_at_certificates(&self) -> usize {
        self.shared.state.lock().unwrap().looks_at_certificates
    }

    /// The certificates that the firmware trusts.
    pub(crate) fn certificates(&self) -> Vec<String> {
        let state = self.shared.state.lock().unwrap();
        state.emulator.boot_certificates(SYSTEM).unwrap_or_default()
    }

    pub(crate) fn booted_from(&self) -> Option<String> {
        self.shared.state.lock().unwrap().booted_from.clone()
    }

    /// Holds the answer to the next request whose description begins like this.
    pub(crate) fn hold(&self, request: &str) -> Held {
        self.shared.state.lock().unwrap().hold = Some(request.to_owned());
        Held(Arc::clone(&self.shared))
    }
}

/// On a separate task, since a BMC finishes a request even if its client is gone.
async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    tokio::spawn(answer_to_the_end(shared, request)).await.unwrap()
}

async fn answer_to_the_end(shared: Arc<Shared>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 64 * 1024).await.unwrap();
    let (response, held) = shared.state.lock().unwrap().answer(&head, &body);
    if held {
        shared.reached.notify_one();
        shared.let_go.notified().await;
    }
    response
}

impl Inside {
    fn answer(&mut self, head: &Parts, body: &Bytes) -> (Response, bool) {
        let text = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
        let token = head.headers.get("X-Auth-Token").and_then(|value| value.to_str().ok());
        let request = EmulatorRequest {
            method: &head.method,
            path: head.uri.path(),
            authorization: text(AUTHORIZATION),
            session_token: token,
            if_match: text(http::header::IF_MATCH),
            body,
            fresh: "fresh",
            now: Duration::ZERO,
        };
        let (response, effect) = self.emulator.answer(&request);
        match effect {
            Some(PowerEffect::Start { .. }) => {
                let next = self.emulator.starts(SYSTEM, Duration::ZERO);
                if let Some(NextBoot::Url(url) | NextBoot::Cd(url)) = &next {
                    self.booted_from = Some(url.clone());
                }
            }
            Some(PowerEffect::Stop { .. } | PowerEffect::ShutDown { .. }) => {
                self.emulator.stopped(SYSTEM, Duration::ZERO)
            }
            Some(PowerEffect::Restart { .. } | PowerEffect::Interrupt { .. }) | None => {}
        }
        let request = describe(head, body);
        let held = self.hold.take_if(|hold| request.starts_with(hold.as_str())).is_some();
        let is_look = head.method == Method::GET && is_of_certificates(head);
        self.looks_at_certificates += usize::from(is_look);
        // A login changes no machine.
        if head.method != Method::GET && !head.uri.path().contains("/SessionService/") {
            self.changes.push(request);
        }
        let mut http = match response.body {
            Some(body) => (response.status, Json(body)).into_response(),
            None => response.status.into_response(),
        };
        for (name, value) in response.headers {
            http.headers_mut().insert(name, HeaderValue::from_str(&value).unwrap());
        }
        (http, held)
    }
}

fn is_of_certificates(head: &Parts) -> bool {
    head.uri.path().contains("/Boot/Certificates")
}

/// `GET /redfish/v1/Systems/1`, `POST On`, `PATCH Once UEFI UefiHttp with a URL`, `POST InsertMedia with a URL`,
/// `PATCH IPv4HTTPSupport_00F5=Enabled`, `PATCH SecureBoot true`
fn describe(head: &Parts, body: &Bytes) -> String {
    if head.method == Method::GET {
        return format!("GET {}", head.uri.path());
    }
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let boot = &body["Boot"];
    let has_url = boot["HttpBootUri"].is_string() || body["Image"].is_string();
    let url = if has_url { Some("with a URL") } else { None };
    if let Some(attributes) = body["Attributes"].as_object() {
        let of = |(name, value): (&String, &Value)| {
            format!("{name}={}", value.as_str().unwrap_or_default())
        };
        let attributes: Vec<_> = attributes.iter().map(of).collect();
        return format!("{} {}", head.method, attributes.join(" "));
    }
    if let Some(enable) = body["SecureBootEnable"].as_bool() {
        return format!("{} SecureBoot {enable}", head.method);
    }
    let is_of_db = head.uri.path().contains("/SecureBootDatabases/db/Certificates");
    let certificate = is_of_certificates(head).then_some("a certificate");
    let certificate = certificate.or_else(|| is_of_db.then_some("a certificate in db"));
    let words = [
        certificate,
        head.uri.path().rsplit_once("/VirtualMedia.").map(|(_, action)| action),
        body["ResetType"].as_str(),
        boot["BootSourceOverrideEnabled"].as_str(),
        boot["BootSourceOverrideMode"].as_str(),
        boot["BootSourceOverrideTarget"].as_str(),
        url,
    ];
    let words: Vec<_> = words.into_iter().flatten().collect();
    format!("{} {}", head.method, words.join(" "))
}
