//! Stored documents: every later version must read an older daemon's.

use hardware::Mac;
use jiff::Timestamp;
use proptest::prelude::*;
use provision::event::BootPhase;
use provision::node::Agent;
use provision::state::PowerTarget;
use provision::{BootEvent, Node, Port, PowerState, Work};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::diagnosis::{EVENTS, any_event};
use crate::situations::running;
use crate::world::World;

/// A change of this snapshot means that stored nodes need a default or a migration.
#[test]
fn documents_have_the_form_on_this_page() {
    let attempt = Uuid::from_u128(1);
    let work = [
        Work::Verify,
        Work::Boot { attempt },
        Work::AskSteps { attempt },
        Work::RunStep { attempt, index: 0 },
        Work::CheckStep { attempt, index: 0 },
        Work::RunBmcStep { attempt, index: 0 },
        Work::TearDown { attempt },
        Work::SetPower { target: PowerTarget::SoftReboot },
    ];
    let phases = [
        BootPhase::Untouched,
        BootPhase::PoweringOff,
        BootPhase::Overriding,
        BootPhase::PoweringOn,
    ];
    let events: Vec<_> = (0..EVENTS).map(event).collect();
    let documents = json!({
        "node": full(),
        "port": port(),
        "work": work,
        "progress": phases,
        "events": events,
    });
    for (phase, kept) in phases.iter().zip(documents["progress"].as_array().unwrap()) {
        assert_eq!(&serde_json::from_value::<BootPhase>(kept.clone()).unwrap(), phase);
    }
    for (work, kept) in work.iter().zip(documents["work"].as_array().unwrap()) {
        assert_eq!(&serde_json::from_value::<Work>(kept.clone()).unwrap(), work);
    }
    insta::with_settings!(
        { snapshot_path => "../snapshots", prepend_module_to_snapshot => false, sort_maps => true },
        { insta::assert_json_snapshot!("documents", documents) }
    );
}

#[test]
fn nodes_ports_and_events_come_back_as_they_were() {
    comes_back(&full());
    comes_back(&World::enrolled().node);
    comes_back(&port());
    for pick in 0..EVENTS {
        comes_back(&event(pick));
    }
}

/// A service whose numbers differ after a restart would make clients change it again and again.
#[test]
fn a_number_that_an_operator_wrote_is_the_same_after_a_restart() {
    let digits = "7".repeat(97);
    for number in [&digits, "0.1", "-1e-7", "1.7976931348623157e308", "123456789012345678901"] {
        let mut node = World::enrolled().node;
        node.extra.insert("number".to_owned(), serde_json::from_str(number).unwrap());
        comes_back(&node);
    }
}

#[test]
fn events_are_shown_in_the_words_on_this_page() {
    let lines: Vec<_> = (0..EVENTS).map(|pick| any_event(pick).to_string()).collect();

    insta::with_settings!(
        { snapshot_path => "../snapshots", prepend_module_to_snapshot => false },
        { insta::assert_snapshot!("words_of_events", lines.join("\n")) }
    );
}

/// Reasons became types in two steps: these are rows of the first.
#[test]
fn a_failure_that_was_stored_as_a_sentence_is_shown_in_its_words() {
    let sentence = "the clean step deploy.erase_devices failed: no such disk";
    let lacks = "node does not support this clean step: deploy.polish; the ramdisk offers";
    for (reason, shown) in [
        (json!({ "reason": "step_failed", "error": sentence }), sentence.to_owned()),
        (json!({ "reason": "step_reboot" }), "a clean step asked for a reboot".to_owned()),
        (
            json!({ "reason": "step_not_offered", "step": "deploy.polish", "offered": "none" }),
            format!("{lacks} none"),
        ),
        (
            json!({ "reason": "step_not_offered", "step": "deploy.polish", "offered": "a.b, a.c" }),
            format!("{lacks} a.b, a.c"),
        ),
    ] {
        let row = json!({
            "at": "2026-01-02T03:04:05Z", "attempt": Uuid::nil(),
            "kind": "state", "from": "clean wait", "to": "clean failed", "reason": reason,
        });

        let event: BootEvent = serde_json::from_str(&row.to_string()).unwrap();

        assert_eq!(event.what.to_string(), format!("clean wait → clean failed ({shown})"));
        comes_back(&event);
    }
}

proptest! {
    #[test]
    fn every_number_comes_back_as_it_was(number in proptest::num::f64::NORMAL, digits in "[1-9][0-9]{0,120}") {
        let written = serde_json::from_str::<Value>(&digits).unwrap();
        comes_back(&Map::from_iter([("a".to_owned(), json!(number)), ("b".to_owned(), written)]));
    }

    #[test]
    fn no_document_makes_it_panic(text: String) {
        let _ = serde_json::from_str::<Node>(&text);
        let _ = serde_json::from_str::<BootEvent>(&text);
        let _ = serde_json::from_str::<Work>(&text);
    }
}

fn comes_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(document: &T) {
    let text = serde_json::to_string(document).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), document, "{text}");
}

/// A node with every field set.
fn full() -> Node {
    let mut node = running(&["update_firmware", "erase_devices"]).node;
    let object = |key: &str, value: Value| Map::from_iter([(key.to_owned(), value)]);
    node.name = Some("rack1-7".to_owned());
    node.target_power_state = Some(PowerState::Off);
    node.maintenance = true;
    node.maintenance_reason = Some("new disks".to_owned());
    node.fault = Some("clean failure".to_owned());
    node.last_error = Some("the clean was aborted by an operator".to_owned());
    node.automated_clean = Some(true);
    node.driver_info = object("redfish_address", json!("https://192.0.2.9"));
    node.instance_info = object("image_source", json!("http://192.0.2.1/image"));
    node.properties = object("cpu_arch", json!("x86_64"));
    node.extra = object("rack", json!([1, {"u": 7}]));
    node.kept = object("owner", json!("o"));
    node.current_step.as_mut().unwrap().args = object("force", json!(true));
    let attempt = node.attempt.as_mut().unwrap();
    attempt.ended_at = Some(attempt.started_at);
    attempt.run.settled_commands = vec!["command-9".to_owned()];
    let agent: &mut Agent = attempt.agent.as_mut().unwrap();
    agent.verify_ca = Some("-----BEGIN CERTIFICATE-----".to_owned());
    node
}

fn port() -> Port {
    Port {
        uuid: Uuid::from_u128(2),
        node_uuid: Uuid::from_u128(1),
        address: Mac([0x52, 0x54, 0, 0xAA, 0xBB, 1]),
        pxe_enabled: true,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Some(Timestamp::UNIX_EPOCH),
        extra: Map::new(),
        kept: Map::new(),
    }
}

fn event(pick: usize) -> BootEvent {
    let at = "2026-01-02T03:04:05.678901234Z".parse().unwrap();
    BootEvent { at, attempt: Uuid::from_u128(1), what: any_event(pick) }
}
