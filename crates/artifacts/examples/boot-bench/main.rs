//! The boot listener alone, and clients of it, for measurements.
//!
//! ```text
//! boot-bench serve FOLDER PLAIN TLS CONNECTIONS MACHINES
//! boot-bench fetch CLIENT ADDRESS PATH CONNECTIONS SECONDS [CA]
//! boot-bench storm ADDRESS PATH MACHINES own|nat [CA]
//! boot-bench relay ADDRESS TARGET DELAY_MS LOSS_PERCENT own|nat
//! boot-bench idle CLIENT ADDRESS PATH CONNECTIONS SOURCES [CA]
//! boot-bench compose BOOT_SET ROUNDS
//! ```
//!
//! `serve` answers on the address PLAIN, and with TLS on the address TLS. Each file in FOLDER/files is the ISO image of a
//! node, whose ticket is the file's name (`/boot/FILE/boot.iso`). Composed of the boot set in FOLDER/boot-set, if there is
//! one, are the UKI of the node `uki` and of MACHINES nodes `m0`, `m1` and so on (`/boot/m0/bootx64.efi`), and the ISO image of
//! the node `iso`.
//! FOLDER/server.pem and FOLDER/server.key are the certificate and its key. The trace is written to FOLDER/trace.db.
//! CONNECTIONS is the number of permitted connections; 0 stands for the daemon's limits.
//!
//! `fetch` prints JSON: the fetches and bytes in SECONDS, and the times to the first byte of a body in ms, from the
//! connection on. CLIENT is `edk2` (for each fetch a connection, with HEAD, then GET in reads of 1500 bytes) or `ranges`
//! (64 KiB at a time, as a BMC reads virtual media). In PATH `{n}` is the number of the connection.
//!
//! `storm` is machines that start together, each with HEAD and GET on one connection and a receive window of 64 KiB, as EDK2 before
//! 2023-09; `own`: each from an address of its own, `nat`: all from one. It prints JSON, in ms: the time from the connection's begin to
//! the first byte of a body, the longest time between two reads of any machine, and the time until the first and the last
//! machine are done.
//!
//! `relay` stands for a network with delay and loss: each connection gets the round-trip time DELAY_MS, and a lost segment stops
//! it for TCP's retransmission time-out (200 ms, doubled at each further loss). With `nat` all its connections come from one
//! address.
//!
//! `idle` holds connections until its input ends: CLIENT is `silent`, `half` (half of a request, or with a CA of a
//! handshake) or `used` (one fetch before). SOURCES is the number of addresses that they come from. Once they are there it
//! prints their number.
//!
//! `compose` prints JSON: the time to prepare a node's image, unsigned and signed, in ms.

mod compose;
mod connect;
mod fetch;
mod idle;
mod relay;
mod serve;
mod storm;

use std::env;
use std::io::{self, Write as _};

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let at = |index: usize| arguments.get(index).map(String::as_str).context("too few arguments");
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    match at(0)? {
        "serve" => {
            let (connections, machines) = (at(4)?.parse()?, at(5)?.parse()?);
            serve::serve(at(1)?.as_ref(), at(2)?, at(3)?, connections, machines).await
        }
        "fetch" => {
            let target = connect::Target::new(at(2)?, at(3)?, arguments.get(6).map(AsRef::as_ref))?;
            say(&fetch::fetch(at(1)?, target, at(4)?.parse()?, at(5)?.parse()?).await?)
        }
        "storm" => {
            let target = connect::Target::new(at(1)?, at(2)?, arguments.get(5).map(AsRef::as_ref))?;
            say(&storm::storm(target, at(3)?.parse()?, at(4)? == "own").await?)
        }
        "relay" => {
            let (delay_ms, loss_percent) = (at(3)?.parse()?, at(4)?.parse()?);
            let path = relay::NetworkPath { delay_ms, loss_percent };
            relay::relay(at(1)?.parse()?, at(2)?.parse()?, path, at(5)? == "nat").await
        }
        "idle" => {
            let target = connect::Target::new(at(2)?, at(3)?, arguments.get(6).map(AsRef::as_ref))?;
            idle::idle(at(1)?, &target, at(4)?.parse()?, at(5)?.parse()?).await
        }
        "compose" => say(&compose::compose(at(1)?.as_ref(), at(2)?.parse()?).await?),
        other => bail!("there is no `{other}`"),
    }
}

fn say(what: &Value) -> Result<()> {
    writeln!(io::stdout(), "{what}").context("cannot print")
}
