//! Operators' requests for states: `PUT …/states/provision` and `…/states/power`.

use provision::config_drive::{self, BadConfigDrive};
use provision::image::CONFIG_DRIVE;
use provision::limits::{CLEAN_STEPS_LIMIT, Excess, FreeFormSize, MAX_CLEAN_STEPS, NODE_LIMIT};
use provision::state::PowerTarget;
use provision::steps::ProcedureStep;
use provision::{BmcStep, Event, Node, Verb, VerbRequest};
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

use crate::field::{self, Object};
use crate::python;
use crate::version::{Version, since};

/// The names of verbs, their microversions, and the verbs.
pub const VERBS: [(&str, u16, Verb); 15] = [
    ("manage", 4, Verb::Manage),
    ("provide", 4, Verb::Provide),
    ("clean", 15, Verb::Clean),
    ("abort", 13, Verb::Abort),
    ("active", 1, Verb::Deploy),
    ("deploy", 73, Verb::Deploy),
    ("rebuild", 1, Verb::Rebuild),
    ("deleted", 1, Verb::Undeploy),
    ("undeploy", 73, Verb::Undeploy),
    ("inspect", 6, Verb::Inspect),
    ("adopt", 17, Verb::Adopt),
    ("rescue", 38, Verb::Rescue),
    ("unrescue", 38, Verb::Unrescue),
    ("unhold", 85, Verb::Unhold),
    ("service", 87, Verb::Service),
];

/// Ironic's states that nodes here are never in, since they are transient (`ironic/common/states.py`).
pub const OTHER_STATES: [&str; 3] = ["deleted", "deploy done", "rebuild"];

/// Arguments of a `PUT …/states/provision`.
const PROVISION_ARGUMENTS: [&str; 8] = [
    "target",
    "configdrive",
    "clean_steps",
    "deploy_steps",
    "rescue_password",
    "disable_ramdisk",
    "service_steps",
    "runbook",
];

/// Interfaces with clean steps (Ironic's `CLEANING_INTERFACE_PRIORITY`).
const STEP_INTERFACES: [&str; 7] =
    ["vendor", "power", "management", "firmware", "deploy", "bios", "raid"];

/// Longest name of a clean step, in bytes. Those of ironic-python-agent have some thirty.
const MAX_STEP_NAME: usize = 255;

/// The reason for rejecting a target; 400 unless the variant says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadTarget {
    /// The form of the body is wrong.
    #[error("Schema error for {subject}: {reason}")]
    Schema {
        /// The subject.
        subject: &'static str,
        /// The error, in the words of Python's jsonschema.
        reason: String,
    },
    /// A required argument is missing.
    #[error("Missing mandatory parameter: {0}")]
    Absent(&'static str),
    /// An argument is unknown.
    #[error("Unexpected arguments: {0}")]
    Unexpected(String),
    /// An argument has a wrong type or value.
    #[error("Expected {expected} for {argument}: {value}")]
    WrongType {
        /// Its name.
        argument: &'static str,
        /// The expected type.
        expected: &'static str,
        /// The value, in Python's notation.
        value: String,
    },
    /// The target is unknown.
    #[error(
        "The requested action \"{target}\" can not be performed on node \"{node}\" while it is in \
         state \"{state}\"."
    )]
    Unknown {
        /// The target.
        target: String,
        /// The node.
        node: Uuid,
        /// The node's state.
        state: String,
    },
    /// Ironic supports the target, this service does not.
    #[error(
        "The requested action \"{0}\" is not supported by this service. It has {built}.",
        built = built_verbs()
    )]
    Missing(String),
    /// A `clean` without steps.
    #[error("\"clean_steps\" is required when setting target provision state to clean")]
    NoSteps,
    /// The steps are malformed.
    #[error("Invalid clean_steps: {0}")]
    Steps(String),
    /// The steps are too large.
    #[error("Invalid clean_steps: their arguments have {0}")]
    StepsTooLarge(Excess),
    /// The config drive is malformed.
    #[error("Invalid configdrive: {0}")]
    ConfigDrive(#[from] BadConfigDrive),
    /// The node would exceed its size limit with the config drive.
    #[error("Invalid configdrive: with it, the node has {0}")]
    ConfigDriveTooLarge(Excess),
    /// The argument belongs to another verb.
    #[error("\"{argument}\" is only valid when setting target provision state to {verbs}")]
    Misplaced {
        /// The argument.
        argument: &'static str,
        /// The verbs of the argument.
        verbs: &'static str,
    },
    /// The target does not accept a config drive.
    #[error("Adding a config drive is only supported when setting provision state to {0}")]
    NoConfigDrive(&'static str),
    /// A step needs the ramdisk, which `disable_ramdisk` forbids.
    #[error("the step {0} needs the ramdisk, which disable_ramdisk forbids")]
    NeedsRamdisk(String),
    /// `disable_ramdisk` belongs to `clean` and `service` only.
    #[error("disable_ramdisk is supported only with manual cleaning or servicing")]
    NoRamdiskToDisable,
    /// The timeout is invalid.
    #[error("timeout has to be positive integer")]
    Timeout,
    /// Ironic supports the argument, this service does not.
    #[error("\"{0}\" is not supported by this service")]
    Unsupported(&'static str),
    /// The argument or the target exists in a later version: 406.
    #[error("Request not acceptable.")]
    Newer,
}

/// Whether the body of a `PUT …/states/provision` is an abort, which does not wait for a lock.
#[must_use]
pub fn is_abort(body: &Value) -> bool {
    body["target"] == "abort"
}

/// The event of a `PUT …/states/provision`.
///
/// # Errors
/// [`BadTarget`].
pub fn provision(node: &Node, body: &Value, version: Version) -> Result<Event, BadTarget> {
    let (body, target) = target(body, &PROVISION_ARGUMENTS)?;
    check_types(body)?;
    let known = VERBS.iter().find(|(name, ..)| *name == target);
    let Some((_, since, verb)) = known else {
        let state = node.provision_state.to_string();
        return Err(BadTarget::Unknown { target: target.to_owned(), node: node.uuid, state });
    };
    if !version.has(*since) {
        return Err(BadTarget::Newer);
    }
    if !verb.is_built() {
        return Err(BadTarget::Missing(target.to_owned()));
    }
    refuse_what_is_elsewhere(body, *verb, version)?;
    let mut request = VerbRequest::from(*verb);
    if *verb == Verb::Clean {
        let steps = given(body, "clean_steps").ok_or(BadTarget::NoSteps)?;
        request.steps = clean_steps(steps)?;
        if given(body, "disable_ramdisk").and_then(as_boolean) == Some(true)
            && let Some(step) = request.steps.iter().find(|step| needs_ramdisk(step))
        {
            return Err(BadTarget::NeedsRamdisk(step.name()));
        }
    }
    if let Some(config_drive) = given(body, "configdrive").filter(|value| !is_empty(value)) {
        request.config_drive = Some(fitting_config_drive(node, config_drive)?);
    }
    Ok(Event::VerbAsked(request))
}

/// Whether a step may be the agent's. One that is nobody's fails the clean, as in Ironic.
fn needs_ramdisk(step: &ProcedureStep) -> bool {
    !BmcStep::is_one(step) && !BmcStep::is_unknown(step)
}

/// Checks a config drive for the instance, and that it fits into the node.
fn fitting_config_drive(node: &Node, config_drive: &Value) -> Result<Value, BadTarget> {
    config_drive::files(config_drive)?;
    let mut with_it = node.clone();
    with_it.instance_info.insert(CONFIG_DRIVE.to_owned(), config_drive.clone());
    let (before, after) = (FreeFormSize::of_node(node), FreeFormSize::of_node(&with_it));
    NODE_LIMIT.check(before, after).map_err(BadTarget::ConfigDriveTooLarge)?;
    Ok(config_drive.clone())
}

/// The supported verbs, quoted, as a list in words.
fn built_verbs() -> String {
    let built = VERBS.iter().filter(|(.., verb)| verb.is_built());
    let names: Vec<_> = built.map(|(name, ..)| format!("\"{name}\"")).collect();
    names.join(", ")
}

/// Checks the type of each argument, for any verb.
fn check_types(body: &Object) -> Result<(), BadTarget> {
    let wrong = |argument, expected, value: &Value| {
        Err(BadTarget::WrongType { argument, expected, value: python::repr(value) })
    };
    for argument in ["clean_steps", "deploy_steps", "service_steps"] {
        if let Some(value) = given(body, argument).filter(|value| !value.is_array()) {
            return wrong(argument, "types <class 'NoneType'>, <class 'list'>", value);
        }
    }
    for argument in ["rescue_password", "runbook"] {
        if let Some(value) = given(body, argument).filter(|value| !value.is_string()) {
            return wrong(argument, "string", value);
        }
    }
    match given(body, "configdrive") {
        Some(value) if !value.is_string() && !value.is_object() => {
            let expected = "types <class 'NoneType'>, <class 'dict'>, <class 'str'>";
            return wrong("configdrive", expected, value);
        }
        Some(_) | None => {}
    }
    match given(body, "disable_ramdisk") {
        Some(value) if as_boolean(value).is_none() => {
            wrong("disable_ramdisk", "a yes or no", value)
        }
        Some(_) | None => Ok(()),
    }
}

pub(crate) fn as_boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(yes) => Some(*yes),
        Value::String(text) => field::boolean(text),
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Refuses arguments of other verbs, and unsupported ones. Deployments from a URL have no steps.
fn refuse_what_is_elsewhere(body: &Object, verb: Verb, version: Version) -> Result<(), BadTarget> {
    // As in Python, an empty value counts as absent.
    let has = |argument: &str| given(body, argument).is_some_and(|value| !is_empty(value));
    let with_rebuild = version.has(since::REBUILD_CONFIG_DRIVE);
    let takes_config_drive = verb == Verb::Deploy || verb == Verb::Rebuild && with_rebuild;
    if has("configdrive") && !takes_config_drive {
        let verbs = if with_rebuild { "active, rebuild" } else { "active" };
        return Err(BadTarget::NoConfigDrive(verbs));
    }
    if has("runbook") {
        let newer = !version.has(since::RUNBOOKS);
        return Err(if newer { BadTarget::Newer } else { BadTarget::Unsupported("runbook") });
    }
    match given(body, "disable_ramdisk").and_then(as_boolean) {
        Some(_) if verb != Verb::Clean => return Err(BadTarget::NoRamdiskToDisable),
        Some(_) if !version.has(since::DISABLE_RAMDISK) => return Err(BadTarget::Newer),
        Some(_) | None => {}
    }
    if has("clean_steps") && verb != Verb::Clean {
        return Err(BadTarget::Misplaced { argument: "clean_steps", verbs: "clean" });
    }
    if has("deploy_steps") {
        return Err(if !version.has(since::DEPLOY_STEPS) {
            BadTarget::Newer
        } else if matches!(verb, Verb::Deploy | Verb::Rebuild) {
            BadTarget::Unsupported("deploy_steps")
        } else {
            BadTarget::Misplaced { argument: "deploy_steps", verbs: "active or rebuild" }
        });
    }
    if given(body, "rescue_password").is_some() {
        return Err(BadTarget::Misplaced { argument: "rescue_password", verbs: "rescue" });
    }
    if has("service_steps") {
        return Err(BadTarget::Misplaced { argument: "service_steps", verbs: "service" });
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The steps in order. A step may be repeated, as in Ironic.
fn clean_steps(steps: &Value) -> Result<Vec<ProcedureStep>, BadTarget> {
    let steps = steps.as_array().ok_or(BadTarget::NoSteps)?;
    if steps.is_empty() {
        return Err(BadTarget::NoSteps);
    }
    if steps.len() > MAX_CLEAN_STEPS {
        return Err(BadTarget::Steps(format!("there are more than {MAX_CLEAN_STEPS}")));
    }
    let steps: Vec<_> = steps.iter().map(clean_step).collect::<Result<_, _>>()?;
    let size = FreeFormSize::of_maps(steps.iter().map(|step| &step.args));
    CLEAN_STEPS_LIMIT.check_new(size).map_err(BadTarget::StepsTooLarge)?;
    Ok(steps)
}

fn clean_step(step: &Value) -> Result<ProcedureStep, BadTarget> {
    let object = step.as_object().ok_or_else(|| bad_step(step, "is not of type 'object'"))?;
    for (name, value) in object {
        match (name.as_str(), value) {
            ("interface" | "step" | "args", _) => {}
            // Ironic has an order for the steps of runbooks, and sub-nodes; neither is supported here.
            ("order", Value::Number(number)) if number.is_u64() => {}
            ("order", Value::String(digits)) if is_digits(digits) => {}
            ("execute_on_child_nodes", Value::Bool(false)) => {}
            ("limit_child_node_execution", Value::Array(nodes)) if nodes.is_empty() => {}
            ("execute_on_child_nodes" | "limit_child_node_execution" | "order", _) => {
                return Err(bad_step(value, &format!("is not supported as '{name}'")));
            }
            (name, _) => {
                return Err(bad_step(step, &format!("has the unexpected property '{name}'")));
            }
        }
    }
    let field = |name: &str| {
        object
            .get(name)
            .ok_or_else(|| bad_step(step, &format!("lacks '{name}', which is a required property")))
    };
    let args = match object.get("args") {
        None => Object::new(),
        Some(Value::Object(args)) => args.clone(),
        Some(other) => return Err(bad_step(other, "is not of type 'object'")),
    };
    let step = ProcedureStep {
        interface: step_interface(field("interface")?)?,
        step: step_name(field("step")?)?,
        args,
        priority: 0,
        reboot_requested: false,
        abortable: false,
    };
    match BmcStep::of(&step) {
        Some(Err(bad)) => Err(BadTarget::Steps(bad.to_string())),
        Some(Ok(_)) | None => Ok(step),
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn step_interface(value: &Value) -> Result<String, BadTarget> {
    let known = value.as_str().filter(|name| STEP_INTERFACES.contains(name));
    let unknown = || bad_step(value, &format!("is not one of {}", python::names(STEP_INTERFACES)));
    known.map(str::to_owned).ok_or_else(unknown)
}

fn step_name(value: &Value) -> Result<String, BadTarget> {
    match value {
        Value::String(name) if name.is_empty() => Err(bad_step(value, "should be non-empty")),
        Value::String(name) if name.len() > MAX_STEP_NAME => Err(BadTarget::Steps(format!(
            "the name of a step is longer than {MAX_STEP_NAME} bytes"
        ))),
        Value::String(name) if name.contains(char::is_control) => {
            Err(bad_step(value, "has a control character"))
        }
        Value::String(name) => Ok(name.clone()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(bad_step(value, "is not of type 'string'"))
        }
    }
}

fn bad_step(value: &Value, what: &str) -> BadTarget {
    BadTarget::Steps(format!("{} {what}", python::repr(value)))
}

/// The event of a `PUT …/states/power`. Its `timeout` is checked but not used: the daemon's own timeout for the BMC
/// limits a soft power off.
///
/// # Errors
/// [`BadTarget`].
pub fn power(node: &Node, body: &Value, version: Version) -> Result<Event, BadTarget> {
    let (body, target) = target(body, &["target", "timeout"])?;
    let timeout = timeout(body)?;
    let soft = ["soft power off", "soft rebooting"].contains(&target);
    if (soft || timeout.is_some_and(|seconds| seconds != 0)) && !version.has(since::SOFT_POWER) {
        return Err(BadTarget::Newer);
    }
    if timeout.is_some_and(|seconds| seconds < 1) {
        return Err(BadTarget::Timeout);
    }
    let unknown = |_| BadTarget::Unknown {
        target: target.to_owned(),
        node: node.uuid,
        state: node.power_state.map_or("None", |power| power.name()).to_owned(),
    };
    let power: PowerTarget = serde_json::from_value(json!(target)).map_err(unknown)?;
    Ok(Event::PowerAsked(power))
}

/// Seconds, as a number or its digits.
fn timeout(body: &Object) -> Result<Option<i64>, BadTarget> {
    let Some(value) = given(body, "timeout") else { return Ok(None) };
    let seconds = match value {
        Value::Number(number) => number.as_i64(),
        Value::String(digits) => digits.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let value = python::repr(value);
    let wrong = BadTarget::WrongType { argument: "timeout", expected: "an integer", value };
    seconds.map(Some).ok_or(wrong)
}

/// The body, and its `target`.
fn target<'a>(body: &'a Value, arguments: &[&str]) -> Result<(&'a Object, &'a str), BadTarget> {
    text_argument(body, "target", arguments)
}

/// The body, and the required text `argument` of it.
/// The body, an object with these arguments alone; `argument` is the one that must be there.
pub(crate) fn object_argument<'a>(
    body: &'a Value,
    argument: &'static str,
    arguments: &[&str],
) -> Result<&'a Object, BadTarget> {
    let object = match body {
        Value::Object(object) => object,
        Value::Null => return Err(BadTarget::Absent(argument)),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            let reason = format!("{} is not of type 'object'", python::repr(body));
            return Err(BadTarget::Schema { subject: "body", reason });
        }
    };
    if let Some(name) = object.keys().find(|name| !arguments.contains(&name.as_str())) {
        return Err(BadTarget::Unexpected(name.clone()));
    }
    Ok(object)
}

/// The same with an argument that must be a text.
pub(crate) fn text_argument<'a>(
    body: &'a Value,
    argument: &'static str,
    arguments: &[&str],
) -> Result<(&'a Object, &'a str), BadTarget> {
    let object = object_argument(body, argument, arguments)?;
    match object.get(argument) {
        Some(Value::String(text)) => Ok((object, text)),
        Some(Value::Null) | None => Err(BadTarget::Absent(argument)),
        Some(other) => {
            let value = python::repr(other);
            Err(BadTarget::WrongType { argument, expected: "string", value })
        }
    }
}

pub(crate) fn given<'a>(body: &'a Object, name: &str) -> Option<&'a Value> {
    body.get(name).filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use provision::steps::StepRun;

    use super::*;

    fn node() -> Node {
        Node::enrolled(Uuid::nil(), "redfish", jiff::Timestamp::UNIX_EPOCH)
    }

    fn ask(body: Value) -> Result<Event, String> {
        provision(&node(), &body, Version::MAX).map_err(|refused| refused.to_string())
    }

    #[test]
    fn the_daemons_own_steps_are_checked_when_they_are_asked_for_and_need_no_ramdisk() {
        let clean = |step: Value| json!({ "target": "clean", "disable_ramdisk": true, "clean_steps": [step] });
        let own = json!({ "interface": "bios", "step": "enable_http_boot" });
        let Ok(Event::VerbAsked(asked)) = ask(clean(own)) else { panic!("it is refused") };
        assert!(!StepRun { steps: asked.steps, ..StepRun::default() }.needs_agent());

        let wrong = json!({ "interface": "bios", "step": "enable_http_boot", "args": { "x": 1 } });
        let words = ask(clean(wrong)).unwrap_err();
        assert!(words.contains("takes no argument but ip_version"), "{words}");
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

        let Ok(Event::VerbAsked(VerbRequest { steps, .. })) = asked else { panic!("{asked:?}") };
        assert_eq!(steps[0].name(), "deploy.b");
        assert_eq!(steps[0].args["x"], 1);
        assert_eq!(steps[1].name(), "deploy.a");
    }

    fn step(interface: &str, name: &str) -> Value {
        json!({ "interface": interface, "step": name })
    }

    #[test]
    fn a_step_may_be_asked_for_twice_and_with_upstreams_further_properties() {
        let asked = ask(json!({
            "target": "clean",
            "clean_steps": [step("raid", "a"), step("raid", "a"), {
                "interface": "bios", "step": "b", "args": {}, "order": "2",
                "execute_on_child_nodes": false, "limit_child_node_execution": [],
            }],
        }));

        let Ok(Event::VerbAsked(VerbRequest { steps, .. })) = asked else { panic!("{asked:?}") };
        assert_eq!(steps.len(), 3);
    }

    #[test]
    fn what_is_empty_or_null_counts_as_not_given() {
        let body = json!({
            "target": "provide", "clean_steps": [], "deploy_steps": [], "service_steps": null,
            "configdrive": "", "rescue_password": null, "runbook": null, "disable_ramdisk": null,
        });
        assert_eq!(ask(body), Ok(Verb::Provide.into()));
    }

    #[test]
    fn a_power_timeout_is_a_positive_number_of_seconds() {
        let ask = |timeout: Value, minor: u16| {
            let body = json!({ "target": "power on", "timeout": timeout });
            power(&node(), &body, Version::new(minor).unwrap())
        };
        for good in [json!(1), json!("30"), json!(null)] {
            assert!(ask(good.clone(), 110).is_ok(), "{good}");
        }
        for bad in [json!(0), json!(-1), json!("-5")] {
            assert_eq!(ask(bad.clone(), 110), Err(BadTarget::Timeout), "{bad}");
        }
        for bad in [json!("soon"), json!(1.5), json!([]), json!(true)] {
            assert!(matches!(ask(bad.clone(), 110), Err(BadTarget::WrongType { .. })), "{bad}");
        }
        assert_eq!(ask(json!(1), 26), Err(BadTarget::Newer));
        let more = json!({ "target": "power on", "force": true });
        let refused = power(&node(), &more, Version::MAX).unwrap_err();
        assert_eq!(refused.to_string(), "Unexpected arguments: force");
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
                json!({ "target": "clean", "clean_steps": {} }),
                json!({ "target": "clean", "clean_steps": ["erase_devices"] }),
                json!({ "target": "clean", "clean_steps": [step("zap", "x")] }),
                json!({ "target": "clean", "clean_steps": [step("deploy", "")] }),
                json!({ "target": "clean", "clean_steps": [step("deploy", "a\u{1b}[2J")] }),
                json!({ "target": "clean", "clean_steps": [step("deploy", &"x".repeat(256))] }),
                json!({ "target": "clean", "clean_steps": vec![step("deploy", "x"); 101] }),
                json!({ "target": "clean", "clean_steps": [
                    { "interface": "deploy", "step": "x", "args": [1] },
                ] }),
                json!({ "target": "clean", "clean_steps": [
                    { "interface": "deploy", "step": "x", "args": { "a": "x".repeat(70_000) } },
                ] }),
                json!({ "target": "clean", "clean_steps": [
                    { "interface": "deploy", "step": "x", "priority": 1 },
                ] }),
                json!({ "target": "clean", "clean_steps": [
                    { "interface": "deploy", "step": "x", "execute_on_child_nodes": true },
                ] }),
                json!({ "target": "clean", "disable_ramdisk": true, "clean_steps": [
                    { "interface": "deploy", "step": "erase_devices" },
                ] }),
                json!({ "target": "clean", "configdrive": { "meta_data": {} } }),
                json!({ "target": "clean", "rescue_password": "x" }),
                json!({ "target": "provide", "clean_steps": [step("deploy", "x")] }),
                json!({ "target": "provide", "deploy_steps": [step("deploy", "x")] }),
                json!({ "target": "provide", "service_steps": [step("deploy", "x")] }),
                json!({ "target": "provide", "disable_ramdisk": false }),
                json!({ "target": "provide", "configdrive": 7 }),
                json!({ "target": "provide", "configdrive": "H4sI" }),
                json!({ "target": "provide", "steps": [] }),
                json!({ "target": "active", "deploy_steps": [step("deploy", "x")] }),
                json!({ "target": "active", "configdrive": { "meta": {} } }),
                json!({ "target": "active", "configdrive": { "meta_data": 7 } }),
                json!({ "target": "adopt" }),
                json!({ "target": "inspect" }),
                json!({ "target": "zap" }),
                json!({ "target": 1 }),
                json!({}),
                json!([]),
            ]
            .map(|body| ask(body).unwrap_err())
            .to_vec()
        );
    }

    #[test]
    fn a_config_drive_counts_for_the_size_of_its_node() {
        let drive = |bytes: usize| json!({ "user_data": "x".repeat(bytes) });
        let deploy = |drive: Value| ask(json!({ "target": "active", "configdrive": drive }));

        assert!(deploy(drive(200_000)).is_ok());
        assert!(deploy(drive(300_000)).unwrap_err().contains("with it, the node has more than"));
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
