//! dnsmasq, configured by the files of its `dhcp-hostsdir` and `dhcp-optsdir`. `netboot` composes their contents.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use futures::future::{BoxFuture, FutureExt as _};
use netboot::providers::announcement::{AnnouncedPort, Announcement};
use netboot::providers::dnsmasq::{
    BootFiles, HostFile, KnownFiles, NamedText, expect_no_address, host_file, host_line,
    is_of_another_boot, is_ours, made_good, options_file,
};
use netboot::providers::picture::Picture;
use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::provider::{But, Provider, all_well};
use crate::settings::DnsmasqConfig;

/// The files of this service's boots; clones share them.
#[derive(Clone, Debug)]
pub struct Dnsmasq {
    hosts: PathBuf,
    options: PathBuf,
    /// Held while files are read and changed.
    one_by_one: Arc<Mutex<()>>,
}

impl Dnsmasq {
    /// The files in these folders, which dnsmasq watches.
    ///
    /// # Errors
    /// A folder is missing: dnsmasq would not watch one that is created later.
    pub fn open(settings: &DnsmasqConfig) -> Result<Self> {
        for (name, folder) in
            [("dhcp_hostsdir", &settings.dhcp_hostsdir), ("dhcp_optsdir", &settings.dhcp_optsdir)]
        {
            ensure!(
                folder.is_dir(),
                "{name} in [dhcp.dnsmasq], {}, is not a folder: make it before dnsmasq is started, \
                 and give it the same name there",
                folder.display()
            );
        }
        let (hosts, options) = (settings.dhcp_hostsdir.clone(), settings.dhcp_optsdir.clone());
        Ok(Self { hosts, options, one_by_one: Arc::default() })
    }

    /// Runs disk writes on a separate thread, since they may be slow.
    fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        let files = self.clone();
        let done = spawn_blocking(move || {
            let _alone = files.one_by_one.lock().unwrap_or_else(PoisonError::into_inner);
            work(&files)
        });
        async { done.await.context("the files could not be written")? }.boxed()
    }

    /// Checks that files can be created in the folders.
    ///
    /// # Errors
    /// The folder that is not writable.
    pub fn is_writable(&self) -> Result<String> {
        for folder in [&self.hosts, &self.options] {
            beside(folder).with_context(|| {
                format!(
                    "no file can be put into {}: let the user that this service runs as write there",
                    folder.display()
                )
            })?;
        }
        Ok(format!("its folders are {} and {}", self.hosts.display(), self.options.display()))
    }

    fn put(&self, told: &Announcement) -> Result<()> {
        let files = BootFiles::of(told)?;
        told.ports.iter().try_for_each(expect_no_address)?;
        // Before the hosts file: a machine must never have a tag without its options.
        write(&self.options.join(&files.options.name), &files.options.text)?;
        files.hosts.iter().try_for_each(|host| write(&self.hosts.join(&host.name), &host.text))
    }

    /// Removes the files of a boot, except those of a newer boot of the machine.
    fn take_back(&self, told: &Announcement) -> Result<()> {
        let hosts = self.leave(&told.ports, told.attempt);
        let path = self.options.join(options_file(told.node));
        let options = if has_another(&path, told.attempt) { Ok(()) } else { remove(&path) };
        all_well([hosts, options])
    }

    fn leave(&self, ports: &[AnnouncedPort], attempt: Uuid) -> Result<()> {
        all_well(ports.iter().map(|port| {
            let path = self.hosts.join(host_file(port.mac));
            if has_another(&path, attempt) { Ok(()) } else { write(&path, &host_line(port, None)) }
        }))
    }

    /// Whether a file differs from what was written. dnsmasq itself reads all files when it starts.
    fn lacks(&self, told: &Announcement) -> bool {
        // Options that cannot be composed were never written.
        let Ok(files) = BootFiles::of(told) else { return false };
        let is_there =
            |folder: &Path, file: &NamedText| holds(&folder.join(&file.name), &file.text);
        !is_there(&self.options, &files.options)
            || !files.hosts.iter().all(|host| is_there(&self.hosts, host))
    }

    /// Corrects files of unknown boots: a line without a boot replaces one with a boot, and a removed port's file is
    /// deleted once dnsmasq has read that.
    fn clean_up(&self, picture: &Picture) -> Result<()> {
        let known = KnownFiles::of(picture);
        let hosts = ours(&self.hosts)?.into_iter().map(|name| {
            let path = self.hosts.join(&name);
            match known.host(&name) {
                HostFile::Boots => Ok(()),
                HostFile::Rests(line) => write(&path, line),
                HostFile::Gone => make_good(&path),
            }
        });
        let hosts = all_well(hosts);
        let old = ours(&self.options)?.into_iter().filter(|name| !known.has_options(name));
        all_well([hosts, all_well(old.map(|name| remove(&self.options.join(name))))])
    }

    /// Ended boots first, whatever else fails.
    fn set(&self, picture: &Picture) -> Result<()> {
        let told = picture.told.iter();
        let told =
            told.map(|one| self.put(one).with_context(|| format!("the boot of node {}", one.node)));
        all_well([self.clean_up(picture)].into_iter().chain(told))
    }
}

impl Provider for Dnsmasq {
    fn announce<'a>(&'a self, told: &'a Announcement) -> BoxFuture<'a, Result<But>> {
        let told = told.clone();
        self.apart(move |files| files.put(&told).map(|()| But::new()))
    }

    fn amend<'a>(
        &'a self,
        before: &'a Announcement,
        now: &'a Announcement,
    ) -> BoxFuture<'a, Result<But>> {
        let gone = before.gone_ports(now);
        let now = now.clone();
        self.apart(move |files| {
            all_well([files.leave(&gone, now.attempt), files.put(&now)]).map(|()| But::new())
        })
    }

    fn withdraw<'a>(&'a self, told: &'a Announcement) -> BoxFuture<'a, Result<()>> {
        let told = told.clone();
        self.apart(move |files| files.take_back(&told))
    }

    /// Ended boots have files, too.
    fn reconcile<'a>(&'a self, picture: &'a Picture) -> BoxFuture<'a, Result<()>> {
        let picture = picture.clone();
        self.apart(move |files| files.set(&picture))
    }

    fn has_forgotten<'a>(&'a self, told: &'a [Announcement]) -> BoxFuture<'a, Result<bool>> {
        let told = told.to_vec();
        self.apart(move |files| Ok(told.iter().any(|told| files.lacks(told))))
    }
}

/// Ends the boot in a hosts file, or removes the file if it has none.
fn make_good(path: &Path) -> Result<()> {
    let text = fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    match made_good(&text) {
        Some(line) => write(path, &line),
        None => remove(path),
    }
}

fn has_another(path: &Path, attempt: Uuid) -> bool {
    fs::read_to_string(path).is_ok_and(|text| is_of_another_boot(&text, attempt))
}

fn holds(path: &Path, text: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|present| present == text)
}

/// Our files in a folder, by their names.
fn ours(folder: &Path) -> Result<Vec<String>> {
    let listed = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            names.extend(entry?.file_name().into_string().ok().filter(|name| is_ours(name)));
        }
        Ok(names)
    };
    listed().with_context(|| format!("cannot list {}", folder.display()))
}

/// Writes a file atomically, since dnsmasq reads it at once; and only if it has changed, since dnsmasq adds
/// everything that it reads to its configuration.
fn write(path: &Path, text: &str) -> Result<()> {
    if holds(path, text) {
        return Ok(());
    }
    let written = || -> io::Result<()> {
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        let mut file = beside(folder)?;
        file.write_all(text.as_bytes())?;
        readable_by_all(&file)?;
        file.as_file().sync_all()?;
        // Closed before the rename: dnsmasq would read it again when it is closed.
        file.into_temp_path().persist(path).map_err(io::Error::from)
    };
    written().with_context(|| format!("cannot write {}", path.display()))
}

/// A temporary file, which dnsmasq ignores: its name begins with a dot.
fn beside(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(".ferroboot-").tempfile_in(folder)
}

/// dnsmasq runs as another user.
fn readable_by_all(file: &NamedTempFile) -> io::Result<()> {
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use netboot::providers::test_announcements::{announcement, next_boot, plain_port};
    use provision::BootInterface::Http;
    use tempfile::TempDir;

    use super::*;

    const HOST: &str = "ironic-52:54:00:00:00:01.conf";
    const OPTIONS: &str = "ironic-00000000-0000-0000-0000-000000000001.conf";

    struct World {
        dir: TempDir,
        dnsmasq: Dnsmasq,
    }

    impl World {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let [dhcp_hostsdir, dhcp_optsdir] = ["hosts", "opts"].map(|name| dir.path().join(name));
            fs::create_dir(&dhcp_hostsdir).unwrap();
            fs::create_dir(&dhcp_optsdir).unwrap();
            let settings = DnsmasqConfig { dhcp_hostsdir, dhcp_optsdir };
            Self { dnsmasq: Dnsmasq::open(&settings).unwrap(), dir }
        }

        fn files(&self, folder: &str) -> Vec<String> {
            let entries = fs::read_dir(self.dir.path().join(folder)).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }

        fn host(&self) -> String {
            fs::read_to_string(self.dir.path().join("hosts").join(HOST)).unwrap()
        }
    }

    #[test]
    fn files_are_whole_readable_and_as_upstream_calls_them_and_a_boot_that_is_over_leaves_no_options()
     {
        let world = World::new();
        let told = announcement(Http, "10.0.0.1");

        world.dnsmasq.put(&told).unwrap();

        assert_eq!(world.files("hosts"), [HOST]);
        assert_eq!(world.files("opts"), [OPTIONS]);
        let path = world.dir.path().join("opts").join(OPTIONS);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
        assert_eq!(
            world.host(),
            "52:54:00:00:00:01,set:00000000000000000000000000000002,set:ferroboot-boot,set:ironic\n"
        );
        world.dnsmasq.take_back(&told).unwrap();
        assert_eq!(world.host(), "52:54:00:00:00:01,set:ironic\n");
        assert!(world.files("opts").is_empty());
    }

    #[test]
    fn whether_files_can_be_put_there_is_known_before_a_machine_boots_and_leaves_none() {
        let world = World::new();

        assert!(world.dnsmasq.is_writable().unwrap().ends_with("/opts"));
        assert_eq!(world.files("hosts"), [""; 0]);
        fs::remove_dir(world.dir.path().join("opts")).unwrap();
        let refused = world.dnsmasq.is_writable().unwrap_err().to_string();
        assert!(refused.starts_with("no file can be put into") && refused.contains("/opts"));
    }

    #[test]
    fn what_is_there_is_not_written_again_since_dnsmasq_would_have_it_twice() {
        let world = World::new();
        let told = announcement(Http, "10.0.0.1");
        let inode = || fs::metadata(world.dir.path().join("opts").join(OPTIONS)).unwrap().ino();

        world.dnsmasq.put(&told).unwrap();
        let before = inode();
        world.dnsmasq.put(&told).unwrap();

        assert_eq!(inode(), before);
    }

    #[test]
    fn after_a_crash_a_boot_that_is_gone_is_neutralised_first_and_then_forgotten() {
        let world = World::new();
        let (hosts, opts) = (world.dir.path().join("hosts"), world.dir.path().join("opts"));
        fs::write(hosts.join("somebody-else.conf"), "52:54:00:00:00:09,ignore").unwrap();
        world.dnsmasq.put(&announcement(Http, "10.0.0.1")).unwrap();

        world.dnsmasq.clean_up(&Picture::default()).unwrap();

        // dnsmasq keeps the old line until there is a newer one.
        assert_eq!(world.host(), "52:54:00:00:00:01,set:ironic\n");
        assert!(fs::read_dir(&opts).unwrap().next().is_none());
        world.dnsmasq.clean_up(&Picture::default()).unwrap();
        assert_eq!(world.files("hosts"), ["somebody-else.conf"]);
    }

    #[test]
    fn a_boot_that_ends_late_leaves_the_files_of_the_next_one() {
        let world = World::new();
        let first = announcement(Http, "10.0.0.1");
        let next = next_boot(&first);
        world.dnsmasq.put(&first).unwrap();
        world.dnsmasq.put(&next).unwrap();

        world.dnsmasq.take_back(&first).unwrap();

        assert!(!world.dnsmasq.lacks(&next));
    }

    #[test]
    fn the_line_of_a_port_without_a_boot_stays_as_long_as_the_port() {
        let world = World::new();
        let told = announcement(Http, "10.0.0.1");
        let ports = told.ports.clone();
        world.dnsmasq.put(&told).unwrap();
        world.dnsmasq.take_back(&told).unwrap();

        world.dnsmasq.set(&Picture { ports, ..Picture::default() }).unwrap();
        assert_eq!(world.host(), "52:54:00:00:00:01,set:ironic\n");

        world.dnsmasq.set(&Picture::default()).unwrap();
        assert!(world.files("hosts").is_empty());
    }

    #[test]
    fn what_an_operator_says_of_a_machine_is_in_both_of_its_lines_but_no_address() {
        let world = World::new();
        let mut told = announcement(Http, "10.0.0.1");
        told.ports[0].dhcp_host = Some("n1,set:rack7".to_owned());

        world.dnsmasq.put(&told).unwrap();
        assert!(world.host().ends_with("set:ferroboot-boot,set:ironic,n1,set:rack7\n"));
        world.dnsmasq.take_back(&told).unwrap();
        assert_eq!(world.host(), "52:54:00:00:00:01,set:ironic,n1,set:rack7\n");

        for (own, why) in [
            ("n1,10.0.0.7", "has the address 10.0.0.7"),
            ("[fd00::7]", "has the address [fd00::7]"),
            ("n1\nn2", "cannot be a part of a dhcp-host line"),
        ] {
            told.ports[0].dhcp_host = Some(own.to_owned());
            let refused = world.dnsmasq.put(&told).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        assert_eq!(world.host(), "52:54:00:00:00:01,set:ironic,n1,set:rack7\n");
    }

    #[test]
    fn a_boot_that_cannot_be_told_is_named_and_keeps_no_other_from_being_told_or_made_good() {
        let world = World::new();
        let good = announcement(Http, "10.0.0.1");
        let mut over = next_boot(&good);
        over.ports = vec![plain_port(2)];
        world.dnsmasq.put(&over).unwrap();
        let bad = announcement(Http, "[fd00::1]");
        let node = bad.node;

        let picture = Picture { told: vec![bad, good.clone()], ..Picture::default() };
        let failed = world.dnsmasq.set(&picture).unwrap_err().to_string();

        assert!(
            failed.starts_with(&format!("the boot of node {node}: dnsmasq can tell")),
            "{failed}"
        );
        assert!(!world.dnsmasq.lacks(&good));
        let other = world.dir.path().join("hosts/ironic-52:54:00:00:00:02.conf");
        assert_eq!(fs::read_to_string(other).unwrap(), "52:54:00:00:00:02,set:ironic\n");
    }

    #[tokio::test]
    async fn ports_that_come_and_go_in_the_middle_of_a_boot_have_it_and_lose_it() {
        let world = World::new();
        let before = announcement(Http, "10.0.0.1");
        let mut now = before.clone();
        now.ports = vec![plain_port(2)];
        world.dnsmasq.announce(&before).await.unwrap();

        world.dnsmasq.amend(&before, &now).await.unwrap();

        assert_eq!(world.host(), "52:54:00:00:00:01,set:ironic\n");
        assert!(!world.dnsmasq.has_forgotten(&[now]).await.unwrap());
    }

    #[tokio::test]
    async fn files_that_somebody_removed_are_missed() {
        let world = World::new();
        let told = [announcement(Http, "10.0.0.1")];
        world.dnsmasq.put(&told[0]).unwrap();
        let forgotten = async || world.dnsmasq.has_forgotten(&told).await.unwrap();

        assert!(!forgotten().await);
        for (folder, file) in [("hosts", HOST), ("opts", OPTIONS)] {
            fs::remove_file(world.dir.path().join(folder).join(file)).unwrap();
            assert!(forgotten().await, "{file}");
            world.dnsmasq.put(&told[0]).unwrap();
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let settings =
            DnsmasqConfig { dhcp_hostsdir: "/nowhere".into(), dhcp_optsdir: "/tmp".into() };

        let refused = Dnsmasq::open(&settings).unwrap_err().to_string();

        assert!(refused.starts_with("dhcp_hostsdir in [dhcp.dnsmasq], /nowhere, is not a folder"));
    }
}
