//! The ramdisk and the BMC emulator without the daemon: under OpenStack's own Ironic.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use ferroboot::lab::machine::LabMachine;
use ferroboot::lab::neighbour::Neighbour;
use ferroboot::lab::process::Process;
use ferroboot::lab::{Lab, Plan, disk};

use crate::story::{Verbs as _, in_a_lab, with};

/// The address of the lab's bridge, where machines find Ironic's API and its web server.
const HOST: &str = "10.77.0.1";

/// The port of both Ironic's API and the daemon's.
const PORT: u16 = 6385;

#[test]
#[ignore = "needs Ironic, which make test-lab installs"]
fn ironic_39_cleans_a_machine_with_our_ramdisk_and_provides_it() {
    in_a_lab(plan(), |lab| under_ironic(lab, cleans_and_provides));
}

#[test]
#[ignore = "needs Ironic, which make test-lab installs"]
fn ironic_39_is_told_why_a_clean_failed_and_gets_the_logs() {
    in_a_lab(plan(), |lab| under_ironic(lab, is_told_why_a_clean_failed));
}

/// A lab with another DHCP server than the daemon.
fn plan() -> Plan {
    let neighbour = Some(Neighbour::DhcpServer);
    Plan { neighbour, own_dhcp: false, ..with([LabMachine::new(1)]) }
}

/// Runs a story with Ironic in place of the daemon.
fn under_ironic(
    lab: &mut Lab,
    story: impl FnOnce(&Lab, &UpstreamIronic) -> Result<()>,
) -> Result<()> {
    lab.kill_daemon()?;
    let ironic = UpstreamIronic::start(lab)?;
    story(lab, &ironic).with_context(|| ironic.reports(lab))
}

fn cleans_and_provides(lab: &Lab, ironic: &UpstreamIronic) -> Result<()> {
    let machine = &lab.machines()[0];
    lab.enroll(machine)?;
    lab.manage(machine)?;

    // The command line has the agent's token.
    ironic.measured("clean", || lab.clean(machine))?;

    is_done(lab, machine, "manageable", &["erase_devices_metadata"])?;

    // An image that Ironic does not make has none: the agent gets its token from the lookup.
    disk::make_used(&lab.disk(machine))?;
    lab.set_driver_info(machine, "deploy_iso", &ironic.ready_image()?)?;
    ironic.measured("provide", || lab.provide(machine))?;

    is_done(lab, machine, "available", &["erase_devices_metadata", "erase_devices"])?;
    ironic.has_served_firmware(2)
}

fn is_told_why_a_clean_failed(lab: &Lab, ironic: &UpstreamIronic) -> Result<()> {
    let machine = &lab.machines()[0];
    lab.enroll(machine)?;
    lab.manage(machine)?;
    let hint = r#"skip_block_devices=[{"volume_name": "data"}]"#;
    lab.baremetal(&["node", "set", &machine.name, "--property", hint])?;
    let before = disk::digest(&lab.disk(machine))?;

    lab.begin_to_clean(machine)?;
    lab.wait_for_state(machine, "clean failed")?;

    let why = "cannot select a disk by its \"volume_name\"";
    let node = lab.node(&machine.name)?;
    let error = node["last_error"].as_str().unwrap_or_default();
    assert!(error.contains(why), "{error}");
    assert_eq!(disk::digest(&lab.disk(machine))?, before);
    let logs = ironic.collected_log("agent.log")?;
    assert!(logs.contains(why), "{logs}");
    assert!(ironic.collected_log("kernel.log")?.contains("ipa-agent-token=****** "));
    Ok(())
}

/// The node is in this state without an error, its machine is off, the agent's last boot had these steps, and nothing
/// is left on the disk.
fn is_done(lab: &Lab, machine: &LabMachine, state: &str, steps: &[&str]) -> Result<()> {
    let node = lab.node(&machine.name)?;
    assert_eq!(node["provision_state"], state);
    assert!(node["last_error"].is_null(), "{}", node["last_error"]);
    assert_eq!(node["power_state"], "power off");
    let console = lab.console(machine)?;
    let boot = console.rsplit("the ramdisk has started").next().unwrap_or_default();
    let done: Vec<_> = boot
        .lines()
        .filter_map(|line| {
            line.split_once("clean step \"")?.1.trim_end().strip_suffix("\" is done")
        })
        .collect();
    assert_eq!(done, steps);
    let left = disk::signatures(&lab.disk(machine))?;
    assert!(left.is_empty(), "left {left:?} on the disk");
    Ok(())
}

/// Ironic in one process, and nginx for its images.
#[derive(Debug)]
struct UpstreamIronic {
    dir: PathBuf,
    ramdisk: PathBuf,
    _web: Process,
    _ironic: Process,
}

impl UpstreamIronic {
    /// Starts both in the lab's namespace, with their state in a folder of the lab.
    fn start(lab: &Lab) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
        let programs = root.join("target/ironic/bin");
        let program = programs.join("ironic");
        let missing = "is not there: run `scripts/python-venv ironic`";
        ensure!(program.exists(), "{} {missing}", program.display());
        let dir = lab.dir().join("ironic");
        for folder in ["http", "images", "iso", "master", "tftp", "tmp"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        esp(&dir.join("esp.img"))?;
        let ramdisk = root.join("target/ramdisk").canonicalize()?;
        let settings = dir.join("ironic.conf");
        fs::write(&settings, ironic_settings(&dir, &ramdisk))?;
        let with_settings = |program: &Path| {
            let mut command = Command::new(program);
            command.arg("--config-file").arg(&settings).env("no_proxy", "*");
            command
        };
        output(with_settings(&programs.join("ironic-dbsync")).arg("create_schema"))?;
        let web = nginx(&dir)?;
        let ready = "Successfully started conductor";
        let ironic = Process::start(&mut with_settings(&program), ready, &dir.join("ironic.log"));
        let ironic = ironic.context("Ironic does not start")?;
        let listens = || Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).ok());
        lab.wait_until(listens)?.context("Ironic's API does not listen")?;
        Ok(Self { dir, ramdisk, _web: web, _ironic: ironic })
    }

    /// The URL of an image that is the same for every node, with the layout of Ironic's own ones.
    fn ready_image(&self) -> Result<String> {
        let files = self.dir.join("files");
        let image = self.dir.join("ready.iso");
        for folder in ["boot", "EFI/debian"] {
            fs::create_dir_all(files.join(folder))?;
        }
        fs::copy(self.dir.join("esp.img"), files.join("boot/esp.img"))?;
        fs::copy(self.ramdisk.join("kernel"), files.join("vmlinuz"))?;
        fs::copy(self.ramdisk.join("initramfs"), files.join("initrd"))?;
        fs::write(
            files.join("EFI/debian/grub.cfg"),
            format!("linux /vmlinuz ipa-api-url=http://{HOST}:{PORT}\ninitrd /initrd\nboot\n"),
        )?;
        let mut mkisofs = Command::new("mkisofs");
        mkisofs.args(["-r", "-e", "boot/esp.img", "-no-emul-boot", "-o"]).arg(&image).arg(&files);
        output(&mut mkisofs)?;
        Ok(format!("file://{}", image.display()))
    }

    /// Prints the time of `work`, and the number of Ironic's requests to the BMC meanwhile.
    fn measured(&self, what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let (began, before) = (Instant::now(), self.redfish_requests()?);
        work()?;
        let seconds = began.elapsed().as_secs_f64();
        let requests = self.redfish_requests()? - before;
        eprintln!("measured: Ironic's {what}: {seconds:.0} s, {requests} requests to the BMC");
        Ok(())
    }

    fn redfish_requests(&self) -> Result<usize> {
        let log = fs::read_to_string(self.dir.join("ironic.log"))?;
        let is_one =
            |line: &&str| line.contains("sushy.connector") && line.contains("HTTP request: ");
        Ok(log.lines().filter(is_one).count())
    }

    /// A file in the only archive of logs that Ironic has requested.
    fn collected_log(&self, name: &str) -> Result<String> {
        let archives: Vec<_> = fs::read_dir(self.dir.join("logs"))?.collect::<Result<_, _>>()?;
        let [archive] = &archives[..] else { bail!("{} archives of logs", archives.len()) };
        let told = Command::new("tar").arg("-xzOf").arg(archive.path()).arg(name).output()?;
        let said = String::from_utf8_lossy(&told.stderr);
        ensure!(told.status.success(), "tar: {}", said.trim());
        Ok(String::from_utf8_lossy(&told.stdout).into_owned())
    }

    /// The firmware itself has fetched an image this many times.
    fn has_served_firmware(&self, times: usize) -> Result<()> {
        let log = fs::read_to_string(self.dir.join("access.log"))?;
        let is_one = |line: &&str| {
            line.contains("\"GET /redfish/boot-") && line.ends_with("\"UefiHttpBoot/1.0\"")
        };
        assert_eq!(log.lines().filter(is_one).count(), times, "{log}");
        Ok(())
    }

    /// The node's error, and the ends of Ironic's log and of the machine's console.
    fn reports(&self, lab: &Lab) -> String {
        let machine = &lab.machines()[0];
        let error = lab.node(&machine.name).map(|node| node["last_error"].to_string());
        let log = fs::read_to_string(self.dir.join("ironic.log")).unwrap_or_default();
        let told: Vec<_> = log.lines().filter(|line| !line.contains(" DEBUG ")).collect();
        let console = lab.console(machine).unwrap_or_default();
        let console: Vec<_> = console.lines().collect();
        let last = |lines: &[&str]| lines[lines.len().saturating_sub(30)..].join("\n");
        format!(
            "last_error: {}\n\nIronic's log ends with:\n{}\n\nthe console ends with:\n{}\n",
            error.unwrap_or_default(),
            last(&told),
            last(&console)
        )
    }
}

/// Makes the file system with the loaders for Ironic's ISO images, as Ironic's installation guide does: Debian's shim
/// and GRUB, which reads `EFI/debian/grub.cfg` of the image.
fn esp(path: &Path) -> Result<()> {
    let file = fs::File::create(path)?;
    file.set_len(8 << 20)?;
    output(Command::new("/usr/sbin/mkfs.vfat").args(["-F", "12"]).arg(path))?;
    let inside = |program: &str| {
        let mut command = Command::new(program);
        command.arg("-i").arg(path);
        command
    };
    output(inside("mmd").args(["::EFI", "::EFI/BOOT"]))?;
    for (loader, place) in [
        ("/usr/lib/shim/shimx64.efi.signed", "::EFI/BOOT/BOOTX64.EFI"),
        ("/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "::EFI/BOOT/GRUBX64.EFI"),
    ] {
        output(inside("mcopy").args([loader, place]))?;
    }
    Ok(())
}

/// Starts nginx for the folder `http`.
fn nginx(dir: &Path) -> Result<Process> {
    let settings = dir.join("nginx.conf");
    let dir = dir.display();
    let text = format!(
        "daemon off;\nuser root;\npid {dir}/nginx.pid;\nerror_log stderr notice;\nevents {{ }}\n\
         http {{\n    access_log {dir}/access.log combined;\n    client_body_temp_path {dir}/tmp;\n    \
         proxy_temp_path {dir}/tmp;\n    fastcgi_temp_path {dir}/tmp;\n    uwsgi_temp_path {dir}/tmp;\n    \
         scgi_temp_path {dir}/tmp;\n    server {{ listen {HOST}:8080; root {dir}/http; }}\n}}\n"
    );
    fs::write(&settings, text)?;
    let mut nginx = Command::new("/usr/sbin/nginx");
    nginx.arg("-c").arg(&settings).args(["-e", "stderr"]);
    let log = settings.with_extension("log");
    Process::start(&mut nginx, "start worker process ", &log).context("nginx (package nginx-light)")
}

/// The settings of Ironic with its state in `dir` and the boot set in `ramdisk`: only `redfish-https`, and no other
/// service.
fn ironic_settings(dir: &Path, ramdisk: &Path) -> String {
    let (dir, ramdisk) = (dir.display(), ramdisk.display());
    let interfaces: String = ["bios", "console", "firmware", "inspect", "raid", "rescue", "vendor"]
        .map(|name| format!("enabled_{name}_interfaces = no-{name}\n"))
        .concat();
    format!(
        "[DEFAULT]
auth_strategy = noauth
rpc_transport = none
host = lab
my_ip = {HOST}
state_path = {dir}
tempdir = {dir}/tmp
use_stderr = true
debug = true
enabled_hardware_types = redfish
enabled_boot_interfaces = redfish-https
enabled_deploy_interfaces = direct,ramdisk
enabled_management_interfaces = redfish
enabled_power_interfaces = redfish
enabled_network_interfaces = noop
enabled_storage_interfaces = noop
{interfaces}grub_config_path = EFI/debian/grub.cfg
[database]
connection = sqlite:///{dir}/ironic.sqlite
[api]
port = {PORT}
[service_catalog]
endpoint_override = http://{HOST}:{PORT}
auth_type = none
[conductor]
bootloader = file://{dir}/esp.img
deploy_kernel = file://{ramdisk}/kernel
deploy_ramdisk = file://{ramdisk}/initramfs
file_url_allowed_paths = {dir},{ramdisk}
disable_zstandard_decompression = true
[deploy]
http_root = {dir}/http
http_url = http://{HOST}:8080
iso_master_path = {dir}/iso
[pxe]
tftp_root = {dir}/tftp
tftp_master_path = {dir}/tftp/master
images_path = {dir}/images
instance_master_path = {dir}/master
[agent]
certificates_path = {dir}/certificates
deploy_logs_local_path = {dir}/logs
[dhcp]
dhcp_provider = none
[oslo_concurrency]
lock_path = {dir}
"
    )
}

/// Runs a program to its end.
fn output(command: &mut Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("cannot start {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}", said.trim());
    Ok(())
}
