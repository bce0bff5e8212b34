//! The contents of the ramdisk: the agent as init, and the modules for disks and the network.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use agent::modules::modinfo::Modinfo;
use agent::modules::{ModuleIndex, name_of, normal};
use agent::ramdisk::AUTHORITIES;
use anyhow::{Context, Result, bail};
use hardware::CpuArch;
use lzma_rust2::XzReader;

use super::files::read;
use super::packages::KernelPackage;
use efi::CpioArchive;

/// The ramdisk's drivers, by their names in `modprobe`; dependencies are added.
const MODULES: &[&str] = &[
    // Network cards of servers.
    "atlantic",
    "be2net",
    "bna",
    "bnx2",
    "bnx2x",
    "bnxt_en",
    "cxgb4",
    "e1000",
    "e1000e",
    "ena",
    "enic",
    "i40e",
    "iavf",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "mlx4_en",
    "mlx5_core",
    "nfp",
    "qede",
    "qlcnic",
    "r8169",
    "sfc",
    "sky2",
    "tg3",
    // Network cards of virtual machines, and on USB.
    "8139cp",
    "8139too",
    "cdc_ether",
    "cdc_ncm",
    "hv_netvsc",
    "pcnet32",
    "r8152",
    "ax88179_178a",
    "virtio_net",
    "vmxnet3",
    // PHYs that network card drivers request by their identifier.
    "bcm_phy_lib",
    "broadcom",
    "marvell",
    "realtek",
    // Drivers on top of network cards.
    "8021q",
    "bonding",
    // Disk controllers of servers.
    "aacraid",
    "ahci",
    "ata_generic",
    "ata_piix",
    "hpsa",
    "megaraid_sas",
    "mpi3mr",
    "mpt3sas",
    "mvsas",
    "nvme",
    "pm80xx",
    "sdhci_pci",
    "mmc_block",
    "smartpqi",
    // Disk controllers of virtual machines.
    "hv_storvsc",
    "mptspi",
    "sym53c8xx",
    "virtio_blk",
    "virtio_scsi",
    "xen_blkfront",
    // Disks and their buses. UAS and USB are included because servers boot from USB, which must be erased.
    "sd_mod",
    "sr_mod",
    "crc_t10dif",
    "crct10dif_generic",
    "uas",
    "usb_storage",
    "ehci_pci",
    "ohci_pci",
    "xhci_pci",
    // The RAM disk in which firmware keeps the ISO of the boot.
    "nd_pmem",
    "nfit",
    // Buses and entropy of virtual machines.
    "hv_vmbus",
    "virtio_pci",
    "virtio_mmio",
    "virtio_rng",
    "xen_netfront",
    // File systems of firmware and images, including UEFI variables.
    "efivarfs",
    "isofs",
    "nls_ascii",
    "nls_cp437",
    "nls_iso8859_1",
    "nls_utf8",
    "vfat",
    // libcrc32c requests it by the name of the algorithm.
    "crc32c_generic",
    // The machine's own BMC.
    "ipmi_devintf",
    "ipmi_si",
];

/// Modules that only the x64 kernel has.
const X64_MODULES: &[&str] =
    &["crc32c_intel", "crct10dif_pclmul", "isci", "uhci_hcd", "vmd", "vmw_pvscsi"];

/// Modules that only the arm64 kernel has.
const ARM64_MODULES: &[&str] = &[
    // Network cards.
    "amd_xgbe",
    "dwmac_generic",
    "fsl_dpaa2_eth",
    "fsl_enetc",
    "genet",
    "hns3",
    "hns_enet_drv",
    "macb",
    "mvneta",
    "mvpp2",
    "nicvf",
    "xgene_enet",
    // Disk controllers.
    "ahci_platform",
    "hisi_sas_v3_hw",
    "sdhci_acpi",
    "sdhci_iproc",
    "sdhci_of_dwcmshc",
    "crct10dif_ce",
];

/// Modules that only the riscv64 kernel has.
const RISCV64_MODULES: &[&str] = &[];

fn modules(cpu_arch: CpuArch) -> impl Iterator<Item = &'static str> {
    let own = match cpu_arch {
        CpuArch::X64 => X64_MODULES,
        CpuArch::Arm64 => ARM64_MODULES,
        CpuArch::Riscv64 => RISCV64_MODULES,
    };
    MODULES.iter().chain(own).copied()
}

/// The parts of a ramdisk.
#[derive(Debug)]
pub(super) struct Initramfs<'a> {
    pub(super) cpu_arch: CpuArch,
    pub(super) agent: &'a Path,
    pub(super) kernel: &'a KernelPackage,
    /// CA certificates for Ironic's API.
    pub(super) authorities: Option<&'a Path>,
    pub(super) firmware: &'a [PathBuf],
    /// Additional required modules.
    pub(super) modules: &'a [String],
}

impl Initramfs<'_> {
    /// Builds the uncompressed archive.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or a module from the command line does not exist.
    pub(super) fn collect(&self) -> Result<Vec<u8>> {
        let mut archive = CpioArchive::default();
        archive.program("init", read(self.agent)?);
        // The kernel requests further modules (for a PHY, a hash) by starting this program.
        archive.symlink("sbin/modprobe", "/init");
        // The kernel opens it for init before anything is mounted.
        archive.character_device("dev/console", 5, 1);
        for mount_point in ["proc", "sys", "run", "tmp"] {
            archive.directory(mount_point);
        }
        if let Some(file) = self.authorities {
            archive.file(AUTHORITIES.trim_start_matches('/'), certificates(file)?);
        }
        let firmware = self.collect_modules(&mut archive)?;
        self.collect_firmware(&mut archive, &firmware)?;
        Ok(archive.finish())
    }

    /// Adds modules and their index, and returns the names of their firmware blobs.
    fn collect_modules(&self, archive: &mut CpioArchive) -> Result<BTreeSet<String>> {
        let tree = &self.kernel.modules;
        let version = &self.kernel.version;
        let available = find_modules(tree)?;
        let builtin = built_in(tree)?;
        self.check_requested(&available, &builtin)?;

        let mut index = ModuleIndex::default();
        let mut firmware = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let requested = self.modules.iter().map(|name| normal(name));
        let mut pending: Vec<_> = modules(self.cpu_arch).map(normal).chain(requested).collect();
        while let Some(name) = pending.pop() {
            if !seen.insert(name.clone()) || builtin.contains(&name) {
                continue;
            }
            let Some(path) = available.get(&name) else {
                eprintln!("this kernel has no module {name}");
                continue;
            };
            let content = module(&tree.join(path))?;
            let path = path.trim_end_matches(XZ);
            let modinfo = Modinfo::parse(&content)
                .with_context(|| format!("{path} is not a plain 64-bit module"))?;
            pending.extend(modinfo.depends.iter().cloned());
            firmware.extend(modinfo.firmware.iter().cloned());
            archive.file(&format!("lib/modules/{version}/{path}"), content);
            index.add(path, modinfo);
        }

        let files = index.emit();
        let folder = format!("lib/modules/{version}");
        archive.file(&format!("{folder}/modules.dep"), files.dep.into_bytes());
        archive.file(&format!("{folder}/modules.alias"), files.alias.into_bytes());
        archive.file(&format!("{folder}/modules.softdep"), files.softdep.into_bytes());
        Ok(firmware)
    }

    fn check_requested(
        &self,
        available: &BTreeMap<String, String>,
        builtin: &BTreeSet<String>,
    ) -> Result<()> {
        for name in self.modules.iter().map(|name| normal(name)) {
            if !available.contains_key(&name) && !builtin.contains(&name) {
                bail!("kernel {} has no module {name}", self.kernel.version);
            }
        }
        Ok(())
    }

    fn collect_firmware(&self, archive: &mut CpioArchive, wanted: &BTreeSet<String>) -> Result<()> {
        let mut taken = 0;
        for (name, folder) in
            wanted.iter().flat_map(|name| self.firmware.iter().map(move |it| (name, it)))
        {
            let path = folder.join(name);
            if path.is_file() {
                archive.file(&format!("lib/firmware/{name}"), read(&path)?);
                taken += 1;
            }
        }
        if !self.firmware.is_empty() {
            eprintln!("firmware: {taken} of {} blobs the modules know of", wanted.len());
        }
        Ok(())
    }
}

/// An invalid file should fail here, not on every machine.
fn certificates(file: &Path) -> Result<Vec<u8>> {
    let content = read(file)?;
    let found = reqwest::Certificate::from_pem_bundle(&content);
    let found = found.with_context(|| format!("cannot read {}", file.display()))?;
    if found.is_empty() {
        bail!("{} holds no certificate in PEM", file.display());
    }
    Ok(content)
}

/// Whether a program needs no libraries: 64-bit ELF without an interpreter.
pub(super) fn is_static(program: &[u8], cpu_arch: CpuArch) -> bool {
    const INTERPRETER: &[u8] = &[3, 0, 0, 0];
    let u16_at = |at: usize| {
        Some(usize::from(u16::from_le_bytes(program.get(at..at + 2)?.try_into().ok()?)))
    };
    let table = || {
        let start = u64::from_le_bytes(program.get(0x20..0x28)?.try_into().ok()?);
        let headers = program.get(usize::try_from(start).ok()?..)?;
        Some(headers.chunks_exact(u16_at(0x36)?.max(1)).take(u16_at(0x38)?))
    };
    let machine = match cpu_arch {
        CpuArch::X64 => 0x3E,
        CpuArch::Arm64 => 0xB7,
        CpuArch::Riscv64 => 0xF3,
    };
    let fits = program.starts_with(b"\x7fELF\x02\x01") && u16_at(0x12) == Some(machine);
    fits && table()
        .is_some_and(|mut headers| headers.all(|header| !header.starts_with(INTERPRETER)))
}

/// Every module's name and its path below `tree`. Modules are compressed from Debian 13 on. In the ramdisk they are
/// plain, since the whole ramdisk is compressed.
const XZ: &str = ".xz";

/// A module, uncompressed.
fn module(path: &Path) -> Result<Vec<u8>> {
    let content = read(path)?;
    if path.extension().is_none_or(|extension| extension != XZ.trim_start_matches('.')) {
        return Ok(content);
    }
    let mut plain = Vec::new();
    let mut reader = XzReader::new(content.as_slice(), false);
    reader.read_to_end(&mut plain).with_context(|| format!("cannot unpack {}", path.display()))?;
    Ok(plain)
}

fn find_modules(tree: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![tree.join("kernel")];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Some(path) = path.strip_prefix(tree).ok().and_then(Path::to_str)
                && let Some(plain) =
                    [path, path.trim_end_matches(XZ)].into_iter().find(|path| path.ends_with(".ko"))
            {
                found.insert(name_of(plain), path.to_owned());
            }
        }
    }
    Ok(found)
}

fn built_in(tree: &Path) -> Result<BTreeSet<String>> {
    let path = tree.join("modules.builtin");
    let list =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(list.lines().map(name_of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_wants_a_loader_is_not_static() {
        let is_static = |program: &[u8]| is_static(program, CpuArch::X64);
        assert!(is_static(&program(&[1, 6])));
        assert!(!is_static(&program(&[6, 3, 1])));
        assert!(!is_static(b"#!/bin/sh\n"));
        assert!(!is_static(&program(&[1])[..0x30]));
    }

    #[test]
    fn a_program_for_another_architecture_is_no_agent() {
        assert!(!is_static(&program(&[1]), CpuArch::Arm64));
    }

    /// An ELF header and program headers of these types.
    fn program(types: &[u8]) -> Vec<u8> {
        let mut elf = vec![0; 0x40];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[0x12] = 0x3E;
        elf[0x20] = 0x40;
        elf[0x36] = 0x38;
        elf[0x38] = u8::try_from(types.len()).unwrap();
        for &kind in types {
            let mut header = [0; 0x38];
            header[0] = kind;
            elf.extend_from_slice(&header);
        }
        elf
    }
}
