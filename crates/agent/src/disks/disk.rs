//! One disk, and how it is erased.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use tracing::debug;

use super::hints::Traits;
use super::partitions::ReadAt;
use super::signatures::SIGNATURES;
use super::{clustered, partitions, plan};

/// Size of one read or write in bytes; also the unit for detecting a failed offload.
const CHUNK: u64 = 4 << 20;

/// Bytes that the kernel zeroes in one call: small enough for progress reports and cancellation.
const OFFLOAD: u64 = 1 << 30;

/// A disk that may be erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// `/dev/sda`
    pub path: PathBuf,
    /// Size in bytes.
    pub len: u64,
    /// Size of a logical block in bytes, the unit of partition tables.
    pub block: u64,
    /// Whether the device refuses writes.
    pub read_only: bool,
    /// Properties that an operator's hint may describe.
    pub traits: Traits,
    /// Partitions that the kernel knows, for tables that the agent does not parse.
    pub(super) partitions: Vec<Range<u64>>,
}

impl Disk {
    /// The name of a shared file system on this disk, which makes erasing it dangerous for other machines.
    ///
    /// # Errors
    ///
    /// The disk cannot be opened.
    pub fn clustered(&self) -> Result<Option<&'static str>> {
        let device = File::open(&self.path).with_context(|| self.failed("opening"))?;
        Ok(clustered::find(&OpenDisk(&device), self.len, self.block))
    }

    /// Removes partition tables and the signatures of file systems, volume managers and RAIDs, and reads the disk
    /// again to verify it. Returns the names of the removed signatures.
    ///
    /// # Errors
    ///
    /// The disk is in use, refuses a write, or still shows a signature afterwards.
    pub fn erase_metadata(&self) -> Result<BTreeSet<&'static str>> {
        let device = self.open()?;
        let disk = OpenDisk(&device);
        let tables = partitions::partitions(&disk, self.len, self.block);
        let volumes: Vec<_> =
            tables.into_iter().map(|it| it.range).chain(self.partitions.iter().cloned()).collect();
        let there = signatures_on(&disk, self.len, &volumes);

        let regions = plan::regions(self.len, &volumes);
        for region in &regions {
            write_zeros(&device, region.clone()).with_context(|| self.failed("writing to"))?;
        }
        self.flush(&device)?;
        for region in regions {
            self.verify(&device, region)?;
        }
        let left = signatures_on(&disk, self.len, &volumes);
        if !left.is_empty() {
            bail!("{} still shows {}", self.path.display(), list(&left));
        }
        self.reread_partitions(device);
        Ok(there)
    }

    /// Overwrites the whole disk with zeros, and verifies samples of it. `progress` gets the number of finished
    /// bytes.
    ///
    /// # Errors
    ///
    /// The disk is in use, refuses a write, or a sample is not zero.
    pub fn erase(&self, mut progress: impl FnMut(u64)) -> Result<()> {
        let device = self.open()?;
        let mut offload = true;
        let mut done = 0;
        while done < self.len {
            let end = self.len.min(done + if offload { OFFLOAD } else { CHUNK });
            if offload && let Err(error) = offload_zeros(&device, done..end) {
                debug!("{} cannot zero by itself ({error}): writing", self.path.display());
                offload = false;
                continue;
            }
            if !offload {
                write_zeros(&device, done..end).with_context(|| self.failed("writing to"))?;
            }
            done = end;
            progress(done);
        }
        self.flush(&device)?;
        for sample in samples(self.len) {
            self.verify(&device, sample)?;
        }
        self.reread_partitions(device);
        Ok(())
    }

    fn open(&self) -> Result<File> {
        let device = self.path.metadata().is_ok_and(|it| it.file_type().is_block_device());
        // On a block device, O_EXCL fails if the device is mounted or in use.
        let exclusive = if device { nix::libc::O_EXCL } else { 0 };
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(exclusive | nix::libc::O_CLOEXEC)
            .open(&self.path)
            .with_context(|| self.failed("opening"))
    }

    /// Flushes to the medium and drops the cache: the next read comes from the disk.
    fn flush(&self, device: &File) -> Result<()> {
        device.sync_all().with_context(|| self.failed("flushing"))?;
        posix_fadvise(device, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
            .with_context(|| self.failed("dropping the cache of"))
    }

    fn verify(&self, device: &File, range: Range<u64>) -> Result<()> {
        for chunk in chunks(range) {
            let mut bytes = vec![0; usize::try_from(chunk.end - chunk.start)?];
            device
                .read_exact_at(&mut bytes, chunk.start)
                .with_context(|| self.failed("reading"))?;
            if let Some(at) = bytes.iter().position(|&byte| byte != 0) {
                bail!("{} is not zero at byte {}", self.path.display(), chunk.start + at as u64);
            }
        }
        Ok(())
    }

    /// Makes the kernel forget the partitions. If it cannot, the next boot does.
    fn reread_partitions(&self, mut device: File) {
        let path = self.path.display();
        if let Err(error) = gptman::linux::reread_partition_table(&mut device) {
            debug!("the kernel keeps its view of {path}'s partitions: {error}");
        }
    }

    fn failed(&self, doing: &str) -> String {
        format!("{doing} {}", self.path.display())
    }
}

/// An open disk, for reading tables and signatures.
struct OpenDisk<'a>(&'a File);

impl ReadAt for OpenDisk<'_> {
    fn read_at(&self, offset: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.0.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    }
}

/// Names joined for a sentence.
pub fn list(names: &BTreeSet<&'static str>) -> String {
    names.iter().copied().collect::<Vec<_>>().join(", ")
}

fn signatures_on(
    disk: &impl ReadAt,
    len: u64,
    partitions: &[Range<u64>],
) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    for volume in std::iter::once(&(0..len)).chain(partitions) {
        for signature in SIGNATURES {
            let bytes = signature
                .offset(volume.end - volume.start)
                .and_then(|offset| disk.read_at(volume.start + offset, signature.magic_len()));
            if bytes.is_some_and(|bytes| signature.is(&bytes)) {
                found.insert(signature.name);
            }
        }
    }
    found
}

fn write_zeros(device: &File, range: Range<u64>) -> io::Result<()> {
    let zeros = vec![0; usize::try_from(CHUNK).expect("a chunk fits into memory")];
    for chunk in chunks(range) {
        let len = usize::try_from(chunk.end - chunk.start).expect("a chunk fits into memory");
        device.write_all_at(&zeros[..len], chunk.start)?;
    }
    Ok(())
}

/// Zeroes a range by the device if it can (WRITE SAME, Write Zeroes); otherwise the kernel writes zeros.
fn offload_zeros(device: &File, range: Range<u64>) -> Result<(), Errno> {
    let start = i64::try_from(range.start).map_err(|_| Errno::EFBIG)?;
    let len = i64::try_from(range.end - range.start).map_err(|_| Errno::EFBIG)?;
    let flags = FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(device, flags, start, len)
}

fn chunks(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    std::iter::successors(Some(range.start), |start| Some(start + CHUNK))
        .take_while(move |start| *start < end)
        .map(move |start| start..end.min(start + CHUNK))
}

/// Samples of 4 KiB: the first and the last mebibyte, and 256 places between.
fn samples(len: u64) -> impl Iterator<Item = Range<u64>> {
    const EDGE: u64 = 1 << 20;
    const PLACES: u64 = 256;
    let edges = [0..EDGE.min(len), len.saturating_sub(EDGE)..len];
    let places = (0..PLACES).map(move |place| len / PLACES * place);
    edges.into_iter().chain(places.map(move |start| start..len.min(start + 4096)))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;
    use tempfile::NamedTempFile;

    use super::*;
    use crate::disks::present::named;

    const MIB: u64 = 1 << 20;

    #[test]
    fn nothing_recognisable_is_left_and_what_lies_between_stays() {
        let image = image(200 * MIB);
        let disk = named(image.path()).unwrap();
        for signature in SIGNATURES {
            if let Some(offset) = signature.offset(disk.len) {
                write(&image, offset, &vec![0xEE; signature.magic_len()]);
            }
        }
        write(&image, 0x438, b"\x53\xef");
        write(&image, 100 * MIB, b"data of the last owner");

        let there = disk.erase_metadata().unwrap();

        assert_eq!(list(&there), "ext");
        assert_eq!(read(&image, 100 * MIB, 22), b"data of the last owner");
        assert!(disk.erase_metadata().unwrap().is_empty());
    }

    #[test]
    fn signatures_inside_partitions_go_too() {
        let image = image(200 * MIB);
        partition(&image, 64 * MIB, 100 * MIB);
        write(&image, 64 * MIB, b"XFSB");
        write(&image, 164 * MIB - 8 * 1024, b"\xfc\x4e\x2b\xa9");

        let there = named(image.path()).unwrap().erase_metadata().unwrap();

        assert_eq!(list(&there), "dos, linux_raid_member, xfs");
        assert_eq!(read(&image, 64 * MIB, 4), [0; 4]);
        assert_eq!(read(&image, 164 * MIB - 8 * 1024, 4), [0; 4]);
    }

    #[test]
    fn a_whole_disk_becomes_zero() {
        let image = image(10 * MIB + 512);
        write(&image, 5 * MIB, b"data");
        write(&image, 10 * MIB, b"data");
        let mut progress = Vec::new();

        named(image.path()).unwrap().erase(|done| progress.push(done)).unwrap();

        assert!(read(&image, 0, 10 * 1024 * 1024 + 512).iter().all(|&byte| byte == 0));
        assert_eq!(progress.last(), Some(&(10 * MIB + 512)));
    }

    #[test]
    fn a_disk_smaller_than_any_signature_is_no_trouble() {
        for len in [0, 1, 511, 512, 4096] {
            let image = image(len);
            named(image.path()).unwrap().erase_metadata().unwrap();
        }
    }

    /// Real tools verify the table of signatures.
    #[test]
    fn what_real_tools_write_is_recognised_and_removed() {
        let tools: &[(&str, &[&str], &str)] = &[
            ("mkfs.ext4", &["-q", "-F"], "ext"),
            ("mkfs.xfs", &["-q", "-f"], "xfs"),
            ("mkfs.btrfs", &["-q", "-f"], "btrfs"),
            ("mkfs.vfat", &["-F", "32"], "vfat"),
            ("mkswap", &[], "swap"),
            ("sgdisk", &["--new=1:2048:4096"], "gpt"),
        ];
        for (tool, arguments, name) in tools {
            let image = image(400 * MIB);
            let path = format!("{}:/sbin:/usr/sbin", std::env::var("PATH").unwrap_or_default());
            let run =
                Command::new(tool).args(*arguments).arg(image.path()).env("PATH", path).output();
            let output = run.unwrap_or_else(|error| {
                panic!("{tool}, which `scripts/install-dependencies` installs: {error}")
            });
            assert!(output.status.success(), "{tool}: {output:?}");

            let disk = named(image.path()).unwrap();
            let there = disk.erase_metadata().unwrap();

            assert!(there.contains(name), "{tool} left {there:?}");
            assert!(disk.erase_metadata().unwrap().is_empty(), "{tool}");
        }
    }

    proptest! {
        #[test]
        fn chunks_make_up_the_range(start in 0_u64..1 << 40, len in 0..4 * CHUNK) {
            let range = start..start + len;
            let mut next = range.start;
            for chunk in chunks(range.clone()) {
                prop_assert_eq!(chunk.start, next);
                prop_assert!(chunk.end > chunk.start && chunk.end - chunk.start <= CHUNK);
                next = chunk.end;
            }
            prop_assert_eq!(next, range.end);
        }

        #[test]
        fn samples_lie_on_the_disk(len in 0_u64..1 << 44) {
            for sample in samples(len) {
                prop_assert!(sample.start <= sample.end && sample.end <= len);
            }
        }
    }

    fn image(len: u64) -> NamedTempFile {
        let image = NamedTempFile::new().unwrap();
        image.as_file().set_len(len).unwrap();
        image
    }

    fn write(image: &NamedTempFile, at: u64, bytes: &[u8]) {
        image.as_file().write_all_at(bytes, at).unwrap();
    }

    fn read(image: &NamedTempFile, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        image.as_file().read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    /// An MBR with one partition.
    fn partition(image: &NamedTempFile, start: u64, len: u64) {
        let mut entry = [0; 16];
        entry[4] = 0x83;
        entry[8..12].copy_from_slice(&u32::try_from(start / 512).unwrap().to_le_bytes());
        entry[12..].copy_from_slice(&u32::try_from(len / 512).unwrap().to_le_bytes());
        write(image, 446, &entry);
        write(image, 510, &[0x55, 0xAA]);
    }
}
