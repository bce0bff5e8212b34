//! The settings of `ferroboot bmc`.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use efi::variables::IpVersion;
use hardware::Mac;
use nix::net::if_::if_nametoindex;
use redfish::emulator::{FaultRule, Platform};
use serde::Deserialize;
use transport::settings_file::read_settings;

/// Number of network cards with a fixed place on the first PCI bus.
const MOST_NICS: usize = 8;

/// All settings, in the form of the TOML file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BmcConfig {
    /// The listening address of the BMC of machines without their own; loopback by default, since Redfish switches
    /// machines.
    #[serde(default = "listen")]
    pub listen: SocketAddr,
    /// The only user, if there is no `users_file`.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// The users with their hashes, as `htpasswd -B` writes them.
    pub users_file: Option<PathBuf>,
    /// Serves HTTPS.
    pub tls: Option<TlsConfig>,
    /// The folder of the machines' disks, variables and consoles.
    pub state_dir: PathBuf,
    /// The QEMU binary; by default the installed one for the machine's architecture.
    pub qemu: Option<PathBuf>,
    /// `kvm` or `tcg`.
    #[serde(default)]
    pub acceleration: Acceleration,
    /// The machines.
    #[serde(rename = "machine")]
    pub machines: Vec<MachineConfig>,
    /// Faults of the BMC.
    #[serde(rename = "fault", default)]
    pub faults: Vec<FaultRule>,
}

/// The certificate of the listeners; one is made in `state_dir` if none is named.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the certificate and its issuers.
    pub certificate: Option<PathBuf>,
    /// PEM file with its key.
    pub key: Option<PathBuf>,
}

/// What stands behind a BMC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineDriver {
    /// A QEMU machine.
    #[default]
    Qemu,
    /// Nothing: the power state changes, and no machine starts.
    Fake,
}

/// QEMU's accelerator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acceleration {
    /// Software emulation: slow, but works everywhere.
    #[default]
    Tcg,
    /// The host's processor.
    Kvm,
}

impl Acceleration {
    /// QEMU's arguments for it.
    pub(crate) fn arguments(self, architecture: Architecture) -> [&'static str; 4] {
        match (self, architecture) {
            (Self::Tcg, Architecture::X64) => ["-accel", "tcg", "-cpu", "max"],
            // Emulating Arm's own pointer authentication takes most of the time in software.
            (Self::Tcg, Architecture::Arm64) => ["-accel", "tcg", "-cpu", "max,pauth-impdef=on"],
            (Self::Kvm, Architecture::X64 | Architecture::Arm64) => {
                ["-accel", "kvm", "-cpu", "host"]
            }
        }
    }
}

/// The architecture of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// x86-64.
    #[default]
    X64,
    /// AArch64.
    Arm64,
}

impl Architecture {
    /// QEMU for it.
    pub(crate) fn qemu(self) -> &'static str {
        match self {
            Self::X64 => "qemu-system-x86_64",
            Self::Arm64 => "qemu-system-aarch64",
        }
    }

    /// QEMU's name of the board.
    pub(crate) fn board(self) -> &'static str {
        match self {
            Self::X64 => "q35",
            Self::Arm64 => "virt",
        }
    }

    /// The Debian package with QEMU for it.
    pub(crate) fn package(self) -> &'static str {
        match self {
            Self::X64 => "qemu-system-x86",
            Self::Arm64 => "qemu-system-arm",
        }
    }
}

impl fmt::Display for Architecture {
    /// The value in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X64 => "x64",
            Self::Arm64 => "arm64",
        })
    }
}

/// One machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfig {
    /// The last part of its Redfish path.
    pub id: String,
    /// Its architecture.
    #[serde(default)]
    pub architecture: Architecture,
    /// Memory, in MiB.
    #[serde(default = "memory_mib")]
    pub memory_mib: u32,
    /// Its firmware, required for other architectures than x64.
    #[serde(default)]
    pub firmware: FirmwareConfig,
    /// Its network cards; it boots from the first one.
    #[serde(default)]
    pub nics: Vec<NicConfig>,
    /// Its disks.
    #[serde(default)]
    pub disks: Vec<DiskConfig>,
    /// The address of its own BMC; without one it is behind that of `listen`, with others.
    pub listen: Option<SocketAddr>,
    /// The kind of its BMC.
    #[serde(default)]
    pub platform: Platform,
    /// The machine.
    #[serde(default)]
    pub driver: MachineDriver,
    /// A recorded tree that its BMC shows instead of a platform: a JSON object from paths to bodies, or a folder with
    /// an `index.json` for each path.
    pub tree: Option<PathBuf>,
    /// Number of such machines with the fake driver, each with its own BMC, MAC addresses and port: those of the first,
    /// counted up.
    #[serde(default = "one")]
    pub count: u16,
    /// Faults of its BMC.
    #[serde(rename = "fault", default)]
    pub faults: Vec<FaultRule>,
}

/// An OVMF build, and its settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FirmwareConfig {
    /// The code image, read-only.
    pub code: PathBuf,
    /// An empty variable store, copied for each machine.
    pub variables: PathBuf,
    /// Whether the firmware tries PXE before HTTP, which takes a minute on each link.
    pub pxe: bool,
    /// The IP versions to boot by, in order. The firmware gives up on IPv4 after a minute, on IPv6 after half a
    /// minute.
    pub ip: Vec<Ip>,
    /// Seconds for which the firmware shows its logo before it boots.
    ///
    /// EDK2 before mid-2025 needs some seconds if IPv6 comes first: it sends its first request before its link-local
    /// address is ready, and gives up at once.
    pub logo_secs: u16,
    /// Secure Boot with the keys that `variables` has. Needs a build of `code` with Secure Boot, for x64.
    pub secure_boot: bool,
    /// Secure Boot with this certificate (PEM) as platform key, key-exchange key and in `db`, enrolled in the copy of
    /// `variables`. Needs a build of `code` with Secure Boot, for x64.
    pub secure_boot_certificate: Option<PathBuf>,
    /// The machine's clock at each start in UTC, as QEMU's `-rtc base` takes it (`2001-01-01T00:00:00`); the present
    /// time by default.
    pub clock: Option<String>,
}

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ip {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl fmt::Display for Ip {
    /// The value in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        })
    }
}

impl Ip {
    pub(crate) fn version(self) -> IpVersion {
        match self {
            Self::Ipv4 => IpVersion::V4,
            Self::Ipv6 => IpVersion::V6,
        }
    }
}

impl FirmwareConfig {
    /// Whether the machine has Secure Boot on.
    pub(crate) fn has_secure_boot(&self) -> bool {
        self.secure_boot || self.secure_boot_certificate.is_some()
    }
}

impl Default for FirmwareConfig {
    fn default() -> Self {
        Self {
            code: "/usr/share/OVMF/OVMF_CODE_4M.fd".into(),
            variables: "/usr/share/OVMF/OVMF_VARS_4M.fd".into(),
            pxe: false,
            ip: vec![Ip::Ipv4],
            logo_secs: 0,
            secure_boot: false,
            secure_boot_certificate: None,
            clock: None,
        }
    }
}

/// A network card.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NicConfig {
    /// Its MAC address.
    pub mac: Mac,
    /// QEMU's name of the model: `virtio-net-pci`, `e1000e`, ….
    #[serde(default = "nic_model")]
    pub model: String,
    /// Its tap device; without one it is unconnected.
    pub tap: Option<String>,
}

/// A disk.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// Its raw image; created if it is missing.
    pub path: PathBuf,
    /// Its size at creation, in MiB.
    #[serde(default = "size_mib")]
    pub size_mib: u64,
    /// Its bus.
    #[serde(default)]
    pub model: DiskModel,
}

/// The bus of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskModel {
    /// virtio-blk.
    #[default]
    Virtio,
    /// SATA, on an AHCI controller.
    Ahci,
    /// NVMe.
    Nvme,
}

fn listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8000))
}

fn one() -> u16 {
    1
}

fn memory_mib() -> u32 {
    1024
}

fn nic_model() -> String {
    "virtio-net-pci".to_owned()
}

fn size_mib() -> u64 {
    256
}

impl BmcConfig {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// The file, and the line and setting that are wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("reading the configuration {}", path.display()))?;
        read_settings(&text).with_context(|| format!("in the configuration {}", path.display()))
    }

    /// Checks everything that can be checked before the start.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(!self.machines.is_empty(), "there is no [[machine]] in the configuration");
        let mut ids = BTreeSet::new();
        for machine in &self.machines {
            machine.check().with_context(|| format!("machine {:?}", machine.id))?;
            ensure!(ids.insert(&machine.id), "two machines have the id {:?}", machine.id);
            let shares = machine.listen.is_none() && self.machines.len() > 1;
            ensure!(
                !shares || (machine.platform == Platform::Generic && machine.tree.is_none()),
                "machine {:?}: such a BMC has one machine, so it needs a listen of its own",
                machine.id
            );
        }
        match (&self.username, &self.password, &self.users_file) {
            (Some(_), Some(_), None) | (None, None, Some(_)) => {}
            _ => bail!("the configuration needs username and password, or users_file"),
        }
        let files = self.tls.as_ref().map(|tls| (&tls.certificate, &tls.key));
        if let Some((Some(_), None) | (None, Some(_))) = files {
            bail!("certificate and key in [tls] belong together");
        }
        Ok(())
    }
}

impl MachineConfig {
    /// Its MAC addresses; `number` is added to those of the first of such machines.
    pub(crate) fn macs(&self, number: u16) -> impl Iterator<Item = Mac> {
        self.nics.iter().map(move |nic| {
            let [a, b, rest @ ..] = nic.mac.0;
            let [c, d, e, f] = u32::from_be_bytes(rest).wrapping_add(number.into()).to_be_bytes();
            Mac([a, b, c, d, e, f])
        })
    }

    fn check(&self) -> Result<()> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        // The ID becomes a part of URLs and file paths.
        ensure!(
            !self.id.is_empty() && self.id.chars().all(fits),
            "an id is made of letters, digits, - and _"
        );
        ensure!(
            self.count == 1 || (self.driver == MachineDriver::Fake && self.listen.is_some()),
            "a count needs the fake driver, and a listen for the first"
        );
        ensure!(self.count > 0, "a count is at least 1");
        ensure!(
            self.tree.is_none() || self.driver == MachineDriver::Fake,
            "a tree needs the fake driver"
        );
        if self.driver == MachineDriver::Fake {
            return Ok(());
        }
        ensure!(
            self.architecture == Architecture::X64
                || self.firmware.code != FirmwareConfig::default().code,
            "{} needs a firmware, such as {{ code = \"/usr/share/AAVMF/AAVMF_CODE.fd\", variables = \
             \"/usr/share/AAVMF/AAVMF_VARS.fd\" }}",
            self.architecture
        );
        for file in [&self.firmware.code, &self.firmware.variables] {
            if !file.exists() {
                bail!(
                    "the firmware {} is not there: install the package ovmf, or qemu-efi-aarch64",
                    file.display()
                );
            }
        }
        ensure!(!self.firmware.ip.is_empty(), "its firmware needs ipv4, ipv6 or both in ip");
        ensure!(self.nics.len() <= MOST_NICS, "there is room for {MOST_NICS} network cards");
        for tap in self.nics.iter().filter_map(|nic| nic.tap.as_ref()) {
            // Not /sys/class/net, which may show the links of another network namespace.
            let there = if_nametoindex(tap.as_str()).is_ok();
            ensure!(there, "the tap device {tap} is not there: ip tuntap add {tap} mode tap");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_configuration_shows_no_password() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bmc.toml");
        for password in ["password = 1234", "password = \"1234", "passwort = \"1234\""] {
            std::fs::write(&path, format!("state_dir = '/tmp/x'\n{password}")).unwrap();

            let refused = format!("{:#}", BmcConfig::read(&path).unwrap_err());

            assert!(refused.contains("line 2") && !refused.contains("1234"), "{refused}");
        }
    }

    #[test]
    fn the_smallest_configuration_is_enough() {
        let config: BmcConfig = toml::from_str(
            "username = 'admin'\npassword = 'secret'\nstate_dir = '/tmp/x'\n[[machine]]\nid = '1'\n",
        )
        .unwrap();

        assert!(config.listen.ip().is_loopback());
        assert!(!config.machines[0].firmware.pxe);
    }

    fn refusal(text: &str) -> String {
        let config: BmcConfig = toml::from_str(&format!("state_dir = '/tmp/x'\n{text}")).unwrap();
        config.check().err().map_or_else(|| "fine".to_owned(), |error| format!("{error:#}"))
    }

    #[test]
    fn settings_that_exclude_each_other_are_refused() {
        let user = "username = 'a'\npassword = 'b'\n";
        let fake = "[[machine]]\nid = '1'\ndriver = 'fake'\n";
        for (text, says) in [
            (format!("{user}{fake}"), "fine"),
            (format!("users_file = '/x'\n{fake}"), "fine"),
            (fake.to_owned(), "needs username and password, or users_file"),
            (format!("username = 'a'\n{fake}"), "needs username and password, or users_file"),
            (format!("{user}users_file = '/x'\n{fake}"), "or users_file"),
            (format!("{user}tls = {{ key = 'k' }}\n{fake}"), "belong together"),
            (format!("{user}{fake}platform = 'ami'\n"), "fine"),
            (
                format!("{user}{fake}[[machine]]\nid = '2'\ndriver = 'fake'\nplatform = 'ami'\n"),
                "needs a listen of its own",
            ),
            (format!("{user}{fake}count = 2\n"), "a count needs the fake driver, and a listen"),
            (format!("{user}{fake}count = 0\nlisten = '127.0.0.1:0'\n"), "at least 1"),
            (format!("{user}[[machine]]\nid = '1'\ntree = '/t'\n"), "a tree needs the fake driver"),
        ] {
            let said = refusal(&text);
            assert!(said.contains(says), "{text}: {said}");
        }
    }

    #[test]
    fn machines_of_a_count_have_different_addresses() {
        let config: BmcConfig = toml::from_str(
            "state_dir = '/tmp/x'\n[[machine]]\nid = '1'\ncount = 300\n\
             nics = [{ mac = '52:54:00:00:00:ff' }]\n",
        )
        .unwrap();
        let mac = |number| config.machines[0].macs(number).next().unwrap().to_string();

        assert_eq!([mac(0), mac(1)], ["52:54:00:00:00:ff", "52:54:00:00:01:00"]);
    }

    #[test]
    fn an_id_that_would_leave_its_folder_is_refused() {
        let config: BmcConfig = toml::from_str(
            "username = 'a'\npassword = 'b'\nstate_dir = '/tmp/x'\n[[machine]]\nid = '../1'\n",
        )
        .unwrap();

        let error = format!("{:#}", config.check().unwrap_err());

        assert!(error.contains("an id is made of letters"), "{error}");
    }
}
