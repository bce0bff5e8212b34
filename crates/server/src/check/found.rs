//! The result of a check.

use anyhow::Result;

/// A checked item, and the result or the error.
pub type Found = (String, Result<String>);
