//! What the desks and the counters hand each other.

use std::fmt;
use std::net::IpAddr;

use dhcp::Answer;
use dhcp::client::Features;
use hardware::{ClientArchitecture, ClientKind, Mac};
use nodes::FoundPort;
use provision::boot::Artifact;
use provision::trace::DhcpAnswer;
use uuid::Uuid;

use super::metrics::DhcpMessage;

/// What comes of a packet: an answer, what must be in the journal before it leaves, and what is said
/// of it afterwards.
#[derive(Debug)]
pub(super) struct Heard<Reply, Record> {
    pub(super) reply: Option<Reply>,
    /// Each with the place of its subnet.
    pub(super) records: Vec<(usize, Record)>,
    pub(super) counted: DhcpMessage,
    /// What there is to say of it; nothing, where it cannot be read.
    pub(super) story: Option<Story>,
    /// Why it cannot be read, or whose it is if it is no client's.
    pub(super) unreadable: Option<String>,
}

/// What [`Heard::unreadable`] is counted as.
pub(super) const UNREADABLE: &str = "unreadable";

/// A message of a machine, what it is told, and what came of it.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) asked: Asked,
    pub(super) told: Told,
    pub(super) done: Done,
}

/// A message of a machine.
#[derive(Debug)]
pub(super) struct Asked {
    /// `None` if nobody registered the machine.
    pub(super) found: Option<FoundPort>,
    pub(super) message: &'static str,
    pub(super) mac: Option<Mac>,
    pub(super) client: ClientKind,
    /// By which it is told what to boot, of those that it names.
    pub(super) architecture: Option<ClientArchitecture>,
    /// What it says that it can do, if it is iPXE.
    pub(super) features: Features,
}

/// What a machine is to be told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) answer: Answer,
    pub(super) artifact: Option<Artifact>,
    /// Why nothing, if nothing.
    pub(super) because: Option<DhcpAnswer>,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Done {
    Offered(IpAddr),
    Given(IpAddr),
    /// Told what to boot, beside another server's address.
    Beside,
    Refused(String),
    /// A message that wants no answer, or none that says anything of a boot.
    Noted,
    Silent(String),
    /// The client took another server's offer: it is that server's, whatever it were told here.
    Others(String),
}

impl<Reply, Record> Heard<Reply, Record> {
    /// Nobody can say what it is.
    pub(super) fn unreadable(family: &'static str, why: String) -> Self {
        Self::unheard(family, UNREADABLE, UNREADABLE, why)
    }

    /// It is a message between others than clients and servers, such as a lease query.
    pub(super) fn of_others(family: &'static str, why: String) -> Self {
        Self::unheard(family, "of_others", "not_a_clients_message", why)
    }

    fn unheard(
        family: &'static str,
        message: &'static str,
        decision: &'static str,
        why: String,
    ) -> Self {
        let counted = DhcpMessage { family, message, client: "unknown", decision };
        let unreadable = Some(why);
        Self { reply: None, records: Vec::new(), counted, story: None, unreadable }
    }

    /// What was decided does not reach the machine, for a reason that is not its own.
    pub(super) fn keep_back(&mut self, decision: &'static str, because: &str) {
        self.reply = None;
        self.counted.decision = decision;
        self.story.iter_mut().for_each(|story| story.done = Done::Silent(because.to_owned()));
    }

    /// A machine that is told nothing.
    pub(super) fn silent(
        family: &'static str,
        asked: Asked,
        decision: &'static str,
        why: String,
    ) -> Self {
        let counted = asked.counted(family, decision);
        let told = Told { answer: Answer::Nothing, artifact: None, because: None };
        let story = Some(Story { asked, told, done: Done::Silent(why) });
        Self { reply: None, records: Vec::new(), counted, story, unreadable: None }
    }
}

impl Story {
    /// What the machine got; `None` where it wanted no answer, or none that says anything of a boot.
    pub(super) fn answer(&self) -> Option<DhcpAnswer> {
        let artifact = self.told.artifact;
        Some(match (&self.done, &self.told.because) {
            (Done::Others(because), _) | (Done::Silent(because), None) => {
                DhcpAnswer::Ignored { because: because.clone() }
            }
            (_, Some(because)) => because.clone(),
            (Done::Noted, None) => return None,
            (Done::Refused(because), None) => DhcpAnswer::Nak { because: because.clone() },
            (Done::Offered(address), None) => DhcpAnswer::Offer { address: *address, artifact },
            (Done::Beside, None) => DhcpAnswer::Beside { artifact },
            (Done::Given(address), None) => DhcpAnswer::Ack { address: *address, artifact },
        })
    }
}

impl Asked {
    /// The node whose machine it is, if anybody registered it.
    pub(super) fn node(&self) -> Option<Uuid> {
        self.found.as_ref().map(|found| found.node.uuid)
    }

    pub(super) fn counted(&self, family: &'static str, decision: &'static str) -> DhcpMessage {
        DhcpMessage { family, message: self.message, client: self.client.name(), decision }
    }
}

/// `DISCOVER from iPXE at 52:54:00:00:00:01`
impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.message, self.client)?;
        match self.mac {
            Some(mac) => write!(f, " at {mac}"),
            None => write!(f, " with no MAC address"),
        }
    }
}
