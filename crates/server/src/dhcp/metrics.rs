//! Metrics of DHCP messages.

use netboot::exchange::ExchangeLabels;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Counts DHCP messages; clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct DhcpMetrics {
    messages: Family<DhcpMessage, Counter>,
}

/// The labels of a DHCP message. All values are constants, so that clients cannot create labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DhcpMessage {
    /// `ipv4`, `ipv6`.
    family: &'static str,
    /// `DISCOVER`, `SOLICIT`, …, `unreadable`.
    message: &'static str,
    /// `http_client`, `system`, …, `unknown`.
    client: &'static str,
    /// `offer`, `ack`, `nak`, or the reason for no answer.
    decision: &'static str,
}

impl DhcpMetrics {
    /// Adds the counters to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let help = "DHCP messages received, by decision";
        registry.register("dhcp_messages", help, self.messages.clone());
    }

    /// Counts a message.
    pub fn count(&self, labels: ExchangeLabels) {
        let ExchangeLabels { family, message, client, decision } = labels;
        let decision = decision.name();
        self.messages.get_or_create(&DhcpMessage { family, message, client, decision }).inc();
    }

    /// The counters in the text form of Prometheus.
    #[cfg(test)]
    pub(super) fn text(&self) -> String {
        let mut registry = Registry::default();
        self.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }
}
