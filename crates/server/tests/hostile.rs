//! The API answers any request, and never with an internal error: on SQLite always, and on PostgreSQL if
//! `FERROBOOT_TEST_POSTGRES` has the URL of one (`scripts/with-postgres`).

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::LazyLock;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use nodes::{NodeIndex, Nodes, Recorder};
use proptest::prelude::*;
use provision::Policy;
use serde_json::{Value, json};
use server::api::routes::ROUTES;
use server::api::{ApiContext, ApiSettings, agent_router, router};
use store::Store;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tower::ServiceExt;

const NODE: &str = "8f259d3d-81a7-49cf-a5c3-8f0ec4d9c39f";
const PORT: &str = "1be26c0b-03f2-4d2e-ae87-c02d7f33c123";

proptest! {
    // Requests affect later ones, so a failing request alone need not fail again.
    #![proptest_config(ProptestConfig {
        cases: 1_000, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn no_request_is_answered_with_a_failure(asked in asked()) {
        // hyper refuses a path that is not a URI before the API sees it.
        for service in SERVICES.iter() {
            let Some(request) = asked.request() else { break };
            let (status, body) = service.answer(&service.operators, request);

            prop_assert!(!status.is_server_error(), "{status}: {}", String::from_utf8_lossy(&body));
            prop_assert!(
                body.is_empty() || serde_json::from_slice::<Value>(&body).is_ok(),
                "an answer that is not JSON: {}", String::from_utf8_lossy(&body)
            );
            // The answer to a HEAD has no body.
            let silent = body.is_empty() && asked.method != "HEAD";
            prop_assert!(!(silent && status.is_client_error()), "{status} without a word");
        }
    }

    #[test]
    fn no_agents_request_is_answered_with_a_failure_or_a_secret(asked in asked()) {
        for service in SERVICES.iter() {
            let Some(request) = asked.request() else { break };
            let (status, body) = service.answer(&service.agents, request);

            prop_assert!(!status.is_server_error(), "{status}");
            prop_assert!(!String::from_utf8_lossy(&body).contains("hush"));
        }
    }
}

/// A request that may be invalid.
#[derive(Clone, Debug)]
struct Asked {
    method: String,
    path: String,
    version: Vec<u8>,
    host: Vec<u8>,
    body: Vec<u8>,
}

impl Asked {
    fn request(&self) -> Option<Request<Body>> {
        let mut request = Request::new(Body::from(self.body.clone()));
        *request.method_mut() = Method::from_bytes(self.method.as_bytes()).ok()?;
        *request.uri_mut() = Uri::try_from(&self.path).ok()?;
        let headers = request.headers_mut();
        for (name, value) in
            [("x-openstack-ironic-api-version", &self.version), ("host", &self.host)]
        {
            headers.insert(name, HeaderValue::from_bytes(value).ok()?);
        }
        Some(request)
    }
}

fn asked() -> impl Strategy<Value = Asked> {
    (target(), version(), text(), body()).prop_map(|((method, path), version, host, body)| Asked {
        method,
        path,
        version,
        host,
        body,
    })
}

/// A method and a path: mostly a route's, with anything in the variable segments.
fn target() -> impl Strategy<Value = (String, String)> {
    prop_oneof![5 => known_route(), 3 => (method(), known_path()), 1 => (method(), any_path())]
}

fn known_route() -> impl Strategy<Value = (String, String)> {
    (prop::sample::select(&**ROUTES), names(), query()).prop_map(|(route, names, query)| {
        (route.method.to_string(), filled(route.path, &names) + &query)
    })
}

fn known_path() -> impl Strategy<Value = String> {
    (prop::sample::select(&**ROUTES), names(), query())
        .prop_map(|(route, names, query)| filled(route.path, &names) + &query)
}

fn any_path() -> impl Strategy<Value = String> {
    prop_oneof!["/[ -~]{0,30}", "/(v1/)?([a-z%.0-9]{0,6}/){0,6}"]
}

fn names() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(name(), 2)
}

/// A path of the table, with names in its variable segments.
fn filled(path: &str, names: &[String]) -> String {
    let mut names = names.iter().map(String::as_str);
    let segments = path.split('/').map(|segment| match segment.starts_with('{') {
        true => names.next().unwrap_or_default(),
        false => segment,
    });
    segments.collect::<Vec<_>>().join("/")
}

fn method() -> impl Strategy<Value = String> {
    prop_oneof![
        9 => prop::sample::select(vec!["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
            .prop_map(str::to_owned),
        1 => "[!-~]{1,8}",
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![NODE, PORT, "n1", "52:54:00:00:00:01", "redfish", "%00"])
            .prop_map(str::to_owned),
        1 => "(%[0-9A-F]{2}|[a-zA-Z0-9._~-]){1,12}",
    ]
}

fn query() -> impl Strategy<Value = String> {
    let names = prop::sample::select(vec![
        "limit",
        "marker",
        "fields",
        "detail",
        "sort_key",
        "sort_dir",
        "owner",
        "lessee",
        "node",
        "address",
        "addresses",
        "node_uuid",
        "attempt",
        "method",
        "maintenance",
        "associated",
        "provision_state",
        "instance_uuid",
        "shard",
        "description_contains",
        "conductor",
    ]);
    let value = prop_oneof![name(), "[0-9]{1,22}", "[a-z_,]{0,12}"];
    let one = (names, value).prop_map(|(name, value)| format!("{name}={value}"));
    prop::collection::vec(one, 0..3).prop_map(|list| match list.as_slice() {
        [] => String::new(),
        list => format!("?{}", list.join("&")),
    })
}

fn version() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => Just(b"latest".to_vec()),
        4 => (1_u16..=110).prop_map(|minor| format!("1.{minor}").into_bytes()),
        1 => text(),
    ]
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..12)
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let patch = (prop::sample::select(vec!["add", "replace", "remove"]), key(), json_value())
        .prop_map(
            |(op, key, value)| json!([{ "op": op, "path": format!("/{key}"), "value": value }]),
        );
    prop_oneof![
        1 => Just(Vec::new()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        3 => json_value().prop_map(|value| value.to_string().into_bytes()),
        3 => object(json_value().boxed()).prop_map(|value| value.to_string().into_bytes()),
        3 => patch.prop_map(|value| value.to_string().into_bytes()),
    ]
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::sample::select(vec![
            "\0",
            "n1",
            NODE,
            "redfish",
            "httpboot",
            "52:54:00:00:00:02",
            "manage",
            "clean",
            "power on",
            "https://192.0.2.1:9999",
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            object(inner.boxed()),
        ]
    })
}

fn object(value: BoxedStrategy<Value>) -> impl Strategy<Value = Value> {
    prop::collection::vec((key(), value), 0..6)
        .prop_map(|members| Value::Object(members.into_iter().collect()))
}

/// Meaningful names, without those of a BMC's address: these tests call nobody.
fn key() -> impl Strategy<Value = String> {
    let names = prop::sample::select(vec![
        "name",
        "uuid",
        "driver",
        "driver_info",
        "instance_info",
        "instance_uuid",
        "properties",
        "extra",
        "owner",
        "description",
        "resource_class",
        "boot_interface",
        "maintenance",
        "protected",
        "node_uuid",
        "address",
        "pxe_enabled",
        "target",
        "clean_steps",
        "interface",
        "step",
        "args",
        "reason",
        "traits",
        "callback_url",
        "agent_token",
        "agent_version",
        "parent_node",
        "network_data",
        "shard",
    ]);
    prop_oneof![5 => names.prop_map(str::to_owned), 1 => any::<String>()]
}

/// One service for all requests, so that they meet earlier changes; one for each database.
static SERVICES: LazyLock<Vec<Service>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let sqlite = format!("sqlite://{}/test.db", folder.path().display());
    let mut services = vec![Service::start(&sqlite, folder)];
    services.extend(env::var("FERROBOOT_TEST_POSTGRES").map(|url| {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let key = folder.path().join("ferroboot.key");
        fs::write(&key, "0".repeat(64)).expect("a file can be written");
        fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("it is ours");
        Service::start(&url, folder)
    }));
    services
});

struct Service {
    runtime: Runtime,
    operators: Router,
    agents: Router,
    _folder: TempDir,
}

impl Service {
    fn start(url: &str, folder: TempDir) -> Self {
        let runtime = Runtime::new().expect("a runtime can be had");
        let key = folder.path().join("ferroboot.key");
        let store = runtime.block_on(Store::open(url, &key)).expect("the store opens");
        let nodes = Nodes::new(store, NodeIndex::default(), Policy::default());
        let (recorder, _) = Recorder::new();
        // Its connections to BMCs have a task.
        let api = {
            let _runtime = runtime.enter();
            ApiContext::new(nodes, recorder, ApiSettings::default())
        };
        let (operators, agents) = (router(api.clone()), agent_router(api));
        let service = Self { runtime, operators, agents, _folder: folder };
        service.create(
            "nodes",
            json!({
                "uuid": NODE, "name": "n1", "driver": "redfish",
                "driver_info": { "redfish_password": "hush" },
            }),
        );
        service.create(
            "ports",
            json!({
                "uuid": PORT, "node_uuid": NODE, "address": "52:54:00:00:00:01",
            }),
        );
        service
    }

    fn create(&self, what: &str, body: Value) {
        let request = Request::post(format!("/v1/{what}"))
            .header("X-OpenStack-Ironic-API-Version", "latest")
            .body(Body::from(body.to_string()))
            .expect("a request");
        let (status, body) = self.answer(&self.operators, request);
        // A PostgreSQL that existed before may have it from an earlier run.
        assert!(
            [StatusCode::CREATED, StatusCode::CONFLICT].contains(&status),
            "{}",
            String::from_utf8_lossy(&body)
        );
    }

    fn answer(&self, router: &Router, request: Request<Body>) -> (StatusCode, Vec<u8>) {
        self.runtime.block_on(async {
            let response: Response<Body> =
                router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
            let status = response.status();
            let body = to_bytes(response.into_body(), usize::MAX).await.expect("the body ends");
            (status, body.to_vec())
        })
    }
}
