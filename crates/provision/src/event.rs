//! Events of a node, and the resulting work.

use std::net::IpAddr;

use hardware::ShownBootMode;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use crate::node::Secret;
use crate::procedure::Verb;
use crate::state::{PowerState, PowerTarget};
use crate::step_failure::StepFailure;
use crate::steps::ProcedureStep;

/// An event, or a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A client requests a change of the provision state.
    VerbAsked(VerbRequest),
    /// An operator requests a change of the power state.
    PowerAsked(PowerTarget),
    /// The BMC's power state was read or changed.
    PowerSeen(PowerState),
    /// The BMC's boot mode and Secure Boot were read or changed.
    BootModeSeen(ShownBootMode),
    /// A change of the power state failed.
    PowerFailed(String),
    /// The BMC answered; with the power state, if it shows one, and the boot mode.
    Verified(Option<PowerState>, ShownBootMode),
    /// The BMC did not answer, or does not support it.
    VerifyFailed(String),
    /// The BMC has its boot override and the machine is on.
    Booting {
        /// The attempt.
        attempt: Uuid,
    },
    /// The boot override or the power-on failed.
    BootFailed {
        /// The attempt.
        attempt: Uuid,
        /// The reason.
        reason: String,
    },
    /// The instance's own image was fetched completely.
    ImageFetched {
        /// The attempt.
        attempt: Uuid,
    },
    /// The machine of an instance boots its image again, by itself.
    InstanceBoots {
        /// The attempt of the previous boot.
        attempt: Uuid,
        /// The attempt of this boot, with its own trace.
        next: Uuid,
    },
    /// The boot failed because the daemon was not running.
    BootMissed {
        /// The attempt.
        attempt: Uuid,
    },
    /// A lookup by an agent, which has no token yet.
    AgentLooksUp(AgentLookup),
    /// The machine has addresses that distinguish a lookup of its agent from a stranger's.
    AddressesSeen {
        /// The attempt.
        attempt: Uuid,
        /// Addresses that fetched the attempt's image.
        fetched: Vec<IpAddr>,
        /// Addresses that DHCP leased to the node's cards.
        leased: Vec<IpAddr>,
    },
    /// A heartbeat.
    AgentAlive(Heartbeat),
    /// The agent's list of steps.
    StepsReported {
        /// The attempt.
        attempt: Uuid,
        /// All steps.
        steps: Vec<ProcedureStep>,
        /// The agent's value, to be sent back with every step.
        hardware_manager_version: Value,
    },
    /// The agent accepted a step.
    StepStarted {
        /// The attempt.
        attempt: Uuid,
        /// The agent's ID of the command.
        command_id: String,
    },
    /// The current step succeeded.
    StepSucceeded {
        /// The attempt.
        attempt: Uuid,
        /// The agent's ID of the command.
        command_id: String,
    },
    /// The procedure cannot go on.
    StepFailed {
        /// The attempt.
        attempt: Uuid,
        /// The reason.
        failure: StepFailure,
    },
    /// The current step still runs: wait.
    StepStillRuns {
        /// The attempt.
        attempt: Uuid,
    },
    /// The agent was unreachable; it will call again.
    AgentSilent {
        /// The attempt.
        attempt: Uuid,
        /// The reason.
        reason: String,
    },
    /// A step of the daemon's own succeeded.
    BmcStepDone {
        /// The attempt.
        attempt: Uuid,
        /// Index into [`crate::steps::StepRun::steps`].
        index: usize,
        /// Whether it reset the machine.
        reset: bool,
    },
    /// A step of the daemon's own failed.
    BmcStepFailed {
        /// The attempt.
        attempt: Uuid,
        /// Index into [`crate::steps::StepRun::steps`].
        index: usize,
        /// The reason.
        reason: String,
    },
    /// The machine is off, and the override is cleared.
    TornDown {
        /// The attempt.
        attempt: Uuid,
    },
    /// The tear-down failed.
    TearDownFailed {
        /// The attempt.
        attempt: Uuid,
        /// The reason.
        reason: String,
    },
    /// Time has passed without another event.
    Tick {
        /// The silence, if the node waits.
        silence: Option<Silence>,
        /// The diagnosis of the silence.
        why: Option<String>,
    },
}

/// A verb with its arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct VerbRequest {
    /// The verb.
    pub verb: Verb,
    /// The steps of a `clean`, in order.
    pub steps: Vec<ProcedureStep>,
    /// The config drive of an `active` or `rebuild`: stored in `instance_info`, as in Ironic.
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

/// The silence of a machine, measured by a monotonic clock: stored times may predate a change of the system clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The time of the last sign of life: see [`last_heard`](crate::step::last_heard).
    pub since: Timestamp,
    /// The duration of the silence.
    pub lasts: SignedDuration,
}

/// A lookup (`GET /v1/lookup`), and the machine's addresses known to this daemon.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentLookup {
    /// The address of the lookup.
    pub from: IpAddr,
    /// Addresses that fetched the attempt's image.
    pub fetched: Vec<IpAddr>,
    /// Addresses that DHCP leased to the node's cards.
    pub leased: Vec<IpAddr>,
    /// The time of arrival, before any wait.
    pub at: Timestamp,
}

/// The contents of a heartbeat (`POST /v1/heartbeat/{uuid}`).
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat {
    /// The agent's token.
    pub agent_token: String,
    /// The URL of the agent's command API.
    pub callback_url: Url,
    /// The agent's version.
    pub agent_version: String,
    /// The certificate of the command API, in PEM.
    pub agent_verify_ca: Option<String>,
    /// The key by which the agent fetches the calls to it, if it does.
    pub channel_key: Option<Secret>,
    /// The time of arrival, before any wait.
    pub at: Timestamp,
}

/// A job for a worker; at most one per node, kept in the store until its result is an [`Event`].
///
/// A job may run twice if the daemon dies. So a worker with a second claim reads the real state first (power and
/// override at the BMC, the agent's command list).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Work {
    /// Check that the BMC answers and supports the boot interface.
    Verify,
    /// Switch off, set the boot override, switch on.
    Boot {
        /// The attempt.
        attempt: Uuid,
    },
    /// Request the agent's steps for the procedure.
    AskSteps {
        /// The attempt.
        attempt: Uuid,
    },
    /// Send the current step, unless the agent already has it.
    RunStep {
        /// The attempt.
        attempt: Uuid,
        /// Index into [`crate::steps::StepRun::steps`].
        index: usize,
    },
    /// Carry out the current step at the BMC.
    RunBmcStep {
        /// The attempt.
        attempt: Uuid,
        /// Index into [`crate::steps::StepRun::steps`].
        index: usize,
    },
    /// Read the progress of the current step.
    CheckStep {
        /// The attempt.
        attempt: Uuid,
        /// Index into [`crate::steps::StepRun::steps`].
        index: usize,
    },
    /// Switch off, clear the override.
    TearDown {
        /// The attempt.
        attempt: Uuid,
    },
    /// An operator's power request.
    SetPower {
        /// The target.
        target: PowerTarget,
    },
}

impl Work {
    /// The attempt of the work; work of an ended attempt is obsolete.
    #[must_use]
    pub fn attempt(&self) -> Option<Uuid> {
        match self {
            Self::Boot { attempt }
            | Self::AskSteps { attempt }
            | Self::RunStep { attempt, .. }
            | Self::RunBmcStep { attempt, .. }
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
            Self::RunBmcStep { .. } => "run BMC step",
            Self::CheckStep { .. } => "check step",
            Self::TearDown { .. } => "tear down",
            Self::SetPower { .. } => "set power",
        }
    }
}

/// The progress of a [`Work::Boot`], or of a [`Work::RunBmcStep`] with its reset, recorded before each call that changes something.
///
/// A later claim of the work reads from it whether a running machine was switched on for this attempt, and so never
/// cuts the power of a live agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootPhase {
    /// No call was made.
    #[default]
    Untouched,
    /// The power-off was made, or was about to be.
    PoweringOff,
    /// The machine was seen off; the override, or the BIOS attributes, were sent, or were about to be.
    Overriding,
    /// The override was verified; the reset was sent, or was about to be.
    PoweringOn,
    /// As before, and this many checks after a restart of the daemon, a second apart, have found the machine off.
    SeenOff(u8),
}
