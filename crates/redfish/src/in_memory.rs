//! The emulator behind [`BmcChannel`], for tests without sockets and without time.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use hardware::HttpMethod;
use http::Method;
use serde_json::Value;
use url::Url;

use crate::channel::{BmcChannel, ChannelFailure, RedfishAnswer, RedfishRequest};
use crate::emulator::{
    EmulatedPower, Emulator, EmulatorRequest, EmulatorResponse, FaultRule, NextBoot, Platform,
    PowerEffect, RecordedTree,
};

/// The address of the card of the only machine.
pub(crate) const MAC: &str = "52:54:00:00:00:01";
const NAME: &str = "1";

/// A BMC with one machine, which starts at once and never ends by itself.
pub(crate) struct InMemoryBmc {
    address: Url,
    inside: Mutex<Inside>,
}

struct Inside {
    emulator: Emulator,
    now: Duration,
    booted: Option<NextBoot>,
    requests: Vec<String>,
}

impl InMemoryBmc {
    pub(crate) fn new(platform: Platform) -> Self {
        Self::with_cards(platform, &[MAC])
    }

    /// A BMC whose machine has these cards.
    pub(crate) fn with_cards(platform: Platform, macs: &[&str]) -> Self {
        let macs: Vec<_> = macs.iter().map(|mac| (*mac).to_owned()).collect();
        let mut emulator = Emulator::new("admin", "secret");
        emulator.add_system(NAME, &macs, platform);
        Self::of(emulator)
    }

    /// A BMC that shows these resources.
    pub(crate) fn recorded(bodies: impl IntoIterator<Item = (String, Value)>) -> Self {
        let mut emulator = Emulator::new("admin", "secret");
        emulator.show_recorded(NAME, &RecordedTree::new(bodies));
        Self::of(emulator)
    }

    fn of(emulator: Emulator) -> Self {
        let inside = Inside { emulator, now: Duration::ZERO, booted: None, requests: Vec::new() };
        let address = Url::parse("https://bmc.example").unwrap();
        Self { address, inside: Mutex::new(inside) }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap()
    }

    pub(crate) fn with_faults(self, rules: Vec<FaultRule>) -> Self {
        self.inside().emulator.set_faults(rules);
        self
    }

    pub(crate) fn power(&self) -> EmulatedPower {
        self.inside().emulator.power(NAME).unwrap()
    }

    /// What the machine was last started from.
    pub(crate) fn booted(&self) -> Option<NextBoot> {
        self.inside().booted.clone()
    }

    /// All requests so far, as method and path.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.inside().requests.clone()
    }

    /// The time that was waited.
    pub(crate) fn waited(&self) -> Duration {
        self.inside().now
    }

    /// A resource, without faults.
    pub(crate) fn resource(&self, path: &str) -> Value {
        self.inside().emulator.resource(path).unwrap_or_default()
    }

    /// All resources, without faults.
    pub(crate) fn resources(&self) -> BTreeMap<String, Value> {
        self.inside().emulator.resources()
    }

    /// Waits. What the BMC does later in this time, it has done.
    pub(crate) fn let_pass(&self, how_long: Duration) {
        let inside = &mut *self.inside();
        inside.now += how_long;
        let root = EmulatorRequest {
            method: &Method::GET,
            path: "/redfish/v1",
            authorization: None,
            session_token: None,
            if_match: None,
            body: b"",
            fresh: "fresh",
            now: inside.now,
        };
        while let (_, Some(effect)) = inside.emulator.answer(&root) {
            inside.carry_out(effect);
        }
    }

    /// Switches the machine off, by its button.
    pub(crate) fn press_off(&self) {
        let inside = &mut *self.inside();
        inside.emulator.stopped(NAME, inside.now);
    }

    /// Switches the machine on, by its button.
    pub(crate) fn press_on(&self) {
        let inside = &mut *self.inside();
        inside.booted = inside.emulator.starts(NAME, inside.now);
    }
}

impl Inside {
    fn exchange(&mut self, request: &RedfishRequest) -> Result<RedfishAnswer, ChannelFailure> {
        self.requests.push(format!("{} {}", request.method.as_str(), request.path));
        let body = request.body.as_ref().map(Value::to_string).unwrap_or_default();
        let method = match &request.method {
            HttpMethod::Get => Method::GET,
            HttpMethod::Patch => Method::PATCH,
            HttpMethod::Post => Method::POST,
            HttpMethod::Delete => Method::DELETE,
            HttpMethod::Head | HttpMethod::Put | HttpMethod::Unusual(_) => {
                panic!("the client makes no such request: {request:?}")
            }
        };
        let asked = EmulatorRequest {
            method: &method,
            path: &request.path,
            // `admin:secret`.
            authorization: Some("Basic YWRtaW46c2VjcmV0"),
            session_token: None,
            if_match: request.if_match.as_deref(),
            body: body.as_bytes(),
            fresh: "fresh",
            now: self.now,
        };
        let (response, effect) = self.emulator.answer(&asked);
        if let Some(effect) = effect {
            self.carry_out(effect);
        }
        self.now += response.delay;
        answer_of(response)
    }

    fn carry_out(&mut self, effect: PowerEffect) {
        match effect {
            PowerEffect::Start { .. } => self.booted = self.emulator.starts(NAME, self.now),
            PowerEffect::Stop { .. } | PowerEffect::ShutDown { .. } => {
                self.emulator.stopped(NAME, self.now);
            }
            PowerEffect::Restart { .. } => {
                self.emulator.stopped(NAME, self.now);
                self.booted = self.emulator.starts(NAME, self.now);
            }
            PowerEffect::Interrupt { .. } => {}
        }
    }
}

fn answer_of(response: EmulatorResponse) -> Result<RedfishAnswer, ChannelFailure> {
    if response.cut {
        return Err(ChannelFailure::BrokeOff("connection closed".to_owned()));
    }
    let header = |wanted: &str| {
        let found = response.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.clone())
    };
    let seconds = header("Retry-After").and_then(|text| text.parse().ok());
    Ok(RedfishAnswer {
        status: response.status,
        etag: header("ETag"),
        location: header("Location"),
        retry_after: seconds.map(Duration::from_secs),
        body: match &response.body {
            None => Vec::new(),
            Some(Value::String(text)) => text.clone().into_bytes(),
            Some(body) => body.to_string().into_bytes(),
        },
    })
}

impl BmcChannel for InMemoryBmc {
    fn address(&self) -> &Url {
        &self.address
    }

    async fn exchange(&self, request: &RedfishRequest) -> Result<RedfishAnswer, ChannelFailure> {
        self.inside().exchange(request)
    }

    async fn pause(&self, how_long: Duration) {
        self.inside().now += how_long;
    }
}
