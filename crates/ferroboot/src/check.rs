//! `ferroboot check`: what would go wrong if the service were started now.

use std::io::{Write as _, stdout};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::serve::Settings;
use crate::service::runtime;

/// Checks what `ferroboot serve` with the same arguments would need.
#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    settings: Settings,
}

impl Check {
    /// Prints one line per thing that was looked at.
    ///
    /// # Errors
    /// If any of them is not as it should be.
    pub fn run(self) -> Result<()> {
        let config = self.settings.config()?;
        let found = runtime()?.block_on(server::check::all(&config));
        let mut out = stdout();
        for (what, result) in &found {
            match result {
                Ok(good) => writeln!(out, "ok    {what}: {good}"),
                Err(problem) => writeln!(out, "WRONG {what}: {problem:#}"),
            }
            .context("cannot print")?;
        }
        let wrong = found.iter().filter(|(_, result)| result.is_err()).count();
        if wrong > 0 {
            bail!("{wrong} of {} things are not as they should be", found.len());
        }
        Ok(())
    }
}
