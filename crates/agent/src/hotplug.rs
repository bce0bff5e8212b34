//! Drivers for the devices that are there, and for those that turn up later.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use nix::sys::utsname::uname;
use tracing::{debug, warn};

use crate::modules::{Files, Index};

/// Loads modules of the running kernel.
#[derive(Debug)]
pub struct Loader {
    folder: PathBuf,
    index: Index,
    done: Mutex<BTreeSet<String>>,
}

impl Loader {
    /// Reads the index of the running kernel's modules.
    ///
    /// # Errors
    ///
    /// When this ramdisk was made for another kernel.
    pub fn new() -> Result<Self> {
        let release = uname().context("asking for the kernel's version")?;
        let folder = Path::new("/lib/modules").join(release.release());
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).with_context(|| {
                format!("{} is missing: this ramdisk belongs to another kernel", path.display())
            })
        };
        let files = Files {
            dep: read("modules.dep")?,
            alias: read("modules.alias")?,
            softdep: read("modules.softdep")?,
        };
        Ok(Self { index: Index::parse(&files), folder, done: Mutex::default() })
    }

    /// Loads whatever drives a device with this modalias, or the module of this name.
    pub fn load(&self, modalias: &str) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        for name in self.index.matching(modalias) {
            for path in self.index.load_order(name) {
                if done.contains(path) {
                    continue;
                }
                match self.insert(path) {
                    Ok(()) | Err(Errno::EEXIST) => debug!("{path} is loaded"),
                    // A driver may find that its device is not there after all.
                    Err(Errno::ENODEV) => debug!("{path} has nothing to drive"),
                    Err(error) => warn!("the kernel does not take {path}: {error}"),
                }
                done.insert(path.to_owned());
            }
        }
    }

    fn insert(&self, path: &str) -> Result<(), Errno> {
        let module = File::open(self.folder.join(path))
            .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
        finit_module(&module, c"", ModuleInitFlags::empty())
    }
}

/// When a device last turned up or went.
#[derive(Debug)]
pub struct Activity {
    last: Mutex<Instant>,
    changed: Condvar,
}

impl Activity {
    fn now(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.changed.notify_all();
    }

    /// Waits until nothing has turned up for `quiet`: controllers look for their disks at their leisure.
    pub fn settle(&self, quiet: Duration, at_most: Duration) {
        let deadline = Instant::now() + at_most;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let until = (*last + quiet).min(deadline);
            let Some(left) =
                until.checked_duration_since(Instant::now()).filter(|it| !it.is_zero())
            else {
                return;
            };
            let waited = self.changed.wait_timeout(last, left);
            last = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Loads drivers for all devices there are and, on a thread of its own, for all that come.
///
/// # Errors
///
/// When the kernel does not tell of devices.
pub fn watch(loader: Arc<Loader>) -> Result<Arc<Activity>> {
    let activity = Arc::new(Activity { last: Mutex::new(Instant::now()), changed: Condvar::new() });
    // First listen, then look: nothing falls between.
    let events = uevents().context("listening for devices")?;
    let watching = Arc::clone(&activity);
    thread::Builder::new()
        .name("hotplug".to_owned())
        .spawn(move || {
            coldplug(&loader, Path::new("/sys/devices"));
            listen(&loader, &events, &watching);
        })
        .context("starting a thread")?;
    Ok(activity)
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

fn coldplug(loader: &Loader, folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder {
            coldplug(loader, &entry.path());
        } else if entry.file_name() == "modalias"
            && let Ok(modalias) = fs::read_to_string(entry.path())
        {
            loader.load(modalias.trim());
        }
    }
}

fn listen(loader: &Loader, events: &OwnedFd, activity: &Activity) {
    let mut message = vec![0; 16 << 10];
    loop {
        match recv(events.as_raw_fd(), &mut message, MsgFlags::empty()) {
            Ok(len) => {
                activity.now();
                if let Some(modalias) = added(&message[..len]) {
                    loader.load(modalias);
                }
            }
            // More came than the socket holds: look at everything again.
            Err(Errno::ENOBUFS) => coldplug(loader, Path::new("/sys/devices")),
            Err(Errno::EINTR) => {}
            Err(error) => {
                warn!("devices that turn up from now on go unnoticed: {error}");
                return;
            }
        }
    }
}

/// The modalias of a device that a kernel message says was added (lib/kobject_uevent.c).
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
        let activity = Activity { last: Mutex::new(Instant::now()), changed: Condvar::new() };

        activity.settle(Duration::from_millis(1), Duration::from_secs(60));
        activity.settle(Duration::from_secs(60), Duration::from_millis(1));
    }

    proptest! {
        #[test]
        fn any_message_is_read_without_panic(message: Vec<u8>) {
            added(&message);
        }
    }
}
