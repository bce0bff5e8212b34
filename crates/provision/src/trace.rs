//! What happened in a boot attempt, exchange by exchange.
//!
//! Events are types, and their words are made where they are shown. Texts of others stand beside the types.

mod agent_call;
mod announcement;
mod older_rows;
mod transition_reason;

use std::fmt;
use std::net::IpAddr;

use hardware::{ClientArchitecture, ClientKind, Mac, RedfishPurpose};
use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

pub use self::agent_call::{AgentCall, AgentOutcome};
pub use self::announcement::{AnnouncementCause, BootAnnouncement, DhcpService};
pub use self::transition_reason::TransitionReason;
use crate::boot::{Artifact, NoBoot};
use crate::procedure::Stage;
use crate::refused::Refused;
use crate::state::ProvisionState;

/// One exchange of one attempt of one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BootEvent {
    /// When it was over.
    pub at: Timestamp,
    /// Of which attempt.
    pub attempt: Uuid,
    /// What it was.
    #[serde(flatten)]
    pub what: What,
}

impl BootEvent {
    /// The same with [short](What::shortened) texts.
    #[must_use]
    pub fn shortened(self) -> Self {
        Self { what: self.what.shortened(), ..self }
    }
}

/// What an exchange was. Never holds a ticket, token or password.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// The node changed its state.
    State {
        /// From.
        from: ProvisionState,
        /// To.
        to: ProvisionState,
        /// Why, where the states alone do not say it.
        reason: Option<TransitionReason>,
    },
    /// A call to the BMC.
    Redfish {
        /// What it was for.
        purpose: RedfishPurpose,
        /// The HTTP method.
        method: String,
        /// The path.
        path: String,
        /// The answer's status, if one came.
        status: Option<u16>,
        /// What went wrong, in the BMC's or the transport's words.
        error: Option<String>,
    },
    /// A DHCP service that is not ours was told what the machine boots, or to forget it.
    Provider {
        /// Which service.
        name: DhcpService,
        /// What it was told.
        told: BootAnnouncement,
        /// Why it could not be told.
        error: Option<String>,
    },
    /// A DHCP message and its answer.
    Dhcp {
        /// `DISCOVER`, `REQUEST`, ….
        message: String,
        /// From which of the node's ports.
        mac: Mac,
        /// What sort of client sent it.
        client: ClientKind,
        /// Option 93.
        architecture: Option<ClientArchitecture>,
        /// What it got.
        answer: DhcpAnswer,
        /// How many exchanges like it came in quick succession before it, and are not listed.
        #[serde(default, skip_serializing_if = "is_zero")]
        unlisted: u32,
    },
    /// A request to the boot listener.
    Http {
        /// `HEAD` or `GET`.
        method: String,
        /// Which file; `None` if there is none of that name.
        artifact: Option<Artifact>,
        /// The path without its ticket.
        path: String,
        /// From where.
        remote: Option<IpAddr>,
        /// Its `User-Agent`.
        user_agent: Option<String>,
        /// The answer's status.
        status: u16,
        /// Why, for an error.
        error: Option<String>,
        /// `Content-Range`, where a part was asked for.
        range: Option<String>,
        /// Bytes of the body that were sent.
        sent: u64,
        /// Bytes of the body that there were to send.
        length: u64,
        /// Milliseconds from the request to the last byte.
        millis: u64,
    },
    /// The agent called, or was called.
    Agent {
        /// Which call.
        #[serde(flatten)]
        call: AgentCall,
        /// What came of it.
        #[serde(flatten)]
        outcome: AgentOutcome,
        /// Who called us; `None` if we called the agent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        caller: Option<AgentCaller>,
    },
    /// Events of the attempt that are not kept, since there were too many.
    LeftOut {
        /// How many.
        events: u64,
    },
}

impl Serialize for What {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for What {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let event = Map::<String, Value>::deserialize(deserializer)?;
        let event = Value::Object(older_rows::in_present_form(event));
        Self::deserialize(event).map_err(D::Error::custom)
    }
}

/// The part of a trace since the machine was last started, which may be within its attempt.
pub(crate) fn latest_boot(events: &[BootEvent]) -> &[BootEvent] {
    let start = events.iter().rposition(|event| match &event.what {
        What::State { from, to, reason } => {
            let begins = from.stage() != Some(Stage::Waiting) || from.procedure() != to.procedure();
            let boots_again =
                matches!(reason, Some(TransitionReason::StepReboot | TransitionReason::BootMissed));
            to.stage() == Some(Stage::AtWork) && (begins || boots_again)
        }
        What::Redfish { .. }
        | What::Provider { .. }
        | What::Dhcp { .. }
        | What::Http { .. }
        | What::Agent { .. }
        | What::LeftOut { .. } => false,
    });
    &events[start.unwrap_or(0)..]
}

/// Who called as an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentCaller {
    /// From where.
    pub remote: IpAddr,
    /// Whether that address was known to be the machine's, or the call had the attempt's token.
    pub is_known: bool,
    /// Why the call was refused, if it was for one of these reasons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<CallRefusal>,
    /// How many calls like it came before it, since the last that is listed, and are not listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unlisted: u32,
}

/// Why the call of an agent was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallRefusal {
    /// The state expects no agent, or the machine was not switched on when the call came.
    NotNow,
    /// The address is not known to be the machine's, and the answer would hold the token.
    ForeignAddress,
    /// The token was given to another address.
    TokenTaken,
    /// The token is not the attempt's.
    WrongToken,
    /// Another agent owns the token.
    SecondAgent,
}

impl CallRefusal {
    /// What a refusal is called in a trace; `None` for what concerns no agent.
    #[must_use]
    pub fn of(refused: &Refused) -> Option<Self> {
        match refused {
            Refused::NoAgentExpected { .. }
            | Refused::LookupTooEarly(_)
            | Refused::HeartbeatTooEarly(_)
            | Refused::TokenJustGiven { .. } => Some(Self::NotNow),
            Refused::ForeignLookup(_) => Some(Self::ForeignAddress),
            Refused::TokenTaken { .. } => Some(Self::TokenTaken),
            Refused::WrongToken(_) => Some(Self::WrongToken),
            Refused::SecondAgent { .. } => Some(Self::SecondAgent),
            Refused::InvalidState { .. }
            | Refused::NoSteps
            | Refused::Busy { .. }
            | Refused::InMaintenance { .. }
            | Refused::Retired { .. }
            | Refused::StaysOn(_)
            | Refused::PowersOff { .. }
            | Refused::Protected { .. }
            | Refused::NoInstanceImage { .. }
            | Refused::NotBuilt(_)
            | Refused::Stale => None,
        }
    }
}

/// Bytes of a text in an event: others' words are kept up to here.
const TEXT: usize = 1_024;

impl What {
    /// The same with each text cut to a kibibyte: machines, BMCs and agents say what they like, and it is all stored.
    #[must_use]
    pub fn shortened(mut self) -> Self {
        match &mut self {
            Self::State { reason, .. } => {
                reason.iter_mut().flat_map(TransitionReason::texts).for_each(shorten);
            }
            Self::Redfish { method, path, error, .. } => {
                [method, path].into_iter().for_each(shorten);
                shorten_all([error]);
            }
            Self::Provider { told, error, .. } => {
                told.texts().for_each(shorten);
                shorten_all([error]);
            }
            Self::Dhcp { message, answer, .. } => {
                shorten(message);
                match answer {
                    DhcpAnswer::Nak { because } | DhcpAnswer::Ignored { because } => {
                        shorten(because);
                    }
                    DhcpAnswer::Offer { .. }
                    | DhcpAnswer::Ack { .. }
                    | DhcpAnswer::Beside { .. }
                    | DhcpAnswer::NoBoot { .. } => {}
                }
            }
            Self::Http { method, path, user_agent, error, range, .. } => {
                [method, path].into_iter().for_each(shorten);
                shorten_all([user_agent, error, range]);
            }
            Self::Agent { call, outcome, .. } => {
                call.text().into_iter().chain(outcome.texts()).for_each(shorten);
            }
            Self::LeftOut { .. } => {}
        }
        self
    }

    /// Which part of a boot it belongs to, as one word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::State { .. } => "state",
            Self::Redfish { .. } => "redfish",
            Self::Provider { .. } => "provider",
            Self::Dhcp { .. } => "dhcp",
            Self::Http { .. } => "http",
            Self::Agent { .. } => "agent",
            Self::LeftOut { .. } => "left_out",
        }
    }
}

/// One line, for a timeline.
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State { from, to, reason } => {
                write!(f, "{from} → {to}")?;
                and_why(f, reason.as_ref())
            }
            Self::Redfish { purpose, method, path, status, error } => {
                write!(f, "{purpose} ({method} {path}): ")?;
                match status {
                    Some(200) if error.is_none() => write!(f, "done")?,
                    Some(status) => write!(f, "{status}")?,
                    None => write!(f, "no answer")?,
                }
                and_why(f, error.as_ref())
            }
            Self::Provider { name, told, error: None } => write!(f, "{name} was told {told}"),
            Self::Provider { name, told, error: Some(error) } => {
                write!(f, "{name} could not be told {told} ({error})")
            }
            Self::Dhcp { message, mac, client, architecture, answer, unlisted } => {
                write!(f, "{message} from {client} at {mac}")?;
                if let Some(architecture) = architecture {
                    write!(f, ", {}", architecture)?;
                }
                write!(f, ": {answer}")?;
                match unlisted {
                    0 => Ok(()),
                    more => write!(f, " (after {more} more like it within seconds)"),
                }
            }
            Self::Http { method, path, status, error, sent, length, millis, .. } => {
                write!(f, "{method} {path}: {status}")?;
                if sent < length && method != "HEAD" {
                    write!(f, ", {sent} of {length} bytes in {millis} ms")?;
                } else if *sent > 0 {
                    write!(f, ", {sent} bytes in {millis} ms")?;
                }
                and_why(f, error.as_ref())
            }
            Self::LeftOut { events } => {
                write!(f, "{events} more events of this boot are not kept: there were too many")
            }
            Self::Agent { call, outcome, caller } => {
                write!(f, "{call}: {outcome}")?;
                match caller {
                    None | Some(AgentCaller { unlisted: 0, .. }) => Ok(()),
                    Some(AgentCaller { unlisted, .. }) => {
                        write!(f, " (after {unlisted} more like it)")
                    }
                }
            }
        }
    }
}

fn shorten_all<const N: usize>(texts: [&mut Option<String>; N]) {
    texts.into_iter().flatten().for_each(shorten);
}

fn shorten(text: &mut String) {
    const MORE: &str = "…";
    if text.len() > TEXT {
        text.truncate(text.floor_char_boundary(TEXT - MORE.len()));
        text.push_str(MORE);
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn and_why(f: &mut fmt::Formatter<'_>, why: Option<&impl fmt::Display>) -> fmt::Result {
    why.map_or(Ok(()), |why| write!(f, " ({why})"))
}

/// What a DHCP client got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum DhcpAnswer {
    /// An offer.
    Offer {
        /// The address.
        address: IpAddr,
        /// What to boot, if told.
        artifact: Option<Artifact>,
    },
    /// An acknowledgement.
    Ack {
        /// The address.
        address: IpAddr,
        /// What to boot, if told.
        artifact: Option<Artifact>,
    },
    /// What to boot, beside the address that another server gives it.
    Beside {
        /// What to boot.
        artifact: Option<Artifact>,
    },
    /// A refusal of the address it asked for.
    Nak {
        /// In words.
        because: String,
    },
    /// Nothing, since it should not boot.
    NoBoot {
        /// Why.
        because: NoBoot,
    },
    /// Nothing, for a reason of DHCP itself: another server chosen, pool exhausted.
    Ignored {
        /// In words.
        because: String,
    },
}

impl fmt::Display for DhcpAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gives = |what, address, artifact: &Option<Artifact>| match artifact {
            Some(artifact) => write!(f, "{what} {address}, to boot {}", artifact.file_name()),
            None => write!(f, "{what} {address}"),
        };
        match self {
            Self::Offer { address, artifact } => gives("offered", address, artifact),
            Self::Ack { address, artifact } => gives("given", address, artifact),
            Self::Beside { artifact: Some(artifact) } => {
                write!(f, "told to boot {}; another server gives addresses", artifact.file_name())
            }
            Self::Beside { artifact: None } => {
                f.write_str("told what to boot; another server gives addresses")
            }
            Self::Nak { because } => write!(f, "refused: {because}"),
            Self::NoBoot { because } => write!(f, "not answered: {because}"),
            Self::Ignored { because } => write!(f, "not answered: {because}"),
        }
    }
}

#[cfg(test)]
mod length_tests {
    use super::*;

    #[test]
    fn a_text_of_others_is_cut_between_two_characters() {
        let error = "漢".repeat(1_000_000);
        let outcome = AgentOutcome::Failed { error };
        let what = What::Agent { call: AgentCall::Lookup, outcome, caller: None };

        let What::Agent { outcome, .. } = what.shortened() else { unreachable!("it is one") };

        let error = outcome.error().unwrap();
        assert!(error.len() <= TEXT && error.ends_with("漢…"), "{} bytes", error.len());
    }
}
