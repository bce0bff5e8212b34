//! The machine's disks, from the kernel's `/sys/block`.

use std::fs::{self, File};
use std::io::{self, Seek};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tracing::{info, warn};

use super::disk::Disk;
use super::hints::Traits;

/// The unit of sizes in sysfs, whatever the device's block size.
const SECTOR: u64 = 512;

/// RAM (pmem has the ISO of the boot), files, optical drives, and layers on top of disks.
const NOT_DISKS: [&str; 12] =
    ["dm-", "fd", "loop", "md", "mtdblock", "nbd", "pmem", "ram", "rbd", "sr", "zd", "zram"];

/// A file or device as a disk.
///
/// # Errors
///
/// It cannot be opened.
pub(super) fn named(path: &Path) -> Result<Disk> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let len =
        file.seek(io::SeekFrom::End(0)).with_context(|| format!("measuring {}", path.display()))?;
    let traits = Traits { name: path.display().to_string(), len, ..Traits::default() };
    Ok(Disk {
        path: path.to_owned(),
        len,
        block: SECTOR,
        read_only: false,
        traits,
        partitions: Vec::new(),
    })
}

/// All disks, sorted by path.
///
/// # Errors
///
/// `/sys/block` cannot be read.
pub(super) fn machine() -> Result<Vec<Disk>> {
    let entries = fs::read_dir("/sys/block").context("listing /sys/block")?;
    let mut disks = Vec::new();
    for entry in entries {
        let folder = entry.context("listing /sys/block")?.path();
        disks.extend(Device(folder).disk());
    }
    disks.sort_by(|one, other| one.path.cmp(&other.path));
    if disks.is_empty() {
        warn!("this machine has no disk that could be erased");
    }
    Ok(disks)
}

/// A folder of `/sys/block`.
struct Device(PathBuf);

impl Device {
    /// `None` if the device is not a disk of the machine.
    fn disk(&self) -> Option<Disk> {
        let name = self.0.file_name()?.to_str()?;
        let is_path_to_namespace = self.number("hidden") == Some(1);
        if NOT_DISKS.iter().any(|prefix| name.starts_with(prefix)) || is_path_to_namespace {
            return None;
        }
        let len = self.number("size")? * SECTOR;
        if len == 0 {
            info!("skipping {name}: it has no medium");
            return None;
        }
        let path = Path::new("/dev").join(name.replace('!', "/"));
        Some(Disk {
            len,
            block: self.number("queue/logical_block_size").unwrap_or(SECTOR),
            read_only: self.number("ro") == Some(1),
            traits: self.traits(path.display().to_string(), len),
            partitions: self.partitions(),
            path,
        })
    }

    fn traits(&self, name: String, len: u64) -> Traits {
        let wwid = self.text("wwid").or_else(|| self.text("device/wwid"));
        let (wwn, wwn_with_extension) = wwid.as_deref().map(world_wide_names).unwrap_or_default();
        let serial = self.text("serial").or_else(|| self.text("device/serial"));
        Traits {
            name,
            len,
            model: self.text("device/model"),
            vendor: self.text("device/vendor"),
            serial: serial.or_else(|| serial_page(&fs::read(self.0.join("device/vpd_pg80")).ok()?)),
            wwn,
            wwn_with_extension,
            hctl: self.hctl(),
            rotational: self.number("queue/rotational").map(|it| it == 1),
        }
    }

    /// The SCSI address, which is the name of a SCSI disk's device.
    fn hctl(&self) -> Option<String> {
        let device = fs::canonicalize(self.0.join("device")).ok()?;
        let name = device.file_name()?.to_str()?;
        (name.split(':').count() == 4).then(|| name.to_owned())
    }

    fn partitions(&self) -> Vec<Range<u64>> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().filter_map(Result::ok);
        let folders = entries.map(|entry| Self(entry.path()));
        folders
            .filter(|it| it.0.join("partition").exists())
            .filter_map(|it| {
                let start = it.number("start")? * SECTOR;
                Some(start..start + it.number("size")? * SECTOR)
            })
            .collect()
    }

    fn number(&self, file: &str) -> Option<u64> {
        self.text(file)?.parse().ok()
    }

    fn text(&self, file: &str) -> Option<String> {
        let text = fs::read_to_string(self.0.join(file)).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }
}

/// udev's `ID_WWN` and `ID_WWN_WITH_EXTENSION`: the first half of a long NAA name is the short one.
fn world_wide_names(wwid: &str) -> (Option<String>, Option<String>) {
    const SHORT: usize = 16;
    let Some(digits) = wwid.strip_prefix("naa.") else {
        let name = wwid.starts_with("eui.").then(|| wwid.to_owned());
        return (name.clone(), name);
    };
    let short = digits.get(..SHORT).unwrap_or(digits);
    (Some(format!("0x{short}")), Some(format!("0x{digits}")))
}

/// SPC-4 §7.8.18: a header of four bytes, its last two the length, and the serial number.
fn serial_page(page: &[u8]) -> Option<String> {
    let len = usize::from(u16::from_be_bytes(page.get(2..4)?.try_into().ok()?));
    let serial = str::from_utf8(page.get(4..)?.get(..len)?).ok()?;
    let serial = serial.trim_matches(|it: char| it.is_whitespace() || it == '\0');
    (!serial.is_empty()).then(|| serial.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn world_wide_names_are_written_as_udev_writes_them() {
        let some = |text: &str| Some(text.to_owned());

        assert_eq!(
            world_wide_names("naa.600508b1001c4d2f8c3a5e7b9d1f2a3c"),
            (some("0x600508b1001c4d2f"), some("0x600508b1001c4d2f8c3a5e7b9d1f2a3c"))
        );
        assert_eq!(world_wide_names("eui.0025385b"), (some("eui.0025385b"), some("eui.0025385b")));
        assert_eq!(world_wide_names("t10.ATA"), (None, None));
    }

    #[test]
    fn a_serial_number_is_read_from_its_page() {
        assert_eq!(serial_page(b"\x00\x80\x00\x08  WD-42 ").as_deref(), Some("WD-42"));
        assert_eq!(serial_page(b"\x00\x80\x00\x08short"), None);
        assert_eq!(serial_page(b""), None);
    }
}
