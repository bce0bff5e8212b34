//! The REST API for clients: requests, answers, and an SQLite store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use hardware::{RedfishPurpose, ShownBootMode};
use jiff::SignedDuration;
use nodes::{NodeIndex, Nodes, Recorder, trace};
use provision::trace::AgentOutcome;
use provision::{BootEvent, BootEventKind, Event, Node, Policy, PowerState, Work};
use serde_json::{Value, json};
use server::api::{ApiContext, ApiSettings, agent_router, router};
use store::{Claimed, Clock, DaemonIdentity, NodeKey, Store};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tower::ServiceExt;
use uuid::Uuid;

const MAC: &str = "52:54:00:aa:bb:01";

#[tokio::test]
async fn recorded_exchanges_with_upstream_go_as_they_went_there_but_for_these_differences() {
    let mut service = Service::new().await;
    let mut differences = Vec::new();
    let mut ours_of_theirs: BTreeMap<String, String> = BTreeMap::new();
    for line in include_str!("golden/ironic-39.0.0.jsonl").lines() {
        let line = line.replace("fake-hardware", "redfish");
        let line =
            ours_of_theirs.iter().fold(line, |line, (theirs, ours)| line.replace(theirs, ours));
        let exchange: Exchange = serde_json::from_str(&line).unwrap();
        // Ironic's maximum is 1.115, which corresponds to this service's latest.
        let version = exchange.version.as_deref().map(|v| if v == "1.115" { "latest" } else { v });
        let request = exchange.request.clone();
        let answer =
            service.send_at(version, &exchange.method, &exchange.path, request.as_ref()).await;
        if let (Some(theirs), Some(ours)) = (exchange.created(), answer.body["uuid"].as_str()) {
            ours_of_theirs.insert(theirs, ours.to_owned());
        }
        for difference in exchange.differences(&answer) {
            let difference = format!("{} {}: {difference}", exchange.method, exchange.path);
            let uuids = ours_of_theirs.values();
            differences.push(uuids.fold(difference, |text, uuid| text.replace(uuid, "{}")));
        }
        service.verify().await;
    }
    insta::assert_json_snapshot!(differences);
}

#[tokio::test]
async fn every_answer_names_the_versions_and_the_request() {
    let service = Service::new().await;
    let paths = [("/v1/nodes", 200), ("/v1/nodes/x", 404), ("/zzz", 404)];
    for (path, status) in paths {
        let answer = service.send_at(Some("1.72"), "GET", path, None).await;

        assert_eq!(answer.status.as_u16(), status, "{path}");
        let header = |name: &str| answer.headers[name].to_str().unwrap().to_owned();
        assert_eq!(header("x-openstack-ironic-api-version"), "1.72");
        assert_eq!(header("x-openstack-ironic-api-minimum-version"), "1.1");
        assert_eq!(header("x-openstack-ironic-api-maximum-version"), "1.110");
        assert!(header("openstack-request-id").starts_with("req-"));
    }
}

#[tokio::test]
async fn a_client_that_asks_for_too_new_a_version_is_told_the_range() {
    let service = Service::new().await;

    let answer = service.send_at(Some("1.115"), "GET", "/v1/nodes", None).await;

    assert_eq!(answer.status, StatusCode::NOT_ACCEPTABLE);
    assert_eq!(answer.headers["x-openstack-ironic-api-maximum-version"], "1.110");
    assert!(answer.words().contains("[1.1, 1.110]"));
}

#[tokio::test]
async fn a_slash_at_the_end_of_a_path_changes_nothing() {
    let service = Service::new().await;
    for path in ["/v1/nodes/", "/v1/nodes/?limit=3", "/v1/", "/v1/ports/"] {
        assert_eq!(service.send("GET", path, None).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn what_no_route_serves_is_answered_with_a_body_that_clients_can_read() {
    let service = Service::new().await;

    let missing = service.send("GET", "/v2", None).await;
    assert_eq!((missing.status.as_u16(), missing.words().as_str()), (404, "Not Found"));
    let method = service.send("DELETE", "/v1/nodes", None).await;
    let words = "DELETE is not supported here. Supported: GET, POST.";
    assert_eq!((method.status.as_u16(), method.words().as_str()), (405, words));
}

#[tokio::test]
async fn bodies_that_are_no_json_or_too_large_are_refused_in_words() {
    let service = Service::new().await;

    let answer = service.send_text("POST", "/v1/nodes", "{".to_owned()).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.words().starts_with("The body is not JSON: "), "{}", answer.words());
    let answer = service.send_text("POST", "/v1/nodes", " ".repeat(2_000_000)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.words(), "Request is too large.");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let answer = service.send_text("POST", "/v1/nodes", deep).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_filter_that_is_not_understood_does_not_list_everything() {
    let service = Service::new().await;

    let answer = service.send("GET", "/v1/nodes?ownr=me", None).await;

    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.words(), "Unexpected arguments: ownr");
}

#[tokio::test]
async fn a_filter_of_a_later_version_is_refused() {
    let service = Service::new().await;
    for (version, filter, status) in [
        ("1.60", "retired=true", 406),
        ("1.61", "retired=true", 200),
        ("1.81", "sharded=true", 406),
        ("1.82", "sharded=true", 200),
        ("1.42", "detail=true", 406),
        ("1.7", "fields=uuid", 406),
    ] {
        let path = format!("/v1/nodes?{filter}");
        let answer = service.send_at(Some(version), "GET", &path, None).await;
        assert_eq!(answer.status.as_u16(), status, "{filter} at {version}");
    }
}

#[tokio::test]
async fn a_limit_or_a_node_that_cannot_be_one_is_refused_in_upstreams_words() {
    let service = Service::new().await;
    for (path, words) in [
        ("/v1/nodes?limit=0", "Limit must be positive"),
        ("/v1/ports?limit=-1", "Limit must be positive"),
        ("/v1/nodes?limit=few", "Expected an integer for limit: few"),
        ("/v1/nodes/a%20b", "Expected UUID or name for node_ident: a b"),
        ("/v1/nodes/a%2Fb/states", "Expected UUID or name for node_ident: a/b"),
    ] {
        let refused = service.send("GET", path, None).await;
        refused.expect(400);
        assert_eq!(refused.words(), words);
    }
    service.send("GET", "/v1/nodes?limit=99999999999", None).await.expect(200);
}

#[tokio::test]
async fn a_list_is_given_page_by_page() {
    let service = Service::new().await;
    for name in ["a", "b", "c"] {
        service.enroll(name, json!({})).await;
    }
    let mut names = Vec::new();
    let mut next = Some("/v1/nodes?limit=2&fields=name&maintenance=false".to_owned());
    while let Some(path) = next {
        let page = service.send("GET", &path, None).await.body;
        let nodes = page["nodes"].as_array().unwrap();
        names.push(nodes.iter().map(|node| node["name"].clone()).collect::<Vec<_>>());
        let after = |url: &str| url.strip_prefix("http://localhost").unwrap().to_owned();
        next = page["next"].as_str().map(after);
    }
    assert_eq!(json!(names), json!([["a", "b"], ["c"]]));
}

#[tokio::test]
async fn the_next_page_of_one_nodes_ports_has_no_ports_of_others() {
    let service = Service::new().await;
    let nodes = [service.enroll("n1", json!({})).await, service.enroll("n2", json!({})).await];
    for (last, node) in [(1, 0), (2, 1), (3, 0)] {
        let body =
            json!({ "node_uuid": nodes[node], "address": format!("52:54:00:00:00:0{last}") });
        service.send("POST", "/v1/ports", Some(&body)).await.expect(201);
    }

    let page = service.send("GET", "/v1/nodes/n1/ports?limit=1", None).await.body;
    let next = page["next"].as_str().unwrap().strip_prefix("http://localhost").unwrap();
    let page = service.send("GET", next, None).await.body;

    let addresses = page["ports"].as_array().unwrap().iter().map(|port| &port["address"]);
    assert_eq!(addresses.collect::<Vec<_>>(), ["52:54:00:00:00:03"]);
}

#[tokio::test]
async fn nodes_are_filtered_and_sorted() {
    let service = Service::new().await;
    service.enroll("b", json!({ "owner": "me" })).await;
    service.enroll("a", json!({ "resource_class": "x" })).await;
    for (query, found) in [
        ("sort_key=name", json!(["a", "b"])),
        ("sort_key=name&sort_dir=desc", json!(["b", "a"])),
        ("owner=me", json!(["b"])),
        ("resource_class=x", json!(["a"])),
        ("provision_state=enroll", json!(["b", "a"])),
        ("provision_state=available", json!([])),
        ("provision_state=active", json!([])),
        ("driver=ipmi", json!([])),
        ("conductor_group=", json!(["b", "a"])),
        ("conductor_group=east", json!([])),
        ("conductor=ferroboot", json!(["b", "a"])),
        ("conductor=elsewhere", json!([])),
    ] {
        let page = service.send("GET", &format!("/v1/nodes?{query}"), None).await.body;
        let names = page["nodes"].as_array().unwrap();
        assert_eq!(
            names.iter().map(|node| node["name"].clone()).collect::<Value>(),
            found,
            "{query}"
        );
    }
}

#[tokio::test]
async fn the_index_that_packets_are_answered_from_follows_every_change() {
    let service = Service::new().await;
    let uuid = service.enroll("n1", json!({})).await;
    let port = service.add_port(&uuid).await;
    let found = || service.nodes.index().by_mac(MAC.parse().unwrap());
    assert_eq!(found().unwrap().node.uuid.to_string(), uuid);

    let close = json!([{ "op": "replace", "path": "/pxe_enabled", "value": false }]);
    service.send("PATCH", &format!("/v1/ports/{port}"), Some(&close)).await.expect(200);
    assert!(!found().unwrap().port.pxe_enabled);

    let change = json!([{ "op": "add", "path": "/boot_interface", "value": "httpboot" }]);
    service.send("PATCH", "/v1/nodes/n1", Some(&change)).await.expect(200);
    assert_eq!(found().unwrap().node.boot_interface.name(), "http");

    service.send("DELETE", &format!("/v1/ports/{port}"), None).await.expect(204);
    assert!(found().is_none());
    service.send("DELETE", "/v1/nodes/n1", None).await.expect(204);
    assert!(service.nodes.index().by_uuid(uuid.parse().unwrap()).is_none());
}

#[tokio::test]
async fn a_restarted_daemon_finds_its_nodes_again() {
    let service = Service::new().await;
    let uuid = service.enroll("n1", json!({})).await;
    service.add_port(&uuid).await;

    let again = Nodes::new(service.nodes.store().clone(), NodeIndex::default(), Policy::default());
    again.load().await.unwrap();

    let found = again.index().by_mac(MAC.parse().unwrap()).unwrap();
    assert_eq!(found.node.uuid.to_string(), uuid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_at_once_all_count_for_nodes_and_ports_and_traits() {
    let service = Arc::new(Service::new().await);
    let uuid = service.enroll("n1", json!({})).await;
    let port = service.add_port(&uuid).await;
    let mut requests = JoinSet::new();
    for number in 0..40 {
        let (service, port) = (Arc::clone(&service), port.clone());
        requests.spawn(async move {
            let path = format!("/extra/{number}");
            let change = json!([{ "op": "add", "path": path, "value": number }]);
            for path in [&format!("/v1/ports/{port}"), &format!("/v1/ports/{MAC}"), "/v1/nodes/n1"]
            {
                service.send("PATCH", path, Some(&change)).await.expect(200);
            }
            let path = format!("/v1/nodes/n1/traits/CUSTOM_{number}");
            service.send("PUT", &path, None).await.expect(204);
        });
    }
    requests.join_all().await;

    let kept = |shown: Value| shown["extra"].as_object().unwrap().len();
    assert_eq!(kept(service.send("GET", &format!("/v1/ports/{port}"), None).await.body), 40);
    let node = service.send("GET", "/v1/nodes/n1", None).await.body;
    assert_eq!(node["traits"].as_array().unwrap().len(), 40);
    assert_eq!(kept(node), 40);
}

#[tokio::test]
async fn metal3_registers_a_host_and_is_told_what_is_not_built() {
    let mut service = Service::new().await;
    let get = async |path: &str| service.send_at(Some("1.110"), "GET", path, None).await;
    // The requests of the baremetal-operator, in its order (`pkg/provisioner/ironic/register.go`).
    get("/v1/").await.expect(200);
    let drivers = get("/v1/drivers?detail=false").await.body;
    assert_eq!(drivers["drivers"].as_array().unwrap().len(), 1);
    get("/v1/nodes/metal3~host-0").await.expect(404);
    get("/v1/nodes/host-0").await.expect(404);
    let ports = format!("/v1/ports?address={MAC}&fields=node_uuid%2Cuuid%2Caddress");
    assert_eq!(get(&ports).await.body["ports"], json!([]));

    let host = json!({
        "driver": "redfish",
        "name": "metal3~host-0",
        "boot_interface": "redfish-https",
        "deploy_interface": "ramdisk",
        "firmware_interface": "redfish",
        "inspect_interface": "agent",
        "raid_interface": "redfish",
        "disable_power_off": false,
        "driver_info": {
            // No BMC listens there.
            "redfish_address": "http://127.0.0.1:9", "redfish_system_id": "/redfish/v1/Systems/1",
            "redfish_username": "admin", "redfish_password": "hush", "redfish_verify_ca": false,
        },
        "properties": { "capabilities": "boot_mode:uefi", "cpu_arch": "x86_64" },
    });
    let created = service.send_at(Some("1.110"), "POST", "/v1/nodes", Some(&host)).await;
    created.expect(201);
    let uuid = created.body["uuid"].as_str().unwrap().to_owned();
    for interface in ["deploy", "firmware", "inspect", "raid"] {
        let field = format!("{interface}_interface");
        assert_eq!(created.body[&field], host[&field]);
    }
    let of_node = format!("/v1/ports?fields=node_uuid%2Cuuid%2Caddress&node_uuid={uuid}");
    let get = async |path: &str| service.send_at(Some("1.110"), "GET", path, None).await;
    assert_eq!(get(&of_node).await.body["ports"], json!([]));
    let port = json!({ "node_uuid": uuid, "address": MAC, "pxe_enabled": true });
    service.send_at(Some("1.110"), "POST", "/v1/ports", Some(&port)).await.expect(201);
    assert_eq!(get(&ports).await.body["ports"][0]["node_uuid"], json!(uuid));

    let path = format!("/v1/nodes/{uuid}/states/provision");
    service.send_at(Some("1.110"), "PUT", &path, Some(&target("manage"))).await.expect(202);
    service.verify().await;
    let path = format!("/v1/nodes/{uuid}");
    let settings = json!([
        { "op": "add", "path": "/driver_info/deploy_kernel", "value": "http://192.0.2.9/kernel" },
        { "op": "add", "path": "/driver_info/deploy_ramdisk", "value": "http://192.0.2.9/initrd" },
        { "op": "add", "path": "/driver_info/kernel_append_params", "value": "%default% a=b" },
        { "op": "add", "path": "/automated_clean", "value": true },
        { "op": "add", "path": "/inspect_interface", "value": "redfish" },
        { "op": "add", "path": "/deploy_interface", "value": "direct" },
    ]);
    let changed = service.send_at(Some("1.110"), "PATCH", &path, Some(&settings)).await;
    changed.expect(200);
    assert_eq!(changed.body["provision_state"], "manageable");
    assert_eq!(changed.body["inspect_interface"], "redfish");

    // The operator stops here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let report = service.send("GET", &format!("{path}/validate"), None).await.body;
    assert_eq!(
        report["deploy"]["reason"],
        "The deploy interface 'direct' is taken and shown, but not built yet: this service writes \
         no image to a disk."
    );
    let path = format!("{path}/states/provision");
    let inspect = service.send("PUT", &path, Some(&target("inspect"))).await;
    assert!(inspect.words().contains("\"inspect\" is not supported by this service"));
}

#[tokio::test]
async fn a_node_boots_from_virtual_media_without_any_port_and_has_one_fallback() {
    let service = Service::new().await;
    let node = json!({
        "driver": "redfish",
        "name": "n1",
        "boot_interface": "redfish-virtual-media",
        // No BMC listens there.
        "driver_info": { "redfish_address": "http://127.0.0.1:9", "redfish_boot_fallback": "pxe" },
    });
    let created = service.send("POST", "/v1/nodes", Some(&node)).await;
    created.expect(201);
    assert_eq!(created.body["boot_interface"], "redfish-virtual-media");

    let report = service.send("GET", "/v1/nodes/n1/validate", None).await.body;

    let fallback = "driver_info/redfish_boot_fallback must be one of virtual-media";
    assert_eq!(report["boot"]["reason"], fallback);
    let properties = service.send("GET", "/v1/drivers/redfish/properties", None).await.body;
    assert!(properties["redfish_boot_fallback"].is_string());
}

#[tokio::test]
async fn every_interface_that_can_be_set_is_listed_by_the_driver() {
    let service = Service::new().await;
    let driver = service.send("GET", "/v1/drivers/redfish", None).await.body;
    for (name, listed) in driver.as_object().unwrap() {
        let Some(kind) =
            name.strip_prefix("enabled_").and_then(|it| it.strip_suffix("_interfaces"))
        else {
            continue;
        };
        for interface in listed.as_array().unwrap() {
            let field = format!("{kind}_interface");
            let body = json!({ "driver": "redfish", field.clone(): interface });
            let created = service.send("POST", "/v1/nodes", Some(&body)).await;
            created.expect(201);
            assert_eq!(created.body[&field], *interface);
        }
    }
}

#[tokio::test]
async fn a_node_is_deleted_only_where_upstream_lets_it() {
    let service = Service::new().await;
    let instance = "8f259d3d-81a7-49cf-a5c3-8f0ec4d9c39f";
    let uuid = service.enroll("n1", json!({ "instance_uuid": instance })).await;

    let refused = service.send("DELETE", "/v1/nodes/n1", None).await;
    refused.expect(409);
    assert_eq!(refused.words(), format!("Node {uuid} is associated with instance {instance}."));

    service.send("PUT", "/v1/nodes/n1/maintenance", None).await.expect(202);
    service.change(&uuid, |node| node.kept.insert("protected".into(), json!(true))).await;
    let refused = service.send("DELETE", "/v1/nodes/n1", None).await;
    refused.expect(403);
    assert_eq!(
        refused.words(),
        format!("Node {uuid} is protected and cannot be undeployed, rebuilt or deleted")
    );

    let unprotect = json!([{ "op": "replace", "path": "/protected", "value": false }]);
    service.send("PATCH", "/v1/nodes/n1", Some(&unprotect)).await.expect(200);
    service.send("DELETE", "/v1/nodes/n1", None).await.expect(204);
}

#[tokio::test]
async fn what_is_forbidden_has_upstreams_status() {
    let mut service = Service::new().await;
    let uuid = service.enroll("n1", json!({})).await;
    let add = |path: &str, value: Value| json!([{ "op": "add", "path": path, "value": value }]);
    for (change, status) in [
        (add("/protected", json!(true)), 409),
        (add("/protected_reason", json!("mine")), 400),
        (add("/retired_reason", json!("old")), 400),
        (add("/name", json!("states")), 400),
        (add("/parent_node", json!("8f259d3d-81a7-49cf-a5c3-8f0ec4d9c39f")), 400),
        (add("/extra/a", json!("x".repeat(300_000))), 413),
    ] {
        service.send("PATCH", "/v1/nodes/n1", Some(&change)).await.expect(status);
    }
    let reset = "/v1/nodes/n1?reset_interfaces=True";
    service.send("PATCH", reset, Some(&add("/extra/a", json!(1)))).await.expect(400);

    let provision = "/v1/nodes/n1/states/provision";
    service.send("PUT", provision, Some(&target("manage"))).await.expect(202);
    service.verify().await;
    service.send("PATCH", "/v1/nodes/n1", Some(&add("/retired", json!(true)))).await.expect(200);
    service.send("PUT", provision, Some(&target("provide"))).await.expect(400);
    let stays_on = add("/disable_power_off", json!(true));
    service.send("PATCH", "/v1/nodes/n1", Some(&stays_on)).await.expect(200);
    let off = service.send("PUT", "/v1/nodes/n1/states/power", Some(&target("power off"))).await;
    off.expect(409);
    assert_eq!(off.words(), "Failed to set node power state to power off.");
    let none = json!({ "target": "power on", "timeout": 0 });
    service.send("PUT", "/v1/nodes/n1/states/power", Some(&none)).await.expect(400);

    let port = |field: &str, value: Value| json!({ "node_uuid": uuid, "address": "52:54:00:aa:bb:07", field: value });
    for (field, value, status) in [
        ("local_link_connection", json!({ "port_id": "1" }), 400),
        ("portgroup_uuid", json!(uuid), 400),
        ("physical_network", json!(""), 400),
        ("is_smartnic", json!(true), 400),
        ("extra", json!({ "a": "x".repeat(100_000) }), 413),
        ("node_ident", json!("n1"), 400),
    ] {
        let body = port(field, value);
        service.send("POST", "/v1/ports", Some(&body)).await.expect(status);
    }
    let by_name = json!({ "node_ident": "n1", "address": "52:54:00:aa:bb:07" });
    service.send_at(Some("1.93"), "POST", "/v1/ports", Some(&by_name)).await.expect(406);
    let created = service.send("POST", "/v1/ports", Some(&by_name)).await;
    assert_eq!(created.body["node_uuid"], json!(uuid));
    let away = add("/node_uuid", json!("8f259d3d-81a7-49cf-a5c3-8f0ec4d9c39f"));
    let refused = service.send("PATCH", "/v1/ports/52:54:00:aa:bb:07", Some(&away)).await;
    refused.expect(400);
    assert!(refused.words().starts_with("Unable to apply the requested node_uuid"));
}

#[tokio::test]
async fn an_answer_quotes_no_more_than_a_few_lines_of_what_was_sent() {
    let service = Service::new().await;
    service.enroll("n1", json!({})).await;
    let long = "x".repeat(500_000);
    let body = json!([{ "op": "remove", "path": format!("/extra/{long}") }]);

    let refused = service.send("PATCH", "/v1/nodes/n1", Some(&body)).await;

    refused.expect(400);
    assert!(refused.words().chars().count() <= 2_001, "{}", refused.words().len());
}

#[tokio::test]
async fn no_number_of_patches_makes_a_node_larger_than_it_may_be() {
    let service = Service::new().await;
    service.enroll("n1", json!({})).await;
    let chunk = "x".repeat(200_000);
    let add = |number: i32| {
        let path = format!("/driver_info/{number}");
        json!([{ "op": "add", "path": path, "value": chunk }])
    };
    service.send("PATCH", "/v1/nodes/n1", Some(&add(0))).await.expect(200);

    for number in 1..10 {
        service.send("PATCH", "/v1/nodes/n1", Some(&add(number))).await.expect(413);
    }

    let node = service.send("GET", "/v1/nodes/n1", None).await.body;
    assert_eq!(node["driver_info"].as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn a_node_that_grew_before_there_was_a_limit_can_be_used_and_made_smaller() {
    let service = Service::new().await;
    let uuid = service.enroll("n1", json!({})).await;
    let large = json!({ "a": "x".repeat(300_000), "b": 1 });
    service.change(&uuid, |node| node.extra = large.as_object().unwrap().clone()).await;

    let path = "/v1/nodes/n1";
    let rename = json!([{ "op": "add", "path": "/description", "value": "old" }]);
    service.send("PATCH", path, Some(&rename)).await.expect(413);
    let power = json!([{ "op": "replace", "path": "/maintenance", "value": true }]);
    service.send("PATCH", path, Some(&power)).await.expect(200);
    let shrink = json!([{ "op": "remove", "path": "/extra/b" }]);
    service.send("PATCH", path, Some(&shrink)).await.expect(200);
    let shrink = json!([{ "op": "remove", "path": "/extra/a" }]);
    service.send("PATCH", path, Some(&shrink)).await.expect(200);
    service.send("PATCH", path, Some(&rename)).await.expect(200);
}

#[tokio::test]
async fn maintenance_is_set_and_taken_back() {
    let service = Service::new().await;
    service.enroll("n1", json!({})).await;

    let reason = json!({ "reason": "moving" });
    service.send("PUT", "/v1/nodes/n1/maintenance", Some(&reason)).await.expect(202);
    let node = service.send("GET", "/v1/nodes/n1", None).await.body;
    assert_eq!(
        (&node["maintenance"], &node["maintenance_reason"]),
        (&json!(true), &json!("moving"))
    );
    service.send("DELETE", "/v1/nodes/n1/maintenance", None).await.expect(202);
    let node = service.send("GET", "/v1/nodes/n1", None).await.body;
    assert_eq!((&node["maintenance"], &node["maintenance_reason"]), (&json!(false), &json!(null)));
}

#[tokio::test]
async fn traits_are_kept() {
    let service = Service::new().await;
    service.enroll("n1", json!({})).await;

    service.send("PUT", "/v1/nodes/n1/traits/CUSTOM_B", None).await.expect(204);
    service.send("PUT", "/v1/nodes/n1/traits/CUSTOM_A", None).await.expect(204);
    service.send("DELETE", "/v1/nodes/n1/traits/CUSTOM_B", None).await.expect(204);
    service.send("DELETE", "/v1/nodes/n1/traits/CUSTOM_B", None).await.expect(404);
    service.send("PUT", "/v1/nodes/n1/traits/FOO", None).await.expect(400);
    let body = json!({ "traits": ["CUSTOM_C"] });
    service.send("PUT", "/v1/nodes/n1/traits/CUSTOM_C", Some(&body)).await.expect(400);
    let node = service.send("GET", "/v1/nodes/n1", None).await.body;
    assert_eq!(node["traits"], json!(["CUSTOM_A"]));
}

#[tokio::test]
async fn a_node_that_is_worked_on_is_not_changed_by_others() {
    let mut service = Service::new().await;
    service.enroll("n1", json!({})).await;
    service.send("PUT", "/v1/nodes/n1/states/provision", Some(&target("manage"))).await.expect(202);
    let _claimed = service.claim().await;

    let change = json!([{ "op": "add", "path": "/extra/a", "value": 1 }]);
    let answer = service.send("PATCH", "/v1/nodes/n1", Some(&change)).await;

    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(answer.words().contains("is locked by host"), "{}", answer.words());
    let disk = json!({ "boot_device": "disk" });
    let answer = service.send("PUT", "/v1/nodes/n1/management/boot_device", Some(&disk)).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(answer.words().contains("is locked by host"), "{}", answer.words());
    let node = service.send("GET", "/v1/nodes/n1", None).await.body;
    assert_eq!(node["reservation"], "worker");
}

#[tokio::test]
async fn a_clean_goes_from_the_operator_to_the_agent_and_shows_in_the_trace() {
    let mut service = Service::new().await;
    let node = service.cleaning().await;
    let token = node.attempt.as_ref().unwrap().agent_token.0.clone();

    let lookup = service.send("GET", &format!("/v1/lookup?addresses={MAC},zz"), None).await;
    lookup.expect(200);
    assert_eq!(lookup.body["node"]["uuid"], node.uuid.to_string());
    assert_eq!(lookup.body["config"]["agent_token"], "******", "it is on the command line");

    service.heartbeat(&node, &token, "https://192.0.2.7:9999").await.expect(202);
    let asked = service.claim().await.unwrap();
    assert!(matches!(asked.work, Work::AskSteps { .. }), "{:?}", asked.work);

    let shown = service.send("GET", "/v1/nodes/n1", None).await.body;
    assert_eq!(shown["driver_internal_info"]["agent_url"], "https://192.0.2.7:9999");
    assert_eq!(shown["provision_state"], "clean wait");
    assert!(!shown.to_string().contains(&token));

    let trace = service.send("GET", "/v1/nodes/n1/boot-trace", None).await;
    assert!(!trace.body.to_string().contains(&token));
    let kinds: Vec<_> = trace.body["events"].as_array().unwrap().iter().collect();
    let calls: Vec<_> = kinds.iter().filter_map(|event| event["call"].as_str()).collect();
    assert_eq!(calls, ["lookup", "heartbeat"]);
    assert_eq!(trace.body["diagnosis"], Value::Null);

    let history = service.send("GET", "/v1/nodes/n1/history", None).await.body;
    let entry = &history["history"][0];
    assert_eq!(entry["event"], "state manageable -> cleaning");
    let path = format!("/v1/nodes/n1/history/{}", entry["uuid"].as_str().unwrap());
    assert_eq!(service.send("GET", &path, None).await.body["node_uuid"], node.uuid.to_string());
}

#[tokio::test]
async fn a_heartbeat_that_waited_while_its_machine_was_started_is_refused() {
    let mut service = Service::new().await;
    let uuid = service.enroll("n1", json!({})).await;
    service.add_port(&uuid).await;
    let boot = service.boots().await;
    let attempt = boot.node.attempt.as_ref().unwrap();
    let token = attempt.agent_token.0.clone();

    let booting = Event::Booting { attempt: attempt.id };

    // The boot holds the node; the heartbeat arrived before it ended.
    let (early, booted) = tokio::join!(
        service.heartbeat(&boot.node, &token, "https://192.0.2.7:9999"),
        service.nodes.happen(boot.node.uuid, Some(&boot.claim), &booting),
    );

    assert_eq!(early.status, StatusCode::CONFLICT, "{}", early.body);
    let node = booted.unwrap();
    assert!(service.node("n1").await.attempt.unwrap().agent.is_none());
    service.heartbeat(&node, &token, "https://192.0.2.7:9999").await.expect(202);
}

#[tokio::test]
async fn what_strangers_send_as_agents_is_limited_and_never_repeated() {
    let mut service = Service::new().await;
    let node = service.cleaning().await;
    let long = "A".repeat(50_000);

    let many = vec![MAC; 65].join(",");
    let answer = service.send("GET", &format!("/v1/lookup?addresses={many}"), None).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.words().contains("64 addresses at most"), "{}", answer.words());
    let answer = service.send("GET", &format!("/v1/lookup?addresses={long}"), None).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(!answer.body.to_string().contains("AAAA"));
    for field in ["agent_version", "callback_url", "agent_verify_ca", "agent_token"] {
        let mut body = json!({ "callback_url": "https://192.0.2.7:9999", "agent_token": "t" });
        body[field] = json!(long);
        let path = format!("/v1/heartbeat/{}", node.uuid);
        let answer = service.send("POST", &path, Some(&body)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{field}");
        assert!(!answer.body.to_string().contains("AAAA"), "{field}");
    }

    service.recorder.flush().await;
    let events = service.nodes.store().events(node.uuid, None).await.unwrap();
    assert!(!format!("{events:?}").contains("AAAA"));
}

#[tokio::test]
async fn a_stranger_that_calls_without_end_is_told_so_and_leaves_few_rows() {
    let mut service = Service::new().await;
    let node = service.cleaning().await;
    let token = node.attempt.as_ref().unwrap().agent_token.0.clone();
    let before = service.nodes.store().events(node.uuid, None).await.unwrap().len();

    let wrong = "x".repeat(43);
    let calls = (0..300).map(|_| service.heartbeat(&node, &wrong, "https://192.0.2.66:9999"));
    let answers = futures::future::join_all(calls).await;

    let too_many = |answer: &&Answer| answer.status == StatusCode::TOO_MANY_REQUESTS;
    let refused = answers.iter().filter(too_many).count();
    assert!((150..=200).contains(&refused), "{refused}");
    let words = answers.iter().find(too_many).unwrap().words();
    assert!(words.starts_with("Too many lookups and heartbeats come from"), "{words}");
    service.recorder.flush().await;
    let after = service.nodes.store().events(node.uuid, None).await.unwrap().len();
    assert!(after - before <= 3, "{before}, then {after}");
    // The machine's own agent has a valid token, and is accepted from the same address.
    service.heartbeat(&node, &token, "https://192.0.2.7:9999").await.expect(202);
}

#[tokio::test]
async fn networks_of_the_agent_that_cannot_be_read_are_refused_when_they_are_set() {
    let service = Service::new().await;
    service.enroll("n1", json!({})).await;

    let networks = |value: Value| json!([{ "op": "add", "path": "/driver_info/agent_networks", "value": value }]);
    let bad = networks(json!(["192.0.2.7/24"]));
    let answer = service.send("PATCH", "/v1/nodes/n1", Some(&bad)).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.words().contains("write 192.0.2.0/24"), "{}", answer.words());
    let good = networks(json!(["192.0.2.0/24", "2001:db8::/64"]));
    service.send("PATCH", "/v1/nodes/n1", Some(&good)).await.expect(200);
}

#[tokio::test]
async fn a_second_agent_with_the_same_token_is_refused_and_reported() {
    let mut service = Service::new().await;
    let node = service.cleaning().await;
    let token = node.attempt.as_ref().unwrap().agent_token.0.clone();
    service.heartbeat(&node, &token, "https://192.0.2.7:9999").await.expect(202);

    let second = service.heartbeat(&node, &token, "https://192.0.2.66:9999").await;

    assert_eq!(second.status, StatusCode::BAD_REQUEST);
    service.recorder.flush().await;
    let events = service.nodes.store().events(node.uuid, None).await.unwrap();
    let reported = events.into_iter().find_map(|event| {
        let BootEventKind::Agent { outcome: AgentOutcome::Failed { error }, .. } = event.what
        else {
            return None;
        };
        Some(error)
    });
    assert!(reported.unwrap().contains("https://192.0.2.66:9999"));
}

#[tokio::test]
async fn a_wrong_token_changes_nothing() {
    let mut service = Service::new().await;
    let node = service.cleaning().await;

    let answer = service.heartbeat(&node, &"x".repeat(43), "https://192.0.2.7:9999").await;

    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(service.node("n1").await.attempt.unwrap().agent.is_none());
}

#[tokio::test]
async fn nobody_can_tell_an_unknown_machine_from_one_that_should_not_call() {
    let service = Service::new().await;
    let uuid = service.enroll("n1", json!({})).await;
    service.add_port(&uuid).await;

    let not_expected = service.send("GET", &format!("/v1/lookup?addresses={MAC}"), None).await;
    let unknown = service.send("GET", "/v1/lookup?addresses=52:54:00:00:00:00", None).await;
    let nothing = service.send("GET", "/v1/lookup", None).await;

    assert_eq!(not_expected.status, StatusCode::NOT_FOUND);
    assert_eq!(not_expected.body, unknown.body);
    assert_eq!(not_expected.body, nothing.body);

    let beat = json!({ "callback_url": "https://192.0.2.7:9999", "agent_token": "t" });
    let path = |uuid: &str| format!("/v1/heartbeat/{uuid}");
    let not_expected = service.send("POST", &path(&uuid), Some(&beat)).await;
    let unknown = service.send("POST", &path(&uuid.replace('a', "b")), Some(&beat)).await;
    assert_eq!(not_expected.status, StatusCode::NOT_FOUND);
    assert_eq!(not_expected.body, unknown.body);
}

#[tokio::test]
async fn machines_reach_what_agents_need_and_nothing_else() {
    let mut service = Service::new().await;
    service.router = agent_router(service.api.clone());

    for path in ["/", "/v1/"] {
        service.send("GET", path, None).await.expect(200);
    }
    assert_eq!(
        service.send("GET", "/v1/lookup", None).await.words(),
        "Resource could not be found."
    );
    for path in ["/v1/nodes", "/v1/ports", "/v1/drivers", "/v1/nodes/n1/boot-trace"] {
        assert_eq!(service.send("GET", path, None).await.words(), "Not Found", "{path}");
    }
}

#[tokio::test]
async fn a_bmc_that_refused_the_override_is_named_in_the_trace_at_once() {
    let mut service = Service::new().await;
    let node = service.cleaning().await;
    let refused = BootEventKind::Redfish {
        purpose: RedfishPurpose::BootOverride,
        method: "PATCH".to_owned().into(),
        path: "/redfish/v1/Systems/1".into(),
        status: Some(400),
        error: Some("HttpBootUri is unknown".into()),
    };
    let attempt = node.attempt.as_ref().unwrap().id;
    let event = BootEvent { at: Clock::process().now(), attempt, what: refused };
    service.nodes.store().append_events(&[(node.uuid, event)]).await.unwrap();

    let trace = service.send("GET", "/v1/nodes/n1/boot-trace", None).await.body;

    assert_eq!(trace["attempt"]["boot_interface"], "redfish-https");
    assert_eq!(
        trace["diagnosis"]["text"],
        "the BMC refused the boot override with status 400: HttpBootUri is unknown"
    );
    let unknown = "/v1/nodes/n1/boot-trace?attempt=00000000-0000-0000-0000-000000000000";
    service.send("GET", unknown, None).await.expect(404);
}

#[tokio::test]
async fn the_boots_under_way_are_listed_with_the_slowest_and_its_diagnosis() {
    let mut service = Service::new().await;
    let node = service.cleaning().await;
    let refused = BootEventKind::Redfish {
        purpose: RedfishPurpose::BootOverride,
        method: "PATCH".to_owned().into(),
        path: "/redfish/v1/Systems/1".into(),
        status: Some(400),
        error: Some("HttpBootUri is unknown".into()),
    };
    let attempt = node.attempt.as_ref().unwrap().id;
    let event = BootEvent { at: Clock::process().now(), attempt, what: refused };
    service.nodes.store().append_events(&[(node.uuid, event)]).await.unwrap();

    let boots = service.send("GET", "/boots", None).await.body;

    let stages = boots["stages"].as_object().unwrap();
    assert_eq!(stages.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), 1, "{boots}");
    let slowest = &boots["slowest"][0];
    assert_eq!(slowest["node_name"], "n1");
    assert_eq!(stages.keys().next().unwrap(), slowest["stage"].as_str().unwrap());
    assert_eq!(
        slowest["diagnosis"]["text"],
        "the BMC refused the boot override with status 400: HttpBootUri is unknown"
    );
    assert_eq!(service.send("GET", "/boots?limit=0", None).await.body["slowest"], json!([]));
    service.send("GET", "/boots?limit=many", None).await.expect(400);
    service.send("GET", "/boots?node=n1", None).await.expect(400);
}

#[tokio::test]
async fn a_node_that_never_booted_has_an_empty_trace() {
    let service = Service::new().await;
    service.enroll("n1", json!({})).await;

    let trace = service.send("GET", "/v1/nodes/n1/boot-trace", None).await;

    trace.expect(200);
    assert_eq!((&trace.body["attempt"], &trace.body["events"]), (&json!(null), &json!([])));
    // The endpoint is not Ironic's, where names came with 1.5.
    for version in [None, Some("1.1"), Some("1.4")] {
        service.send_at(version, "GET", "/v1/nodes/n1/boot-trace", None).await.expect(200);
    }
}

fn target(verb: &str) -> Value {
    json!({ "target": verb })
}

/// The API, its own store, and a worker.
struct Service {
    router: Router,
    api: ApiContext,
    nodes: Nodes,
    recorder: Recorder,
    _folder: TempDir,
}

impl Service {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let url = format!("sqlite://{}/test.db", folder.path().display());
        let key = folder.path().join("ferroboot.key");
        let store = Store::open(&url, &key).await.expect("the store opens");
        let nodes = Nodes::new(store, NodeIndex::default(), Policy::default());
        let (recorder, backlog) = Recorder::new();
        tokio::spawn(trace::write(nodes.store().clone(), backlog));
        let api = ApiContext::new(nodes.clone(), recorder.clone(), ApiSettings::default());
        Self { router: router(api.clone()), api, nodes, recorder, _folder: folder }
    }

    async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.send_at(Some("latest"), method, path, body).await
    }

    async fn send_at(
        &self,
        version: Option<&str>,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Answer {
        let body = body.map_or_else(String::new, Value::to_string);
        self.send_raw(version, method, path, body).await
    }

    async fn send_text(&self, method: &str, path: &str, body: String) -> Answer {
        self.send_raw(Some("latest"), method, path, body).await
    }

    async fn send_raw(
        &self,
        version: Option<&str>,
        method: &str,
        path: &str,
        body: String,
    ) -> Answer {
        let mut request =
            Request::builder().method(method.parse::<Method>().expect("a method")).uri(path);
        if let Some(version) = version {
            request = request.header("X-OpenStack-Ironic-API-Version", version);
        }
        let request = request.body(Body::from(body)).expect("a request");
        let response =
            self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = to_bytes(response.into_body(), usize::MAX).await.expect("the body ends");
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).expect("every body is JSON")
        };
        Answer { status, headers, body }
    }

    async fn enroll(&self, name: &str, more: Value) -> String {
        let mut body = json!({
            "driver": "redfish",
            "name": name,
            "driver_info": { "redfish_address": "https://192.0.2.1" },
        });
        for (key, value) in more.as_object().expect("an object") {
            body[key] = value.clone();
        }
        let answer = self.send("POST", "/v1/nodes", Some(&body)).await;
        answer.expect(201);
        answer.body["uuid"].as_str().expect("a UUID").to_owned()
    }

    async fn add_port(&self, node: &str) -> String {
        let body = json!({ "node_uuid": node, "address": MAC });
        let answer = self.send("POST", "/v1/ports", Some(&body)).await;
        answer.expect(201);
        answer.body["uuid"].as_str().expect("a UUID").to_owned()
    }

    async fn node(&self, ident: &str) -> Node {
        self.nodes
            .store()
            .node(&NodeKey::from(ident))
            .await
            .expect("the store works")
            .expect("the node is there")
            .node
    }

    /// Changes a node in a way that no request can.
    async fn change<T>(&self, node: &str, change: impl Fn(&mut Node) -> T) {
        let decide = |node: &Node| {
            let mut node = node.clone();
            change(&mut node);
            Ok::<_, std::convert::Infallible>(node)
        };
        self.nodes.set(node.parse().expect("a UUID"), decide).await.expect("the store works");
    }

    /// A node whose machine was started for a clean and has not called yet.
    async fn cleaning(&mut self) -> Node {
        let uuid = self.enroll("n1", json!({})).await;
        self.add_port(&uuid).await;
        let boot = self.boots().await;
        let attempt = boot.node.attempt.as_ref().expect("an attempt").id;
        let booting = Event::Booting { attempt };
        self.nodes
            .happen(boot.node.uuid, Some(&boot.claim), &booting)
            .await
            .expect("the store works")
    }

    /// A clean of `n1` whose machine is being booted.
    async fn boots(&mut self) -> Claimed {
        let path = "/v1/nodes/n1/states/provision";
        self.send("PUT", path, Some(&target("manage"))).await.expect(202);
        self.verify().await;
        let clean = json!({
            "target": "clean",
            "clean_steps": [{ "interface": "deploy", "step": "erase_devices_metadata" }],
        });
        self.send("PUT", path, Some(&clean)).await.expect(202);
        self.claim().await.expect("a boot is to be done")
    }

    async fn heartbeat(&self, node: &Node, token: &str, url: &str) -> Answer {
        let body = json!({ "callback_url": url, "agent_token": token, "agent_version": "1.0" });
        self.send("POST", &format!("/v1/heartbeat/{}", node.uuid), Some(&body)).await
    }

    async fn claim(&mut self) -> Option<Claimed> {
        let lease = SignedDuration::from_mins(1);
        let worker = DaemonIdentity::new(Uuid::nil(), "worker".to_owned());
        self.nodes
            .store()
            .claim_work(&worker, Clock::process().now(), lease)
            .await
            .expect("the store works")
    }

    /// Does the planned work, as if every BMC succeeded.
    async fn verify(&mut self) {
        while let Some(claimed) = self.claim().await {
            let event = match claimed.work {
                Work::Verify => Event::Verified(Some(PowerState::Off), ShownBootMode::default()),
                Work::SetPower { target } => Event::PowerSeen(target.leads_to()),
                Work::Boot { .. }
                | Work::AskSteps { .. }
                | Work::RunStep { .. }
                | Work::RunBmcStep { .. }
                | Work::CheckStep { .. }
                | Work::TearDown { .. } => panic!("nothing here boots: {:?}", claimed.work),
            };
            self.nodes
                .happen(claimed.node.uuid, Some(&claimed.claim), &event)
                .await
                .expect("the store works");
        }
    }
}

/// An answer.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    #[track_caller]
    fn expect(&self, status: u16) {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
    }

    fn words(&self) -> String {
        ironic::error::words(&self.body).unwrap_or_default()
    }
}

/// One recorded exchange with Ironic 39.0.0.
#[derive(serde::Deserialize)]
struct Exchange {
    method: String,
    path: String,
    version: Option<String>,
    request: Option<Value>,
    status: u16,
    response: Value,
}

impl Exchange {
    fn created(&self) -> Option<String> {
        let uuid = self.response["uuid"].as_str().filter(|_| self.status == 201)?;
        Some(uuid.to_owned())
    }

    fn differences(&self, answer: &Answer) -> Vec<String> {
        let ours = answer.status.as_u16();
        if ours != self.status {
            let words = answer.words();
            return vec![format!("status {} there, {ours} here {words}", self.status)];
        }
        if self.status >= 400 {
            let theirs = ironic::error::words(&self.response).unwrap_or_default();
            let ours = answer.words();
            if theirs == ours {
                return vec![];
            }
            return vec![format!("{theirs:?} there, {ours:?} here")];
        }
        let (theirs, ours) = (keys("", &self.response), keys("", &answer.body));
        let missing = only_in(&theirs, &ours).map(|key| format!("{key} is there only"));
        let more = only_in(&ours, &theirs).map(|key| format!("{key} is here only"));
        missing.chain(more).collect()
    }
}

/// The paths that only one side has, without those below another such path.
fn only_in<'a>(
    these: &'a BTreeSet<String>,
    those: &'a BTreeSet<String>,
) -> impl Iterator<Item = &'a String> {
    let above = |key: &str| key.rsplit_once('/').map_or("", |(above, _)| above).to_owned();
    these.difference(those).filter(move |key| {
        let above = above(key);
        above.is_empty() || those.contains(&above)
    })
}

/// The paths of all members; for a list, those of its first entry.
fn keys(at: &str, value: &Value) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let at = format!("{at}/{name}");
                out.extend(keys(&at, value));
                out.insert(at);
            }
        }
        Value::Array(items) => {
            out.extend(items.first().map(|one| keys(at, one)).unwrap_or_default())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    out
}
