//! When a BMC is asked how its machine's firmware gets on: while a boot is silent, and seldom. A boot that goes on
//! quickly costs no request.

use std::time::Duration;

use hardware::{BmcObservation, HttpMethod};
use jiff::{SignedDuration, Timestamp};

use crate::node::Node;
use crate::procedure::Stage;
use crate::trace::{BootEvent, BootEventKind, latest_boot};
use crate::virtual_media::is_power_on;

/// Time without an event before the first look.
const FIRST: SignedDuration = SignedDuration::from_secs(30);
/// Time from the first look to the second; it doubles with each look, up to [`LONGEST`].
const BETWEEN: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(60);

/// A look that is due, with what is known of the boot.
#[derive(Clone, Debug, PartialEq)]
pub struct FirmwareLook {
    /// Time since the machine was switched on.
    pub since_power_on: Duration,
    /// What was seen, oldest first.
    pub seen: Vec<BmcObservation>,
}

impl FirmwareLook {
    /// The look at the machine of `node` that its silence asks for: it was switched on, its agent has not called, and
    /// `trace` shows nothing new.
    #[must_use]
    pub fn due(node: &Node, trace: &[BootEvent], now: Timestamp) -> Option<Self> {
        let attempt = node.live_attempt().filter(|attempt| attempt.agent.is_none())?;
        if node.provision_state.stage() != Some(Stage::Waiting) {
            return None;
        }
        let events = latest_boot(trace);
        let last = events.iter().rev().find(|event| !is_of_a_look(&event.what))?;
        if now.duration_since(last.at) < FIRST {
            return None;
        }
        let on = events.iter().rev().find(|event| is_power_on(&event.what)).map(|event| event.at);
        let on = on.or(attempt.powered_on_at)?;
        let seen = events.iter().filter_map(|event| {
            let BootEventKind::BmcShows { observation } = &event.what else { return None };
            Some(observation.clone())
        });
        let since_power_on = Duration::try_from(now.duration_since(on)).ok()?;
        Some(Self { since_power_on, seen: seen.collect() })
    }

    /// Time until the next look, after so many.
    #[must_use]
    pub fn wait_after(looks: u32) -> Duration {
        let doubled = BETWEEN.saturating_mul(1 << looks.saturating_sub(1).min(16));
        doubled.min(LONGEST)
    }
}

/// Whether an event is a look at a BMC, or its result.
fn is_of_a_look(what: &BootEventKind) -> bool {
    matches!(
        what,
        BootEventKind::BmcShows { .. } | BootEventKind::Redfish { method: HttpMethod::Get, .. }
    )
}

#[cfg(test)]
mod tests {
    use hardware::RedfishPurpose;
    use uuid::Uuid;

    use super::*;
    use crate::node::Agent;
    use crate::state::ProvisionState;
    use crate::test_nodes::booting_node;

    fn event(secs: i64, what: BootEventKind) -> BootEvent {
        let at = Timestamp::from_second(secs).unwrap();
        BootEvent { at, attempt: Uuid::nil(), what }
    }

    fn call(secs: i64, purpose: RedfishPurpose, method: HttpMethod) -> BootEvent {
        let (path, status, error) = (String::new(), Some(200), None);
        event(secs, BootEventKind::Redfish { purpose, method, path, status, error })
    }

    fn after(secs: i64, trace: &[BootEvent], node: &Node) -> Option<FirmwareLook> {
        FirmwareLook::due(node, trace, Timestamp::from_second(secs).unwrap())
    }

    #[test]
    fn a_machine_that_is_silent_is_looked_at_and_no_other() {
        let mut node = booting_node();
        node.provision_state = ProvisionState::CleanWait;
        let state = "MemoryInitializationStarted".to_owned();
        let observation =
            BmcObservation::BootProgress { state, oem_state: None, last_boot_secs: None };
        let trace = [
            call(100, RedfishPurpose::PowerOn, HttpMethod::Post),
            call(110, RedfishPurpose::LookAtSystem, HttpMethod::Get),
            event(129, BootEventKind::BmcShows { observation: observation.clone() }),
        ];

        assert_eq!(after(129, &trace, &node), None);
        let since_power_on = Duration::from_secs(30);
        let look = FirmwareLook { since_power_on, seen: vec![observation] };
        assert_eq!(after(130, &trace, &node), Some(look));

        // A packet of the machine.
        let heard = event(125, BootEventKind::LeftOut { events: 1 });
        let trace = [&trace[..2], &[heard], &trace[2..]].concat();
        assert_eq!(after(130, &trace, &node), None);
        assert!(after(155, &trace, &node).is_some());
        node.provision_state = ProvisionState::Cleaning;
        assert_eq!(after(155, &trace, &node), None);
        node.provision_state = ProvisionState::CleanWait;
        node.attempt.as_mut().unwrap().agent = Some(Agent {
            callback_url: "https://10.0.0.2:9999/".parse().unwrap(),
            version: String::new(),
            verify_ca: None,
            channel_key: None,
            last_heartbeat: Timestamp::UNIX_EPOCH,
        });
        assert_eq!(after(155, &trace, &node), None);
    }

    #[test]
    fn looks_become_rarer() {
        let waits =
            [1, 2, 3, 4, 5, u32::MAX].map(|looks| FirmwareLook::wait_after(looks).as_secs());
        assert_eq!(waits, [10, 20, 40, 60, 60, 60]);
    }
}
