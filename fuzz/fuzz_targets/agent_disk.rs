//! Any bytes as a disk: partitions are within the disk, whatever its tables contain.

#![no_main]

use agent::disks::partitions::{Partition, partitions};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|disk: &[u8]| {
    let len = disk.len() as u64;
    for block in [0, 512, 4096] {
        for Partition { range, .. } in partitions(disk, len, block) {
            assert!(range.start < range.end && range.end <= len);
        }
    }
});
