//! What a BMC shows of a boot, beside its answers to the boot's own requests.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something that a BMC shows of a boot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "shows")]
pub enum BmcObservation {
    /// The boot, otherwise than it was set, without harm.
    ReadBack {
        /// The difference, in a sentence.
        warning: String,
    },
}

impl BmcObservation {
    /// The texts of the BMC.
    pub fn texts(&mut self) -> impl Iterator<Item = &mut String> {
        match self {
            Self::ReadBack { warning } => [warning].into_iter(),
        }
    }
}

impl fmt::Display for BmcObservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReadBack { warning } => f.write_str(warning),
        }
    }
}
