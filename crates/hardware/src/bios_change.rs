//! Changes of BIOS attributes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A change of a BIOS attribute.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BiosChange {
    /// The attribute.
    pub attribute: String,
    /// The value that is shown before, as text.
    pub from: String,
    /// The new value, as text.
    pub to: String,
}

impl fmt::Display for BiosChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {} to {}", self.attribute, self.from, self.to)
    }
}
