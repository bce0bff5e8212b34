//! Progress output on standard error: a line per step, and a bar for the long one.

use std::io::{Read, Write};
use std::time::Instant;

use anyhow::{Context, Result};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// Runs `work` and prints its name and, if it took noticeably long, its duration.
///
/// # Errors
///
/// The errors of `work`.
pub(super) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("{what} ...");
    let started = Instant::now();
    let done = work()?;
    let seconds = started.elapsed().as_secs_f32();
    if seconds > 1.0 {
        eprintln!("{what}: {seconds:.1} s");
    }
    Ok(done)
}

/// Compresses the ramdisk in a form that the kernel can unpack (CONFIG_RD_ZSTD, a window of at most 128 MiB).
///
/// # Errors
///
/// zstd runs out of memory.
pub(super) fn compress(cpio: &[u8], level: i32) -> Result<Vec<u8>> {
    const CHUNK: usize = 1 << 20;
    let total = cpio.len() as u64;

    let compressed = step(&format!("compressing {} of ramdisk", HumanBytes(total)), || {
        let bar = ProgressBar::new(total).with_style(
            ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes}, {eta} left")
                .expect("the template is constant and valid"),
        );
        let mut encoder = zstd::Encoder::new(Vec::new(), level).context("cannot start zstd")?;
        encoder.set_pledged_src_size(Some(total)).context("cannot set up zstd")?;
        encoder.include_checksum(true).context("cannot set up zstd")?;
        let mut input = bar.wrap_read(cpio);
        let mut chunk = vec![0; CHUNK];
        loop {
            let len = input.read(&mut chunk).context("cannot read the ramdisk")?;
            if len == 0 {
                break;
            }
            encoder.write_all(&chunk[..len]).context("cannot compress the ramdisk")?;
        }
        bar.finish_and_clear();
        encoder.finish().context("cannot compress the ramdisk")
    })?;
    eprintln!("ramdisk: {}", HumanBytes(compressed.len() as u64));
    Ok(compressed)
}
