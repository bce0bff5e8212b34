//! The clean steps this agent offers, and how they are carried out.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};

use anyhow::{Context, Result, bail};
use ironic::agent::{AgentStep, CleanResult, CleanSteps, CommandError, DeploySteps};
use serde_json::{Map, Value};
use tracing::info;

use crate::disks::{Disk, Source, list};

/// Under which the steps are listed, and whose version Ironic hands back with each step.
const MANAGER: &str = "ferroboot_agent";

/// Raised when a step of the same name does something else.
const VERSION: &str = "1";

/// A step by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    EraseDevices,
    EraseDevicesMetadata,
}

impl Step {
    /// Every step with ironic-python-agent's name and priority for it.
    const ALL: [(Self, &'static str, i32); 2] = [
        (Self::EraseDevicesMetadata, "erase_devices_metadata", 99),
        (Self::EraseDevices, "erase_devices", 10),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find_map(|(step, own, _)| (own == name).then_some(step))
    }
}

/// What `clean.get_clean_steps` answers.
pub fn steps() -> CleanSteps {
    let offered = Step::ALL.map(|(_, name, priority)| AgentStep {
        step: name.to_owned(),
        priority,
        interface: "deploy".to_owned(),
        reboot_requested: false,
        abortable: true,
    });
    CleanSteps {
        clean_steps: BTreeMap::from([(MANAGER.to_owned(), offered.to_vec())]),
        hardware_manager_version: version(),
    }
}

/// What `deploy.get_deploy_steps` answers: this agent writes no images.
pub fn deploy_steps() -> DeploySteps {
    DeploySteps {
        deploy_steps: BTreeMap::from([(MANAGER.to_owned(), Vec::new())]),
        hardware_manager_version: version(),
    }
}

fn version() -> BTreeMap<String, String> {
    BTreeMap::from([(MANAGER.to_owned(), VERSION.to_owned())])
}

/// Carries out `step` and answers as `clean.execute_clean_step` does. Takes as long as the disks do.
///
/// # Errors
///
/// As the command's error: another version was asked for, there is no such step, or it failed.
pub fn execute(
    step: &Map<String, Value>,
    asked_version: Option<&Value>,
    disks: &Source,
) -> Result<Value, CommandError> {
    let ours = serde_json::json!(version());
    if let Some(asked) = asked_version.filter(|asked| !asked.is_null() && **asked != ours) {
        return Err(CommandError {
            kind: "VersionMismatch".to_owned(),
            code: 409,
            message: "Hardware managers version mismatch, reload agent with correct version"
                .to_owned(),
            details: format!("Current versions: {ours}, versions used by ironic: {asked}"),
        });
    }
    let name = step.get("step").and_then(Value::as_str).unwrap_or_default();
    info!("clean step {name:?} begins");
    match caught(|| run(name, disks)) {
        Ok(()) => {
            info!("clean step {name:?} is done");
            let result = CleanResult { clean_result: Value::Null, clean_step: step.clone() };
            Ok(serde_json::json!(result))
        }
        Err(error) => {
            tracing::error!("clean step {name:?} failed: {error:#}");
            Err(CommandError {
                kind: "CleaningError".to_owned(),
                code: 500,
                message: "Clean step failed".to_owned(),
                details: format!("Error performing clean step {name}: {error:#}"),
            })
        }
    }
}

/// A bug in a step is a failed step, as far as the panic strategy of the build lets it be.
fn caught(work: impl FnOnce() -> Result<()>) -> Result<()> {
    panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| bail!("the agent has a bug here; its console has the details"))
}

fn run(name: &str, disks: &Source) -> Result<()> {
    let work = match Step::named(name) {
        Some(Step::EraseDevicesMetadata) => erase_metadata,
        Some(Step::EraseDevices) => erase,
        None => bail!("this agent has no clean step {name:?}"),
    };
    let disks = disks.disks().context("looking for disks")?;
    // A broken disk must not save the others from being erased.
    let failed: Vec<_> = disks.iter().filter_map(|disk| work(disk).err()).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let failed: Vec<_> = failed.iter().map(|error| format!("{error:#}")).collect();
    bail!("{}", failed.join("; "))
}

fn erase_metadata(disk: &Disk) -> Result<()> {
    let path = disk.path.display();
    info!("erasing the metadata of {path}, {} MB", disk.len / 1_000_000);
    let there = disk.erase_metadata()?;
    match there.is_empty() {
        true => info!("{path} is clean, as it was before"),
        false => info!("{path} is clean: {} gone", list(&there)),
    }
    Ok(())
}

fn erase(disk: &Disk) -> Result<()> {
    let path = disk.path.display();
    info!("overwriting {path}, {} MB", disk.len / 1_000_000);
    let mut said = 0;
    disk.erase(|done| {
        let tenths = done * 10 / disk.len.max(1);
        if tenths > said {
            said = tenths;
            info!("{path}: {} %", tenths * 10);
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_goes_before_everything_else() {
        let json = json!(steps());

        let steps = json["clean_steps"]["ferroboot_agent"].as_array().unwrap();
        assert_eq!(steps[0]["step"], "erase_devices_metadata");
        assert_eq!(steps[0]["priority"], 99);
        assert_eq!(steps[1]["step"], "erase_devices");
        assert_eq!(steps[1]["priority"], 10);
    }

    #[test]
    fn the_result_names_the_step_as_it_was_asked_for() {
        let mut disk = tempfile::NamedTempFile::new().unwrap();
        disk.write_all(b"XFSB").unwrap();
        let step = json!({"step": "erase_devices_metadata", "interface": "deploy", "priority": 10});

        let disks = Source::Named(vec![disk.path().to_owned()]);
        let result = execute(step.as_object().unwrap(), None, &disks).unwrap();

        assert_eq!(result, json!({"clean_result": null, "clean_step": step}));
        assert_eq!(std::fs::read(disk.path()).unwrap(), [0; 4]);
    }

    #[test]
    fn an_unknown_step_fails_by_name() {
        let error = execute(&Map::new(), None, &Source::Named(vec![])).unwrap_err();
        assert_eq!(
            error.details,
            "Error performing clean step : this agent has no clean step \"\""
        );
    }

    #[test]
    fn a_step_of_another_version_is_refused() {
        let other = json!({"generic_hardware_manager": "1.2"});

        let error = execute(&Map::new(), Some(&other), &Source::Named(vec![])).unwrap_err();

        assert_eq!((error.kind.as_str(), error.code), ("VersionMismatch", 409));
        let ours = json!(version());
        let error = execute(&Map::new(), Some(&ours), &Source::Named(vec![])).unwrap_err();
        assert_eq!(error.kind, "CleaningError");
    }

    #[test]
    fn a_disk_that_fails_does_not_save_the_others() {
        let mut disk = tempfile::NamedTempFile::new().unwrap();
        disk.write_all(b"XFSB").unwrap();
        // It cannot be flushed.
        let broken = "/dev/null".into();

        let disks = Source::Named(vec![broken, disk.path().to_owned()]);
        let error = run("erase_devices_metadata", &disks).unwrap_err();

        assert!(error.to_string().contains("/dev/null"), "{error}");
        assert_eq!(std::fs::read(disk.path()).unwrap(), [0; 4]);
    }
}
