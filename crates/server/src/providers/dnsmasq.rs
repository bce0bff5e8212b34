//! dnsmasq, told by the files of its `dhcp-hostsdir` and `dhcp-optsdir`, in Ironic's layout.
//!
//! dnsmasq reads a file when it comes or changes, and adds what is in it to what it knows: the newest
//! line about a MAC address wins, and nothing is ever forgotten before it is started anew. So every boot
//! has a tag of its own that its options hang on, and a boot is over when a newer line gives its MAC
//! address no such tag.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use futures::future::{BoxFuture, FutureExt as _, ready};
use provision::Mac;
use tempfile::NamedTempFile;
use uuid::Uuid;

use super::Provider;
use super::announcement::{Announcement, Links};
use crate::config;
use crate::urls::Family;

/// Whatever begins like this is ours: upstream's names.
const OURS: &str = "ironic-";

/// The files of our boots.
#[derive(Debug)]
pub struct Dnsmasq {
    hosts: PathBuf,
    options: PathBuf,
}

impl Dnsmasq {
    /// Those in these folders, which dnsmasq watches.
    ///
    /// # Errors
    /// In words, where a folder is not there: dnsmasq would not see files in one that comes later.
    pub fn open(settings: &config::Dnsmasq) -> Result<Self> {
        for (name, folder) in
            [("dhcp_hostsdir", &settings.dhcp_hostsdir), ("dhcp_optsdir", &settings.dhcp_optsdir)]
        {
            ensure!(
                folder.is_dir(),
                "{name} in [dhcp.dnsmasq], {}, is no folder: make it before dnsmasq is started, \
                 and give it the same name there",
                folder.display()
            );
        }
        let (hosts, options) = (settings.dhcp_hostsdir.clone(), settings.dhcp_optsdir.clone());
        Ok(Self { hosts, options })
    }

    /// Whether files can be put into the folders.
    ///
    /// # Errors
    /// Names the folder into which none can.
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
        let lines = option_lines(told)?;
        // Before the hosts: a machine never has a tag without its options.
        write(&self.options_of(told.node), &lines)?;
        told.ports.iter().try_for_each(|port| {
            write(&self.host_of(port.mac), &host_line(port.mac, Some(told.attempt)))
        })
    }

    /// Files in which another boot of the machine has begun stay.
    fn take_back(&self, told: &Announcement) -> Result<()> {
        let has_another = |path: &Path| {
            fs::read_to_string(path).is_ok_and(|text| !text.contains(&tag(told.attempt)))
        };
        for port in &told.ports {
            let path = self.host_of(port.mac);
            if !has_another(&path) {
                write(&path, &host_line(port.mac, None))?;
            }
        }
        let path = self.options_of(told.node);
        if has_another(&path) { Ok(()) } else { remove(&path) }
    }

    /// Whether a file is not as it was written. dnsmasq itself reads all of them when it starts.
    fn lacks(&self, told: &Announcement) -> Result<bool> {
        let lacks = |path: &Path, lines: &str| {
            fs::read_to_string(path).map_or(true, |present| present != lines)
        };
        let host = |mac| lacks(&self.host_of(mac), &host_line(mac, Some(told.attempt)));
        Ok(lacks(&self.options_of(told.node), &option_lines(told)?)
            || told.ports.iter().any(|port| host(port.mac)))
    }

    /// Files of boots that we do not know are made good: a line without a boot where there was one, and
    /// nothing at all where dnsmasq has read that.
    fn clean_up(&self, all: &[Announcement]) -> Result<()> {
        let options: HashSet<_> = all.iter().map(|told| self.options_of(told.node)).collect();
        let ports = all.iter().flat_map(|told| &told.ports);
        let hosts: HashSet<_> = ports.map(|port| self.host_of(port.mac)).collect();
        for path in ours(&self.hosts)?.into_iter().filter(|path| !hosts.contains(path)) {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            match boot_of(&text) {
                Some(mac) => write(&path, &host_line(mac, None))?,
                None => remove(&path)?,
            }
        }
        let old = ours(&self.options)?.into_iter().filter(|path| !options.contains(path));
        old.into_iter().try_for_each(|path| remove(&path))
    }

    fn options_of(&self, node: Uuid) -> PathBuf {
        self.options.join(format!("{OURS}{node}.conf"))
    }

    fn host_of(&self, mac: Mac) -> PathBuf {
        self.hosts.join(format!("{OURS}{mac}.conf"))
    }
}

impl Provider for Dnsmasq {
    fn announce<'a>(&'a self, told: &'a Announcement) -> BoxFuture<'a, Result<()>> {
        ready(self.put(told)).boxed()
    }

    fn withdraw<'a>(&'a self, told: &'a Announcement) -> BoxFuture<'a, Result<()>> {
        ready(self.take_back(told)).boxed()
    }

    /// Of what is over there are files.
    fn reconcile<'a>(
        &'a self,
        told: &'a [Announcement],
        _: &'a [Announcement],
    ) -> BoxFuture<'a, Result<()>> {
        let all = self.clean_up(told).and_then(|()| told.iter().try_for_each(|one| self.put(one)));
        ready(all).boxed()
    }

    fn has_forgotten<'a>(&'a self, told: &'a [Announcement]) -> BoxFuture<'a, Result<bool>> {
        let mut lacks = told.iter().map(|told| self.lacks(told));
        ready(lacks.find(|lacks| !matches!(lacks, Ok(false))).unwrap_or(Ok(false))).boxed()
    }
}

/// The options of one boot, each for the clients that it helps and for no other.
///
/// The tags of clients (`ferroboot-http`, `ferroboot-x64` and so on, `ipxe`) come from dnsmasq's own
/// configuration. It cannot send vendor class options (16) to DHCPv6 clients: it takes the value for
/// texts and puts the length of each before it, where firmware wants an enterprise number.
fn option_lines(told: &Announcement) -> Result<String> {
    let links = told.links(Family::V4).context(
        "dnsmasq can tell firmware what to boot over IPv4 only: it sends no DHCPv6 vendor class",
    )?;
    let tag = tag(told.attempt);
    let ipxe = &links.ipxe;
    let firmware = links.firmware.iter().map(|(cpu_arch, url)| {
        let http = format!("tag:{tag},tag:!ipxe,tag:ferroboot-http,tag:ferroboot-{cpu_arch}");
        format!("{http},60,HTTPClient\n{http},67,{url}\n")
    });
    let mut lines: String = firmware.collect();
    lines += &format!("tag:{tag},tag:ipxe,67,{ipxe}\n");
    if let Ok(Links { ipxe, .. }) = told.links(Family::V6) {
        lines += &format!("tag:{tag},tag:ipxe,option6:59,{ipxe}\n");
    }
    Ok(lines)
}

/// The tag `ironic` is upstream's, on all that are ours.
fn host_line(mac: Mac, boot: Option<Uuid>) -> String {
    match boot {
        Some(attempt) => format!("{mac},set:{},set:ferroboot-boot,set:ironic\n", tag(attempt)),
        None => format!("{mac},set:ironic\n"),
    }
}

/// Whose boot a file of hosts still has.
fn boot_of(text: &str) -> Option<Mac> {
    let (mac, rest) = text.trim().split_once(',')?;
    (rest != "set:ironic").then_some(())?;
    mac.parse().ok()
}

fn tag(attempt: Uuid) -> String {
    attempt.simple().to_string()
}

/// Our files in a folder.
fn ours(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed = || -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(OURS)) {
                paths.push(entry.path());
            }
        }
        Ok(paths)
    };
    listed().with_context(|| format!("cannot list {}", folder.display()))
}

/// Whole or not at all, since dnsmasq reads it in the moment that it sees it; and only if it says
/// something new, since whatever dnsmasq reads is added to what it knows.
fn write(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    let written = || -> io::Result<()> {
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        let mut file = beside(folder)?;
        file.write_all(text.as_bytes())?;
        readable_by_all(&file)?;
        file.as_file().sync_all()?;
        // Closed before it has its name: dnsmasq would read it a second time when it is closed.
        file.into_temp_path().persist(path).map_err(io::Error::from)
    };
    written().with_context(|| format!("cannot write {}", path.display()))
}

/// A file that dnsmasq does not read: it passes over names that begin with a dot.
fn beside(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(".ferroboot-").tempfile_in(folder)
}

/// dnsmasq runs as a user of its own.
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

    use provision::BootInterface::{Http, HttpIpxe};
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
            let settings = config::Dnsmasq { dhcp_hostsdir, dhcp_optsdir };
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
    fn firmware_and_ipxe_get_each_their_url_and_nobody_else_any() {
        let told = Announcement::example(HttpIpxe, "10.0.0.1:8080");

        let lines = option_lines(&told).unwrap();

        let tag = "00000000000000000000000000000002";
        let http = format!("tag:{tag},tag:!ipxe,tag:ferroboot-http,tag:ferroboot");
        let url = "http://10.0.0.1:8080/boot/TICKET";
        let expected = [
            format!("{http}-x64,60,HTTPClient"),
            format!("{http}-x64,67,{url}/snponly.efi"),
            format!("{http}-arm64,60,HTTPClient"),
            format!("{http}-arm64,67,{url}/snponly-arm64.efi"),
            format!("tag:{tag},tag:ipxe,67,{url}/boot.ipxe"),
        ];
        assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn over_ipv6_ipxe_alone_can_be_told_and_where_firmware_must_be_that_is_said() {
        let by_name = option_lines(&Announcement::example(Http, "boot.example")).unwrap();
        let refused = option_lines(&Announcement::example(Http, "[fd00::1]:8080")).unwrap_err();

        assert!(
            by_name.contains("tag:ipxe,option6:59,http://boot.example/boot/TICKET/boot.ipxe\n")
        );
        assert!(format!("{refused:#}").contains("it sends no DHCPv6 vendor class"), "{refused:#}");
    }

    #[test]
    fn files_are_whole_readable_and_as_upstream_calls_them_and_a_boot_that_is_over_leaves_no_options()
     {
        let world = World::new();
        let told = Announcement::example(Http, "10.0.0.1");

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
        let told = Announcement::example(Http, "10.0.0.1");
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
        world.dnsmasq.put(&Announcement::example(Http, "10.0.0.1")).unwrap();

        world.dnsmasq.clean_up(&[]).unwrap();

        // dnsmasq has the old line until a newer one comes.
        assert_eq!(world.host(), "52:54:00:00:00:01,set:ironic\n");
        assert!(fs::read_dir(&opts).unwrap().next().is_none());
        world.dnsmasq.clean_up(&[]).unwrap();
        assert_eq!(world.files("hosts"), ["somebody-else.conf"]);
    }

    #[test]
    fn a_boot_that_ends_late_leaves_the_files_of_the_next_one() {
        let world = World::new();
        let first = Announcement::example(Http, "10.0.0.1");
        let next = first.next();
        world.dnsmasq.put(&first).unwrap();
        world.dnsmasq.put(&next).unwrap();

        world.dnsmasq.take_back(&first).unwrap();

        assert!(!world.dnsmasq.lacks(&next).unwrap());
    }

    #[test]
    fn files_that_somebody_removed_are_missed() {
        let world = World::new();
        let told = [Announcement::example(Http, "10.0.0.1")];
        world.dnsmasq.put(&told[0]).unwrap();
        let forgotten = || world.dnsmasq.has_forgotten(&told).now_or_never().unwrap().unwrap();

        assert!(!forgotten());
        for (folder, file) in [("hosts", HOST), ("opts", OPTIONS)] {
            fs::remove_file(world.dir.path().join(folder).join(file)).unwrap();
            assert!(forgotten(), "{file}");
            world.dnsmasq.put(&told[0]).unwrap();
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let settings =
            config::Dnsmasq { dhcp_hostsdir: "/nowhere".into(), dhcp_optsdir: "/tmp".into() };

        let refused = Dnsmasq::open(&settings).unwrap_err().to_string();

        assert!(refused.starts_with("dhcp_hostsdir in [dhcp.dnsmasq], /nowhere, is no folder"));
    }
}
