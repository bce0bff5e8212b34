//! The machines of a lab, and the BMC emulator's configuration for them.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use bmc::config::{Architecture, FirmwareConfig};
use redfish::emulator::Platform;

/// The address of the lab's BMC.
pub const BMC: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000);

/// The only user of the lab's BMC.
pub const USERNAME: &str = "admin";

/// The user's password: the BMC listens only in the lab's namespace.
pub const PASSWORD: &str = "password";

/// A machine, switched off.
#[derive(Clone, Debug)]
pub struct LabMachine {
    /// The name of the node and of the BMC's system.
    pub name: String,
    number: u8,
    hardware: MachineHardware,
    pub(super) firmware: FirmwareConfig,
    architecture: Architecture,
    refuses_override: bool,
    /// The platform of its BMC, by its name in the settings of `ferroboot bmc`.
    platform: Option<&'static str>,
}

#[derive(Clone, Copy, Debug)]
enum MachineHardware {
    Virtual,
    Rack,
}

impl LabMachine {
    /// A virtual machine with virtio devices, as in clouds.
    #[must_use]
    pub fn new(number: u8) -> Self {
        let name = format!("machine-{number}");
        Self {
            name,
            number,
            hardware: MachineHardware::Virtual,
            firmware: FirmwareConfig::default(),
            architecture: Architecture::X64,
            refuses_override: false,
            platform: None,
        }
    }

    /// The same machine with this firmware and its settings.
    #[must_use]
    pub fn with_firmware(self, firmware: FirmwareConfig) -> Self {
        Self { firmware, ..self }
    }

    /// The same machine for arm64, with the installed build of EDK2.
    #[must_use]
    pub fn for_arm64(self) -> Self {
        let folder = Path::new("/usr/share/AAVMF");
        let firmware = FirmwareConfig {
            code: folder.join("AAVMF_CODE.fd"),
            variables: folder.join("AAVMF_VARS.fd"),
            ..self.firmware
        };
        Self { firmware, architecture: Architecture::Arm64, ..self }
    }

    /// The same machine with a rack server's hardware: an Intel network card and a second, unconnected one, and a
    /// disk on AHCI.
    #[must_use]
    pub fn like_a_rack_server(self) -> Self {
        Self { hardware: MachineHardware::Rack, ..self }
    }

    /// The same machine with a BMC that answers every boot override with an error.
    #[must_use]
    pub fn refusing_boot_overrides(self) -> Self {
        Self { refuses_override: true, ..self }
    }

    /// The same machine with a BMC of this platform, by its name in the settings of `ferroboot bmc`. It must be the only
    /// machine, as most vendors' BMCs have one.
    #[must_use]
    pub fn on_platform(self, platform: &'static str) -> Self {
        Self { platform: Some(platform), ..self }
    }

    /// The MAC address of the boot card.
    #[must_use]
    pub fn mac(&self) -> String {
        format!("52:54:00:fb:00:{:02x}", self.number)
    }

    /// The path of its system at the BMC.
    #[must_use]
    pub fn system(&self) -> String {
        let platform = self.platform.map(|name| serde_json::from_value(name.into()));
        let platform: Platform = platform.and_then(Result::ok).unwrap_or_default();
        platform.system_path(&self.name)
    }

    /// The UUID for its enrollment.
    #[must_use]
    pub fn uuid(&self) -> String {
        format!("fe440b00-0000-4000-8000-0000000000{:02x}", self.number)
    }

    /// The commands that enroll it with a port: arguments of `baremetal`.
    #[must_use]
    pub fn enrolment(&self) -> [Vec<String>; 2] {
        self.enrolment_at(BMC)
    }

    /// The same commands with a BMC at another address.
    #[must_use]
    pub fn enrolment_at(&self, bmc: SocketAddr) -> [Vec<String>; 2] {
        let words = |text: String| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (name, uuid, system, mac) = (&self.name, self.uuid(), self.system(), self.mac());
        let mut create = words(format!(
            "node create --driver redfish --name {name} --uuid {uuid} \
             --driver-info redfish_address=http://{bmc} --driver-info redfish_system_id={system} \
             --driver-info redfish_username={USERNAME} --driver-info redfish_password={PASSWORD}"
        ));
        let arguments = match self.architecture {
            // On a busy host, QEMU's timer comes too late for the kernel's test of it, which panics: "IO-APIC + timer
            // doesn't work".
            Architecture::X64 => "console=ttyS0 no_timer_check",
            Architecture::Arm64 => {
                create.extend(words("--property cpu_arch=aarch64".to_owned()));
                "console=ttyAMA0"
            }
        };
        create.push("--driver-info".to_owned());
        create.push(format!("kernel_append_params=%default% {arguments}"));
        [create, words(format!("port create --node {uuid} {mac}"))]
    }

    /// The tap device of its network card.
    #[must_use]
    pub fn tap(&self) -> String {
        format!("tap{}", self.number)
    }

    pub(super) fn disk(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.disk", self.name))
    }

    fn write(&self, dir: &Path, text: &mut String) {
        let (nic, disk) = match self.hardware {
            MachineHardware::Virtual => ("virtio-net-pci", "virtio"),
            MachineHardware::Rack => ("e1000e", "ahci"),
        };
        let (name, mac, tap) = (&self.name, self.mac(), self.tap());
        let path = self.disk(dir);
        let FirmwareConfig {
            code,
            variables,
            pxe,
            ip,
            logo_secs,
            secure_boot,
            secure_boot_certificate,
            clock,
        } = &self.firmware;
        let clock = clock.as_ref().map_or_else(String::new, |clock| format!(", clock = {clock:?}"));
        let certificate = secure_boot_certificate
            .as_ref()
            .map_or_else(String::new, |path| format!(", secure_boot_certificate = {path:?}"));
        let ip: Vec<_> = ip.iter().map(ToString::to_string).collect();
        let architecture = self.architecture;
        let _ = write!(
            text,
            "\n[[machine]]\nid = {name:?}\narchitecture = \"{architecture}\"\n\
             firmware = {{ code = {code:?}, variables = {variables:?}, pxe = {pxe}, ip = {ip:?}, logo_secs = {logo_secs}, secure_boot = {secure_boot}{certificate}{clock} }}\n\
             disks = [{{ path = {path:?}, model = {disk:?} }}]\n\
             nics = [\n    {{ mac = {mac:?}, model = {nic:?}, tap = {tap:?} }},\n",
        );
        match self.hardware {
            MachineHardware::Virtual => {}
            MachineHardware::Rack => {
                let mac = format!("52:54:00:fb:01:{:02x}", self.number);
                let _ = writeln!(text, "    {{ mac = {mac:?}, model = {nic:?} }},");
            }
        }
        text.push_str("]\n");
        if let Some(platform) = self.platform {
            let _ = writeln!(text, "platform = {platform:?}");
        }
        if self.refuses_override {
            let _ = write!(
                text,
                "\n[[fault]]\npath = \"/redfish/v1/Systems/{name}\"\nmethod = \"PATCH\"\n\
                 fault = {{ answer = {{ status = 400 }} }}\n",
            );
        }
    }
}

/// The configuration of the BMC of `machines`, with their disks and its state in `dir`.
#[must_use]
pub fn bmc_configuration(machines: &[LabMachine], listen: SocketAddr, dir: &Path) -> String {
    let state = dir.join("bmc");
    let mut text = format!(
        "listen = \"{listen}\"\nusername = {USERNAME:?}\npassword = {PASSWORD:?}\nstate_dir = {state:?}\n"
    );
    machines.iter().for_each(|machine| machine.write(dir, &mut text));
    text
}

#[cfg(test)]
mod tests {
    use bmc::config::Ip;

    use super::*;

    #[test]
    fn the_bmc_reads_what_we_write() {
        let firmware = FirmwareConfig { ip: vec![Ip::Ipv6, Ip::Ipv4], ..FirmwareConfig::default() };
        let machines = [
            LabMachine::new(1).refusing_boot_overrides().with_firmware(firmware),
            LabMachine::new(2).like_a_rack_server(),
        ];
        let listen = SocketAddr::from(([127, 0, 0, 1], 8000));

        let text = bmc_configuration(&machines, listen, Path::new("/lab"));

        let config: bmc::BmcConfig = toml::from_str(&text).unwrap();
        assert_eq!(config.faults[0].path, format!("/redfish/v1/Systems/{}", machines[0].name));
        assert_eq!(config.machines[0].firmware.ip, [Ip::Ipv6, Ip::Ipv4]);
        assert_eq!(config.machines[1].nics[1].tap, None);
        assert_eq!(config.machines[1].nics[0].mac.to_string(), machines[1].mac());
    }
}
