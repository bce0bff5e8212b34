//! Shared code of the subcommands that run until a signal.

use std::fs::File;
use std::io::{IsTerminal as _, stderr};
use std::process;

use agent::lines::printable_fields;
use anyhow::{Context as _, Result};
use futures::FutureExt as _;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

/// Logs to standard error, with the filter in `RUST_LOG`, by default from `info` on.
pub fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(stderr().is_terminal())
        .fmt_fields(printable_fields())
        .with_writer(stderr)
        // An internal error would go to the same standard error, and end the thread if that is closed.
        .log_internal_errors(false)
        .init();
}

/// A runtime, with the TLS provider installed.
///
/// # Errors
/// The system has no threads left.
pub fn runtime() -> Result<Runtime> {
    // The first provider to be installed stays; it is ring in any case.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Runtime::new().context("cannot start")
}

/// Waits for SIGINT, SIGTERM, or the end of the controlling terminal. A second signal ends the process at once.
/// SIGHUP, SIGUSR1 and SIGUSR2 are left to each service.
///
/// # Errors
/// The handlers cannot be installed.
pub fn end_signal() -> Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let hangup = signal(SignalKind::hangup())?;
    let had_terminal = has_terminal();
    let (told, end) = oneshot::channel();
    // A separate task, since signals may arrive before anybody waits for the first one.
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM"),
            _ = interrupt.recv() => info!("SIGINT"),
            () = terminal_ended(hangup), if had_terminal => info!("SIGHUP: the terminal is gone"),
        }
        // The receiver may have ended.
        let _ = told.send(());
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        error!("second signal to end: ending at once");
        process::exit(1);
    });
    Ok(end.map(drop))
}

/// Logs signals that would end a program but have no meaning here.
///
/// # Errors
/// The handlers cannot be installed.
pub fn hear_other_signals() -> Result<()> {
    let others = [
        ("SIGHUP", SignalKind::hangup()),
        ("SIGUSR1", SignalKind::user_defined1()),
        ("SIGUSR2", SignalKind::user_defined2()),
    ];
    for (name, kind) in others {
        let mut heard = signal(kind)?;
        tokio::spawn(async move {
            while heard.recv().await.is_some() {
                info!("{name} is ignored; SIGTERM ends the service");
            }
        });
    }
    Ok(())
}

/// Waits for the end of the terminal. SIGHUP alone is not enough, since it is also sent by hand.
async fn terminal_ended(mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        if !has_terminal() {
            return;
        }
    }
}

/// Whether there is a controlling terminal (`tty(4)`).
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}
