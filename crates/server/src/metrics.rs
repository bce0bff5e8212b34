//! What is counted, in the text form that Prometheus reads, at `/metrics` of the API's listener.

use std::fmt;
use std::sync::Arc;

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// What OpenMetrics calls its text form.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The counters; clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    dhcp: Family<DhcpMessage, Counter>,
}

/// What DHCP messages are counted by. Only words of ours, so nobody can fill the memory with them.
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

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("ferroboot");
        let dhcp = Family::default();
        let help = "DHCP messages received, by what was decided about them";
        registry.register("dhcp_messages", help, dhcp.clone());
        Self { registry: Arc::new(registry), dhcp }
    }
}

impl Metrics {
    /// Counts a DHCP message.
    pub fn dhcp(&self, message: &DhcpMessage) {
        self.dhcp.get_or_create(message).inc();
    }

    /// All of them as text, for an answer.
    #[must_use]
    pub fn show(&self) -> impl IntoResponse + use<> {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        ([(CONTENT_TYPE, TEXT)], text)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics(…)")
    }
}
