//! Calls of agents: lookups, heartbeats, results of steps.

use std::net::IpAddr;

use jiff::Timestamp;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::{Outcome, Transition};
use crate::addresses::{ForeignLookup, TOKEN_AGAIN, belongs, boots_own_iso};
use crate::agent_extension::AgentExtension;
use crate::event::{AgentLookup, Heartbeat, Work};
use crate::machine_addresses::{MachineAddresses, TokenHolder};
use crate::node::{Agent, Attempt, Secret};
use crate::position::Position;
use crate::procedure::{Boots, ProcedureRow, Stage, StepSource};
use crate::refused::Refused;
use crate::state::PowerState;
use crate::step_failure::StepFailure;
use crate::steps::{self, ProcedureStep, StepNotOffered};
use crate::text::shown_url;
use crate::trace::TransitionReason;
use crate::virtual_media::may_be_in_drive;

impl Transition<'_> {
    pub(super) fn agent_looks_up(mut self, lookup: &AgentLookup) -> Result<Outcome, Refused> {
        self.expect_agent()?;
        let from = lookup.from.to_canonical();
        self.attempt().addresses.add(&lookup.fetched, &lookup.leased);
        let attempt = self.node.attempt.as_ref().expect("an agent is expected in an attempt");
        let is_known = belongs(&self.node, attempt, from);
        let is_on = attempt.powered_on_at.is_some_and(|on| on <= lookup.at);
        if !boots_own_iso(&self.node, attempt) {
            // The image carries the token, so the answer to a lookup has none and any host may get it. Only a lookup
            // from the machine shows that the machine is up.
            self.attempt().token_given |= is_known && is_on;
            return Ok(self.forgetting_addresses());
        }
        if !is_on {
            return Err(Refused::LookupTooEarly(self.node.uuid));
        }
        if !is_known {
            let MachineAddresses { fetched, leased, .. } = attempt.addresses.clone();
            let is_read_by_bmc = may_be_in_drive(&self.node, attempt);
            let foreign = ForeignLookup { from, is_read_by_bmc, fetched, leased };
            return Err(Refused::ForeignLookup(foreign));
        }
        if attempt.agent.is_some() {
            // A restarted agent has kept its token; no other agent gets it.
            return Ok(self.done());
        }
        self.give_token(from, lookup.at)?;
        Ok(self.done())
    }

    /// Gives the token once: to the first address of the machine with a lookup. That address may get it again until
    /// the first heartbeat, since an answer may be lost.
    pub(super) fn give_token(&mut self, from: IpAddr, at: Timestamp) -> Result<(), Refused> {
        let attempt = self.attempt();
        match attempt.addresses.token_holder {
            Some(holder) if holder.address != from => {
                return Err(Refused::TokenTaken { holder: Some(holder.address), from });
            }
            Some(holder) if at.duration_since(holder.at).abs() < TOKEN_AGAIN => {
                return Err(Refused::TokenJustGiven { from });
            }
            // An earlier version gave it without recording the address.
            None if attempt.token_given => return Err(Refused::TokenTaken { holder: None, from }),
            Some(_) | None => {}
        }
        attempt.token_given = true;
        attempt.addresses.token_holder = Some(TokenHolder { address: from, at });
        Ok(())
    }

    /// Drops the stored addresses if no token depends on them: the index in memory has them.
    pub(super) fn forgetting_addresses(mut self) -> Outcome {
        let before = self.before.attempt.as_ref().map(|attempt| attempt.addresses.clone());
        self.attempt().addresses = before.unwrap_or_default();
        self.done()
    }

    pub(super) fn addresses_seen(
        mut self,
        attempt: Uuid,
        fetched: &[IpAddr],
        leased: &[IpAddr],
    ) -> Result<Outcome, Refused> {
        self.expect_attempt(attempt)?;
        self.attempt().addresses.add(fetched, leased);
        Ok(self.done())
    }

    pub(super) fn agent_alive(mut self, heartbeat: &Heartbeat) -> Result<Outcome, Refused> {
        self.expect_agent()?;
        let (uuid, state) = (self.node.uuid, self.node.provision_state);
        let is_at_work = state.stage() == Some(Stage::AtWork);
        let attempt = self.attempt();
        if !same(&attempt.agent_token.0, &heartbeat.agent_token) {
            return Err(Refused::WrongToken(uuid));
        }
        match &attempt.agent {
            Some(owner)
                if owner.callback_url != heartbeat.callback_url
                    || !same_key(owner.channel_key.as_ref(), heartbeat.channel_key.as_ref()) =>
            {
                return Err(Refused::SecondAgent {
                    owner: shown_url(&owner.callback_url),
                    caller: shown_url(&heartbeat.callback_url),
                });
            }
            // The machine is being switched off and on. An agent that is about to be cut off would otherwise own the
            // token, and close the images for its successor.
            None if is_at_work => {
                return Err(Refused::NoAgentExpected { node: uuid, state });
            }
            // The heartbeat waited for the node while the machine was switched off and on: that agent is gone.
            None if attempt.powered_on_at.is_some_and(|on| heartbeat.at < on) => {
                return Err(Refused::HeartbeatTooEarly(uuid));
            }
            Some(_) | None => {}
        }
        attempt.token_given = true;
        attempt.agent = Some(Agent {
            callback_url: heartbeat.callback_url.clone(),
            version: heartbeat.agent_version.clone(),
            verify_ca: heartbeat.agent_verify_ca.clone(),
            channel_key: heartbeat.channel_key.clone(),
            last_heartbeat: heartbeat.at,
        });
        self.node.power_state = Some(PowerState::On);
        if is_at_work {
            // Work is under way already; its result is a separate event.
            return Ok(self.done());
        }
        Ok(self.ask_agent())
    }

    pub(super) fn steps_reported(
        mut self,
        attempt: Uuid,
        offers: &[ProcedureStep],
        hardware_manager_version: &serde_json::Value,
    ) -> Result<Outcome, Refused> {
        let row = self.expect_work_of_agent(attempt, Stage::Waiting)?;
        let extension = extension_of(row)?;
        if self.attempt().run.hardware_manager_version.is_some() {
            // The steps were reported before; the selected ones may already run.
            return Err(Refused::Stale);
        }
        match steps::choose(&self.attempt().run, offers) {
            Err(StepNotOffered { step, offered, more }) => {
                let reason = TransitionReason::StepNotOffered { extension, step, offered, more };
                Ok(self.fail(row, reason))
            }
            Ok(steps) => {
                let run = &mut self.attempt().run;
                run.steps = steps;
                run.hardware_manager_version = Some(hardware_manager_version.clone());
                Ok(self.next_step())
            }
        }
    }

    pub(super) fn step_started(
        mut self,
        attempt: Uuid,
        command_id: &str,
    ) -> Result<Outcome, Refused> {
        self.expect_work_of_agent(attempt, Stage::AtWork)?;
        self.attempt().run.command_id = Some(command_id.to_owned());
        self.go_on(Stage::Waiting, None);
        Ok(self.done())
    }

    pub(super) fn step_succeeded(
        mut self,
        attempt: Uuid,
        command_id: &str,
    ) -> Result<Outcome, Refused> {
        let row = self.expect_work_of_agent(attempt, Stage::Waiting)?;
        let extension = extension_of(row)?;
        let run = &mut self.attempt().run;
        if run.command_id.as_deref() != Some(command_id) {
            return Err(Refused::Stale);
        }
        let reboot = run.current().is_some_and(|step| step.reboot_requested);
        run.command_id = None;
        run.settled_commands.push(command_id.to_owned());
        run.done += 1;
        if reboot && run.current().is_some() {
            return Ok(self.boot_again(TransitionReason::StepReboot { extension }));
        }
        Ok(self.next_step())
    }

    pub(super) fn step_failed(
        self,
        attempt: Uuid,
        failure: &StepFailure,
    ) -> Result<Outcome, Refused> {
        let row = self.expect_work_of_agent_anyhow(attempt)?;
        Ok(self.fail(row, TransitionReason::StepFailed { failure: failure.clone() }))
    }

    pub(super) fn step_still_runs(self, attempt: Uuid) -> Result<Outcome, Refused> {
        self.expect_work_of_agent(attempt, Stage::Waiting)?;
        Ok(self.done())
    }

    pub(super) fn agent_silent(mut self, attempt: Uuid, reason: &str) -> Result<Outcome, Refused> {
        self.expect_work_of_agent_anyhow(attempt)?;
        if self.node.provision_state.stage() == Some(Stage::AtWork) {
            // Back to waiting: the next heartbeat retries, and the silence is limited.
            let error = reason.to_owned();
            self.go_on(Stage::Waiting, Some(TransitionReason::AgentUnreachable { error }));
        }
        Ok(self.done())
    }

    /// Plans the next request to the agent, from the progress of the steps.
    fn ask_agent(mut self) -> Outcome {
        let attempt = self.attempt();
        let (id, run) = (attempt.id, &attempt.run);
        let index = run.done;
        match (&run.hardware_manager_version, &run.command_id) {
            (None, _) => self.then(Work::AskSteps { attempt: id }),
            (Some(_), Some(_)) => self.then(Work::CheckStep { attempt: id, index }),
            (Some(_), None) => self.next_step(),
        }
    }

    pub(super) fn next_step(mut self) -> Outcome {
        if self.attempt().run.is_at_bmc_step() {
            return self.run_bmc_step();
        }
        let attempt = self.attempt();
        let (id, index) = (attempt.id, attempt.run.done);
        self.node.current_step = attempt.run.current().cloned();
        let (reason, work) = match &self.node.current_step {
            Some(step) => {
                let reason = TransitionReason::Step { step: step.name() };
                (Some(reason), Work::RunStep { attempt: id, index })
            }
            None => (None, Work::TearDown { attempt: id }),
        };
        self.go_on(Stage::AtWork, reason);
        self.then(work)
    }

    /// Checks that the attempt is at a stage in which work concerns its agent: neither during the boot nor during the
    /// tear-down.
    fn expect_work_of_agent(
        &self,
        attempt: Uuid,
        stage: Stage,
    ) -> Result<&'static ProcedureRow, Refused> {
        let row = self.expect_stage(attempt, stage)?;
        let live = self.node.live_attempt();
        let agent = live.and_then(|live| live.agent.as_ref());
        let is_agents = live.is_some_and(|live| !live.run.is_at_bmc_step());
        let is_asked = stage == Stage::Waiting || (self.steps_left() && is_agents);
        if agent.is_some() && is_asked { Ok(row) } else { Err(Refused::Stale) }
    }

    /// The same, at any stage of the attempt.
    fn expect_work_of_agent_anyhow(&self, attempt: Uuid) -> Result<&'static ProcedureRow, Refused> {
        let stage = self.node.provision_state.stage().ok_or(Refused::Stale)?;
        self.expect_work_of_agent(attempt, stage)
    }

    /// Whether the machine is being booted or a step sent: work that is not the procedure's last.
    pub(super) fn steps_left(&self) -> bool {
        let is_left = |live: &Attempt| {
            let is_booting = live.agent.is_none() && !live.run.is_over_without_agent();
            is_booting || live.run.current().is_some()
        };
        self.node.provision_state.stage() == Some(Stage::AtWork)
            && self.node.live_attempt().is_some_and(is_left)
    }

    fn expect_agent(&self) -> Result<(), Refused> {
        let state = self.node.provision_state;
        let expects = match state.position() {
            Position::In(procedure, Stage::AtWork | Stage::Waiting | Stage::Held) => {
                procedure.row().boots == Boots::Ramdisk
            }
            Position::In(_, Stage::Failed) | Position::Rest => false,
        };
        if expects && self.node.live_attempt().is_some() {
            return Ok(());
        }
        Err(Refused::NoAgentExpected { node: self.node.uuid, state })
    }
}

/// The extension of a procedure's steps; results of steps for any other procedure are obsolete.
fn extension_of(row: &ProcedureRow) -> Result<AgentExtension, Refused> {
    match row.steps {
        StepSource::Agent(extension) => Ok(extension),
        StepSource::Nothing => Err(Refused::Stale),
    }
}

/// Whether two agents have the same key, or both none.
fn same_key(a: Option<&Secret>, b: Option<&Secret>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => same(&a.0, &b.0),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// Compares in constant time.
fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}
