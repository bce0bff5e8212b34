//! `GET /` and `GET /v1/`: which versions there are, and where things are.

use axum::{Extension, Json};
use ironic::Version;
use serde_json::{Value, json};

use super::request::View;
use super::routes;

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
    for name in routes::resources(view.version) {
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
