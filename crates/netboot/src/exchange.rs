//! The outcome of a DHCP packet: the reply, the lease records, and the contents of log and counters.

use std::fmt::{self, Display};
use std::net::IpAddr;

use dhcp::limits::Exceeded;
use provision::boot::bootable;
use provision::trace::DhcpAnswer;

use crate::boot_answer::BootAnswer;
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

/// The labels of the counter of exchanges. All values are constants, so that clients cannot create labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeLabels {
    /// `ipv4`, `ipv6`.
    pub family: &'static str,
    /// `DISCOVER`, `SOLICIT`, …, `unreadable`.
    pub message: &'static str,
    /// `http_client`, `system`, …, `unknown`.
    pub client: &'static str,
    /// `offer`, `ack`, `nak`, or the reason for no answer.
    pub decision: &'static str,
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
    /// Its message label.
    message: &'static str,
    /// Its decision label.
    decision: &'static str,
    /// A description of the packet or of its error.
    pub why: String,
}

/// The reason for sending no reply to a request.
#[derive(Clone, Debug)]
pub struct NoReplyReason {
    /// The decision label.
    pub decision: &'static str,
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

/// The decision label of an unreadable packet.
const UNREADABLE: &str = "unreadable";

/// Decision labels that indicate no fault.
pub const ORDINARY: [&str; 8] = [
    "stranger",
    "other_server",
    "not_now",
    "agent_has_called",
    "nothing_to_boot",
    "not_for_a_proxy",
    "not_for_us",
    // The machine was on another network, or away for long.
    "nak",
];

/// The decision labels of clients with nothing to boot.
pub const NOTHING_TO_BOOT: [&str; 2] = ["nothing", "nothing_to_boot"];

impl ExchangeLabels {
    /// Those of a request.
    #[must_use]
    pub fn of(request: &DhcpRequest, family: &'static str, decision: &'static str) -> Self {
        Self { family, message: request.message, client: request.client.name(), decision }
    }
}

impl<Reply, Record> DhcpExchange<Reply, Record> {
    /// The exchange of a packet without a reply.
    pub(crate) fn unanswered(family: &'static str, unanswered: Unanswered) -> Self {
        let (labels, outcome) = match unanswered {
            Unanswered::NoRequest(packet) => {
                let NoRequest { message, decision, .. } = packet;
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
    pub fn keep_back(&mut self, decision: &'static str, because: &str) {
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
        Self { decision: "stranger", because: "this machine is not registered".to_owned() }
    }
}

impl From<Exceeded> for NoReplyReason {
    fn from(exceeded: Exceeded) -> Self {
        Self { decision: exceeded.name(), because: exceeded.to_string() }
    }
}

impl NoRequest {
    /// An unreadable packet.
    pub(crate) fn unreadable(why: &dyn Display) -> Self {
        Self { message: UNREADABLE, decision: UNREADABLE, why: why.to_string() }
    }

    /// A message between other parties than clients and servers, such as a lease query.
    pub(crate) fn of_others(why: &dyn Display) -> Self {
        Self { message: "of_others", decision: "not_a_clients_message", why: why.to_string() }
    }
}

impl Display for NoRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decision {
            UNREADABLE => write!(f, "unreadable DHCP message: {}", self.why),
            _ => write!(f, "not answered: {}", self.why),
        }
    }
}

/// The reason why a client has nothing to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NothingToBoot {
    /// The decision label.
    pub decision: &'static str,
    /// The reason, in words.
    pub because: String,
    /// Whether the operator configured it so.
    pub is_expected: bool,
}

impl NothingToBoot {
    /// The reason in an outcome that depends on the boot answer, not on the packet.
    #[must_use]
    pub fn of(outcome: &RequestOutcome, decision: &str) -> Option<Self> {
        if !NOTHING_TO_BOOT.contains(&decision) {
            return None;
        }
        let boots = |registered: &RegisteredPort| bootable(&registered.node).is_some();
        match outcome.answer.because.as_ref()? {
            DhcpAnswer::NoBoot { because } => Some(Self {
                decision: because.name(),
                because: because.to_string(),
                // A port that is disabled for booting says nothing about a machine that boots from another port.
                is_expected: !outcome.request.registered.as_ref().is_some_and(boots),
            }),
            DhcpAnswer::Ignored { because } => {
                Some(Self { decision: "no_url", because: because.clone(), is_expected: false })
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
    use std::sync::Arc;

    use dhcp::client::Features;
    use hardware::architecture::X86_BIOS;
    use hardware::{ClientKind, Mac};
    use provision::boot::NoBoot;
    use provision::test_nodes::{boot_port, booting_node};
    use provision::{Node, ProvisionState};

    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

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
        let boots = NothingToBoot::of(&boots, "nothing").unwrap();
        let rests = Node { attempt: None, ..booting_node() };
        let rests = outcome(rests, NoBoot::PortNotEnabled);

        assert!(!boots.is_expected);
        assert!(boots.because.contains("asked for PXE, not HTTP"), "{}", boots.because);
        assert!(NothingToBoot::of(&rests, "nothing").unwrap().is_expected);
        assert_eq!(NothingToBoot::of(&rests, "other_server"), None, "it is not about what to boot");
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

        let names = no_boots.map(NoBoot::name).into_iter().chain(ORDINARY).chain(NOTHING_TO_BOOT);

        for name in names.chain(["no_url", "unreadable", "not_sent", "not_written", "forged"]) {
            assert!(book.contains(&format!("`{name}`")), "{name} is not in the book");
        }
    }
}
