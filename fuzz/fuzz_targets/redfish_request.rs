//! The BMC emulator answers any requests, one after the other, on each platform, in a form that a client can parse.
//!
//! The first byte chooses the platform. The rest is text: a line `METHOD PATH` and a body, requests separated by a NUL.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use redfish::emulator::{Emulator, EmulatorRequest, Platform, PowerEffect};

fuzz_target!(|bytes: &[u8]| {
    let Some((chosen, bytes)) = bytes.split_first() else { return };
    let platform = Platform::ALL[usize::from(*chosen) % Platform::ALL.len()];
    let mut emulator = Emulator::new("admin", "secret");
    emulator.add_system("1", &["52:54:00:00:00:01".to_owned()], platform);
    for (number, request) in (0..).zip(bytes.split(|byte| *byte == 0).take(8)) {
        let now = Duration::from_secs(number);
        let mut lines = request.splitn(2, |byte| *byte == b'\n');
        let line = lines.next().and_then(|line| std::str::from_utf8(line).ok());
        let Some((method, path)) = line.and_then(|line| line.split_once(' ')) else { continue };
        let Ok(method) = http::Method::from_bytes(method.as_bytes()) else { continue };
        let body = lines.next().unwrap_or_default();
        let request = EmulatorRequest {
            method: &method,
            path,
            authorization: Some("Basic YWRtaW46c2VjcmV0"),
            session_token: None,
            if_match: Some("*"),
            body,
            fresh: "fresh",
            now,
        };
        let (response, effect) = emulator.answer(&request);
        let is_good = response.cut || response.status.is_success();
        assert!(is_good || response.body.is_some(), "an error in words");
        match effect {
            Some(PowerEffect::Start { system } | PowerEffect::Restart { system }) => {
                assert!(emulator.starts(&system, now).is_some(), "it starts a system that is there");
            }
            Some(PowerEffect::Stop { system } | PowerEffect::ShutDown { system }) => {
                emulator.stopped(&system, now);
            }
            Some(PowerEffect::Interrupt { .. }) | None => {}
        }
    }
});
