//! Reasons for refusing an event.

use std::net::IpAddr;

use thiserror::Error;
use uuid::Uuid;

use crate::addresses::{ForeignLookup, TOKEN_AGAIN};
use crate::image::BadInstanceImage;
use crate::procedure::Verb;
use crate::state::{PowerTarget, ProvisionState as State};

/// A client's request for a change of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestedAction {
    /// A verb.
    Verb(Verb),
    /// A change of its power.
    Power(PowerTarget),
}

impl RequestedAction {
    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Verb(verb) => verb.name(),
            Self::Power(target) => target.name(),
        }
    }
}

/// An event that the node's current state does not permit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// The state does not permit the verb.
    #[error(
        "the requested action \"{}\" can not be performed on node \"{node}\" \
         while it is in state \"{state}\"",
        .action.name()
    )]
    InvalidState {
        /// The action.
        action: RequestedAction,
        /// The node's UUID.
        node: Uuid,
        /// The node's state.
        state: State,
    },
    /// A worker holds the node for a short time; retry then.
    #[error(
        "node {node} is being worked on, please retry after the current operation is completed"
    )]
    Busy {
        /// The node's UUID.
        node: Uuid,
    },
    /// Ironic supports the action, this service does not.
    #[error("the requested action \"{}\" is not supported by this service", .0.name())]
    NotBuilt(Verb),
    /// A manual clean without steps.
    #[error("clean_steps must be given, and not be empty, with the target \"clean\"")]
    NoSteps,
    /// The node is in maintenance.
    #[error(
        "the {operation} operation can't be performed on node {node} because it's in maintenance mode"
    )]
    InMaintenance {
        /// `cleaning`.
        operation: &'static str,
        /// The node's UUID.
        node: Uuid,
    },
    /// The node is retired.
    #[error("the {operation} operation can't be performed on node {node} because it is retired")]
    Retired {
        /// `providing`.
        operation: &'static str,
        /// The node's UUID.
        node: Uuid,
    },
    /// `disable_power_off` forbids switching the power off.
    #[error("failed to set node power state to {}", .0.name())]
    StaysOn(PowerTarget),
    /// `disable_power_off` forbids a procedure that switches the machine off.
    #[error(
        "the {operation} operation can't be performed on node {node} because it switches the machine off, \
         which disable_power_off forbids"
    )]
    PowersOff {
        /// `cleaning`.
        operation: &'static str,
        /// The node's UUID.
        node: Uuid,
    },
    /// `protected` forbids removing the instance.
    #[error("the {operation} operation can't be performed on node {node} because it is protected")]
    Protected {
        /// `rebuild`.
        operation: &'static str,
        /// The node's UUID.
        node: Uuid,
    },
    /// The node has no image for an instance, or more than one.
    #[error("node {node} cannot be deployed: {why}")]
    NoInstanceImage {
        /// The node's UUID.
        node: Uuid,
        /// The error in its `instance_info` or its `deploy_interface`.
        why: BadInstanceImage,
    },
    /// The event belongs to an ended attempt.
    #[error("it belongs to a boot attempt that is over")]
    Stale,
    /// The state does not expect an agent.
    #[error("node \"{node}\" is in state \"{state}\", where no agent is expected")]
    NoAgentExpected {
        /// The node's UUID.
        node: Uuid,
        /// The node's state.
        state: State,
    },
    /// A lookup for the token arrived before the machine was switched on.
    #[error(
        "the lookup came before the machine of node \"{0}\" was switched on for this boot: no token is given then"
    )]
    LookupTooEarly(Uuid),
    /// A lookup for the token came from an address that is not known to be the machine's.
    #[error("{0}")]
    ForeignLookup(ForeignLookup),
    /// The token was given to another address of the machine.
    #[error(
        "the token was given to {} before, and {from} asks for it too: it is given once",
        .holder.map_or_else(|| "somebody".to_owned(), |holder| holder.to_string())
    )]
    TokenTaken {
        /// The holder, if known.
        holder: Option<IpAddr>,
        /// The address of the lookup.
        from: IpAddr,
    },
    /// The token was given to this address only seconds ago.
    #[error(
        "the token was given to {from} a moment ago: if that answer was lost, it is given again {} s later",
        TOKEN_AGAIN.as_secs()
    )]
    TokenJustGiven {
        /// The address of both lookups.
        from: IpAddr,
    },
    /// A heartbeat arrived before the machine was switched on, and had to wait.
    #[error("the heartbeat came before the machine of node \"{0}\" was switched on for this boot")]
    HeartbeatTooEarly(Uuid),
    /// The token is not this attempt's.
    #[error("the agent token is not valid for node \"{0}\"")]
    WrongToken(Uuid),
    /// Another agent owns the token.
    #[error(
        "an agent at {owner} already uses this token; the one at {caller} is refused: \
         either it changed its address, or somebody copied the token"
    )]
    SecondAgent {
        /// The owner's command API.
        owner: String,
        /// The caller's command API.
        caller: String,
    },
}
