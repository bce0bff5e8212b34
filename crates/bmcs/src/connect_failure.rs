//! Why there is no connection to a BMC.

use std::error::Error;

use thiserror::Error;

/// The reason why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ConnectFailure {
    /// Another attempt may succeed.
    #[error("{0}")]
    Unreachable(String),
    /// Another attempt would end in the same way.
    #[error("{0}")]
    Unusable(String),
}

/// The innermost cause of a failure.
pub(crate) fn innermost<'e>(mut error: &'e (dyn Error + 'static)) -> &'e (dyn Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}
