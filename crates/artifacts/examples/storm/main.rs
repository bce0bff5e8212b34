//! A boot storm: many machines that fetch their images from one boot listener at once, for measurements.
//!
//! ```text
//! storm serve ADDRESS FILE MACHINES [FOLDER]
//! storm relay ADDRESS TARGET DELAY_MS LOSS_PERCENT own|nat
//! storm boot ADDRESS MACHINES own|nat [CA]
//! ```
//!
//! `serve` is the boot listener with the daemon's limits: FILE is the ISO image of each machine. With FOLDER it
//! speaks TLS, and writes its CA's certificate to FOLDER/ca.pem.
//!
//! `relay` stands for a network with delay and loss: each connection gets the round-trip time DELAY_MS, and a lost
//! segment stops it for TCP's retransmission time-out (200 ms, doubled at each further loss). With `nat` all its
//! connections come from one address.
//!
//! `boot` is the machines. Each sends HEAD and GET on one connection and reads with a receive window of 64 KiB, as
//! EDK2 before 2023-09. It prints, in ms: the time from the connection's begin to the first byte of the image (median, 99 %,
//! slowest), the longest time between two reads of any machine, and the time until the last machine is done.

mod machines;
mod relay;
mod serve;

use std::env;

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[tokio::main]
async fn main() -> Result<()> {
    let told: Vec<_> = env::args().skip(1).collect();
    let at = |index: usize| told.get(index).map(String::as_str).context("too few arguments");
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    match at(0)? {
        "serve" => {
            serve::serve(at(1)?, at(2)?, at(3)?.parse()?, told.get(4).map(AsRef::as_ref)).await
        }
        "relay" => {
            let path = relay::Path { delay_ms: at(3)?.parse()?, loss_percent: at(4)?.parse()? };
            relay::relay(at(1)?.parse()?, at(2)?.parse()?, path, at(5)? == "nat").await
        }
        "boot" => {
            let ca = told.get(4).map(AsRef::as_ref);
            machines::boot(at(1)?.parse()?, at(2)?.parse()?, at(3)? == "nat", ca).await
        }
        other => bail!("there is no `{other}`"),
    }
}
