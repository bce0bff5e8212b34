//! What operators ask of a node's states: `PUT …/states/provision` and `…/states/power`.

use provision::clean::CleanStep;
use provision::state::PowerTarget;
use provision::{Event, Node};
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

use crate::field::Object;
use crate::python;
use crate::version::{Version, since};

/// Every verb of Ironic's that is not one of ours is listed too, so that the answer can say so.
pub const VERBS: [(&str, u16, Verb); 15] = [
    ("manage", 4, Verb::Manage),
    ("provide", 4, Verb::Provide),
    ("clean", 15, Verb::Clean),
    ("abort", 13, Verb::Abort),
    ("active", 1, Verb::Missing),
    ("deploy", 73, Verb::Missing),
    ("rebuild", 1, Verb::Missing),
    ("deleted", 1, Verb::Missing),
    ("undeploy", 73, Verb::Missing),
    ("inspect", 6, Verb::Missing),
    ("adopt", 17, Verb::Missing),
    ("rescue", 38, Verb::Missing),
    ("unrescue", 38, Verb::Missing),
    ("unhold", 85, Verb::Missing),
    ("service", 87, Verb::Missing),
];

/// The states of Ironic's that no node of ours is ever in (`ironic/common/states.py`).
pub const OTHER_STATES: [&str; 26] = [
    "active",
    "adopt failed",
    "adopting",
    "clean hold",
    "deleted",
    "deleting",
    "deploy done",
    "deploy failed",
    "deploy hold",
    "deploying",
    "error",
    "inspect failed",
    "inspect wait",
    "inspecting",
    "rebuild",
    "rescue",
    "rescue failed",
    "rescue wait",
    "rescuing",
    "service failed",
    "service hold",
    "service wait",
    "servicing",
    "unrescue failed",
    "unrescuing",
    "wait call-back",
];

/// What a verb is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Stop a clean that waits.
    Abort,
    /// Clean with the operator's steps.
    Clean,
    /// Put under management.
    Manage,
    /// Upstream has it, this service does not.
    Missing,
    /// Make available.
    Provide,
}

/// What is asked for and cannot be; 400 unless the variant says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadTarget {
    /// The body is not of the form it should have.
    #[error("Schema error for {subject}: {reason}")]
    Schema {
        /// What was read.
        subject: &'static str,
        /// What is wrong, in the words of Python's jsonschema.
        reason: String,
    },
    /// Nobody knows this target.
    #[error(
        "The requested action \"{target}\" can not be performed on node \"{node}\" while it is in \
         state \"{state}\"."
    )]
    Unknown {
        /// What was asked for.
        target: String,
        /// Of which node.
        node: Uuid,
        /// Which is in this state.
        state: String,
    },
    /// Upstream has it, this service does not.
    #[error(
        "The requested action \"{0}\" is not supported by this service. It has \"manage\", \
         \"provide\", \"clean\" and \"abort\"."
    )]
    Missing(String),
    /// A `clean` without steps.
    #[error("\"clean_steps\" is required when setting target provision state to clean")]
    NoSteps,
    /// Something that goes with another verb.
    #[error("\"{argument}\" is only valid when setting target provision state to {verbs}")]
    Misplaced {
        /// What it was.
        argument: &'static str,
        /// With which it goes.
        verbs: &'static str,
    },
    /// Upstream has it, this service does not.
    #[error("\"{0}\" is not supported by this service")]
    Unsupported(&'static str),
    /// It came with a later version: 406.
    #[error("Request not acceptable.")]
    Newer,
}

/// What a `PUT …/states/provision` asks for.
///
/// # Errors
/// [`BadTarget`].
pub fn provision(node: &Node, body: &Value, version: Version) -> Result<Event, BadTarget> {
    let (body, target) = target(body)?;
    let known = VERBS.iter().find(|(name, ..)| *name == target);
    let Some((_, since, verb)) = known else {
        let state = node.provision_state.to_string();
        return Err(BadTarget::Unknown { target: target.to_owned(), node: node.uuid, state });
    };
    if !version.has(*since) {
        return Err(BadTarget::Newer);
    }
    let steps = given(body, "clean_steps");
    if steps.is_some() && *verb != Verb::Clean {
        return Err(BadTarget::Misplaced { argument: "clean_steps", verbs: "clean" });
    }
    match verb {
        Verb::Manage => Ok(Event::Manage),
        Verb::Provide => Ok(Event::Provide),
        Verb::Abort => Ok(Event::Abort),
        Verb::Missing => Err(BadTarget::Missing(target.to_owned())),
        Verb::Clean => {
            refuse_what_we_lack(body)?;
            steps.ok_or(BadTarget::NoSteps).and_then(clean_steps).map(Event::Clean)
        }
    }
}

/// Cleans always run in the ramdisk, and with steps that are written out.
fn refuse_what_we_lack(body: &Object) -> Result<(), BadTarget> {
    if given(body, "runbook").is_some() {
        return Err(BadTarget::Unsupported("runbook"));
    }
    match given(body, "disable_ramdisk") {
        None | Some(Value::Bool(false)) => Ok(()),
        Some(_) => Err(BadTarget::Unsupported("disable_ramdisk")),
    }
}

fn clean_steps(steps: &Value) -> Result<Vec<CleanStep>, BadTarget> {
    let steps = steps.as_array().ok_or_else(|| schema(steps, "is not of type 'array'"))?;
    if steps.is_empty() {
        return Err(BadTarget::NoSteps);
    }
    steps.iter().map(clean_step).collect()
}

fn clean_step(step: &Value) -> Result<CleanStep, BadTarget> {
    let object = step.as_object().ok_or_else(|| schema(step, "is not of type 'object'"))?;
    let known = |name: &str| ["interface", "step", "args"].contains(&name);
    if let Some(name) = object.keys().find(|name| !known(name)) {
        return Err(schema(step, &format!("has the unexpected property '{name}'")));
    }
    let text = |name: &str| match object.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(other) => Err(schema(other, "is not of type 'string'")),
        None => Err(schema(step, &format!("lacks '{name}', which is a required property"))),
    };
    let args = match object.get("args") {
        None | Some(Value::Null) => Object::new(),
        Some(Value::Object(args)) => args.clone(),
        Some(other) => return Err(schema(other, "is not of type 'object'")),
    };
    Ok(CleanStep {
        interface: text("interface")?,
        step: text("step")?,
        args,
        priority: 0,
        reboot_requested: false,
        abortable: false,
    })
}

/// What a `PUT …/states/power` asks for. Its `timeout` is accepted and not used: the BMC's own
/// patience decides how long a soft power off may take.
///
/// # Errors
/// [`BadTarget`].
pub fn power(node: &Node, body: &Value, version: Version) -> Result<Event, BadTarget> {
    let (_, target) = target(body)?;
    let unknown = |_| BadTarget::Unknown {
        target: target.to_owned(),
        node: node.uuid,
        state: node.power_state.map_or("None", |power| power.name()).to_owned(),
    };
    let power: PowerTarget = serde_json::from_value(json!(target)).map_err(unknown)?;
    match power {
        PowerTarget::SoftOff | PowerTarget::SoftReboot if !version.has(since::SOFT_POWER) => {
            Err(BadTarget::Newer)
        }
        PowerTarget::On
        | PowerTarget::Off
        | PowerTarget::Reboot
        | PowerTarget::SoftOff
        | PowerTarget::SoftReboot => Ok(Event::PowerAsked(power)),
    }
}

fn target(body: &Value) -> Result<(&Object, &str), BadTarget> {
    let subject = "body";
    let Some(object) = body.as_object() else {
        let reason = format!("{} is not of type 'object'", python::repr(body));
        return Err(BadTarget::Schema { subject, reason });
    };
    match object.get("target") {
        Some(Value::String(target)) => Ok((object, target)),
        Some(other) => {
            let reason = format!("{} is not of type 'string'", python::repr(other));
            Err(BadTarget::Schema { subject, reason })
        }
        None => {
            Err(BadTarget::Schema { subject, reason: "'target' is a required property".to_owned() })
        }
    }
}

fn given<'a>(body: &'a Object, name: &str) -> Option<&'a Value> {
    body.get(name).filter(|value| !value.is_null())
}

fn schema(value: &Value, what: &str) -> BadTarget {
    let reason = format!("{} {what}", python::repr(value));
    BadTarget::Schema { subject: "clean_steps", reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        Node::enrolled(Uuid::nil(), "redfish", jiff::Timestamp::UNIX_EPOCH)
    }

    fn ask(body: Value) -> Result<Event, String> {
        provision(&node(), &body, Version::MAX).map_err(|refused| refused.to_string())
    }

    #[test]
    fn a_clean_carries_the_operators_steps_in_their_order() {
        let asked = ask(json!({
            "target": "clean",
            "clean_steps": [
                { "interface": "deploy", "step": "b", "args": { "x": 1 } },
                { "interface": "deploy", "step": "a" },
            ],
        }));

        let Ok(Event::Clean(steps)) = asked else { panic!("{asked:?}") };
        assert_eq!(steps[0].name(), "deploy.b");
        assert_eq!(steps[0].args["x"], 1);
        assert_eq!(steps[1].name(), "deploy.a");
    }

    #[test]
    fn targets_are_refused_in_upstreams_words_where_upstream_has_words() {
        insta::assert_json_snapshot!(
            [
                json!({ "target": "clean" }),
                json!({ "target": "clean", "clean_steps": [] }),
                json!({ "target": "clean", "clean_steps": [{ "interface": "deploy" }] }),
                json!({ "target": "clean", "clean_steps": [{ "step": 1, "interface": "deploy" }] }),
                json!({ "target": "clean", "runbook": "CUSTOM_RB" }),
                json!({ "target": "provide", "clean_steps": [] }),
                json!({ "target": "active" }),
                json!({ "target": "inspect" }),
                json!({ "target": "zap" }),
                json!({ "target": 1 }),
                json!({}),
                json!([]),
            ]
            .map(|body| ask(body).unwrap_err())
        );
    }

    #[test]
    fn a_verb_is_not_there_before_its_version() {
        let old = Version::new(14).unwrap();
        let body = json!({ "target": "clean", "clean_steps": [] });
        assert_eq!(provision(&node(), &body, old), Err(BadTarget::Newer));

        let old = Version::new(26).unwrap();
        let body = json!({ "target": "soft power off" });
        assert_eq!(power(&node(), &body, old), Err(BadTarget::Newer));
    }

    #[test]
    fn every_power_target_of_upstream_is_understood_and_no_other() {
        let ask = |target: &str| power(&node(), &json!({ "target": target }), Version::MAX);

        for target in ["power on", "power off", "rebooting", "soft power off", "soft rebooting"] {
            assert!(matches!(ask(target), Ok(Event::PowerAsked(_))), "{target}");
        }
        assert!(matches!(ask("zap"), Err(BadTarget::Unknown { .. })));
    }
}
