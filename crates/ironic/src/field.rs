//! Fields of the API's resources: their microversions, accepted values, and output.

use jiff::Timestamp;
use provision::limits::Excess;
use serde_json::{Map, Value, json};
use thiserror::Error;
use uuid::Uuid;

use crate::guards::{Forbidden, ReservedName};
use crate::python;
use crate::version::Version;

pub use provision::secrets::MASKED;

/// A JSON object.
pub type Object = Map<String, Value>;

/// A field of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// The microversion that introduced it is 1.`since`.
    pub since: u16,
    /// The kind of its values.
    pub kind: FieldKind,
    /// The requests that may set it.
    pub set: FieldAccess,
}

/// The kind of a field's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// `true` or `false`; Ironic also accepts words for them.
    Boolean,
    /// `true`, `false`, or null.
    BooleanOrNull,
    /// A list.
    List,
    /// An object.
    Map,
    /// A text or null, with at most this many characters.
    Text(usize),
    /// A UUID or null.
    Uuid,
}

impl FieldKind {
    /// The value of an unset field.
    #[must_use]
    pub fn empty(self) -> Value {
        match self {
            Self::Boolean => Value::Bool(false),
            Self::BooleanOrNull | Self::Text(_) | Self::Uuid => Value::Null,
            Self::List => json!([]),
            Self::Map => json!({}),
        }
    }
}

/// The requests that may set a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldAccess {
    /// On creation only.
    Create,
    /// On creation and by PATCH.
    CreateAndPatch,
    /// By PATCH only.
    Patch,
    /// None: the service sets it.
    Never,
}

impl FieldAccess {
    /// Whether a creation may set it.
    #[must_use]
    pub fn on_create(self) -> bool {
        matches!(self, Self::Create | Self::CreateAndPatch)
    }

    /// Whether a PATCH may set it.
    #[must_use]
    pub fn by_patch(self) -> bool {
        matches!(self, Self::Patch | Self::CreateAndPatch)
    }
}

/// The fields of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fields {
    /// All fields of the version.
    All,
    /// These, and `links`.
    Only(Vec<&'static str>),
}

impl Fields {
    /// Parses `?fields=a,b`.
    ///
    /// # Errors
    /// [`BadFields`] with the first unknown field.
    pub fn parse(list: &str, table: &[Field], version: Version) -> Result<Self, BadFields> {
        let one = |name: &str| match table.iter().find(|field| field.name == name) {
            None => Err(BadFields::Unknown(name.to_owned())),
            Some(field) if !version.has(field.since) => Err(BadFields::Newer),
            Some(field) => Ok(field.name),
        };
        list.split(',').map(str::trim).map(one).collect::<Result<_, _>>().map(Self::Only)
    }

    /// Whether the answer has `field` at `version`.
    #[must_use]
    pub fn show(&self, field: &Field, version: Version) -> bool {
        version.has(field.since)
            && match self {
                Self::All => true,
                Self::Only(names) => field.name == "links" || names.contains(&field.name),
            }
    }
}

/// An unknown field in `?fields=`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadFields {
    /// It exists in no version: 400.
    #[error("Field {0} is not a valid field.")]
    Unknown(String),
    /// It exists in a later version: 406.
    #[error("Request not acceptable.")]
    Newer,
}

/// The client's view of the service.
#[derive(Clone, Debug)]
pub struct ClientView {
    /// The requested version.
    pub version: Version,
    /// The URL of the service as the client reached it, without a trailing slash.
    pub base_url: String,
    /// The daemon's name in `conductor` and `hosts`.
    pub host: String,
}

impl ClientView {
    /// The URL of `path` below `/v1/`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}/v1/{path}", self.base_url)
    }

    /// The two links of every resource.
    #[must_use]
    pub fn links(&self, path: &str) -> Value {
        json!([
            { "href": self.url(path), "rel": "self" },
            { "href": format!("{}/{path}", self.base_url), "rel": "bookmark" },
        ])
    }
}

/// A time in the format of Python's `isoformat()`.
#[must_use]
pub fn time(at: Timestamp) -> Value {
    Value::String(at.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string())
}

/// The reason for rejecting the body of a creation or a PATCH; 400 unless the variant says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadBody {
    /// The form is wrong.
    #[error("Schema error for {subject}: {reason}")]
    Schema {
        /// `node`, `port` or `patch`.
        subject: &'static str,
        /// In the words of Python's jsonschema.
        reason: String,
    },
    /// The value is not a UUID.
    #[error("Expected UUID for {field}: {value}")]
    NotAUuid {
        /// The field.
        field: &'static str,
        /// The value.
        value: String,
    },
    /// The value is not a MAC address.
    #[error("Expected valid MAC address for {field}: {value}")]
    NotAMac {
        /// The field.
        field: &'static str,
        /// The value.
        value: String,
    },
    /// The value is not a boolean.
    #[error(
        "Invalid {field}: Unrecognized value {value}, acceptable values are: \
         '0', '1', 'f', 'false', 'n', 'no', 'off', 'on', 't', 'true', 'y', 'yes'"
    )]
    NotABoolean {
        /// The field.
        field: &'static str,
        /// The value.
        value: String,
    },
    /// The name is not valid for a new node.
    #[error("Cannot create node with invalid name '{0}'")]
    BadName(String),
    /// The name is not valid for a node.
    #[error("Node {node}: Cannot change name to invalid name '{name}'")]
    BadNewName {
        /// The node.
        node: Uuid,
        /// The name.
        name: String,
    },
    /// The name is reserved in URLs.
    #[error(transparent)]
    Reserved(#[from] ReservedName),
    /// The node's state or another field forbids the change; see [`Forbidden`] for the status.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// The resource would exceed its size limit: 413.
    #[error(
        "The {subject} would hold {excess}, in all the fields together that clients fill freely"
    )]
    TooLarge {
        /// `node`, `port` or `clean_steps`.
        subject: &'static str,
        /// The exceeded limit.
        excess: Excess,
    },
    /// The hardware type does not exist.
    #[error(
        "No valid host was found. Reason: No conductor service registered which supports driver \
         {driver} for conductor group \"{group}\". Ensure the driver is valid and enabled."
    )]
    NoSuchDriver {
        /// The driver.
        driver: String,
        /// The conductor group. Only `""` exists.
        group: String,
    },
    /// The interface does not exist.
    #[error(
        "Could not find the following interface in the 'ironic.hardware.interfaces.{kind}' \
         entrypoint: {name}. Valid interfaces are {valid}."
    )]
    NoSuchInterface {
        /// `boot`, `deploy`, ….
        kind: &'static str,
        /// The requested interface.
        name: String,
        /// The existing interfaces, in Python's notation.
        valid: String,
    },
    /// Chassis are not supported.
    #[error("Chassis {0} could not be found.")]
    NoSuchChassis(String),
    /// The node does not exist.
    #[error("Node {0} could not be found.")]
    NoSuchNode(String),
    /// Port groups are not supported.
    #[error("Portgroup {0} could not be found.")]
    NoSuchPortgroup(String),
    /// The value is not a switch's ID.
    #[error("Expected a MAC address or OpenFlow datapath ID but received {0}.")]
    NotASwitch(String),
    /// A smart NIC without the port and host name of its switch link.
    #[error("Smart NIC port must have port_id and hostname in local_link_connection")]
    SmartNicWithoutLink,
    /// The value is not a `network_data.json` of OpenStack.
    #[error("Invalid network_data: {0}")]
    NetworkData(String),
    /// The value may be null, but not empty.
    #[error("A non-empty value is required when setting {0}")]
    Empty(&'static str),
    /// A PATCH of a field that may not be changed.
    #[error("Cannot patch {path}. Only the following can be updated: {allowed}")]
    NotPatchable {
        /// The requested path.
        path: String,
        /// The permitted paths.
        allowed: String,
    },
    /// A PATCH that does not fit the resource.
    #[error("Couldn't apply patch '{operation}'. Reason: {reason}")]
    CannotApply {
        /// The operation, in Python's notation.
        operation: String,
        /// The reason, in the words of Python's jsonpatch where they are known.
        reason: String,
    },
    /// A field of a later version: 406.
    #[error("Request not acceptable.")]
    Newer,
    /// The node is in transition: 409.
    #[error("Node {0} can not be updated while a state transition is in progress.")]
    InTransition(String),
}

/// A body that must be an object.
///
/// # Errors
/// [`BadBody::Schema`] if it is not.
pub fn object<'a>(subject: &'static str, body: &'a Value) -> Result<&'a Object, BadBody> {
    body.as_object().ok_or_else(|| not_of_type(subject, body, "'object'"))
}

/// The body of a creation: only fields that it may set, with values of their kinds; nulls are left out.
///
/// # Errors
/// [`BadBody`], for the first field that is wrong.
pub fn creation(
    subject: &'static str,
    body: &Object,
    table: &[Field],
    version: Version,
) -> Result<Object, BadBody> {
    let known = |name: &str| table.iter().find(|field| field.name == name && field.set.on_create());
    let mut out = Object::new();
    for (name, value) in body {
        let Some(field) = known(name) else {
            let reason = format!(
                "Additional properties are not allowed ({} was unexpected)",
                python::repr(&json!(name))
            );
            return Err(BadBody::Schema { subject, reason });
        };
        let value = accept(subject, field, value)?;
        if value != field.kind.empty() && !version.has(field.since) {
            return Err(BadBody::Newer);
        }
        if value != field.kind.empty() {
            out.insert(name.clone(), value);
        }
    }
    Ok(out)
}

/// The value to store.
///
/// # Errors
/// [`BadBody`] if the value is not of the field's kind.
pub fn accept(subject: &'static str, field: &Field, value: &Value) -> Result<Value, BadBody> {
    match (field.kind, value) {
        (kind, Value::Null) => Ok(kind.empty()),
        (FieldKind::Boolean | FieldKind::BooleanOrNull, Value::Bool(_))
        | (FieldKind::List, Value::Array(_))
        | (FieldKind::Map, Value::Object(_)) => Ok(value.clone()),
        (FieldKind::Boolean | FieldKind::BooleanOrNull, Value::String(text)) => boolean(text)
            .map(Value::Bool)
            .ok_or_else(|| BadBody::NotABoolean { field: field.name, value: python::repr(value) }),
        (FieldKind::Text(max), Value::String(text)) if text.chars().count() > max => {
            let reason = format!("{} is too long", python::repr(value));
            Err(BadBody::Schema { subject, reason })
        }
        // PostgreSQL cannot store NUL in a text.
        (FieldKind::Text(_), Value::String(text)) if text.contains('\0') => {
            let reason = format!("{} holds a NUL", python::repr(value));
            Err(BadBody::Schema { subject, reason })
        }
        (FieldKind::Text(_), Value::String(_)) => Ok(value.clone()),
        (FieldKind::Uuid, Value::String(text)) => match Uuid::try_parse(text) {
            Ok(uuid) => Ok(json!(uuid)),
            Err(_) => Err(BadBody::NotAUuid { field: field.name, value: text.clone() }),
        },
        (FieldKind::Boolean | FieldKind::BooleanOrNull, _) => {
            Err(not_of_type(subject, value, "'string', 'boolean', 'null'"))
        }
        (FieldKind::List, _) => Err(not_of_type(subject, value, "'array', 'null'")),
        (FieldKind::Map, _) => Err(not_of_type(subject, value, "'object', 'null'")),
        (FieldKind::Text(_) | FieldKind::Uuid, _) => {
            Err(not_of_type(subject, value, "'string', 'null'"))
        }
    }
}

/// oslo.utils' words for booleans.
#[must_use]
pub fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "on" | "y" | "yes" => Some(true),
        "0" | "f" | "false" | "off" | "n" | "no" => Some(false),
        _ => None,
    }
}

fn not_of_type(subject: &'static str, value: &Value, kinds: &str) -> BadBody {
    let reason = format!("{} is not of type {kinds}", python::repr(value));
    BadBody::Schema { subject, reason }
}
