//! The emulator behind a real socket, with faults in front of it, and a count of requests and connections.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bmcs::{BmcConnections, BmcLink, BmcSettings};
use bytes::Bytes;
use hardware::{HttpMethod, RedfishPurpose};
use http::header::{AUTHORIZATION, IF_MATCH};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use openssl::ssl::{Ssl, SslContext};
use redfish::channel::{BmcChannel as _, ChannelFailure, RedfishAnswer, RedfishRequest};
use redfish::emulator::{EmulatedFault, Emulator, EmulatorRequest, FaultRule, Platform};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

pub(crate) const PASSWORD: &str = "geheim";
pub(crate) const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
pub(crate) const SYSTEM: &str = "/redfish/v1/Systems/1";

/// Time in which something must happen.
const PATIENCE: Duration = Duration::from_secs(10);

type Fault = Box<dyn FnMut(&Parts, &[u8]) -> Option<Response<Full<Bytes>>> + Send>;

/// A BMC on loopback; clones share it.
#[derive(Clone)]
pub(crate) struct TestBmc {
    pub(crate) url: String,
    shared: Arc<SharedBmc>,
}

struct SharedBmc {
    state: Mutex<BmcState>,
    /// Requests that are being answered.
    at_once: watch::Sender<usize>,
    connections: watch::Sender<usize>,
    /// Answers that may leave.
    answers: Semaphore,
}

struct BmcState {
    emulator: Emulator,
    fault: Option<Fault>,
    requests: Vec<String>,
    most_at_once: usize,
    tokens: usize,
}

/// The TLS of a server.
#[derive(Clone)]
pub(crate) enum TestTls {
    None,
    Rustls(TlsAcceptor),
    OpenSsl(SslContext),
}

impl TestBmc {
    pub(crate) async fn start() -> Self {
        Self::with_tls(TestTls::None).await
    }

    pub(crate) async fn with_tls(tls: TestTls) -> Self {
        Self::of_platform(Platform::Generic, tls).await
    }

    pub(crate) async fn of_platform(platform: Platform, tls: TestTls) -> Self {
        let mut emulator = Emulator::new("admin", PASSWORD);
        emulator.add_system("1", &[], platform);
        let state =
            BmcState { emulator, fault: None, requests: Vec::new(), most_at_once: 0, tokens: 0 };
        let shared = Arc::new(SharedBmc {
            state: Mutex::new(state),
            at_once: watch::Sender::new(0),
            connections: watch::Sender::new(0),
            answers: Semaphore::new(Semaphore::MAX_PERMITS),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if matches!(tls, TestTls::None) { "http" } else { "https" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let bmc = Self { url, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, tls.clone(), Arc::clone(&shared)));
            }
        });
        bmc
    }

    /// Switches a fault of the emulator on, for all requests.
    pub(crate) fn set_emulated_fault(&self, fault: EmulatedFault) {
        let emulator = &mut self.shared.state.lock().unwrap().emulator;
        emulator.set_faults(vec![FaultRule::always(fault)]);
    }

    /// Answers some requests in place of the emulator.
    pub(crate) fn set_fault(
        &self,
        fault: impl FnMut(&Parts, &[u8]) -> Option<Response<Full<Bytes>>> + Send + 'static,
    ) {
        self.shared.state.lock().unwrap().fault = Some(Box::new(fault));
    }

    /// All requests since the last call: method, path, and the kind of credentials.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state.lock().unwrap().requests)
    }

    /// Ends the session with this number, as a restart of the BMC does.
    pub(crate) fn end_session(&self, id: u32) {
        let emulator = &mut self.shared.state.lock().unwrap().emulator;
        let basic = "Basic YWRtaW46Z2VoZWlt";
        let request = EmulatorRequest {
            method: &Method::DELETE,
            path: &format!("{SESSIONS}/{id}"),
            authorization: Some(basic),
            session_token: None,
            if_match: None,
            body: b"",
            fresh: "",
            now: Duration::ZERO,
        };
        assert_eq!(emulator.answer(&request).0.status, StatusCode::NO_CONTENT);
    }

    /// Holds all answers until `let_go`.
    pub(crate) fn hold(&self) {
        self.shared.answers.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(crate) fn let_go(&self, answers: usize) {
        self.shared.answers.add_permits(answers);
    }

    /// Waits until so many requests, or more, are being answered at once.
    pub(crate) async fn reached(&self, requests: usize) {
        let mut at_once = self.shared.at_once.subscribe();
        let reached = at_once.wait_for(|now| *now >= requests);
        timeout(PATIENCE, reached).await.expect("the requests come").unwrap();
    }

    pub(crate) fn most_at_once(&self) -> usize {
        self.shared.state.lock().unwrap().most_at_once
    }

    /// Waits until so many connections are open.
    pub(crate) async fn has_connections(&self, connections: usize) {
        let mut now = self.shared.connections.subscribe();
        let has = now.wait_for(|now| *now == connections);
        timeout(PATIENCE, has).await.expect("connections open or close").unwrap();
    }

    pub(crate) fn connections(&self) -> usize {
        *self.shared.connections.borrow()
    }

    /// The settings of a node with this BMC, and these settings more.
    pub(crate) fn settings(&self, more: Value) -> BmcSettings {
        settings(&self.url, more)
    }

    /// A link that tells nobody of its exchanges.
    pub(crate) async fn link(
        &self,
        connections: &BmcConnections<String>,
        more: Value,
    ) -> BmcLink<'static, String> {
        connections.link(&self.settings(more), Box::new(|_, _| ())).await.unwrap()
    }
}

pub(crate) fn settings(url: &str, more: Value) -> BmcSettings {
    let mut info = json!({
        "redfish_address": url, "redfish_username": "admin", "redfish_password": PASSWORD,
    });
    let object = info.as_object_mut().unwrap();
    object.extend(more.as_object().unwrap().clone());
    BmcSettings::of(object).unwrap()
}

pub(crate) async fn get(
    link: &BmcLink<'_, String>,
    path: &str,
) -> Result<RedfishAnswer, ChannelFailure> {
    let request = RedfishRequest {
        purpose: RedfishPurpose::LookAtSystem,
        method: HttpMethod::Get,
        path: path.to_owned(),
        if_match: None,
        body: None,
    };
    link.exchange(&request).await
}

pub(crate) async fn status(link: &BmcLink<'_, String>) -> u16 {
    get(link, SYSTEM).await.unwrap().status.as_u16()
}

pub(crate) fn answer(status: u16, body: &str) -> Response<Full<Bytes>> {
    let body = Full::from(body.to_owned());
    Response::builder().status(status).body(body).unwrap()
}

async fn serve(stream: TcpStream, tls: TestTls, shared: Arc<SharedBmc>) {
    shared.connections.send_modify(|now| *now += 1);
    match tls {
        TestTls::None => serve_http(stream, &shared).await,
        TestTls::Rustls(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve_http(stream, &shared).await;
            }
        }
        TestTls::OpenSsl(context) => {
            let ssl = Ssl::new(&context).unwrap();
            let mut stream = tokio_openssl::SslStream::new(ssl, stream).unwrap();
            if Pin::new(&mut stream).accept().await.is_ok() {
                serve_http(stream, &shared).await;
            }
        }
    }
    shared.connections.send_modify(|now| *now -= 1);
}

async fn serve_http(stream: impl AsyncRead + AsyncWrite + Unpin + Send, shared: &Arc<SharedBmc>) {
    let service = service_fn(|request| respond(Arc::clone(shared), request));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(
    shared: Arc<SharedBmc>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    shared.at_once.send_modify(|now| *now += 1);
    let response = {
        let mut state = shared.state.lock().unwrap();
        state.most_at_once = state.most_at_once.max(*shared.at_once.borrow());
        state.respond(&head, &body)
    };
    shared.answers.acquire().await.unwrap().forget();
    shared.at_once.send_modify(|now| *now -= 1);
    Ok(response)
}

impl BmcState {
    fn respond(&mut self, head: &Parts, body: &[u8]) -> Response<Full<Bytes>> {
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let token = text("X-Auth-Token");
        let authorization = text(AUTHORIZATION.as_str());
        let path = head.uri.path();
        let by = match (token, authorization) {
            (Some(_), None) => " by token",
            (None, Some(_)) => " by basic",
            (None, None) => "",
            (Some(_), Some(_)) => " by both",
        };
        self.requests.push(format!("{} {path}{by}", head.method));
        if let Some(answer) = self.fault.as_mut().and_then(|fault| fault(head, body)) {
            return answer;
        }
        self.tokens += 1;
        let request = EmulatorRequest {
            method: &head.method,
            path,
            authorization,
            session_token: token,
            if_match: text(IF_MATCH.as_str()),
            body,
            fresh: &format!("token-{}", self.tokens),
            now: Duration::ZERO,
        };
        let (answered, _) = self.emulator.answer(&request);
        let mut response = Response::builder().status(answered.status);
        for (name, value) in answered.headers {
            response = response.header(name, value);
        }
        let body = answered.body.map(|body| body.to_string()).unwrap_or_default();
        response.body(Full::from(body)).unwrap()
    }
}
