//! What the subcommands share that run until they are told to end.

use std::io::{IsTerminal as _, stderr};
use std::process;

use anyhow::{Context as _, Result};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

/// Logs to standard error, as `RUST_LOG` says, and from `info` on if it says nothing.
pub fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr)
        .init();
}

/// A runtime, with TLS made ready.
///
/// # Errors
/// When the system gives no threads.
pub fn runtime() -> Result<Runtime> {
    // The first to be installed stays; which is ring in any case.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Runtime::new().context("cannot start")
}

/// Waits for SIGINT or SIGTERM. A second one ends the process at once, with whatever it does.
///
/// # Errors
/// When the signals cannot be taken.
pub fn told_to_end() -> Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM"),
            _ = interrupt.recv() => info!("SIGINT"),
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            error!("told to end a second time: ending at once");
            process::exit(1);
        });
    })
}
