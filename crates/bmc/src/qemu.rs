//! One run of QEMU, from power-on to its end.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use redfish::emulator::NextBoot;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tracing::debug;

use crate::config::{Architecture, DiskConfig, DiskModel, FirmwareConfig, Ip, NicConfig};
use crate::firmware::{self, FirmwareChanges};
use crate::private;
use crate::setup::{MachineSetup, nic_device};

/// A running machine.
pub(crate) struct Qemu {
    child: Child,
    events: Lines<BufReader<OwnedReadHalf>>,
    orders: OwnedWriteHalf,
    asked_for_reset: bool,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum QemuEnd {
    /// The guest requested a reset: QEMU must be started again.
    Reset,
    /// The guest switched itself off.
    Off,
    /// QEMU failed.
    Broken(String),
}

impl Qemu {
    /// Starts a machine, and connects to its monitor.
    pub(crate) async fn start(
        setup: &MachineSetup,
        next: &NextBoot,
        changes: &FirmwareChanges,
    ) -> Result<Self> {
        let variables = firmware::prepare(setup, next, changes)?;
        for disk in &setup.machine.disks {
            make_disk(disk)?;
        }
        let monitor = setup.dir.join("monitor");
        let _ = fs::remove_file(&monitor);
        // QEMU connects to this socket, which gives an event to wait for.
        let listener = UnixListener::bind(&monitor)
            .with_context(|| format!("listening on {}", monitor.display()))?;
        let mut child = spawn(setup, &variables, &monitor, next)?;
        let stream = tokio::select! {
            connected = listener.accept() => connected.context("QEMU's monitor")?.0,
            ended = child.wait() => {
                let words = last_words(setup);
                bail!("QEMU ended at once ({}): {words}", ended.context("waiting for QEMU")?);
            }
        };
        Self::negotiate(child, stream).await
    }

    async fn negotiate(child: Child, stream: UnixStream) -> Result<Self> {
        let (read, orders) = stream.into_split();
        let events = BufReader::new(read).lines();
        let mut qemu = Self { child, events, orders, asked_for_reset: false };
        qemu.order("qmp_capabilities").await?;
        Ok(qemu)
    }

    /// Waits until the machine is off. May be cancelled and called again.
    pub(crate) async fn ended(&mut self, setup: &MachineSetup) -> QemuEnd {
        while let Ok(Some(line)) = self.events.next_line().await {
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            if event["event"] == "SHUTDOWN" || event["event"] == "RESET" {
                debug!("{line}");
                self.asked_for_reset = event["data"]["reason"] == "guest-reset";
            }
        }
        match self.child.wait().await {
            Ok(status) if status.success() && self.asked_for_reset => QemuEnd::Reset,
            Ok(status) if status.success() => QemuEnd::Off,
            Ok(status) => QemuEnd::Broken(format!("{status}: {}", last_words(setup))),
            Err(error) => QemuEnd::Broken(error.to_string()),
        }
    }

    /// Presses the power button: the guest shuts down by ACPI.
    pub(crate) async fn press_power_button(&mut self) -> Result<()> {
        self.order("system_powerdown").await
    }

    /// Sends a non-maskable interrupt.
    pub(crate) async fn interrupt(&mut self) -> Result<()> {
        self.order("inject-nmi").await
    }

    /// Cuts the power.
    pub(crate) async fn stop(mut self) {
        // It may have ended by itself meanwhile, with the same result.
        let _ = self.child.kill().await;
    }

    async fn order(&mut self, name: &str) -> Result<()> {
        let order = format!("{}\n", json!({"execute": name}));
        self.orders.write_all(order.as_bytes()).await.with_context(|| format!("QMP {name}"))
    }
}

fn spawn(setup: &MachineSetup, variables: &Path, monitor: &Path, next: &NextBoot) -> Result<Child> {
    let stderr = setup.dir.join("qemu.stderr");
    private::write(&stderr, b"").with_context(|| format!("making {}", stderr.display()))?;
    let stderr = private::open(&stderr)?;
    // QEMU appends to it.
    let console = setup.dir.join("console.log");
    private::open(&console).with_context(|| format!("making {}", console.display()))?;
    // `setpriv` ends every machine with its BMC, however the BMC ends.
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(&setup.qemu)
        .args(arguments(setup, variables, monitor, next))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| {
            let package = setup.machine.architecture.package();
            format!("starting QEMU through setpriv (packages {package} and util-linux)")
        })
}

/// QEMU's error messages.
fn last_words(setup: &MachineSetup) -> String {
    fs::read_to_string(setup.dir.join("qemu.stderr")).unwrap_or_default().trim().to_owned()
}

fn make_disk(disk: &DiskConfig) -> Result<()> {
    if disk.path.exists() {
        return Ok(());
    }
    let context = || format!("making the disk {}", disk.path.display());
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&disk.path);
    file.with_context(context)?.set_len(disk.size_mib * 1024 * 1024).with_context(context)
}

/// The source of the boot order.
#[derive(Clone, Copy, Debug)]
enum DeviceOrder {
    /// The command line: a disk, then a network card. OVMF writes it over `BootOrder`.
    Ours,
    /// The machine's variables.
    Variables,
}

impl DeviceOrder {
    fn of(next: &NextBoot) -> Self {
        match next {
            NextBoot::Usual | NextBoot::Url(_) | NextBoot::Cd(_) => Self::Ours,
            NextBoot::Http { .. } | NextBoot::Pxe { .. } => Self::Variables,
        }
    }

    /// The boot index argument of a device.
    fn index(self, index: usize) -> String {
        match self {
            Self::Ours => format!(",bootindex={index}"),
            Self::Variables => String::new(),
        }
    }
}

fn arguments(
    setup: &MachineSetup,
    variables: &Path,
    monitor: &Path,
    next: &NextBoot,
) -> Vec<OsString> {
    let order = DeviceOrder::of(next);
    let boots_cd = matches!(next, NextBoot::Cd(_));
    let machine = &setup.machine;
    let mut arguments = QemuArguments::default();
    let architecture = machine.architecture;
    arguments.add(setup.acceleration.arguments(architecture));
    let mut board = architecture.board().to_owned();
    if machine.firmware.has_secure_boot() {
        // The firmware alone, in system management mode, may write the variables with the keys.
        board.push_str(",smm=on");
        arguments.add(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
        arguments.add(["-global", "ICH9-LPC.disable_s3=1"]);
    }
    arguments.add(["-machine", &board, "-nodefaults", "-display", "none", "-no-user-config"]);
    arguments.add(["-name", &machine.id, "-m", &format!("{}M", machine.memory_mib)]);
    // Variables are read only at the start, so a reset must end QEMU, which is then started again.
    arguments.add(["-no-reboot"]);
    let code = machine.firmware.code.display();
    arguments.add(["-drive", &format!("if=pflash,format=raw,readonly=on,file={code}")]);
    arguments.add(["-drive", &format!("if=pflash,format=raw,file={}", variables.display())]);
    arguments.add(["-device", "virtio-rng-pci"]);
    let console = setup.dir.join("console.log");
    let console = format!("file,id=console,append=on,path={}", console.display());
    arguments.add(["-chardev", &console, "-serial", "chardev:console"]);
    let monitor = format!("socket,id=monitor,path={}", monitor.display());
    arguments.add(["-chardev", &monitor, "-mon", "chardev=monitor,mode=control"]);
    let FirmwareConfig { pxe, ip, logo_secs, .. } = &machine.firmware;
    let pxe = *pxe || matches!(next, NextBoot::Pxe { .. });
    let has = |version| ip.contains(&version);
    for (feature, on) in [
        ("IPv4Support", has(Ip::Ipv4)),
        ("IPv6Support", has(Ip::Ipv6)),
        ("IPv4PXESupport", pxe && has(Ip::Ipv4)),
        ("IPv6PXESupport", pxe && has(Ip::Ipv6)),
    ] {
        let on = if on { 'y' } else { 'n' };
        arguments.add(["-fw_cfg", &format!("name=opt/org.tianocore/{feature},string={on}")]);
    }
    if *logo_secs > 0 {
        let milliseconds = u32::from(*logo_secs) * 1_000;
        arguments.add(["-boot", &format!("menu=on,splash-time={milliseconds}")]);
    }
    if let Some(clock) = &machine.firmware.clock {
        arguments.add(["-rtc", &format!("base={clock}")]);
    }
    for (number, nic) in machine.nics.iter().enumerate() {
        arguments.add_nic(number, nic, order);
    }
    let has_ahci = boots_cd || machine.disks.iter().any(|disk| disk.model == DiskModel::Ahci);
    match architecture {
        // The board has one, whose first port is `ide.0`.
        Architecture::X64 => {}
        Architecture::Arm64 if has_ahci => arguments.add(["-device", "ahci,id=ide"]),
        Architecture::Arm64 => {}
    }
    for (number, disk) in machine.disks.iter().enumerate() {
        arguments.add_disk(number, disk, order);
    }
    if boots_cd {
        arguments.add_cd(&setup.cd());
    }
    arguments.0
}

#[derive(Default)]
struct QemuArguments(Vec<OsString>);

impl QemuArguments {
    fn add<'a>(&mut self, more: impl IntoIterator<Item = &'a str>) {
        self.0.extend(more.into_iter().map(OsString::from));
    }

    fn add_nic(&mut self, number: usize, nic: &NicConfig, order: DeviceOrder) {
        let backend = match &nic.tap {
            Some(tap) => format!("tap,id=net{number},ifname={tap},script=no,downscript=no"),
            // A hub without other members.
            None => format!("hubport,id=net{number},hubid={number}"),
        };
        // OVMF has a driver for virtio; other cards have theirs in their option ROM.
        let rom = if nic.model.starts_with("virtio") { ",romfile=" } else { "" };
        let place = format!("addr={:#x}{}", nic_device(number), order.index(100 + number));
        let device = format!("{},netdev=net{number},mac={}{rom},{place}", nic.model, nic.mac);
        self.add(["-netdev", &backend, "-device", &device]);
    }

    /// Adds a CD that the firmware boots before everything else.
    fn add_cd(&mut self, path: &Path) {
        let drive =
            format!("if=none,id=cd,media=cdrom,readonly=on,format=raw,file={}", path.display());
        self.add(["-drive", &drive, "-device", "ide-cd,bus=ide.5,drive=cd,bootindex=0"]);
    }

    fn add_disk(&mut self, number: usize, disk: &DiskConfig, order: DeviceOrder) {
        let path = disk.path.display();
        let drive = format!("if=none,id=disk{number},format=raw,file={path}");
        let device = match disk.model {
            DiskModel::Virtio => "virtio-blk-pci".to_owned(),
            DiskModel::Ahci => format!("ide-hd,bus=ide.{number}"),
            DiskModel::Nvme => format!("nvme,serial=nvme{number}"),
        };
        let device = format!("{device},drive=disk{number}{}", order.index(1 + number));
        self.add(["-drive", &drive, "-device", &device]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BmcConfig;

    fn line() -> String {
        line_for(&NextBoot::Usual)
    }

    fn line_for(next: &NextBoot) -> String {
        let config: BmcConfig = toml::from_str(
            r#"
            username = "a"
            password = "b"
            state_dir = "/s"
            [[machine]]
            id = "1"
            firmware = { ip = ["ipv6"], logo_secs = 8 }
            nics = [
                { mac = "52:54:00:00:00:01", tap = "t0" },
                { mac = "52:54:00:00:00:02", model = "e1000e" },
            ]
            disks = [{ path = "/d", model = "ahci" }]
            "#,
        )
        .unwrap();
        let setup = MachineSetup {
            machine: config.machines[0].clone(),
            qemu: "qemu".into(),
            acceleration: config.acceleration,
            dir: "/s/1".into(),
        };
        let arguments = arguments(&setup, Path::new("/v"), Path::new("/m"), next);
        arguments.join(" ".as_ref()).into_string().unwrap()
    }

    #[test]
    fn a_card_is_where_its_boot_entries_say() {
        let line = line();

        assert!(line.contains("netdev=net0,mac=52:54:00:00:00:01,romfile=,addr=0x10,"), "{line}");
        assert!(line.contains("netdev=net1,mac=52:54:00:00:00:02,addr=0x11,"), "{line}");
    }

    #[test]
    fn a_usual_boot_puts_the_disk_first() {
        let line = line();

        assert!(line.contains("ide-hd,bus=ide.0,drive=disk0,bootindex=1"), "{line}");
        assert!(line.contains("addr=0x10,bootindex=100"), "{line}");
    }

    #[test]
    fn a_boot_over_http_keeps_to_the_order_in_the_variables() {
        assert!(!line_for(&NextBoot::Http { nic: 0 }).contains("bootindex"));
    }

    #[test]
    fn a_virtual_cd_is_there_for_the_boot_from_it_only() {
        let cd = line_for(&NextBoot::Cd("http://a/b.iso".to_owned()));

        assert!(
            cd.contains("file=/s/1/cd.iso -device ide-cd,bus=ide.5,drive=cd,bootindex=0"),
            "{cd}"
        );
        assert!(!line().contains("ide-cd"));
    }

    #[test]
    fn a_boot_by_pxe_switches_it_on_in_the_firmware() {
        let pxe = line_for(&NextBoot::Pxe { nic: 0 });

        assert!(pxe.contains("name=opt/org.tianocore/IPv6PXESupport,string=y "), "{pxe}");
        assert!(!pxe.contains("bootindex"), "{pxe}");
    }

    #[test]
    fn a_protocol_that_is_not_named_is_off() {
        let line = line();

        assert!(line.contains("name=opt/org.tianocore/IPv4Support,string=n "), "{line}");
        assert!(line.contains("name=opt/org.tianocore/IPv6Support,string=y "), "{line}");
        assert!(line.contains("-boot menu=on,splash-time=8000 "), "{line}");
    }

    #[test]
    fn a_card_without_a_tap_leads_nowhere() {
        assert!(line().contains("hubport,id=net1,hubid=1"));
    }
}
