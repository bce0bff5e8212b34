//! A node, its planned work, and the time: a model of the store and the workers for `step`.

use std::net::{IpAddr, Ipv4Addr};

use hardware::ShownBootMode;
use jiff::{SignedDuration, Timestamp};
use provision::event::{AgentLookup, Heartbeat, Silence};
use provision::node::{FreshAttempt, Secret};
use provision::step::{last_heard, may_have_missed};
use provision::steps::ProcedureStep;
use provision::{
    AgentExtension, Attempt, CommandFailure, Context, Event, Node, Outcome, Policy, Refused,
    StepFailure, Verb, VerbRequest, Work, step,
};
use serde_json::{Map, json};
use uuid::Uuid;

pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) planned: Option<Work>,
    pub(crate) now: Timestamp,
    pub(crate) policy: Policy,
    attempts: u128,
}

impl World {
    pub(crate) fn enrolled() -> Self {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut node = Node::enrolled(Uuid::from_u128(0xA0DE), "redfish", now);
        node.kept.insert("deploy_interface".to_owned(), json!("ramdisk"));
        node.instance_info.insert("boot_iso".to_owned(), json!("http://192.0.2.1/live.iso"));
        Self { node, planned: None, now, policy: Policy::default(), attempts: 0 }
    }

    pub(crate) fn manageable() -> Self {
        let mut world = Self::enrolled();
        world.happens(Event::from(Verb::Manage));
        world.is_done(Event::Verified(Some(provision::PowerState::Off), ShownBootMode::default()));
        world
    }

    /// The outcome of an event, without applying it.
    pub(crate) fn asks(&self, event: &Event) -> Result<Outcome, Refused> {
        let n = self.attempts + 1;
        let fresh = FreshAttempt {
            attempt: Uuid::from_u128(n),
            ticket: Secret(format!("ticket-{n:0>15}")),
            agent_token: Secret(format!("token-{n:0>37}")),
        };
        step(&self.node, event, &Context { now: self.now, policy: self.policy.clone(), fresh })
    }

    /// An event that needs no claimed work.
    pub(crate) fn tries(&mut self, event: &Event) -> Result<Outcome, Refused> {
        let outcome = self.asks(event)?;
        let before = self.node.attempt.as_ref().map(|attempt| attempt.id);
        let after = outcome.node.attempt.as_ref().map(|attempt| attempt.id);
        self.attempts += u128::from(before != after);
        self.node = outcome.node.clone();
        if outcome.work.is_some() {
            self.planned.clone_from(&outcome.work);
        }
        Ok(outcome)
    }

    pub(crate) fn happens(&mut self, event: impl Into<Event>) -> Outcome {
        let event = event.into();
        self.tries(&event).unwrap_or_else(|refused| panic!("{event:?}: {refused}"))
    }

    /// The result of the planned work, which is finished then.
    pub(crate) fn is_done(&mut self, event: Event) -> Outcome {
        let claimed = self.planned.take();
        assert!(claimed.is_some(), "{event:?} is the result of work, and there is none");
        self.happens(event)
    }

    pub(crate) fn passes(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// The silence so far.
    pub(crate) fn silence(&self) -> Option<Silence> {
        let since = last_heard(&self.node)?;
        Some(Silence { since, lasts: self.now.duration_since(since) })
    }

    /// Whether a daemon that runs since `serving_since` may have missed the boot.
    pub(crate) fn is_missed(&self, serving_since: Timestamp) -> bool {
        let booted = self.attempt().powered_on_at;
        let served = self.now.duration_since(serving_since);
        may_have_missed(&self.node, booted.is_some_and(|on| on < serving_since), served)
    }

    pub(crate) fn attempt(&self) -> &Attempt {
        self.node.attempt.as_ref().unwrap()
    }

    /// A lookup from the machine.
    pub(crate) fn lookup(&self) -> Event {
        lookup(MACHINE, self.now)
    }

    /// A heartbeat of the agent of the latest attempt.
    pub(crate) fn heartbeat(&self) -> Event {
        let token = self.node.attempt.as_ref().map(|attempt| attempt.agent_token.0.clone());
        heartbeat(&token.unwrap_or_default(), "https://192.0.2.7:9999", self.now)
    }
}

/// The address of the machine in these tests.
pub(crate) const MACHINE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// A lookup from this address, at a daemon that has seen the machine fetch its image.
pub(crate) fn lookup(from: IpAddr, at: Timestamp) -> Event {
    Event::AgentLooksUp(AgentLookup { from, fetched: vec![MACHINE], leased: Vec::new(), at })
}

pub(crate) fn heartbeat(token: &str, url: &str, at: Timestamp) -> Event {
    Event::AgentAlive(Heartbeat {
        agent_token: token.to_owned(),
        callback_url: url.parse().unwrap(),
        agent_version: "1.0".to_owned(),
        agent_verify_ca: None,
        channel_key: None,
        at,
    })
}

/// The failure of a clean step, in the agent's words.
pub(crate) fn step_failure(words: &str) -> StepFailure {
    StepFailure::Ended {
        extension: AgentExtension::Clean,
        step: "deploy.erase_devices".to_owned(),
        command: CommandFailure::Error { words: words.to_owned() },
    }
}

pub(crate) fn clean_step(name: &str, priority: i64) -> ProcedureStep {
    ProcedureStep {
        interface: "deploy".to_owned(),
        step: name.to_owned(),
        args: Map::new(),
        priority,
        reboot_requested: false,
        abortable: false,
    }
}

/// A request for a clean of these steps.
pub(crate) fn clean(steps: Vec<ProcedureStep>) -> Event {
    Event::VerbAsked(VerbRequest { steps, ..Verb::Clean.into() })
}

/// The steps of these tests' ramdisk.
pub(crate) fn offered() -> Vec<ProcedureStep> {
    vec![
        clean_step("erase_devices", 0),
        clean_step("erase_devices_metadata", 99),
        ProcedureStep { reboot_requested: true, ..clean_step("update_firmware", 50) },
    ]
}

pub(crate) fn steps_reported(attempt: Uuid) -> Event {
    let hardware_manager_version = json!({"generic_hardware_manager": "1.2"});
    Event::StepsReported { attempt, steps: offered(), hardware_manager_version }
}
