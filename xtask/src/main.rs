//! Repository tasks: checks that neither the compiler nor clippy performs.
#![expect(clippy::print_stdout, reason = "it prints figures")]
#![expect(clippy::wildcard_enum_match_arm, reason = "syn may add to its enums")]

mod circles;
mod dependencies;
mod figures;
#[cfg(test)]
mod fixture;
mod layers;
mod linked;
mod names;
mod snapshots;
mod sources;
mod workspace;

use std::env;
use std::path::Path;

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in no folder")?;
    let arguments: Vec<_> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check"] => {
            layers::check(root)?;
            dependencies::check(root)?;
            linked::check(root)?;
            figures::check(root)?;
            names::check(root)?;
            snapshots::check(root)
        }
        ["snapshots"] => snapshots::check(root),
        ["layers"] => layers::check(root),
        ["dependencies"] => dependencies::check(root),
        ["linked"] => linked::check(root),
        ["figures"] => figures::check(root),
        ["names"] => names::check(root),
        ["names", "--write"] => names::write(root),
        _ => bail!(
            "there are check (all of these), layers, dependencies, linked, figures, names, names --write and snapshots"
        ),
    }
}
