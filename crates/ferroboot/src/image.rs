//! `ferroboot image`: builds boot sets from Debian's packages.
//!
//! A boot set is a folder with all files that a machine fetches to run the ramdisk: `kernel`, `initramfs` (with the
//! agent as its init), the UKI stub, iPXE, GRUB, and `manifest.json`, which is written last.

mod files;
mod grub;
mod initramfs;
mod manifest;
mod packages;
mod signed_loaders;
mod steps;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use hardware::CpuArch;
use provision::artifact::Artifact;

use self::files::read;
use self::initramfs::Initramfs;
use self::manifest::BootSetWriter;
use self::packages::DebianPackages;
use self::signed_loaders::AddLoaders;
use self::steps::step;

/// The path of the static agent that `make agent` builds for an architecture, relative to the checkout.
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
    /// Add the shim and GRUB that Debian signs to a boot set, for Secure Boot.
    Loaders(AddLoaders),
}

impl ImageCommand {
    /// Runs the subcommand.
    ///
    /// # Errors
    ///
    /// The failure, with the file or the package.
    pub fn run(&self) -> Result<()> {
        match self {
            Self::Build(build) => build.run(),
            Self::Loaders(loaders) => loaders.run(),
        }
    }
}

/// The contents and the place of a boot set.
#[derive(Debug, Args)]
pub struct BuildImage {
    /// Output folder; files of an older boot set in it are replaced.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,

    /// Architecture of the machines: x64, arm64 or riscv64. The service expects the boot sets for arm64 and riscv64
    /// in subfolders of these names, in the folder of the x64 boot set.
    #[arg(long, value_name = "NAME", default_value = "x64")]
    architecture: CpuArch,

    /// Debian release of the packages, such as trixie; by default the release of this host (for riscv64 always
    /// trixie, the first release with it).
    #[arg(long, value_name = "NAME")]
    release: Option<String>,

    /// Kernel package instead of the one that `linux-image-amd64` (or the architecture's) depends on. May be repeated
    /// if kernel and modules are in separate packages.
    #[arg(long, value_name = "FILE")]
    kernel_deb: Vec<PathBuf>,

    /// Statically linked agent; by default the one that `make agent` built.
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,

    /// Firmware for network cards and controllers: a package, or a folder like /lib/firmware. Only the blobs for the
    /// ramdisk's modules are used.
    #[arg(long, value_name = "DEB|DIR")]
    firmware: Vec<PathBuf>,

    /// CA certificates (PEM) for Ironic's API, if it has no public certificate.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// Additional kernel module, with its dependencies.
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,

    /// Folder for downloaded packages.
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
                "there is no iPXE for {cpu_arch} in this release of Debian: nodes can boot by all boot interfaces \
                 but http-ipxe"
            ),
        }
        let grub = format!("grub{}.efi", cpu_arch.uefi_name());
        manifest.add(&grub, &grub::image(&packages, cpu_arch)?)?;
        manifest.write()
    }
}

/// Refuses an agent that would cause a kernel panic on every machine, before anything is downloaded.
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
