//! Every route of the table, with requests that it must refuse.

#![expect(clippy::unwrap_used, reason = "in a test, what cannot be unwrapped has failed")]

use std::collections::BTreeSet;
use std::fs;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nodes::{NodeIndex, Nodes, Recorder};
use provision::Policy;
use serde_json::{Value, json};
use server::api::guard::{self, OperatorGuard};
use server::api::routes::{ApiRoute, Audience, ROUTES};
use server::api::{ApiContext, ApiSettings, agent_router, router};
use server::config;
use store::Store;
use tempfile::TempDir;
use tower::ServiceExt as _;

const NODE: &str = "8f259d3d-81a7-49cf-a5c3-8f0ec4d9c39f";
const PORT: &str = "1be26c0b-03f2-4d2e-ae87-c02d7f33c123";

#[test]
fn the_table_of_routes() {
    let row = |route: &ApiRoute| {
        let public = if route.audience == Audience::Everyone { " (everyone)" } else { "" };
        format!("1.{:<3} {route}{public}", route.since)
    };
    insta::assert_snapshot!(ROUTES.iter().map(row).collect::<Vec<_>>().join("\n"));
}

#[tokio::test]
async fn every_route_is_there_from_its_version_on_and_not_before() {
    let service = Service::new().await;
    for route in ROUTES.iter().filter(|route| route.since > 1) {
        let words =
            format!("This endpoint is supported starting with the API version 1.{}", route.since);
        // An invalid body is checked later.
        let older = service.ask(Asked::of(route).at(route.since - 1).with_body("{")).await;
        assert_eq!((older.status, older.words()), (StatusCode::NOT_FOUND, words), "{route}");

        let first = service.ask(Asked::of(route).at(route.since).with_body("{")).await;
        assert!(!first.words().contains("starting with the API version"), "{route}");
    }
}

#[tokio::test]
async fn every_route_refuses_a_version_that_is_none_with_the_range() {
    let service = Service::new().await;
    for route in ROUTES.iter() {
        for version in ["1.999", "2.1", "abc", "1.0", ""] {
            let asked = Asked::of(route).with("x-openstack-ironic-api-version", version);
            let answer = service.ask(asked).await;
            assert_eq!(answer.status, StatusCode::NOT_ACCEPTABLE, "{route} at {version:?}");
            assert_eq!(answer.headers["x-openstack-ironic-api-maximum-version"], "1.110");
        }
    }
}

#[tokio::test]
async fn every_path_answers_other_methods_with_those_that_it_has() {
    let service = Service::new().await;
    for route in ROUTES.iter() {
        let mut has = ROUTES
            .iter()
            .filter(|other| other.path == route.path)
            .map(|other| other.method.to_string())
            .collect::<BTreeSet<_>>();
        let words = has.iter().cloned().collect::<Vec<_>>();
        if has.contains("GET") {
            has.insert("HEAD".to_owned());
        }
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"]
        {
            if has.contains(method) {
                continue;
            }
            let answer = service.ask(Asked::of(route).by(method)).await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} of {route}");
            let allow = answer.headers[header::ALLOW].to_str().unwrap();
            let allowed = allow.split(',').map(str::to_owned).collect::<BTreeSet<_>>();
            assert_eq!(allowed, has, "{method} of {route}");
            let said = answer.words();
            let named = words.iter().all(|method| said.contains(method));
            assert!(method == "HEAD" || named && said.starts_with(method), "{route}: {said}");
        }
    }
}

#[tokio::test]
async fn head_is_answered_as_get_without_a_body() {
    let service = Service::new().await;
    for route in ROUTES.iter().filter(|route| route.method == Method::GET) {
        let got = service.ask(Asked::of(route)).await;
        let head = service.ask(Asked::of(route).by("HEAD")).await;
        assert_eq!((head.status, head.body.len()), (got.status, 0), "{route}");
    }
}

#[tokio::test]
async fn no_route_is_reached_by_a_name_of_others_or_from_their_pages() {
    let service = Service::new().await;
    for route in ROUTES.iter() {
        for (name, value, status) in [
            ("host", "rebound.example:6385", StatusCode::MISDIRECTED_REQUEST),
            ("host", "a b", StatusCode::BAD_REQUEST),
            ("origin", "http://evil.example", StatusCode::FORBIDDEN),
            ("origin", "null", StatusCode::FORBIDDEN),
            ("sec-fetch-site", "cross-site", StatusCode::FORBIDDEN),
        ] {
            let answer = service.ask(Asked::of(route).with(name, value)).await;
            assert_eq!(answer.status, status, "{route} with {name}: {value}");
        }
    }
}

#[tokio::test]
async fn no_route_takes_a_body_that_is_not_called_json() {
    let service = Service::new().await;
    for route in ROUTES.iter() {
        for of_type in
            ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
        {
            let asked = Asked::of(route).with_body("{}").with("content-type", of_type);
            let answer = service.ask(asked).await;
            assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{route}: {of_type}");
        }
    }
}

#[tokio::test]
async fn every_route_but_those_for_everyone_asks_for_a_login() {
    let service = Service::with_users().await;
    for route in ROUTES.iter() {
        let right = Asked::of(route).with("authorization", &basic("ann", "secret"));
        let is_refused = async |asked: Asked| {
            let status = service.ask(asked.with_body("{")).await.status;
            // Too many wrong passwords are refused without a check.
            [StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS].contains(&status)
        };
        assert!(!is_refused(right).await, "{route}");

        let needs_login = route.audience == Audience::Operators;
        let with_slash =
            Asked::of(route).on(format!("{}/", filled(route.path).trim_end_matches('/')));
        let wrong = Asked::of(route).with("authorization", &basic("ann", "wrong"));
        for asked in [Asked::of(route), with_slash, wrong] {
            assert_eq!(is_refused(asked).await, needs_login, "{route}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_or_too_large_is_refused_in_words_by_every_route_that_takes_one() {
    let service = Service::new().await;
    let bodies = ["{".to_owned(), "\0".to_owned(), "[".repeat(200_000), " ".repeat(2_000_000)];
    for route in ROUTES.iter().filter(|route| takes_body(route)) {
        for body in &bodies {
            let answer = service.ask(Asked::of(route).with_body(body)).await;
            assert!(answer.status.is_client_error(), "{route}: {}", answer.status);
            assert!(!answer.words().is_empty(), "{route}");
        }
    }
}

#[tokio::test]
async fn the_agents_port_takes_shorter_bodies() {
    let service = Service::new().await;
    let body = format!("{{}}{}", " ".repeat(100_000));
    let heartbeat = || Asked::of(route("POST /v1/heartbeat/{node}")).with_body(&body);

    let answer = service.ask(heartbeat()).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let answer = service.ask_as_agent(heartbeat()).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn names_that_are_long_or_strange_are_found_nowhere_and_not_repeated_at_length() {
    let service = Service::new().await;
    let names = ["x".repeat(20_000), "%00".to_owned(), "%FF".to_owned(), "..".to_owned()];
    for route in ROUTES.iter().filter(|route| route.path.contains('{')) {
        for name in &names {
            let path = filled_with(route.path, |_| name);
            let answer = service.ask(Asked::of(route).on(path).with_body("{}")).await;
            assert!(answer.status.is_client_error(), "{route}: {}", answer.status);
            assert!(answer.body.len() < 5_000 && !answer.words().is_empty(), "{route}");
        }
    }
}

#[tokio::test]
async fn the_agents_port_has_the_routes_for_everyone_and_no_other() {
    let service = Service::new().await;
    for route in ROUTES.iter() {
        let answer = service.ask_as_agent(Asked::of(route).with_body("{}")).await;
        let is_served = answer.words() != "Not Found";
        assert_eq!(is_served, route.audience == Audience::Everyone, "{route}");
    }
}

fn route(named: &str) -> &'static ApiRoute {
    ROUTES.iter().find(|route| route.to_string() == named).unwrap()
}

fn takes_body(route: &ApiRoute) -> bool {
    [Method::POST, Method::PUT, Method::PATCH].contains(&route.method)
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// The path with names of existing resources.
fn filled(path: &str) -> String {
    filled_with(path, |variable| match variable {
        "{node}" => NODE,
        "{port}" => PORT,
        "{driver}" => "redfish",
        "{host}" => "ferroboot",
        "{trait}" => "CUSTOM_X",
        _ => "x",
    })
}

fn filled_with<'a>(path: &'a str, name: impl Fn(&'a str) -> &'a str) -> String {
    let segment = |segment: &'a str| if segment.starts_with('{') { name(segment) } else { segment };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// A request under construction.
#[derive(Clone, Debug)]
struct Asked {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: String,
}

impl Asked {
    /// A route's valid request: the latest version, the right host name, JSON.
    fn of(route: &ApiRoute) -> Self {
        let asked = Self {
            method: route.method.clone(),
            path: filled(route.path),
            headers: HeaderMap::new(),
            body: String::new(),
        };
        asked
            .with("x-openstack-ironic-api-version", "latest")
            .with("host", "localhost")
            .with("content-type", "application/json")
    }

    fn by(self, method: &str) -> Self {
        Self { method: method.parse().unwrap(), ..self }
    }

    fn on(self, path: String) -> Self {
        Self { path, ..self }
    }

    fn at(self, minor: u16) -> Self {
        self.with("x-openstack-ironic-api-version", &format!("1.{minor}"))
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().unwrap());
        self
    }

    fn with_body(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self.with("content-length", &body.len().to_string())
    }
}

/// Both ports, guarded, with a node and a port in the store.
struct Service {
    operators: Router,
    agents: Router,
    _folder: TempDir,
}

impl Service {
    async fn new() -> Self {
        Self::start(|_| String::new()).await
    }

    async fn with_users() -> Self {
        Self::start(|folder| {
            let path = folder.path().join("htpasswd");
            fs::write(&path, format!("ann:{}\n", bcrypt::hash("secret", 4).unwrap())).unwrap();
            format!("users = {path:?}\n")
        })
        .await
    }

    async fn start(settings: impl FnOnce(&TempDir) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config: config::Config = format!("[api]\n{}", settings(&folder)).parse().unwrap();
        let guard = OperatorGuard::open(&config.api).unwrap();
        let url = format!("sqlite://{}/test.db", folder.path().display());
        let store = Store::open(&url, &folder.path().join("ferroboot.key")).await.unwrap();
        let nodes = Nodes::new(store, NodeIndex::default(), Policy::default());
        let settings = ApiSettings { agent_calls_per_sec: 0, ..ApiSettings::default() };
        let api = ApiContext::new(nodes, Recorder::new().0, settings);
        let service = Self {
            operators: guard.guard(router(api.clone())),
            agents: guard::machines(agent_router(api.clone())),
            _folder: folder,
        };
        for (named, body) in [
            ("POST /v1/nodes", json!({ "uuid": NODE, "driver": "redfish" })),
            (
                "POST /v1/ports",
                json!({ "uuid": PORT, "node_uuid": NODE, "address": "52:54:00:00:00:01" }),
            ),
        ] {
            let asked = Asked::of(route(named)).with_body(&body.to_string());
            let answer = send(&router(api.clone()), asked).await;
            assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.words());
        }
        service
    }

    async fn ask(&self, asked: Asked) -> Answer {
        send(&self.operators, asked).await
    }

    async fn ask_as_agent(&self, asked: Asked) -> Answer {
        send(&self.agents, asked).await
    }
}

async fn send(router: &Router, asked: Asked) -> Answer {
    let mut request = Request::new(Body::from(asked.body));
    *request.method_mut() = asked.method;
    *request.uri_mut() = asked.path.parse().unwrap();
    *request.headers_mut() = asked.headers;
    let response = router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
    let (status, headers) = (response.status(), response.headers().clone());
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec();
    Answer { status, headers, body }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    /// The message of an error; empty for other answers.
    fn words(&self) -> String {
        let body = serde_json::from_slice::<Value>(&self.body).ok();
        body.and_then(|body| ironic::error::words(&body)).unwrap_or_default()
    }
}
