//! Each platform with each fault, in each interface: the machine boots as it should, or there is a refusal in words;
//! and what a boot has changed is undone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use hardware::{BootChange, Mac};
use http::Method;
use serde_json::{Value, json};

use super::tests::URL;
use super::*;
use crate::emulator::{EmulatedFault, FaultRule, NextBoot, Platform};
use crate::facts::BmcFacts;
use crate::in_memory::{InMemoryBmc, MAC};
use crate::machine::RedfishSystem;
use crate::system::SystemPower;

/// All waits of one request, as in the daemon's work.
const PATIENCE: Duration = Duration::from_secs(300);
const POWER_FOLLOWS: Duration = Duration::from_secs(90);
/// No fault may cost more requests: of a boot, or of one undoing.
const MOST_REQUESTS: usize = 120;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Interface {
    /// `redfish-https`.
    RedfishHttps,
    /// `http`.
    Http,
    /// `redfish-virtual-media`.
    VirtualMedia,
}

impl Interface {
    const ALL: [Self; 3] = [Self::RedfishHttps, Self::Http, Self::VirtualMedia];

    fn need(self, macs: &[Mac]) -> BootNeed<'_> {
        let (by_url, media) = match self {
            Self::RedfishHttps => (true, MediaUse::Never),
            Self::Http => (false, MediaUse::Never),
            Self::VirtualMedia => (true, MediaUse::Only),
        };
        BootNeed { by_url, macs, allows_pxe: false, media, advice: None }
    }

    fn name(self) -> &'static str {
        match self {
            Self::RedfishHttps => "https",
            Self::Http => "http",
            Self::VirtualMedia => "media",
        }
    }
}

/// Which of the requests have the fault.
#[derive(Clone, Copy)]
enum Which {
    First,
    EverySecond,
    All,
}

impl Which {
    const ALL: [(&'static str, Self); 3] =
        [("the first", Self::First), ("every second", Self::EverySecond), ("each", Self::All)];

    fn rule(self, rule: FaultRule) -> FaultRule {
        match self {
            Self::First => rule.times(1),
            Self::EverySecond => rule.every_second(),
            Self::All => rule,
        }
    }
}

fn answer(status: u16, retry_after_secs: Option<u32>) -> EmulatedFault {
    EmulatedFault::Answer { status, body: None, retry_after_secs, location: None }
}

/// Faults of an exchange, which any request may have.
fn exchange_faults() -> Vec<(&'static str, EmulatedFault)> {
    vec![
        ("503", answer(503, Some(5))),
        ("500", answer(500, None)),
        ("400", answer(400, None)),
        ("cut before", EmulatedFault::CutBefore),
        ("cut after", EmulatedFault::CutAfter),
        ("a web page", EmulatedFault::Body(json!("<html><title>Starting</title></html>"))),
        ("empty JSON", EmulatedFault::Body(json!({}))),
        ("50 s late", EmulatedFault::Delay { millis: 50_000 }),
    ]
}

/// A fault of a BMC.
struct FaultCase {
    name: String,
    rules: Vec<FaultRule>,
    /// Whether the BMC says or shows what is not so. What it does later than it says is left.
    lies: bool,
}

impl FaultCase {
    fn of(name: impl Into<String>, rules: Vec<FaultRule>) -> Self {
        Self { name: name.into(), rules, lies: false }
    }

    fn always(name: &str, fault: EmulatedFault) -> Self {
        Self::of(name, vec![FaultRule::always(fault)])
    }

    fn lying(self) -> Self {
        Self { lies: true, ..self }
    }
}

/// Each fault of an exchange, in the first, every second and each request of a kind.
fn broken_exchanges() -> Vec<FaultCase> {
    let mut cases = Vec::new();
    for (fault_name, fault) in exchange_faults() {
        for method in [Method::GET, Method::PATCH, Method::POST] {
            for (which_name, which) in Which::ALL {
                let rule = which.rule(FaultRule::on(&method, "**", fault.clone()));
                cases.push(FaultCase::of(
                    format!("{fault_name}: {which_name} {method}"),
                    vec![rule],
                ));
            }
        }
        let of_task = FaultRule::on(&Method::GET, "**/Tasks/*", fault).every_second();
        let rules = vec![FaultRule::always(EmulatedFault::Task { secs: 10 }), of_task];
        let name = format!("{fault_name}: every second GET of a task");
        // The answer that a task's monitor has at its end.
        let ends_badly = fault_name == "400";
        let case = FaultCase::of(name, rules);
        cases.push(if ends_badly { case.lying() } else { case });
    }
    cases
}

/// Changes that the BMC accepts, and does not make, or not at once.
fn slow_changes() -> Vec<FaultCase> {
    use EmulatedFault as Fault;
    let mut cases = Vec::new();
    for (fault_name, fault, lies) in [
        ("forgotten", Fault::ForgetPatch, true),
        ("applied 10 s later", Fault::PatchLate { secs: 10 }, true),
        ("202 and a task of 10 s", Fault::Task { secs: 10 }, false),
        ("202 without a task", Fault::AcceptedWithoutTask, false),
    ] {
        for (which_name, which) in Which::ALL {
            let rule = which.rule(FaultRule::on(&Method::PATCH, "**", fault.clone()));
            let case = FaultCase::of(format!("{fault_name}: {which_name} PATCH"), vec![rule]);
            cases.push(if lies { case.lying() } else { case });
        }
    }
    let post = FaultRule::on(&Method::POST, "**", Fault::AcceptedWithoutTask);
    cases.push(FaultCase::of("202 without a task: each POST", vec![post]));
    cases.push(FaultCase::always("a task of 10 s for all", Fault::Task { secs: 10 }));
    cases.push(FaultCase::always("a task of 400 s for all", Fault::Task { secs: 400 }).lying());
    cases
}

fn faults() -> Vec<FaultCase> {
    use EmulatedFault as Fault;
    let always = FaultCase::always;
    let shown = |name: &str, value: Value| {
        FaultCase::of(name, vec![FaultRule::on(&Method::GET, "**", Fault::Merge(value))])
    };
    let disabled = json!({"Boot": {"BootSourceOverrideEnabled": "Disabled"}});
    let mut all = vec![FaultCase::of("no fault", Vec::new())];
    all.extend(broken_exchanges());
    all.extend(slow_changes());
    all.extend([
        always("the override is gone once it was shown", Fault::DropOverride),
        always("POST for 60 s", Fault::Post { secs: 60 }),
        always("the power follows after 60 s", Fault::PowerLate { secs: 60, looks: 0 }),
        always("PoweringOn for 60 s", Fault::PowerChanging { secs: 60 }),
        always("no more sessions", Fault::SessionsFull { basic: true }),
        always("weak ETags", Fault::WeakEtags),
        always("no ETags", Fault::NoEtags),
        always("changing ETags", Fault::ChangingEtags),
        shown("no Boot shown", json!({"Boot": null})),
        shown("no power state shown", json!({"PowerState": null})),
        shown("no override shown as set", disabled).lying(),
        shown("no reset action shown", json!({"Actions": null})),
        shown("no attributes shown", json!({"Attributes": null})),
    ]);
    all
}

/// A boot from power off, as the daemon makes it, with what it may have changed.
async fn boot(bmc: &InMemoryBmc, need: &BootNeed<'_>) -> (Vec<BootChange>, Result<(), String>) {
    let facts = BmcFacts::default();
    let mut changes = Vec::new();
    let done = async {
        let machine = RedfishSystem::find(bmc, &facts, None, PATIENCE).await;
        let machine = machine.map_err(|error| error.to_string())?;
        let words = |error: BootNotSet| error.to_string();
        let view = machine.look().await.map_err(|failure| failure.to_string())?;
        let way = machine.choose_way(&view, need).await.map_err(words)?;
        changes = way.changes().to_vec();
        let wanted = HttpBootOverride::once(need.by_url.then(|| URL.to_owned()));
        let failed = |failure: crate::failure::BmcFailure| failure.to_string();
        machine.set_boot(&view, &way, &wanted).await.map_err(words)?;
        let view = machine.read_back(&way, &wanted).await.map_err(words)?.view;
        machine.power_on(&view).await.map_err(failed)?;
        machine.await_power(SystemPower::On, POWER_FOLLOWS).await.map_err(failed)?;
        Ok(())
    };
    let done = done.await;
    (changes, done)
}

/// The end of a boot, as the daemon makes it.
async fn undo(bmc: &InMemoryBmc, changes: &[BootChange]) -> Result<Vec<String>, String> {
    let facts = BmcFacts::default();
    let machine = RedfishSystem::find(bmc, &facts, None, PATIENCE).await;
    let machine = machine.map_err(|error| error.to_string())?;
    let words = |failure: crate::failure::BmcFailure| failure.to_string();
    let mut view = machine.look().await.map_err(words)?;
    if view.power() != SystemPower::Off {
        machine.power_off(&view).await.map_err(words)?;
        view = machine.await_power(SystemPower::Off, POWER_FOLLOWS).await.map_err(words)?;
    }
    if view.power() != SystemPower::Off {
        return Err("the machine stays on".to_owned());
    }
    if !view.needs_undoing(changes) {
        return Ok(Vec::new());
    }
    machine.undo_boot(&view, changes).await.map_err(words)
}

/// What a machine boots next, and what a boot must leave as it was: the override, the orders, the media, and each
/// attribute with a URL. A start applies what waits for one.
fn kept_state(bmc: &InMemoryBmc) -> BTreeMap<String, Value> {
    bmc.press_on();
    let next = bmc.booted();
    bmc.press_off();
    let mut kept = BTreeMap::from([("the next boot".to_owned(), json!(format!("{next:?}")))]);
    for (path, body) in bmc.resources() {
        let mut keep = |name: &str, value: &Value| {
            let is_empty = value.is_null() || matches!(value.as_str(), Some("" | "None"));
            let value = if is_empty { Value::Null } else { value.clone() };
            kept.insert(format!("{path} {name}"), value);
        };
        for name in ["BootSourceOverrideEnabled", "HttpBootUri", "BootOrder", "BootNext"] {
            keep(name, &body["Boot"][name]);
        }
        for name in ["HttpDev1Uri", "UrlBootFile", "ServerBoot.1.FirstBootDevice"] {
            keep(name, &body["Attributes"][name]);
        }
        for name in ["PersistentBootConfigOrder", "Image", "Inserted"] {
            keep(name, &body[name]);
        }
        keep("shows the URL", &body.to_string().contains(URL).into());
    }
    kept
}

/// What differs, in words.
fn difference(left: &BTreeMap<String, Value>, expected: &BTreeMap<String, Value>) -> String {
    let names = left.keys().chain(expected.keys());
    let mut differences: Vec<_> = names
        .filter(|name| left.get(*name) != expected.get(*name))
        // Jobs that are over.
        .filter(|name| left.get(*name).is_some_and(|value| !value.is_null() && *value != false))
        .map(|name| format!("{name} {}", left[name]))
        .collect();
    differences.sort();
    differences.dedup();
    differences.join(", ")
}

/// The outcomes of one platform.
struct PlatformOutcomes {
    platform: Platform,
    /// The state of a machine that was not booted.
    untouched: BTreeMap<String, Value>,
    /// What a machine boots without a fault.
    usual: BTreeMap<Interface, NextBoot>,
    /// The outcome without a fault.
    without_fault: BTreeMap<Interface, String>,
    table: String,
    broken: Vec<String>,
    most_requests: usize,
    most_undo_requests: usize,
}

impl PlatformOutcomes {
    fn new(platform: Platform) -> Self {
        Self {
            platform,
            untouched: kept_state(&InMemoryBmc::new(platform)),
            usual: BTreeMap::new(),
            without_fault: BTreeMap::new(),
            table: String::new(),
            broken: Vec::new(),
            most_requests: 0,
            most_undo_requests: 0,
        }
    }

    /// Adds a line for each outcome of a fault, with its interfaces.
    async fn add(&mut self, case: &FaultCase) {
        let mut outcomes: Vec<(String, Vec<&str>)> = Vec::new();
        for interface in Interface::ALL {
            let mut words = self.outcome(interface, case).await;
            match self.without_fault.get(&interface) {
                Some(same) if *same == words => "the same".clone_into(&mut words),
                Some(_) => {}
                None => drop(self.without_fault.insert(interface, words.clone())),
            }
            match outcomes.iter_mut().find(|(other, _)| *other == words) {
                Some((_, interfaces)) => interfaces.push(interface.name()),
                None => outcomes.push((words, vec![interface.name()])),
            }
        }
        for (words, interfaces) in outcomes {
            let interfaces = match interfaces.len() {
                3 => "all".to_owned(),
                _ => interfaces.join(", "),
            };
            writeln!(self.table, "{} | {interfaces} | {words}", case.name).unwrap();
        }
    }

    async fn outcome(&mut self, interface: Interface, case: &FaultCase) -> String {
        let macs = [MAC.parse().unwrap()];
        let need = interface.need(&macs);
        let bmc = InMemoryBmc::new(self.platform).with_faults(case.rules.clone());
        let (changes, done) = boot(&bmc, &need).await;
        let requests = bmc.requests().len();
        let mut words = match (done, bmc.booted()) {
            (Ok(()), Some(booted)) => {
                let usual = self.usual.entry(interface).or_insert_with(|| booted.clone());
                if booted == *usual { "boots".to_owned() } else { format!("BOOTS {booted:?}") }
            }
            (Ok(()), None) => "STAYS OFF".to_owned(),
            (Err(refusal), _) => refusal,
        };
        let undone = undo(&bmc, &changes).await;
        let undo_requests = bmc.requests().len() - requests;
        let bmc = bmc.with_faults(Vec::new());
        match &undone {
            Ok(still_shown) => {
                for warning in still_shown {
                    write!(words, "; warns: {warning}").unwrap();
                }
            }
            Err(refusal) => {
                write!(words, "; not undone: {refusal}").unwrap();
                // The daemon tries again.
                if let Err(refusal) = undo(&bmc, &changes).await {
                    write!(words, "; NEVER UNDONE: {refusal}").unwrap();
                }
            }
        }
        // What the BMC does later is over.
        bmc.let_pass(Duration::from_secs(600));
        let left = difference(&kept_state(&bmc), &self.untouched);
        let context = format!("{:?}, {}, {}: {words}", self.platform, interface.name(), case.name);
        if !left.is_empty() {
            write!(words, "; LEFT {left}").unwrap();
        }
        if !left.is_empty() && !case.lies {
            self.broken.push(format!("{context}; left {left}"));
        }
        let most = requests.max(undo_requests);
        if most > MOST_REQUESTS {
            self.broken.push(format!("{context}: {most} requests"));
        }
        self.most_requests = self.most_requests.max(requests);
        self.most_undo_requests = self.most_undo_requests.max(undo_requests);
        words
    }
}

fn snapshot_name(platform: Platform) -> &'static str {
    match platform {
        Platform::Generic => "generic",
        Platform::Ami => "ami",
        Platform::DellIdrac9 => "dell_idrac9",
        Platform::DellIdrac10 => "dell_idrac10",
        Platform::HpeIlo5 => "hpe_ilo5",
        Platform::HpeIlo6 => "hpe_ilo6",
        Platform::LenovoXcc => "lenovo_xcc",
        Platform::Supermicro => "supermicro",
        Platform::SupermicroA21ge => "supermicro_a21ge",
        Platform::OpenBmc => "openbmc",
        Platform::NvidiaBluefield => "nvidia_bluefield",
    }
}

#[tokio::test]
async fn each_platform_boots_with_each_fault_or_refuses_in_words_and_nothing_is_left() {
    let mut all_broken = Vec::new();
    for platform in Platform::ALL {
        let mut outcomes = PlatformOutcomes::new(platform);
        for case in faults() {
            outcomes.add(&case).await;
        }
        let PlatformOutcomes { table, broken, most_requests, most_undo_requests, .. } = outcomes;
        let most = format!("at most {most_requests} requests, and {most_undo_requests} to undo");
        insta::assert_snapshot!(snapshot_name(platform), format!("{most}\n\n{table}"));
        all_broken.extend(broken);
    }
    assert_eq!(all_broken, [""; 0]);
}
