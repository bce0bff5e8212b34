//! What the subcommands share that run until they are told to end.

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

/// Logs to standard error, as `RUST_LOG` says, and from `info` on if it says nothing.
pub fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(stderr().is_terminal())
        .fmt_fields(printable_fields())
        .with_writer(stderr)
        // It would be said to the same standard error, and end the thread if that is gone.
        .log_internal_errors(false)
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

/// Waits for SIGINT or SIGTERM, or for the end of the terminal that this was started from. A second one ends the
/// process at once, with whatever it does. SIGHUP, SIGUSR1 and SIGUSR2 are left to each service.
///
/// # Errors
/// When the signals cannot be taken.
pub fn told_to_end() -> Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let hangup = signal(SignalKind::hangup())?;
    let had_terminal = has_terminal();
    let (told, end) = oneshot::channel();
    // A task of its own, since signals also come while nobody waits for the first one yet.
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM"),
            _ = interrupt.recv() => info!("SIGINT"),
            () = terminal_ended(hangup), if had_terminal => info!("SIGHUP: the terminal is gone"),
        }
        // Whoever waited for it may have ended.
        let _ = told.send(());
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        error!("told to end a second time: ending at once");
        process::exit(1);
    });
    Ok(end.map(drop))
}

/// Says of signals that would end a program that they mean nothing to this one.
///
/// # Errors
/// When the signals cannot be taken.
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
                info!("{name} means nothing to this service, which goes on; SIGTERM ends it");
            }
        });
    }
    Ok(())
}

/// SIGHUP is sent by hand, too.
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
