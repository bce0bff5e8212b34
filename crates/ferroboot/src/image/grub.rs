//! A GRUB that reads its configuration over HTTP, from its own folder.
//!
//! Debian's signed `grubnetx64.efi` does not: started over HTTP, it stops at its prompt.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use hardware::CpuArch;
use tempfile::TempDir;

use super::files::read;
use super::packages::{DebianPackages, output};
use super::steps::step;

/// GRUB's embedded configuration. It has no `if` and no `for`, since it runs before GRUB's shell is available.
///
/// `$cmdpath` is the folder that GRUB was loaded from. It and the card's address come from the firmware's device
/// path, so that no second DHCP exchange is needed. (EDK2 adds a Dns() node to that path in
/// `HttpBootUpdateDevicePath` if DHCP sent a name server, and GRUB 2.06 cannot parse it; this DHCP server sends a
/// name server only if the URL needs one.)
const EMBEDDED: &str = r#"
configfile "$cmdpath/grub.cfg"
echo "GRUB cannot fetch $cmdpath/grub.cfg with the firmware's address: asking DHCP for one"
net_bootp
configfile "$cmdpath/grub.cfg"
echo "GRUB found no configuration at $cmdpath/grub.cfg: back to the firmware in 10 s"
sleep 10
exit
"#;

/// The modules for both configurations, since no module can be fetched before the network is up.
const MODULES: &[&str] = &[
    "all_video",
    "configfile",
    "echo",
    "efinet",
    "http",
    "linux",
    "minicmd",
    "net",
    "normal",
    "reboot",
    "sleep",
];

/// Builds GRUB for an architecture; its modules are for that architecture, while `grub-mkimage` runs on this host.
///
/// # Errors
///
/// GRUB's packages are unavailable, or `grub-mkimage` fails.
pub(super) fn image(packages: &DebianPackages, cpu_arch: CpuArch) -> Result<Vec<u8>> {
    let (package, format) = match cpu_arch {
        CpuArch::X64 => ("grub-efi-amd64-bin", "x86_64-efi"),
        CpuArch::Arm64 => ("grub-efi-arm64-bin", "arm64-efi"),
        CpuArch::Riscv64 => ("grub-efi-riscv64-bin", "riscv64-efi"),
    };
    let modules = packages.find(package, &format!("usr/lib/grub/{format}/efinet.mod"))?;
    let modules = modules.parent().expect("the file has a folder in its name");
    let program = packages.find_program("grub-common", "usr/bin/grub-mkimage")?;
    step(&format!("making GRUB for {cpu_arch}"), || make(&program, modules, format))
}

fn make(program: &PathBuf, modules: &Path, format: &str) -> Result<Vec<u8>> {
    let folder = TempDir::new().context("cannot make a folder")?;
    let configuration = folder.path().join("grub.cfg");
    let image = folder.path().join("grubx64.efi");
    fs::write(&configuration, EMBEDDED).context("cannot write GRUB's configuration")?;

    output(
        Command::new(program)
            .args(["--format", format, "--prefix", "/"])
            .arg("--directory")
            .arg(modules)
            .arg("--config")
            .arg(&configuration)
            .arg("--output")
            .arg(&image)
            .args(MODULES),
    )?;
    read(&image)
}
