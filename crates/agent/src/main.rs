//! The init of the ramdisk.

fn main() {}
