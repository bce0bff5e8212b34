//! Bodies of Ironic's REST API are parsed or refused with an explanation, and a parsed one can be shown.
//!
//! The input is text: a line with the microversion, then a body.

#![no_main]

use ironic::version::Version;
use ironic::{ClientView, Fields};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use provision::Node;
use serde_json::Value;
use uuid::Uuid;

fuzz_target!(|text: &str| {
    let Some((version, body)) = text.split_once('\n') else { return };
    let Ok(version) = Version::negotiate(Some(version), None) else { return };
    let Ok(body) = serde_json::from_str::<Value>(body) else { return };
    let view = ClientView { version, base_url: "http://h".to_owned(), host: "h".to_owned() };
    let now = Timestamp::UNIX_EPOCH;
    let enrolled = Node::enrolled(Uuid::nil(), "redfish", now);

    let created = ironic::node::create(&body, version, Uuid::nil(), now);
    let patched = ironic::node::patched(&enrolled, &body, version);
    for node in [created, patched].into_iter().flatten() {
        let shown = ironic::node::show(&node, &view, &Fields::All, None);
        serde_json::from_str::<Value>(&shown.to_string()).expect("what is shown can be read");
        let kept = serde_json::to_string(&node).expect("a node can be kept");
        let read: Node = serde_json::from_str(&kept).expect("what is kept can be read");
        assert_eq!(read, node, "it is read as it was kept");
    }
    if let Ok(port) = ironic::port::create(&body, version, Uuid::nil(), now) {
        let _ = ironic::port::show(&port, &view, &Fields::All);
        let _ = ironic::port::patched(&port, &body, version);
    }
    let _ = ironic::states::provision(&enrolled, &body, version);
    let _ = ironic::states::power(&enrolled, &body, version);
    let _ = ironic::traits::list("n1", &body);
    let _ = ironic::error::words(&body);
});
