//! Metrics of calls to external DHCP services.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Bucket limits, from a written file to the longest call.
const SECONDS: [f64; 8] = [0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 45.0];

/// Counts calls to external DHCP services, with their durations; clones share the counters.
#[derive(Clone, Debug)]
pub struct ProviderMetrics {
    calls: Family<ProviderCallLabels, Histogram, fn() -> Histogram>,
}

/// The labels of a call to an external DHCP service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProviderCallLabels {
    /// `Kea`, `dnsmasq`, `Neutron`.
    pub provider: &'static str,
    /// `announce`, `withdraw`, `reconcile`.
    pub what: &'static str,
    /// `ok`, `failed`.
    pub outcome: &'static str,
}

impl Default for ProviderMetrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(SECONDS);
        Self { calls: Family::new_with_constructor(histogram) }
    }
}

impl ProviderMetrics {
    /// Adds the counters to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Calls to external DHCP servers, and their durations";
        registry.register_with_unit("dhcp_provider_calls", help, Unit::Seconds, self.calls.clone());
    }

    /// Counts a call with its duration.
    pub fn count(&self, call: &ProviderCallLabels, took: Duration) {
        self.calls.get_or_create(call).observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn calls_are_counted_by_what_came_of_them() {
        let metrics = ProviderMetrics::default();
        let call = ProviderCallLabels { provider: "Kea", what: "announce", outcome: "failed" };

        metrics.count(&call, Duration::from_millis(300));

        let mut registry = Registry::with_prefix("ferroboot");
        metrics.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let labels = r#"provider="Kea",what="announce",outcome="failed""#;
        for (line, count) in [("0.1", 0), ("0.5", 1)] {
            let bucket = "ferroboot_dhcp_provider_calls_seconds_bucket";
            let line = format!("{bucket}{{le=\"{line}\",{labels}}} {count}\n");
            assert!(text.contains(&line), "{line} is not in:\n{text}");
        }
    }
}
