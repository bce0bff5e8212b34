//! Repository tasks: `cargo xtask layers`.

mod layers;

use std::env;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    match env::args().nth(1).as_deref() {
        Some("layers") => layers::check(),
        Some(other) => bail!("there is no task {other:?}; there is: layers"),
        None => bail!("name a task: layers"),
    }
}
