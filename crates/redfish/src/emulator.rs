//! A BMC emulator: a function from request to response, with the effect on the machine.
//!
//! [`Emulator::answer`] decides; the owner of the machines performs its [`PowerEffect`], and reports with
//! [`Emulator::starts`] and [`Emulator::stopped`].

mod resources;
mod response;
mod system;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use subtle::ConstantTimeEq as _;

pub use self::response::EmulatorResponse;
use self::response::{error, malformed, no_content, not_found, ok, unauthorized};
use self::system::{BootSourceOverrideEnabled, EmulatedOverride, EmulatedSystem, RESETS};
pub use self::system::{EmulatedPower, NextBoot, Personality};

/// A BMC with its systems, users and sessions.
#[derive(Debug)]
pub struct Emulator {
    username: String,
    password: String,
    systems: BTreeMap<String, EmulatedSystem>,
    /// Session id → token.
    sessions: BTreeMap<String, String>,
    next_session: u64,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct EmulatorRequest<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its path, without the query.
    pub path: &'a str,
    /// `Authorization`.
    pub authorization: Option<&'a str>,
    /// `X-Auth-Token`.
    pub session_token: Option<&'a str>,
    /// `If-Match`.
    pub if_match: Option<&'a str>,
    /// Its body.
    pub body: &'a [u8],
    /// Random text, used if the request opens a session.
    pub fresh: &'a str,
}

/// The effect on a machine before the response is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PowerEffect {
    /// Power on.
    Start {
        /// The system.
        system: String,
    },
    /// Power off at once.
    Stop {
        /// The system.
        system: String,
    },
    /// The power button: the running system shuts down.
    ShutDown {
        /// The system.
        system: String,
    },
    /// Off and on.
    Restart {
        /// The system.
        system: String,
    },
}

impl Emulator {
    /// A BMC without systems, with its only user.
    #[must_use]
    pub fn new(username: &str, password: &str) -> Self {
        Self {
            username: username.to_owned(),
            password: password.to_owned(),
            systems: BTreeMap::new(),
            sessions: BTreeMap::new(),
            next_session: 1,
        }
    }

    /// Adds a machine, switched off. `id` is the last part of its path.
    pub fn add_system(&mut self, id: &str, macs: &[String], personality: Personality) {
        let boot = EmulatedOverride {
            enabled: BootSourceOverrideEnabled::Disabled,
            target: "None".into(),
            http_boot_uri: None,
        };
        let system = EmulatedSystem {
            macs: macs.to_vec(),
            personality,
            power: EmulatedPower::Off,
            stale_power_looks: 0,
            boot,
            changes: 0,
        };
        self.systems.insert(id.to_owned(), system);
    }

    /// The power state of a system, if it exists.
    #[must_use]
    pub fn power(&self, system: &str) -> Option<EmulatedPower> {
        self.systems.get(system).map(|system| system.power)
    }

    /// Records the start of a machine, by a reset here or by itself. Returns its boot target, and consumes an
    /// override that is for one boot.
    pub fn starts(&mut self, system: &str) -> Option<NextBoot> {
        let system = self.systems.get_mut(system)?;
        system.turn(EmulatedPower::On);
        let next = system.boot.next();
        if system.boot.enabled == BootSourceOverrideEnabled::Once {
            system.boot.enabled = BootSourceOverrideEnabled::Disabled;
        }
        Some(next)
    }

    /// Records that a machine has gone off, by a reset here or by itself.
    pub fn stopped(&mut self, system: &str) {
        if let Some(system) = self.systems.get_mut(system) {
            system.turn(EmulatedPower::Off);
        }
    }

    /// Answers a request; never panics.
    pub fn answer(
        &mut self,
        request: &EmulatorRequest<'_>,
    ) -> (EmulatorResponse, Option<PowerEffect>) {
        let path = request.path.trim_end_matches('/');
        let parts: Vec<_> = path.split('/').skip(1).collect();
        // DSP0266 §13.3: the service root, and creating a session, need no login.
        let open = matches!(
            (request.method, &parts[..]),
            (&Method::GET, ["redfish"] | ["redfish", "v1"])
                | (&Method::POST, ["redfish", "v1", "SessionService", "Sessions"])
        );
        if !open && !self.knows(request) {
            return (unauthorized(), None);
        }
        match (request.method, &parts[..]) {
            (&Method::GET | &Method::HEAD, parts) => (self.get(parts), None),
            (&Method::PATCH, ["redfish", "v1", "Systems", id]) => (self.patch(id, request), None),
            (
                &Method::POST,
                ["redfish", "v1", "Systems", id, "Actions", "ComputerSystem.Reset"],
            ) => self.reset(id, request.body),
            (&Method::POST, ["redfish", "v1", "SessionService", "Sessions"]) => {
                (self.open_session(request), None)
            }
            (&Method::DELETE, ["redfish", "v1", "SessionService", "Sessions", id]) => {
                (self.close_session(id), None)
            }
            (_, parts) => match self.resource(parts) {
                Some(_) => (
                    error(
                        StatusCode::METHOD_NOT_ALLOWED,
                        "OperationNotAllowed",
                        "The HTTP method is not allowed on this resource.",
                    ),
                    None,
                ),
                None => (not_found(request.path), None),
            },
        }
    }

    /// The resource at a path, by its parts; `None` where there is none.
    fn resource(&self, parts: &[&str]) -> Option<Value> {
        match parts {
            ["redfish"] => Some(resources::versions()),
            ["redfish", "v1", rest @ ..] => match rest {
                [] => Some(resources::root()),
                ["Systems"] => Some(resources::systems(&self.ids())),
                ["Systems", id] => Some(resources::system(id, self.systems.get(*id)?)),
                ["Systems", id, "EthernetInterfaces"] => {
                    Some(resources::nics(id, self.systems.get(*id)?))
                }
                ["Systems", id, "EthernetInterfaces", nic] => {
                    let mac = self.systems.get(*id)?.macs.get(nic.parse::<usize>().ok()?)?;
                    Some(resources::interface(id, nic, mac))
                }
                ["Systems", id, "ResetActionInfo"] => {
                    self.systems.get(*id).map(|_| resources::reset_action_info(id))
                }
                ["Managers"] => {
                    Some(resources::collection("Managers", "Manager", &["1".to_owned()]))
                }
                ["Managers", "1"] => Some(resources::manager(&self.ids())),
                ["Chassis"] => Some(resources::collection("Chassis", "Chassis", &["1".to_owned()])),
                ["Chassis", "1"] => Some(resources::chassis(&self.ids())),
                ["SessionService"] => Some(resources::session_service()),
                ["SessionService", "Sessions"] => {
                    let ids: Vec<_> = self.sessions.keys().cloned().collect();
                    Some(resources::collection("SessionService/Sessions", "Session", &ids))
                }
                ["SessionService", "Sessions", id] => {
                    self.sessions.get(*id).map(|_| resources::session(id, &self.username))
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn ids(&self) -> Vec<String> {
        self.systems.keys().cloned().collect()
    }

    fn knows(&self, request: &EmulatorRequest<'_>) -> bool {
        if let Some(token) = request.session_token {
            return self.sessions.values().any(|known| same(known, token));
        }
        let Some(encoded) = request.authorization.and_then(|auth| auth.strip_prefix("Basic "))
        else {
            return false;
        };
        let Ok(decoded) = BASE64_STANDARD.decode(encoded.trim()) else { return false };
        let wanted = format!("{}:{}", self.username, self.password);
        String::from_utf8(decoded).is_ok_and(|given| same(&wanted, &given))
    }

    fn get(&mut self, parts: &[&str]) -> EmulatorResponse {
        match self.resource(parts) {
            Some(body) => {
                if let ["redfish", "v1", "Systems", id] = parts {
                    self.was_looked_at(id);
                }
                let etag = body["@odata.etag"].as_str().map(|etag| ("ETag", etag.to_owned()));
                EmulatorResponse { headers: etag.into_iter().collect(), ..ok(body) }
            }
            None => not_found(&format!("/{}", parts.join("/"))),
        }
    }

    fn was_looked_at(&mut self, id: &str) {
        if let Some(system) = self.systems.get_mut(id) {
            system.stale_power_looks = system.stale_power_looks.saturating_sub(1);
        }
    }

    fn patch(&mut self, id: &str, request: &EmulatorRequest<'_>) -> EmulatorResponse {
        let Some(system) = self.systems.get_mut(id) else { return not_found(request.path) };
        if let Some(wanted) = request.if_match
            && wanted != "*"
            && (wanted != system.etag() || wanted.starts_with("W/"))
        {
            return error(
                StatusCode::PRECONDITION_FAILED,
                "PreconditionFailed",
                "The ETag supplied did not match the current ETag of the resource.",
            );
        }
        match system.patched(request.body) {
            Err(response) => response,
            Ok(boot) => {
                if !system.personality.forgets_override {
                    system.boot = boot;
                }
                system.changes += 1;
                no_content()
            }
        }
    }

    fn reset(&mut self, id: &str, body: &[u8]) -> (EmulatorResponse, Option<PowerEffect>) {
        let Some(system) = self.systems.get(id) else { return (not_found(id), None) };
        let body: Value = match serde_json::from_slice(body) {
            Ok(body) => body,
            Err(_) => return (malformed(), None),
        };
        let Some(wanted) = body["ResetType"].as_str() else {
            let missing = "The action ComputerSystem.Reset requires the parameter ResetType.";
            return (error(StatusCode::BAD_REQUEST, "ActionParameterMissing", missing), None);
        };
        let id = id.to_owned();
        let effect = match (wanted, system.power) {
            ("On" | "ForceOn", EmulatedPower::Off) => PowerEffect::Start { system: id },
            ("ForceOff", EmulatedPower::On) => PowerEffect::Stop { system: id },
            ("GracefulShutdown", EmulatedPower::On) => PowerEffect::ShutDown { system: id },
            ("ForceRestart" | "GracefulRestart", EmulatedPower::On) => {
                PowerEffect::Restart { system: id }
            }
            ("On" | "ForceOn", EmulatedPower::On)
            | ("ForceOff" | "GracefulShutdown", EmulatedPower::Off) => return (no_content(), None),
            ("ForceRestart" | "GracefulRestart", EmulatedPower::Off) => {
                let off = "The machine is off and cannot be restarted.";
                return (error(StatusCode::CONFLICT, "ResourceInUse", off), None);
            }
            (other, EmulatedPower::On | EmulatedPower::Off) => {
                let unknown = format!(
                    "The value {other:?} for the parameter ResetType is not in the list of \
                     acceptable values: {}.",
                    RESETS.join(", ")
                );
                return (
                    error(StatusCode::BAD_REQUEST, "ActionParameterNotSupported", &unknown),
                    None,
                );
            }
        };
        (no_content(), Some(effect))
    }

    fn open_session(&mut self, request: &EmulatorRequest<'_>) -> EmulatorResponse {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Login {
            user_name: String,
            password: String,
        }
        let Ok(login) = serde_json::from_slice::<Login>(request.body) else { return malformed() };
        if !same(&login.user_name, &self.username) || !same(&login.password, &self.password) {
            return unauthorized();
        }
        let id = self.next_session.to_string();
        self.next_session += 1;
        self.sessions.insert(id.clone(), request.fresh.to_owned());
        let location = format!("/redfish/v1/SessionService/Sessions/{id}");
        EmulatorResponse {
            status: StatusCode::CREATED,
            headers: vec![("Location", location), ("X-Auth-Token", request.fresh.to_owned())],
            body: Some(resources::session(&id, &self.username)),
        }
    }

    fn close_session(&mut self, id: &str) -> EmulatorResponse {
        match self.sessions.remove(id) {
            Some(_) => no_content(),
            None => not_found(id),
        }
    }
}

/// Compares in constant time.
fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const BASIC: &str = "Basic YWRtaW46c2VjcmV0";

    fn emulator() -> Emulator {
        let mut emulator = Emulator::new("admin", "secret");
        emulator.add_system("1", &["52:54:00:00:00:01".to_owned()], Personality::default());
        emulator
    }

    fn request<'a>(method: &'a Method, path: &'a str, body: &'a [u8]) -> EmulatorRequest<'a> {
        EmulatorRequest {
            method,
            path,
            authorization: Some(BASIC),
            session_token: None,
            if_match: None,
            body,
            fresh: "fresh",
        }
    }

    #[test]
    fn everything_that_the_root_leads_to_is_there() {
        let emulator = emulator();
        let mut open = vec!["/redfish/v1".to_owned()];
        let mut seen = Vec::new();
        while let Some(path) = open.pop() {
            let parts: Vec<_> = path.split('/').skip(1).collect();
            let body = emulator.resource(&parts).unwrap_or_else(|| panic!("{path} is missing"));
            seen.push(path);
            links(&body, &mut |link| {
                if !seen.contains(&link) && !open.contains(&link) {
                    open.push(link);
                }
            });
        }
        seen.sort();
        insta::assert_snapshot!(seen.join("\n"));
    }

    fn links(value: &Value, found: &mut impl FnMut(String)) {
        if let Some(link) = value["@odata.id"].as_str() {
            found(link.trim_end_matches('/').to_owned());
        }
        let (object, array) = (value.as_object(), value.as_array());
        object.into_iter().flat_map(|object| object.values()).for_each(|value| links(value, found));
        array.into_iter().flatten().for_each(|value| links(value, found));
    }

    #[test]
    fn a_system_looks_like_this() {
        let emulator = emulator();
        insta::assert_json_snapshot!(emulator.resource(&["redfish", "v1", "Systems", "1"]));
    }

    #[test]
    fn an_override_for_once_is_used_up_by_one_start() {
        let mut emulator = emulator();
        let body = br#"{"Boot": {"BootSourceOverrideEnabled": "Once",
            "BootSourceOverrideTarget": "UefiHttp", "HttpBootUri": "http://a/b.efi"}}"#;
        emulator.answer(&request(&Method::PATCH, "/redfish/v1/Systems/1", body));

        assert_eq!(emulator.starts("1"), Some(NextBoot::Url("http://a/b.efi".into())));
        assert_eq!(emulator.starts("1"), Some(NextBoot::Usual));
    }

    #[test]
    fn nothing_but_the_root_is_shown_to_strangers() {
        let mut emulator = emulator();
        for (path, status) in [("/redfish/v1/", 200), ("/redfish/v1/Systems/1", 401)] {
            let stranger =
                EmulatorRequest { authorization: None, ..request(&Method::GET, path, b"") };

            assert_eq!(emulator.answer(&stranger).0.status.as_u16(), status, "{path}");
        }
    }

    #[test]
    fn a_session_is_good_until_it_is_closed() {
        let mut emulator = emulator();
        let login = br#"{"UserName": "admin", "Password": "secret"}"#;
        let sessions = "/redfish/v1/SessionService/Sessions";
        let (opened, _) = emulator.answer(&request(&Method::POST, sessions, login));
        assert_eq!(opened.status, StatusCode::CREATED);
        let with_token = EmulatorRequest {
            authorization: None,
            session_token: Some("fresh"),
            ..request(&Method::GET, "/redfish/v1/Systems", b"")
        };
        assert_eq!(emulator.answer(&with_token).0.status, StatusCode::OK);

        emulator.answer(&request(&Method::DELETE, &format!("{sessions}/1"), b""));

        assert_eq!(emulator.answer(&with_token).0.status, StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn a_stale_etag_changes_nothing() {
        let mut emulator = emulator();
        emulator.starts("1");
        let body = br#"{"Boot": {"BootSourceOverrideTarget": "Pxe"}}"#;
        let patch = request(&Method::PATCH, "/redfish/v1/Systems/1", body);

        let (response, _) = emulator.answer(&EmulatorRequest { if_match: Some("\"0\""), ..patch });

        assert_eq!(response.status, StatusCode::PRECONDITION_FAILED);
    }

    #[test]
    fn a_wrong_method_is_not_a_missing_resource() {
        let mut emulator = emulator();
        let status = |emulator: &mut Emulator, path| {
            emulator.answer(&request(&Method::DELETE, path, b"")).0.status.as_u16()
        };

        assert_eq!(status(&mut emulator, "/redfish/v1/Systems/1"), 405);
        assert_eq!(status(&mut emulator, "/redfish/v1/Systems/2"), 404);
    }

    proptest! {
        #[test]
        fn no_request_makes_it_panic(
            method in prop::sample::select(vec![
                Method::GET, Method::POST, Method::PATCH, Method::DELETE, Method::PUT,
            ]),
            path in "/?(redfish/v1)?(/Systems/1)?(/Actions/ComputerSystem.Reset|/SessionService/Sessions)?.{0,20}",
            body: Vec<u8>,
        ) {
            let (response, _) = emulator().answer(&request(&method, &path, &body));
            prop_assert!(response.status.as_u16() >= 200);
        }

        #[test]
        fn a_refused_patch_leaves_the_override_as_it_was(
            property in "(BootSourceOverrideEnabled|BootSourceOverrideTarget|HttpBootUri|X)",
            value in "[a-zA-Z:/.]{0,12}",
        ) {
            let mut emulator = emulator();
            let before = emulator.systems["1"].boot.clone();
            let body = json!({"Boot": {"BootSourceOverrideTarget": "Pxe", (property): value}});
            let body = body.to_string();
            let patch = request(&Method::PATCH, "/redfish/v1/Systems/1", body.as_bytes());
            let (response, _) = emulator.answer(&patch);
            if !response.status.is_success() {
                prop_assert_eq!(&emulator.systems["1"].boot, &before);
            }
        }
    }
}
