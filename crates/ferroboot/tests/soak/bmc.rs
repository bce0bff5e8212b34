//! A scripted BMC: the emulator behind HTTP, and a machine that follows it; its platform, faults, and what boots leave.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Json, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, random};
use redfish::emulator::{
    EmulatedFault, Emulator, EmulatorRequest, EmulatorResponse, FaultRule, Platform, PowerEffect,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::machine::ScriptedMachine;
use crate::operator::BootKind;

pub(crate) const USERNAME: &str = "admin";
pub(crate) const PASSWORD: &str = "soak-bmc-password";
/// User name and password in base64.
const BASIC: &str = "Basic YWRtaW46c29hay1ibWMtcGFzc3dvcmQ=";
pub(crate) const SYSTEM: &str = "1";

/// The platform of the BMC of a machine: one that boots it as its node's boot interface has it.
pub(crate) fn platform_of(number: u8) -> Platform {
    let platforms: &[Platform] = match BootKind::of(number) {
        BootKind::BootSet => {
            &[Platform::DellIdrac9, Platform::Ami, Platform::HpeIlo5, Platform::Generic]
        }
        BootKind::OwnImage => {
            &[Platform::HpeIlo6, Platform::NvidiaBluefield, Platform::DellIdrac10]
        }
        BootKind::Dhcp => &[Platform::OpenBmc, Platform::HpeIlo5, Platform::Generic, Platform::Ami],
    };
    platforms[usize::from(number / 3) % platforms.len()]
}

/// A fault that a BMC recovers from.
pub(crate) fn some_fault(random: &mut StdRng) -> FaultRule {
    use EmulatedFault as Fault;
    let answer = |status, retry_after_secs| Fault::Answer {
        status,
        body: None,
        retry_after_secs,
        location: None,
    };
    let faults = [
        answer(503, Some(1)),
        answer(500, None),
        Fault::CutBefore,
        Fault::CutAfter,
        Fault::Body(json!("<html><title>The BMC is starting</title></html>")),
        Fault::Delay { millis: 700 },
        Fault::PowerLate { secs: 2, looks: 0 },
        Fault::PowerChanging { secs: 2 },
        Fault::Task { secs: 1 },
        Fault::Post { secs: 2 },
        Fault::SessionsFull { basic: false },
        Fault::BasicOff,
        Fault::WeakEtags,
        Fault::NoEtags,
        Fault::ChangingEtags,
    ];
    let fault = faults.choose(random).cloned().unwrap_or(Fault::CutAfter);
    let methods = [None, Some("GET"), Some("PATCH"), Some("POST")];
    let method = methods.choose(random).copied().flatten().map(str::to_owned);
    // A BMC shows one power state at a time.
    let is_of_power = matches!(fault, Fault::PowerLate { .. } | Fault::PowerChanging { .. });
    let rule = FaultRule { method, ..FaultRule::always(fault) };
    if !is_of_power && random.random_bool(0.5) { rule.every_second() } else { rule }
}

/// Ends all sessions, as a restart of the BMC does.
pub(crate) fn end_sessions(emulator: &mut Emulator, now: Duration) {
    const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
    let sessions = emulator.resource(SESSIONS).unwrap_or_default();
    for session in sessions["Members"].as_array().into_iter().flatten() {
        emulator.answer(&EmulatorRequest {
            method: &Method::DELETE,
            path: session["@odata.id"].as_str().unwrap_or_default(),
            authorization: Some(BASIC),
            session_token: None,
            if_match: None,
            body: b"",
            fresh: "",
            now,
        });
    }
}

/// What boots have left at a BMC whose machine is off: an override, a boot URL, an image, another order. A start applies
/// what waits for one.
pub(crate) fn left_by_boots(emulator: &mut Emulator, number: u8, mac: &str) -> Vec<String> {
    let mut untouched = Emulator::new(USERNAME, PASSWORD);
    untouched.add_system(SYSTEM, &[mac.to_owned()], platform_of(number));
    let (left, usual) = (state_after_start(emulator), state_after_start(&mut untouched));
    left.into_iter().filter(|property| !usual.contains(property)).collect()
}

/// The properties that a boot must leave as they were.
fn state_after_start(emulator: &mut Emulator) -> Vec<String> {
    let mut state = vec![format!("it boots {:?}", emulator.starts(SYSTEM, Duration::MAX))];
    emulator.stopped(SYSTEM, Duration::MAX);
    for (path, body) in emulator.resources() {
        let boot = &body["Boot"];
        let shown = [
            ("BootSourceOverrideEnabled", &boot["BootSourceOverrideEnabled"]),
            ("HttpBootUri", &boot["HttpBootUri"]),
            ("BootOrder", &boot["BootOrder"]),
            ("HttpDev1Uri", &body["Attributes"]["HttpDev1Uri"]),
            ("UrlBootFile", &body["Attributes"]["UrlBootFile"]),
            ("PersistentBootConfigOrder", &body["PersistentBootConfigOrder"]),
            ("Image", &body["Image"]),
        ];
        let is_set = |value: &Value| !value.is_null() && *value != "" && *value != "None";
        let set = shown.into_iter().filter(|(_, value)| is_set(value));
        state.extend(set.map(|(name, value)| format!("{path} shows {name} {value}")));
    }
    state
}

/// Serves the BMC of a machine at an address, until the runtime ends.
pub(crate) async fn start(at: SocketAddr, machine: Arc<ScriptedMachine>) {
    let listener = TcpListener::bind(at).await.unwrap();
    let app = Router::new().fallback(answer).with_state(machine);
    tokio::spawn(async move { axum::serve(listener, app).await });
}

/// On a separate task: a BMC finishes a request even if its client is gone.
async fn answer(State(machine): State<Arc<ScriptedMachine>>, request: Request) -> Response {
    tokio::spawn(answer_to_the_end(machine, request)).await.unwrap()
}

async fn answer_to_the_end(machine: Arc<ScriptedMachine>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    // An incomplete request of a killed client changes nothing.
    let Ok(body) = to_bytes(body, 64 * 1024).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let header = |headers: &HeaderMap, name: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let authorization = header(&head.headers, "authorization");
    let session_token = header(&head.headers, "x-auth-token");
    let if_match = header(&head.headers, "if-match");
    let (fresh, now) = (format!("{:032x}", random::<u128>()), machine.uptime());
    let request = EmulatorRequest {
        method: &head.method,
        path: head.uri.path(),
        authorization: authorization.as_deref(),
        session_token: session_token.as_deref(),
        if_match: if_match.as_deref(),
        body: &body,
        fresh: &fresh,
        now,
    };
    let response = answer_and_act(&machine, &request);
    sleep(response.delay).await;
    if response.cut {
        let cut = Err::<Bytes, _>(io::Error::other("the BMC closes the connection"));
        return Body::from_stream(futures::stream::iter([cut])).into_response();
    }
    let mut http = match response.body {
        Some(Value::String(page)) => (response.status, page).into_response(),
        Some(body) => (response.status, Json(body)).into_response(),
        None => response.status.into_response(),
    };
    for (name, value) in response.headers {
        http.headers_mut().insert(name, HeaderValue::from_str(&value).unwrap());
    }
    http
}

/// The emulator's answer, with its effect on the machine.
fn answer_and_act(
    machine: &Arc<ScriptedMachine>,
    request: &EmulatorRequest<'_>,
) -> EmulatorResponse {
    let now = request.now;
    let mut emulator = machine.emulator();
    let (response, effect) = emulator.answer(request);
    match effect {
        Some(PowerEffect::Start { system }) => {
            let next = emulator.starts(&system, now);
            machine.power_on(next);
        }
        Some(PowerEffect::Restart { system }) => {
            emulator.stopped(&system, now);
            machine.power_off();
            let next = emulator.starts(&system, now);
            machine.power_on(next);
        }
        Some(PowerEffect::Stop { system } | PowerEffect::ShutDown { system }) => {
            emulator.stopped(&system, now);
            machine.power_off();
        }
        Some(PowerEffect::Interrupt { .. }) | None => {}
    }
    response
}
