//! `GET /` and `GET /v1/`: the versions, and links to the resources.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::{Extension, Json};
use ironic::ClientView;
use ironic::Version;
use serde_json::{Value, json};

/// The resources with links in `GET /v1`, each with its microversion.
#[derive(Clone, Debug)]
pub(super) struct ResourceLinks(Arc<BTreeMap<&'static str, u16>>);

impl ResourceLinks {
    pub(super) fn new(resources: BTreeMap<&'static str, u16>) -> Self {
        Self(Arc::new(resources))
    }
}

pub(super) async fn root(Extension(view): Extension<ClientView>) -> Json<Value> {
    let version = version(&view);
    Json(json!({
        "name": "OpenStack Ironic API",
        "description": "Ferroboot boots bare metal from an HTTP URL, and speaks Ironic's REST API.",
        "default_version": version,
        "versions": [version],
    }))
}

pub(super) async fn v1(
    Extension(view): Extension<ClientView>,
    Extension(ResourceLinks(resources)): Extension<ResourceLinks>,
) -> Json<Value> {
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
    for (name, _) in resources.iter().filter(|(_, since)| view.version.has(**since)) {
        out[name] = view.links(&format!("{name}/"));
    }
    Json(out)
}

fn version(view: &ClientView) -> Value {
    json!({
        "id": "v1",
        "links": [{ "href": view.url(""), "rel": "self" }],
        "status": "CURRENT",
        "min_version": Version::MIN.to_string(),
        "version": Version::MAX.to_string(),
    })
}
