//! A scripted machine: firmware that fetches its boot target, then an agent or an instance.
//!
//! The machine records the actions of its agents and instances. The run judges the service by them: no step twice in
//! one attempt, no power change during a step or under an instance.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agent::identity::Certificate;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use redfish::emulator::{Emulator, NextBoot};
use reqwest::Client;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::agent::ScriptedAgent;
use crate::bmc;
use crate::links::FirmwareLink;
use crate::report::SoakReport;

/// Interval between two tries to fetch the image.
const FETCH_AGAIN: Duration = Duration::from_millis(500);
/// The content of an image without an agent.
pub(crate) const INSTANCE: &[u8] = b"an instance of the soak";
/// The percentage of instances that restart their machine.
const RESTARTS: u64 = 60;

/// A machine, its firmware, and the record of its agents.
pub(crate) struct ScriptedMachine {
    pub(crate) number: u8,
    pub(crate) mac: String,
    /// The source address of its fetches and calls, and the address of its agent.
    pub(crate) address: Ipv4Addr,
    /// The agent's address for the daemon: a relay.
    pub(crate) callback: SocketAddr,
    /// The certificate of its agents, shared by all: generating keys takes long.
    pub(crate) certificate: Certificate,
    pub(crate) http: Client,
    pub(crate) report: SoakReport,
    /// The time of its BMC.
    begun: Instant,
    link: FirmwareLink,
    /// Notified when an image has arrived.
    image_arrived: Arc<Notify>,
    /// The lock order: before `inside`.
    emulator: Mutex<Emulator>,
    inside: Mutex<Inside>,
}

struct Inside {
    random: StdRng,
    /// Its task since the power-on.
    running: Option<AbortHandle>,
    boots: Vec<MachineBoot>,
    /// Whether the operator's request permits a power change at any time.
    may_be_cut: bool,
    /// Whether the node is active: the machine must be left alone.
    has_instance: bool,
}

/// One start of a machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct MachineBoot {
    /// The URL of its boot target.
    pub(crate) url: Option<String>,
    /// The token of its agent; agents without one do nothing.
    pub(crate) token: Option<String>,
    /// Whether the service gave the token to another agent before, or to this agent in a lost response.
    pub(crate) token_lost: bool,
    /// Whether the service accepted a heartbeat of its agent.
    pub(crate) is_heard: bool,
    pub(crate) steps: Vec<StepRun>,
    /// Whether the machine began it by itself.
    pub(crate) is_own: bool,
    /// The time of the start, and of the complete fetch of an instance's image.
    pub(crate) began: Option<Instant>,
    pub(crate) instance: Option<Instant>,
}

/// A clean step that an agent received.
#[derive(Clone, Debug)]
pub(crate) struct StepRun {
    pub(crate) step: String,
    pub(crate) ends: Instant,
}

impl ScriptedMachine {
    pub(crate) fn new(
        number: u8,
        callback: SocketAddr,
        seed: u64,
        link: FirmwareLink,
        image_arrived: Arc<Notify>,
        report: SoakReport,
    ) -> Self {
        let address = Ipv4Addr::new(127, 1, 0, number);
        let http = Client::builder()
            .local_address(IpAddr::from(address))
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(15))
            .no_proxy()
            .build()
            .unwrap();
        let mac = format!("52:54:00:50:a1:{number:02x}");
        let mut emulator = Emulator::new(bmc::USERNAME, bmc::PASSWORD);
        emulator.add_system(bmc::SYSTEM, std::slice::from_ref(&mac), bmc::platform_of(number));
        Self {
            number,
            mac,
            address,
            callback,
            certificate: Certificate::new(callback.ip()).unwrap(),
            http,
            report,
            begun: Instant::now(),
            link,
            image_arrived,
            emulator: Mutex::new(emulator),
            inside: Mutex::new(Inside {
                random: StdRng::seed_from_u64(seed.wrapping_add(number.into())),
                running: None,
                boots: Vec::new(),
                may_be_cut: false,
                has_instance: false,
            }),
        }
    }

    /// Starts its firmware.
    pub(crate) fn power_on(self: &Arc<Self>, next: Option<NextBoot>) {
        let boot = self.inside().begin(next.as_ref(), false);
        self.report.count("machines switched on");
        if next == Some(NextBoot::Usual) {
            self.report.say(&format!("machine {} boots from its empty disk", self.number));
        }
        let machine = Arc::clone(self);
        let running = tokio::spawn(async move { machine.live(boot, next).await });
        self.inside().running = Some(running.abort_handle());
    }

    /// Cuts the power.
    pub(crate) fn power_off(&self) {
        let mut inside = self.inside();
        if let Some(running) = inside.running.take() {
            running.abort();
        }
        self.report.count("machines switched off");
        let now = Instant::now();
        let may_be_cut = inside.may_be_cut;
        if inside.has_instance && !may_be_cut {
            self.report
                .broke(format!("machine {}: its power was cut under its instance", self.number));
        }
        let Some(boot) = inside.boots.last_mut() else { return };
        let cut = boot.steps.last_mut().filter(|run| now < run.ends);
        if let Some(run) = cut {
            if !may_be_cut {
                let (step, left) = (&run.step, run.ends - now);
                self.report.broke(format!(
                    "machine {}: its power was cut in the running step {step}, {left:?} before its end",
                    self.number
                ));
            }
            run.ends = now;
        }
    }

    /// Sets whether its power may change during a step.
    pub(crate) fn may_be_cut(&self, may: bool) {
        self.inside().may_be_cut = may;
    }

    /// Sets whether the machine has an instance and must be left alone.
    pub(crate) fn has_instance(&self, has: bool) {
        self.inside().has_instance = has;
    }

    /// The time since the start of its BMC.
    pub(crate) fn uptime(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Checks that its BMC has nothing of the boots.
    pub(crate) fn judge_bmc(&self) {
        let mut emulator = self.emulator();
        for left in bmc::left_by_boots(&mut emulator, self.number, &self.mac) {
            self.report.broke(format!("machine {}: its BMC keeps {left}", self.number));
        }
    }

    /// The state of its BMC.
    pub(crate) fn emulator(&self) -> MutexGuard<'_, Emulator> {
        self.emulator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All its starts since this one.
    pub(crate) fn boots_since(&self, first: usize) -> Vec<MachineBoot> {
        self.inside().boots.get(first..).unwrap_or_default().to_vec()
    }

    pub(crate) fn boots(&self) -> usize {
        self.inside().boots.len()
    }

    /// Changes the record of a start.
    pub(crate) fn note(&self, boot: usize, note: impl FnOnce(&mut MachineBoot)) {
        if let Some(boot) = self.inside().boots.get_mut(boot) {
            note(boot);
        }
    }

    /// Whether an agent with this token has run a step of this name before.
    pub(crate) fn has_run(&self, token: &str, step: &str) -> bool {
        let inside = self.inside();
        let same = inside.boots.iter().filter(|boot| boot.token.as_deref() == Some(token));
        same.flat_map(|boot| &boot.steps).any(|run| run.step == step)
    }

    /// A duration that differs between machines, in milliseconds.
    pub(crate) fn millis(&self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.inside().random.random_range(range))
    }

    async fn live(self: Arc<Self>, mut boot: usize, mut next: Option<NextBoot>) {
        loop {
            // The self-test.
            sleep(self.millis(50..600)).await;
            let url = match next {
                Some(NextBoot::Url(url)) => url,
                Some(NextBoot::Http { .. }) => {
                    let url = self.link.ask_until_answered(self.number, &self.report).await;
                    self.note(boot, |boot| boot.url = Some(url.clone()));
                    url
                }
                // Its disk is empty.
                Some(NextBoot::Usual | NextBoot::Pxe { .. } | NextBoot::Cd(_)) | None => return,
            };
            let image = self.fetch_until_whole(&url).await;
            if !image.windows(INSTANCE.len()).any(|window| window == INSTANCE) {
                // The kernel's start.
                sleep(self.millis(50..400)).await;
                return ScriptedAgent::new(self, boot, &image).live().await;
            }
            self.report.count("instances started");
            self.note(boot, |boot| boot.instance = Some(Instant::now()));
            if self.millis(0..100) >= Duration::from_millis(RESTARTS) {
                return;
            }
            sleep(self.millis(300..3_000)).await;
            let Some(own) = self.restart(boot) else { return };
            (boot, next) = own;
        }
    }

    /// Restarts by itself, unless the power was just switched.
    fn restart(&self, boot: usize) -> Option<(usize, Option<NextBoot>)> {
        let mut emulator = self.emulator();
        let mut inside = self.inside();
        if inside.running.is_none() || inside.boots.len() != boot + 1 {
            return None;
        }
        self.report.count("machines that restarted by themselves");
        let next = emulator.starts(bmc::SYSTEM, self.uptime());
        Some((inside.begin(next.as_ref(), true), next))
    }

    /// Firmware that retries without end, as most firmware does.
    async fn fetch_until_whole(&self, url: &str) -> Vec<u8> {
        loop {
            match self.fetch(url).await {
                Ok(image) => {
                    self.image_arrived.notify_waiters();
                    self.report.count("images fetched");
                    return image;
                }
                Err(_) => {
                    self.report.count("fetches of images that broke off or were refused");
                    sleep(FETCH_AGAIN).await;
                }
            }
        }
    }

    async fn fetch(&self, url: &str) -> reqwest::Result<Vec<u8>> {
        let answer = self.http.get(url).send().await?.error_for_status()?;
        Ok(answer.bytes().await?.to_vec())
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn begin(&mut self, next: Option<&NextBoot>, is_own: bool) -> usize {
        let url = match next {
            Some(NextBoot::Url(url)) => Some(url.clone()),
            Some(
                NextBoot::Http { .. } | NextBoot::Pxe { .. } | NextBoot::Cd(_) | NextBoot::Usual,
            )
            | None => None,
        };
        let began = Some(Instant::now());
        self.boots.push(MachineBoot { url, is_own, began, ..MachineBoot::default() });
        self.boots.len() - 1
    }
}
