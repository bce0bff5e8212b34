//! Repository tasks: `cargo xtask layers`.

#[cfg(test)]
mod fixture;
mod layers;
mod workspace;

use std::env;
use std::path::Path;

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in no folder")?;
    match env::args().nth(1).as_deref() {
        Some("layers") => layers::check(root),
        Some(other) => bail!("there is no task {other:?}; there is: layers"),
        None => bail!("name a task: layers"),
    }
}
