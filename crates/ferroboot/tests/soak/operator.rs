//! A scripted operator of one node: it cleans again and again, and judges what came of each.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::agent::STEPS;
use crate::bmc;
use crate::machine::ScriptedMachine;
use crate::report::SoakReport;
use crate::world::{CALLBACK_TIMEOUT, FaultDiary};

const API: &str = "http://127.0.0.1:6385";
/// Between two looks at a node; the API has no way to wait for a change.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// How far a daemon may be behind what another one did.
const BEHIND: Duration = Duration::from_secs(1);
/// A clean that is not over by then is held up by something: silence alone ends one sooner.
const ENDS_WITHIN: Duration = Duration::from_secs(3 * CALLBACK_TIMEOUT);

/// What the machine of a node boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BootKind {
    /// The boot set, by the BMC: the token is in the image.
    BootSet,
    /// An image of the operator's, by the BMC: the token comes by the lookup.
    OwnImage,
    /// What DHCP says.
    Dhcp,
}

impl BootKind {
    /// Of the node of this number.
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
    pub(crate) own_image: String,
    pub(crate) diary: FaultDiary,
    report: SoakReport,
    http: Client,
}

/// Why a request had no effect.
enum ApiFailure {
    /// The service was away, or refuses for now.
    Later(String),
    /// It refuses.
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
        own_image: String,
        diary: FaultDiary,
    ) -> Self {
        let http = Client::builder()
            .local_address(IpAddr::from(Ipv4Addr::new(127, 3, 0, machine.number)))
            .timeout(Duration::from_secs(15))
            .no_proxy()
            .build()
            .unwrap();
        let report = machine.report.clone();
        Self { machine, bmc, own_image, diary, report, http }
    }

    fn node(&self) -> String {
        format!("soak-{}", self.machine.number)
    }

    /// Creates the node, and brings it to `manageable`.
    pub(crate) async fn enroll(&self) {
        let mut info = json!({
            "redfish_address": format!("http://{}", self.bmc),
            "redfish_username": bmc::USERNAME,
            "redfish_password": bmc::PASSWORD,
            "redfish_system_id": "/redfish/v1/Systems/1",
        });
        let kind = BootKind::of(self.machine.number);
        if kind == BootKind::OwnImage {
            info["deploy_iso"] = json!(self.own_image);
        }
        let boot_interface = if kind == BootKind::Dhcp { "http" } else { "redfish-https" };
        let node = json!({
            "name": self.node(), "driver": "redfish", "boot_interface": boot_interface, "driver_info": info,
        });
        let node = self.must(Method::POST, "/v1/nodes", node).await;
        let port = json!({ "node_uuid": node["uuid"], "address": self.machine.mac });
        self.must(Method::POST, "/v1/ports", port).await;
        self.must(Method::PUT, &self.states("provision"), json!({ "target": "manage" })).await;
        self.await_state(&["manageable"], Duration::from_secs(30)).await.unwrap();
    }

    /// Cleans until `end`.
    pub(crate) async fn work(&self, end: &AtomicBool) {
        let mut cleans = 0_u32;
        while !end.load(Ordering::Relaxed) {
            cleans += 1;
            let aborts = cleans.is_multiple_of(16);
            self.clean(aborts).await;
        }
    }

    /// One clean from its beginning to its end, and whether it ended well.
    pub(crate) async fn clean(&self, aborts: bool) -> bool {
        let (first, began) = (self.machine.boots(), Instant::now());
        self.machine.may_be_cut(aborts);
        if !self.begin().await {
            return false;
        }
        self.report.count("cleans begun");
        if aborts {
            sleep(self.machine.millis(100..5_000)).await;
            self.abort().await;
        }
        let node = match self.await_state(&["manageable", "clean failed"], ENDS_WITHIN).await {
            Ok(node) => node,
            Err(last) => {
                self.report.broke(format!("{}: a clean does not end: {last}", self.node()));
                return false;
            }
        };
        let ended_well = node["provision_state"] == "manageable";
        self.judge(&node, ended_well, aborts, first, began).await;
        if !ended_well {
            self.recover().await;
        }
        ended_well
    }

    /// Asks for a clean until one is under way.
    async fn begin(&self) -> bool {
        let steps: Vec<_> =
            STEPS.iter().map(|step| json!({ "interface": "deploy", "step": step })).collect();
        let target = json!({ "target": "clean", "clean_steps": steps });
        let until = Instant::now() + ENDS_WITHIN;
        loop {
            match self.api(Method::PUT, &self.states("provision"), &target).await {
                Ok(_) => return true,
                Err(failed) => {
                    if let ApiFailure::Refused(_) = failed {
                        self.report.count("requests to clean that were refused");
                    }
                    // An answer that got lost may have been a yes.
                    if let Ok(node) = self.show().await
                        && node["provision_state"]
                            .as_str()
                            .is_some_and(|it| it.starts_with("clean"))
                    {
                        return true;
                    }
                }
            }
            if Instant::now() > until {
                self.report.broke(format!("{}: no clean could be begun", self.node()));
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
                // It is over, or not far enough to be aborted.
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

    async fn judge(
        &self,
        node: &Value,
        ended_well: bool,
        aborts: bool,
        first: usize,
        began: Instant,
    ) {
        let boots = self.machine.boots_since(first);
        let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
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
            self.judge_trace(began).await;
        } else {
            let error = node["last_error"].as_str().unwrap_or_default().to_owned();
            self.report.count("cleans that failed");
            let token_lost = boots.iter().any(|boot| boot.token_lost);
            match self.diary.explains(self.machine.number, began, &error, token_lost, aborts) {
                Some(fault) => self.report.failed(&format!("{fault}: {error}")),
                None => self
                    .report
                    .broke(format!("{}: a clean failed without a fault: {error}", self.node())),
            }
        }
        let switched_on = boots.iter().filter(|boot| boot.url.is_some()).count();
        self.report.most("most starts of a machine for one clean", switched_on as u64);
        self.judge_tickets(&boots.iter().filter_map(|boot| boot.url.clone()).collect::<Vec<_>>())
            .await;
    }

    /// What changed the node is in its trace, whatever was lost at the end of a daemon's life.
    async fn judge_trace(&self, began: Instant) {
        let path = format!("/v1/nodes/{}/boot-trace", self.node());
        let Some(trace) = self.patiently(Method::GET, &path).await else { return };
        let events = trace["events"].as_array().cloned().unwrap_or_default();
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
        for (from, to) in
            [("manageable", "cleaning"), ("cleaning", "clean wait"), ("cleaning", "manageable")]
        {
            if !events.iter().any(|event| text(event, "from") == from && text(event, "to") == to) {
                missing.push(format!("{from} → {to}"));
            }
        }
        let times: Vec<_> = events.iter().map(|event| text(event, "at").to_owned()).collect();
        if !times.is_sorted() {
            self.report.count("traces out of the order of time");
        }
        self.report.count("traces read");
        if !missing.is_empty() && self.diary.had_outage(began) {
            // What waits in memory for a database that cannot be written is lost in a crash.
            self.report.count("traces with a hole after an outage of the database");
        } else if !missing.is_empty() {
            self.report.count("traces with a hole");
            self.report.broke(format!("{}: its trace lacks {}", self.node(), missing.join(", ")));
        }
    }

    /// Nothing that led to an image before leads to one after the end.
    async fn judge_tickets(&self, urls: &[String]) {
        let over = Instant::now();
        for url in urls {
            if self.is_served(url, over).await {
                self.report.count("tickets alive after the end of their attempt");
                self.report.broke(format!("{}: a ticket is alive after its clean", self.node()));
            } else {
                self.report.count("tickets found dead after the end of their attempt");
            }
        }
    }

    /// Whether a URL is served for longer than a daemon may be behind the one that ended its attempt. A daemon that starts
    /// anew in the meantime, or cannot read the database, is waited for.
    async fn is_served(&self, url: &str, over: Instant) -> bool {
        loop {
            let asked = Instant::now();
            let Ok(answer) = self.http.get(url).send().await else { return false };
            let is_served = answer.status().is_success();
            let is_late = asked.duration_since(over) > BEHIND && !self.diary.had_outage(over);
            if !is_served || is_late {
                return is_served;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// The node at rest.
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

    /// The node once it is in one of `states` and nobody works on it; else what it was last.
    async fn await_state(&self, states: &[&str], within: Duration) -> Result<Value, String> {
        let until = Instant::now() + within;
        let mut last = String::new();
        loop {
            match self.show().await {
                Ok(node) => {
                    let state = node["provision_state"].as_str().unwrap_or_default();
                    if states.contains(&state) && node["reservation"].is_null() {
                        return Ok(node);
                    }
                    last = format!(
                        "{state}, reservation {}, last_error {}, step {}",
                        node["reservation"], node["last_error"], node["clean_step"]["step"]
                    );
                }
                Err(failed) => last = format!("{last}; then {failed}"),
            }
            last.truncate(last.floor_char_boundary(600));
            let until = self.diary.last_kill().map_or(until, |kill| until.max(kill + within));
            if Instant::now() > until {
                return Err(last);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn show(&self) -> Result<Value, ApiFailure> {
        self.api(Method::GET, &format!("/v1/nodes/{}", self.node()), &Value::Null).await
    }

    async fn patiently(&self, method: Method, path: &str) -> Option<Value> {
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

    async fn api(&self, method: Method, path: &str, body: &Value) -> Result<Value, ApiFailure> {
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
        // 409: somebody works on the node. 5xx: its database is away, or its disk is full.
        if status.as_u16() == 409 || status.is_server_error() {
            if status.is_server_error() {
                self.report.count("requests to the API that got a server error");
            }
            return Err(ApiFailure::Later(words));
        }
        Err(ApiFailure::Refused(words))
    }

    fn states(&self, of: &str) -> String {
        format!("/v1/nodes/{}/states/{of}", self.node())
    }
}

fn text<'a>(event: &'a Value, name: &str) -> &'a str {
    event[name].as_str().unwrap_or_default()
}
