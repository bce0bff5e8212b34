//! The trace: the events of a boot attempt, exchange by exchange.
//!
//! Events are types; their texts are made when they are shown. Texts of other parties are kept beside the types.

mod agent_call;
mod announcement;
mod older_rows;
mod tls_failure;
mod transition_reason;

use std::fmt;
use std::net::IpAddr;

use hardware::{
    BmcObservation, BootChange, BootWayKind, ClientArchitecture, ClientKind, HttpMethod, Mac,
    RedfishPurpose,
};
use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

pub use self::agent_call::{AgentCall, AgentOutcome};
pub use self::announcement::{AnnouncementCause, BootAnnouncement, DhcpService};
pub use self::tls_failure::{HandshakePort, TlsFailure};
pub use self::transition_reason::TransitionReason;
use crate::artifact::Artifact;
use crate::boot::NoBoot;
use crate::procedure::Stage;
use crate::refused::Refused;
use crate::state::ProvisionState;

/// One exchange of a node's attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BootEvent {
    /// The time of its end.
    pub at: Timestamp,
    /// The attempt.
    pub attempt: Uuid,
    /// The exchange.
    #[serde(flatten)]
    pub what: BootEventKind,
}

impl BootEvent {
    /// The event with [shortened](BootEventKind::shortened) texts.
    #[must_use]
    pub fn shortened(self) -> Self {
        Self { what: self.what.shortened(), ..self }
    }
}

/// An exchange. Never contains a ticket, token or password.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", tag = "kind", rename_all = "snake_case")]
pub enum BootEventKind {
    /// The node changed its state.
    State {
        /// The former state.
        from: ProvisionState,
        /// The new state.
        to: ProvisionState,
        /// The reason, if the states do not imply it.
        reason: Option<TransitionReason>,
    },
    /// A call to the BMC.
    Redfish {
        /// The purpose.
        purpose: RedfishPurpose,
        /// The HTTP method.
        method: HttpMethod,
        /// The path.
        path: String,
        /// The answer's status, if one came.
        status: Option<u16>,
        /// The error, in the BMC's or the transport's words.
        error: Option<String>,
    },
    /// The way in which the BMC has its machine boot over HTTP.
    BootWay {
        /// The way.
        way: BootWayKind,
        /// The platform of the BMC.
        platform: String,
        /// The path of the resource that takes the boot.
        resource: String,
        /// What an operator should know about it, in sentences.
        warnings: Vec<String>,
        /// What the boot changes at the BMC beside the boot override, to be undone afterwards.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        changes: Vec<BootChange>,
    },
    /// What the BMC shows of the boot, where it differs from what was shown before.
    BmcShows {
        /// The observation.
        #[serde(flatten)]
        observation: BmcObservation,
    },
    /// An external DHCP service got a machine's boot, or its removal.
    Provider {
        /// The service.
        name: DhcpService,
        /// The announcement.
        told: BootAnnouncement,
        /// The reason for a failure.
        error: Option<String>,
    },
    /// A DHCP message and its answer.
    Dhcp {
        /// `DISCOVER`, `REQUEST`, ….
        message: String,
        /// The port's MAC address.
        mac: Mac,
        /// The kind of client.
        client: ClientKind,
        /// The architecture (option 93).
        architecture: Option<ClientArchitecture>,
        /// The answer.
        answer: DhcpAnswer,
        /// Number of equal exchanges in quick succession before this one, which are not listed.
        #[serde(default, skip_serializing_if = "is_zero")]
        unlisted: u32,
    },
    /// A request to the boot listener.
    Http {
        /// `HEAD` or `GET`.
        method: HttpMethod,
        /// The artifact; `None` if the name is unknown.
        artifact: Option<Artifact>,
        /// The path without its ticket.
        path: String,
        /// The client's address.
        remote: Option<IpAddr>,
        /// Its `User-Agent`.
        user_agent: Option<String>,
        /// The answer's status.
        status: u16,
        /// The error.
        error: Option<String>,
        /// `Content-Range` of a partial answer.
        range: Option<String>,
        /// Number of body bytes sent.
        sent: u64,
        /// Number of body bytes to send.
        length: u64,
        /// Time from the request to the last byte, in milliseconds.
        millis: u64,
        /// What the TLS handshake agreed on, such as `TLSv1.2, ECDHE-RSA-AES128-GCM-SHA256, certificate with RSA`;
        /// `None` in clear.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tls: Option<String>,
    },
    /// A TLS handshake with one of the service's ports for machines failed.
    TlsHandshake {
        /// The client's address, which the machine has.
        remote: IpAddr,
        /// The reason.
        failure: TlsFailure,
        /// The port.
        #[serde(default, skip_serializing_if = "HandshakePort::is_boot")]
        port: HandshakePort,
        /// Number of booting machines at the address, as behind NAT. Any of them may be the client.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        machines: u32,
    },
    /// The last byte of an instance's image is about to be sent, after all others. It is saved before that byte leaves,
    /// since a killed daemon cannot record the end of the fetch.
    LastByte {
        /// The artifact.
        artifact: Artifact,
        /// `Content-Range` of a partial answer.
        range: Option<String>,
        /// Number of body bytes to send, with the last one.
        length: u64,
    },
    /// A call from or to the agent.
    Agent {
        /// The call.
        #[serde(flatten)]
        call: AgentCall,
        /// The outcome.
        #[serde(flatten)]
        outcome: AgentOutcome,
        /// The caller; `None` if the daemon called the agent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        caller: Option<AgentCaller>,
    },
    /// Dropped events of the attempt: there were too many.
    LeftOut {
        /// Number of dropped events.
        events: u64,
    },
}

impl Serialize for BootEventKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for BootEventKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let event = Map::<String, Value>::deserialize(deserializer)?;
        let event = Value::Object(older_rows::in_present_form(event));
        Self::deserialize(event).map_err(D::Error::custom)
    }
}

/// The part of a trace since the last start of the machine, which may be within its attempt.
pub(crate) fn latest_boot(events: &[BootEvent]) -> &[BootEvent] {
    let start = events.iter().rposition(|event| match &event.what {
        BootEventKind::State { from, to, reason } => {
            let begins = from.stage() != Some(Stage::Waiting) || from.procedure() != to.procedure();
            let boots_again = matches!(
                reason,
                Some(TransitionReason::StepReboot { .. } | TransitionReason::BootMissed)
            );
            to.stage() == Some(Stage::AtWork) && (begins || boots_again)
        }
        BootEventKind::Redfish { .. }
        | BootEventKind::BootWay { .. }
        | BootEventKind::BmcShows { .. }
        | BootEventKind::Provider { .. }
        | BootEventKind::Dhcp { .. }
        | BootEventKind::Http { .. }
        | BootEventKind::TlsHandshake { .. }
        | BootEventKind::LastByte { .. }
        | BootEventKind::Agent { .. }
        | BootEventKind::LeftOut { .. } => false,
    });
    &events[start.unwrap_or(0)..]
}

/// The caller of an agent's call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentCaller {
    /// The caller's address.
    pub remote: IpAddr,
    /// Whether the address was known to be the machine's, or the call had the attempt's token.
    pub is_known: bool,
    /// The reason for a refusal, if it is one of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<CallRefusal>,
    /// Number of equal calls since the last listed one, which are not listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unlisted: u32,
}

/// The reason for refusing a call of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallRefusal {
    /// The state expects no agent, or the call arrived before the machine was switched on.
    NotNow,
    /// The address is not known to be the machine's, and the answer would contain the token.
    ForeignAddress,
    /// The token was given to another address.
    TokenTaken,
    /// The token is not this attempt's.
    WrongToken,
    /// Another agent owns the token.
    SecondAgent,
}

impl CallRefusal {
    /// The trace's name of a refusal; `None` for refusals that concern no agent.
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

/// Largest size of another party's text in an event, in bytes.
const TEXT: usize = 1_024;

impl BootEventKind {
    /// The same with each text cut to a kibibyte: machines, BMCs and agents choose these texts, and all are stored.
    #[must_use]
    pub fn shortened(mut self) -> Self {
        match &mut self {
            Self::State { reason, .. } => {
                reason.iter_mut().flat_map(TransitionReason::texts).for_each(shorten);
            }
            Self::Redfish { method, path, error, .. } => {
                method.text().into_iter().chain([path]).for_each(shorten);
                shorten_all([error]);
            }
            // The changes are ours to undo, and stay whole.
            Self::BootWay { platform, resource, warnings, .. } => {
                [platform, resource].into_iter().chain(warnings).for_each(shorten);
            }
            Self::BmcShows { observation } => observation.texts().for_each(shorten),
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
                method.text().into_iter().chain([path]).for_each(shorten);
                shorten_all([user_agent, error, range]);
            }
            Self::Agent { call, outcome, .. } => {
                call.text().into_iter().chain(outcome.texts()).for_each(shorten);
            }
            Self::TlsHandshake { failure, .. } => failure.text().into_iter().for_each(shorten),
            Self::LastByte { range, .. } => shorten_all([range]),
            Self::LeftOut { .. } => {}
        }
        self
    }

    /// The part of the boot that the event belongs to, as one word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::State { .. } => "state",
            Self::Redfish { .. } | Self::BootWay { .. } | Self::BmcShows { .. } => "redfish",
            Self::Provider { .. } => "provider",
            Self::Dhcp { .. } => "dhcp",
            Self::Http { .. } => "http",
            Self::TlsHandshake { .. } => "tls",
            Self::LastByte { .. } => "last_byte",
            Self::Agent { .. } => "agent",
            Self::LeftOut { .. } => "left_out",
        }
    }
}

/// One line, for a timeline.
impl fmt::Display for BootEventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State { from, to, reason } => {
                write!(f, "{from} → {to}")?;
                and_why(f, reason.as_ref())
            }
            Self::Redfish { purpose, method, path, status, error } => {
                write!(f, "{purpose} ({method} {path}): ")?;
                match status {
                    Some(200..300) if error.is_none() => write!(f, "done")?,
                    Some(status) => write!(f, "{status}")?,
                    None => write!(f, "no answer")?,
                }
                and_why(f, error.as_ref())
            }
            Self::BootWay { way, platform, resource, warnings, .. } => {
                write!(f, "the BMC ({platform}) boots the machine by {way} at {resource}")?;
                warnings.iter().try_for_each(|warning| write!(f, "; {warning}"))
            }
            Self::BmcShows { observation } => observation.fmt(f),
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
            Self::Http { method, path, status, error, sent, length, millis, tls, .. } => {
                write!(f, "{method} {path}: {status}")?;
                if sent < length && *method != HttpMethod::Head {
                    write!(f, ", {sent} of {length} bytes in {millis} ms")?;
                } else if *sent > 0 {
                    write!(f, ", {sent} bytes in {millis} ms")?;
                }
                tls.iter().try_for_each(|tls| write!(f, " over {tls}"))?;
                and_why(f, error.as_ref())
            }
            Self::TlsHandshake { remote, failure, port, machines } => {
                write!(f, "the TLS handshake of {remote}")?;
                match port {
                    HandshakePort::Boot => {}
                    HandshakePort::Agents => write!(f, " with {port}")?,
                }
                write!(f, " failed: {failure}")?;
                match machines {
                    0 | 1 => Ok(()),
                    several => write!(f, " (one of {several} booting machines at this address)"),
                }
            }
            Self::LastByte { artifact, length, .. } => {
                let (name, sent) = (artifact.file_name(), length.saturating_sub(1));
                write!(f, "{name}: {sent} of {length} bytes sent, the last one follows")
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

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_one(number: &u32) -> bool {
    *number == 1
}

fn and_why(f: &mut fmt::Formatter<'_>, why: Option<&impl fmt::Display>) -> fmt::Result {
    why.map_or(Ok(()), |why| write!(f, " ({why})"))
}

/// The answer to a DHCP client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum DhcpAnswer {
    /// An offer.
    Offer {
        /// The address.
        address: IpAddr,
        /// The artifact to boot, if any.
        artifact: Option<Artifact>,
    },
    /// An acknowledgement.
    Ack {
        /// The address.
        address: IpAddr,
        /// The artifact to boot, if any.
        artifact: Option<Artifact>,
    },
    /// A boot answer; another server leases the address.
    Beside {
        /// The artifact to boot.
        artifact: Option<Artifact>,
    },
    /// A refusal of the requested address.
    Nak {
        /// The reason.
        because: String,
    },
    /// No answer, since the machine should not boot.
    NoBoot {
        /// The reason.
        because: NoBoot,
    },
    /// No answer, for a reason of DHCP: another server chosen, pool exhausted.
    Ignored {
        /// The reason.
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
        let what = BootEventKind::Agent { call: AgentCall::Lookup, outcome, caller: None };

        let BootEventKind::Agent { outcome, .. } = what.shortened() else {
            unreachable!("it is one")
        };

        let error = outcome.error().unwrap();
        assert!(error.len() <= TEXT && error.ends_with("漢…"), "{} bytes", error.len());
    }
}

#[cfg(test)]
mod handshake_tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_older_row_of_a_handshake_is_one_machines_at_the_boot_listener_and_stays_as_it_is() {
        let row = json!({ "kind": "tls_handshake", "remote": "192.0.2.7", "failure": { "reason": "closed" } });

        let what: BootEventKind = serde_json::from_value(row.clone()).unwrap();

        let failure = TlsFailure::Closed;
        let (remote, port) = ([192, 0, 2, 7].into(), HandshakePort::Boot);
        assert_eq!(what, BootEventKind::TlsHandshake { remote, failure, port, machines: 1 });
        assert_eq!(serde_json::to_value(what).unwrap(), row);
    }

    #[test]
    fn a_handshake_of_several_machines_says_so_and_names_its_port() {
        let what = BootEventKind::TlsHandshake {
            remote: [192, 0, 2, 7].into(),
            failure: TlsFailure::PlainPort,
            port: HandshakePort::Agents,
            machines: 3,
        };

        let text = "the TLS handshake of 192.0.2.7 with the agents' port failed: it speaks TLS on a port for plain \
                    HTTP (one of 3 booting machines at this address)";
        assert_eq!(what.to_string(), text);
        let row = serde_json::to_value(&what).unwrap();
        assert_eq!(serde_json::from_value::<BootEventKind>(row).unwrap(), what);
    }
}
