//! What happened in a boot attempt, exchange by exchange.

use std::fmt;
use std::net::IpAddr;

use hardware::{ClientArchitecture, ClientKind, Mac};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::boot::{Artifact, NoBoot};
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
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// The node changed its state.
    State {
        /// From.
        from: ProvisionState,
        /// To.
        to: ProvisionState,
        /// Why, where the states alone do not say it.
        reason: Option<String>,
    },
    /// A call to the BMC.
    Redfish {
        /// What it was for, in words: `boot override`, `power on`, ….
        purpose: String,
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
        name: String,
        /// What it was told, in words.
        told: String,
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
        /// Which call: `lookup`, `heartbeat`, or the command's name.
        call: String,
        /// What came of it, in words.
        result: String,
        /// Whether it came to what it should.
        ok: bool,
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
            Self::State { reason, .. } => shorten_all([reason]),
            Self::Redfish { purpose, method, path, error, .. } => {
                [purpose, method, path].into_iter().for_each(shorten);
                shorten_all([error]);
            }
            Self::Provider { name, told, error } => {
                [name, told].into_iter().for_each(shorten);
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
            Self::Agent { call, result, .. } => {
                [call, result].into_iter().for_each(shorten);
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
                and_why(f, reason.as_deref())
            }
            Self::Redfish { purpose, method, path, status, error } => {
                write!(f, "{purpose} ({method} {path}): ")?;
                match status {
                    Some(200) if error.is_none() => write!(f, "done")?,
                    Some(status) => write!(f, "{status}")?,
                    None => write!(f, "no answer")?,
                }
                and_why(f, error.as_deref())
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
                and_why(f, error.as_deref())
            }
            Self::LeftOut { events } => {
                write!(f, "{events} more events of this boot are not kept: there were too many")
            }
            Self::Agent { call, result, ok, caller } => {
                let failed = if *ok { "" } else { "failed: " };
                write!(f, "{call}: {failed}{result}")?;
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

fn and_why(f: &mut fmt::Formatter<'_>, why: Option<&str>) -> fmt::Result {
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
        let call = "漢".repeat(1_000_000);
        let what = What::Agent { call, result: "short".into(), ok: true, caller: None };

        let What::Agent { call, result, .. } = what.shortened() else { unreachable!("it is one") };

        assert!(call.len() <= TEXT && call.ends_with("漢…"), "{} bytes", call.len());
        assert_eq!(result, "short");
    }
}
