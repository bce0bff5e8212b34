//! A run: everything is started, faults follow each other, and the result is checked at the end.

use std::env;
use std::fs::{self, Permissions};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::agent;
use crate::bmc;
use crate::daemon::DaemonProcess;
use crate::disk::SmallDisk;
use crate::links::{AGENT_RELAY, BOOT_RELAY, FirmwareLink, INTERFACE, POOL, POOL6};
use crate::machine::{INSTANCE, ScriptedMachine};
use crate::operator::ScriptedOperator;
use crate::plan::{Database, SoakPlan};
use crate::postgres;
use crate::probe::PortProbe;
use crate::relay::{FaultyRelay, RelayFault};
use crate::report::SoakReport;
use crate::strangers::Flood;

/// Seconds of silence after which a clean or a deployment fails; the smallest permitted value.
pub(crate) const CALLBACK_TIMEOUT: u64 = 60;
/// Time after a fault within which the service must answer on every port.
const ANSWERS_AGAIN_WITHIN: Duration = Duration::from_secs(20);
const ENDS_AFTER_SIGTERM_WITHIN: Duration = Duration::from_secs(15);
/// Time after the last fault within which all work must end.
const ENDS_WITHIN: Duration = Duration::from_secs(10 * CALLBACK_TIMEOUT);
/// The longest wait of a kill for an image that arrives.
const IMAGE_ARRIVES_WITHIN: Duration = Duration::from_secs(3);
const DISK_MIB: u32 = 96;
/// Memory limit of a debug build of the daemon: it starts with 60 MiB, and its own limits allow for the rest.
const MOST_MEMORY_MIB: u64 = 400;
/// Descriptor limit of the daemon; it may raise its soft limit.
const MOST_DESCRIPTORS: u64 = 8_192;
const MOST_DISK_MIB: u64 = 80;
const FLOOD_LASTS: Duration = Duration::from_secs(4);

/// The injected faults with their times, by which a clean's failure is judged.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultLog(Arc<Mutex<Vec<Injected>>>);

#[derive(Clone, Debug)]
struct Injected {
    kind: FaultKind,
    /// The affected machine; all if `None`.
    machine: Option<u8>,
    ended: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FaultKind {
    Kill,
    Disk,
    Database,
    /// The link to a BMC, or the BMC.
    BmcLink,
    AgentLink,
    Flood,
}

impl FaultLog {
    fn begins(&self, kind: FaultKind, machine: Option<u8>) -> usize {
        let mut all = self.all();
        all.push(Injected { kind, machine, ended: None });
        all.len() - 1
    }

    fn ends(&self, fault: usize) {
        if let Some(fault) = self.all().get_mut(fault) {
            fault.ended = Some(Instant::now());
        }
    }

    /// The injected fault that explains this failure of a machine's procedure, if there is one.
    pub(crate) fn explains(
        &self,
        machine: u8,
        began: Instant,
        error: &str,
        token_lost: bool,
        aborted: bool,
    ) -> Option<&'static str> {
        if aborted && error.contains("abort") {
            return Some("aborted");
        }
        let all = self.all();
        let was = |kind: FaultKind| {
            all.iter().any(|fault| {
                let concerns = fault.machine.is_none_or(|of| of == machine);
                fault.kind == kind && concerns && fault.ended.is_none_or(|ended| ended >= began)
            })
        };
        // The BMC's request or the reset failed because of its link.
        if error.contains("BMC") {
            return was(FaultKind::BmcLink).then_some("link to the BMC");
        }
        // A fetch counts after it is saved, and a machine fetches once. A kill loses nothing: the fetch is saved before
        // its last byte leaves, if the database can be written.
        if error.contains("the image was not fetched whole") {
            let lost = [FaultKind::AgentLink, FaultKind::Disk, FaultKind::Database];
            return lost.into_iter().any(was).then_some("an image whose fetch was lost or cut off");
        }
        let silent = [
            "silen",
            "heard",
            "timed out",
            "timeout",
            "could not be called",
            "no agent",
            "not called",
        ];
        if silent.iter().any(|word| error.contains(word)) {
            // Agents start only after the fetch of their image, whose client is saved before.
            if error.contains("fetched by nobody") && error.contains("lookup came from") {
                return None;
            }
            if was(FaultKind::AgentLink) {
                return Some("link to the agent");
            }
            // The answer with the token was in transit when the daemon was killed.
            if token_lost && was(FaultKind::Kill) {
                return Some("kill while the token was given");
            }
        }
        None
    }

    /// Whether there was no fault since this time that loses recorded or sent data.
    pub(crate) fn is_quiet(&self, since: Instant) -> bool {
        let mut all = self.all().clone().into_iter();
        all.all(|fault| {
            fault.kind == FaultKind::BmcLink || fault.ended.is_some_and(|ended| ended < since)
        })
    }

    /// Whether the database was unwritable at some time since.
    pub(crate) fn had_outage(&self, since: Instant) -> bool {
        let is_outage = |kind| matches!(kind, FaultKind::Disk | FaultKind::Database);
        let mut all = self.all().clone().into_iter();
        all.any(|fault| is_outage(fault.kind) && fault.ended.is_none_or(|ended| ended >= since))
    }

    /// The time of the last kill, after which the daemon's timeouts start anew.
    pub(crate) fn last_kill(&self) -> Option<Instant> {
        let all = self.all();
        let last = all.iter().rfind(|fault| fault.kind == FaultKind::Kill)?;
        Some(last.ended.unwrap_or_else(Instant::now))
    }

    fn all(&self) -> MutexGuard<'_, Vec<Injected>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The targets of faults.
struct SoakWorld {
    report: SoakReport,
    random: StdRng,
    /// The daemon that machines and operators reach.
    daemon: Arc<tokio::sync::Mutex<DaemonProcess>>,
    /// Further daemons on the same database, which do a part of the work.
    companions: Vec<DaemonProcess>,
    disk: Arc<SmallDisk>,
    link: FirmwareLink,
    /// Notifies when a machine has received an image.
    image_arrived: Arc<Notify>,
    probe: PortProbe,
    faults: FaultLog,
    machines: Vec<Arc<ScriptedMachine>>,
    to_bmcs: Vec<FaultyRelay>,
    to_agents: Vec<FaultyRelay>,
    to_boot: FaultyRelay,
    to_agent_api: FaultyRelay,
    has_postgres: bool,
    is_short: bool,
}

/// Performs a run, and reports the result.
pub(crate) async fn soak(plan: &SoakPlan) -> SoakReport {
    let report = SoakReport::new(format!(
        "{:?}, {} daemons, {} nodes, faults for {} s, seed {}",
        plan.database,
        plan.daemons,
        plan.nodes,
        plan.lasts.as_secs(),
        plan.seed
    ));
    report.say(&format!("seed {}", plan.seed));
    let dir = TempDir::new().unwrap();
    let disk = Arc::new(SmallDisk::mount(&dir.path().join("disk"), DISK_MIB));
    let state = disk.path.join("state");
    write_boot_set(&disk.path.join("ramdisk"));
    fs::write(key_file(&disk.path), "0123456789abcdef".repeat(4)).unwrap();
    fs::set_permissions(key_file(&disk.path), Permissions::from_mode(0o600)).unwrap();
    fs::create_dir_all(state.join("images")).unwrap();
    let images = OwnImages::write(&state.join("images"));
    let config = dir.path().join("ferroboot.toml");
    fs::write(&config, settings(plan, &disk.path, &state)).unwrap();
    let link = FirmwareLink::build();
    let log = kept_log(plan).unwrap_or_else(|| dir.path().join("daemon.log"));
    let mut daemon = DaemonProcess::new(config, log);
    daemon.start().await.unwrap();
    let mut companions = Vec::new();
    for number in 1..plan.daemons {
        let config = dir.path().join(format!("companion-{number}.toml"));
        fs::write(&config, companion_settings(number, dir.path(), &disk.path, &state)).unwrap();
        let log = kept_log(plan).map(|log| log.with_extension(format!("{number}.log")));
        let log = log.unwrap_or_else(|| dir.path().join(format!("companion-{number}.log")));
        let mut companion = DaemonProcess::new(config, log);
        companion.start().await.unwrap();
        companions.push(companion);
    }
    let mut world = SoakWorld {
        report: report.clone(),
        random: StdRng::seed_from_u64(plan.seed),
        daemon: Arc::new(tokio::sync::Mutex::new(daemon)),
        companions,
        disk,
        probe: PortProbe::new(link.clone()),
        link,
        image_arrived: Arc::default(),
        faults: FaultLog::default(),
        machines: Vec::new(),
        to_bmcs: Vec::new(),
        to_agents: Vec::new(),
        to_boot: FaultyRelay::start(at(BOOT_RELAY), at("127.0.0.1:8080")).await,
        to_agent_api: FaultyRelay::start(at(AGENT_RELAY), at("127.0.0.1:6386")).await,
        has_postgres: plan.database == Database::Postgresql,
        is_short: plan.is_short(),
    };
    let operators = world.enroll(plan, &images).await;
    if timeout(plan.lasts + ENDS_WITHIN, world.run(plan, operators)).await.is_err() {
        report.broke(format!("the run is not over {ENDS_WITHIN:?} after its last fault"));
    }
    report
}

impl SoakWorld {
    async fn enroll(&mut self, plan: &SoakPlan, images: &OwnImages) -> Vec<Arc<ScriptedOperator>> {
        let mut operators = Vec::new();
        let boot_listeners: Vec<_> = (0..plan.daemons)
            .map(|daemon| SocketAddr::from((Ipv4Addr::LOCALHOST, port_of(daemon, 8_080))))
            .collect();
        for number in 1..=plan.nodes {
            let port = 20_000 + u16::from(number);
            let callback = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let machine = Arc::new(ScriptedMachine::new(
                number,
                callback,
                plan.seed,
                self.link.clone(),
                Arc::clone(&self.image_arrived),
                self.report.clone(),
            ));
            let at_agent = SocketAddr::from((machine.address, agent::PORT));
            self.to_agents.push(FaultyRelay::start(callback, at_agent).await);
            let at_bmc = SocketAddr::from((Ipv4Addr::new(127, 4, 0, number), 8_000));
            bmc::start(at_bmc, Arc::clone(&machine)).await;
            self.machines.push(Arc::clone(&machine));
            let bmc = SocketAddr::from((Ipv4Addr::LOCALHOST, port + 1_000));
            self.to_bmcs.push(FaultyRelay::start(bmc, at_bmc).await);
            operators.push(Arc::new(ScriptedOperator::new(
                machine,
                bmc,
                images.clone(),
                boot_listeners.clone(),
                self.faults.clone(),
            )));
        }
        join_all(operators.iter().map(|operator| operator.enroll())).await;
        self.report.say("all nodes are manageable");
        operators
    }

    async fn run(mut self, plan: &SoakPlan, operators: Vec<Arc<ScriptedOperator>>) {
        let end = Arc::new(AtomicBool::new(false));
        let watcher =
            tokio::spawn(watch(self.daemon.clone(), self.disk.clone(), self.report.clone()));
        let workers: Vec<_> = operators
            .iter()
            .map(|operator| {
                let (operator, end) = (Arc::clone(operator), Arc::clone(&end));
                tokio::spawn(async move { operator.work(&end).await })
            })
            .collect();
        let began = Instant::now();
        while began.elapsed() < plan.lasts {
            self.some_fault().await;
        }
        self.report.say("no more faults: what is under way comes to its end");
        end.store(true, Ordering::Relaxed);
        for worker in workers {
            if let Err(failed) = worker.await {
                self.report.broke(format!("an operator's script failed: {failed}"));
            }
        }
        // Remaining effects of faults would show now.
        self.report.say("a last clean of every node, without a fault");
        let last = join_all(operators.iter().map(|operator| operator.clean(false))).await;
        for (operator, ended_well) in operators.iter().zip(last) {
            if !ended_well {
                let number = operator.machine.number;
                self.report.broke(format!(
                    "machine {number}: the clean after all faults did not end well"
                ));
            }
        }
        self.report.say("a last instance of every node, without a fault");
        let last = join_all(operators.iter().map(|operator| operator.instance())).await;
        for (operator, ended_well) in operators.iter().zip(last) {
            if !ended_well {
                let number = operator.machine.number;
                self.report.broke(format!(
                    "machine {number}: the instance after all faults did not end well"
                ));
            }
            operator.judge_rest().await;
            operator.machine.judge_bmc();
        }
        self.restart_in_order().await;
        watcher.abort();
        let own = self.daemon.lock().await.log().to_owned();
        for log in
            std::iter::once(own.as_path()).chain(self.companions.iter().map(DaemonProcess::log))
        {
            self.judge_log(log);
        }
        self.daemon.lock().await.kill().await;
        for companion in &mut self.companions {
            companion.kill().await;
        }
    }

    /// A pause with work, a fault, and a check that the service answers afterwards.
    async fn some_fault(&mut self) {
        // Half of the pauses are short, so that faults hit the work after a restart; the others let a clean make
        // progress.
        let pauses = if self.random.random_bool(0.5) { 50..700 } else { 700..3_500 };
        let pause = self.random.random_range(pauses);
        sleep(Duration::from_millis(pause)).await;
        match self.random.random_range(0..100) {
            0..35 if !self.companions.is_empty() => self.kill_companion().await,
            0..58 => self.kill().await,
            58..70 => self.faulty_bmc().await,
            70..72 => self.restart_in_order().await,
            72..77 => self.disk_full().await,
            77..83 if self.has_postgres => self.restart_database().await,
            77..89 => self.flood().await,
            89..94 => self.bad_link_to_a_bmc().await,
            _ => self.bad_link_to_an_agent().await,
        }
        let ended = self.daemon.lock().await.has_ended();
        if let Some(status) = ended {
            let words = self.daemon.lock().await.last_words();
            self.report.broke(format!("the daemon ended by itself ({status}): {words}"));
            self.start().await;
        }
        for companion in &mut self.companions {
            if let Some(status) = companion.has_ended() {
                let words = companion.last_words();
                self.report.broke(format!("another daemon ended by itself ({status}): {words}"));
            }
        }
        match self.probe.all_answer(ANSWERS_AGAIN_WITHIN).await {
            Ok(millis) => {
                self.report.most("longest until every port answered after a fault, in ms", millis)
            }
            Err(silent) => self.report.broke(format!(
                "no answer {ANSWERS_AGAIN_WITHIN:?} after a fault on: {}",
                silent.join(", ")
            )),
        }
    }

    async fn start(&mut self) {
        let started = self.daemon.lock().await.start().await;
        if let Err(words) = started {
            self.report.broke(format!("the daemon does not start: {words}"));
            // The cause of the failed start may be over.
            sleep(Duration::from_secs(1)).await;
            let _ = self.daemon.lock().await.start().await;
        }
    }

    /// Kills it once, or a few times in quick succession; often just when a machine has received its image.
    async fn kill(&mut self) {
        if self.random.random_bool(0.4) {
            let _ = timeout(IMAGE_ARRIVES_WITHIN, self.image_arrived.notified()).await;
        }
        let times = if self.random.random_bool(0.1) { 4 } else { 1 };
        for _ in 0..times {
            let fault = self.faults.begins(FaultKind::Kill, None);
            self.daemon.lock().await.kill().await;
            self.report.count("SIGKILLs");
            let away = self.random.random_range(0..400);
            sleep(Duration::from_millis(away)).await;
            self.start().await;
            self.faults.ends(fault);
        }
    }

    /// In a long run, some stay down until their claims have expired and others do their work.
    async fn kill_companion(&mut self) {
        let fault = self.faults.begins(FaultKind::Kill, None);
        let number = self.random.random_range(0..self.companions.len());
        self.companions[number].kill().await;
        self.report.count("SIGKILLs of other daemons");
        let stays_away = !self.is_short && self.random.random_bool(0.1);
        let away = self.random.random_range(if stays_away { 60_000..75_000 } else { 0..400 });
        sleep(Duration::from_millis(away)).await;
        if let Err(words) = self.companions[number].start().await {
            self.report.broke(format!("another daemon does not start: {words}"));
        }
        self.faults.ends(fault);
    }

    async fn restart_in_order(&mut self) {
        let ended = self.daemon.lock().await.terminate(ENDS_AFTER_SIGTERM_WITHIN).await;
        self.report.count("SIGTERMs");
        if let Err(words) = ended {
            self.report.broke(format!("SIGTERM: {words}"));
        }
        self.start().await;
    }

    async fn disk_full(&mut self) {
        let fault = self.faults.begins(FaultKind::Disk, None);
        let disk = Arc::clone(&self.disk);
        tokio::task::spawn_blocking(move || disk.fill()).await.unwrap();
        self.report.count("times the disk was full");
        let lasts = Duration::from_millis(self.random.random_range(500..4_000));
        let kills = self.random.random_bool(0.2);
        sleep(lasts).await;
        if kills {
            // On a full disk it need not start, but it must afterwards.
            self.daemon.lock().await.kill().await;
            self.report.count("SIGKILLs");
        }
        self.disk.free();
        if kills {
            self.start().await;
        }
        self.faults.ends(fault);
    }

    async fn restart_database(&mut self) {
        let fault = self.faults.begins(FaultKind::Database, None);
        let mode = if self.random.random_bool(0.5) { "fast" } else { "immediate" };
        let away = self.random.random_range(0..2_000);
        let control = PathBuf::from(env::var_os(postgres::CONTROL).unwrap());
        let asked = control.clone();
        tokio::task::spawn_blocking(move || postgres::ask(&asked, &["-m", mode, "stop"]))
            .await
            .unwrap();
        sleep(Duration::from_millis(away)).await;
        tokio::task::spawn_blocking(move || postgres::ask(&control, &["start"])).await.unwrap();
        self.report.count("restarts of PostgreSQL");
        self.faults.ends(fault);
    }

    /// While strangers flood one port, every port answers.
    async fn flood(&mut self) {
        let flood = Flood::any(&mut self.random);
        self.report.count(flood.name());
        let fault = self.faults.begins(FaultKind::Flood, None);
        let random = StdRng::seed_from_u64(self.random.random());
        let link = self.link.clone();
        let lasts = FLOOD_LASTS;
        let flooding = tokio::spawn(async move { flood.run(random, &link, lasts).await });
        sleep(lasts / 2).await;
        match self.probe.all_answer(ANSWERS_AGAIN_WITHIN).await {
            Ok(millis) => {
                self.report.most("longest until every port answered in a flood, in ms", millis)
            }
            Err(silent) => {
                self.report.broke(format!("no answer during {flood:?} on: {}", silent.join(", ")));
            }
        }
        flooding.await.unwrap();
        self.faults.ends(fault);
    }

    async fn bad_link_to_a_bmc(&mut self) {
        let number = self.random.random_range(0..self.to_bmcs.len());
        let fault = self.some_relay_fault();
        let machine = u8::try_from(number + 1).ok();
        let injected = self.faults.begins(FaultKind::BmcLink, machine);
        self.report.count("bad links to a BMC");
        self.to_bmcs[number].set(fault);
        sleep(Duration::from_millis(self.random.random_range(500..3_000))).await;
        self.to_bmcs[number].set(RelayFault::None);
        self.faults.ends(injected);
    }

    /// A BMC with a fault, or whose sessions all end.
    async fn faulty_bmc(&mut self) {
        let number = self.random.random_range(0..self.machines.len());
        let machine = Arc::clone(&self.machines[number]);
        if self.random.random_bool(0.2) {
            self.report.count("BMCs that ended all sessions");
            bmc::end_sessions(&mut machine.emulator(), machine.uptime());
            return;
        }
        let rule = bmc::some_fault(&mut self.random);
        let injected = self.faults.begins(FaultKind::BmcLink, Some(machine.number));
        self.report.count("faults of a BMC");
        self.report.say(&format!("the BMC of machine {} has {rule:?}", machine.number));
        machine.emulator().set_faults(vec![rule]);
        sleep(Duration::from_millis(self.random.random_range(500..5_000))).await;
        machine.emulator().set_faults(Vec::new());
        self.faults.ends(injected);
    }

    /// A bad link in both directions: the daemon's calls to the agent, and the agent's calls to the daemon. DHCP has
    /// packet loss.
    async fn bad_link_to_an_agent(&mut self) {
        let number = self.random.random_range(0..self.to_agents.len());
        let fault = self.some_relay_fault();
        let machine = u8::try_from(number + 1).unwrap_or_default();
        self.report.count("bad links to agents and firmware");
        match self.random.random_range(0..3) {
            0 => {
                let injected = self.faults.begins(FaultKind::AgentLink, Some(machine));
                self.to_agents[number].set(fault);
                sleep(Duration::from_millis(self.random.random_range(500..3_000))).await;
                self.to_agents[number].set(RelayFault::None);
                self.faults.ends(injected);
            }
            1 => {
                let injected = self.faults.begins(FaultKind::AgentLink, None);
                let relay =
                    [&self.to_boot, &self.to_agent_api][usize::from(self.random.random_bool(0.5))];
                relay.set(fault);
                sleep(Duration::from_millis(self.random.random_range(500..3_000))).await;
                self.to_boot.set(RelayFault::None);
                self.to_agent_api.set(RelayFault::None);
                self.faults.ends(injected);
            }
            _ => {
                self.link.lose(machine, 60);
                sleep(Duration::from_secs(2)).await;
                self.link.lose(machine, 0);
            }
        }
    }

    fn some_relay_fault(&mut self) -> RelayFault {
        match self.random.random_range(0..4) {
            0 => RelayFault::Slow(Duration::from_millis(self.random.random_range(50..800))),
            1 => RelayFault::Stalled,
            // The result of a request with a cut answer is random; a short run leaves that out.
            _ if self.is_short => RelayFault::Slow(Duration::from_millis(200)),
            _ => RelayFault::Cut,
        }
    }

    /// Checks the log for panics and secrets.
    fn judge_log(&self, log: &Path) {
        let log = fs::read(log).unwrap();
        let log = String::from_utf8_lossy(&log);
        self.report.most("lines of the daemon's log", log.lines().count() as u64);
        for line in log.lines().filter(|line| line.contains("panicked")).take(5) {
            self.report.broke(format!("the daemon panicked: {line}"));
        }
        for secret in [bmc::PASSWORD, "ipa-agent-token=", "agent_token="] {
            if let Some(line) = log.lines().find(|line| line.contains(secret)) {
                self.report.broke(format!("a secret is in the log ({secret}): {line}"));
            }
        }
    }
}

/// Samples memory, descriptors and disk, four times a second.
async fn watch(
    daemon: Arc<tokio::sync::Mutex<DaemonProcess>>,
    disk: Arc<SmallDisk>,
    report: SoakReport,
) {
    let mut often = interval(Duration::from_millis(250));
    often.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = [false; 3];
    loop {
        often.tick().await;
        // During a start there is nothing to sample.
        let Ok(daemon) = daemon.try_lock() else { continue };
        let Some(usage) = daemon.usage() else { continue };
        drop(daemon);
        let disk_mib = disk.used() >> 20;
        let memory_mib = usage.resident_kib >> 10;
        report.most("most memory, in MiB", memory_mib);
        report.most("most descriptors", usage.descriptors);
        report.most("most disk, in MiB", disk_mib);
        let seen = [
            (memory_mib > MOST_MEMORY_MIB, format!("{memory_mib} MiB of memory")),
            (usage.descriptors > MOST_DESCRIPTORS, format!("{} descriptors", usage.descriptors)),
            (disk_mib > MOST_DISK_MIB, format!("{disk_mib} MiB of disk")),
        ];
        for ((is_too_much, words), said) in seen.into_iter().zip(&mut said) {
            if is_too_much && !*said {
                report.broke(format!("the daemon has {words}"));
                *said = true;
            }
        }
    }
}

fn settings(plan: &SoakPlan, disk: &Path, state: &Path) -> String {
    let database = match plan.database {
        Database::Sqlite => String::new(),
        Database::Postgresql => {
            let (url, key) = (env::var(postgres::URL).unwrap(), key_file(disk));
            format!("[database]\nurl = '{url}'\nkey_file = '{}'\n", key.display())
        }
    };
    let (state, ramdisk) = (state.display(), disk.join("ramdisk"));
    let ramdisk = ramdisk.display();
    format!(
        "host = 'soak'\nstate_dir = '{state}'\n{database}\
         [api]\nlisten = '127.0.0.1:6385'\n\
         [agent]\nlisten = '[::]:6386'\nurl = 'http://{AGENT_RELAY}'\n\
         [boot]\nlisten = '[::]:8080'\nurl = 'http://{BOOT_RELAY}'\nramdisk = '{ramdisk}'\n\
         image_dirs = ['{state}/images']\n\
         [power]\nsync_secs = 5\n\
         [clean]\ncallback_timeout_secs = {CALLBACK_TIMEOUT}\n\
         [deploy]\ncallback_timeout_secs = {CALLBACK_TIMEOUT}\n\
         [dhcp]\ntftp = true\n\
         [[dhcp.network]]\ninterface = '{INTERFACE}'\npool = '{POOL}'\npool6 = '{POOL6}'\n\
         strangers = 'serve'\n"
    )
}

/// The port of a daemon that the first one has there.
fn port_of(daemon: u8, first: u16) -> u16 {
    first + 10 * u16::from(daemon)
}

/// The key file that all daemons of a database share.
fn key_file(disk: &Path) -> PathBuf {
    disk.join("database.key")
}

/// The settings of a further daemon. Machines reach the first daemon; this one does a part of the work.
fn companion_settings(number: u8, dir: &Path, disk: &Path, state: &Path) -> String {
    let (database, key) = (env::var(postgres::URL).unwrap(), key_file(disk));
    let key = key.display();
    let own_state = dir.join(format!("companion-{number}"));
    let (own_state, ramdisk, state) = (own_state.display(), disk.join("ramdisk"), state.display());
    let ramdisk = ramdisk.display();
    let (api, agent, boot) =
        (port_of(number, 6_385), port_of(number, 6_386), port_of(number, 8_080));
    format!(
        "host = 'soak-{number}'\nstate_dir = '{own_state}'\n[database]\nurl = '{database}'\nkey_file = '{key}'\n\
         [api]\nlisten = '127.0.0.1:{api}'\n\
         [agent]\nlisten = '[::]:{agent}'\nurl = 'http://{AGENT_RELAY}'\n\
         [boot]\nlisten = '[::]:{boot}'\nurl = 'http://{BOOT_RELAY}'\nramdisk = '{ramdisk}'\n\
         image_dirs = ['{state}/images']\n\
         [power]\nsync_secs = 5\n\
         [clean]\ncallback_timeout_secs = {CALLBACK_TIMEOUT}\n\
         [deploy]\ncallback_timeout_secs = {CALLBACK_TIMEOUT}\n\
         [dhcp]\nprovider = 'none'\n"
    )
}

/// URLs of images outside the boot set.
#[derive(Clone, Debug)]
pub(crate) struct OwnImages {
    /// An image with an agent.
    pub(crate) agent_iso: String,
    /// The image of an instance.
    pub(crate) instance_iso: String,
    pub(crate) instance_kernel: String,
    pub(crate) instance_ramdisk: String,
}

impl OwnImages {
    fn write(folder: &Path) -> Self {
        let write = |name: &str, content: Vec<u8>| {
            let path = folder.join(name);
            fs::write(&path, content).unwrap();
            format!("file://{}", path.display())
        };
        let instance = |len: usize| INSTANCE.iter().copied().cycle().take(len).collect();
        Self {
            agent_iso: write("own.iso", vec![0x42; 256 * 1024]),
            instance_iso: write("instance.iso", instance(256 * 1024)),
            instance_kernel: write("instance.kernel", instance(96 * 1024)),
            instance_ramdisk: write("instance.initramfs", vec![0x52; 64 * 1024]),
        }
    }
}

/// A boot set of placeholder files; only the stub is a valid program.
fn write_boot_set(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let stub = include_bytes!("../../../../fuzz/corpus/efi_stub/one-section");
    let files: [(&str, Vec<u8>); 5] = [
        ("kernel", vec![0x4b; 128 * 1024]),
        ("initramfs", vec![0x49; 128 * 1024]),
        ("stub.efi", stub.to_vec()),
        ("grubx64.efi", vec![0x47; 32 * 1024]),
        ("snponly.efi", vec![0x53; 32 * 1024]),
    ];
    let mut listed = json!({});
    for (name, content) in files {
        let sha256 = Sha256::digest(&content);
        let sha256: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        listed[name] = json!({ "len": content.len(), "sha256": sha256 });
        fs::write(folder.join(name), content).unwrap();
    }
    let manifest = json!({ "version": 1, "kernel_version": "soak", "files": listed });
    fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
}

/// The place of the kept log: the folder in `FERROBOOT_SOAK_LOGS`.
fn kept_log(plan: &SoakPlan) -> Option<PathBuf> {
    let folder = PathBuf::from(env::var_os("FERROBOOT_SOAK_LOGS")?);
    fs::create_dir_all(&folder).unwrap();
    Some(folder.join(format!("{:?}-{}.log", plan.database, plan.seed)))
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| SocketAddr::from((IpAddr::from(Ipv4Addr::LOCALHOST), 0)))
}
