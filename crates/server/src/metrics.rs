//! What is counted, in the text form that Prometheus reads, at `/metrics` of the API's listener.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use store::{FailureCounts, Health};

/// What OpenMetrics calls its text form.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From a file that is written to what is waited for at most.
const SECONDS: [f64; 8] = [0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 45.0];

/// The counters; clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    dhcp: Family<DhcpMessage, Counter>,
    tellings: Family<Telling, Histogram, fn() -> Histogram>,
    connections: Family<HttpPort, Gauge>,
    ended: Family<HttpEnd, Counter>,
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

/// What tellings of other DHCP servers are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Telling {
    /// `Kea`, `dnsmasq`, `Neutron`.
    pub provider: &'static str,
    /// `announce`, `withdraw`, `reconcile`.
    pub what: &'static str,
    /// `ok`, `failed`.
    pub outcome: &'static str,
}

/// A port for HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpPort {
    /// `api`, `agents`, `boot`.
    port: &'static str,
}

/// What ended connections of a port are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpEnd {
    /// `api`, `agents`, `boot`.
    port: &'static str,
    /// `evicted`, `peer_full`, `slow_head`, …
    reason: &'static str,
}

/// What failures of the database are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DatabaseFailure {
    /// `disk_full`, `unavailable`, `other`.
    cause: &'static str,
}

/// Reads what the store counts, when somebody asks.
#[derive(Debug)]
struct DatabaseHealth(Health);

impl Collector for DatabaseHealth {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let FailureCounts { disk_full, unavailable, other } = self.0.failures();
        let help = "Operations of the database that failed, by cause";
        let kind = MetricType::Counter;
        let mut failures = encoder.encode_descriptor("database_failures", help, None, kind)?;
        for (cause, count) in
            [("disk_full", disk_full), ("unavailable", unavailable), ("other", other)]
        {
            let labels = DatabaseFailure { cause };
            let family = failures.encode_family(&labels)?;
            ConstCounter::new(count).encode(family)?;
        }
        let help = "1 if the last write to the database succeeded, 0 during an outage";
        let kind = MetricType::Gauge;
        let usable = encoder.encode_descriptor("database_usable", help, None, kind)?;
        ConstGauge::new(i64::from(!self.0.is_out())).encode(usable)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(Health::default())
    }
}

impl Metrics {
    /// Counters that begin at 0, and those of a store.
    #[must_use]
    pub fn new(database: Health) -> Self {
        let mut registry = Registry::with_prefix("ferroboot");
        registry.register_collector(Box::new(DatabaseHealth(database)));
        let dhcp = Family::default();
        let help = "DHCP messages received, by what was decided about them";
        registry.register("dhcp_messages", help, dhcp.clone());
        let histogram: fn() -> Histogram = || Histogram::new(SECONDS);
        let tellings = Family::new_with_constructor(histogram);
        let help = "What other DHCP servers were told, and how long that took";
        registry.register_with_unit("dhcp_tellings", help, Unit::Seconds, tellings.clone());
        let (connections, ended) = (Family::default(), Family::default());
        let help = "Connections that are open, by port";
        registry.register("http_connections", help, connections.clone());
        let help = "Connections that were refused or closed by the service for the sake of a limit";
        registry.register("http_connections_limited", help, ended.clone());
        Self { registry: Arc::new(registry), dhcp, tellings, connections, ended }
    }

    /// Counts a DHCP message.
    pub fn dhcp(&self, message: &DhcpMessage) {
        self.dhcp.get_or_create(message).inc();
    }

    /// Counts that another DHCP server was told, or could not be told.
    pub fn telling(&self, telling: &Telling, took: Duration) {
        self.tellings.get_or_create(telling).observe(took.as_secs_f64());
    }

    /// Notes how many connections a port has.
    pub(crate) fn http_connections(&self, port: &'static str, open: usize) {
        let open = i64::try_from(open).unwrap_or(i64::MAX);
        self.connections.get_or_create(&HttpPort { port }).set(open);
    }

    /// Counts a connection that was refused or closed.
    pub(crate) fn http_connection_ended(&self, port: &'static str, reason: &'static str) {
        self.ended.get_or_create(&HttpEnd { port, reason }).inc();
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

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn tellings_are_counted_by_what_came_of_them() {
        let metrics = Metrics::default();
        let telling = Telling { provider: "Kea", what: "announce", outcome: "failed" };

        metrics.telling(&telling, Duration::from_millis(300));

        let body = to_bytes(metrics.show().into_response().into_body(), 65_536).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        let labels = r#"provider="Kea",what="announce",outcome="failed""#;
        for (line, count) in [("0.1", 0), ("0.5", 1)] {
            let bucket = "ferroboot_dhcp_tellings_seconds_bucket";
            let line = format!("{bucket}{{le=\"{line}\",{labels}}} {count}\n");
            assert!(text.contains(&line), "{line} is not in:\n{text}");
        }
    }
}
