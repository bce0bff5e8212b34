//! The daemon's metrics in Prometheus' text format, at `/metrics` of the API's listener.
//!
//! Each part of the daemon registers its own metrics; this file combines them. The store's metrics are here, since
//! the store does not depend on Prometheus.

use std::fmt;
use std::sync::Arc;

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use certificates::{CertificateSource, CertificateValidity};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use providers::metrics::ProviderMetrics;
use store::{FailureCounts, Health};
use transport::http_server::metrics::HttpMetrics;

use crate::boot_overview::BootOverview;
use crate::dhcp::metrics::DhcpMetrics;

/// The content type of OpenMetrics' text format.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of all parts of the daemon; clones share them.
#[derive(Clone)]
pub struct DaemonMetrics {
    /// DHCP messages.
    pub dhcp: DhcpMetrics,
    /// Calls to external DHCP services.
    pub providers: ProviderMetrics,
    /// Connections of the HTTP ports.
    pub http: HttpMetrics,
    registry: Arc<Registry>,
}

impl DaemonMetrics {
    /// Counters at 0, those of a store, the boots, and the end of the listeners' certificate, if they have TLS.
    pub(crate) fn new(
        database: Health,
        boots: BootOverview,
        certificate: Option<CertificateSource>,
    ) -> Self {
        let mut registry = Registry::with_prefix("ferroboot");
        registry.register_collector(Box::new(DatabaseHealth(database)));
        registry.register_collector(Box::new(boots));
        if let Some(certificate) = certificate {
            registry.register_collector(Box::new(CertificateEnd(certificate)));
        }
        let dhcp = DhcpMetrics::default();
        dhcp.register(&mut registry);
        let providers = ProviderMetrics::default();
        providers.register(&mut registry);
        let http = HttpMetrics::default();
        http.register(&mut registry);
        Self { dhcp, providers, http, registry: Arc::new(registry) }
    }

    /// All metrics as text, for an answer.
    #[must_use]
    pub fn show(&self) -> impl IntoResponse + use<> {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        ([(CONTENT_TYPE, TEXT)], text)
    }
}

impl fmt::Debug for DaemonMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DaemonMetrics(…)")
    }
}

/// The labels of failures of the database.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DatabaseFailure {
    /// `disk_full`, `unavailable`, `other`.
    cause: &'static str,
}

/// Reads the store's counters on request.
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

/// Reads the end of the operator's certificate on request; issued ones, which are renewed in time, are not shown.
#[derive(Debug)]
struct CertificateEnd(CertificateSource);

impl Collector for CertificateEnd {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Ok(Some(CertificateValidity { until, .. })) = self.0.validity() else { return Ok(()) };
        let help = "End of the operator's certificate in use, or of an issuer's in its file, if that is earlier, in Unix time";
        let (name, unit) = ("certificate_not_after_timestamp", Some(&Unit::Seconds));
        let end = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        ConstGauge::new(until.as_second()).encode(end)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use certificates::{AuthorityPem, CertificateAuthority, CertificateNeeds, OperatorFiles};

    use super::*;

    #[test]
    fn the_end_of_the_operators_certificate_is_a_metric() {
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key] = ["server.pem", "server.key"].map(|name| folder.path().join(name));
        let AuthorityPem { certificate: text, key: secret } = CertificateAuthority::make().unwrap();
        fs::write(&certificate, text).unwrap();
        fs::write(&key, secret).unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        let files = OperatorFiles { certificate, key };
        let source = CertificateSource::of_files(files, CertificateNeeds::default()).unwrap();
        let until = source.validity().unwrap().unwrap().until.as_second();
        let mut registry = Registry::with_prefix("ferroboot");
        registry.register_collector(Box::new(CertificateEnd(source)));

        let mut text = String::new();
        encode(&mut text, &registry).unwrap();

        let line = format!("\nferroboot_certificate_not_after_timestamp_seconds {until}\n");
        assert!(text.contains(&line), "{text}");
    }
}
