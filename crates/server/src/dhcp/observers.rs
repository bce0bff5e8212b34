//! The receivers of each exchange: traces, metrics, and the strangers that requested a boot.

use nodes::Recorder;

use super::metrics::DhcpMetrics;
use super::strangers::BootingStrangers;

/// The receivers of each exchange.
#[derive(Clone, Debug)]
pub struct Observers {
    /// Records the exchanges of boots.
    pub recorder: Recorder,
    /// Counts every message.
    pub metrics: DhcpMetrics,
    /// Remembers strangers that requested a boot.
    pub strangers: BootingStrangers,
}
