//! From paths and methods to resources.

use http::Method;
use serde_json::{Map, Value, json};

use super::event_log::{self, EmulatedLog};
use super::faults::{self, EmulatedFault};
use super::machine::EmulatedSystem;
use super::platforms::collection;
use super::response::{EmulatorResponse, no_content, not_allowed, not_found, ok};
use super::{Emulator, EmulatorRequest};

pub(super) const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
pub(super) const EMULATOR_TASKS: &str = "/redfish/v1/TaskService/Tasks";

impl Emulator {
    /// Answers a request with the faults that are for it.
    pub(super) fn route(
        &mut self,
        request: &EmulatorRequest<'_>,
        path: &str,
        faults: &[EmulatedFault],
    ) -> EmulatorResponse {
        let reads = matches!(*request.method, Method::GET | Method::HEAD);
        let is_root = reads && matches!(path, "/redfish" | "/redfish/v1");
        let logs_in = *request.method == Method::POST
            && (path == SESSIONS || path.strip_suffix("/Members") == Some(SESSIONS));
        // DSP0266 §13.3: the service root, and creating a session, need no login.
        if logs_in && self.tree.key(SESSIONS).is_some() {
            return self.open_session(request, faults);
        }
        if !is_root && let Err(refused) = self.check_login(request, faults) {
            return refused;
        }
        if reads {
            return self.get(path, faults);
        }
        match *request.method {
            Method::PATCH => self.patch(path, request, faults),
            Method::POST => self.post(path, request, faults),
            Method::DELETE => self.delete(path),
            _ => self.no_such_method(path),
        }
    }

    /// A resource as it is shown; `None` where there is none.
    pub(super) fn shown(&self, path: &str, faults: &[EmulatedFault]) -> Option<Value> {
        if path == SESSIONS && self.tree.key(path).is_some() {
            let ids: Vec<_> =
                self.sessions.ids().iter().map(|id| format!("{SESSIONS}/{id}")).collect();
            return Some(collection(path, "Session", &ids));
        }
        if let Some(id) = below(path, SESSIONS) {
            return self.sessions.resource(id);
        }
        if let Some(task) = below(path, EMULATOR_TASKS).and_then(|id| self.task(id)) {
            return Some(task);
        }
        // A recorded log stays as it is.
        let system = self.systems.values().next().filter(|_| self.platform.is_some());
        let log = system.map(|system| EmulatedLog { system, faults, now: self.now });
        if let Some(entry) = log.as_ref().and_then(|log| event_log::entry(path, log)) {
            return Some(entry);
        }
        let key = self.tree.key(path)?;
        let mut body = self.tree.view(&key)?;
        if let Some(system) = self.systems.values().find(|system| system.layout.system == key) {
            let (power, progress) = system.shown(faults, self.now);
            if let Some(shown) = body.get_mut("PowerState") {
                *shown = power.into();
            }
            if let Some(shown) = body.get_mut("BootProgress")
                && (system.changed.is_some() || self.platform.is_some())
            {
                *shown = json!({"LastState": progress});
            }
            if self.platform.is_some()
                && let Some(shown) = body.pointer_mut("/Oem/Hpe/PostState")
            {
                *shown = event_log::post_state(power, progress).into();
            }
        }
        if let Some(log) = &log {
            event_log::show(&key, &mut body, log);
        }
        if self.system_of(&key).is_some_and(|name| self.is_in_post(&name, faults)) {
            self.vendor().show_in_post(&mut body);
        }
        faults::apply_to_resource(&mut body, faults);
        Some(body)
    }

    fn get(&mut self, path: &str, faults: &[EmulatedFault]) -> EmulatorResponse {
        let Some(body) = self.shown(path, faults) else { return not_found(path) };
        let key = self.tree.key(path);
        for system in self.systems.values_mut() {
            if key.as_ref() == Some(&system.layout.system) {
                system.looks = system.looks.saturating_add(1);
            }
        }
        if let Some(key) = &key {
            self.apply_after_get(key, faults);
        }
        let etag = body["@odata.etag"].as_str().map(str::to_owned);
        match etag {
            Some(etag) => ok(body).with_header("ETag", etag),
            None => ok(body),
        }
    }

    /// Changes a resource as faults do after it was shown.
    fn apply_after_get(&mut self, key: &str, faults: &[EmulatedFault]) {
        if faults.contains(&EmulatedFault::DropOverride)
            && self.systems.values().any(|system| system.layout.system == key)
        {
            let none = json!({"Boot": {"BootSourceOverrideEnabled": "Disabled"}});
            self.tree.change(key, &none);
        }
        if faults.contains(&EmulatedFault::ChangingEtags) {
            self.tree.touch(key);
        }
    }

    /// Whether a fault says that a system is in POST.
    pub(super) fn is_in_post(&self, name: &str, faults: &[EmulatedFault]) -> bool {
        let Some(system) = self.systems.get(name) else { return false };
        faults.iter().any(|fault| {
            matches!(fault, EmulatedFault::Post { secs } if system.is_in_post(*secs, self.now))
        })
    }

    /// The name of the system that a resource belongs to.
    pub(super) fn system_of(&self, key: &str) -> Option<String> {
        if let [name] = &self.systems.keys().collect::<Vec<_>>()[..] {
            return Some((*name).clone());
        }
        let owns = |system: &EmulatedSystem| {
            let rest = key.strip_prefix(&system.layout.system);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.systems.iter().find(|(_, system)| owns(system)).map(|(name, _)| name.clone())
    }

    pub(super) fn allow(&self, key: &str) -> String {
        let mut allow = String::from("GET, HEAD");
        let system = self.system_of(key).and_then(|name| self.systems.get(&name));
        let is_collection = self.tree.view(key).is_some_and(|body| body.get("Members").is_some());
        let takes = |system: &EmulatedSystem| {
            let secure_boot = format!("{}/SecureBoot", system.layout.system);
            key == secure_boot || self.vendor().accepts_patch(&system.layout, key)
        };
        if system.is_some_and(takes) && !is_collection {
            allow.push_str(", PATCH");
        }
        if key == SESSIONS {
            allow.push_str(", POST");
        }
        if below(key, SESSIONS).is_some() {
            allow.push_str(", DELETE");
        }
        allow
    }

    pub(super) fn no_such_method(&self, path: &str) -> EmulatorResponse {
        let key = self.tree.key(path).unwrap_or_else(|| path.to_owned());
        match self.shown(path, &[]) {
            Some(_) => not_allowed(&self.allow(&key)),
            None => not_found(path),
        }
    }

    fn delete(&mut self, path: &str) -> EmulatorResponse {
        if let Some(id) = below(path, SESSIONS) {
            return if self.sessions.close(id) { no_content() } else { not_found(path) };
        }
        self.vendor_action(path, &Method::DELETE, &Map::new())
    }
}

/// The last part of a path right below another one.
fn below<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    let id = path.strip_prefix(folder)?.strip_prefix('/')?;
    (!id.is_empty() && !id.contains('/')).then_some(id)
}

/// A JSON object; an empty body is one without properties.
pub(super) fn object(body: &[u8]) -> Option<Map<String, Value>> {
    if body.is_empty() {
        return Some(Map::new());
    }
    serde_json::from_slice(body).ok()
}
