//! Metrics of the connections of HTTP ports.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counts the connections of each port; clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct HttpMetrics {
    open: Family<HttpPort, Gauge>,
    ended: Family<HttpEnd, Counter>,
}

/// The labels of a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpPort {
    /// `api`, `agents`, `boot`.
    port: &'static str,
}

/// The labels of ended connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpEnd {
    /// `api`, `agents`, `boot`.
    port: &'static str,
    /// `evicted`, `refused`, `slow_head`, …
    reason: &'static str,
}

impl HttpMetrics {
    /// Adds the counters to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Connections that are open, by port";
        registry.register("http_connections", help, self.open.clone());
        let help = "Connections that were refused or closed because of a limit";
        registry.register("http_connections_limited", help, self.ended.clone());
    }

    /// Sets the number of a port's connections.
    pub(super) fn set_open(&self, port: &'static str, open: usize) {
        let open = i64::try_from(open).unwrap_or(i64::MAX);
        self.open.get_or_create(&HttpPort { port }).set(open);
    }

    /// Counts a connection that was refused or closed.
    pub(super) fn count_ended(&self, port: &'static str, reason: &'static str) {
        self.ended.get_or_create(&HttpEnd { port, reason }).inc();
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
