//! The ramdisk agent, and the init of its ramdisk.

pub mod action;
pub mod agent;
pub mod api;
pub mod channel;
pub mod clean;
pub mod clock;
pub mod cmdline;
pub mod commands;
pub mod console;
pub mod disks;
pub mod effects;
pub mod hotplug;
pub mod identity;
pub mod init;
pub mod lines;
pub mod listen;
pub mod modules;
pub mod network;
pub mod ramdisk;
pub mod system_logs;

use anyhow::{Context, Result};

/// Runs `work` on a new runtime.
///
/// # Errors
///
/// The errors of `work`, or the system has no threads left.
pub fn start<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    // reqwest is built without a crypto provider; a second call finds the first one's.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("starting the runtime")?.block_on(work)
}
