//! All boots at once: how many are at which stage. For `GET /boots` and for metrics.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ironic::boots::{BootsUnderWay, ShownFetch, SlowBoot};
use jiff::Timestamp;
use nodes::{BootProgressTable, NodeIndex};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use provision::artifact::HttpLoader;
use provision::{BootProgress, BootStage, Node};
use store::Clock;

/// A view of all boots.
#[derive(Clone, Debug)]
pub(crate) struct BootOverview {
    /// The nodes.
    pub(crate) index: NodeIndex,
    /// What this daemon saw of their boots.
    pub(crate) progress: BootProgressTable,
    /// The first loader of `http`.
    pub(crate) loader: HttpLoader,
}

impl BootOverview {
    /// The boots at each stage, and at most `limit` of the slowest, without diagnoses.
    pub(crate) fn boots(&self, limit: usize, now: Timestamp) -> BootsUnderWay {
        let fetches = self.progress.fetches();
        let mut stages = BTreeMap::new();
        let mut under_way = Vec::new();
        for (node, progress, stage) in self.all(now) {
            *stages.entry(stage).or_default() += 1;
            let attempt = node.attempt.as_ref().map(|attempt| attempt.id).unwrap_or_default();
            let fetch = fetches.get(&attempt).map(|fetch| ShownFetch {
                artifact: fetch.artifact,
                sent: fetch.sent,
                length: fetch.length,
            });
            under_way.extend(SlowBoot::new(&node, stage, progress.map(|seen| seen.since), fetch));
        }
        BootsUnderWay::new(now, self.progress.sent(), stages, under_way, limit)
    }

    /// All boots that are under way, or ended a short while ago.
    fn all(
        &self,
        now: Timestamp,
    ) -> impl Iterator<Item = (Arc<Node>, Option<BootProgress>, BootStage)> {
        self.index.all().into_iter().filter_map(move |node| {
            let progress = self.progress.of(node.attempt.as_ref()?.id);
            let stage = BootStage::of(&node, progress.as_ref(), self.loader, now)?;
            Some((node, progress, stage))
        })
    }
}

/// The label of a number of boots.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    /// `switched_on`, `fetching`, …
    stage: &'static str,
}

/// Counts the boots on request.
impl Collector for BootOverview {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut counts = BTreeMap::from(BootStage::ALL.map(|stage| (stage, 0)));
        for (_, _, stage) in self.all(Clock::process().now()) {
            *counts.entry(stage).or_default() += 1;
        }
        let help = "Boots by stage; failed and ended ones of the last 15 minutes";
        let mut boots = encoder.encode_descriptor("boots", help, None, MetricType::Gauge)?;
        for (stage, count) in counts {
            let label = StageLabel { stage: stage.name() };
            let family = boots.encode_family(&label)?;
            ConstGauge::<i64>::new(count).encode(family)?;
        }
        let help = "Bytes of files that the boot listener passed on to connections";
        let sent = encoder.encode_descriptor("boot_sent_bytes", help, None, MetricType::Counter)?;
        ConstCounter::new(self.progress.sent()).encode(sent)
    }
}
