//! Why an event changes nothing.

use std::net::IpAddr;

use thiserror::Error;
use uuid::Uuid;

use crate::addresses::{ForeignLookup, TOKEN_AGAIN};
use crate::image::BadInstanceImage;
use crate::procedure::Verb;
use crate::state::{PowerTarget, ProvisionState as State};

/// An event that has no place in the node's present state.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// The verb is not one of this state.
    #[error(
        "the requested action \"{verb}\" can not be performed on node \"{node}\" \
         while it is in state \"{state}\""
    )]
    InvalidState {
        /// The API's verb.
        verb: &'static str,
        /// The node's UUID.
        node: Uuid,
        /// Where it stands.
        state: State,
    },
    /// Something is done with the node that will end soon; to be tried again then.
    #[error(
        "node {node} is being worked on, please retry after the current operation is completed"
    )]
    Busy {
        /// The node's UUID.
        node: Uuid,
    },
    /// Upstream has it, this service does not.
    #[error("the requested action \"{}\" is not supported by this service", .0.name())]
    NotBuilt(Verb),
    /// A manual clean without steps.
    #[error("clean_steps must be given, and not be empty, with the target \"clean\"")]
    NoSteps,
    /// Not in maintenance.
    #[error(
        "the {operation} operation can't be performed on node {node} because it's in maintenance mode"
    )]
    InMaintenance {
        /// `cleaning`.
        operation: &'static str,
        /// The node's UUID.
        node: Uuid,
    },
    /// Not any more: it is retired.
    #[error("the {operation} operation can't be performed on node {node} because it is retired")]
    Retired {
        /// `providing`.
        operation: &'static str,
        /// The node's UUID.
        node: Uuid,
    },
    /// Its `disable_power_off` says that its power must stay on.
    #[error("failed to set node power state to {}", .0.name())]
    StaysOn(PowerTarget),
    /// So it says, and the procedure switches the machine off.
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
    /// Its `protected` says that its instance must stay.
    #[error("the {operation} operation can't be performed on node {node} because it is protected")]
    Protected {
        /// `rebuild`.
        operation: &'static str,
        /// The node's UUID.
        node: Uuid,
    },
    /// The node names nothing that an instance could be booted from, or more than one thing.
    #[error("node {node} cannot be deployed: {why}")]
    NoInstanceImage {
        /// The node's UUID.
        node: Uuid,
        /// What is wrong with its `instance_info`, or its `deploy_interface`.
        why: BadInstanceImage,
    },
    /// It belongs to an attempt that is over.
    #[error("it belongs to a boot attempt that is over")]
    Stale,
    /// The state does not expect an agent.
    #[error("node \"{node}\" is in state \"{state}\", where no agent is expected")]
    NoAgentExpected {
        /// The node's UUID.
        node: Uuid,
        /// Where it stands.
        state: State,
    },
    /// A lookup whose answer would hold the token came before the machine was switched on.
    #[error(
        "the lookup came before the machine of node \"{0}\" was switched on for this boot: nobody gets its token then"
    )]
    LookupTooEarly(Uuid),
    /// A lookup whose answer would hold the token came from an address that is not known to be the machine's.
    #[error("{0}")]
    ForeignLookup(ForeignLookup),
    /// The token was given to another address of the machine.
    #[error(
        "the token was given to {} before, and {from} asks for it too: it is given once",
        .holder.map_or_else(|| "somebody".to_owned(), |holder| holder.to_string())
    )]
    TokenTaken {
        /// Who has it, if that is known.
        holder: Option<IpAddr>,
        /// Who asks.
        from: IpAddr,
    },
    /// The token was given to this address a moment ago.
    #[error(
        "the token was given to {from} a moment ago: if that answer was lost, it is told again {} s later",
        TOKEN_AGAIN.as_secs()
    )]
    TokenJustGiven {
        /// Who has it, and asks again.
        from: IpAddr,
    },
    /// A heartbeat came before the machine was switched on, and waited since.
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
        /// Where the owner's command API is.
        owner: String,
        /// Where the caller says its own is.
        caller: String,
    },
}
