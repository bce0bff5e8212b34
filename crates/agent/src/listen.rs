//! The command API, as in ironic-python-agent: HTTPS on port 9999, with a token for every command.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode, header};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ironic::agent::{CommandList, Fault};
use nix::errno::Errno;
use serde::Deserialize;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use crate::action;
use crate::effects::{CommandEffects, Refusal};

/// Number of connections. Ironic opens one or two; more come from other clients.
const CONNECTIONS: usize = 64;

/// Time limit of a TLS handshake, and of a request's head.
const PATIENCE: Duration = Duration::from_secs(10);

/// The state for answers.
#[derive(Clone)]
pub struct CommandServer {
    /// The executor of commands.
    pub effects: CommandEffects,
    /// The token that every command must have.
    pub token: Arc<str>,
    /// The start time of this agent.
    pub started: jiff::Timestamp,
}

/// Serves `listener` for the agent's lifetime.
///
/// # Errors
///
/// The socket fails.
pub async fn serve(listener: TcpListener, tls: TlsAcceptor, served: CommandServer) -> Result<()> {
    let routes = routes(served);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await?;
        let (stream, peer) = listener.accept().await?;
        let (tls, routes) = (tls.clone(), routes.clone());
        tokio::spawn(async move {
            if let Err(error) = connection(stream, tls, routes).await {
                debug!("connection of {peer} ended: {error:#}");
            }
            drop(permit);
        });
    }
}

/// Opens the port of the command API, for IPv4 and IPv6.
///
/// # Errors
///
/// The port is in use.
pub async fn bind(port: u16) -> Result<TcpListener> {
    let both = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await;
    match both {
        // `ipv6.disable=1`
        Err(error) if error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) => {
            Ok(TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await?)
        }
        bound => Ok(bound?),
    }
}

async fn connection(stream: TcpStream, tls: TlsAcceptor, routes: Router) -> Result<()> {
    let stream = timeout(PATIENCE, tls.accept(stream)).await??;
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
        .await?;
    Ok(())
}

fn routes(served: CommandServer) -> Router {
    // The version in the path is optional, as is the trailing slash of a collection.
    let versioned = Router::new()
        .route("/status", get(status))
        .route("/commands", get(commands).post(run))
        .route("/commands/", get(commands).post(run))
        .route("/commands/{id}", get(command));
    Router::new()
        .route("/", get(root))
        .route("/v1", get(v1))
        .route("/v1/", get(v1))
        .nest("/v1", versioned.clone())
        .merge(versioned)
        .fallback(async || Refusal(404, "404 Not Found: there is nothing at this path".to_owned()))
        .method_not_allowed_fallback(async || {
            Refusal(405, "405 Method Not Allowed: not at this path".to_owned())
        })
        .with_state(served)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(Fault::new(self.0, self.1))).into_response()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameters {
    agent_token: String,
    wait: String,
}

impl Parameters {
    fn wants_the_end(&self) -> bool {
        self.wait.eq_ignore_ascii_case("true")
    }
}

impl CommandServer {
    fn authorize(&self, parameters: &Parameters) -> Result<(), Refusal> {
        let given = parameters.agent_token.as_bytes();
        match bool::from(given.ct_eq(self.token.as_bytes())) {
            true => Ok(()),
            false => Err(Refusal(401, "Token invalid.".to_owned())),
        }
    }
}

async fn root(headers: HeaderMap) -> Json<Value> {
    let version = version(&base(&headers));
    Json(json!({
        "name": "OpenStack Ironic Python Agent API",
        "description": "Ferroboot's agent, which speaks the API of ironic-python-agent",
        "versions": [version],
        "default_version": version,
    }))
}

async fn v1(headers: HeaderMap) -> Json<Value> {
    let base = base(&headers);
    let links = |resource: &str| {
        json!([
            {"href": format!("{base}/v1/{resource}"), "rel": "self"},
            {"href": format!("{base}/{resource}"), "rel": "bookmark"},
        ])
    };
    let mut body = version(&base);
    body["commands"] = links("commands");
    body["status"] = links("status");
    body["media_types"] = json!([{
        "base": "application/json",
        "type": "application/vnd.openstack.ironic-python-agent.v1+json",
    }]);
    Json(body)
}

fn version(base: &str) -> Value {
    json!({"id": "v1", "links": [{"href": format!("{base}/v1"), "rel": "self"}]})
}

fn base(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    format!("https://{host}")
}

async fn status(State(served): State<CommandServer>) -> Json<Value> {
    Json(json!({
        "started_at": served.started.as_second(),
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

async fn commands(
    State(served): State<CommandServer>,
    Query(parameters): Query<Parameters>,
) -> Result<Json<CommandList>, Refusal> {
    served.authorize(&parameters)?;
    Ok(Json(served.effects.list()))
}

async fn command(
    State(served): State<CommandServer>,
    Path(id): Path<String>,
    Query(parameters): Query<Parameters>,
) -> Result<Response, Refusal> {
    served.authorize(&parameters)?;
    outcome(&served, &id, &parameters).await
}

async fn run(
    State(served): State<CommandServer>,
    Query(parameters): Query<Parameters>,
    body: Bytes,
) -> Result<Response, Refusal> {
    served.authorize(&parameters)?;
    let request = action::request(&body).map_err(|fault| Refusal(400, fault.faultstring))?;
    let command = served.effects.start(request)?;
    outcome(&served, &command.id, &parameters).await
}

async fn outcome(
    served: &CommandServer,
    id: &str,
    parameters: &Parameters,
) -> Result<Response, Refusal> {
    let commands = &served.effects.commands;
    let command = match parameters.wants_the_end() {
        true => commands.wait(id).await,
        false => commands.find(id),
    };
    match command {
        Some(command) => Ok(Json(command).into_response()),
        None => Err(Refusal(404, format!("Not found: Command Result with id {id} not found."))),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use http::Request;
    use tower::ServiceExt;

    use super::*;
    use crate::clean::CleaningTarget;
    use crate::disks::DiskSource;
    use crate::effects::AgentHost;
    use crate::system_logs::RecentLog;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    #[tokio::test]
    async fn clean_steps_are_told_to_whoever_has_the_token() {
        let body = r#"{"name": "clean.get_clean_steps", "params": {"node": {}, "ports": []}}"#;

        let (status, command) =
            call("POST", &format!("/v1/commands/?wait=true&agent_token={TOKEN}"), body).await;

        assert_eq!(status, 200);
        assert_eq!(command["command_name"], "get_clean_steps");
        assert_eq!(command["command_status"], "SUCCEEDED");
        let steps = &command["command_result"]["clean_steps"]["ferroboot_agent"];
        assert_eq!(steps[0]["step"], "erase_devices_metadata");
    }

    #[tokio::test]
    async fn without_the_token_nothing_is_told_or_done() {
        let body = r#"{"name": "standby.sync", "params": {}}"#;
        for (method, path) in [
            ("POST", "/v1/commands/?wait=true"),
            ("POST", "/v1/commands/?agent_token=wrong"),
            ("GET", "/v1/commands/"),
            ("GET", "/commands/1?agent_token="),
        ] {
            let (status, fault) = call(method, path, body).await;
            assert_eq!(status, 401, "{method} {path}");
            assert_eq!(fault, json!({"faultcode": "Client", "faultstring": "Token invalid."}));
        }
    }

    #[tokio::test]
    async fn errors_have_the_python_agents_shape() {
        let path = format!("/v1/commands/?agent_token={TOKEN}");
        for (method, path, body, expected) in [
            ("POST", path.as_str(), "{}", 400),
            ("POST", &path, r#"{"name": "coffee.make", "params": {}}"#, 404),
            ("GET", &format!("/v1/commands/none?agent_token={TOKEN}"), "", 404),
            ("GET", "/v2/", "", 404),
            ("DELETE", "/v1/status", "", 405),
        ] {
            let (status, fault) = call(method, path, body).await;
            assert_eq!(status, expected, "{method} {path}");
            assert_eq!(fault["faultcode"], "Client", "{method} {path}");
        }
    }

    #[tokio::test]
    async fn logs_are_told_in_one_text() {
        let body = r#"{"name": "log.collect_system_logs", "params": {}}"#;

        let (status, command) =
            call("POST", &format!("/v1/commands/?wait=true&agent_token={TOKEN}"), body).await;

        assert_eq!(status, 200);
        assert_eq!(command["command_name"], "collect_system_logs");
        // gzip's first bytes, in base64.
        let archive = command["command_result"]["system_logs"].as_str().unwrap();
        assert!(archive.starts_with("H4sI"), "{archive}");
    }

    #[tokio::test]
    async fn the_status_is_for_everybody() {
        let (status, body) = call("GET", "/v1/status", "").await;
        assert_eq!(status, 200);
        assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
    }

    async fn call(method: &str, path: &str, body: &str) -> (u16, Value) {
        let machine = CleaningTarget { disks: DiskSource::Named(vec![]), guards_clustered: true };
        let served = CommandServer {
            effects: CommandEffects::new(machine, AgentHost::Process, RecentLog::default()),
            token: TOKEN.into(),
            started: jiff::Timestamp::UNIX_EPOCH,
        };
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = routes(served).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }
}
