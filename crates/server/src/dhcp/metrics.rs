//! Metrics of DHCP messages.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Counts DHCP messages; clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct DhcpMetrics {
    messages: Family<DhcpMessage, Counter>,
}

/// The labels of a DHCP message. Only words of ours, so nobody can fill the memory with them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DhcpMessage {
    /// `ipv4`, `ipv6`.
    pub family: &'static str,
    /// `DISCOVER`, `SOLICIT`, …, `unreadable`.
    pub message: &'static str,
    /// `http_client`, `system`, …, `unknown`.
    pub client: &'static str,
    /// `offer`, `ack`, `nak`, or why nothing was answered.
    pub decision: &'static str,
}

impl DhcpMetrics {
    /// Shows the counters with those of `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let help = "DHCP messages received, by what was decided about them";
        registry.register("dhcp_messages", help, self.messages.clone());
    }

    /// Counts a message.
    pub fn count(&self, message: &DhcpMessage) {
        self.messages.get_or_create(message).inc();
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
