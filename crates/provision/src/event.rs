//! What can happen to a node, and what is to be done about it.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use crate::procedure::Verb;
use crate::state::{PowerState, PowerTarget};
use crate::steps::ProcedureStep;

/// Something that happened, or was asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A client asks for a change of the provision state.
    VerbAsked(VerbRequest),
    /// An operator asks for power.
    PowerAsked(PowerTarget),
    /// The BMC's power state was read or changed.
    PowerSeen(PowerState),
    /// Changing the power failed.
    PowerFailed(String),
    /// The BMC answered and can do what the boot interface needs.
    Verified(PowerState),
    /// It did not, or cannot.
    VerifyFailed(String),
    /// The BMC was told what to boot and the machine is on.
    Booting {
        /// Of which attempt.
        attempt: Uuid,
    },
    /// The machine could not be told or switched on.
    BootFailed {
        /// Of which attempt.
        attempt: Uuid,
        /// In words.
        reason: String,
    },
    /// The instance's own image was fetched whole.
    ImageFetched {
        /// In which attempt.
        attempt: Uuid,
    },
    /// The firmware of a machine with an instance boots its image anew, by itself.
    InstanceBoots {
        /// The attempt of the boot before.
        attempt: Uuid,
        /// The attempt of this boot, with a trace of its own.
        next: Uuid,
    },
    /// The machine got nowhere, and that because the daemon was away while it booted.
    BootMissed {
        /// Of which attempt.
        attempt: Uuid,
    },
    /// A lookup by an agent, before it has shown a token.
    AgentLooksUp(AgentLookup),
    /// The machine was seen at addresses that tell a lookup of its agent from a stranger's.
    AddressesSeen {
        /// In which attempt.
        attempt: Uuid,
        /// Addresses that fetched the attempt's image.
        fetched: Vec<IpAddr>,
        /// Addresses that DHCP gave to the node's cards.
        leased: Vec<IpAddr>,
    },
    /// A heartbeat.
    AgentAlive(Heartbeat),
    /// The agent's list of steps.
    StepsReported {
        /// Of which attempt.
        attempt: Uuid,
        /// All of them.
        steps: Vec<ProcedureStep>,
        /// The agent's word, to be sent back with every step.
        hardware_manager_version: Value,
    },
    /// The agent took a step on.
    StepStarted {
        /// Of which attempt.
        attempt: Uuid,
        /// The agent's id of it.
        command_id: String,
    },
    /// The step under way is done.
    StepSucceeded {
        /// Of which attempt.
        attempt: Uuid,
        /// The agent's id of it.
        command_id: String,
    },
    /// The procedure cannot go on.
    StepFailed {
        /// Of which attempt.
        attempt: Uuid,
        /// In words.
        reason: String,
    },
    /// The step under way still runs: nothing to do but wait.
    StepStillRuns {
        /// Of which attempt.
        attempt: Uuid,
    },
    /// The agent could not be asked; it will call again.
    AgentSilent {
        /// Of which attempt.
        attempt: Uuid,
        /// In words.
        reason: String,
    },
    /// Power is off, the override is gone.
    TornDown {
        /// Of which attempt.
        attempt: Uuid,
    },
    /// It could not be.
    TearDownFailed {
        /// Of which attempt.
        attempt: Uuid,
        /// In words.
        reason: String,
    },
    /// Time has passed in silence.
    Tick {
        /// The silence, if the node waits.
        silence: Option<Silence>,
        /// What the trace says about the silence.
        why: Option<String>,
    },
}

/// A verb with what a client gives along with it.
#[derive(Clone, Debug, PartialEq)]
pub struct VerbRequest {
    /// What is asked for.
    pub verb: Verb,
    /// The steps of a `clean`, in their order.
    pub steps: Vec<ProcedureStep>,
    /// The config drive of an `active` or `rebuild`: kept in `instance_info`, as upstream.
    pub config_drive: Option<Value>,
}

impl From<Verb> for VerbRequest {
    fn from(verb: Verb) -> Self {
        Self { verb, steps: Vec::new(), config_drive: None }
    }
}

impl From<Verb> for Event {
    fn from(verb: Verb) -> Self {
        Self::VerbAsked(verb.into())
    }
}

/// For how long nothing was heard of a machine, by a clock that is never set: times that are stored may come from
/// before the system's clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// What was heard last: see [`last_heard`](crate::step::last_heard).
    pub since: Timestamp,
    /// How long nothing has been heard after it.
    pub lasts: SignedDuration,
}

/// A lookup (`GET /v1/lookup`), and what this daemon knows of where the machine is.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentLookup {
    /// The address that the lookup came from.
    pub from: IpAddr,
    /// Addresses that fetched the attempt's image.
    pub fetched: Vec<IpAddr>,
    /// Addresses that DHCP gave to the node's cards.
    pub leased: Vec<IpAddr>,
    /// When the lookup came, before it waited for anything.
    pub at: Timestamp,
}

/// What a heartbeat says (`POST /v1/heartbeat/{uuid}`).
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat {
    /// The token it shows.
    pub agent_token: String,
    /// Where its command API is.
    pub callback_url: Url,
    /// Its version.
    pub agent_version: String,
    /// The certificate of its command API, PEM.
    pub agent_verify_ca: Option<String>,
    /// When it came, before it waited for anything.
    pub at: Timestamp,
}

/// A job for a worker; at most one per node, kept in the store until its result is an [`Event`].
///
/// Each may be done twice if the daemon dies, so a worker that finds itself on a second claim looks
/// at the real state first (power and override at the BMC, the agent's command list).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Work {
    /// Ask the BMC who it is and whether it can do what is needed.
    Verify,
    /// Power off, tell what to boot, power on.
    Boot {
        /// For which attempt.
        attempt: Uuid,
    },
    /// Ask the agent for the steps that it has for the procedure.
    AskSteps {
        /// In which attempt.
        attempt: Uuid,
    },
    /// Send the current step, unless the agent already has it.
    RunStep {
        /// In which attempt.
        attempt: Uuid,
        /// Index into [`crate::node::StepRun::steps`].
        index: usize,
    },
    /// Ask how the current step is going.
    CheckStep {
        /// In which attempt.
        attempt: Uuid,
        /// Index into [`crate::node::StepRun::steps`].
        index: usize,
    },
    /// Power off, clear the override.
    TearDown {
        /// Of which attempt.
        attempt: Uuid,
    },
    /// What an operator asked for.
    SetPower {
        /// What to do.
        target: PowerTarget,
    },
}

impl Work {
    /// The attempt it is part of; work of an attempt that is over is not to be done any more.
    #[must_use]
    pub fn attempt(&self) -> Option<Uuid> {
        match self {
            Self::Boot { attempt }
            | Self::AskSteps { attempt }
            | Self::RunStep { attempt, .. }
            | Self::CheckStep { attempt, .. }
            | Self::TearDown { attempt } => Some(*attempt),
            Self::Verify | Self::SetPower { .. } => None,
        }
    }

    /// A short name for logs and the store.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Boot { .. } => "boot",
            Self::AskSteps { .. } => "ask steps",
            Self::RunStep { .. } => "run step",
            Self::CheckStep { .. } => "check step",
            Self::TearDown { .. } => "tear down",
            Self::SetPower { .. } => "set power",
        }
    }
}

/// How far a [`Work::Boot`] has come, written down before each call that changes something.
///
/// Whoever claims the work again knows from it whether a machine that is on was switched on by us
/// for this attempt, and so never cuts the power of a live agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootPhase {
    /// Nothing was sent.
    #[default]
    Untouched,
    /// The power was, or was about to be, switched off.
    PoweringOff,
    /// It was seen off; the override was, or was about to be, sent.
    Overriding,
    /// The override was read back; the reset was, or was about to be, sent.
    PoweringOn,
    /// The same, and this many looks after a restart of the daemon, a second apart, have shown the machine off.
    SeenOff(u8),
}
