//! The stage of a boot: how far a machine has come. For a live view of many boots at once.
//!
//! A [`BootProgress`] gathers the facts from the events of one attempt; [`BootStage::of`] adds what the node says. A
//! daemon that did not serve the machine itself has only the node.

use hardware::{HttpMethod, RedfishPurpose};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::artifact::{Artifact, HttpLoader};
use crate::boot_interface::BootInterface;
use crate::fetched_part::content_range;
use crate::node::{Attempt, Node};
use crate::procedure::Stage;
use crate::state::ProvisionState;
use crate::trace::{BootEvent, BootEventKind, DhcpAnswer};

/// An ended boot is counted for this long.
pub const COUNTED_AFTER_END: SignedDuration = SignedDuration::from_mins(15);

/// The stage of a boot, in the order of a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootStage {
    /// The machine is not switched on yet.
    Preparing,
    /// The machine is on, and nothing was heard of it.
    SwitchedOn,
    /// DHCP answered it.
    DhcpAnswered,
    /// It fetches its files.
    Fetching,
    /// It has the image with the operating system.
    ImageFetched,
    /// Its agent has called.
    AgentCalled,
    /// Its steps run.
    RunningSteps,
    /// The boot is over, and did what it was for.
    Ended,
    /// The boot failed.
    Failed,
}

impl BootStage {
    /// All stages.
    pub const ALL: [Self; 9] = [
        Self::Preparing,
        Self::SwitchedOn,
        Self::DhcpAnswered,
        Self::Fetching,
        Self::ImageFetched,
        Self::AgentCalled,
        Self::RunningSteps,
        Self::Ended,
        Self::Failed,
    ];

    /// Its name in the API and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::SwitchedOn => "switched_on",
            Self::DhcpAnswered => "dhcp_answered",
            Self::Fetching => "fetching",
            Self::ImageFetched => "image_fetched",
            Self::AgentCalled => "agent_called",
            Self::RunningSteps => "running_steps",
            Self::Ended => "ended",
            Self::Failed => "failed",
        }
    }

    /// Whether the boot goes on.
    #[must_use]
    pub fn is_under_way(self) -> bool {
        !matches!(self, Self::Ended | Self::Failed)
    }

    /// The stage of the node's boot; `None` without a boot, or if it ended longer ago than [`COUNTED_AFTER_END`].
    /// `progress` is what this daemon saw of it.
    #[must_use]
    pub fn of(
        node: &Node,
        progress: Option<&BootProgress>,
        loader: HttpLoader,
        now: Timestamp,
    ) -> Option<Self> {
        let attempt = node.attempt.as_ref()?;
        let state = node.provision_state;
        let has_failed = state.stage() == Some(Stage::Failed) || state == ProvisionState::Error;
        if attempt.ended_at.is_some() || has_failed {
            let ended_at = attempt.ended_at.or(node.provision_updated_at)?;
            let is_recent = now.duration_since(ended_at) < COUNTED_AFTER_END;
            return is_recent.then_some(if has_failed { Self::Failed } else { Self::Ended });
        }
        if node.current_step.is_some() {
            return Some(Self::RunningSteps);
        }
        let seen = progress.filter(|progress| progress.attempt == attempt.id);
        Some(Self::of_node(attempt).max(seen.map_or(Self::Preparing, |seen| seen.stage(loader))))
    }

    /// The stage that the attempt alone shows.
    fn of_node(attempt: &Attempt) -> Self {
        if attempt.agent.is_some() || attempt.token_given {
            Self::AgentCalled
        } else if attempt.image_fetched_at.is_some() {
            Self::ImageFetched
        } else if !attempt.addresses.fetched.is_empty() {
            Self::Fetching
        } else if !attempt.addresses.leased.is_empty() {
            Self::DhcpAnswered
        } else if attempt.powered_on_at.is_some() {
            Self::SwitchedOn
        } else {
            Self::Preparing
        }
    }
}

/// The facts from the events of one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct BootProgress {
    /// The attempt.
    pub attempt: Uuid,
    /// The time of the last event that brought the boot further.
    pub since: Timestamp,
    is_on: bool,
    has_address: bool,
    has_fetched: bool,
    agent_called: bool,
    /// The files that were sent to their end.
    whole: Vec<Artifact>,
}

impl BootProgress {
    /// An attempt of which nothing is known yet.
    #[must_use]
    pub fn new(attempt: Uuid, since: Timestamp) -> Self {
        Self {
            attempt,
            since,
            is_on: false,
            has_address: false,
            has_fetched: false,
            agent_called: false,
            whole: Vec::new(),
        }
    }

    /// Adds an event of the attempt.
    pub fn take(&mut self, interface: BootInterface, event: &BootEvent) {
        let is_news = match &event.what {
            BootEventKind::Redfish { purpose: RedfishPurpose::PowerOn, error: None, .. } => {
                // A machine that is switched on anew begins anew.
                *self = Self { is_on: true, ..Self::new(self.attempt, event.at) };
                true
            }
            BootEventKind::State { to, .. } => {
                to.stage() == Some(Stage::Waiting) && !std::mem::replace(&mut self.is_on, true)
            }
            BootEventKind::Dhcp {
                answer:
                    DhcpAnswer::Offer { .. } | DhcpAnswer::Ack { .. } | DhcpAnswer::Beside { .. },
                ..
            } => !std::mem::replace(&mut self.has_address, true),
            BootEventKind::Http { artifact, status: 200..=299, .. } => {
                let whole = artifact.filter(|_| is_whole(interface, &event.what));
                let is_news = whole.is_some_and(|whole| !self.whole.contains(&whole));
                self.whole.extend(whole.filter(|_| is_news));
                !std::mem::replace(&mut self.has_fetched, true) || is_news
            }
            BootEventKind::Agent { outcome, caller, .. } => {
                let is_its = outcome.error().is_none()
                    && caller.as_ref().is_none_or(|caller| caller.is_known);
                is_its && !std::mem::replace(&mut self.agent_called, true)
            }
            BootEventKind::Redfish { .. }
            | BootEventKind::BootWay { .. }
            | BootEventKind::BmcShows { .. }
            | BootEventKind::Provider { .. }
            | BootEventKind::Dhcp { .. }
            | BootEventKind::Http { .. }
            | BootEventKind::TlsHandshake { .. }
            | BootEventKind::LastByte { .. }
            | BootEventKind::LeftOut { .. } => false,
        };
        if is_news {
            self.since = event.at;
        }
    }

    fn stage(&self, loader: HttpLoader) -> BootStage {
        if self.agent_called {
            BootStage::AgentCalled
        } else if self.whole.iter().any(|artifact| artifact.holds_ramdisk(loader)) {
            BootStage::ImageFetched
        } else if self.has_fetched {
            BootStage::Fetching
        } else if self.has_address {
            BootStage::DhcpAnswered
        } else if self.is_on {
            BootStage::SwitchedOn
        } else {
            BootStage::Preparing
        }
    }
}

/// Whether an answer brought the end of a file. A BMC reads the image of a virtual CD in any order.
fn is_whole(interface: BootInterface, what: &BootEventKind) -> bool {
    let BootEventKind::Http { method, range, sent, length, .. } = what else { return false };
    let is_drive = interface == BootInterface::RedfishVirtualMedia;
    if *method != HttpMethod::Get || sent < length || *length == 0 || is_drive {
        return false;
    }
    match range {
        None => true,
        Some(range) => {
            content_range(range).is_some_and(|(start, total)| start.saturating_add(*sent) == total)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use hardware::{ClientKind, Mac};

    use super::*;
    use crate::test_nodes::booting_node;
    use crate::trace::{AgentCall, AgentCaller, AgentOutcome};

    fn dhcp() -> BootEventKind {
        BootEventKind::Dhcp {
            message: "DHCPREQUEST".to_owned(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            client: ClientKind::HttpClient,
            architecture: None,
            answer: DhcpAnswer::Ack { address: [192, 0, 2, 9].into(), artifact: None },
            unlisted: 0,
        }
    }

    fn fetch(
        method: HttpMethod,
        artifact: Artifact,
        sent: u64,
        range: Option<&str>,
    ) -> BootEventKind {
        BootEventKind::Http {
            method,
            artifact: Some(artifact),
            path: artifact.file_name().to_owned(),
            remote: None,
            user_agent: None,
            status: if range.is_some() { 206 } else { 200 },
            error: None,
            range: range.map(str::to_owned),
            sent,
            length: 1_000,
            millis: 1,
            tls: None,
        }
    }

    fn call(is_known: bool) -> BootEventKind {
        let caller = AgentCaller {
            remote: IpAddr::from([192, 0, 2, 9]),
            is_known,
            refused: None,
            unlisted: 0,
        };
        BootEventKind::Agent {
            call: AgentCall::Lookup,
            outcome: AgentOutcome::Found { addresses: Vec::new(), more: 0 },
            caller: Some(caller),
        }
    }

    fn stages(loader: HttpLoader, events: Vec<BootEventKind>) -> Vec<&'static str> {
        let node = booting_node();
        let attempt = node.attempt.as_ref().unwrap();
        let mut progress = BootProgress::new(attempt.id, attempt.started_at);
        let now = attempt.started_at;
        let take = |what| {
            let event = BootEvent { at: now, attempt: attempt.id, what };
            progress.take(attempt.boot_interface, &event);
            BootStage::of(&node, Some(&progress), loader, now).unwrap().name()
        };
        events.into_iter().map(take).collect()
    }

    #[test]
    fn a_boot_goes_through_its_stages_in_order() {
        let get = HttpMethod::Get;
        let events = vec![
            dhcp(),
            fetch(HttpMethod::Head, Artifact::BootLoader, 0, None),
            fetch(get.clone(), Artifact::BootLoader, 400, None),
            fetch(get, Artifact::BootLoader, 1_000, None),
            call(false),
            call(true),
        ];
        let expected = [
            "dhcp_answered",
            "fetching",
            "fetching",
            "image_fetched",
            "image_fetched",
            "agent_called",
        ];
        assert_eq!(stages(HttpLoader::Uki, events), expected);
    }

    #[test]
    fn a_loader_alone_is_no_operating_system() {
        let get = HttpMethod::Get;
        let events = vec![
            fetch(get.clone(), Artifact::BootLoader, 1_000, None),
            fetch(get.clone(), Artifact::Kernel, 1_000, None),
            fetch(get, Artifact::Initramfs, 1_000, Some("bytes 500-1499/1500")),
        ];
        assert_eq!(stages(HttpLoader::Grub, events), ["fetching", "fetching", "image_fetched"]);
    }

    #[test]
    fn a_boot_that_is_over_is_counted_for_a_while() {
        let mut node = booting_node();
        let at = node.attempt.as_ref().unwrap().started_at;
        node.attempt.as_mut().unwrap().ended_at = Some(at);
        let stage = |node: &Node, after| BootStage::of(node, None, HttpLoader::Uki, at + after);
        let soon = SignedDuration::from_secs(1);

        node.provision_state = ProvisionState::Manageable;
        assert_eq!(stage(&node, soon), Some(BootStage::Ended));
        node.provision_state = ProvisionState::CleanFailed;
        assert_eq!(stage(&node, soon), Some(BootStage::Failed));
        assert_eq!(stage(&node, COUNTED_AFTER_END), None);
    }

    #[test]
    fn another_daemon_sees_what_the_node_says() {
        let mut node = booting_node();
        let at = node.attempt.as_ref().unwrap().started_at;
        let stage = |node: &Node| BootStage::of(node, None, HttpLoader::Uki, at).unwrap();
        assert_eq!(stage(&node), BootStage::Preparing);

        node.attempt.as_mut().unwrap().powered_on_at = Some(at);
        assert_eq!(stage(&node), BootStage::SwitchedOn);
        node.attempt.as_mut().unwrap().addresses.add(&[], &[[192, 0, 2, 9].into()]);
        assert_eq!(stage(&node), BootStage::DhcpAnswered);
        node.attempt.as_mut().unwrap().token_given = true;
        assert_eq!(stage(&node), BootStage::AgentCalled);
    }
}
