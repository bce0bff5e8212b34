//! Logins and sessions, and the resource with the fault rules.

use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;

use super::faults::{self, EmulatedFault, FAULTS, FaultRule};
use super::response::{
    EmulatorResponse, bad_request, malformed, no_content, not_allowed, ok, unauthorized,
};
use super::routes::SESSIONS;
use super::{Emulator, EmulatorRequest};

impl Emulator {
    pub(super) fn check_login(
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

    pub(super) fn open_session(
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
