//! Partition tables, as far as needed for erasing: the ranges of partitions.
//!
//! GPT (UEFI specification §5.3; also the backup, for a disk whose first table was overwritten), and MBR with its
//! chain of logical partitions. Checks that matter only for using a partition are left out.

use std::collections::BTreeSet;
use std::ops::Range;

/// Largest number of partitions; a damaged table may claim more.
const MAX: usize = 1024;

/// Random access to a disk.
pub trait ReadAt {
    /// `len` bytes from `offset`; `None` behind the disk's end or after an error.
    fn read_at(&self, offset: u64, len: usize) -> Option<Vec<u8>>;
}

impl ReadAt for [u8] {
    fn read_at(&self, offset: u64, len: usize) -> Option<Vec<u8>> {
        let start = usize::try_from(offset).ok()?;
        Some(self.get(start..start.checked_add(len)?)?.to_vec())
    }
}

/// A partition in its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The byte range, limited to the disk.
    pub range: Range<u64>,
    /// The partition type.
    pub kind: PartitionType,
}

/// The partition type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartitionType {
    /// The type GUID, in the disk's byte order.
    Gpt([u8; 16]),
    /// The type byte.
    Mbr(u8),
}

/// First block, number of blocks and kind.
type PartitionEntry = (u64, u64, PartitionType);

/// The partitions of a disk of `len` bytes, with blocks of `block` bytes.
pub fn partitions(disk: &(impl ReadAt + ?Sized), len: u64, block: u64) -> Vec<Partition> {
    let mut found = BTreeSet::new();
    let blocks = len.checked_div(block).unwrap_or(0);
    for header in [Some(1), blocks.checked_sub(1)].into_iter().flatten() {
        found.extend(gpt(disk, header, block).unwrap_or_default());
    }
    found.extend(mbr(disk, block));

    let inside = |(first, count, kind): PartitionEntry| {
        let start = first.checked_mul(block)?;
        let end = start.checked_add(count.checked_mul(block)?)?.min(len);
        (start > 0 && start < end).then_some(Partition { range: start..end, kind })
    };
    found.into_iter().filter_map(inside).take(MAX).collect()
}

/// The entries of the table with its header in block `header`.
fn gpt(disk: &(impl ReadAt + ?Sized), header: u64, block: u64) -> Option<Vec<PartitionEntry>> {
    let header = disk.read_at(header.checked_mul(block)?, 92)?;
    if !header.starts_with(b"EFI PART") {
        return None;
    }
    let entries = u64_at(&header, 72)?;
    let count = usize::try_from(u32_at(&header, 80)?).ok()?.min(MAX);
    let size = usize::try_from(u32_at(&header, 84)?).ok()?.clamp(128, 4096);
    let table = disk.read_at(entries.checked_mul(block)?, count * size)?;

    let used = table.chunks_exact(size).filter(|entry| entry[..16] != [0; 16]);
    Some(
        used.filter_map(|entry| {
            let kind = PartitionType::Gpt(entry[..16].try_into().ok()?);
            let (first, last) = (u64_at(entry, 32)?, u64_at(entry, 40)?);
            Some((first, last.checked_sub(first)?.checked_add(1)?, kind))
        })
        .collect(),
    )
}

/// Primary and logical partitions.
fn mbr(disk: &(impl ReadAt + ?Sized), block: u64) -> Vec<PartitionEntry> {
    const EXTENDED: [u8; 3] = [0x05, 0x0F, 0x85];

    let mut found = Vec::new();
    let mut extended = None;
    for (kind, first, count) in mbr_entries(disk, 0) {
        if EXTENDED.contains(&kind) {
            extended = Some(first);
        }
        found.push((first, count, PartitionType::Mbr(kind)));
    }
    let Some(extended) = extended else { return found };

    // Each link has one partition relative to itself, and the next link relative to the first.
    let mut link = extended;
    let mut seen = BTreeSet::new();
    while seen.len() < MAX && seen.insert(link) {
        let Some(offset) = link.checked_mul(block) else { break };
        let mut next = None;
        for (kind, first, count) in mbr_entries(disk, offset) {
            if EXTENDED.contains(&kind) {
                next = extended.checked_add(first);
            } else if let Some(first) = link.checked_add(first) {
                found.push((first, count, PartitionType::Mbr(kind)));
            }
        }
        match next {
            Some(next) => link = next,
            None => break,
        }
    }
    found
}

fn mbr_entries(disk: &(impl ReadAt + ?Sized), offset: u64) -> Vec<(u8, u64, u64)> {
    let sector = disk.read_at(offset, 512).unwrap_or_default();
    if sector.get(510..) != Some(&[0x55, 0xAA]) {
        return Vec::new();
    }
    let entry = |entry: &[u8]| {
        let (first, count) = (u32_at(entry, 8)?, u32_at(entry, 12)?);
        (entry[4] != 0 && count > 0).then_some((entry[4], first.into(), count.into()))
    };
    sector[446..510].chunks_exact(16).filter_map(entry).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEN: u64 = 1 << 20;

    #[test]
    fn primary_and_logical_partitions_are_found() {
        let mut disk = vec![0; 1 << 20];
        sector(&mut disk, 0, &[(0x83, 64, 10), (0x05, 100, 500)]);
        sector(&mut disk, 100, &[(0x83, 8, 20), (0x05, 200, 50)]);
        sector(&mut disk, 300, &[(0x82, 8, 30)]);

        let found = partitions(&disk[..], LEN, 512);

        let blocks: Vec<_> =
            found.iter().map(|it| (it.range.start / 512, it.range.end / 512)).collect();
        assert_eq!(blocks, [(64, 74), (100, 600), (108, 128), (308, 338)]);
    }

    #[test]
    fn a_chain_that_bites_its_tail_ends() {
        let mut disk = vec![0; 1 << 20];
        sector(&mut disk, 0, &[(0x05, 100, 500)]);
        sector(&mut disk, 100, &[(0x05, 0, 50)]);

        assert_eq!(partitions(&disk[..], LEN, 512).len(), 1);
    }

    #[test]
    fn the_backup_table_alone_is_enough() {
        let mut disk = vec![0; 1 << 20];
        let header = disk.len() - 512;
        disk[header..header + 8].copy_from_slice(b"EFI PART");
        disk[header + 72..header + 80].copy_from_slice(&2000_u64.to_le_bytes());
        disk[header + 80..header + 84].copy_from_slice(&4_u32.to_le_bytes());
        disk[header + 84..header + 88].copy_from_slice(&128_u32.to_le_bytes());
        let entry = 2000 * 512;
        disk[entry] = 1;
        disk[entry + 32..entry + 40].copy_from_slice(&34_u64.to_le_bytes());
        disk[entry + 40..entry + 48].copy_from_slice(&99_u64.to_le_bytes());

        let found = partitions(&disk[..], LEN, 512);

        assert_eq!(found.len(), 1);
        assert_eq!(found[0].range, 34 * 512..100 * 512);
        assert_eq!(
            found[0].kind,
            PartitionType::Gpt([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        );
    }

    proptest! {
        #[test]
        fn a_damaged_table_gives_ranges_inside_the_disk(
            mut head in prop::collection::vec(any::<u8>(), 8192),
            signed: bool,
            block in prop::sample::select(vec![0_u64, 512, 4096]),
        ) {
            if signed {
                head[510..520].copy_from_slice(b"\x55\xaaEFI PART");
            }
            let len = head.len() as u64;
            for Partition { range, .. } in partitions(&head[..], len, block) {
                prop_assert!(range.start < range.end && range.end <= len);
            }
        }
    }

    fn sector(disk: &mut [u8], block: usize, entries: &[(u8, u32, u32)]) {
        let at = block * 512;
        disk[at + 510..at + 512].copy_from_slice(&[0x55, 0xAA]);
        for (entry, (kind, first, count)) in
            disk[at + 446..at + 510].chunks_exact_mut(16).zip(entries)
        {
            entry[4] = *kind;
            entry[8..12].copy_from_slice(&first.to_le_bytes());
            entry[12..16].copy_from_slice(&count.to_le_bytes());
        }
    }
}
