//! Steps that the daemon carries out at the BMC itself, without the agent (out of band): those of Ironic's `bios`
//! interface.

use serde_json::{Map, Value};
use thiserror::Error;

use crate::procedure_step::ProcedureStep;

/// The interface of these steps.
const INTERFACE: &str = "bios";

/// The step that sets what the BIOS lacks for HTTP boot.
const ENABLE_HTTP_BOOT: &str = "enable_http_boot";

/// Ironic's step for any BIOS attributes.
const APPLY_CONFIGURATION: &str = "apply_configuration";

/// A step of the daemon with its arguments.
#[derive(Clone, Debug, PartialEq)]
pub enum BmcStep {
    /// `bios.enable_http_boot`: sets the BIOS attributes that the firmware needs to boot over HTTP.
    EnableHttpBoot {
        /// `ip_version`, 4 or 6; `None` for the one of the boot URL.
        ip_version: Option<u8>,
    },
    /// `bios.apply_configuration`: sets these BIOS attributes (Ironic's `settings`).
    ApplyConfiguration {
        /// The attributes.
        attributes: Map<String, Value>,
    },
}

/// The reason for refusing the arguments of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadBmcStep {
    /// An argument is unknown.
    #[error("bios.enable_http_boot takes no argument but ip_version, 4 or 6")]
    HttpBoot,
    /// The settings are missing or malformed.
    #[error(
        "bios.apply_configuration takes one argument, settings: a list of at least one object with the text name and the value"
    )]
    Settings,
}

impl BmcStep {
    /// The step of the daemon, if it is one.
    ///
    /// # Errors
    /// [`BadBmcStep`], if it is one with wrong arguments.
    pub fn of(step: &ProcedureStep) -> Option<Result<Self, BadBmcStep>> {
        match (step.interface.as_str(), step.step.as_str()) {
            (INTERFACE, ENABLE_HTTP_BOOT) => Some(enable_http_boot(&step.args)),
            (INTERFACE, APPLY_CONFIGURATION) => Some(apply_configuration(&step.args)),
            _ => None,
        }
    }

    /// Whether it is a step of the daemon.
    #[must_use]
    pub fn is_one(step: &ProcedureStep) -> bool {
        Self::of(step).is_some()
    }

    /// Whether neither the daemon has the step nor an agent can: Ironic takes the steps of `bios` from the BMC's driver alone.
    #[must_use]
    pub fn is_unknown(step: &ProcedureStep) -> bool {
        step.interface == INTERFACE && !Self::is_one(step)
    }

    /// The reason for refusing a step that [is unknown](Self::is_unknown), beginning with Ironic's words.
    pub(crate) fn why_unknown() -> String {
        format!(
            "node does not support this clean step; {INTERFACE} has {ENABLE_HTTP_BOOT} and {APPLY_CONFIGURATION}"
        )
    }

    /// `bios.enable_http_boot` of an automated clean.
    #[must_use]
    pub fn automated_http_boot(priority: u32) -> ProcedureStep {
        ProcedureStep {
            interface: INTERFACE.to_owned(),
            step: ENABLE_HTTP_BOOT.to_owned(),
            args: Map::new(),
            priority: priority.into(),
            reboot_requested: false,
            abortable: true,
        }
    }
}

fn enable_http_boot(args: &Map<String, Value>) -> Result<BmcStep, BadBmcStep> {
    if args.keys().any(|name| name != "ip_version") {
        return Err(BadBmcStep::HttpBoot);
    }
    let ip_version = match args.get("ip_version") {
        None | Some(Value::Null) => None,
        Some(version) if *version == 4 || *version == "4" => Some(4),
        Some(version) if *version == 6 || *version == "6" => Some(6),
        Some(_) => return Err(BadBmcStep::HttpBoot),
    };
    Ok(BmcStep::EnableHttpBoot { ip_version })
}

fn apply_configuration(args: &Map<String, Value>) -> Result<BmcStep, BadBmcStep> {
    let settings = args.get("settings").and_then(Value::as_array).filter(|_| args.len() == 1);
    let settings = settings.filter(|settings| !settings.is_empty()).ok_or(BadBmcStep::Settings)?;
    let pair = |setting: &Value| {
        let setting = setting.as_object().filter(|setting| setting.len() == 2)?;
        let name = setting.get("name")?.as_str().filter(|name| !name.is_empty())?;
        let value = setting.get("value")?;
        let is_plain = value.is_string() || value.is_boolean() || value.is_number();
        is_plain.then(|| (name.to_owned(), value.clone()))
    };
    let attributes: Option<Map<_, _>> = settings.iter().map(pair).collect();
    Ok(BmcStep::ApplyConfiguration { attributes: attributes.ok_or(BadBmcStep::Settings)? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn step(name: &str, args: &Value) -> Option<Result<BmcStep, BadBmcStep>> {
        let args = args.as_object().unwrap().clone();
        let step = ProcedureStep { args, ..BmcStep::automated_http_boot(0) };
        BmcStep::of(&ProcedureStep { step: name.to_owned(), ..step })
    }

    #[test]
    fn the_daemons_steps_are_known_by_name_and_their_arguments_are_checked() {
        let http = |ip_version| Some(Ok(BmcStep::EnableHttpBoot { ip_version }));
        assert_eq!(step("enable_http_boot", &json!({})), http(None));
        assert_eq!(step("enable_http_boot", &json!({"ip_version": 6})), http(Some(6)));
        assert_eq!(step("enable_http_boot", &json!({"ip_version": "4"})), http(Some(4)));
        for wrong in [json!({"ip_version": 5}), json!({"x": 1})] {
            assert_eq!(
                step("enable_http_boot", &wrong),
                Some(Err(BadBmcStep::HttpBoot)),
                "{wrong}"
            );
        }
        let settings =
            json!({"settings": [{"name": "A", "value": "x"}, {"name": "B", "value": 1}]});
        let attributes = json!({"A": "x", "B": 1}).as_object().unwrap().clone();
        assert_eq!(
            step("apply_configuration", &settings),
            Some(Ok(BmcStep::ApplyConfiguration { attributes }))
        );
        for wrong in [
            json!({}),
            json!({"settings": []}),
            json!({"settings": [{"name": "A"}]}),
            json!({"settings": [{"name": "A", "value": null}]}),
            json!({"settings": [{"name": "A", "value": "x"}], "y": 1}),
        ] {
            assert_eq!(
                step("apply_configuration", &wrong),
                Some(Err(BadBmcStep::Settings)),
                "{wrong}"
            );
        }
        assert_eq!(step("factory_reset", &json!({})), None);
    }

    #[test]
    fn a_step_of_bios_that_the_daemon_lacks_is_nobodys() {
        let step = |interface: &str, name: &str| ProcedureStep {
            interface: interface.to_owned(),
            step: name.to_owned(),
            ..BmcStep::automated_http_boot(0)
        };
        assert!(BmcStep::is_unknown(&step("bios", "factory_reset")));
        assert!(!BmcStep::is_unknown(&step("bios", "apply_configuration")));
        assert!(!BmcStep::is_unknown(&step("deploy", "factory_reset")));
    }
}
