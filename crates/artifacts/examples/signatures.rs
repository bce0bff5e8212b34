//! Prints the time of a signature by the key of `sign_key`: a file, or the URI of a key in a token.
#![expect(clippy::print_stdout, reason = "the figures")]

use std::env;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use artifacts::{SignKey, SigningKey};

const COUNT: u32 = 1000;

fn main() -> Result<()> {
    let key = env::args().nth(1).context("usage: signatures KEY")?;
    let key = SigningKey::open(&key.parse::<SignKey>()?)?;
    let mut times = Vec::new();
    for number in 0..COUNT {
        let began = Instant::now();
        key.sign(&number.to_be_bytes())?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let mean = times.iter().sum::<Duration>() / COUNT;
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{COUNT} signatures: {mean:?} each, median {median:?}, slowest {slowest:?}");
    Ok(())
}
