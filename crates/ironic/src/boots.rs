//! `GET /boots`: the boots under way, by stage, and the slowest of them. An extension of Ironic's API.

use std::collections::BTreeMap;

use jiff::Timestamp;
use provision::{Artifact, BootInterface, BootStage, Node, ProvisionState};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::trace::ShownDiagnosis;

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BootsUnderWay {
    /// The time of the answer.
    pub at: Timestamp,
    /// Bytes of files that this daemon's boot listener passed on to connections since its start. The difference of two
    /// answers is its rate.
    pub sent: u64,
    /// Number of boots at each stage, with those that ended in the last 15 minutes.
    pub stages: BTreeMap<BootStage, usize>,
    /// The boots under way that have been at their stage for the longest time, slowest first.
    pub slowest: Vec<SlowBoot>,
}

/// A boot under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlowBoot {
    /// The node.
    pub node_uuid: Uuid,
    /// Its name.
    pub node_name: Option<String>,
    /// Its state.
    pub provision_state: ProvisionState,
    /// The attempt.
    pub attempt: Uuid,
    /// The boot interface of the attempt.
    pub boot_interface: BootInterface,
    /// The stage.
    pub stage: BootStage,
    /// The time of the last progress.
    pub since: Timestamp,
    /// The largest fetch under way.
    pub fetch: Option<ShownFetch>,
    /// The diagnosis; null while all goes well.
    pub diagnosis: Option<ShownDiagnosis>,
}

/// A fetch under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownFetch {
    /// The file.
    pub artifact: Artifact,
    /// Number of bytes passed on to the connection.
    pub sent: u64,
    /// Number of bytes of the answer.
    pub length: u64,
}

impl SlowBoot {
    /// A boot at its stage, without a diagnosis; `None` if it is not under way.
    #[must_use]
    pub fn new(
        node: &Node,
        stage: BootStage,
        since: Option<Timestamp>,
        fetch: Option<ShownFetch>,
    ) -> Option<Self> {
        let attempt = node.attempt.as_ref().filter(|_| stage.is_under_way())?;
        Some(Self {
            node_uuid: node.uuid,
            node_name: node.name.clone(),
            provision_state: node.provision_state,
            attempt: attempt.id,
            boot_interface: attempt.boot_interface,
            stage,
            since: since.or(attempt.powered_on_at).unwrap_or(attempt.started_at),
            fetch,
            diagnosis: None,
        })
    }
}

impl BootsUnderWay {
    /// The answer for boots at their stages, with at most `limit` of the slowest.
    #[must_use]
    pub fn new(
        at: Timestamp,
        sent: u64,
        stages: BTreeMap<BootStage, usize>,
        mut under_way: Vec<SlowBoot>,
        limit: usize,
    ) -> Self {
        under_way.sort_by_key(|boot| (boot.since, boot.node_uuid));
        under_way.truncate(limit);
        Self { at, sent, stages, slowest: under_way }
    }
}

#[cfg(test)]
mod tests {
    use provision::test_nodes::booting_node;

    use super::*;

    #[test]
    fn the_slowest_come_first_and_the_ended_not_at_all() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let boot = |uuid, since, stage| {
            let node = Node { uuid: Uuid::from_u128(uuid), ..booting_node() };
            SlowBoot::new(&node, stage, Some(at(since)), None)
        };
        let boots = [
            boot(1, 30, BootStage::Fetching),
            boot(2, 10, BootStage::SwitchedOn),
            boot(3, 0, BootStage::Ended),
            boot(4, 20, BootStage::DhcpAnswered),
        ];
        let boots: Vec<_> = boots.into_iter().flatten().collect();

        let shown = BootsUnderWay::new(at(60), 7, BTreeMap::new(), boots, 2);

        let order: Vec<_> = shown.slowest.iter().map(|boot| boot.node_uuid.as_u128()).collect();
        assert_eq!(order, [2, 4]);
        let text = serde_json::to_string(&shown).unwrap();
        assert_eq!(serde_json::from_str::<BootsUnderWay>(&text).unwrap(), shown);
    }
}
