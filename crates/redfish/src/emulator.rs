//! A BMC emulator: a function from request to response, with the effect on the machine.
//!
//! [`Emulator::answer`] decides; the owner of the machines performs its [`PowerEffect`], and reports with
//! [`Emulator::starts`] and [`Emulator::stopped`]. Times are durations since any fixed moment, such as the start of the
//! program.

mod access;
mod actions;
mod boot_certificates;
mod changes;
mod event_log;
mod faults;
mod machine;
mod patch;
mod platforms;
mod response;
mod routes;
mod secure_boot;
mod secure_boot_databases;
mod sessions;
mod tree;
mod vendor;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::Value;

use self::faults::FaultTable;
pub use self::faults::{EmulatedFault, FAULTS, FaultRule};
pub use self::machine::{EmulatedPower, NextBoot};
use self::machine::{EmulatedSystem, MachineResources};
pub use self::platforms::Platform;
pub use self::response::EmulatorResponse;
pub use self::secure_boot_databases::{
    EmulatedSecureBoot, EmulatedSignature, EmulatedSignatureData,
};
pub use self::sessions::EmulatedUsers;
use self::sessions::SessionTable;
use self::tree::{ResourceBodies, ResourceTree};
use self::vendor::{SystemSpec, VendorRules};

/// A BMC with its systems, users and sessions.
#[derive(Debug)]
pub struct Emulator {
    users: EmulatedUsers,
    /// `None` if its tree was recorded.
    platform: Option<Platform>,
    tree: ResourceTree,
    systems: BTreeMap<String, EmulatedSystem>,
    sessions: SessionTable,
    faults: FaultTable,
    /// Requests that are performed later.
    deferred: Vec<DeferredRequest>,
    /// Effects that no answer has returned yet.
    effects: VecDeque<PowerEffect>,
    /// Number of the last task.
    last_task: u64,
    now: Duration,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct EmulatorRequest<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its path, without the query.
    pub path: &'a str,
    /// `Authorization`.
    pub authorization: Option<&'a str>,
    /// `X-Auth-Token`.
    pub session_token: Option<&'a str>,
    /// `If-Match`.
    pub if_match: Option<&'a str>,
    /// Its body.
    pub body: &'a [u8],
    /// Random text, used if the request opens a session.
    pub fresh: &'a str,
    /// The time.
    pub now: Duration,
}

/// A PATCH or action that a fault postpones.
#[derive(Debug)]
struct DeferredRequest {
    due: Duration,
    method: Method,
    path: String,
    body: Vec<u8>,
    /// The number of its task, if it has one.
    task: Option<u64>,
}

/// The effect on a machine before the response is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PowerEffect {
    /// Power on.
    Start {
        /// The system.
        system: String,
    },
    /// Power off at once.
    Stop {
        /// The system.
        system: String,
    },
    /// The power button: the running system shuts down.
    ShutDown {
        /// The system.
        system: String,
    },
    /// Off and on.
    Restart {
        /// The system.
        system: String,
    },
    /// A non-maskable interrupt.
    Interrupt {
        /// The system.
        system: String,
    },
}

/// A tree of resources that was recorded from a BMC, by their paths. Clones share it.
#[derive(Clone, Debug)]
pub struct RecordedTree(Arc<ResourceBodies>);

impl RecordedTree {
    /// A tree from the bodies by their paths.
    #[must_use]
    pub fn new(bodies: impl IntoIterator<Item = (String, Value)>) -> Self {
        let trimmed = |(path, body): (String, Value)| (path.trim_end_matches('/').to_owned(), body);
        let bodies = bodies.into_iter().map(trimmed).collect();
        Self(Arc::new(platforms::recorded_bodies(bodies)))
    }

    /// The path of the first system that can be switched, if there is one.
    #[must_use]
    pub fn system_path(&self) -> Option<String> {
        platforms::recorded_layouts(&self.0).into_iter().next().map(|layout| layout.system)
    }
}

impl Emulator {
    /// A BMC without systems, with its only user.
    #[must_use]
    pub fn new(username: &str, password: &str) -> Self {
        Self::with_users(EmulatedUsers::one(username, password))
    }

    /// A BMC without systems, with these users.
    #[must_use]
    pub fn with_users(users: EmulatedUsers) -> Self {
        Self {
            users,
            platform: Some(Platform::Generic),
            tree: ResourceTree::default(),
            systems: BTreeMap::new(),
            sessions: SessionTable::default(),
            faults: FaultTable::default(),
            deferred: Vec::new(),
            effects: VecDeque::new(),
            last_task: 0,
            now: Duration::ZERO,
        }
    }

    /// Adds a machine, switched off. On [`Platform::Generic`], `name` is the last part of its path, and there may be
    /// several; on others, the path is the vendor's, and the machine takes the place of the former one.
    pub fn add_system(&mut self, name: &str, macs: &[String], platform: Platform) {
        if platform != Platform::Generic || self.platform != Some(platform) {
            self.systems.clear();
        }
        self.platform = Some(platform);
        let layout = platform.vendor().layout(name);
        self.systems.insert(name.to_owned(), EmulatedSystem::new(layout, macs));
        let (mut specs, mut all_macs) = (Vec::new(), Vec::new());
        for (name, system) in &self.systems {
            // On other platforms the name is not shown: machines with different names share their bodies.
            let name = if platform == Platform::Generic { name.as_str() } else { "" };
            let (first_nic, nics) = (all_macs.len(), system.macs.len());
            specs.push(SystemSpec { name: name.to_owned(), first_nic, nics });
            all_macs.extend(system.macs.iter().cloned());
        }
        self.tree = ResourceTree::new(platform.bodies(&specs), all_macs);
    }

    /// Shows a recorded tree, whose first system has this name and the others those of their paths, in the power states
    /// that they were recorded in.
    pub fn show_recorded(&mut self, name: &str, tree: &RecordedTree) {
        self.platform = None;
        self.tree = ResourceTree::new(Arc::clone(&tree.0), Vec::new());
        self.systems.clear();
        for layout in platforms::recorded_layouts(&tree.0) {
            let name = if self.systems.is_empty() { name } else { &layout.system }.to_owned();
            let mut system = EmulatedSystem::new(layout, &[]);
            let body = self.tree.view(&system.layout.system);
            if body.is_some_and(|body| body["PowerState"] == "On") {
                system.power = EmulatedPower::On;
            }
            self.systems.insert(name, system);
        }
    }

    /// Replaces the faults.
    pub fn set_faults(&mut self, rules: Vec<FaultRule>) {
        self.faults.set(rules);
    }

    /// The power state of a system, if it exists.
    #[must_use]
    pub fn power(&self, system: &str) -> Option<EmulatedPower> {
        self.systems.get(system).map(|system| system.power)
    }

    /// A resource as it is, without faults.
    #[must_use]
    pub fn resource(&self, path: &str) -> Option<Value> {
        self.shown(path.trim_end_matches('/'), &[])
    }

    /// All resources as they are, without faults, by their paths.
    #[must_use]
    pub fn resources(&self) -> BTreeMap<String, Value> {
        let shown = |path: String| self.shown(&path, &[]).map(|body| (path, body));
        self.tree.keys().filter_map(shown).collect()
    }

    /// Records the start of a machine, by a reset here or by itself. Applies its settings, returns its boot target, and
    /// consumes an override that is for one boot.
    pub fn starts(&mut self, system: &str, now: Duration) -> Option<NextBoot> {
        let vendor = self.vendor();
        let system = self.systems.get_mut(system)?;
        system.turn(EmulatedPower::On, now);
        system.started = Some(now);
        self.tree.touch(&system.layout.system);
        let mut machine =
            MachineResources { tree: &mut self.tree, layout: &system.layout, macs: &system.macs };
        let before = vendor.needs_reset_after_settings().then(|| machine.next_boot(vendor));
        vendor.apply_settings(&mut machine);
        machine.start_secure_boot();
        let next = before.unwrap_or_else(|| machine.next_boot(vendor));
        vendor.consume_once(&mut machine);
        Some(next)
    }

    /// Records that a machine has gone off, by a reset here or by itself.
    pub fn stopped(&mut self, system: &str, now: Duration) {
        if let Some(system) = self.systems.get_mut(system) {
            system.turn(EmulatedPower::Off, now);
            self.tree.touch(&system.layout.system);
        }
    }

    /// Answers a request; never panics.
    pub fn answer(
        &mut self,
        request: &EmulatorRequest<'_>,
    ) -> (EmulatorResponse, Option<PowerEffect>) {
        self.now = request.now;
        self.perform_deferred();
        let path = match request.path.trim_end_matches('/') {
            "" => "/",
            path => path,
        };
        if path == FAULTS {
            return (self.answer_about_faults(request), self.effects.pop_front());
        }
        let faults = self.faults.of_request(request.method, path);
        let response = match faults::response_instead(&faults) {
            Some(instead) => instead,
            None => self.route(request, path, &faults),
        };
        (faults::applied_to_response(response, &faults), self.effects.pop_front())
    }

    fn vendor(&self) -> &'static dyn VendorRules {
        self.platform.map_or_else(platforms::recorded, Platform::vendor)
    }
}

#[cfg(test)]
mod tests;
