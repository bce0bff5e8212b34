//! Actions: resets, virtual media, and those of vendors.

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::faults::EmulatedFault;
use super::machine::{EmulatedPower, MachineResources};
use super::patch::is_image_uri;
use super::response::{
    EmulatorResponse, bad_request, error, malformed, missing_parameter, no_content, not_found,
    wrong_format,
};
use super::routes::object;
use super::{Emulator, EmulatorRequest, PowerEffect, boot_certificates, secure_boot_databases};

impl Emulator {
    pub(super) fn post(
        &mut self,
        path: &str,
        request: &EmulatorRequest<'_>,
        faults: &[EmulatedFault],
    ) -> EmulatorResponse {
        let Some(body) = object(request.body) else { return malformed() };
        if let Some(name) = self.reset_target(path) {
            return match self.reset(&name, &body) {
                Err(refused) => refused,
                Ok(effect) => match self.postpone(request, path, faults) {
                    Some(accepted) => accepted.unwrap_or_else(no_content),
                    None => {
                        self.effects.extend(effect);
                        no_content()
                    }
                },
            };
        }
        let media = |action: &str| {
            let of = path.strip_suffix(action)?;
            self.tree
                .key(of)
                .filter(|key| self.systems.values().any(|system| system.layout.media.contains(key)))
        };
        if let Some(key) = media("/Actions/VirtualMedia.InsertMedia") {
            return self.insert_media(&key, &body);
        }
        if let Some(key) = media("/Actions/VirtualMedia.EjectMedia") {
            return self.eject_media(&key);
        }
        self.vendor_action(path, &Method::POST, &body)
    }

    pub(super) fn vendor_action(
        &mut self,
        path: &str,
        method: &Method,
        body: &Map<String, Value>,
    ) -> EmulatorResponse {
        let vendor = self.vendor();
        let key = self.tree.key(path).unwrap_or_else(|| path.to_owned());
        let system = self.system_of(&key).and_then(|name| self.systems.get(&name));
        let answer = system.and_then(|system| {
            let mut machine = MachineResources {
                tree: &mut self.tree,
                layout: &system.layout,
                macs: &system.macs,
            };
            let answer = boot_certificates::act(&mut machine, method, &key, body);
            let answer =
                answer.or_else(|| secure_boot_databases::act(&mut machine, method, &key, body));
            answer.or_else(|| vendor.act(&mut machine, method, &key, body))
        });
        answer.unwrap_or_else(|| self.no_such_method(path))
    }

    fn insert_media(&mut self, key: &str, body: &Map<String, Value>) -> EmulatorResponse {
        let Some(image) = body.get("Image").and_then(Value::as_str) else {
            return missing_parameter("VirtualMedia.InsertMedia", "Image");
        };
        if !is_image_uri(image) {
            return wrong_format("Image");
        }
        if body.get("Inserted").is_some_and(|inserted| inserted == false) {
            return no_content();
        }
        if self.tree.view(key).is_some_and(|media| media["Inserted"] == true) {
            let words =
                "The change to the requested resource failed because the resource is in use.";
            return error(StatusCode::CONFLICT, "ResourceInUse", words);
        }
        self.tree.change(
            key,
            &json!({
                "Image": image,
                "ImageName": image.rsplit('/').next(),
                "Inserted": true,
                "ConnectedVia": "URI",
            }),
        );
        no_content()
    }

    fn eject_media(&mut self, key: &str) -> EmulatorResponse {
        self.tree.change(
            key,
            &json!({
                "Image": null,
                "ImageName": null,
                "Inserted": false,
                "ConnectedVia": "NotConnected",
            }),
        );
        no_content()
    }

    /// The name of the system that a path resets.
    pub(super) fn reset_target(&self, path: &str) -> Option<String> {
        let of = path.strip_suffix("/Actions/ComputerSystem.Reset")?;
        let key = self.tree.key(of)?;
        self.systems
            .iter()
            .find(|(_, system)| system.layout.system == key)
            .map(|(name, _)| name.clone())
    }

    /// Decides about a `ComputerSystem.Reset`.
    pub(super) fn reset(
        &self,
        name: &str,
        body: &Map<String, Value>,
    ) -> Result<Option<PowerEffect>, EmulatorResponse> {
        let Some(system) = self.systems.get(name) else { return Err(not_found(name)) };
        let Some(wanted) = body.get("ResetType").and_then(Value::as_str) else {
            return Err(missing_parameter("ComputerSystem.Reset", "ResetType"));
        };
        let allowed = self.reset_types(&system.layout.system);
        if !allowed.iter().any(|allowed| allowed == wanted) {
            let words = format!(
                "The value {wanted:?} for the parameter ResetType is not in the list of acceptable \
                 values: {}.",
                allowed.join(", ")
            );
            return Err(bad_request("ActionParameterNotSupported", &words));
        }
        let system_name = name.to_owned();
        let same_power = || self.vendor().same_power().map_or(Ok(None), Err);
        match (wanted, system.power) {
            ("On" | "ForceOn" | "PushPowerButton" | "PowerCycle", EmulatedPower::Off) => {
                Ok(Some(PowerEffect::Start { system: system_name }))
            }
            ("ForceOff", EmulatedPower::On) => Ok(Some(PowerEffect::Stop { system: system_name })),
            ("GracefulShutdown" | "PushPowerButton", EmulatedPower::On) => {
                Ok(Some(PowerEffect::ShutDown { system: system_name }))
            }
            ("ForceRestart" | "GracefulRestart" | "PowerCycle", EmulatedPower::On) => {
                Ok(Some(PowerEffect::Restart { system: system_name }))
            }
            ("Nmi", EmulatedPower::On) => Ok(Some(PowerEffect::Interrupt { system: system_name })),
            ("On" | "ForceOn", EmulatedPower::On)
            | ("ForceOff" | "GracefulShutdown", EmulatedPower::Off) => same_power(),
            (_, EmulatedPower::Off) => {
                let off = "The machine is off and cannot be restarted or interrupted.";
                Err(error(StatusCode::CONFLICT, "ResourceInUse", off))
            }
            (_, EmulatedPower::On) => Ok(None),
        }
    }

    /// The reset types that the system or its `ActionInfo` lists; those of the standard if neither does.
    fn reset_types(&self, system: &str) -> Vec<String> {
        let body = self.tree.view(system).unwrap_or_default();
        let reset = &body["Actions"]["#ComputerSystem.Reset"];
        let info = reset["@Redfish.ActionInfo"].as_str().and_then(|path| self.tree.view(path));
        let listed = reset["ResetType@Redfish.AllowableValues"].as_array().cloned().or_else(|| {
            let info = info?;
            info["Parameters"].as_array()?.iter().find_map(|parameter| {
                let is_type = parameter["Name"] == "ResetType";
                is_type.then(|| parameter["AllowableValues"].as_array().cloned()).flatten()
            })
        });
        let texts = |listed: Vec<Value>| {
            listed.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
        };
        let standard =
            ["On", "ForceOff", "GracefulShutdown", "ForceRestart", "GracefulRestart", "Nmi"];
        listed.map_or_else(|| standard.map(str::to_owned).to_vec(), texts)
    }
}
