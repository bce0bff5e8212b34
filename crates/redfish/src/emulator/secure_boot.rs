//! `SecureBoot` of a system: switched by a client, in force from the next start.

use serde_json::{Value, json};

use super::machine::MachineResources;
use super::patch::ResourcePatch;
use super::response::{EmulatorResponse, no_content};

const ENABLE: &str = "SecureBootEnable";
/// Where a change waits for the start. No client sees it, since it is no path.
const WAITING: &str = "waiting SecureBoot";

impl MachineResources<'_> {
    pub(super) fn secure_boot_path(&self) -> String {
        self.below("SecureBoot")
    }

    /// Performs a PATCH; if it `waits`, it is shown only after the next start.
    pub(super) fn patch_secure_boot(
        &mut self,
        patch: &ResourcePatch<'_>,
        waits: bool,
    ) -> Result<EmulatorResponse, EmulatorResponse> {
        patch.check(&["SecureBootCurrentBoot", "SecureBootMode", "SecureBootDatabases"])?;
        let path = if waits { WAITING } else { patch.path };
        self.tree.change(path, &Value::Object(patch.body.clone()));
        self.note_changed_keys();
        Ok(no_content())
    }

    /// Applies what waits, as firmware does in POST.
    pub(super) fn start_secure_boot(&mut self) {
        let path = self.secure_boot_path();
        if self.tree.key(&path).is_none() {
            return;
        }
        if let Some(waiting) = self.tree.revert(WAITING) {
            self.tree.change(&path, &waiting);
        }
        let body = self.view(&path);
        // Without a platform key, the firmware starts anything.
        let is_in_force = body[ENABLE] == true && body["SecureBootMode"] != "SetupMode";
        let current = if is_in_force { "Enabled" } else { "Disabled" };
        if body["SecureBootCurrentBoot"] != current {
            self.tree.change(&path, &json!({ "SecureBootCurrentBoot": current }));
        }
    }
}
