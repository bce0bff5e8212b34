//! Access to the API, over real sockets: names, web pages, bodies and users.

#![expect(clippy::unwrap_used, reason = "in a test, what cannot be unwrapped has failed")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;

use axum::http::uri::Scheme;
use axum::routing::get;
use axum::{Extension, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nodes::{NodeIndex, Nodes, Recorder};
use provision::Policy;
use serde_json::Value;
use server::api::guard::{self, OperatorGuard};
use server::api::{ApiContext, ApiSettings, agent_router, router};
use server::config;
use store::Store;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use transport::http_server::ConnectionScheme;

/// The hash of `secret`, with a low cost for fast tests.
static HASH: LazyLock<String> = LazyLock::new(|| bcrypt::hash("secret", 4).unwrap());

const NODE: &str = r#"{"driver":"redfish"}"#;

#[test]
fn a_page_in_an_operators_browser_can_neither_write_nor_read() {
    let service = Service::without_users();
    let own = format!("Host: {}\r\n", service.operators);
    let post = |headers: &str| service.ask("POST", "/v1/nodes", &(own.clone() + headers), NODE);

    // A form, and fetch() without a preflight, can send only these types.
    for simple in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let answer = post(&format!("Content-Type: {simple}\r\n"));
        assert_eq!(answer.status, 415, "{answer:?}");
        assert!(answer.words().contains("application/json"), "{answer:?}");
    }
    assert_eq!(post("").status, 415, "a body without a type");
    for foreign in ["null", "http://evil.example", "http://127.0.0.1:1"] {
        let json = format!("Content-Type: application/json\r\nOrigin: {foreign}\r\n");
        assert_eq!(post(&json).status, 403, "{foreign}");
        for path in ["/", "/v1/nodes", "/metrics", "/v1/lookup?addresses=52:54:00:00:00:01"] {
            let origin = format!("{own}Origin: {foreign}\r\n");
            assert_eq!(service.ask("GET", path, &origin, "").status, 403, "{path}");
            assert_eq!(service.ask("OPTIONS", path, &origin, "").status, 403, "{path}");
        }
    }
    let image = format!("{own}Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n");
    assert_eq!(service.ask("GET", "/v1/nodes/n1/validate", &image, "").status, 403);

    let origin =
        format!("Origin: http://{}\r\nContent-Type: application/json\r\n", service.operators);
    let answer = post(&origin);
    assert_eq!(answer.status, 201, "our own page: {answer:?}");
    assert!(answer.head.contains("nosniff"), "{answer:?}");
}

#[test]
fn on_a_listener_with_tls_links_and_our_own_page_have_https() {
    let service = Service::without_users();
    let host = service.operators_tls;
    let ask = |method: &str, target: &str, headers: &str, body: &str| {
        service.send(host, method, target, &format!("Host: {host}\r\n{headers}"), body)
    };

    let root = ask("GET", "/", "", "");
    assert!(root.text.contains(&format!("\"https://{host}/v1")), "{root:?}");
    assert!(!root.text.contains("http://"), "{root:?}");
    let json = "Content-Type: application/json\r\n";
    let created = ask("POST", "/v1/nodes", json, NODE);
    assert!(created.head.contains(&format!("location: https://{host}/v1/nodes/")), "{created:?}");
    let own = |scheme: &str| ask("GET", "/v1", &format!("Origin: {scheme}://{host}\r\n"), "");
    assert_eq!(own("https").status, 200);
    assert_eq!(own("http").status, 403);
}

#[test]
fn a_name_that_was_rebound_to_us_reaches_nothing() {
    let service = Service::without_users();
    for path in ["/", "/v1/nodes", "/metrics", "/v1/lookup"] {
        let answer = service.ask("GET", path, "Host: rebound.example:6385\r\n", "");
        assert_eq!(answer.status, 421, "{path}: {answer:?}");
        assert!(answer.text.contains("rebound.example") && answer.text.contains("hosts"));
        let target = format!("http://rebound.example{path}");
        assert_eq!(service.ask("GET", &target, "Host: localhost\r\n", "").status, 421);
        assert_eq!(service.ask("GET", path, "Host: localhost\r\nHost: x\r\n", "").status, 400);
        assert_eq!(service.ask("GET", path, "", "").status, 400, "{path} without Host");
    }
    for host in ["localhost", "127.0.0.1:1", "[::1]", "ironic.example", "api.example:6385"] {
        let answer = service.ask("GET", "/v1/nodes", &format!("Host: {host}\r\n"), "");
        assert_eq!(answer.status, 200, "{host}: {answer:?}");
    }
}

#[test]
fn machines_reach_agents_port_by_any_name_but_no_page_does() {
    let service = Service::without_users();
    let ask = |headers: &str, body: &str| {
        service.send(service.agents, "POST", "/v1/heartbeat/n1", headers, body)
    };
    let json = "Content-Type: application/json\r\n";

    let expected = ask(&format!("Host: whatever.example\r\n{json}"), "{}");
    assert!([400, 404].contains(&expected.status), "{expected:?}");
    assert_eq!(ask(json, "{}").status, expected.status, "without Host");
    assert_eq!(ask("Host: a\r\nContent-Type: text/plain\r\n", "{}").status, 415);
    assert_eq!(ask(&format!("Host: a\r\nOrigin: http://b\r\n{json}"), "{}").status, 403);
    let image = "Host: a\r\nSec-Fetch-Site: cross-site\r\n";
    assert_eq!(service.send(service.agents, "GET", "/v1/lookup", image, "").status, 403);
}

#[test]
fn requests_as_known_clients_send_them_are_understood() {
    let service = Service::without_users();
    let host = service.operators;
    // python-ironicclient, openstacksdk and gophercloud, and curl as in the book.
    for headers in [
        "User-Agent: python-ironicclient\r\nAccept: application/json\r\nContent-Type: application/json\r\n\
         X-OpenStack-Ironic-API-Version: 1.72\r\n",
        "User-Agent: openstacksdk/4.0 keystoneauth1/5.0\r\nContent-Type: application/json\r\nAccept: */*\r\n",
        "User-Agent: gophercloud/v2.0.0\r\nAccept: application/json\r\nContent-Type: application/json\r\n\
         X-Openstack-Ironic-Api-Version: 1.81\r\nAccept-Encoding: gzip\r\n",
    ] {
        let headers = format!("Host: {host}\r\n{headers}");
        let created = service.ask("POST", "/v1/nodes", &headers, r#"{"driver":"redfish"}"#);
        assert_eq!(created.status, 201, "{created:?}");
        let uuid = created.json()["uuid"].as_str().unwrap().to_owned();
        let path = format!("/v1/nodes/{uuid}");
        let patch = r#"[{"op":"add","path":"/extra/rack","value":"7"}]"#;
        assert_eq!(service.ask("PATCH", &path, &headers, patch).status, 200);
        // A type may be given with an empty body, or left out without one.
        assert_eq!(service.ask("PUT", &format!("{path}/maintenance"), &headers, "{}").status, 202);
        let plain = format!("Host: {host}\r\nContent-Length: 0\r\n");
        assert_eq!(service.ask("DELETE", &format!("{path}/maintenance"), &plain, "").status, 202);
        assert_eq!(service.ask("DELETE", &path, &headers, "").status, 204);
    }
}

#[test]
fn with_users_everything_but_what_upstream_has_public_asks_for_a_login() {
    let service = Service::with_users(&format!("ann:{}\n", *HASH));
    for path in ["/v1/nodes", "/metrics", "/v1/nodes/n1", "/v1/drivers", "/no/such", "/v1/lookup/x"]
    {
        let answer = service.get(path, "");
        assert_eq!(answer.status, 401, "{path}: {answer:?}");
        assert!(answer.head.contains("www-authenticate: basic realm=\"baremetal api\""));
        assert_eq!(answer.json()["error"]["message"], "Authorization required");
        assert_eq!(answer.words(), "Authorization required");
        assert_eq!(service.get(path, &basic("ann", "wrong")).status, 401);
        let answer = service.get(path, &basic("ann", "secret"));
        assert!(![401, 403].contains(&answer.status), "{path}: {answer:?}");
    }
    for path in ["/", "/v1", "/v1/"] {
        assert_eq!(service.get(path, "").status, 200, "{path}");
        assert_eq!(service.get(path, &basic("ann", "wrong")).status, 200, "{path}");
    }
    for path in ["/v1/lookup?addresses=52:54:00:00:00:01", "/v1/heartbeat/n1"] {
        assert!([404, 405].contains(&service.get(path, "").status), "{path}");
    }
    assert_eq!(service.get("/v1/nodes", "Authorization: Bearer x\r\n").status, 400);
    let post =
        format!("Host: localhost\r\nContent-Type: application/json\r\n{}", basic("ann", "x"));
    assert_eq!(service.ask("POST", "/v1/nodes", &post, NODE).status, 401);
}

#[test]
fn a_user_who_is_taken_from_the_file_is_out_at_once() {
    let service = Service::with_users(&format!("ann:{0}\nbob:{0}\n", *HASH));
    assert_eq!(service.get("/v1/nodes", &basic("ann", "secret")).status, 200);

    fs::write(service.dir.path().join("htpasswd"), format!("bob:{}\n", *HASH)).unwrap();

    assert_eq!(service.get("/v1/nodes", &basic("ann", "secret")).status, 401);
    assert_eq!(service.get("/v1/nodes", &basic("bob", "secret")).status, 200);
}

#[test]
fn guesses_are_slowed_down_in_words_and_do_not_keep_out_who_is_in() {
    let service = Service::with_users(&format!("ann:{}\n", *HASH));
    assert_eq!(service.get("/v1/nodes", &basic("ann", "secret")).status, 200);

    let guesses: Vec<_> =
        (0..20).map(|n| service.get("/v1/nodes", &basic("ann", &format!("g{n}")))).collect();

    let last = guesses.iter().find(|answer| answer.status == 429).expect("one is slowed down");
    assert!(last.head.contains("retry-after: ") && last.words().contains("retry later"));
    assert_eq!(service.get("/v1/nodes", &basic("ann", "secret")).status, 200);
}

fn basic(user: &str, password: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{password}")))
}

/// The API and the agents' part, guarded, on sockets.
struct Service {
    operators: SocketAddr,
    /// Like `operators`, for a listener with TLS. The bytes are in clear.
    operators_tls: SocketAddr,
    agents: SocketAddr,
    dir: TempDir,
    _runtime: Runtime,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    /// In lower case.
    head: String,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    fn words(&self) -> String {
        ironic::error::words(&self.json()).unwrap_or_else(|| panic!("no words: {self:?}"))
    }
}

impl Service {
    fn without_users() -> Self {
        Self::start(|_| String::new())
    }

    fn with_users(users: &str) -> Self {
        Self::start(|dir| {
            let path = dir.path().join("htpasswd");
            fs::write(&path, users).unwrap();
            format!("users = {path:?}\n")
        })
    }

    fn start(settings: impl FnOnce(&TempDir) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = format!(
            "[api]\nhosts = [\"ironic.example\"]\npublic_url = \"https://api.example\"\n{}",
            settings(&dir)
        );
        let config: config::Config = settings.parse().unwrap();
        let guard = OperatorGuard::open(&config.api).unwrap();
        let runtime = Runtime::new().unwrap();
        let url = format!("sqlite://{}/test.db", dir.path().display());
        let key = dir.path().join("ferroboot.key");
        let store = runtime.block_on(Store::open(&url, &key)).unwrap();
        let nodes = Nodes::new(store, NodeIndex::default(), Policy::default());
        // Its connections to BMCs have a task.
        let api = {
            let _runtime = runtime.enter();
            ApiContext::new(nodes, Recorder::new().0, ApiSettings::default())
        };
        let operators = Router::new()
            .route("/metrics", get(|| async { "up 1\n" }))
            .fallback_service(router(api.clone()));
        let serve = |routes: Router| {
            let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
            let address = listener.local_addr().unwrap();
            let routes = routes.into_make_service_with_connect_info::<SocketAddr>();
            runtime.spawn(async move { axum::serve(listener, routes).await });
            address
        };
        let operators = guard.guard(operators);
        let tls = Extension(ConnectionScheme(Scheme::HTTPS));
        let operators_tls = serve(operators.clone().layer(tls));
        let operators = serve(operators);
        let agents = serve(guard::machines(agent_router(api)));
        Self { operators, operators_tls, agents, dir, _runtime: runtime }
    }

    fn get(&self, path: &str, headers: &str) -> Answer {
        self.ask("GET", path, &format!("Host: localhost\r\n{headers}"), "")
    }

    fn ask(&self, method: &str, target: &str, headers: &str, body: &str) -> Answer {
        self.send(self.operators, method, target, headers, body)
    }

    /// Sends raw bytes, since clients would correct some of them.
    fn send(
        &self,
        to: SocketAddr,
        method: &str,
        target: &str,
        headers: &str,
        body: &str,
    ) -> Answer {
        let mut stream = TcpStream::connect(to).unwrap();
        let length = match body.len() {
            0 => String::new(),
            length => format!("Content-Length: {length}\r\n"),
        };
        let request = format!(
            "{method} {target} HTTP/1.1\r\n{headers}{length}Connection: close\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_ascii_lowercase(), text: text.to_owned() }
    }
}
