//! A tree that was recorded: what it shows may be written, as far as it is not known as read-only.

use crate::emulator::machine::{MachineResources, SystemLayout};
use crate::emulator::tree::ResourceBodies;
use crate::emulator::vendor::{SystemSeat, VendorRules};

pub(super) struct RecordedBmc;

impl VendorRules for RecordedBmc {
    fn bodies(&self, _: &[SystemSeat]) -> ResourceBodies {
        ResourceBodies::default()
    }

    fn layout(&self, _: &str) -> SystemLayout {
        SystemLayout::default()
    }

    fn accepts_patch(&self, _: &SystemLayout, _: &str) -> bool {
        true
    }

    /// Applies the boot override of the settings resource, if there is one.
    fn apply_settings(&self, machine: &mut MachineResources<'_>) {
        let system = machine.layout.system.clone();
        for resource in [system.clone(), format!("{system}/Bios")] {
            let shown = machine.view(&resource);
            let settings = &shown["@Redfish.Settings"]["SettingsObject"]["@odata.id"];
            if let Some(settings) = settings.as_str() {
                machine.apply(settings, &resource, "Boot");
                machine.apply(settings, &resource, "Attributes");
            }
        }
    }
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
        kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "CD" || kind == "DVD"))
    });
    let media: Vec<_> = media.map(|(path, _)| path.clone()).collect();
    paths.into_iter().map(|system| SystemLayout { system, media: media.clone() }).collect()
}
