//! sushy-tools' emulator with its libvirt driver: machines of a private libvirt daemon, which ends with the lab.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use ferroboot::lab::machine::{BMC, LabMachine, USERNAME};
use ferroboot::lab::process::{Process, READY};
use ferroboot::lab::{Lab, namespace};

/// bcrypt of the lab's password. sushy-tools reads no other kind.
const PASSWORD_HASH: &str = "$2b$04$7vIR/ei9.zK544sKEZPEWew8IGVpoXfa7vX8PBhsKiuOef4TYDbZa";

/// The images of the installed package `ovmf`.
const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// The name of the emulator's log in the folder of the lab.
const LOG: &str = "sushy-emulator.log";

/// The ROM of the machines' network cards.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CardRom {
    /// QEMU's, with iPXE: libvirt's default.
    Ipxe,
    /// None: the firmware's own network boot.
    Absent,
}

/// A running emulator, in place of the lab's BMC.
pub(crate) struct SushyEmulator {
    dir: PathBuf,
    _libvirt: Process,
    _emulator: Process,
}

impl SushyEmulator {
    /// Creates the machines of the lab in libvirt, switched off, and starts the emulator.
    pub(crate) fn start(lab: &Lab, rom: CardRom) -> Result<Self> {
        let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/sushy-tools/bin");
        let program = venv.join("sushy-emulator");
        ensure!(
            program.exists(),
            "{} is not there: run `scripts/install-dependencies lab-libvirt` and \
             `scripts/python-venv sushy-tools`",
            program.display()
        );
        let dir = lab.dir().join("libvirt");
        for folder in ["run", "pool", "state", "downloads"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        let libvirt = start_libvirt(&venv.join("python"), lab, rom, &dir);
        let libvirt =
            libvirt.context("libvirt does not start (packages libvirt-daemon, python3-libvirt)")?;
        let config = dir.join("emulator.conf");
        fs::write(&config, configuration(&dir))?;
        fs::write(dir.join("htpasswd"), format!("{USERNAME}:{PASSWORD_HASH}\n"))?;
        let mut emulator = Command::new(program);
        namespace::forget(&mut emulator);
        // Downloaded images are left in the temporary folder.
        emulator.arg("--config").arg(&config).env("TMPDIR", dir.join("downloads"));
        // Proxies outside of the namespace are unreachable.
        emulator.env("no_proxy", "*");
        let emulator = Process::start(&mut emulator, "Running on ", &lab.dir().join(LOG));
        Ok(Self {
            dir,
            _libvirt: libvirt,
            _emulator: emulator.context("sushy-emulator does not start")?,
        })
    }

    /// Number of requests that it has answered.
    pub(crate) fn requests(&self) -> Result<usize> {
        let log = fs::read_to_string(self.dir.with_file_name(LOG))?;
        Ok(log.lines().filter(|line| line.contains(" HTTP/1.1")).count())
    }

    /// The machine in libvirt, as it will start next, in XML.
    pub(crate) fn definition(&self, machine: &LabMachine) -> Result<String> {
        let path = self.dir.join("config/libvirt/qemu").join(format!("{}.xml", machine.name));
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}

/// Starts libvirt with the machines of the lab.
fn start_libvirt(python: &Path, lab: &Lab, rom: CardRom, dir: &Path) -> Result<Process> {
    let config = dir.join("config/libvirt");
    fs::create_dir_all(&config)?;
    // Otherwise a second daemon writes the consoles.
    fs::write(config.join("qemu.conf"), "stdio_handler = \"file\"\n")?;
    fs::write(dir.join("libvirtd.conf"), "auth_unix_rw = \"none\"\n")?;
    let pool = dir.join("pool.xml");
    let target = dir.join("pool");
    let xml = format!(
        "<pool type='dir'><name>default</name><target><path>{}</path></target></pool>",
        target.display()
    );
    fs::write(&pool, xml)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/sushy_tools/machines.py");
    let mut machines = Command::new(python);
    machines.arg(script).arg(dir).arg(pool);
    for machine in lab.machines() {
        let xml = dir.join(format!("{}.xml", machine.name));
        fs::write(&xml, domain(lab, machine, rom)?)?;
        machines.arg(xml);
    }
    Process::start(&mut machines, READY, &lab.dir().join("libvirt.log"))
}

fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "SUSHY_EMULATOR_LISTEN_IP = '{}'\nSUSHY_EMULATOR_LISTEN_PORT = {}\n\
         SUSHY_EMULATOR_LIBVIRT_URI = 'qemu+unix:///session?socket={dir}/run/libvirt/libvirt-sock'\nSUSHY_EMULATOR_STATE_DIR = '{dir}/state'\n\
         SUSHY_EMULATOR_AUTH_FILE = '{dir}/htpasswd'\n\
         SUSHY_EMULATOR_BOOT_LOADER_MAP = {{'UEFI': {{'x86_64': '{CODE}'}}, 'Legacy': {{'x86_64': None}}}}\n\
         SUSHY_EMULATOR_SECURE_BOOT_DISABLED_NVRAM = '{VARIABLES}'\n",
        BMC.ip(),
        BMC.port()
    )
}

/// A machine as `virt-install` makes it, with its console in the place where the lab reads it.
fn domain(lab: &Lab, machine: &LabMachine, rom: CardRom) -> Result<String> {
    let console = lab.dir().join("bmc").join(&machine.name);
    fs::create_dir_all(&console)?;
    let console = console.join("console.log");
    let rom = match rom {
        CardRom::Ipxe => "<rom enabled='yes'/>",
        CardRom::Absent => "<rom enabled='no'/>",
    };
    let (name, uuid, mac, tap) = (&machine.name, machine.uuid(), machine.mac(), machine.tap());
    Ok(format!(
        "<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>1024</memory>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <loader readonly='yes' type='pflash'>{CODE}</loader>
    <nvram template='{VARIABLES}'/>
    <boot dev='hd'/>
  </os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{disk}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='ethernet'>
      <mac address='{mac}'/>
      <target dev='{tap}' managed='no'/>
      <model type='virtio'/>
      {rom}
    </interface>
    <serial type='file'><source path='{console}' append='on'/></serial>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
  </devices>
</domain>
",
        disk = lab.disk(machine).display(),
        console = console.display(),
    ))
}
