//! Shared file systems, which several machines use at the same time on a disk of a storage network.
//!
//! Erasing one destroys it for all of them. ironic-python-agent guards them (`guard_special_filesystems`), and so
//! does this agent.

use super::partitions::{self, PartitionType, ReadAt};
use super::signatures::SIGNATURES;

/// 37AFFC90-EF7D-4E96-91C3-2D7AE055B174
const GPFS: PartitionType =
    PartitionType::Gpt(*b"\x90\xfc\xaf\x37\x7d\xef\x96\x4e\x91\xc3\x2d\x7a\xe0\x55\xb1\x74");

/// AA31E02A-400F-11DB-9590-000C2911D1B8
const VMFS: PartitionType =
    PartitionType::Gpt(*b"\x2a\xe0\x31\xaa\x0f\x40\xdb\x11\x95\x90\x00\x0c\x29\x11\xd1\xb8");

const VMFS_MBR: PartitionType = PartitionType::Mbr(0xFB);

/// The first shared file system on a disk of `len` bytes, with blocks of `block` bytes.
pub(super) fn find(disk: &(impl ReadAt + ?Sized), len: u64, block: u64) -> Option<&'static str> {
    let partitions = partitions::partitions(disk, len, block);
    let by_kind = partitions.iter().find_map(|partition| match partition.kind {
        GPFS => Some("IBM GPFS"),
        VMFS | VMFS_MBR => Some("VMware VMFS"),
        PartitionType::Gpt(_) | PartitionType::Mbr(_) => None,
    });
    let mut starts = std::iter::once(0).chain(partitions.iter().map(|it| it.range.start));
    by_kind.or_else(|| starts.any(|start| is_gfs2(disk, start)).then_some("Red Hat GFS2"))
}

fn is_gfs2(disk: &(impl ReadAt + ?Sized), start: u64) -> bool {
    SIGNATURES.iter().filter(|signature| signature.name == "gfs2").any(|signature| {
        let offset = signature.offset(u64::MAX).and_then(|offset| start.checked_add(offset));
        let bytes = offset.and_then(|offset| disk.read_at(offset, signature.magic_len()));
        bytes.is_some_and(|bytes| signature.is(&bytes))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 1 << 20;

    #[test]
    fn a_shared_file_system_is_seen_by_its_partition_or_its_magic() {
        let empty = vec![0; 1 << 20];
        assert_eq!(find(&empty[..], LEN, 512), None);

        let mut vmfs = empty.clone();
        vmfs[510..512].copy_from_slice(&[0x55, 0xAA]);
        vmfs[450] = 0xFB;
        vmfs[454..458].copy_from_slice(&64_u32.to_le_bytes());
        vmfs[458..462].copy_from_slice(&64_u32.to_le_bytes());
        assert_eq!(find(&vmfs[..], LEN, 512), Some("VMware VMFS"));

        let mut gfs2 = empty;
        gfs2[64 << 10..][..4].copy_from_slice(&[1, 0x16, 0x19, 0x70]);
        assert_eq!(find(&gfs2[..], LEN, 512), Some("Red Hat GFS2"));
    }
}
