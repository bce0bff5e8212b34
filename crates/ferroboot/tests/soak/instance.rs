//! The instances of a node's operator, and the check of the results.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use crate::machine::MachineBoot;
use crate::operator::{
    ApiFailure, BegunClean, ENDS_WITHIN, LOOK_EVERY, ScriptedOperator, lacking, text, urls,
};

/// The states of a deployment.
const DEPLOYED: [&str; 4] = ["deploying", "wait call-back", "deploy failed", "active"];
/// The states of a tear-down, and the states after it.
const TAKEN: [&str; 6] =
    ["deleting", "cleaning", "clean wait", "clean failed", "available", "error"];
/// The longest delay until the API shows a boot that a machine began by itself.
const SHOWS_WITHIN: Duration = Duration::from_secs(5);
/// The longest delay until a machine has received the sent data.
const ARRIVES_WITHIN: Duration = Duration::from_secs(5);

impl ScriptedOperator {
    /// The life of one instance: from `manageable` back to `manageable`. Returns whether everything succeeded.
    pub(crate) async fn instance(&self) -> bool {
        let clean = self.clean_to_begin("manageable", "available", false);
        let provide = json!({ "target": "provide" });
        if !self.begin(&provide, &["cleaning", "clean wait", "clean failed", "available"]).await
            || !self.end_clean(&clean).await
        {
            return false;
        }
        let first = self.machine.boots();
        let mut is_active = self.name_image().await && self.deploy("active").await;
        if is_active {
            self.live_with_it(first).await;
        }
        if is_active && self.happens(30) {
            let told = urls(&self.machine.boots_since(first));
            is_active = self.deploy("rebuild").await;
            self.report.count("instances rebuilt");
            self.judge_tickets(&told, Instant::now()).await;
        }
        if is_active && self.happens(50) {
            self.await_restart().await;
        }
        self.take_away(first).await && self.manage().await && is_active
    }

    async fn name_image(&self) -> bool {
        let images = &self.images;
        let image = if self.happens(50) {
            json!({ "boot_iso": images.instance_iso })
        } else {
            json!({ "kernel": images.instance_kernel, "ramdisk": images.instance_ramdisk })
        };
        let patch = json!([{ "op": "add", "path": "/instance_info", "value": image }]);
        let path = format!("/v1/nodes/{}", self.node());
        let until = Instant::now() + ENDS_WITHIN;
        loop {
            match self.api(Method::PATCH, &path, &patch).await {
                Ok(_) => return true,
                Err(ApiFailure::Later(_)) if Instant::now() < until => sleep(LOOK_EVERY).await,
                Err(failed) => {
                    self.report.broke(format!("{}: no image can be named: {failed}", self.node()));
                    return false;
                }
            }
        }
    }

    /// Runs `active` or `rebuild`; returns whether the node then has its instance.
    async fn deploy(&self, verb: &'static str) -> bool {
        let (first, began) = (self.machine.boots(), Instant::now());
        self.machine.has_instance(false);
        self.machine.may_be_cut(true);
        if !self.begin(&json!({ "target": verb }), &DEPLOYED).await {
            return false;
        }
        self.report.count("deployments begun");
        let node = match self.await_state(&["active", "deploy failed"], ENDS_WITHIN).await {
            Ok(node) => node,
            Err(last) => {
                self.report.broke(format!("{}: {verb} does not end: {last}", self.node()));
                return false;
            }
        };
        if node["provision_state"] != "active" {
            self.report.count("deployments that failed");
            self.judge_failure("a deployment", &node, began, false, false);
            return false;
        }
        self.machine.has_instance(true);
        self.machine.may_be_cut(false);
        self.report.count("deployments that ended well");
        let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.report.most("longest deployment that ended well, in ms", millis);
        self.judge_deployment(first, began).await;
        true
    }

    async fn judge_deployment(&self, first: usize, began: Instant) {
        while !self.machine.boots_since(first).iter().any(|boot| boot.instance.is_some()) {
            // Sent data may wait on a bad link, or be lost there.
            if began.elapsed() > ARRIVES_WITHIN && self.faults.is_quiet(began) {
                self.report.broke(format!("{}: it is active without its image", self.node()));
                return;
            }
            if !self.faults.is_quiet(began) {
                break;
            }
            sleep(LOOK_EVERY).await;
        }
        let boots = self.machine.boots_since(first);
        let switched_on = boots.iter().filter(|boot| !boot.is_own).count();
        self.report.most("most starts of a machine for one deployment", switched_on as u64);
        // A machine that restarts by itself at the beginning of a rebuild is switched off all the same.
        let is_cut = |pair: &[MachineBoot]| {
            pair[0].instance.is_some() && pair.iter().all(|boot| !boot.is_own)
        };
        if boots.windows(2).any(is_cut) {
            self.report
                .broke(format!("{}: an instance was cut off by its deployment", self.node()));
        }
        // Another boot has its own trace, and the API of the node no longer gives this boot's trace.
        if boots.iter().any(|boot| boot.is_own) {
            return;
        }
        let Some((_, events)) = self.trace().await else { return };
        let own = self.machine.boots_since(first).iter().any(|boot| boot.is_own);
        if !own {
            let changes = [("deploying", "wait call-back"), ("wait call-back", "active")];
            // A machine may be faster than its BMC.
            let is_quick = lacking(&events, &[("deploying", "active")]).is_empty();
            let missing = if is_quick { Vec::new() } else { lacking(&events, &changes) };
            self.judge_holes(&missing, &events, began);
        }
    }

    /// Waits some seconds, and checks that the node stays active despite reboots of its machine.
    async fn live_with_it(&self, first: usize) {
        let until = Instant::now() + self.machine.millis(500..6_000);
        let mut judged = self.machine.boots();
        while Instant::now() < until {
            if let Ok(node) = self.show().await
                && node["provision_state"] != "active"
            {
                let state = &node["provision_state"];
                self.report.broke(format!("{}: it was active and is {state}", self.node()));
                return;
            }
            let boots = self.machine.boots_since(first);
            let at = first + boots.len();
            if judged < at
                && let [.., last] = &boots[..]
                && last.is_own
                && last.instance.is_some()
            {
                judged = at;
                self.judge_own_boot(first, last).await;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Checks a boot that the machine began by itself: its own trace has the fetch, and nothing of the boot before.
    async fn judge_own_boot(&self, first: usize, boot: &MachineBoot) {
        let (Some(began), Some(fetched)) = (boot.began, boot.instance) else { return };
        let boots = self.machine.boots_since(first).len();
        while self.faults.is_quiet(began) && self.machine.boots_since(first).len() == boots {
            let Some((_, events)) = self.trace().await else { return };
            let is_fetch = |event: &Value| text(event, "kind") == "http" && event["status"] == 200;
            let is_state = |event: &Value| text(event, "kind") == "state";
            if events.iter().any(is_fetch) && !events.iter().any(is_state) {
                self.report.count("boots of instances with a trace of their own");
                return;
            }
            if fetched.elapsed() > SHOWS_WITHIN {
                self.report.broke(format!(
                    "{}: the boot that its machine began by itself has no trace of its own ({} events)",
                    self.node(),
                    events.len()
                ));
                return;
            }
            sleep(LOOK_EVERY).await;
        }
        self.report.count("boots of instances that a fault or another boot overtook");
    }

    /// Waits until the machine begins a boot by itself, and for a random time after that; returns at once if it does
    /// not.
    async fn await_restart(&self) {
        let (first, until) = (self.machine.boots(), Instant::now() + Duration::from_secs(4));
        while Instant::now() < until {
            if self.machine.boots() > first {
                self.report.count("instances taken away while their machine restarted");
                return sleep(self.machine.millis(0..1_000)).await;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs `deleted`, again after a failure; returns whether the node is then available.
    async fn take_away(&self, first: usize) -> bool {
        let before = self.trace().await.map(|(attempt, _)| attempt);
        self.machine.has_instance(false);
        let mut clean = self.clean_to_begin("deleting", "available", false);
        let (asked, until) = (Instant::now(), Instant::now() + ENDS_WITHIN);
        loop {
            let (began, told) = (Instant::now(), urls(&self.machine.boots_since(first)));
            if !self.begin(&json!({ "target": "deleted" }), &TAKEN).await {
                return false;
            }
            self.report.count("instances taken away");
            self.judge_tickets(&told, Instant::now()).await;
            let ends = ["available", "clean failed", "error"];
            let node = match self.await_state(&ends, ENDS_WITHIN).await {
                Ok(node) => node,
                Err(last) => {
                    self.report.broke(format!("{}: deleted does not end: {last}", self.node()));
                    return false;
                }
            };
            if node["provision_state"] != "error" {
                break;
            }
            self.report.count("instances that could not be taken away at once");
            self.judge_failure("a tear-down", &node, began, false, false);
            if Instant::now() > until {
                return false;
            }
            sleep(LOOK_EVERY).await;
            clean = BegunClean { first: self.machine.boots(), ..clean };
        }
        let is_clean = self.end_clean(&clean).await;
        // A killed daemon may leave the beginning of a boot that it has not saved.
        match before {
            Some(before) if self.faults.is_quiet(asked) => self.judge_last_attempt(&before).await,
            Some(_) | None => {}
        }
        is_clean
    }

    /// Checks that no trace has the identity of an unsaved boot: one that the machine began during the tear-down of
    /// its instance.
    async fn judge_last_attempt(&self, attempt: &str) {
        let Ok(attempt) = attempt.parse::<Uuid>() else { return };
        let path = |attempt| format!("/v1/nodes/{}/boot-trace?attempt={attempt}", self.node());
        let Some(trace) = self.patiently(Method::GET, &path(attempt)).await else { return };
        let events = trace["events"].as_array().cloned().unwrap_or_default();
        if !lacking(&events, &[("active", "deleting")]).is_empty() {
            return;
        }
        let next = Uuid::new_v5(&attempt, b"the next boot of the instance");
        if let Ok(trace) = self.api(Method::GET, &path(next), &Value::Null).await {
            let events = &trace["events"];
            self.report.broke(format!("{}: no attempt has this trace: {events}", self.node()));
        }
    }

    async fn manage(&self) -> bool {
        self.begin(&json!({ "target": "manage" }), &["manageable"]).await
            && self.await_state(&["manageable"], ENDS_WITHIN).await.is_ok()
    }

    fn happens(&self, percent: u64) -> bool {
        self.machine.millis(0..100) < Duration::from_millis(percent)
    }
}
