//! The outcome of a DHCP packet: the reply, the lease records, and the contents of log and counters.

use std::fmt::{self, Display};
use std::net::IpAddr;

use dhcp::limits::Exceeded;
use provision::boot::bootable;
use provision::trace::DhcpAnswer;

use crate::boot_answer::BootAnswer;
use crate::dhcp_decision::DhcpDecision;
use crate::dhcp_request::DhcpRequest;
use crate::node_view::RegisteredPort;

/// The outcome of one packet.
#[derive(Debug)]
pub struct DhcpExchange<Reply, Record> {
    /// The reply, if there is one.
    pub reply: Option<Reply>,
    /// Records to write to the journal before the reply is sent, each with the position of its subnet.
    pub records: Vec<(usize, Record)>,
    /// The labels of its counter.
    pub labels: ExchangeLabels,
    /// The client's request and its result, or a packet that is not a request.
    pub outcome: Result<RequestOutcome, NoRequest>,
}

/// The labels of the counter of exchanges. All of them become constants, so that clients cannot create labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeLabels {
    /// `ipv4`, `ipv6`.
    pub family: &'static str,
    /// `DISCOVER`, `SOLICIT`, …, `unreadable`.
    pub message: &'static str,
    /// `http_client`, `system`, …, `unknown`.
    pub client: &'static str,
    /// The decision.
    pub decision: DhcpDecision,
}

/// A request, its boot answer and its result.
#[derive(Debug)]
pub struct RequestOutcome {
    /// The request.
    pub request: DhcpRequest,
    /// The boot answer.
    pub answer: BootAnswer,
    /// The result.
    pub result: RequestResult,
}

/// The result of a request.
#[derive(Debug)]
pub enum RequestResult {
    /// An offer of this address.
    Offered(IpAddr),
    /// An ACK (REPLY) for this address.
    Given(IpAddr),
    /// A boot answer; the address comes from another server.
    Beside,
    /// A refusal, with the reason.
    Refused(String),
    /// A message that needs no reply, or a reply that has nothing to do with a boot.
    Noted,
    /// No reply, with the reason.
    Silent(String),
    /// The client accepted another server's offer, and ours does not apply.
    OtherServer(String),
}

/// A packet that is not a client's request.
#[derive(Clone, Debug)]
pub struct NoRequest {
    kind: NoRequestKind,
    /// A description of the packet or of its error.
    pub why: String,
}

#[derive(Clone, Copy, Debug)]
enum NoRequestKind {
    /// An unreadable packet.
    Unreadable,
    /// A message between other parties than clients and servers, such as a lease query.
    OfOthers,
}

/// The reason for sending no reply to a request.
#[derive(Clone, Debug)]
pub struct NoReplyReason {
    /// The decision.
    pub decision: DhcpDecision,
    /// The reason, in words.
    pub because: String,
}

/// A packet without a reply, by the step that decided it.
#[derive(Debug)]
pub enum Unanswered {
    /// The packet is not a request.
    NoRequest(NoRequest),
    /// A request for another server, or from a machine that is ignored.
    Request(DhcpRequest, NoReplyReason),
}

impl ExchangeLabels {
    /// The labels of a request.
    #[must_use]
    pub fn of(request: &DhcpRequest, family: &'static str, decision: DhcpDecision) -> Self {
        Self { family, message: request.message, client: request.client.name(), decision }
    }
}

impl<Reply, Record> DhcpExchange<Reply, Record> {
    /// The exchange of a packet without a reply.
    pub(crate) fn unanswered(family: &'static str, unanswered: Unanswered) -> Self {
        let (labels, outcome) = match unanswered {
            Unanswered::NoRequest(packet) => {
                let (message, decision) = packet.kind.counted();
                let labels = ExchangeLabels { family, message, client: "unknown", decision };
                (labels, Err(packet))
            }
            Unanswered::Request(request, NoReplyReason { decision, because }) => {
                let labels = ExchangeLabels::of(&request, family, decision);
                let (answer, result) = (BootAnswer::NOTHING, RequestResult::Silent(because));
                (labels, Ok(RequestOutcome { request, answer, result }))
            }
        };
        Self { reply: None, records: Vec::new(), labels, outcome }
    }

    /// Withholds the reply, for a reason that has nothing to do with the machine.
    pub fn keep_back(&mut self, decision: DhcpDecision, because: &str) {
        self.reply = None;
        self.labels.decision = decision;
        if let Ok(outcome) = &mut self.outcome {
            outcome.result = RequestResult::Silent(because.to_owned());
        }
    }

    /// The client and its answer, for the log.
    #[must_use]
    pub fn in_words(&self) -> String {
        match &self.outcome {
            Err(packet) => packet.to_string(),
            Ok(outcome) => format!("{}: {}", outcome.request, outcome.in_words()),
        }
    }

    /// The answer alone, for the log.
    #[must_use]
    pub fn answer_in_words(&self) -> String {
        match &self.outcome {
            Err(packet) => packet.to_string(),
            Ok(outcome) => outcome.in_words(),
        }
    }
}

impl RequestOutcome {
    /// The answer for the trace; `None` if no reply was needed, or the reply has nothing to do with a boot.
    #[must_use]
    pub fn dhcp_answer(&self) -> Option<DhcpAnswer> {
        let artifact = self.answer.artifact;
        Some(match (&self.result, &self.answer.because) {
            (RequestResult::OtherServer(because), _) | (RequestResult::Silent(because), None) => {
                DhcpAnswer::Ignored { because: because.clone() }
            }
            (_, Some(because)) => because.clone(),
            (RequestResult::Noted, None) => return None,
            (RequestResult::Refused(because), None) => DhcpAnswer::Nak { because: because.clone() },
            (RequestResult::Offered(address), None) => {
                DhcpAnswer::Offer { address: *address, artifact }
            }
            (RequestResult::Beside, None) => DhcpAnswer::Beside { artifact },
            (RequestResult::Given(address), None) => {
                DhcpAnswer::Ack { address: *address, artifact }
            }
        })
    }

    fn in_words(&self) -> String {
        self.dhcp_answer().map_or_else(|| "noted".to_owned(), |answer| answer.to_string())
    }
}

impl NoReplyReason {
    /// The reason for ignoring an unregistered machine: nothing about it is kept.
    pub(crate) fn stranger() -> Self {
        let decision = DhcpDecision::Stranger;
        Self { decision, because: "this machine is not registered".to_owned() }
    }
}

impl From<Exceeded> for NoReplyReason {
    fn from(exceeded: Exceeded) -> Self {
        Self { decision: DhcpDecision::Exceeded(exceeded), because: exceeded.to_string() }
    }
}

impl NoRequest {
    /// A packet that is not read as a client's message, for this reason.
    pub(crate) fn of(why: &dyn Display, is_of_others: bool) -> Self {
        let kind = if is_of_others { NoRequestKind::OfOthers } else { NoRequestKind::Unreadable };
        Self { kind, why: why.to_string() }
    }
}

impl NoRequestKind {
    /// Its message label and its decision.
    fn counted(self) -> (&'static str, DhcpDecision) {
        match self {
            Self::Unreadable => ("unreadable", DhcpDecision::Unreadable),
            Self::OfOthers => ("of_others", DhcpDecision::OfOthers),
        }
    }
}

impl Display for NoRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            NoRequestKind::Unreadable => {
                write!(f, "unreadable DHCP message: {}", self.why)
            }
            NoRequestKind::OfOthers => write!(f, "not answered: {}", self.why),
        }
    }
}

/// The reason why a client has nothing to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NothingToBoot {
    /// The decision.
    pub decision: DhcpDecision,
    /// The reason, in words.
    pub because: String,
    /// Whether the operator configured it so.
    pub is_expected: bool,
}

impl NothingToBoot {
    /// The reason in an outcome that depends on the boot answer, not on the packet.
    #[must_use]
    pub fn of(outcome: &RequestOutcome, decision: DhcpDecision) -> Option<Self> {
        if !decision.is_nothing_to_boot() {
            return None;
        }
        let boots = |registered: &RegisteredPort| bootable(&registered.node).is_some();
        match outcome.answer.because.as_ref()? {
            DhcpAnswer::NoBoot { because } => Some(Self {
                decision: DhcpDecision::NoBoot(*because),
                because: because.to_string(),
                // A port that is disabled for booting says nothing about a machine that boots from another port.
                is_expected: !outcome.request.registered.as_ref().is_some_and(boots),
            }),
            DhcpAnswer::Ignored { because } => {
                let decision = DhcpDecision::NoUrl;
                Some(Self { decision, because: because.clone(), is_expected: false })
            }
            DhcpAnswer::Offer { .. }
            | DhcpAnswer::Ack { .. }
            | DhcpAnswer::Beside { .. }
            | DhcpAnswer::Nak { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use dhcp::client::Features;
    use dhcp::v4::decide::NoReply as NoReply4;
    use dhcp::v6::decide::NoReply as NoReply6;
    use hardware::architecture::X86_BIOS;
    use hardware::{ClientKind, Mac};
    use provision::boot::NoBoot;
    use provision::test_nodes::{boot_port, booting_node};
    use provision::{Node, ProvisionState};

    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const NOTHING: DhcpDecision = DhcpDecision::V4(NoReply4::Nothing);

    /// The outcome for PXE firmware of a node with nothing to boot.
    fn outcome(node: Node, because: NoBoot) -> RequestOutcome {
        let port = Arc::new(boot_port(node.uuid, MAC));
        let request = DhcpRequest {
            registered: Some(RegisteredPort { node: Arc::new(node), port }),
            message: "DISCOVER",
            mac: Some(MAC),
            client: ClientKind::PxeClient,
            architecture: None,
            features: Features::default(),
        };
        let because = Some(DhcpAnswer::NoBoot { because });
        let answer = BootAnswer { because, ..BootAnswer::NOTHING };
        RequestOutcome { request, answer, result: RequestResult::Silent("nothing".to_owned()) }
    }

    #[test]
    fn only_a_machine_that_is_to_boot_is_spoken_of() {
        let boots = outcome(booting_node(), NoBoot::PxeNotHttp);
        let boots = NothingToBoot::of(&boots, NOTHING).unwrap();
        let rests = Node { attempt: None, ..booting_node() };
        let rests = outcome(rests, NoBoot::PortNotEnabled);

        assert!(!boots.is_expected);
        assert!(boots.because.contains("asked for PXE, not HTTP"), "{}", boots.because);
        assert!(NothingToBoot::of(&rests, NOTHING).unwrap().is_expected);
        let other = DhcpDecision::V6(NoReply6::OtherServer);
        assert_eq!(NothingToBoot::of(&rests, other), None, "it is not about what to boot");
    }

    #[test]
    fn what_is_counted_is_explained_in_the_book() {
        let book = include_str!("../../../docs/book/src/dhcp.md");
        let cpu_arch = hardware::CpuArch::Arm64;
        let no_boots = [
            NoBoot::PortNotEnabled,
            NoBoot::NotNow { state: ProvisionState::Manageable },
            NoBoot::AgentHasCalled,
            NoBoot::PxeNotHttp,
            NoBoot::Architecture { architecture: X86_BIOS },
            NoBoot::NoBootSet { cpu_arch },
            NoBoot::OtherCpuArch { cpu_arch, image: cpu_arch },
            NoBoot::NoIpxe { cpu_arch },
            NoBoot::ArchitectureUnknown,
        ];

        let no_boots = no_boots.map(DhcpDecision::NoBoot);
        let others = [
            DhcpDecision::Stranger,
            DhcpDecision::V4(NoReply4::OtherServer(Ipv4Addr::UNSPECIFIED)),
            DhcpDecision::V4(NoReply4::NothingToBoot),
            DhcpDecision::V4(NoReply4::NotForAProxy),
            DhcpDecision::V6(NoReply6::NoAssociation),
            DhcpDecision::Nak,
            NOTHING,
            DhcpDecision::NoUrl,
            DhcpDecision::Unreadable,
            DhcpDecision::NotSent,
            DhcpDecision::NotWritten,
            DhcpDecision::Forged,
        ];

        for name in no_boots.into_iter().chain(others).map(DhcpDecision::name) {
            assert!(book.contains(&format!("`{name}`")), "{name} is not in the book");
        }
    }
}
