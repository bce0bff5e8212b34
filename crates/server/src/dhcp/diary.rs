//! What was heard on one interface, and what came of it: counted, said, and recorded in the traces of
//! those it concerns.

use std::fmt::Display;

use dhcp::limits::Millis;
use hardware::ClientKind;
use nodes::FoundPort;
use provision::What;
use provision::boot::bootable;
use provision::trace::DhcpAnswer;
use store::Clock;
use tracing::{debug, info, warn};
use transport::repeats::line;
use uuid::Uuid;

use super::Witness;
use super::heard::{Asked, Done, Story};
use super::metrics::DhcpMessage;
use super::repeats::{Exchange, Repeats};

/// Reasons that are nobody's fault.
const ORDINARY: [&str; 8] = [
    "stranger",
    "other_server",
    "not_now",
    "agent_has_called",
    "nothing_to_boot",
    "not_for_a_proxy",
    "not_for_us",
    // A machine that was on another network, or away for long.
    "nak",
];
/// What is said of strangers that ask for a boot.
const BOOTS: &str = "stranger_boots";
/// The decisions about whoever is told nothing since there is nothing to tell.
const NOTHING: [&str; 2] = ["nothing", "nothing_to_boot"];

#[derive(Debug)]
pub(super) struct Diary {
    interface: String,
    repeats: Repeats,
}

impl Diary {
    pub(super) fn new(interface: &str) -> Self {
        Self { interface: interface.to_owned(), repeats: Repeats::default() }
    }

    /// Notes a message and what came of it. `unreadable` is why there is no story of it.
    pub(super) fn note(
        &mut self,
        counted: &DhcpMessage,
        story: Option<Story>,
        unreadable: Option<&str>,
        witness: &Witness,
        now: Millis,
    ) {
        let nothing = story.as_ref().and_then(|story| Nothing::of(story, counted.decision));
        let decision = nothing.as_ref().map_or(counted.decision, |nothing| nothing.decision);
        let counted = &DhcpMessage { decision, ..counted.clone() };
        witness.metrics.count(counted);
        match (&story, &nothing) {
            (None, _) => {
                let why = unreadable.unwrap_or("it cannot be read");
                self.say(counted, &"a packet", None, "not answered", why);
            }
            (Some(Story { asked, .. }), Some(Nothing { because, is_expected: true, .. })) => {
                debug!("{asked} on {} is not answered: {because}", self.interface);
            }
            (Some(Story { asked, .. }), Some(Nothing { because, .. })) => {
                self.say(counted, asked, asked.node(), "not answered", because);
            }
            (Some(Story { asked, done: Done::Silent(why), .. }), None) => {
                self.say(counted, asked, asked.node(), "not answered", why);
            }
            (Some(Story { asked, done: Done::Refused(why), .. }), None) => {
                self.say(counted, asked, asked.node(), "refused", why);
            }
            (Some(_), None) => {}
        }
        if let Some(story) = story {
            self.remember(&story.asked, witness);
            self.record(story, witness, now);
        }
    }

    /// A machine that nobody registered, or whose node is not to boot, and that asks for a boot: it may be one that somebody
    /// waits for.
    fn remember(&self, asked: &Asked, witness: &Witness) {
        let boots = match asked.client {
            ClientKind::HttpClient | ClientKind::PxeClient | ClientKind::Ipxe => true,
            ClientKind::Grub | ClientKind::Agent | ClientKind::Firmware | ClientKind::System => {
                false
            }
        };
        let is_stranger = asked.found.is_none();
        let rests = asked.found.as_ref().is_some_and(|found| found.node.live_attempt().is_none());
        let Some(mac) = asked.mac.filter(|_| boots && (is_stranger || rests)) else { return };
        let is_new =
            witness.strangers.note(mac, asked.client, &self.interface, Clock::process().now());
        // So few kinds that nobody fills the log with addresses that are made up.
        let kind = (&self.interface, mac.0[5]);
        if is_new
            && is_stranger
            && let Some(more) = line(BOOTS, kind)
        {
            info!("{asked} on {}, which is no port of any node{more}", self.interface);
        }
    }

    /// Each reason is named once for each node, once for all strangers together, and then at growing intervals.
    fn say(
        &self,
        counted: &DhcpMessage,
        what: &dyn Display,
        node: Option<Uuid>,
        done: &str,
        why: &str,
    ) {
        let on = &self.interface;
        if ORDINARY.contains(&counted.decision) {
            debug!("{what} on {on} is {done}: {why}");
        } else if let Some(more) = line(counted.decision, (on, node)) {
            warn!("{what} on {on} is {done}: {why}{more}");
        }
    }

    /// In the trace of the boot that it is part of, if it is part of one.
    fn record(&mut self, story: Story, witness: &Witness, now: Millis) {
        let Some(answer) = story.answer() else { return };
        let asked = story.asked;
        debug!("{asked}: {answer}");
        let Some(FoundPort { node, port }) = asked.found else { return };
        // What a running system says between two boots is no part of either.
        let Some(attempt) = node.live_attempt() else { return };
        let mac = asked.mac.unwrap_or(port.address);
        let exchange = Exchange { attempt: attempt.id, mac, message: asked.message };
        let Some(unlisted) = self.repeats.note(exchange, &answer, now / 1_000) else { return };
        let what = What::Dhcp {
            message: asked.message.to_owned(),
            mac,
            client: asked.client,
            architecture: asked.architecture,
            answer,
            unlisted,
        };
        witness.recorder.record(&node, what);
    }
}

/// Why there is nothing to tell a machine.
#[derive(Debug)]
struct Nothing {
    /// What it is called among counters.
    decision: &'static str,
    because: String,
    /// Whether somebody wants it so.
    is_expected: bool,
}

impl Nothing {
    /// What there was to decide about is what to boot, not the packet.
    fn of(story: &Story, decision: &str) -> Option<Self> {
        if !NOTHING.contains(&decision) {
            return None;
        }
        let boots = |found: &FoundPort| bootable(&found.node).is_some();
        match story.told.because.as_ref()? {
            DhcpAnswer::NoBoot { because } => Some(Self {
                decision: because.name(),
                because: because.to_string(),
                // A port that is never to boot says nothing of a machine that boots from another.
                is_expected: !story.asked.found.as_ref().is_some_and(boots),
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

    use dhcp::Answer;
    use dhcp::client::Features;
    use hardware::architecture::X86_BIOS;
    use hardware::{ClientKind, Mac};
    use jiff::Timestamp;
    use nodes::Recorder;
    use provision::boot::NoBoot;
    use provision::test_nodes::booting_node;
    use provision::{Node, Port, ProvisionState};
    use serde_json::Map;
    use uuid::Uuid;

    use super::*;
    use crate::dhcp::BootingStrangers;
    use crate::dhcp::heard::{Asked, Told};
    use crate::dhcp::metrics::DhcpMetrics;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    /// PXE firmware of a node, which is told nothing for this reason.
    fn story(node: Node, because: NoBoot) -> Story {
        let port = Port {
            uuid: Uuid::nil(),
            node_uuid: node.uuid,
            address: MAC,
            pxe_enabled: true,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: None,
            extra: Map::new(),
            kept: Map::new(),
        };
        let asked = Asked {
            found: Some(FoundPort { node: Arc::new(node), port: Arc::new(port) }),
            message: "DISCOVER",
            mac: Some(MAC),
            client: ClientKind::PxeClient,
            architecture: None,
            features: Features::default(),
        };
        let because = Some(DhcpAnswer::NoBoot { because });
        let told = Told { answer: Answer::Nothing, artifact: None, because };
        Story { asked, told, done: Done::Silent("it is told nothing".to_owned()) }
    }

    #[tokio::test]
    async fn what_keeps_a_machine_from_booting_is_counted_by_its_name() {
        let (recorder, _backlog) = Recorder::new();
        let witness = Witness {
            recorder,
            metrics: DhcpMetrics::default(),
            strangers: BootingStrangers::default(),
        };
        let mut diary = Diary::new("eth1");
        let state = ProvisionState::Manageable;

        for because in [NoBoot::PxeNotHttp, NoBoot::NotNow { state }, NoBoot::PortNotEnabled] {
            let story = story(booting_node(), because);
            let counted = story.asked.counted("ipv4", "nothing");
            diary.note(&counted, Some(story), None, &witness, 0);
        }

        let text = witness.metrics.text();
        for decision in ["pxe_not_http", "not_now", "port_not_enabled"] {
            assert!(text.contains(&format!("decision=\"{decision}\"}} 1\n")), "{text}");
        }
    }

    #[tokio::test]
    async fn who_asks_for_a_boot_and_is_nobodys_port_is_remembered() {
        let (recorder, _backlog) = Recorder::new();
        let (metrics, strangers) = (DhcpMetrics::default(), BootingStrangers::default());
        let witness = Witness { recorder, metrics, strangers: strangers.clone() };
        let mut diary = Diary::new("eth1");

        for (last, client) in [(1, ClientKind::HttpClient), (2, ClientKind::System)] {
            let asked = Asked {
                found: None,
                message: "DISCOVER",
                mac: Some(Mac([2, 0, 0, 0, 9, last])),
                client,
                architecture: None,
                features: Features::default(),
            };
            let counted = asked.counted("ipv4", "stranger");
            let told = Told { answer: Answer::Nothing, artifact: None, because: None };
            let story = Story { asked, told, done: Done::Silent("nobody's".to_owned()) };
            diary.note(&counted, Some(story), None, &witness, 0);
        }

        let [only] = &strangers.all(|_| None, Uuid::nil())[..] else { panic!("{strangers:?}") };
        assert_eq!((only.mac, &only.interface[..]), (Mac([2, 0, 0, 0, 9, 1]), "eth1"));
    }

    #[test]
    fn only_a_machine_that_is_to_boot_is_spoken_of() {
        let boots = story(booting_node(), NoBoot::PxeNotHttp);
        let boots = Nothing::of(&boots, "nothing").unwrap();
        let rests = Node { attempt: None, ..booting_node() };
        let rests = story(rests, NoBoot::PortNotEnabled);

        assert!(!boots.is_expected);
        assert!(boots.because.contains("asked for PXE, not HTTP"), "{}", boots.because);
        assert!(Nothing::of(&rests, "nothing").unwrap().is_expected);
        assert!(Nothing::of(&rests, "other_server").is_none(), "it is not about what to boot");
    }

    #[test]
    fn what_is_counted_is_explained_in_the_book() {
        let book = include_str!("../../../../docs/book/src/dhcp.md");
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

        let names = no_boots.map(NoBoot::name).into_iter().chain(ORDINARY).chain(NOTHING);

        for name in names.chain(["no_url", "unreadable", "not_sent", "not_written", "forged"]) {
            assert!(book.contains(&format!("`{name}`")), "{name} is not in the book");
        }
    }
}
