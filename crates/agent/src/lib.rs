//! The ramdisk agent, init of its ramdisk.

pub mod modules;
