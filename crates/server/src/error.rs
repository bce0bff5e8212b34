//! Errors of the API: only this file maps them to a status and a body.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ironic::field::{BadBody, BadFields};
use ironic::guards::Forbidden;
use ironic::query::BadQuery;
use ironic::states::BadTarget;
use ironic::traits::BadTraits;
use ironic::version::BadVersion;
use provision::Refused;
use provision::addresses::ForeignLookup;
use provision::limits::Excess;
use redfish::failure::BmcFailure;
use redfish::machine::NotOneSystem;
use redfish::ways::{DeviceNotSet, SecureBootNotSet};
use store::{
    ChangeError, CreateNodeError, ListError, PortChangeError, PortError, StoreError,
    log_store_failure,
};
use transport::http_server::BodyError;

use crate::bmcs::BmcError;

/// Longest text of an error, in characters. The longest of the service's own lists all fields of a PATCH.
const MAX_WORDS: usize = 2_000;

/// The answer to a failed request.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    shape: ErrorShape,
}

#[derive(Debug)]
enum ErrorShape {
    /// The application refuses the request.
    Application(String),
    /// No route or version serves the request.
    Framework(String),
}

impl ApiError {
    /// 400, with `text`.
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self::application(StatusCode::BAD_REQUEST, text)
    }

    /// 403, with `text`.
    pub fn forbidden(text: impl Into<String>) -> Self {
        Self::application(StatusCode::FORBIDDEN, text)
    }

    /// 404, with `text`.
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::application(StatusCode::NOT_FOUND, text)
    }

    /// 404 without saying what is missing.
    #[must_use]
    pub fn nothing_here() -> Self {
        Self::not_found("Resource could not be found.")
    }

    /// 404 for a node, in Ironic's words.
    #[must_use]
    pub fn no_such_node(ident: &str) -> Self {
        Self::not_found(format!("Node {ident} could not be found."))
    }

    /// 404 for an endpoint of a later version.
    #[must_use]
    pub fn too_old(since: u16) -> Self {
        let text = format!("This endpoint is supported starting with the API version 1.{since}");
        Self::not_found(text)
    }

    /// 406: the resource exists, but not in the requested version.
    #[must_use]
    pub fn not_acceptable() -> Self {
        Self::application(StatusCode::NOT_ACCEPTABLE, "Request not acceptable.")
    }

    /// 409, with `text`.
    pub fn conflict(text: impl Into<String>) -> Self {
        Self::application(StatusCode::CONFLICT, text)
    }

    /// 404 or 405 for a path or method without a route.
    #[must_use]
    pub fn no_route(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, shape: ErrorShape::Framework(text.into()) }
    }

    /// The message of another error type, with `status`; shortened where it quotes the request at length.
    pub fn application(status: StatusCode, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if let Some((end, _)) = text.char_indices().nth(MAX_WORDS) {
            text.truncate(end);
            text.push('…');
        }
        Self { status, shape: ErrorShape::Application(text) }
    }

    /// 429, with `text`.
    pub fn too_many(text: impl Into<String>) -> Self {
        Self::application(StatusCode::TOO_MANY_REQUESTS, text)
    }

    /// The text, for logs and traces.
    #[must_use]
    pub fn text(&self) -> &str {
        match &self.shape {
            ErrorShape::Application(text) | ErrorShape::Framework(text) => text,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let code = self.status.as_u16();
        let body = match self.shape {
            ErrorShape::Application(text) => ironic::error::application(code, &text),
            ErrorShape::Framework(description) => {
                let title = self.status.canonical_reason().unwrap_or_default();
                ironic::error::framework(code, title, &description)
            }
        };
        (self.status, Json(body)).into_response()
    }
}

impl From<BadVersion> for ApiError {
    fn from(bad: BadVersion) -> Self {
        Self { status: StatusCode::NOT_ACCEPTABLE, shape: ErrorShape::Framework(bad.to_string()) }
    }
}

impl From<&BodyError> for ApiError {
    fn from(error: &BodyError) -> Self {
        let status = match error {
            BodyError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            BodyError::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
            BodyError::Broken(_) => StatusCode::BAD_REQUEST,
        };
        Self::application(status, sentence(&error.to_string()))
    }
}

impl From<BadFields> for ApiError {
    fn from(bad: BadFields) -> Self {
        match bad {
            BadFields::Unknown(_) => Self::bad_request(bad.to_string()),
            BadFields::Newer => Self::not_acceptable(),
        }
    }
}

impl From<BadQuery> for ApiError {
    fn from(bad: BadQuery) -> Self {
        match bad {
            BadQuery::Newer => Self::not_acceptable(),
            BadQuery::Unexpected(_) => Self::bad_request(bad.to_string()),
        }
    }
}

impl From<BadBody> for ApiError {
    fn from(bad: BadBody) -> Self {
        let status = match bad {
            BadBody::Newer => StatusCode::NOT_ACCEPTABLE,
            BadBody::InTransition(_) => StatusCode::CONFLICT,
            BadBody::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            BadBody::Forbidden(forbidden) => return forbidden.into(),
            BadBody::Schema { .. }
            | BadBody::NotAUuid { .. }
            | BadBody::NotAMac { .. }
            | BadBody::NotABoolean { .. }
            | BadBody::BadName(_)
            | BadBody::BadNewName { .. }
            | BadBody::Reserved(_)
            | BadBody::NoSuchPortgroup(_)
            | BadBody::NotASwitch(_)
            | BadBody::NetworkData(_)
            | BadBody::SmartNicWithoutLink
            | BadBody::Empty(_)
            | BadBody::NoSuchDriver { .. }
            | BadBody::NoSuchInterface { .. }
            | BadBody::NoSuchChassis(_)
            | BadBody::NoSuchNode(_)
            | BadBody::NotPatchable { .. }
            | BadBody::CannotApply { .. } => StatusCode::BAD_REQUEST,
        };
        Self::application(status, bad.to_string())
    }
}

impl From<Forbidden> for ApiError {
    fn from(forbidden: Forbidden) -> Self {
        let status = match forbidden {
            Forbidden::Protected(_) => StatusCode::FORBIDDEN,
            Forbidden::ReasonWithoutFlag { .. } => StatusCode::BAD_REQUEST,
            Forbidden::HasInstance { .. }
            | Forbidden::NotDeletable { .. }
            | Forbidden::InterfaceFixed { .. }
            | Forbidden::ResourceClassFixed { .. }
            | Forbidden::NotProtectable { .. }
            | Forbidden::AddressFixed { .. }
            | Forbidden::ConnectionFixed { .. }
            | Forbidden::NotRetirable { .. } => StatusCode::CONFLICT,
        };
        Self::application(status, forbidden.to_string())
    }
}

impl From<BadTarget> for ApiError {
    fn from(bad: BadTarget) -> Self {
        let status = match bad {
            BadTarget::Newer => StatusCode::NOT_ACCEPTABLE,
            BadTarget::StepsTooLarge(Excess::Bytes(_) | Excess::Values(_))
            | BadTarget::ConfigDriveTooLarge(Excess::Bytes(_) | Excess::Values(_)) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            BadTarget::Schema { .. }
            | BadTarget::Absent(_)
            | BadTarget::Unexpected(_)
            | BadTarget::WrongType { .. }
            | BadTarget::Steps(_)
            | BadTarget::NeedsRamdisk(_)
            | BadTarget::StepsTooLarge(Excess::Depth(_))
            | BadTarget::ConfigDriveTooLarge(Excess::Depth(_))
            | BadTarget::ConfigDrive(_)
            | BadTarget::NoConfigDrive(_)
            | BadTarget::NoRamdiskToDisable
            | BadTarget::Timeout
            | BadTarget::Unknown { .. }
            | BadTarget::Missing(_)
            | BadTarget::NoSteps
            | BadTarget::Misplaced { .. }
            | BadTarget::Unsupported(_) => StatusCode::BAD_REQUEST,
        };
        Self::application(status, bad.to_string())
    }
}

impl From<BadTraits> for ApiError {
    fn from(bad: BadTraits) -> Self {
        let status = match bad {
            BadTraits::Unknown { .. } => StatusCode::NOT_FOUND,
            BadTraits::Schema(_)
            | BadTraits::Name(_)
            | BadTraits::TooMany { .. }
            | BadTraits::Body => StatusCode::BAD_REQUEST,
        };
        Self::application(status, bad.to_string())
    }
}

impl From<BmcError> for ApiError {
    fn from(error: BmcError) -> Self {
        match error {
            // The text begins with the name of the setting.
            BmcError::Setting(wrong) => {
                Self::bad_request(format!("The BMC cannot be used: {wrong}."))
            }
            BmcError::System(NotOneSystem::Several(_)) => {
                Self::bad_request(sentence(&error.to_string()))
            }
            // Upstream's RedfishError.
            BmcError::System(NotOneSystem::Failure(_))
            | BmcError::Failure(_)
            | BmcError::NotSet(_)
            | BmcError::Slow(_) => {
                Self::application(StatusCode::INTERNAL_SERVER_ERROR, sentence(&error.to_string()))
            }
        }
    }
}

impl From<BmcFailure> for ApiError {
    fn from(failure: BmcFailure) -> Self {
        BmcError::Failure(failure).into()
    }
}

impl From<DeviceNotSet> for ApiError {
    fn from(not_set: DeviceNotSet) -> Self {
        let status = match not_set {
            DeviceNotSet::Cannot(_)
            | DeviceNotSet::Unsupported { .. }
            | DeviceNotSet::OtherDuration { .. }
            | DeviceNotSet::FixedMode(_) => StatusCode::BAD_REQUEST,
            DeviceNotSet::Failure(_) | DeviceNotSet::NotKept(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self::application(status, sentence(&not_set.to_string()))
    }
}

impl From<SecureBootNotSet> for ApiError {
    fn from(not_set: SecureBootNotSet) -> Self {
        match not_set {
            SecureBootNotSet::NotShown | SecureBootNotSet::BiosMode => {
                Self::bad_request(sentence(&not_set.to_string()))
            }
            SecureBootNotSet::Failure(failure) => failure.into(),
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let text = sentence(&refused.to_string());
        match refused {
            Refused::Busy { .. } | Refused::StaysOn(_) | Refused::Stale => Self::conflict(text),
            Refused::Protected { .. } => Self::forbidden(text),
            // The answer reveals nothing about nodes to a stranger.
            Refused::NoAgentExpected { .. } => Self::nothing_here(),
            // An agent retries.
            Refused::LookupTooEarly(_)
            | Refused::HeartbeatTooEarly(_)
            | Refused::TokenJustGiven { .. } => Self::conflict(text),
            // The trace and the diagnosis have the other addresses; the answer, which a stranger may read, does not.
            Refused::ForeignLookup(ForeignLookup { from, .. })
            | Refused::TokenTaken { from, .. } => Self::forbidden(format!(
                "{from} gets no token: it is not known to be this machine's address, or another address has the \
                     token. The node's boot trace says more, and driver_info/agent_networks of the node can be set."
            )),
            Refused::InvalidState { .. }
            | Refused::NoSteps
            | Refused::InMaintenance { .. }
            | Refused::Retired { .. }
            | Refused::PowersOff { .. }
            | Refused::NotBuilt(_)
            | Refused::NoInstanceImage { .. }
            | Refused::WrongToken(_)
            | Refused::SecondAgent { .. } => Self::bad_request(text),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(failed: StoreError) -> Self {
        log_store_failure(&failed, "a request failed in the store");
        // Clients retry after a 503.
        let (status, text) = match failed {
            StoreError::DiskFull(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The disk of the service's database is full, so nothing was changed. Free space on it and try again.",
            ),
            StoreError::Unavailable(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The service's database does not answer. Try again; if it stays so, the service's log says why.",
            ),
            StoreError::Url { .. }
            | StoreError::Create { .. }
            | StoreError::Missing { .. }
            | StoreError::File { .. }
            | StoreError::Rights { .. }
            | StoreError::Open { .. }
            | StoreError::NoTables { .. }
            | StoreError::Version { .. }
            | StoreError::Migrate { .. }
            | StoreError::Database(_)
            | StoreError::Unreadable { .. }
            | StoreError::Key(_)
            | StoreError::Secret { .. }
            | StoreError::AuthorityKey { .. }
            | StoreError::OutOfRange { .. } => {
                (StatusCode::INTERNAL_SERVER_ERROR, "The store failed; the service's log says why.")
            }
        };
        Self::application(status, text)
    }
}

impl From<ListError> for ApiError {
    fn from(failed: ListError) -> Self {
        match failed {
            ListError::NoSuchMarker(_) => Self::bad_request(sentence(&failed.to_string())),
            ListError::Store(failed) => failed.into(),
        }
    }
}

impl From<CreateNodeError> for ApiError {
    fn from(failed: CreateNodeError) -> Self {
        match failed {
            CreateNodeError::DuplicateName(_)
            | CreateNodeError::DuplicateUuid(_)
            | CreateNodeError::DuplicateInstance(_) => {
                Self::conflict(sentence(&failed.to_string()))
            }
            CreateNodeError::Store(failed) => failed.into(),
        }
    }
}

impl<E: Into<Self>> From<ChangeError<E>> for ApiError {
    fn from(failed: ChangeError<E>) -> Self {
        match failed {
            ChangeError::Refused(refused) => refused.into(),
            ChangeError::Store(failed) => failed.into(),
            ChangeError::NoSuchNode(node) => Self::no_such_node(&node.to_string()),
            ChangeError::Locked { node, by } => locked(&node.to_string(), &by),
            ChangeError::ClaimLost(node) => {
                Self::conflict(format!("Node {node} changed in between, please retry."))
            }
            ChangeError::DuplicateName(name) => {
                Self::conflict(format!("A node with name {name} already exists."))
            }
            ChangeError::DuplicateInstance(instance) => Self::conflict(format!(
                "Instance {instance} is already associated with another node."
            )),
        }
    }
}

impl From<PortError> for ApiError {
    fn from(failed: PortError) -> Self {
        match failed {
            PortError::NoSuchPort(port) => {
                Self::not_found(format!("Port {port} could not be found."))
            }
            // The URL does not contain the node, so 404 would be misleading.
            PortError::NoSuchNode(node) => {
                Self::bad_request(format!("Node {node} could not be found."))
            }
            PortError::DuplicateAddress(_) | PortError::DuplicateUuid(_) => {
                Self::conflict(sentence(&failed.to_string()))
            }
            PortError::Locked { node, by } => locked(&node.to_string(), &by),
            PortError::Moving(_) => Self::conflict(sentence(&failed.to_string())),
            PortError::TooMany { .. } => Self::bad_request(sentence(&failed.to_string())),
            PortError::Store(failed) => failed.into(),
        }
    }
}

impl<E: Into<Self>> From<PortChangeError<E>> for ApiError {
    fn from(failed: PortChangeError<E>) -> Self {
        match failed {
            PortChangeError::Refused(refused) => refused.into(),
            PortChangeError::Port(failed) => failed.into(),
        }
    }
}

/// The answer when unread long answers have used up their memory.
pub(crate) fn too_many_answers() -> Response {
    let text = "Too many long answers are under way that are not taken; try again later.";
    ApiError::application(StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

fn locked(node: &str, by: &str) -> ApiError {
    ApiError::conflict(format!(
        "Node {node} is locked by host {by}, please retry after the current operation is completed."
    ))
}

/// The project's messages begin in lower case and have no full stop; Ironic's are sentences.
fn sentence(text: &str) -> String {
    let mut rest = text.chars();
    match rest.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), rest.as_str()),
        None => String::new(),
    }
}
