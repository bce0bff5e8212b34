//! External DHCP services, configured by the daemon.

mod asking;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bmc::config::{FirmwareConfig, Ip};
use ferroboot::lab::firmware::OvmfBuild;
use ferroboot::lab::machine::LabMachine;
use ferroboot::lab::neighbour::Neighbour;
use ferroboot::lab::network::LabNetwork;
use ferroboot::lab::process::Process;
use ferroboot::lab::{Lab, Plan};
use hardware::architecture;
use provision::BootEventKind;
use provision::trace::{AnnouncementCause, BootAnnouncement};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::asking::{Asker, MAC, Offered};
use crate::story::{Fetched as _, Verbs as _, in_a_lab, with};

#[test]
fn ovmf_boots_through_dnsmasq_by_http_and_by_http_ipxe() {
    let dirs = Dirs::new().unwrap();
    in_a_lab(dirs.plan(), |lab| {
        let dnsmasq = dirs.dnsmasq(lab)?;
        boots_by_http_and_by_http_ipxe(lab, "dnsmasq", |machine| {
            assert!(is_empty(&dirs.options())?);
            let host = fs::read_to_string(dirs.host(machine))?;
            assert_eq!(host, format!("{},set:ironic\n", machine.mac()));
            Ok(())
        })?;
        dnsmasq.kill()
    });
}

#[test]
#[ignore = "one of the full matrix, and dnsmasq serves the same boots: make test-lab"]
fn ovmf_boots_through_kea_over_ipv4_by_http_and_by_http_ipxe() {
    let kea = Kea::new(LabNetwork::Ipv4).unwrap();
    in_a_lab(kea.plan(LabMachine::new(1)), |lab| {
        let server = kea.start(lab)?;
        boots_by_http_and_by_http_ipxe(lab, "Kea", |_| {
            assert_eq!(kea.classes()?, ["phones"]);
            Ok(())
        })?;
        server.kill()
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn ovmf_2026_08_boots_through_kea_over_ipv6_alone() {
    let kea = Kea::new(LabNetwork::Ipv6).unwrap();
    in_a_lab(kea.plan(over_ipv6()), |lab| kea.boot_over_ipv6(lab, "http", "bootx64.efi"));
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn ovmf_2026_08_boots_through_kea_over_ipv6_alone_by_http_ipxe() {
    let kea = Kea::new(LabNetwork::Ipv6).unwrap();
    in_a_lab(kea.plan(over_ipv6()), |lab| kea.boot_over_ipv6(lab, "http-ipxe", "snponly.efi"));
}

#[test]
fn dnsmasq_tells_the_url_to_matching_clients_alone_and_only_while_the_boot_lasts() {
    let dirs = Dirs::new().unwrap();
    let ramdisk = ramdisk_with_other_architectures().unwrap();
    in_a_lab(Plan { ramdisk: ramdisk.path().to_owned(), ..dirs.plan() }, |lab| {
        let dnsmasq = dirs.dnsmasq(lab)?;
        tells_matching_clients_alone(lab)?;
        dnsmasq.kill()
    });
}

#[test]
fn kea_tells_the_url_to_matching_clients_alone_and_only_while_the_boot_lasts() {
    let kea = Kea::new(LabNetwork::Ipv4).unwrap();
    let ramdisk = ramdisk_with_other_architectures().unwrap();
    let plan = kea.plan(LabMachine::new(1));
    in_a_lab(Plan { ramdisk: ramdisk.path().to_owned(), ..plan }, |lab| {
        let server = kea.start(lab)?;
        tells_matching_clients_alone(lab)?;
        server.kill()
    });
}

#[test]
fn kea_that_is_started_anew_in_the_middle_of_a_boot_is_told_again() {
    let kea = Kea::new(LabNetwork::Ipv4).unwrap();
    in_a_lab(kea.plan(LabMachine::new(1)), |lab| {
        let server = kea.start(lab)?;
        let asker = begin_a_boot(lab)?;
        assert!(tells_the_url(&asker)?);

        server.kill()?;
        let server = kea.start_again(lab)?;
        is_announced_again(lab)?;

        assert!(tells_the_url(&asker)?);
        server.kill()
    });
}

#[test]
fn kea_knows_what_boots_though_it_and_the_daemon_were_killed() {
    let kea = Kea::new(LabNetwork::Ipv4).unwrap();
    in_a_lab(kea.plan(LabMachine::new(1)), |lab| {
        let server = kea.start(lab)?;
        let asker = begin_a_boot(lab)?;

        lab.kill_daemon()?;
        server.kill()?;
        let server = kea.start_again(lab)?;
        assert!(!tells_the_url(&asker)?);
        lab.start_daemon()?;

        let told = lab.wait_until(|| Ok(tells_the_url(&asker)?.then_some(())))?;
        told.context("Kea was not told again")?;
        server.kill()
    });
}

#[test]
fn dnsmasq_that_is_started_anew_without_its_files_is_told_again() {
    let dirs = Dirs::new().unwrap();
    in_a_lab(dirs.plan(), |lab| {
        let dnsmasq = dirs.dnsmasq(lab)?;
        let asker = begin_a_boot(lab)?;
        assert!(tells_the_url(&asker)?);

        dnsmasq.kill()?;
        for file in fs::read_dir(dirs.hosts())?.chain(fs::read_dir(dirs.options())?) {
            fs::remove_file(file?.path())?;
        }
        let dnsmasq = dirs.dnsmasq(lab)?;
        is_announced_again(lab)?;

        assert!(tells_the_url(&asker)?);
        dnsmasq.kill()
    });
}

fn boots_by_http_and_by_http_ipxe(
    lab: &mut Lab,
    provider: &str,
    nothing_is_left: impl Fn(&LabMachine) -> Result<()>,
) -> Result<()> {
    let machine = lab.machines()[0].clone();
    lab.enroll(&machine)?;
    lab.manage(&machine)?;
    for (boot_interface, first) in [("http", "bootx64.efi"), ("http-ipxe", "snponly.efi")] {
        lab.boot_by(&machine, boot_interface)?;

        lab.clean(&machine)?;

        let trace = lab.trace(&machine.name)?;
        assert_eq!(trace.fetched_by_firmware().as_deref(), Some(first));
        was_announced(lab, &machine, provider)?;
        nothing_is_left(&machine)?;
    }
    Ok(())
}

/// Begins a boot that never ends, since the machine's own card is unconnected; returns a second card.
fn begin_a_boot(lab: &Lab) -> Result<Asker> {
    let machine = &lab.machines()[0];
    lab.enroll(machine)?;
    lab.baremetal(&["port", "create", "--node", &machine.uuid(), MAC])?;
    lab.manage(machine)?;
    lab.boot_by(machine, "http")?;
    let asker = Asker::plug_in()?;
    ip(&format!("link set {} nomaster", machine.tap()))?;
    lab.begin_to_clean(machine)?;
    lab.wait_for_event(machine, "provider", |what| matches!(what, BootEventKind::Provider { .. }))?;
    lab.wait_for_state(machine, "clean wait")?;
    Ok(asker)
}

fn tells_the_url(asker: &Asker) -> Result<bool> {
    let offered = asker.firmware("HTTPClient", architecture::X64_HTTP.0)?;
    Ok(offered == self::offered(Some("bootx64.efi"), Some("HTTPClient")))
}

fn is_announced_again(lab: &Lab) -> Result<()> {
    lab.wait_for_event(&lab.machines()[0], "second announcement", |what| {
        matches!(
            what,
            BootEventKind::Provider {
                told: BootAnnouncement::Boot { cause: AnnouncementCause::Forgotten, .. },
                ..
            }
        )
    })
}

fn tells_matching_clients_alone(lab: &Lab) -> Result<()> {
    let asker = begin_a_boot(lab)?;
    let machine = &lab.machines()[0];

    for (architecture, file) in [
        (architecture::X64_HTTP, "bootx64.efi"),
        (architecture::ARM64_HTTP, "bootaa64.efi"),
        (architecture::RISCV64_HTTP, "bootriscv64.efi"),
    ] {
        let answer = asker.firmware("HTTPClient", architecture.0)?;
        assert_eq!(answer, offered(Some(file), Some("HTTPClient")));
    }
    // 32-bit x86.
    assert_eq!(asker.firmware("HTTPClient", 15)?, offered(None, None));
    assert_eq!(asker.firmware("PXEClient", 7)?, offered(None, None));
    assert_eq!(asker.ipxe()?, offered(Some("boot.ipxe"), None));
    assert_eq!(asker.running_system()?, offered(None, None));

    lab.baremetal(&["node", "abort", &machine.name])?;
    lab.wait_for_state(machine, "clean failed")?;
    assert_eq!(asker.running_system()?, offered(None, None));
    // The server notices the change of its files or settings by itself, a moment later.
    let noticed = Instant::now() + Duration::from_secs(10);
    while asker.ipxe()? != offered(None, None) {
        ensure!(Instant::now() < noticed, "the server still tells the URL");
    }
    Ok(())
}

fn offered(file: Option<&str>, vendor_class: Option<&str>) -> Offered {
    Offered { file: file.map(str::to_owned), vendor_class: vendor_class.map(str::to_owned) }
}

fn was_announced(lab: &Lab, machine: &LabMachine, provider: &str) -> Result<()> {
    let trace = lab.trace(&machine.name)?;
    let told = trace.events.iter().any(
        |event| matches!(&event.what, BootEventKind::Provider { name, error: None, .. } if name.name() == provider),
    );
    ensure!(told, "the trace does not say that {provider} got the boot");
    Ok(())
}

fn is_empty(folder: &Path) -> Result<bool> {
    Ok(fs::read_dir(folder)?.next().is_none())
}

/// dnsmasq's folders, which must exist before the daemon starts.
struct Dirs(TempDir);

impl Dirs {
    fn new() -> Result<Self> {
        let dirs = Self(tempfile::tempdir()?);
        fs::create_dir(dirs.hosts())?;
        fs::create_dir(dirs.options())?;
        Ok(dirs)
    }

    fn hosts(&self) -> PathBuf {
        self.0.path().join("hosts")
    }

    fn options(&self) -> PathBuf {
        self.0.path().join("options")
    }

    fn host(&self, machine: &LabMachine) -> PathBuf {
        self.hosts().join(format!("ironic-{}.conf", machine.mac()))
    }

    fn plan(&self) -> Plan {
        let (hosts, options) = (self.hosts(), self.options());
        beside(
            LabMachine::new(1),
            LabNetwork::Ipv4,
            &format!(
                "provider = \"dnsmasq\"\n[dhcp.dnsmasq]\ndhcp_hostsdir = {hosts:?}\ndhcp_optsdir = {options:?}\n"
            ),
        )
    }

    /// As described in the book.
    fn dnsmasq(&self, lab: &Lab) -> Result<Process> {
        let (hosts, options) = (self.hosts(), self.options());
        let leases = self.0.path().join("leases");
        let configuration = format!(
            "port=0\ninterface=lab0\nuser=root\nlog-dhcp\nno-ping\ndhcp-leasefile={}\n\
             dhcp-range=10.77.0.100,10.77.0.199,1h\n\
             dhcp-hostsdir={}\ndhcp-optsdir={}\n\
             dhcp-vendorclass=set:ferroboot-http,HTTPClient\n\
             dhcp-match=set:ferroboot-x64,option:client-arch,16\n\
             dhcp-match=set:ferroboot-arm64,option:client-arch,19\n\
             dhcp-match=set:ferroboot-riscv64,option:client-arch,28\n\
             dhcp-match=set:ipxe,175\ndhcp-userclass=set:ipxe,iPXE\n\
             dhcp-ignore=tag:ironic,tag:ferroboot-http,tag:!ferroboot-boot\n",
            leases.display(),
            hosts.display(),
            options.display(),
        );
        let path = self.0.path().join("dnsmasq.conf");
        fs::write(&path, configuration)?;
        let mut dnsmasq = Command::new("/usr/sbin/dnsmasq");
        dnsmasq.args(["--keep-in-foreground", "--log-facility=-", "-C"]).arg(&path);
        let log = lab.dir().join("dnsmasq.log");
        Process::start(&mut dnsmasq, "DHCP, ", &log).context("dnsmasq")
    }
}

/// One of Kea's servers, with its files and its control socket in a folder.
struct Kea {
    dir: TempDir,
    network: LabNetwork,
}

impl Kea {
    fn new(network: LabNetwork) -> Result<Self> {
        Ok(Self { dir: tempfile::tempdir()?, network })
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("kea.sock")
    }

    fn number(&self) -> &'static str {
        if self.network == LabNetwork::Ipv6 { "6" } else { "4" }
    }

    fn plan(&self, machine: LabMachine) -> Plan {
        let (number, socket) = (self.number(), self.socket());
        let settings = format!("provider = \"kea\"\n[dhcp.kea]\nsocket{number} = {socket:?}\n");
        let mut plan = beside(machine, self.network, &settings);
        if self.network == LabNetwork::Ipv6 {
            plan.neighbour = Some(Neighbour::Router);
        }
        plan
    }

    fn start(&self, lab: &Lab) -> Result<Process> {
        plug_in_somebody()?;
        self.start_again(lab)
    }

    fn start_again(&self, lab: &Lab) -> Result<Process> {
        let number = self.number();
        let (subnet, pool) = match self.network {
            LabNetwork::Ipv6 => ("fd77::/64", "fd77::100-fd77::1ff"),
            LabNetwork::Ipv4 | LabNetwork::Dual => ("10.77.0.0/24", "10.77.0.100-10.77.0.199"),
        };
        let mut settings = json!({
            "interfaces-config": {"interfaces": ["lab0"]},
            "control-socket": {"socket-type": "unix", "socket-name": self.socket()},
            "lease-database": {"type": "memfile", "name": self.dir.path().join("leases")},
            "client-classes": [{"name": "phones", "test": "option[15].exists"}],
            "loggers": [{
                "name": format!("kea-dhcp{number}"),
                "output_options": [{"output": "stderr"}],
                "severity": "INFO",
            }],
        });
        settings[format!("subnet{number}")] =
            json!([{"id": 1, "subnet": subnet, "interface": "lab0", "pools": [{"pool": pool}]}]);
        if self.network == LabNetwork::Ipv6 {
            settings["server-id"] = json!({"type": "LLT", "persist": false});
        }
        let path = self.dir.path().join("kea.json");
        fs::write(&path, json!({ format!("Dhcp{number}"): settings }).to_string())?;
        let mut kea = Command::new(format!("/usr/sbin/kea-dhcp{number}"));
        kea.arg("-c").arg(&path);
        kea.env("KEA_PIDFILE_DIR", self.dir.path()).env("KEA_LOCKFILE_DIR", "none");
        Process::start(&mut kea, "_STARTED ", &lab.dir().join("kea.log")).context("Kea")
    }

    fn boot_over_ipv6(&self, lab: &Lab, boot_interface: &str, first: &str) -> Result<()> {
        let server = self.start(lab)?;
        let machine = &lab.machines()[0];
        lab.enroll(machine)?;
        lab.manage(machine)?;
        lab.boot_by(machine, boot_interface)?;

        lab.clean(machine)?;

        let trace = lab.trace(&machine.name)?;
        assert_eq!(trace.fetched_by_firmware().as_deref(), Some(first));
        was_announced(lab, machine, "Kea")?;
        server.kill()
    }

    /// Its client classes.
    fn classes(&self) -> Result<Vec<String>> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.write_all(br#"{"command": "config-get"}"#)?;
        let answer: Value = serde_json::from_reader(stream)?;
        let classes = &answer["arguments"][format!("Dhcp{}", self.number())]["client-classes"];
        let name = |class: &Value| class["name"].as_str().unwrap_or_default().to_owned();
        Ok(classes.as_array().context("client-classes")?.iter().map(name).collect())
    }
}

/// The checkout's boot set with placeholder sets for other architectures, which are only announced: nobody fetches
/// them.
fn ramdisk_with_other_architectures() -> Result<TempDir> {
    let ramdisk = tempfile::tempdir()?;
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/ramdisk").canonicalize()?;
    for file in fs::read_dir(&made)?.filter_map(Result::ok).filter(|file| file.path().is_file()) {
        symlink(file.path(), ramdisk.path().join(file.file_name()))?;
    }
    for cpu_arch in ["arm64", "riscv64"] {
        let folder = ramdisk.path().join(cpu_arch);
        fs::create_dir(&folder)?;
        symlink(made.join("manifest.json"), folder.join("manifest.json"))?;
    }
    Ok(ramdisk)
}

/// Firmware that boots only over IPv6.
fn over_ipv6() -> LabMachine {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let firmware = FirmwareConfig { ip: vec![Ip::Ipv6], ..OvmfBuild::V2026_08.firmware(&root) };
    LabMachine::new(1).with_firmware(firmware)
}

/// Kea opens no socket on an interface without a carrier, and the machine is off.
fn plug_in_somebody() -> Result<()> {
    ip("link add somebody type veth peer name to-somebody")?;
    ip("link set to-somebody master lab0 up")?;
    ip("link set somebody up")
}

fn ip(line: &str) -> Result<()> {
    let status = Command::new("ip").args(line.split(' ')).status().context("ip")?;
    ensure!(status.success(), "ip {line}: {status}");
    Ok(())
}

/// A lab whose daemon is not its DHCP server.
fn beside(machine: LabMachine, network: LabNetwork, settings: &str) -> Plan {
    let mut plan = with([machine]);
    plan.network = network;
    plan.own_dhcp = false;
    let host = if network == LabNetwork::Ipv6 { "[fd77::1]" } else { "10.77.0.1" };
    plan.settings = format!("[boot]\nurl = \"http://{host}:8080\"\n[dhcp]\n{settings}");
    plan
}
