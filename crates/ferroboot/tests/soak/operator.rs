//! A scripted operator of one node: cleans repeatedly, sometimes with an instance in between, and checks each result.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use reqwest::{Client, Url};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::agent::STEPS;
use crate::bmc;
use crate::machine::{MachineBoot, ScriptedMachine};
use crate::report::SoakReport;
use crate::world::{CALLBACK_TIMEOUT, FaultLog, OwnImages};

const API: &str = "http://127.0.0.1:6385";
/// Polling interval; the API has no way to wait for a change.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(150);
/// The longest delay until a daemon sees another daemon's changes.
const BEHIND: Duration = Duration::from_secs(1);
/// The time until other daemons take over the work of a dead daemon, with a margin for the take-over.
const WORK_RESTS: Duration = Duration::from_secs(60 + 15);
/// The states in which a daemon works on the node, without waiting for a machine.
const AT_WORK: [&str; 4] = ["verifying", "cleaning", "deploying", "deleting"];
/// The time limit of a procedure. Silence alone ends one sooner.
pub(crate) const ENDS_WITHIN: Duration = Duration::from_secs(3 * CALLBACK_TIMEOUT);

/// The boot image of a node's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BootKind {
    /// The boot set, through the BMC: the token is in the image.
    BootSet,
    /// An operator's image, through the BMC: the token comes with the lookup.
    OwnImage,
    /// The boot answer of DHCP.
    Dhcp,
}

impl BootKind {
    /// The boot kind of the node with this number.
    pub(crate) fn of(number: u8) -> Self {
        match number % 3 {
            0 => Self::OwnImage,
            1 => Self::BootSet,
            _ => Self::Dhcp,
        }
    }
}

pub(crate) struct ScriptedOperator {
    pub(crate) machine: Arc<ScriptedMachine>,
    pub(crate) bmc: SocketAddr,
    pub(crate) images: OwnImages,
    pub(crate) faults: FaultLog,
    pub(crate) report: SoakReport,
    /// The boot listeners of all daemons.
    boot_listeners: Vec<SocketAddr>,
    http: Client,
}

/// A started clean, with the facts for its check.
pub(crate) struct BegunClean {
    /// The node's states before and after it.
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    pub(crate) aborts: bool,
    /// The number of starts of its machine before the clean.
    pub(crate) first: usize,
    pub(crate) began: Instant,
}

/// The reason why a request failed.
pub(crate) enum ApiFailure {
    /// The service is unavailable, or refuses temporarily.
    Later(String),
    /// The service refuses.
    Refused(String),
}

impl fmt::Display for ApiFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Later(words) | Self::Refused(words) => f.write_str(words),
        }
    }
}

impl ScriptedOperator {
    pub(crate) fn new(
        machine: Arc<ScriptedMachine>,
        bmc: SocketAddr,
        images: OwnImages,
        boot_listeners: Vec<SocketAddr>,
        faults: FaultLog,
    ) -> Self {
        let http = Client::builder()
            .local_address(IpAddr::from(Ipv4Addr::new(127, 3, 0, machine.number)))
            .timeout(Duration::from_secs(15))
            .no_proxy()
            .build()
            .unwrap();
        let report = machine.report.clone();
        Self { machine, bmc, images, faults, report, boot_listeners, http }
    }

    pub(crate) fn node(&self) -> String {
        format!("soak-{}", self.machine.number)
    }

    /// Creates the node, and brings it to `manageable`.
    pub(crate) async fn enroll(&self) {
        let mut info = json!({
            "redfish_address": format!("http://{}", self.bmc),
            "redfish_username": bmc::USERNAME,
            "redfish_password": bmc::PASSWORD,
            "redfish_system_id": bmc::platform_of(self.machine.number).system_path(bmc::SYSTEM),
        });
        let kind = BootKind::of(self.machine.number);
        if kind == BootKind::OwnImage {
            info["deploy_iso"] = json!(self.images.agent_iso);
        }
        let boot_interface = if kind == BootKind::Dhcp { "http" } else { "redfish-https" };
        let node = json!({
            "name": self.node(), "driver": "redfish", "boot_interface": boot_interface, "driver_info": info,
            "deploy_interface": "ramdisk",
        });
        let node = self.must(Method::POST, "/v1/nodes", node).await;
        let port = json!({ "node_uuid": node["uuid"], "address": self.machine.mac });
        self.must(Method::POST, "/v1/ports", port).await;
        self.must(Method::PUT, &self.states("provision"), json!({ "target": "manage" })).await;
        self.await_state(&["manageable"], Duration::from_secs(30)).await.unwrap();
    }

    /// Cleans until `end`, with an instance every third time.
    pub(crate) async fn work(&self, end: &AtomicBool) {
        let mut round = u32::from(self.machine.number);
        while !end.load(Ordering::Relaxed) {
            round += 1;
            if round.is_multiple_of(3) {
                self.instance().await;
            } else {
                self.clean(round.is_multiple_of(16)).await;
            }
        }
    }

    /// Runs one clean; returns whether it succeeded.
    pub(crate) async fn clean(&self, aborts: bool) -> bool {
        let clean = self.clean_to_begin("manageable", "manageable", aborts);
        let steps: Vec<_> =
            STEPS.iter().map(|step| json!({ "interface": "deploy", "step": step })).collect();
        let target = json!({ "target": "clean", "clean_steps": steps });
        if !self.begin(&target, &["cleaning", "clean wait", "clean failed"]).await {
            return false;
        }
        self.report.count("cleans begun");
        if aborts {
            sleep(self.machine.millis(100..5_000)).await;
            self.abort().await;
        }
        self.end_clean(&clean).await
    }

    pub(crate) fn clean_to_begin(
        &self,
        from: &'static str,
        to: &'static str,
        aborts: bool,
    ) -> BegunClean {
        self.machine.may_be_cut(aborts);
        BegunClean { from, to, aborts, first: self.machine.boots(), began: Instant::now() }
    }

    /// Waits for the end of a clean, and brings the node to `manageable` if it failed.
    pub(crate) async fn end_clean(&self, clean: &BegunClean) -> bool {
        let node = match self.await_state(&[clean.to, "clean failed"], ENDS_WITHIN).await {
            Ok(node) => node,
            Err(last) => {
                self.report.broke(format!("{}: a clean does not end: {last}", self.node()));
                return false;
            }
        };
        let ended_well = node["provision_state"] == clean.to;
        self.judge_clean(&node, ended_well, clean).await;
        if !ended_well {
            self.recover().await;
        }
        ended_well
    }

    /// Repeats a request until the node's state shows its effect.
    pub(crate) async fn begin(&self, target: &Value, begun: &[&str]) -> bool {
        let until = Instant::now() + ENDS_WITHIN;
        loop {
            let asked = self.api(Method::PUT, &self.states("provision"), target).await;
            let Err(failed) = asked else { return true };
            if let ApiFailure::Refused(_) = failed {
                self.report.count("verbs that were refused");
            }
            // A lost answer may have been a success.
            if let Ok(node) = self.show().await
                && node["provision_state"].as_str().is_some_and(|state| begun.contains(&state))
            {
                return true;
            }
            if Instant::now() > until {
                let verb = &target["target"];
                self.report.broke(format!("{}: {verb} could not be begun: {failed}", self.node()));
                return false;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn abort(&self) {
        let abort = json!({ "target": "abort" });
        for _ in 0..20 {
            match self.api(Method::PUT, &self.states("provision"), &abort).await {
                Ok(_) => {
                    self.report.count("cleans aborted by an operator");
                    return;
                }
                // The clean has ended, or cannot be aborted yet.
                Err(ApiFailure::Refused(_)) => return,
                Err(ApiFailure::Later(_)) => sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Brings a node back to `manageable` after a failure.
    async fn recover(&self) {
        let until = Instant::now() + ENDS_WITHIN;
        loop {
            let manage = json!({ "target": "manage" });
            let managed = self.api(Method::PUT, &self.states("provision"), &manage).await;
            let node = self.show().await;
            if let Ok(node) = &node
                && node["provision_state"] == "manageable"
            {
                let path = format!("/v1/nodes/{}/maintenance", self.node());
                let _ = self.api(Method::DELETE, &path, &Value::Null).await;
                return;
            }
            if Instant::now() > until {
                let why = managed.err().map(|failed| failed.to_string());
                self.report.broke(format!("{}: it cannot be managed again: {why:?}", self.node()));
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn judge_clean(&self, node: &Value, ended_well: bool, clean: &BegunClean) {
        let boots = self.machine.boots_since(clean.first);
        let millis = u64::try_from(clean.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        if ended_well {
            self.report.count("cleans that ended well");
            self.report.most("longest clean that ended well, in ms", millis);
            for step in STEPS {
                let times = boots
                    .iter()
                    .flat_map(|boot| &boot.steps)
                    .filter(|run| run.step == step)
                    .count();
                if times != 1 {
                    self.report
                        .broke(format!("{}: {step} was run {times} times in a clean", self.node()));
                }
            }
            // Only the last start of a machine may have an agent with accepted heartbeats: the earlier ones were cut
            // off.
            if boots.iter().rev().skip(1).any(|boot| boot.is_heard) {
                self.report.broke(format!("{}: the power of a live agent was cut", self.node()));
            }
            self.judge_trace_of_clean(clean).await;
        } else {
            self.report.count("cleans that failed");
            let token_lost = boots.iter().any(|boot| boot.token_lost);
            self.judge_failure("a clean", node, clean.began, token_lost, clean.aborts);
        }
        let own = boots.iter().filter(|boot| boot.is_own || boot.url.is_none()).count();
        let switched_on = boots.len() - own;
        self.report.most("most starts of a machine for one clean", switched_on as u64);
        self.judge_tickets(&urls(&boots), Instant::now()).await;
    }

    /// Checks that an injected fault explains this failure.
    pub(crate) fn judge_failure(
        &self,
        what: &str,
        node: &Value,
        began: Instant,
        token_lost: bool,
        aborts: bool,
    ) {
        let error = node["last_error"].as_str().unwrap_or_default();
        match self.faults.explains(self.machine.number, began, error, token_lost, aborts) {
            Some(fault) => self.report.failed(&format!("{what}: {fault}: {error}")),
            None => self
                .report
                .broke(format!("{}: {what} failed without a fault: {error}", self.node())),
        }
    }

    /// Checks that the trace has every change of the node, also after a crash of a daemon.
    async fn judge_trace_of_clean(&self, clean: &BegunClean) {
        let Some((_, events)) = self.trace().await else { return };
        let mut missing = Vec::new();
        for step in STEPS {
            let is_end = |event: &Value| {
                text(event, "call") == "step_ended"
                    && text(event, "step").ends_with(step)
                    && text(event, "outcome") == "done"
            };
            if !events.iter().any(is_end) {
                missing.push(format!("the end of {step}"));
            }
        }
        let changes =
            [(clean.from, "cleaning"), ("cleaning", "clean wait"), ("cleaning", clean.to)];
        missing.extend(lacking(&events, &changes));
        self.judge_holes(&missing, &events, clean.began);
    }

    /// Checks that a trace has no holes.
    pub(crate) fn judge_holes(&self, missing: &[String], events: &[Value], began: Instant) {
        let times: Vec<_> = events.iter().map(|event| text(event, "at").to_owned()).collect();
        if !times.is_sorted() {
            self.report.count("traces out of the order of time");
        }
        self.report.count("traces read");
        if !missing.is_empty() && self.faults.had_outage(began) {
            // Events that wait in memory during an outage of the database are lost in a crash.
            self.report.count("traces with a hole after an outage of the database");
        } else if !missing.is_empty() {
            self.report.count("traces with a hole");
            self.report.broke(format!("{}: its trace lacks {}", self.node(), missing.join(", ")));
        }
    }

    /// The identity of the node's latest attempt, and what happened in it.
    pub(crate) async fn trace(&self) -> Option<(String, Vec<Value>)> {
        let path = format!("/v1/nodes/{}/boot-trace", self.node());
        let trace = self.patiently(Method::GET, &path).await?;
        let events = trace["events"].as_array().cloned().unwrap_or_default();
        Some((text(&trace["attempt"], "id").to_owned(), events))
    }

    /// Checks that no URL of an image works after the end of its attempt, on any daemon.
    pub(crate) async fn judge_tickets(&self, urls: &[String], over: Instant) {
        for url in urls {
            for listener in &self.boot_listeners {
                let mut url = Url::parse(url).unwrap();
                url.set_ip_host(listener.ip()).unwrap();
                url.set_port(Some(listener.port())).unwrap();
                if self.is_served(url, over).await {
                    self.report.count("tickets alive after the end of their attempt");
                    self.report.broke(format!(
                        "{}: a ticket is alive after its end at {listener}",
                        self.node()
                    ));
                } else {
                    self.report.count("tickets found dead after the end of their attempt");
                }
            }
        }
    }

    /// Whether a URL is served for longer than a daemon's lag behind the end of the attempt. A restarting daemon, or
    /// one that cannot read the database, gets more time.
    async fn is_served(&self, url: Url, over: Instant) -> bool {
        loop {
            let asked = Instant::now();
            let Ok(answer) = self.http.get(url.clone()).send().await else { return false };
            let is_served = answer.status().is_success();
            let is_late = asked.duration_since(over) > BEHIND && !self.faults.had_outage(over);
            if !is_served || is_late {
                return is_served;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Judges the node at rest.
    pub(crate) async fn judge_rest(&self) {
        let path = format!("/v1/nodes/{}", self.node());
        let Some(node) = self.patiently(Method::GET, &path).await else {
            self.report.broke(format!("{}: it cannot be read", self.node()));
            return;
        };
        if !node["reservation"].is_null() {
            self.report.count("locks left");
            self.report.broke(format!(
                "{}: it is still locked by {}",
                self.node(),
                node["reservation"]
            ));
        }
    }

    /// The node once it is in one of `states` without a worker; otherwise its last state.
    pub(crate) async fn await_state(
        &self,
        states: &[&str],
        within: Duration,
    ) -> Result<Value, String> {
        let until = Instant::now() + within;
        let mut last = String::new();
        let mut resting = RestingWork::default();
        loop {
            match self.show().await {
                Ok(node) => {
                    let state = node["provision_state"].as_str().unwrap_or_default();
                    if states.contains(&state) && node["reservation"].is_null() {
                        return Ok(node);
                    }
                    self.judge_rest_of_work(resting.look(&node));
                    last = format!(
                        "{state}, reservation {}, last_error {}, step {}",
                        node["reservation"], node["last_error"], node["clean_step"]["step"]
                    );
                }
                Err(failed) => last = format!("{last}; then {failed}"),
            }
            last.truncate(last.floor_char_boundary(600));
            let until = self.faults.last_kill().map_or(until, |kill| until.max(kill + within));
            if Instant::now() > until {
                return Err(last);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Checks that no work of a dead daemon waits longer than its lease.
    fn judge_rest_of_work(&self, (rests, is_new): (Duration, bool)) {
        let millis = u64::try_from(rests.as_millis()).unwrap_or(u64::MAX);
        self.report.most("longest work on a node without a change, in ms", millis);
        if is_new && rests > WORK_RESTS {
            self.report.broke(format!("{}: nobody works on it for {rests:?}", self.node()));
        }
    }

    pub(crate) async fn show(&self) -> Result<Value, ApiFailure> {
        self.api(Method::GET, &format!("/v1/nodes/{}", self.node()), &Value::Null).await
    }

    pub(crate) async fn patiently(&self, method: Method, path: &str) -> Option<Value> {
        for _ in 0..200 {
            if let Ok(value) = self.api(method.clone(), path, &Value::Null).await {
                return Some(value);
            }
            sleep(LOOK_EVERY).await;
        }
        None
    }

    async fn must(&self, method: Method, path: &str, body: Value) -> Value {
        match self.api(method, path, &body).await {
            Ok(value) => value,
            Err(failed) => panic!("{path}: {failed}"),
        }
    }

    pub(crate) async fn api(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<Value, ApiFailure> {
        let request = self
            .http
            .request(method, format!("{API}{path}"))
            .header("X-OpenStack-Ironic-API-Version", "1.90");
        let request = if body.is_null() { request } else { request.json(body) };
        let later = |error: reqwest::Error| ApiFailure::Later(error.to_string());
        let answer = request.send().await.map_err(later)?;
        let status = answer.status();
        let text = answer.text().await.map_err(later)?;
        if status.is_success() {
            return Ok(serde_json::from_str(&text).unwrap_or(Value::Null));
        }
        let words = format!("{status}: {}", text.chars().take(300).collect::<String>());
        // 409: a worker holds the node. 5xx: its database is unavailable, or its disk is full.
        if status.as_u16() == 409 || status.is_server_error() {
            if status.is_server_error() {
                self.report.count("requests to the API that got a server error");
            }
            return Err(ApiFailure::Later(words));
        }
        Err(ApiFailure::Refused(words))
    }

    pub(crate) fn states(&self, of: &str) -> String {
        format!("/v1/nodes/{}/states/{of}", self.node())
    }
}

/// The time since the last change of a node in work.
#[derive(Default)]
struct RestingWork {
    seen: Option<(Value, Instant)>,
    is_said: bool,
}

impl RestingWork {
    /// The time since the last change, and whether no longer rest of this state was reported before.
    fn look(&mut self, node: &Value) -> (Duration, bool) {
        let of = ["provision_state", "provision_updated_at", "clean_step"].map(|name| &node[name]);
        let shown = json!(of);
        match &self.seen {
            Some((before, since)) if *before == shown => {
                let is_at_work =
                    node["provision_state"].as_str().is_some_and(|it| AT_WORK.contains(&it));
                let rests = if is_at_work { since.elapsed() } else { Duration::ZERO };
                let is_new = !self.is_said;
                self.is_said = rests > WORK_RESTS;
                (rests, is_new)
            }
            Some(_) | None => {
                *self = Self { seen: Some((shown, Instant::now())), is_said: false };
                (Duration::ZERO, false)
            }
        }
    }
}

/// The state changes, as words, that are missing in a trace.
pub(crate) fn lacking(events: &[Value], changes: &[(&str, &str)]) -> Vec<String> {
    let is_missing = |(from, to): &&(&str, &str)| {
        !events.iter().any(|event| text(event, "from") == *from && text(event, "to") == *to)
    };
    changes.iter().filter(is_missing).map(|(from, to)| format!("{from} → {to}")).collect()
}

/// The boot URLs of a machine, without duplicates.
pub(crate) fn urls(boots: &[MachineBoot]) -> Vec<String> {
    let urls: BTreeSet<_> = boots.iter().filter_map(|boot| boot.url.clone()).collect();
    urls.into_iter().collect()
}

pub(crate) fn text<'a>(event: &'a Value, name: &str) -> &'a str {
    event[name].as_str().unwrap_or_default()
}
