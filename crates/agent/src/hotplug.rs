//! Drivers for existing devices, and for devices that appear later.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use nix::sys::utsname::uname;
use thiserror::Error;
use tracing::{debug, warn};

use crate::modules::{ModuleIndex, ModuleIndexFiles, name_of};

/// Number of drivers loaded in parallel: a slow one must not delay the others.
const WORKERS: usize = 4;

/// Lets the module load return before the driver has probed its devices (kernel/module/main.c).
const ASYNC_PROBE: &CStr = c"async_probe";

/// Makes a controller's driver scan for its disks during loading (drivers/scsi/scsi_scan.c), so that
/// [`Activity::settle`] can detect the end of the scan.
const SYNCHRONOUS_SCAN: &CStr = c"scan=sync";

/// Loads modules for the running kernel.
#[derive(Debug)]
pub struct ModuleLoader {
    folder: PathBuf,
    index: ModuleIndex,
    done: Mutex<BTreeSet<String>>,
}

impl ModuleLoader {
    /// Reads the module index of the running kernel.
    ///
    /// # Errors
    ///
    /// This ramdisk was made for another kernel.
    pub fn new() -> Result<Self> {
        let release = uname().context("asking for the kernel's version")?;
        let folder = Path::new("/lib/modules").join(release.release());
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).with_context(|| {
                format!("{} is missing: this ramdisk belongs to another kernel", path.display())
            })
        };
        let files = ModuleIndexFiles {
            dep: read("modules.dep")?,
            alias: read("modules.alias")?,
            softdep: read("modules.softdep")?,
        };
        Ok(Self { index: ModuleIndex::parse(&files), folder, done: Mutex::default() })
    }

    /// Loads the drivers for this modalias, or the module of this name. May run on several threads: the kernel makes
    /// a second load of a module wait for the first.
    pub fn load(&self, modalias: &str) {
        // A network card must not wait until all disks have spun up.
        let parameters = if is_network(modalias) { ASYNC_PROBE } else { c"" };
        for name in self.index.matching(modalias) {
            for path in self.index.load_order(name) {
                self.load_one(path, parameters);
            }
        }
    }

    fn load_one(&self, path: &str, parameters: &CStr) {
        if self.lock_done().contains(path) {
            return;
        }
        let parameters = match name_of(path).as_str() {
            "scsi_mod" => SYNCHRONOUS_SCAN,
            // Both network cards and disks depend on it, and disks must be numbered in their order on the bus.
            "virtio_pci" => c"",
            _ => parameters,
        };
        match self.insert(path, parameters) {
            Ok(()) | Err(Errno::EEXIST) => debug!("{path} is loaded"),
            // A driver may find that its device is absent.
            Err(Errno::ENODEV) => debug!("{path} has nothing to drive"),
            Err(error) => warn!("the kernel rejects {path}: {error}"),
        }
        self.lock_done().insert(path.to_owned());
    }

    fn insert(&self, path: &str, parameters: &CStr) -> Result<(), Errno> {
        let module = File::open(self.folder.join(path))
            .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
        finit_module(&module, parameters, ModuleInitFlags::empty())
    }

    fn lock_done(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of device detection.
#[derive(Debug)]
pub struct Activity {
    state: Mutex<ActivityState>,
    changed: Condvar,
}

#[derive(Debug)]
struct ActivityState {
    /// Number of modaliases whose drivers are being searched or loaded.
    pending: usize,
    /// The time of the last device event or driver load.
    last: Instant,
}

/// Drivers were still probing at the end of the time limit.
#[derive(Debug, Error)]
#[error("drivers are still looking for devices after {} s", .0.as_secs())]
pub struct Unsettled(Duration);

impl Activity {
    fn new() -> Self {
        Self {
            state: Mutex::new(ActivityState { pending: 0, last: Instant::now() }),
            changed: Condvar::new(),
        }
    }

    fn note(&self, change: impl FnOnce(&mut ActivityState)) {
        let mut state = self.lock();
        change(&mut state);
        state.last = Instant::now();
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until all drivers are loaded (for a controller, until it has scanned for disks) and no device has
    /// appeared for `quiet`, as needed for USB.
    ///
    /// # Errors
    ///
    /// Drivers are still busy after `at_most`.
    pub fn settle(&self, quiet: Duration, at_most: Duration) -> Result<(), Unsettled> {
        let deadline = Instant::now() + at_most;
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let calm = state.last + quiet;
            if state.pending == 0 && (calm <= now || deadline <= now) {
                return Ok(());
            }
            if deadline <= now {
                return Err(Unsettled(at_most));
            }
            let until = if state.pending == 0 { calm.min(deadline) } else { deadline };
            let waited = self.changed.wait_timeout(state, until - now);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, ActivityState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Loads drivers for all existing and future devices, on separate threads.
///
/// # Errors
///
/// The kernel does not report devices.
pub fn watch(loader: Arc<ModuleLoader>) -> Result<Arc<Activity>> {
    // It listens before it enumerates, so that no device is missed.
    let events = uevents().context("listening for devices")?;
    let activity = Arc::new(Activity::new());
    let (queue, work) = mpsc::channel();
    let work = Arc::new(Mutex::new(work));
    for _ in 0..WORKERS {
        let (loader, work, activity) = (loader.clone(), work.clone(), activity.clone());
        spawn("drivers", move || drive(&loader, &work, &activity))?;
    }

    let wanted = WantedModules { queue, activity: activity.clone() };
    wanted.add_all(coldplug());
    spawn("hotplug", move || listen(&wanted, &events))?;
    Ok(activity)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).context("starting a thread")
}

/// The queue of modaliases that need a driver.
struct WantedModules {
    queue: Sender<String>,
    activity: Arc<Activity>,
}

impl WantedModules {
    fn add_all(&self, modaliases: impl IntoIterator<Item = String>) {
        for modalias in modaliases {
            self.activity.note(|state| state.pending += 1);
            self.queue.send(modalias).expect("the workers never end");
        }
    }
}

fn drive(loader: &ModuleLoader, work: &Mutex<Receiver<String>>, activity: &Activity) {
    loop {
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(modalias) = next else { return };
        loader.load(&modalias);
        activity.note(|state| state.pending -= 1);
    }
}

fn uevents() -> nix::Result<OwnedFd> {
    const KERNEL: u32 = 1;
    let events = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkKObjectUEvent,
    )?;
    bind(events.as_raw_fd(), &NetlinkAddr::new(0, KERNEL))?;
    Ok(events)
}

/// The modaliases of existing devices, network cards first: everything else waits for them.
fn coldplug() -> Vec<String> {
    let mut found = BTreeSet::new();
    modaliases(Path::new("/sys/devices"), &mut found);
    let (mut network, other): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|modalias| is_network(modalias));
    network.extend(other);
    network
}

fn modaliases(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder {
            modaliases(&entry.path(), found);
        } else if entry.file_name() == "modalias"
            && let Ok(modalias) = fs::read_to_string(entry.path())
        {
            found.insert(modalias.trim().to_owned());
        }
    }
}

/// Whether the modalias has PCI's base class 02, or virtio's device type 1.
fn is_network(modalias: &str) -> bool {
    let pci = modalias.starts_with("pci:") && modalias.contains("bc02");
    pci || modalias.starts_with("virtio:d00000001")
}

fn listen(wanted: &WantedModules, events: &OwnedFd) {
    let mut message = vec![0; 16 << 10];
    loop {
        match recv(events.as_raw_fd(), &mut message, MsgFlags::empty()) {
            Ok(len) => {
                wanted.activity.note(|_| {});
                wanted.add_all(added(&message[..len]).map(str::to_owned));
            }
            // The socket buffer overflowed: enumerate again.
            Err(Errno::ENOBUFS) => wanted.add_all(coldplug()),
            Err(Errno::EINTR) => {}
            Err(error) => {
                warn!("new devices will not be detected: {error}");
                return;
            }
        }
    }
}

/// The modalias of an added device in a kernel message (lib/kobject_uevent.c).
pub fn added(message: &[u8]) -> Option<&str> {
    let value = |key: &str| {
        message
            .split(|&byte| byte == 0)
            .find_map(|line| str::from_utf8(line).ok()?.strip_prefix(key))
    };
    (value("ACTION=")? == "add").then(|| value("MODALIAS="))?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_new_device_is_known_by_its_modalias() {
        let message =
            b"add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0MODALIAS=virtio:d00000001v00001AF4\0";
        assert_eq!(added(message), Some("virtio:d00000001v00001AF4"));

        let message = b"remove@/devices/x\0ACTION=remove\0MODALIAS=virtio:d00000001v00001AF4\0";
        assert_eq!(added(message), None);
    }

    #[test]
    fn silence_is_waited_for_but_not_for_ever() {
        let activity = Activity::new();

        activity.settle(Duration::from_millis(1), Duration::from_secs(60)).unwrap();
        activity.settle(Duration::from_secs(60), Duration::from_millis(1)).unwrap();
    }

    #[test]
    fn a_driver_that_is_still_looking_for_disks_is_no_silence() {
        let activity = Activity::new();
        activity.note(|state| state.pending = 1);

        let error = activity.settle(Duration::ZERO, Duration::from_millis(1)).unwrap_err();

        assert_eq!(error.to_string(), "drivers are still looking for devices after 0 s");
    }

    #[test]
    fn network_cards_are_told_from_the_rest_by_their_class() {
        assert!(is_network("pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00"));
        assert!(is_network("virtio:d00000001v00001AF4"));
        assert!(!is_network("pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01"));
        assert!(!is_network("acpi:PNP0C02:"));
    }

    proptest! {
        #[test]
        fn any_message_is_read_without_panic(message: Vec<u8>) {
            added(&message);
        }
    }
}
