//! The log of the exchanges on one interface: counters, log lines, and traces of boots.

use std::fmt::Display;

use dhcp::limits::Millis;
use hardware::ClientKind;
use netboot::dhcp_decision::DhcpDecision;
use netboot::dhcp_request::DhcpRequest;
use netboot::exchange::{ExchangeLabels, NoRequest, NothingToBoot, RequestOutcome, RequestResult};
use netboot::node_view::RegisteredPort;
use netboot::repeated_exchanges::{ExchangeKind, RepeatedExchanges};
use provision::BootEventKind;
use store::Clock;
use tracing::{debug, info, warn};
use transport::repeats::line;
use uuid::Uuid;

use super::observers::Observers;

/// The name of the log line about strangers that request a boot.
const BOOTS: &str = "stranger_boots";

/// The log of one port of an interface.
#[derive(Debug)]
pub(super) struct ExchangeLog {
    interface: String,
    repeats: RepeatedExchanges,
}

impl ExchangeLog {
    pub(super) fn new(interface: &str) -> Self {
        Self { interface: interface.to_owned(), repeats: RepeatedExchanges::default() }
    }

    /// Records a packet and its outcome.
    pub(super) fn note(
        &mut self,
        labels: ExchangeLabels,
        outcome: Result<RequestOutcome, NoRequest>,
        observers: &Observers,
        now: Millis,
    ) {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(packet) => {
                observers.metrics.count(labels);
                return self.say(labels.decision, &"a packet", None, "not answered", &packet.why);
            }
        };
        let nothing = NothingToBoot::of(&outcome, labels.decision);
        let decision = nothing.as_ref().map_or(labels.decision, |nothing| nothing.decision);
        observers.metrics.count(ExchangeLabels { decision, ..labels });
        let (request, node) = (&outcome.request, outcome.request.node());
        match (&nothing, &outcome.result) {
            (Some(NothingToBoot { because, is_expected: true, .. }), _) => {
                debug!("{request} on {} is not answered: {because}", self.interface);
            }
            (Some(NothingToBoot { because: why, .. }), _) | (None, RequestResult::Silent(why)) => {
                self.say(decision, request, node, "not answered", why);
            }
            (None, RequestResult::Refused(why)) => {
                self.say(decision, request, node, "refused", why);
            }
            (
                None,
                RequestResult::Offered(_)
                | RequestResult::Given(_)
                | RequestResult::Beside
                | RequestResult::Noted
                | RequestResult::OtherServer(_),
            ) => {}
        }
        self.remember(request, observers);
        self.record(outcome, observers, now);
    }

    /// Remembers a machine that requests a boot without a node, or whose node is not to boot: it may be a machine
    /// that an operator waits for.
    fn remember(&self, request: &DhcpRequest, observers: &Observers) {
        let boots = match request.client {
            ClientKind::HttpClient | ClientKind::PxeClient | ClientKind::Ipxe => true,
            ClientKind::Grub | ClientKind::Agent | ClientKind::Firmware | ClientKind::System => {
                false
            }
        };
        let is_stranger = request.registered.is_none();
        let is_live = |registered: &RegisteredPort| registered.node.live_attempt().is_some();
        let rests = request.registered.as_ref().is_some_and(|registered| !is_live(registered));
        let Some(mac) = request.mac.filter(|_| boots && (is_stranger || rests)) else { return };
        let now = Clock::process().now();
        let is_new = observers.strangers.note(mac, request.client, &self.interface, now);
        // Few kinds, so that invented MAC addresses cannot flood the log.
        let kind = (&self.interface, mac.0[5]);
        if is_new
            && is_stranger
            && let Some(more) = line(BOOTS, kind)
        {
            info!("{request} on {}, which matches no port of a node{more}", self.interface);
        }
    }

    /// Logs each reason once for each node, once for all strangers together, and then at growing intervals.
    fn say(
        &self,
        decision: DhcpDecision,
        what: &dyn Display,
        node: Option<Uuid>,
        done: &str,
        why: &str,
    ) {
        let on = &self.interface;
        if decision.is_ordinary() {
            debug!("{what} on {on} is {done}: {why}");
        } else if let Some(more) = line(decision.name(), (on, node)) {
            warn!("{what} on {on} is {done}: {why}{more}");
        }
    }

    /// Records the exchange in the trace of its boot, if it is part of one.
    fn record(&mut self, outcome: RequestOutcome, observers: &Observers, now: Millis) {
        let Some(answer) = outcome.dhcp_answer() else { return };
        let request = outcome.request;
        debug!("{request}: {answer}");
        let Some(RegisteredPort { node, port }) = request.registered else { return };
        // A running system's messages between two boots belong to neither.
        let Some(attempt) = node.live_attempt() else { return };
        let mac = request.mac.unwrap_or(port.address);
        let kind = ExchangeKind { attempt: attempt.id, mac, message: request.message };
        let Some(unlisted) = self.repeats.note(kind, &answer, now / 1_000) else { return };
        let what = BootEventKind::Dhcp {
            message: request.message.to_owned(),
            mac,
            client: request.client,
            architecture: request.architecture,
            answer,
            unlisted,
        };
        observers.recorder.record(&node, what);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dhcp::client::Features;
    use dhcp::v4::decide::NoReply;
    use hardware::{ClientKind, Mac};
    use netboot::boot_answer::BootAnswer;
    use nodes::Recorder;
    use provision::ProvisionState;
    use provision::boot::NoBoot;
    use provision::test_nodes::{boot_port, booting_node};
    use provision::trace::DhcpAnswer;
    use uuid::Uuid;

    use super::*;
    use crate::dhcp::BootingStrangers;
    use crate::dhcp::metrics::DhcpMetrics;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    /// The exchange of a client without an answer.
    fn silent(registered: Option<RegisteredPort>, mac: Mac, client: ClientKind) -> RequestOutcome {
        let (message, architecture, features) = ("DISCOVER", None, Features::default());
        let mac = Some(mac);
        let request = DhcpRequest { registered, message, mac, client, architecture, features };
        let result = RequestResult::Silent("it is told nothing".to_owned());
        RequestOutcome { request, answer: BootAnswer::NOTHING, result }
    }

    #[tokio::test]
    async fn what_keeps_a_machine_from_booting_is_counted_by_its_name() {
        let (recorder, _backlog) = Recorder::new();
        let observers = Observers {
            recorder,
            metrics: DhcpMetrics::default(),
            strangers: BootingStrangers::default(),
        };
        let mut log = ExchangeLog::new("eth1");
        let state = ProvisionState::Manageable;

        for because in [NoBoot::PxeNotHttp, NoBoot::NotNow { state }, NoBoot::PortNotEnabled] {
            let node = booting_node();
            let port = Arc::new(boot_port(node.uuid, MAC));
            let registered = Some(RegisteredPort { node: Arc::new(node), port });
            let mut outcome = silent(registered, MAC, ClientKind::PxeClient);
            outcome.answer.because = Some(DhcpAnswer::NoBoot { because });
            let labels =
                ExchangeLabels::of(&outcome.request, "ipv4", DhcpDecision::V4(NoReply::Nothing));
            log.note(labels, Ok(outcome), &observers, 0);
        }

        let text = observers.metrics.text();
        for decision in ["pxe_not_http", "not_now", "port_not_enabled"] {
            assert!(text.contains(&format!("decision=\"{decision}\"}} 1\n")), "{text}");
        }
    }

    #[tokio::test]
    async fn who_asks_for_a_boot_and_is_nobodys_port_is_remembered() {
        let (recorder, _backlog) = Recorder::new();
        let (metrics, strangers) = (DhcpMetrics::default(), BootingStrangers::default());
        let observers = Observers { recorder, metrics, strangers: strangers.clone() };
        let mut log = ExchangeLog::new("eth1");

        for (last, client) in [(1, ClientKind::HttpClient), (2, ClientKind::System)] {
            let outcome = silent(None, Mac([2, 0, 0, 0, 9, last]), client);
            let labels = ExchangeLabels::of(&outcome.request, "ipv4", DhcpDecision::Stranger);
            log.note(labels, Ok(outcome), &observers, 0);
        }

        let all = strangers.table().all(|_| None, Uuid::nil());
        let [only] = &all[..] else { panic!("{strangers:?}") };
        assert_eq!((only.mac, &only.interface[..]), (Mac([2, 0, 0, 0, 9, 1]), "eth1"));
    }
}
