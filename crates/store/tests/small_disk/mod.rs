//! A file system of a few megabytes that a test can fill and free: a tmpfs in a separate mount namespace.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Set in a test process that runs in its own mount namespace.
const INSIDE: &str = "FERROBOOT_TEST_SMALL_DISK";

/// Runs `test` on a file system of `size` (mount's option). It starts the test `name` again in a mount namespace,
/// without root if the kernel allows user namespaces.
///
/// If the kernel does not, the test is skipped with a message.
pub(crate) fn on_a_small_disk(name: &str, size: &str, test: impl FnOnce(SmallDisk)) {
    if std::env::var_os(INSIDE).is_some() {
        return test(SmallDisk::mount(size));
    }
    let Some(mut unshare) = unshare() else {
        eprintln!("{name}: not tested, since neither root nor a user may mount a file system here");
        return;
    };
    let this = std::env::current_exe().expect("a test knows its own file");
    let status = unshare.arg(this).args(["--exact", name, "--nocapture"]).env(INSIDE, "1").status();
    assert!(status.expect("unshare can be run").success(), "{name} failed in its namespace");
}

/// `unshare` with the options that work here.
fn unshare() -> Option<Command> {
    [&["--mount"][..], &["--mount", "--map-root-user"]].into_iter().find_map(|options| {
        let mut tried = Command::new("unshare");
        let tried = tried.args(options).args(["mount", "-t", "tmpfs", "tmpfs", "/mnt"]);
        let works = tried.output().is_ok_and(|tried| tried.status.success());
        let mut unshare = Command::new("unshare");
        unshare.args(options);
        works.then_some(unshare)
    })
}

/// A file system that is nearly empty.
pub(crate) struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    fn mount(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder.path());
        assert!(mount.status().unwrap().success(), "a tmpfs can be mounted");
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Fills the file system up to about this many free bytes.
    pub(crate) fn fill_but(&self, bytes: usize) {
        let mut filling = File::create(self.filling()).unwrap();
        while filling.write_all(&[0; 4_096]).is_ok() {}
        let len = filling.metadata().unwrap().len().saturating_sub(bytes as u64);
        filling.set_len(len).unwrap();
    }

    /// Frees the filled space.
    pub(crate) fn free(&self) {
        fs::remove_file(self.filling()).unwrap();
    }

    fn filling(&self) -> PathBuf {
        self.path().join("filling")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The namespace ends with the process; the folder below must not be in use.
        Command::new("umount").arg("--lazy").arg(self.path()).status().ok();
    }
}
