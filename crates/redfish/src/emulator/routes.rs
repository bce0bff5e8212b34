//! From paths and methods to resources and actions.

use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::faults::{self, EmulatedFault, FaultRule};
use super::machine::{EmulatedPower, EmulatedSystem, MachineResources};
use super::patch::{ResourcePatch, is_image_uri};
use super::platforms::collection;
use super::response::{
    EmulatorResponse, bad_request, error, malformed, missing_parameter, no_content, not_allowed,
    not_found, ok, unauthorized, wrong_format,
};
use super::{DeferredRequest, Emulator, EmulatorRequest, FAULTS, PowerEffect};

const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
const EMULATOR_TASKS: &str = "/redfish/v1/TaskService/Tasks";

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

    fn check_login(
        &mut self,
        request: &EmulatorRequest<'_>,
        faults: &[EmulatedFault],
    ) -> Result<(), EmulatorResponse> {
        if let Some(token) = request.session_token {
            self.end_idle_sessions();
            let known = self.sessions.knows(token, self.now);
            return if known { Ok(()) } else { Err(unauthorized()) };
        }
        if faults.contains(&EmulatedFault::SessionsFull { basic: true }) {
            return Err(self.vendor().sessions_full());
        }
        let basic_off = faults.contains(&EmulatedFault::BasicOff);
        let known = request.authorization.is_some_and(|basic| self.users.know_basic(basic));
        if known && !basic_off { Ok(()) } else { Err(unauthorized()) }
    }

    fn end_idle_sessions(&mut self) {
        let service = self.tree.view("/redfish/v1/SessionService").unwrap_or_default();
        let secs = service["SessionTimeout"].as_u64().unwrap_or(1800);
        self.sessions.end_idle(Duration::from_secs(secs), self.now);
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
        }
        faults::merged(&mut body, faults);
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
        let etag = body["@odata.etag"].as_str().map(str::to_owned);
        match etag {
            Some(etag) => ok(body).with_header("ETag", etag),
            None => ok(body),
        }
    }

    /// The name of the system that a resource belongs to.
    fn system_of(&self, key: &str) -> Option<String> {
        if let [name] = &self.systems.keys().collect::<Vec<_>>()[..] {
            return Some((*name).clone());
        }
        let owns = |system: &EmulatedSystem| {
            let rest = key.strip_prefix(&system.layout.system);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.systems.iter().find(|(_, system)| owns(system)).map(|(name, _)| name.clone())
    }

    fn allow(&self, key: &str) -> String {
        let mut allow = String::from("GET, HEAD");
        let system = self.system_of(key).and_then(|name| self.systems.get(&name));
        let is_collection = self.tree.view(key).is_some_and(|body| body.get("Members").is_some());
        if system.is_some_and(|system| self.vendor().accepts_patch(&system.layout, key))
            && !is_collection
        {
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

    fn no_such_method(&self, path: &str) -> EmulatorResponse {
        let key = self.tree.key(path).unwrap_or_else(|| path.to_owned());
        match self.shown(path, &[]) {
            Some(_) => not_allowed(&self.allow(&key)),
            None => not_found(path),
        }
    }

    fn patch(
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
        let in_post = |fault: &EmulatedFault| {
            let system = self.systems.get(&name);
            matches!(fault, EmulatedFault::Post { secs }
                if system.is_some_and(|system| system.is_in_post(*secs, self.now)))
        };
        if faults.iter().any(in_post) {
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
        vendor.patch(&mut machine, &ResourcePatch { path: key, body, view })
    }

    /// Postpones a request as a fault wants it. The inner value is the answer, if it differs from the usual one.
    fn postpone(
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
    fn task(&self, id: &str) -> Option<Value> {
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

    /// The name of the system that a path resets.
    fn reset_target(&self, path: &str) -> Option<String> {
        let of = path.strip_suffix("/Actions/ComputerSystem.Reset")?;
        let key = self.tree.key(of)?;
        self.systems
            .iter()
            .find(|(_, system)| system.layout.system == key)
            .map(|(name, _)| name.clone())
    }

    fn post(
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

    fn delete(&mut self, path: &str) -> EmulatorResponse {
        if let Some(id) = below(path, SESSIONS) {
            return if self.sessions.close(id) { no_content() } else { not_found(path) };
        }
        self.vendor_action(path, &Method::DELETE, &Map::new())
    }

    fn vendor_action(
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
            vendor.act(&mut machine, method, &key, body)
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

    /// Decides about a `ComputerSystem.Reset`.
    fn reset(
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

    fn open_session(
        &mut self,
        request: &EmulatorRequest<'_>,
        faults: &[EmulatedFault],
    ) -> EmulatorResponse {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Login {
            user_name: String,
            password: String,
        }
        if faults.contains(&EmulatedFault::SessionsOff) {
            return not_allowed("GET, HEAD");
        }
        let Ok(login) = serde_json::from_slice::<Login>(request.body) else { return malformed() };
        if !self.users.know(&login.user_name, &login.password) {
            return unauthorized();
        }
        self.end_idle_sessions();
        let full = faults.iter().any(|fault| matches!(fault, EmulatedFault::SessionsFull { .. }));
        let opened =
            if full { None } else { self.sessions.open(&login.user_name, request.fresh, self.now) };
        let Some(id) = opened else { return self.vendor().sessions_full() };
        let id = id.to_string();
        EmulatorResponse::new(StatusCode::CREATED, self.sessions.resource(&id))
            .with_header("Location", format!("{SESSIONS}/{id}"))
            .with_header("X-Auth-Token", request.fresh.to_owned())
    }

    /// GET, POST and DELETE of the fault rules. No fault applies to them.
    pub(super) fn answer_about_faults(
        &mut self,
        request: &EmulatorRequest<'_>,
    ) -> EmulatorResponse {
        if let Err(refused) = self.check_login(request, &[]) {
            return refused;
        }
        match *request.method {
            Method::GET | Method::HEAD => ok(faults::resource(self.faults.rules())),
            Method::POST => match serde_json::from_slice::<FaultRule>(request.body) {
                Ok(rule) => {
                    self.faults.add(rule);
                    let body = faults::resource(self.faults.rules());
                    EmulatorResponse::new(StatusCode::CREATED, Some(body))
                        .with_header("Location", FAULTS.to_owned())
                }
                Err(wrong) => bad_request("MalformedJSON", &format!("not a fault rule: {wrong}")),
            },
            Method::DELETE => {
                self.faults.set(Vec::new());
                no_content()
            }
            _ => not_allowed("GET, HEAD, POST, DELETE"),
        }
    }
}

/// The last part of a path right below another one.
fn below<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    let id = path.strip_prefix(folder)?.strip_prefix('/')?;
    (!id.is_empty() && !id.contains('/')).then_some(id)
}

/// A JSON object; an empty body is one without properties.
fn object(body: &[u8]) -> Option<Map<String, Value>> {
    if body.is_empty() {
        return Some(Map::new());
    }
    serde_json::from_slice(body).ok()
}
