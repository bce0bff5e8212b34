//! Deletions and changes that Ironic's conductor refuses, in its words.

use provision::{Node, Port, ProvisionState};
use thiserror::Error;
use uuid::Uuid;

use crate::interface::INTERFACES;

/// States in which a node's interfaces and its resource class may change, as listed by Ironic.
const OPEN_STATES: &str = "enroll, inspecting, inspect wait, manageable, available";

/// States in which a node may be deleted, as listed by Ironic with default settings.
const DELETABLE_STATES: &str = "('manageable', 'enroll', 'adopt failed', 'available')";

/// The subject of [`Forbidden::ConnectionFixed`].
const CONNECTIVITY: &str = "pxe_enabled, local_link_connection, physical_network";

/// An operation that the node's state or another of its fields forbids; 409 unless the variant says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Forbidden {
    /// The node has an instance.
    #[error("Node {node} is associated with instance {instance}.")]
    HasInstance {
        /// The node.
        node: Uuid,
        /// The instance's UUID.
        instance: String,
    },
    /// The node is protected: 403.
    #[error("Node {0} is protected and cannot be undeployed, rebuilt or deleted")]
    Protected(Uuid),
    /// The state forbids deletion.
    #[error(
        "Can not delete node \"{node}\" while it is in provision state \"{state}\". Valid provision \
         states to perform deletion are: \"{DELETABLE_STATES}\", or set the node into maintenance \
         mode"
    )]
    NotDeletable {
        /// The node.
        node: Uuid,
        /// Its provision state.
        state: ProvisionState,
    },
    /// Interfaces cannot change during a procedure.
    #[error(
        "Node {node} can not have {field} updated unless it is in one of allowed ({OPEN_STATES}) \
         states or in maintenance mode. Current state is '{state}'."
    )]
    InterfaceFixed {
        /// The node.
        node: Uuid,
        /// `boot_interface`, ….
        field: String,
        /// Its provision state.
        state: ProvisionState,
    },
    /// The resource class cannot change during a procedure.
    #[error(
        "Node {node} can not have resource_class updated unless it is in one of allowed \
         ({OPEN_STATES}) states. Current state is '{state}'."
    )]
    ResourceClassFixed {
        /// The node.
        node: Uuid,
        /// Its provision state.
        state: ProvisionState,
    },
    /// Only a deployed node can be protected.
    #[error(
        "Node {node} can only be made protected in provision states 'active' or 'rescue', the \
         current state is '{state}'"
    )]
    NotProtectable {
        /// The node.
        node: Uuid,
        /// Its provision state.
        state: ProvisionState,
    },
    /// An available node must be made manageable first.
    #[error(
        "Node {node} can not have 'retired' set in provision state 'available', the current state \
         is '{state}'"
    )]
    NotRetirable {
        /// The node.
        node: Uuid,
        /// Its provision state.
        state: ProvisionState,
    },
    /// The instance uses the MAC address.
    #[error(
        "Cannot update hardware address for port {port} as node {node} is active or has instance UUID \
         assigned"
    )]
    AddressFixed {
        /// The port's UUID.
        port: Uuid,
        /// The node's UUID.
        node: Uuid,
    },
    /// A port's connection cannot change while its node is in use.
    #[error(
        "Port {port} can not have any connectivity attributes ({CONNECTIVITY}) updated unless node \
         {node} is in a enroll, inspecting, inspect wait, manageable state or in maintenance mode. The \
         current state is {state}."
    )]
    ConnectionFixed {
        /// The port's UUID.
        port: Uuid,
        /// The node's UUID.
        node: Uuid,
        /// Its provision state.
        state: ProvisionState,
    },
    /// A reason without its flag: 400.
    #[error("The {flag}_reason field can only be set when {flag} is True")]
    ReasonWithoutFlag {
        /// `protected` or `retired`.
        flag: &'static str,
    },
}

/// Checks that a node may be deleted.
///
/// # Errors
/// [`Forbidden`], in Ironic's order of checks.
pub fn check_deletion(node: &Node) -> Result<(), Forbidden> {
    if let Some(instance) = node.kept_text("instance_uuid").filter(|_| !node.maintenance) {
        return Err(Forbidden::HasInstance { node: node.uuid, instance: instance.to_owned() });
    }
    if node.is_set("protected") {
        return Err(Forbidden::Protected(node.uuid));
    }
    let state = node.provision_state;
    if node.maintenance || is_open(state) {
        return Ok(());
    }
    Err(Forbidden::NotDeletable { node: node.uuid, state })
}

/// Checks that a node may become the result of a PATCH.
///
/// # Errors
/// [`Forbidden`], in Ironic's order of checks.
pub(crate) fn check_change(before: &Node, after: &mut Node) -> Result<(), Forbidden> {
    let (node, state) = (before.uuid, before.provision_state);
    let has_instance = matches!(state, ProvisionState::Active | ProvisionState::Rescue);
    if after.is_set("protected") && !before.is_set("protected") && !has_instance {
        return Err(Forbidden::NotProtectable { node, state });
    }
    check_reason(before, after, "protected")?;
    if state == ProvisionState::Available && after.is_set("retired") && !before.is_set("retired") {
        return Err(Forbidden::NotRetirable { node, state });
    }
    check_reason(before, after, "retired")?;
    if !is_open(state) && !after.maintenance {
        for interface in INTERFACES {
            let field = format!("{}_interface", interface.kind);
            let changed = interface.kind == "boot" && before.boot_interface != after.boot_interface;
            if changed || before.kept.get(&field) != after.kept.get(&field) {
                return Err(Forbidden::InterfaceFixed { node, field, state });
            }
        }
    }
    if let (Some(instance), Some(other)) =
        (before.kept_text("instance_uuid"), after.kept_text("instance_uuid"))
        && instance != other
    {
        return Err(Forbidden::HasInstance { node, instance: instance.to_owned() });
    }
    let class = before.kept_text("resource_class");
    if class.is_some() && class != after.kept_text("resource_class") && !is_open(state) {
        return Err(Forbidden::ResourceClassFixed { node, state });
    }
    Ok(())
}

/// Checks that a port of `node` may become the result of a PATCH.
///
/// # Errors
/// [`Forbidden`], in Ironic's order of checks.
pub fn check_port_change(node: &Node, before: &Port, after: &Port) -> Result<(), Forbidden> {
    if node.maintenance {
        return Ok(());
    }
    let (port, state) = (before.uuid, node.provision_state);
    if node.kept_text("instance_uuid").is_some() && before.address != after.address {
        return Err(Forbidden::AddressFixed { port, node: node.uuid });
    }
    let same = |field: &str| before.kept.get(field) == after.kept.get(field);
    let same = before.pxe_enabled == after.pxe_enabled
        && same("local_link_connection")
        && same("physical_network");
    let open = matches!(state, ProvisionState::Enroll | ProvisionState::Manageable);
    if same || open {
        return Ok(());
    }
    Err(Forbidden::ConnectionFixed { port, node: node.uuid, state })
}

/// Removes the reason of a removed flag, and refuses a reason without its flag.
fn check_reason(before: &Node, after: &mut Node, flag: &'static str) -> Result<(), Forbidden> {
    let reason = format!("{flag}_reason");
    if after.is_set(flag) {
        return Ok(());
    }
    if before.is_set(flag) {
        after.kept.remove(&reason);
    }
    match after.kept_text(&reason) {
        Some(text) if !text.is_empty() && before.kept_text(&reason) != Some(text) => {
            Err(Forbidden::ReasonWithoutFlag { flag })
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether no procedure is under way or has failed.
fn is_open(state: ProvisionState) -> bool {
    matches!(state, ProvisionState::Enroll | ProvisionState::Manageable | ProvisionState::Available)
}

/// Node names that are reserved in URLs, as listed by Ironic.
const RESERVED_NAMES: [&str; 6] =
    ["maintenance", "management", "states", "vendor_passthru", "detail", "validate"];

/// A reserved name: 400.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "The word \"{0}\" is reserved and can not be used as a node name. Reserved words are: {words}.",
    words = RESERVED_NAMES.join(", ")
)]
pub struct ReservedName(pub String);

/// Checks that a name is not reserved.
///
/// # Errors
/// [`ReservedName`]
pub(crate) fn check_reserved(name: &str) -> Result<(), ReservedName> {
    if RESERVED_NAMES.contains(&name) { Err(ReservedName(name.to_owned())) } else { Ok(()) }
}

/// Whether a text has the form of a name: only unreserved characters of URLs (RFC 3986 §2.3); before 1.10, a host
/// name in lower case.
#[must_use]
pub fn is_name(text: &str, free: bool) -> bool {
    if text.is_empty() || text.len() > 255 || [".", ".."].contains(&text) {
        return false;
    }
    if free {
        return text.chars().all(|c| c.is_ascii_alphanumeric() || "-._~".contains(c));
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    text.split('.').enumerate().all(|(at, label)| {
        let inner = if at == 0 { "-" } else { "-_" };
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let bounded = label.ends_with(plain) && (at > 0 || label.starts_with(plain));
        bounded && label.len() <= 63 && label.chars().all(|c| plain(c) || inner.contains(c))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node() -> Node {
        Node::enrolled(Uuid::nil(), "redfish", jiff::Timestamp::UNIX_EPOCH)
    }

    fn with(field: &str, value: serde_json::Value) -> Node {
        let mut node = node();
        node.kept.insert(field.to_owned(), value);
        node
    }

    #[test]
    fn a_node_with_an_instance_is_deleted_in_maintenance_only() {
        let mut node = with("instance_uuid", json!("i"));

        let refused = check_deletion(&node).unwrap_err().to_string();
        assert_eq!(refused, format!("Node {} is associated with instance i.", Uuid::nil()));
        node.maintenance = true;
        assert_eq!(check_deletion(&node), Ok(()));
    }

    #[test]
    fn a_protected_node_is_not_deleted_even_in_maintenance() {
        let mut node = with("protected", json!(true));
        node.maintenance = true;

        assert_eq!(check_deletion(&node), Err(Forbidden::Protected(Uuid::nil())));
    }

    #[test]
    fn a_node_that_is_worked_on_is_deleted_in_maintenance_only() {
        for state in ProvisionState::ALL {
            let mut node = node();
            node.provision_state = state;
            assert_eq!(check_deletion(&node).is_ok(), is_open(state), "{state}");
            node.maintenance = true;
            assert_eq!(check_deletion(&node), Ok(()), "{state}");
        }
    }

    #[test]
    fn a_port_of_a_node_in_use_keeps_its_connection_and_that_of_an_instance_its_address() {
        let address = |address: &str| {
            let body = json!({ "address": address, "node_uuid": Uuid::nil() });
            let now = jiff::Timestamp::UNIX_EPOCH;
            crate::port::create(&body, crate::Version::MAX, Uuid::nil(), now).unwrap()
        };
        let (one, other) = (address("52:54:00:00:00:01"), address("52:54:00:00:00:02"));
        let closed = Port { pxe_enabled: false, ..one.clone() };
        let mut node = with("instance_uuid", json!("i"));

        let refused = check_port_change(&node, &one, &other).unwrap_err().to_string();
        assert!(refused.starts_with("Cannot update hardware address for port"), "{refused}");
        assert_eq!(check_port_change(&node, &one, &closed), Ok(()));
        node.provision_state = ProvisionState::Available;
        let refused = check_port_change(&node, &one, &closed).unwrap_err().to_string();
        assert!(refused.ends_with("The current state is available."), "{refused}");
        node.maintenance = true;
        for after in [&closed, &other] {
            assert_eq!(check_port_change(&node, &one, after), Ok(()));
        }
    }

    #[test]
    fn names_are_what_upstream_takes_for_names() {
        for name in ["n1", "metal3~host-0", "A_b.c", "~", "a."] {
            assert!(is_name(name, true), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "ä", "a%20b", "a\n"] {
            assert!(!is_name(name, true), "{name}");
        }
        for name in ["n1", "n1.example.org", "n1.example.org.", "n-1", "n.a_b"] {
            assert!(is_name(name, false), "{name}");
        }
        for name in ["N1", "-n", "n-", "n~1", "n_1", "n..m", "."] {
            assert!(!is_name(name, false), "{name}");
        }
    }
}
