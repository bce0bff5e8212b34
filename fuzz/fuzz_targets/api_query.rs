//! Any GET of the API is answered with JSON or refused with an explanation, including the database's part.
//!
//! The input is text: a line with the microversion, a path, a question mark, a query.

#![no_main]

use std::sync::LazyLock;

use axum::Router;
use axum::body::{Body, to_bytes};
use http::{Request, Uri};
use libfuzzer_sys::fuzz_target;
use nodes::{NodeIndex, Nodes, Recorder};
use provision::{Node, Policy, Port};
use serde_json::{Value, json};
use server::api::{ApiContext, ApiSettings, router};
use store::Store;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt as _;
use uuid::Uuid;

struct Service {
    runtime: Runtime,
    router: Router,
}

/// The API with a few nodes.
static SERVICE: LazyLock<Service> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("there is memory");
    // The file stays behind, since connections to it come and go.
    let file = std::env::temp_dir().join(format!("ferroboot-api-query-{}.db", std::process::id()));
    let router = runtime.block_on(async {
        let store = Store::open(&format!("sqlite://{}", file.display()), &file.with_extension("key")).await.expect("it opens");
        for number in 1..=3_u8 {
            let (node, port) = node_and_port(number);
            store.create_node(&node).await.expect("it is new");
            store.create_port(&port, node.created_at).await.expect("it is new");
        }
        let nodes = Nodes::new(store, NodeIndex::default(), Policy::default());
        // No writer of traces runs, so nobody waits for one.
        let (recorder, _) = Recorder::new();
        router(ApiContext::new(nodes, recorder, ApiSettings::default()))
    });
    Service { runtime, router }
});

fn node_and_port(number: u8) -> (Node, Port) {
    let (uuid, at) = (Uuid::from_u128(number.into()), "2026-01-02T03:04:05Z");
    let mut node = Node::enrolled(uuid, "redfish", at.parse().expect("it is a time"));
    node.name = Some(format!("node-{number}"));
    let port = json!({
        "uuid": uuid, "node_uuid": uuid, "address": format!("52:54:00:00:00:{number:02x}"),
        "pxe_enabled": true, "created_at": at, "updated_at": null, "extra": {}, "kept": {},
    });
    (node, serde_json::from_value(port).expect("it is a port"))
}

fuzz_target!(|text: &str| {
    let Some((version, target)) = text.split_once('\n') else { return };
    let Ok(target) = format!("/{}", target.trim_start_matches('/')).parse::<Uri>() else { return };
    let request = Request::get(target.clone()).header("host", "localhost");
    let request = request.header("x-openstack-ironic-api-version", version).body(Body::empty());
    let Ok(request) = request else { return };
    let Service { runtime, router } = &*SERVICE;
    let (status, body) = runtime.block_on(async {
        let answer = router.clone().oneshot(request).await.expect("it cannot fail");
        let status = answer.status();
        (status, to_bytes(answer.into_body(), 1 << 20).await.expect("it is short"))
    });
    assert!(!status.is_server_error(), "{target}: {status}: {body:?}");
    assert!(
        body.is_empty() || serde_json::from_slice::<Value>(&body).is_ok(),
        "{target}: {body:?}"
    );
});
