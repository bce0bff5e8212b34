//! The regions to overwrite, so that no format is recognized on a disk any more.
//!
//! The plan has whole regions rather than single signatures: the start and the end of the disk and of each partition,
//! where all formats keep their metadata, and the few copies elsewhere. Zeroing some megabytes more costs less than
//! an error about one format.

use std::ops::Range;

/// From the start of a disk or partition: beyond LUKS2's last header (4 MiB) and VMFS's (2 MiB).
const HEAD: u64 = 8 << 20;

/// To the end of a disk or partition: ZFS's labels need 768 KiB at most, DDF's work space 1 MiB.
const TAIL: u64 = 2 << 20;

/// Copies of btrfs' superblock (btrfs-progs, `btrfs_sb_offset`).
const BTRFS_COPIES: [u64; 2] = [64 << 20, 256 << 30];

const BTRFS_COPY_LEN: u64 = 4096;

/// The byte ranges to zero on a disk of `len` bytes: sorted, disjoint, within the disk.
pub(super) fn regions(len: u64, partitions: &[Range<u64>]) -> Vec<Range<u64>> {
    let whole = 0..len;
    let mut regions: Vec<_> = std::iter::once(&whole)
        .chain(partitions)
        .map(|volume| volume.start.min(len)..volume.end.min(len))
        .flat_map(volume)
        .filter(|range| range.start < range.end)
        .collect();
    regions.sort_by_key(|range| range.start);

    let mut merged: Vec<Range<u64>> = Vec::new();
    for region in regions {
        match merged.last_mut() {
            Some(last) if region.start <= last.end => last.end = last.end.max(region.end),
            _ => merged.push(region),
        }
    }
    merged
}

fn volume(volume: Range<u64>) -> Vec<Range<u64>> {
    let Range { start, end } = volume;
    let within = |from: u64, len: u64| from.min(end)..from.saturating_add(len).min(end);
    let mut regions = vec![within(start, HEAD), end.saturating_sub(TAIL).max(start)..end];
    for copy in BTRFS_COPIES {
        regions.push(within(start.saturating_add(copy), BTRFS_COPY_LEN));
    }
    regions
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::signatures::SIGNATURES;
    use super::*;

    proptest! {
        #[test]
        fn every_signature_lies_where_zeros_will_be(
            len in prop_oneof![0_u64..1 << 24, 0_u64..1 << 42],
            partitions in prop::collection::vec((0_u64..1 << 40, 0_u64..1 << 40), 0..4),
        ) {
            let partitions: Vec<_> = partitions
                .into_iter()
                .map(|(start, count)| start.min(len)..start.saturating_add(count).min(len))
                .collect();
            let regions = regions(len, &partitions);

            for volume in std::iter::once(&(0..len)).chain(&partitions) {
                let volume_len = volume.end - volume.start;
                for signature in SIGNATURES {
                    let Some(offset) = signature.offset(volume_len) else { continue };
                    let first = volume.start + offset;
                    let last = first + signature.magic_len() as u64 - 1;
                    let covered = |at| regions.iter().any(|region| region.contains(&at));
                    prop_assert!(covered(first) && covered(last), "{} at {offset}", signature.name);
                }
            }
        }

        #[test]
        fn regions_are_sorted_apart_and_within_the_disk(
            len in 0_u64..1 << 42,
            partitions in prop::collection::vec((any::<u64>(), any::<u64>()), 0..4),
        ) {
            let partitions: Vec<_> = partitions.into_iter().map(|(start, end)| start..end).collect();
            let regions = regions(len, &partitions);

            prop_assert!(regions.iter().all(|region| region.start < region.end && region.end <= len));
            prop_assert!(regions.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
