//! The ramdisk agent, init of its ramdisk.
