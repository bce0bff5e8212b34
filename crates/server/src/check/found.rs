//! The result of a check.

use anyhow::Result;
use thiserror::Error;

/// A checked item, and the result or the error.
pub type Found = (String, Result<String>);

/// An error that only warns: the service works, and somebody must act later.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct CheckWarning(pub String);
