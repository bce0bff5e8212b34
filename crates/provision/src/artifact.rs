//! The files that a machine fetches with a ticket.

use hardware::CpuArch;
use serde::{Deserialize, Serialize};

/// A file under a ticket: `/boot/{ticket}/{file name}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Artifact {
    /// `bootx64.efi`: the loader of `http`, a UKI for this node, GRUB or shim.
    BootLoader,
    /// `bootaa64.efi`: the same for arm64.
    BootLoaderArm64,
    /// `bootriscv64.efi`: the same for riscv64.
    BootLoaderRiscv64,
    /// `grubx64.efi`: the program that shim starts, a UKI for this node or GRUB.
    ShimSecondStage,
    /// `snponly.efi`: iPXE.
    Ipxe,
    /// `snponly-arm64.efi`: iPXE for arm64.
    IpxeArm64,
    /// `boot.ipxe`: iPXE's script.
    IpxeScript,
    /// `boot.iso`: the node's ISO image.
    Iso,
    /// `grub.cfg`: GRUB's configuration.
    GrubConfig,
    /// `kernel`.
    Kernel,
    /// `initramfs`.
    Initramfs,
}

impl Artifact {
    /// All artifacts.
    pub const ALL: [Self; 11] = [
        Self::BootLoader,
        Self::BootLoaderArm64,
        Self::BootLoaderRiscv64,
        Self::ShimSecondStage,
        Self::Ipxe,
        Self::IpxeArm64,
        Self::IpxeScript,
        Self::Iso,
        Self::GrubConfig,
        Self::Kernel,
        Self::Initramfs,
    ];

    /// The last part of the artifact's URL.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::BootLoader => "bootx64.efi",
            Self::BootLoaderArm64 => "bootaa64.efi",
            Self::BootLoaderRiscv64 => "bootriscv64.efi",
            // The name is in shim (`DEFAULT_LOADER`), which takes it from its own folder.
            Self::ShimSecondStage => "grubx64.efi",
            Self::Ipxe => "snponly.efi",
            Self::IpxeArm64 => "snponly-arm64.efi",
            Self::IpxeScript => "boot.ipxe",
            Self::Iso => "boot.iso",
            Self::GrubConfig => "grub.cfg",
            Self::Kernel => "kernel",
            Self::Initramfs => "initramfs",
        }
    }

    /// The loader of `http` for an architecture.
    #[must_use]
    pub fn boot_loader(cpu_arch: CpuArch) -> Self {
        match cpu_arch {
            CpuArch::X64 => Self::BootLoader,
            CpuArch::Arm64 => Self::BootLoaderArm64,
            CpuArch::Riscv64 => Self::BootLoaderRiscv64,
        }
    }

    /// iPXE for an architecture, if available.
    #[must_use]
    pub fn ipxe(cpu_arch: CpuArch) -> Option<Self> {
        match cpu_arch {
            CpuArch::X64 => Some(Self::Ipxe),
            CpuArch::Arm64 => Some(Self::IpxeArm64),
            CpuArch::Riscv64 => None,
        }
    }

    /// The only architecture that can run the artifact; `None` if each architecture has its own under the same name.
    #[must_use]
    pub fn cpu_arch(self) -> Option<CpuArch> {
        match self {
            Self::BootLoader | Self::ShimSecondStage | Self::Ipxe => Some(CpuArch::X64),
            Self::BootLoaderArm64 | Self::IpxeArm64 => Some(CpuArch::Arm64),
            Self::BootLoaderRiscv64 => Some(CpuArch::Riscv64),
            Self::IpxeScript | Self::Iso | Self::GrubConfig | Self::Kernel | Self::Initramfs => {
                None
            }
        }
    }

    /// The artifact with this file name.
    #[must_use]
    pub fn of_file_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|artifact| artifact.file_name() == name)
    }

    /// Whether the artifact contains the operating system, so that a complete fetch means that it can start.
    #[must_use]
    pub fn holds_ramdisk(self, loader: HttpLoader) -> bool {
        match self {
            Self::Iso | Self::Initramfs => true,
            Self::BootLoader | Self::BootLoaderArm64 | Self::BootLoaderRiscv64 => {
                loader == HttpLoader::Uki
            }
            Self::ShimSecondStage => loader == HttpLoader::ShimUki,
            Self::Ipxe | Self::IpxeArm64 | Self::IpxeScript | Self::GrubConfig | Self::Kernel => {
                false
            }
        }
    }
}

/// The first loader of the `http` boot interface, from the settings, and what it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HttpLoader {
    /// A UKI composed for the node: one file, one fetch.
    #[default]
    Uki,
    /// GRUB, which fetches `grub.cfg`, kernel and initramfs.
    Grub,
    /// shim and GRUB with their distribution's signatures, for Secure Boot. GRUB fetches as [`Self::Grub`] does, or reads the
    /// ISO image.
    ShimGrub,
    /// shim with its distribution's signature, which fetches the UKI of [`Self::Uki`].
    ShimUki,
}

impl HttpLoader {
    /// The loader in an ISO image: shim with what it starts, or a UKI. Boot sets have signed loaders for x64 alone.
    #[must_use]
    pub fn in_image(self, cpu_arch: CpuArch) -> Self {
        match (self, cpu_arch) {
            (Self::ShimGrub | Self::ShimUki, CpuArch::X64) => self,
            (Self::ShimGrub | Self::ShimUki, CpuArch::Arm64 | CpuArch::Riscv64)
            | (Self::Uki | Self::Grub, _) => Self::Uki,
        }
    }

    /// Whether it is shim.
    #[must_use]
    pub fn is_shim(self) -> bool {
        match self {
            Self::Uki | Self::Grub => false,
            Self::ShimGrub | Self::ShimUki => true,
        }
    }
}
