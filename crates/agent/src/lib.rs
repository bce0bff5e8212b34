//! The ramdisk agent, init of its ramdisk.

pub mod cmdline;
pub mod commands;
pub mod disks;
pub mod mac;
pub mod modules;
