//! The constants of a machine, fixed before its start: its settings, its folder, and the PCI addresses of its cards.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::config::{Acceleration, MachineConfig};

/// The time since the start of the program, as the emulator counts it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BmcClock(Instant);

impl BmcClock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Duration {
        self.0.elapsed()
    }
}

/// The constant properties of a machine.
pub(crate) struct MachineSetup {
    pub(crate) machine: MachineConfig,
    pub(crate) qemu: PathBuf,
    pub(crate) acceleration: Acceleration,
    /// The machine's folder.
    pub(crate) dir: PathBuf,
}

impl MachineSetup {
    /// The image in the virtual CD.
    pub(crate) fn cd(&self) -> PathBuf {
        self.dir.join("cd.iso")
    }
}

/// A network card's device number on the first PCI bus, which its boot entries contain. QEMU uses the lower numbers
/// itself.
pub(crate) fn nic_device(number: usize) -> u8 {
    0x10 + u8::try_from(number).unwrap_or(u8::MAX)
}
