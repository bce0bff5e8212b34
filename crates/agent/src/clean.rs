//! The clean steps of this agent, and their execution.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};

use anyhow::{Context, Result, bail};
use ironic::agent::{AgentStep, CleanResult, CleanSteps, CommandError, DeploySteps};
use serde_json::{Map, Value};
use tracing::info;

use crate::disks::hints::Hint;
use crate::disks::{Disk, DiskSource, list};

/// The name of the steps' hardware manager, whose version Ironic returns with each step.
const MANAGER: &str = "ferroboot_agent";

/// Raised when the meaning of a step changes.
const VERSION: &str = "1";

/// A step by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    EraseDevices,
    EraseDevicesMetadata,
}

impl Step {
    /// All steps, with ironic-python-agent's names and priorities.
    const ALL: [(Self, &'static str, i32); 2] = [
        (Self::EraseDevicesMetadata, "erase_devices_metadata", 99),
        (Self::EraseDevices, "erase_devices", 10),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find_map(|(step, own, _)| (own == name).then_some(step))
    }
}

/// The answer to `clean.get_clean_steps`.
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

/// The answer to `deploy.get_deploy_steps`: this agent writes no images.
pub fn deploy_steps() -> DeploySteps {
    DeploySteps {
        deploy_steps: BTreeMap::from([(MANAGER.to_owned(), Vec::new())]),
        hardware_manager_version: version(),
    }
}

fn version() -> BTreeMap<String, String> {
    BTreeMap::from([(MANAGER.to_owned(), VERSION.to_owned())])
}

/// A requested step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CleanStepRequest {
    /// The step, which Ironic expects back with the result.
    pub step: Map<String, Value>,
    /// The node, whose properties list the disks to keep.
    pub node: Map<String, Value>,
    /// The version of the steps in Ironic's list.
    pub version: Option<Value>,
}

/// The target of an order.
#[derive(Debug, Clone)]
pub struct CleaningTarget {
    /// Its disks.
    pub disks: DiskSource,
    /// Whether a disk with a file system shared by several machines fails the step.
    pub guards_clustered: bool,
}

impl CleaningTarget {
    /// Executes `order`, and returns the result of `clean.execute_clean_step`. Takes as long as the disks do.
    ///
    /// # Errors
    ///
    /// The command's error: the version differs, the step is unknown, or it failed.
    pub fn execute(&self, order: &CleanStepRequest) -> Result<Value, CommandError> {
        let ours = serde_json::json!(version());
        let asked = order.version.as_ref().filter(|asked| !asked.is_null());
        if let Some(asked) = asked.filter(|asked| **asked != ours) {
            return Err(CommandError {
                kind: "VersionMismatch".to_owned(),
                code: 409,
                message: "Hardware managers version mismatch, reload agent with correct version"
                    .to_owned(),
                details: format!("Current versions: {ours}, versions used by ironic: {asked}"),
            });
        }
        let name = order.step.get("step").and_then(Value::as_str).unwrap_or_default();
        info!("clean step {name:?} begins");
        match caught(|| self.run(name, order)) {
            Ok(()) => {
                info!("clean step {name:?} is done");
                let result =
                    CleanResult { clean_result: Value::Null, clean_step: order.step.clone() };
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

    fn run(&self, name: &str, order: &CleanStepRequest) -> Result<()> {
        let Some(step) = Step::named(name) else { bail!("this agent has no clean step {name:?}") };
        let disks = self.erasable(step, &order.node)?;
        // A broken disk must not prevent the erasure of the others.
        let failed = disks.iter().filter_map(|disk| match step {
            Step::EraseDevices => erase(disk).err(),
            Step::EraseDevicesMetadata => erase_metadata(disk).err(),
        });
        let failed: Vec<_> = failed.map(|error| format!("{error:#}")).collect();
        if failed.is_empty() {
            return Ok(());
        }
        bail!("{}", failed.join("; "))
    }

    /// The disks without those that ironic-python-agent also skips. Nothing is erased if one of them is in doubt.
    fn erasable(&self, step: Step, node: &Map<String, Value>) -> Result<Vec<Disk>> {
        let kept = kept(node)?;
        let mut disks = self.disks.disks().context("looking for disks")?;
        disks.retain(|disk| {
            let keep = kept.iter().any(|hint| hint.fits(&disk.traits));
            if keep {
                info!("leaving {} alone: skip_block_devices names it", disk.path.display());
            }
            !keep
        });
        let (read_only, disks): (Vec<_>, Vec<_>) = disks.into_iter().partition(|it| it.read_only);
        for disk in read_only {
            let path = disk.path.display();
            if step == Step::EraseDevices && !may_skip_read_only(node) {
                bail!("{path} is read-only, and agent_erase_skip_read_only is not set");
            }
            info!("leaving {path} alone: it is read-only");
        }
        for disk in disks.iter().filter(|_| self.guards_clustered) {
            if let Some(name) = disk.clustered()? {
                let path = disk.path.display();
                bail!("{path} holds {name}, which other machines may be using: nothing was erased");
            }
        }
        Ok(disks)
    }
}

/// The node's `skip_block_devices`.
fn kept(node: &Map<String, Value>) -> Result<Vec<Hint>> {
    let hints = node.get("properties").and_then(|properties| properties.get("skip_block_devices"));
    let hints = match hints {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(hints) => hints.as_array().context("skip_block_devices is not a list")?,
    };
    let hints: Result<_, _> = hints.iter().map(Hint::parse).collect();
    hints.context("not knowing which disks to keep, as skip_block_devices demands")
}

fn may_skip_read_only(node: &Map<String, Value>) -> bool {
    let info = node.get("driver_internal_info");
    info.and_then(|info| info.get("agent_erase_skip_read_only")?.as_bool()).unwrap_or(false)
}

/// Turns a panic in a step into a failed step, as far as the build's panic strategy permits.
fn caught(work: impl FnOnce() -> Result<()>) -> Result<()> {
    panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| bail!("the agent has a bug here; its console has the details"))
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
    use std::path::Path;

    use serde_json::json;
    use tempfile::NamedTempFile;

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
        let disk = xfs();
        let step = json!({"step": "erase_devices_metadata", "interface": "deploy", "priority": 10});

        let result = machine(&[disk.path()]).execute(&order(&step, json!({}))).unwrap();

        assert_eq!(result, json!({"clean_result": null, "clean_step": step}));
        assert_eq!(std::fs::read(disk.path()).unwrap(), [0; 4]);
    }

    #[test]
    fn an_unknown_step_fails_by_name() {
        let error = machine(&[]).execute(&CleanStepRequest::default()).unwrap_err();
        assert_eq!(
            error.details,
            "Error performing clean step : this agent has no clean step \"\""
        );
    }

    #[test]
    fn a_step_of_another_version_is_refused() {
        let of_version =
            |version| CleanStepRequest { version: Some(version), ..CleanStepRequest::default() };

        let other = of_version(json!({"generic_hardware_manager": "1.2"}));
        let error = machine(&[]).execute(&other).unwrap_err();
        assert_eq!((error.kind.as_str(), error.code), ("VersionMismatch", 409));

        let error = machine(&[]).execute(&of_version(json!(version()))).unwrap_err();
        assert_eq!(error.kind, "CleaningError");
    }

    #[test]
    fn a_disk_that_fails_does_not_save_the_others() {
        let disk = xfs();
        // The device cannot be flushed.
        let broken = Path::new("/dev/null");

        let error = machine(&[broken, disk.path()]).execute(&metadata(json!({}))).unwrap_err();

        assert!(error.details.contains("/dev/null"), "{error:?}");
        assert_eq!(std::fs::read(disk.path()).unwrap(), [0; 4]);
    }

    #[test]
    fn a_disk_that_the_node_names_is_kept() {
        let (kept, erased) = (xfs(), xfs());
        let node = json!({"properties": {"skip_block_devices": [{"name": kept.path()}]}});

        machine(&[kept.path(), erased.path()]).execute(&metadata(node)).unwrap();

        assert_eq!(std::fs::read(kept.path()).unwrap(), b"XFSB");
        assert_eq!(std::fs::read(erased.path()).unwrap(), [0; 4]);
    }

    #[test]
    fn nothing_is_erased_while_it_is_in_doubt_which_disks_to_keep() {
        let disk = xfs();
        for hints in [json!([{"volume_name": "data"}]), json!({"name": "x"}), json!(["/dev/sda"])] {
            let node = json!({"properties": {"skip_block_devices": hints}});

            let error = machine(&[disk.path()]).execute(&metadata(node)).unwrap_err();

            assert!(error.details.contains("skip_block_devices"), "{error:?}");
            assert_eq!(std::fs::read(disk.path()).unwrap(), b"XFSB");
        }
    }

    #[test]
    fn a_file_system_of_several_machines_is_guarded_until_somebody_says_otherwise() {
        let mut shared = NamedTempFile::new().unwrap();
        shared.write_all(&vec![0; 64 << 10]).unwrap();
        shared.write_all(b"\x01\x16\x19\x70").unwrap();
        let other = xfs();
        let mut machine = machine(&[other.path(), shared.path()]);

        let error = machine.execute(&metadata(json!({}))).unwrap_err();
        assert!(error.details.contains("Red Hat GFS2"), "{error:?}");
        assert_eq!(std::fs::read(other.path()).unwrap(), b"XFSB");

        machine.guards_clustered = false;
        machine.execute(&metadata(json!({}))).unwrap();
        assert_eq!(std::fs::read(other.path()).unwrap(), [0; 4]);
    }

    fn xfs() -> NamedTempFile {
        let mut disk = NamedTempFile::new().unwrap();
        disk.write_all(b"XFSB").unwrap();
        disk
    }

    fn machine(disks: &[&Path]) -> CleaningTarget {
        let disks = disks.iter().map(|path| path.to_path_buf()).collect();
        CleaningTarget { disks: DiskSource::Named(disks), guards_clustered: true }
    }

    fn metadata(node: Value) -> CleanStepRequest {
        order(&json!({"step": "erase_devices_metadata"}), node)
    }

    fn order(step: &Value, node: Value) -> CleanStepRequest {
        let object = |value: &Value| value.as_object().unwrap().clone();
        CleanStepRequest { step: object(step), node: object(&node), version: None }
    }
}
