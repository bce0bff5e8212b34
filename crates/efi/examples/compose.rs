//! Measures the preparation of a node's ISO image from a boot set: layout, tables, digests, everything except
//! sending.
//!
//! ```text
//! compose target/ramdisk
//! ```

#![expect(clippy::disallowed_methods, reason = "this measures; the crate itself decides")]

use std::path::PathBuf;
use std::time::Instant;
use std::{env, fs, hint};

use efi::{ComposedImage, SharedFile, UkiParts, UkiStub, esp, iso, uki};

const ROUNDS: u32 = 1_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder: PathBuf = env::args().nth(1).ok_or("no boot set")?.into();
    let source = |name: &str| -> Result<SharedFile, std::io::Error> {
        let len = fs::metadata(folder.join(name))?.len();
        Ok(SharedFile { name: name.into(), len, sha256: [0; 32] })
    };
    let stub = UkiStub::parse(source("stub.efi")?, &fs::read(folder.join("stub.efi"))?)?;
    let (kernel, initramfs) = (source("kernel")?, source("initramfs")?);
    let compose = |round: u32| -> Result<ComposedImage, Box<dyn std::error::Error>> {
        let parts = UkiParts {
            os_release: "ID=ferroboot\n",
            uname: "6.1",
            kernel: &kernel,
            initramfs: &initramfs,
            seed: b"",
            command_line: &format!(
                "ipa-api-url=http://192.0.2.1:6386 ipa-agent-token={round:0>43}"
            ),
        };
        Ok(iso(&esp(uki(&stub, &parts)?.image(), stub.machine())?)?)
    };
    let mut times = Vec::new();
    let mut bytes = 0;
    for round in 0..ROUNDS {
        let began = Instant::now();
        let image = hint::black_box(compose(round)?);
        hint::black_box(image.etag());
        times.push(began.elapsed());
        bytes = image.len();
    }
    times.sort();
    let of = |part: usize| times[times.len() * part / 100].as_micros();
    eprintln!("an ISO image of {bytes} bytes: median {} µs, 99 % below {} µs", of(50), of(99));
    Ok(())
}
