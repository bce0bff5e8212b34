//! Changes of resources: at once, or postponed by a fault.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::faults::EmulatedFault;
use super::machine::MachineResources;
use super::patch::ResourcePatch;
use super::response::{EmulatorResponse, error, malformed, not_found};
use super::routes::{EMULATOR_TASKS, object};
use super::{DeferredRequest, Emulator, EmulatorRequest};

impl Emulator {
    pub(super) fn patch(
        &mut self,
        path: &str,
        request: &EmulatorRequest<'_>,
        faults: &[EmulatedFault],
    ) -> EmulatorResponse {
        let Some(view) = self.shown(path, faults) else { return not_found(path) };
        let key = self.tree.key(path).unwrap_or_else(|| path.to_owned());
        let Some(name) = self.system_of(&key) else { return self.no_such_method(path) };
        if !self.allow(&key).contains("PATCH") {
            return self.no_such_method(path);
        }
        let if_match = request.if_match.map(str::trim);
        if let Err(refused) = self.check_etag(&view, if_match, faults) {
            return refused;
        }
        let Some(body) = object(request.body).filter(|body| !body.is_empty()) else {
            return malformed();
        };
        if self.is_in_post(&name, faults) {
            return self.vendor().busy();
        }
        let before = self.tree.clone();
        let response = match self.perform_patch(&name, &key, &body, &view) {
            Ok(response) => response,
            Err(refused) => {
                self.tree = before;
                return refused;
            }
        };
        if faults.contains(&EmulatedFault::ForgetPatch) {
            self.tree = before;
            return response;
        }
        match self.postpone(request, path, faults) {
            Some(accepted) => {
                self.tree = before;
                accepted.unwrap_or(response)
            }
            None => response,
        }
    }

    fn perform_patch(
        &mut self,
        name: &str,
        key: &str,
        body: &Map<String, Value>,
        view: &Value,
    ) -> Result<EmulatorResponse, EmulatorResponse> {
        let vendor = self.vendor();
        let Some(system) = self.systems.get(name) else { return Err(not_found(key)) };
        let mut machine =
            MachineResources { tree: &mut self.tree, layout: &system.layout, macs: &system.macs };
        let patch = ResourcePatch { path: key, body, view };
        if key == machine.secure_boot_path() {
            return machine.patch_secure_boot(&patch, vendor.applies_secure_boot_at_start());
        }
        vendor.patch(&mut machine, &patch)
    }

    fn check_etag(
        &self,
        view: &Value,
        if_match: Option<&str>,
        faults: &[EmulatedFault],
    ) -> Result<(), EmulatorResponse> {
        let etag = view["@odata.etag"].as_str();
        let fits = match if_match {
            None if self.vendor().needs_if_match() => {
                let words = "The request has no If-Match header, which this resource requires.";
                return Err(error(
                    StatusCode::PRECONDITION_REQUIRED,
                    "PreconditionRequired",
                    words,
                ));
            }
            None => true,
            Some(_) if faults.contains(&EmulatedFault::NoEtags) => false,
            Some("*") => true,
            // RFC 9110 §13.1.1: a weak ETag never matches.
            Some(wanted) => etag == Some(wanted) && !wanted.starts_with("W/"),
        };
        if fits {
            return Ok(());
        }
        let words = "The ETag supplied did not match the current ETag of the resource.";
        Err(error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", words))
    }

    /// Postpones a request as a fault wants it. The inner value is the answer, if it differs from the usual one.
    pub(super) fn postpone(
        &mut self,
        request: &EmulatorRequest<'_>,
        path: &str,
        faults: &[EmulatedFault],
    ) -> Option<Option<EmulatorResponse>> {
        let (secs, has_task) = faults.iter().find_map(|fault| {
            if let EmulatedFault::Task { secs } = fault {
                return Some((*secs, true));
            }
            if let EmulatedFault::PatchLate { secs } = fault
                && *request.method == Method::PATCH
            {
                return Some((*secs, false));
            }
            None
        })?;
        let task = has_task.then(|| {
            self.last_task += 1;
            self.last_task
        });
        self.deferred.push(DeferredRequest {
            due: self.now + Duration::from_secs(u64::from(secs)),
            method: request.method.clone(),
            path: path.to_owned(),
            body: request.body.to_vec(),
            task,
        });
        Some(task.map(|task| {
            let body = self.task(&task.to_string());
            EmulatorResponse::new(StatusCode::ACCEPTED, body)
                .with_header("Location", format!("{EMULATOR_TASKS}/{task}"))
                .with_header("Retry-After", secs.to_string())
        }))
    }

    /// A task of a postponed request.
    pub(super) fn task(&self, id: &str) -> Option<Value> {
        let number =
            id.parse::<u64>().ok().filter(|number| (1..=self.last_task).contains(number))?;
        let runs = self.deferred.iter().any(|request| request.task == Some(number));
        let (state, percent) = if runs { ("Running", 0) } else { ("Completed", 100) };
        Some(json!({
            "@odata.id": format!("{EMULATOR_TASKS}/{id}"),
            "@odata.type": "#Task.v1_7_4.Task",
            "Id": id,
            "Name": format!("Task {id}"),
            "TaskState": state,
            "TaskStatus": "OK",
            "PercentComplete": percent,
            "Messages": [],
        }))
    }

    /// Performs the postponed requests whose time has come.
    pub(super) fn perform_deferred(&mut self) {
        let now = self.now;
        let due: Vec<_> = self.deferred.extract_if(.., |request| request.due <= now).collect();
        for request in due {
            let Some(body) = object(&request.body) else { continue };
            if request.method == Method::PATCH {
                let Some(key) = self.tree.key(&request.path) else { continue };
                let view = self.shown(&key, &[]).unwrap_or_default();
                if let Some(name) = self.system_of(&key) {
                    // It was checked before.
                    let _ = self.perform_patch(&name, &key, &body, &view);
                }
            } else if let Some(name) = self.reset_target(&request.path)
                && let Ok(Some(effect)) = self.reset(&name, &body)
            {
                self.effects.push_back(effect);
            }
        }
    }
}
