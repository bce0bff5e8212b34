//! `ferroboot image`: boot sets made from Debian's packages.
//!
//! A boot set is a folder with everything a machine fetches to come up in our ramdisk: `kernel`, `initramfs`
//! (the agent is its init), the UKI stub, iPXE, GRUB, and `manifest.json`, which is written last.

mod files;
mod grub;
mod initramfs;
mod manifest;
mod packages;
mod steps;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use hardware::CpuArch;
use provision::boot::Artifact;

use self::files::read;
use self::initramfs::Initramfs;
use self::manifest::BootSetWriter;
use self::packages::DebianPackages;
use self::steps::step;

/// Where `make agent` leaves the static agent for an architecture, relative to the checkout.
fn default_agent(cpu_arch: CpuArch) -> PathBuf {
    let target = match cpu_arch {
        CpuArch::X64 => "x86_64-unknown-linux-gnu",
        CpuArch::Arm64 => "aarch64-unknown-linux-gnu",
        CpuArch::Riscv64 => "riscv64gc-unknown-linux-gnu",
    };
    Path::new("target/agent").join(target).join("agent/ferroboot-agent")
}

/// The subcommands of `ferroboot image`.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Make a boot set from Debian's packages.
    Build(BuildImage),
}

impl ImageCommand {
    /// Does what the command line asked.
    ///
    /// # Errors
    ///
    /// Whatever stopped it, with the file or the package it was working on.
    pub fn run(&self) -> Result<()> {
        match self {
            Self::Build(build) => build.run(),
        }
    }
}

/// What goes into a boot set, and where it goes.
#[derive(Debug, Args)]
pub struct BuildImage {
    /// Folder to write; files of an older boot set in it are replaced.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,

    /// What the machines are: x64, arm64 or riscv64. The service looks for the boot sets of the latter two in
    /// folders of these names, in that of x64.
    #[arg(long, value_name = "NAME", default_value = "x64")]
    architecture: CpuArch,

    /// Debian's release to take packages from, such as trixie, instead of the one that is installed here
    /// (which for riscv64 is trixie in any case, the first to have it).
    #[arg(long, value_name = "NAME")]
    release: Option<String>,

    /// Kernel package to use instead of the one `linux-image-amd64`, or its like, stands for. May be given
    /// several times, where kernel and modules are not in one.
    #[arg(long, value_name = "FILE")]
    kernel_deb: Vec<PathBuf>,

    /// The statically linked agent; without it, the one that `make agent` made.
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,

    /// Firmware for network cards and controllers: a package, or a folder like /lib/firmware.
    /// Only the blobs that the ramdisk's modules ask for are taken.
    #[arg(long, value_name = "DEB|DIR")]
    firmware: Vec<PathBuf>,

    /// Certificates (PEM) of the authorities that vouch for Ironic's API, when it has no public one.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// A kernel module to add, with what it depends on.
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,

    /// Folder in which downloaded packages are kept.
    #[arg(long, value_name = "DIR", env = "FERROBOOT_PACKAGES")]
    packages: Option<PathBuf>,

    /// zstd level of the ramdisk, 1 (fast) to 19 (small).
    #[arg(long, default_value_t = 19, value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,
}

impl BuildImage {
    fn run(&self) -> Result<()> {
        let cpu_arch = self.architecture;
        let agent = self.agent.clone().unwrap_or_else(|| default_agent(cpu_arch));
        check_agent(&agent, cpu_arch)?;
        fs::create_dir_all(&self.output)
            .with_context(|| format!("cannot create {}", self.output.display()))?;
        let packages =
            DebianPackages::open(self.packages.as_deref(), cpu_arch, self.release.as_deref())?;

        let kernel = packages.kernel(&self.kernel_deb)?;
        let initramfs = Initramfs {
            cpu_arch,
            agent: &agent,
            kernel: &kernel,
            authorities: self.ca.as_deref(),
            firmware: &packages.firmware(&self.firmware)?,
            modules: &self.modules,
        };
        let cpio = step("collecting modules", || initramfs.collect())?;
        let initramfs = steps::compress(&cpio, self.level)?;

        let mut manifest = BootSetWriter::new(&self.output, &kernel.version);
        manifest.add("kernel", &read(&kernel.image)?)?;
        manifest.add("initramfs", &initramfs)?;
        manifest.add("stub.efi", &packages.stub()?)?;
        match (Artifact::ipxe(cpu_arch), packages.ipxe()?) {
            (Some(artifact), Some(ipxe)) => manifest.add(artifact.file_name(), &ipxe)?,
            (Some(_) | None, _) => eprintln!(
                "there is no iPXE for {cpu_arch} in this release of Debian: nodes can boot by http and \
                 redfish-https, not by http-ipxe"
            ),
        }
        let grub = format!("grub{}.efi", cpu_arch.uefi_name());
        manifest.add(&grub, &grub::image(&packages, cpu_arch)?)?;
        manifest.write()
    }
}

/// Refuses what would end in a kernel panic on every machine, before anything is downloaded.
fn check_agent(agent: &Path, cpu_arch: CpuArch) -> Result<()> {
    let path = agent.display();
    let make = match cpu_arch {
        CpuArch::X64 => "make agent".to_owned(),
        CpuArch::Arm64 | CpuArch::Riscv64 => format!("make agent-{cpu_arch}"),
    };
    if !agent.exists() {
        bail!(
            "there is no agent at {path}: build it with `{make}`, or name it \
             with --agent"
        );
    }
    if !initramfs::is_static(&read(agent)?, cpu_arch) {
        bail!(
            "{path} is not a static program for {cpu_arch}, and the ramdisk holds no libraries: \
             build it with `{make}`"
        );
    }
    Ok(())
}
