//! `GET /` and `GET /v1/`: which versions there are, and where things are.

use axum::{Extension, Json};
use ironic::Version;
use ironic::version::since;
use serde_json::{Value, json};

use super::request::View;

/// What is linked from `/v1/`, and since when.
const LINKED: [(&str, u16); 13] = [
    ("chassis", 1),
    ("nodes", 1),
    ("ports", 1),
    ("drivers", 1),
    ("lookup", since::RAMDISK),
    ("heartbeat", since::RAMDISK),
    ("portgroups", since::PORTGROUPS),
    ("volume", since::VOLUME),
    ("conductors", since::CONDUCTORS),
    ("allocations", since::ALLOCATIONS),
    ("deploy_templates", since::DEPLOY_TEMPLATES),
    ("shards", since::SHARDS),
    ("runbooks", since::RUNBOOKS),
];

pub(super) async fn root(Extension(view): View) -> Json<Value> {
    let version = version(&view);
    Json(json!({
        "name": "OpenStack Ironic API",
        "description": "Ferroboot boots bare metal from an HTTP URL, and speaks Ironic's REST API.",
        "default_version": version,
        "versions": [version],
    }))
}

pub(super) async fn v1(Extension(view): View) -> Json<Value> {
    let mut out = json!({
        "id": "v1",
        "links": [
            { "href": view.url(""), "rel": "self" },
            {
                "href": "https://docs.openstack.org//ironic/latest/contributor//webapi.html",
                "rel": "describedby",
                "type": "text/html",
            },
        ],
        "media_types": {
            "base": "application/json",
            "type": "application/vnd.openstack.ironic.v1+json",
        },
        "version": version(&view),
    });
    for (name, _) in LINKED.iter().filter(|(_, since)| view.version.has(*since)) {
        out[name] = view.links(&format!("{name}/"));
    }
    Json(out)
}

fn version(view: &ironic::View) -> Value {
    json!({
        "id": "v1",
        "links": [{ "href": view.url(""), "rel": "self" }],
        "status": "CURRENT",
        "min_version": Version::MIN.to_string(),
        "version": Version::MAX.to_string(),
    })
}
