//! dnsmasq, told by the files of its `dhcp-hostsdir` and `dhcp-optsdir`, in Ironic's layout.
//!
//! dnsmasq reads a file when it comes or changes, and adds what is in it to what it knows: the newest
//! line about a MAC address wins, and nothing is ever forgotten before it is started anew. So every boot
//! has a tag of its own that its options hang on, and a boot is over when a newer line gives its MAC
//! address no such tag.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use futures::future::{BoxFuture, FutureExt as _};
use hardware::Mac;
use netboot::urls::IpFamily;
use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::announcement::{Announcement, Links, ToldPort};
use super::{But, Picture, Provider, all_well};
use crate::config;

/// Whatever begins like this is ours: upstream's names.
const OURS: &str = "ironic-";

/// The files of our boots; clones share them.
#[derive(Clone, Debug)]
pub struct Dnsmasq {
    hosts: PathBuf,
    options: PathBuf,
    /// Held while files are looked at and changed.
    one_by_one: Arc<Mutex<()>>,
}

impl Dnsmasq {
    /// Those in these folders, which dnsmasq watches.
    ///
    /// # Errors
    /// In words, where a folder is not there: dnsmasq would not see files in one that comes later.
    pub fn open(settings: &config::DnsmasqConfig) -> Result<Self> {
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
        Ok(Self { hosts, options, one_by_one: Arc::default() })
    }

    /// Writing to a disk, which may be slow, is not for the threads that everything else waits for.
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
        told.ports.iter().try_for_each(expect_no_address)?;
        // Before the hosts: a machine never has a tag without its options.
        write(&self.options_of(told.node), &lines)?;
        told.ports.iter().try_for_each(|port| {
            write(&self.host_of(port.mac), &host_line(port, Some(told.attempt)))
        })
    }

    /// Files in which another boot of the machine has begun stay.
    fn take_back(&self, told: &Announcement) -> Result<()> {
        let hosts = self.leave(&told.ports, told.attempt);
        let path = self.options_of(told.node);
        let options = if has_another(&path, told.attempt) { Ok(()) } else { remove(&path) };
        all_well([hosts, options])
    }

    fn leave(&self, ports: &[ToldPort], attempt: Uuid) -> Result<()> {
        all_well(ports.iter().map(|port| {
            let path = self.host_of(port.mac);
            if has_another(&path, attempt) { Ok(()) } else { write(&path, &host_line(port, None)) }
        }))
    }

    /// Whether a file is not as it was written. dnsmasq itself reads all of them when it starts.
    fn lacks(&self, told: &Announcement) -> bool {
        let lacks = |path: &Path, lines: &str| {
            fs::read_to_string(path).map_or(true, |present| present != lines)
        };
        let host =
            |port: &ToldPort| lacks(&self.host_of(port.mac), &host_line(port, Some(told.attempt)));
        // What cannot be told was never written.
        let Ok(lines) = option_lines(told) else { return false };
        lacks(&self.options_of(told.node), &lines) || told.ports.iter().any(host)
    }

    /// Files of boots that we do not know are made good: a line without a boot where there was one, and for a
    /// port that is gone nothing at all where dnsmasq has read that.
    fn clean_up(&self, picture: &Picture) -> Result<()> {
        let told = &picture.told;
        let options: HashSet<_> = told.iter().map(|told| self.options_of(told.node)).collect();
        let boots = told.iter().flat_map(|told| &told.ports);
        let hosts: HashSet<_> = boots.map(|port| self.host_of(port.mac)).collect();
        let ports = picture.ports.iter().map(|port| (self.host_of(port.mac), port));
        let ports: HashMap<_, _> = ports.collect();
        let old_hosts = ours(&self.hosts)?.into_iter().filter(|path| !hosts.contains(path));
        let hosts = all_well(old_hosts.map(|path| match ports.get(&path) {
            Some(port) => write(&path, &host_line(port, None)),
            None => make_good(&path),
        }));
        let old = ours(&self.options)?.into_iter().filter(|path| !options.contains(path));
        all_well([hosts, all_well(old.map(|path| remove(&path)))])
    }

    /// What is over first, whatever else cannot be told.
    fn set(&self, picture: &Picture) -> Result<()> {
        let told = picture.told.iter();
        let told =
            told.map(|one| self.put(one).with_context(|| format!("the boot of node {}", one.node)));
        all_well([self.clean_up(picture)].into_iter().chain(told))
    }

    fn options_of(&self, node: Uuid) -> PathBuf {
        self.options.join(format!("{OURS}{node}.conf"))
    }

    fn host_of(&self, mac: Mac) -> PathBuf {
        self.hosts.join(format!("{OURS}{mac}.conf"))
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
        let is_gone = |port: &&ToldPort| !now.ports.iter().any(|stays| stays.mac == port.mac);
        let gone: Vec<_> = before.ports.iter().filter(is_gone).cloned().collect();
        let now = now.clone();
        self.apart(move |files| {
            all_well([files.leave(&gone, now.attempt), files.put(&now)]).map(|()| But::new())
        })
    }

    fn withdraw<'a>(&'a self, told: &'a Announcement) -> BoxFuture<'a, Result<()>> {
        let told = told.clone();
        self.apart(move |files| files.take_back(&told))
    }

    /// Of what is over there are files.
    fn reconcile<'a>(&'a self, picture: &'a Picture) -> BoxFuture<'a, Result<()>> {
        let picture = picture.clone();
        self.apart(move |files| files.set(&picture))
    }

    fn has_forgotten<'a>(&'a self, told: &'a [Announcement]) -> BoxFuture<'a, Result<bool>> {
        let told = told.to_vec();
        self.apart(move |files| Ok(told.iter().any(|told| files.lacks(told))))
    }
}

/// The options of one boot, each for the clients that it helps and for no other.
///
/// The tags of clients (`ferroboot-http`, `ferroboot-x64` and so on, `ipxe`) come from dnsmasq's own
/// configuration. It cannot send vendor class options (16) to DHCPv6 clients: it takes the value for
/// texts and puts the length of each before it, where firmware wants an enterprise number.
fn option_lines(told: &Announcement) -> Result<String> {
    let links = told.links(IpFamily::V4).map_err(|refused| {
        if told.links(IpFamily::V6).is_err() {
            return refused;
        }
        refused.context(
            "dnsmasq can tell firmware what to boot over IPv4 only: it sends no DHCPv6 vendor class",
        )
    })?;
    links.fit_dhcp_v4()?;
    let tag = tag(told.attempt);
    let ipxe = &links.ipxe;
    let firmware = links.firmware.iter().map(|(cpu_arch, url)| {
        let http = format!("tag:{tag},tag:!ipxe,tag:ferroboot-http,tag:ferroboot-{cpu_arch}");
        format!("{http},60,HTTPClient\n{http},67,{url}\n")
    });
    let mut lines: String = firmware.collect();
    lines += &format!("tag:{tag},tag:ipxe,67,{ipxe}\n");
    if let Ok(Links { ipxe, .. }) = told.links(IpFamily::V6) {
        lines += &format!("tag:{tag},tag:ipxe,option6:59,{ipxe}\n");
    }
    Ok(lines)
}

/// The tag `ironic` is upstream's, on all that are ours. The line takes the place of any other about this MAC
/// address, so it says what the operator has to say of it too.
fn host_line(port: &ToldPort, boot: Option<Uuid>) -> String {
    let ToldPort { mac, dhcp_host, vif: _ } = port;
    let boot = boot.map(|attempt| format!(",set:{},set:ferroboot-boot", tag(attempt)));
    let own = dhcp_host.as_ref().filter(|_| expect_no_address(port).is_ok());
    let own = own.map(|own| format!(",{own}"));
    format!("{mac}{},{NO_BOOT}{}\n", boot.unwrap_or_default(), own.unwrap_or_default())
}

/// What a line without a boot says.
const NO_BOOT: &str = "set:ironic";

/// dnsmasq passes over a line with an address that another line has, though that be an older one about the
/// same MAC address: a boot would never end.
fn expect_no_address(port: &ToldPort) -> Result<()> {
    let own = port.dhcp_host.as_deref().unwrap_or_default();
    let is_plain = |character: char| character.is_ascii_graphic() && !"\"\\#".contains(character);
    ensure!(
        own.chars().all(is_plain),
        "dnsmasq_dhcp_host in extra of the port {} is no part of a dhcp-host line: {own:?}",
        port.mac
    );
    let address = own.split(',').find(|part| {
        let part = part.trim_matches(['[', ']']);
        part.parse::<IpAddr>().is_ok() || part.parse::<Mac>().is_ok()
    });
    ensure!(
        address.is_none(),
        "dnsmasq_dhcp_host in extra of the port {} has the address {}, which dnsmasq would not let go of: \
         write a name there, and give that its address in /etc/hosts of dnsmasq's host",
        port.mac,
        address.unwrap_or_default()
    );
    Ok(())
}

/// Gives the machine of a file of hosts no boot any more; or removes the file, if it has none.
fn make_good(path: &Path) -> Result<()> {
    let text = fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    match without_boot(&text) {
        Some(line) if line != text => write(path, &line),
        Some(_) | None => remove(path),
    }
}

/// A line of ours as it is when the boot is over.
fn without_boot(line: &str) -> Option<String> {
    let (mac, rest) = line.split_once(',')?;
    let mac: Mac = mac.parse().ok()?;
    let own = rest.find(NO_BOOT)?;
    Some(format!("{mac},{}", rest.get(own..)?))
}

fn has_another(path: &Path, attempt: Uuid) -> bool {
    fs::read_to_string(path).is_ok_and(|text| !text.contains(&tag(attempt)))
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
            let settings = config::DnsmasqConfig { dhcp_hostsdir, dhcp_optsdir };
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

        world.dnsmasq.clean_up(&Picture::default()).unwrap();

        // dnsmasq has the old line until a newer one comes.
        assert_eq!(world.host(), "52:54:00:00:00:01,set:ironic\n");
        assert!(fs::read_dir(&opts).unwrap().next().is_none());
        world.dnsmasq.clean_up(&Picture::default()).unwrap();
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

        assert!(!world.dnsmasq.lacks(&next));
    }

    #[test]
    fn the_line_of_a_port_without_a_boot_stays_as_long_as_the_port() {
        let world = World::new();
        let told = Announcement::example(Http, "10.0.0.1");
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
        let mut told = Announcement::example(Http, "10.0.0.1");
        told.ports[0].dhcp_host = Some("n1,set:rack7".to_owned());

        world.dnsmasq.put(&told).unwrap();
        assert!(world.host().ends_with("set:ferroboot-boot,set:ironic,n1,set:rack7\n"));
        world.dnsmasq.take_back(&told).unwrap();
        assert_eq!(world.host(), "52:54:00:00:00:01,set:ironic,n1,set:rack7\n");

        for (own, why) in [
            ("n1,10.0.0.7", "has the address 10.0.0.7"),
            ("[fd00::7]", "has the address [fd00::7]"),
            ("n1\nn2", "is no part of a dhcp-host line"),
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
        let good = Announcement::example(Http, "10.0.0.1");
        let mut over = good.next();
        over.ports = vec![ToldPort::plain(2)];
        world.dnsmasq.put(&over).unwrap();
        let bad = Announcement::example(Http, "[fd00::1]");
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
        let before = Announcement::example(Http, "10.0.0.1");
        let mut now = before.clone();
        now.ports = vec![ToldPort::plain(2)];
        world.dnsmasq.announce(&before).await.unwrap();

        world.dnsmasq.amend(&before, &now).await.unwrap();

        assert_eq!(world.host(), "52:54:00:00:00:01,set:ironic\n");
        assert!(!world.dnsmasq.has_forgotten(&[now]).await.unwrap());
    }

    #[test]
    fn urls_that_dnsmasq_would_drop_are_refused_and_not_blamed_on_ipv6() {
        let told = Announcement::example(Http, &format!("{}.example", "x".repeat(230)));

        let refused = format!("{:#}", option_lines(&told).unwrap_err());

        assert!(refused.starts_with("the URL has"), "{refused}");
    }

    #[tokio::test]
    async fn files_that_somebody_removed_are_missed() {
        let world = World::new();
        let told = [Announcement::example(Http, "10.0.0.1")];
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
            config::DnsmasqConfig { dhcp_hostsdir: "/nowhere".into(), dhcp_optsdir: "/tmp".into() };

        let refused = Dnsmasq::open(&settings).unwrap_err().to_string();

        assert!(refused.starts_with("dhcp_hostsdir in [dhcp.dnsmasq], /nowhere, is no folder"));
    }
}
