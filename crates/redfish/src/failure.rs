//! The failures of requests to a BMC, in an operator's words.

use hardware::RedfishPurpose;
use http::StatusCode;
use thiserror::Error;

/// The failure of a request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BmcFailure {
    /// The BMC refused.
    #[error("BMC answered {status} to the {purpose}{}{}", colon(message), advice(*status, ids))]
    Refused {
        /// The purpose of the request.
        purpose: RedfishPurpose,
        /// The status code.
        status: StatusCode,
        /// The BMC's error message, if any.
        message: String,
        /// The identifiers of its messages, such as `Base.1.8.PropertyNotWritable`.
        ids: Vec<String>,
    },
    /// The answer was missing or unusable.
    #[error("no usable answer from the BMC to the {purpose}: {message}")]
    NoAnswer {
        /// The purpose of the request.
        purpose: RedfishPurpose,
        /// The transport's error.
        message: String,
        /// Whether the BMC may have carried the request out.
        may_be_done: bool,
    },
    /// The BMC's task failed.
    #[error("the BMC's task for the {purpose} ended as {state}{}", colon(message))]
    TaskFailed {
        /// The purpose of the request.
        purpose: RedfishPurpose,
        /// `TaskState`.
        state: String,
        /// The task's messages, if any.
        message: String,
    },
}

impl BmcFailure {
    /// The status code, if the BMC answered.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(status.as_u16()),
            Self::NoAnswer { .. } | Self::TaskFailed { .. } => None,
        }
    }

    /// The error message of the BMC or the transport.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Refused { message, .. }
            | Self::NoAnswer { message, .. }
            | Self::TaskFailed { message, .. } => message,
        }
    }

    /// Whether the BMC refused with a message of this name, of any registry and version.
    #[must_use]
    pub fn has_message(&self, name: &str) -> bool {
        let Self::Refused { ids, .. } = self else { return false };
        has_name(ids, name)
    }

    /// Whether the BMC may have carried the request out all the same: its answer is lost, or it is that of a part
    /// which does not know what became of it.
    #[must_use]
    pub fn may_be_done(&self) -> bool {
        match self {
            Self::NoAnswer { may_be_done, .. } => *may_be_done,
            Self::Refused { status, .. } => says_nothing_of_the_request(*status),
            Self::TaskFailed { .. } => false,
        }
    }
}

pub(crate) fn colon(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// Whether the request may have been carried out, or not: 500, and what gateways answer while the BMC is at work.
pub(crate) fn says_nothing_of_the_request(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::INTERNAL_SERVER_ERROR | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT
    )
}

fn has_name(ids: &[String], name: &str) -> bool {
    ids.iter().any(|id| id.rsplit('.').next() == Some(name))
}

fn advice(status: StatusCode, ids: &[String]) -> &'static str {
    match status {
        _ if has_name(ids, "PasswordChangeRequired") => {
            " (the BMC refuses everything until the password of this user is changed, as for a user with the \
             password as delivered: change it there, then set redfish_password)"
        }
        StatusCode::UNAUTHORIZED => {
            " (redfish_username or redfish_password is wrong, or redfish_auth_type is not allowed)"
        }
        StatusCode::FORBIDDEN => " (the user may not do this)",
        _ => "",
    }
}
