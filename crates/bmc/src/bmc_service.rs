//! One BMC: its emulator, and the machines behind it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use redfish::emulator::{EmulatedUsers, Emulator, FaultRule, PowerEffect, RecordedTree};
use tracing::info;

use crate::config::{BmcConfig, MachineConfig, MachineDriver};
use crate::machine::{MachineOrders, PowerOrder, start_machine};
use crate::private;
use crate::recordings::read_tree;
use crate::setup::{BmcClock, MachineSetup};

/// A BMC with its machines.
pub(crate) struct BmcService {
    emulator: Arc<Mutex<Emulator>>,
    /// The QEMU machines by the names of their systems; others are fake.
    machines: BTreeMap<String, MachineOrders>,
    pub(crate) clock: BmcClock,
}

/// The trees that were read, by their paths: machines with the same tree share it.
#[derive(Default)]
pub(crate) struct TreeCache(BTreeMap<PathBuf, RecordedTree>);

impl TreeCache {
    fn read(&mut self, path: &PathBuf) -> Result<RecordedTree> {
        if let Some(tree) = self.0.get(path) {
            return Ok(tree.clone());
        }
        let tree = read_tree(path)?;
        self.0.insert(path.clone(), tree.clone());
        Ok(tree)
    }
}

impl BmcService {
    /// A BMC of these machines. `number` counts the BMCs of the same machine.
    pub(crate) fn start(
        config: &BmcConfig,
        machines: &[&MachineConfig],
        number: u16,
        common: &mut CommonParts,
    ) -> Result<Self> {
        let mut emulator = Emulator::with_users(common.users.clone());
        let mut faults: Vec<FaultRule> = config.faults.clone();
        for machine in machines {
            faults.extend(machine.faults.iter().cloned());
            match &machine.tree {
                Some(path) => emulator.show_recorded(&machine.id, &common.trees.read(path)?),
                None => {
                    let macs = machine.macs(number).map(|mac| mac.to_string());
                    let macs: Vec<_> = macs.collect();
                    emulator.add_system(&machine.id, &macs, machine.platform);
                }
            }
        }
        emulator.set_faults(faults);
        let emulator = Arc::new(Mutex::new(emulator));
        let mut orders = BTreeMap::new();
        for machine in machines {
            if machine.driver == MachineDriver::Fake {
                continue;
            }
            let dir = config.state_dir.join(&machine.id);
            private::make_own_folder(&dir)
                .with_context(|| format!("making the folder {}", dir.display()))?;
            let setup = MachineSetup {
                machine: (*machine).clone(),
                qemu: config.qemu.clone().unwrap_or_else(|| machine.architecture.qemu().into()),
                acceleration: config.acceleration,
                dir,
            };
            let started = start_machine(setup, Arc::clone(&emulator), common.clock);
            orders.insert(machine.id.clone(), started);
        }
        Ok(Self { emulator, machines: orders, clock: common.clock })
    }

    pub(crate) fn emulator(&self) -> MutexGuard<'_, Emulator> {
        self.emulator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Performs an effect, and waits until it is done.
    pub(crate) async fn perform(&self, effect: PowerEffect) -> Result<()> {
        let (system, order) = match effect {
            PowerEffect::Start { system } => (system, PowerOrder::Start),
            PowerEffect::Stop { system } => (system, PowerOrder::Stop),
            PowerEffect::ShutDown { system } => (system, PowerOrder::ShutDown),
            PowerEffect::Restart { system } => (system, PowerOrder::Restart),
            PowerEffect::Interrupt { system } => (system, PowerOrder::Interrupt),
        };
        match self.machines.get(&system) {
            Some(machine) => machine.order(order).await,
            None => {
                self.switch_fake(&system, order);
                Ok(())
            }
        }
    }

    /// Performs an order on a fake machine.
    fn switch_fake(&self, system: &str, order: PowerOrder) {
        let mut emulator = self.emulator();
        let now = self.clock.now();
        match order {
            PowerOrder::Start => drop(emulator.starts(system, now)),
            PowerOrder::Stop | PowerOrder::ShutDown => emulator.stopped(system, now),
            PowerOrder::Restart => {
                emulator.stopped(system, now);
                drop(emulator.starts(system, now));
            }
            PowerOrder::Interrupt => info!(system, "gets a non-maskable interrupt"),
        }
    }
}

/// What all BMCs share.
pub(crate) struct CommonParts {
    pub(crate) users: EmulatedUsers,
    pub(crate) trees: TreeCache,
    pub(crate) clock: BmcClock,
}
