//! A tree that was recorded: what it shows may be written, as far as it is not known as read-only.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::emulator::machine::{MachineResources, SystemLayout};
use crate::emulator::patch::ResourcePatch;
use crate::emulator::response::{EmulatorResponse, no_content};
use crate::emulator::tree::{ResourceBodies, merge};
use crate::emulator::vendor::{SystemSpec, VendorRules};

pub(super) struct RecordedBmc;

const SETTINGS: &str = "@Redfish.Settings";
const TARGETS: &str = "BootSourceOverrideTarget@Redfish.AllowableValues";

impl VendorRules for RecordedBmc {
    fn bodies(&self, _: &[SystemSpec]) -> ResourceBodies {
        ResourceBodies::default()
    }

    fn layout(&self, _: &str) -> SystemLayout {
        SystemLayout::default()
    }

    fn accepts_patch(&self, _: &SystemLayout, _: &str) -> bool {
        true
    }

    /// Annotations such as `@Redfish.SettingsApplyTime` are accepted, and not kept.
    fn patch(
        &self,
        machine: &mut MachineResources<'_>,
        patch: &ResourcePatch<'_>,
    ) -> Result<EmulatorResponse, EmulatorResponse> {
        let mut body = patch.body.clone();
        body.retain(|name, _| !name.contains('@'));
        let view = settable(machine, patch);
        machine.patch_checked(&ResourcePatch { body: &body, view: &view, ..*patch }, &[])?;
        Ok(no_content())
    }

    /// Applies the settings resources of the system and of its BIOS, if there are any.
    fn apply_settings(&self, machine: &mut MachineResources<'_>) {
        let system = machine.layout.system.clone();
        let bios = machine.view(&system)["Bios"]["@odata.id"].as_str().map(str::to_owned);
        for resource in [Some(system), bios].into_iter().flatten() {
            let shown = machine.view(&resource);
            if let Some(settings) = shown[SETTINGS]["SettingsObject"]["@odata.id"].as_str() {
                machine.apply(settings, &resource, "Boot");
                machine.apply(settings, &resource, "Attributes");
            }
        }
    }
}

/// What a PATCH may set: what the resource shows. The settings of a BIOS often show nothing, and then take the attributes
/// in use; those of a system take the boot targets of both.
fn settable(machine: &MachineResources<'_>, patch: &ResourcePatch<'_>) -> Value {
    let mut view = patch.view.clone();
    let Some((parent, _)) = patch.path.rsplit_once('/') else { return view };
    let parent = machine.view(parent);
    let settings = parent[SETTINGS]["SettingsObject"]["@odata.id"].as_str().unwrap_or_default();
    if !settings.trim_end_matches('/').eq_ignore_ascii_case(patch.path) {
        return view;
    }
    let shown = view.get("Attributes").cloned().filter(Value::is_object);
    if let (Some(attributes), Some(view)) = (parent["Attributes"].as_object(), view.as_object_mut())
    {
        let mut all = Value::Object(attributes.clone());
        merge(&mut all, &shown.unwrap_or_else(|| json!({})));
        view.insert("Attributes".to_owned(), all);
    }
    let targets = view.get_mut("Boot").and_then(|boot| boot.get_mut(TARGETS));
    if let Some(targets) = targets.and_then(Value::as_array_mut) {
        targets.extend(parent["Boot"][TARGETS].as_array().cloned().unwrap_or_default());
    }
    view
}

/// The resources of a tree, with the settings resources that it names and lacks, which show nothing. HPE's paths are
/// the same in upper and lower case.
pub(super) fn completed(mut bodies: BTreeMap<String, Value>) -> ResourceBodies {
    let folds_case = bodies.values().any(|body| body["Oem"]["Hpe"].is_object());
    let named = bodies.values().filter_map(|body| {
        let path = body[SETTINGS]["SettingsObject"]["@odata.id"].as_str()?;
        Some(path.trim_end_matches('/').to_owned())
    });
    let named: Vec<_> = named.filter(|path| path.starts_with('/')).collect();
    for path in named {
        let is_there = |key: &String| *key == path || folds_case && key.eq_ignore_ascii_case(&path);
        if !bodies.keys().any(is_there) {
            let id = json!({ "@odata.id": path });
            bodies.insert(path, id);
        }
    }
    ResourceBodies { bodies, folds_case }
}

/// The systems of a tree with a reset action: others are baseboards. The first system, if none has one.
pub(super) fn layouts(bodies: &ResourceBodies) -> Vec<SystemLayout> {
    let is_system =
        |path: &str| path.strip_prefix("/redfish/v1/Systems/").is_some_and(|id| !id.contains('/'));
    let systems = || bodies.bodies.iter().filter(|(path, _)| is_system(path));
    let resettable =
        systems().filter(|(_, body)| body["Actions"]["#ComputerSystem.Reset"].is_object());
    let mut paths: Vec<_> = resettable.map(|(path, _)| path.clone()).collect();
    if paths.is_empty() {
        paths.extend(systems().next().map(|(path, _)| path.clone()));
    }
    let media = bodies.bodies.iter().filter(|(_, body)| {
        let kinds = body["MediaTypes"].as_array();
        // AMI's have no types, and are named after them.
        let is_named = || {
            let is_media =
                body["@odata.type"].as_str().is_some_and(|it| it.contains("#VirtualMedia."));
            is_media && body["Id"].as_str().is_some_and(|id| id.starts_with("CD"))
        };
        kinds.map_or_else(is_named, |kinds| kinds.iter().any(|it| it == "CD" || it == "DVD"))
    });
    let media: Vec<_> = media.map(|(path, _)| path.clone()).collect();
    paths.into_iter().map(|system| SystemLayout { system, media: media.clone() }).collect()
}
