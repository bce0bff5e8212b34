//! Steps of procedures: the operator's request, the agent's list, and the selection.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bmc_step::BmcStep;
pub use crate::procedure_step::ProcedureStep;

/// The progress of a procedure's steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRun {
    /// Whether the steps are selected by priority (`provide`, `deleted`), not by the operator.
    pub automated: bool,
    /// The operator's steps (manual), or the selected steps of the agent's list.
    pub steps: Vec<ProcedureStep>,
    /// The agent's hardware manager versions; set once it has reported its steps.
    pub hardware_manager_version: Option<Value>,
    /// Number of finished steps.
    pub done: usize,
    /// The agent's ID of the command that runs the current step.
    pub command_id: Option<String>,
    /// Handled commands of this boot, so that none is mistaken for another.
    pub settled_commands: Vec<String>,
}

impl StepRun {
    /// The steps of an automated clean that are known before its agent reports its own: those of the daemon, which the
    /// boot of the ramdisk may need.
    pub(crate) fn automated(enable_http_boot_priority: u32) -> Self {
        let http_boot = (enable_http_boot_priority > 0)
            .then(|| BmcStep::automated_http_boot(enable_http_boot_priority));
        Self { automated: true, steps: http_boot.into_iter().collect(), ..Self::default() }
    }

    /// Whether a step needs the ramdisk's agent, or its list may have one.
    #[must_use]
    pub fn needs_agent(&self) -> bool {
        self.automated || self.steps.is_empty() || !self.steps.iter().all(BmcStep::is_one)
    }

    /// Whether the current or next step is the daemon's own.
    #[must_use]
    pub fn is_at_bmc_step(&self) -> bool {
        self.current().is_some_and(BmcStep::is_one)
    }

    /// Whether all steps are done without an agent.
    #[must_use]
    pub fn is_over_without_agent(&self) -> bool {
        !self.needs_agent() && self.current().is_none()
    }

    /// The current or next step.
    #[must_use]
    pub fn current(&self) -> Option<&ProcedureStep> {
        self.steps.get(self.done)
    }
}

/// A requested step that the agent does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepNotOffered {
    /// The step's name.
    pub step: String,
    /// The names of the agent's first steps.
    pub offered: Vec<String>,
    /// Number of its further steps.
    pub more: usize,
}

/// Number of the agent's steps that are named beside a step that it does not have.
const MOST_OFFERED: usize = 32;

/// The steps to run, in order, from the request and the agent's list. The daemon's own steps are in no list, and stay.
///
/// # Errors
/// The first requested step that the agent does not have.
pub fn choose(
    run: &StepRun,
    offers: &[ProcedureStep],
) -> Result<Vec<ProcedureStep>, StepNotOffered> {
    if run.automated {
        let own = run.steps.iter().filter(|step| BmcStep::is_one(step)).cloned();
        Ok(own.chain(by_priority(offers)).collect())
    } else {
        asked_for(&run.steps, offers)
    }
}

fn by_priority(offers: &[ProcedureStep]) -> Vec<ProcedureStep> {
    let mut steps: Vec<_> = offers.iter().filter(|step| step.priority > 0).cloned().collect();
    // Steps of equal priority are ordered by name, so that all runs are alike.
    steps.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.step.cmp(&b.step)));
    steps
}

fn asked_for(
    steps: &[ProcedureStep],
    offers: &[ProcedureStep],
) -> Result<Vec<ProcedureStep>, StepNotOffered> {
    steps
        .iter()
        .map(|asked| match offers.iter().find(|offer| offer.is(asked)) {
            _ if BmcStep::is_one(asked) => Ok(asked.clone()),
            Some(offer) => Ok(ProcedureStep { args: asked.args.clone(), ..offer.clone() }),
            None => Err(not_offered(asked, offers)),
        })
        .collect()
}

fn not_offered(asked: &ProcedureStep, offers: &[ProcedureStep]) -> StepNotOffered {
    let offered = offers.iter().take(MOST_OFFERED).map(ProcedureStep::name).collect();
    let more = offers.len().saturating_sub(MOST_OFFERED);
    StepNotOffered { step: asked.name(), offered, more }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    fn step(name: &str, priority: i64) -> ProcedureStep {
        ProcedureStep {
            interface: "deploy".into(),
            step: name.into(),
            args: Map::new(),
            priority,
            reboot_requested: false,
            abortable: false,
        }
    }

    #[test]
    fn automated_cleaning_runs_the_highest_priority_first_and_leaves_out_zero() {
        let run = StepRun { automated: true, ..StepRun::default() };
        let offers = [step("erase_devices", 10), step("burnin", 0), step("metadata", 99)];

        let chosen = choose(&run, &offers).unwrap();

        assert_eq!(chosen, [step("metadata", 99), step("erase_devices", 10)]);
    }

    #[test]
    fn a_manual_clean_keeps_the_operators_order_and_arguments() {
        let mut asked = step("erase_devices", 0);
        asked.args.insert("force".into(), true.into());
        let run = StepRun { steps: vec![asked, step("metadata", 0)], ..StepRun::default() };
        let offers = [step("metadata", 99), step("erase_devices", 10)];

        let chosen = choose(&run, &offers).unwrap();

        assert_eq!(chosen[0].step, "erase_devices");
        assert_eq!(chosen[0].args["force"], true);
        assert_eq!(chosen[1], step("metadata", 99));
    }

    #[test]
    fn the_daemons_own_steps_are_kept_in_their_place_whatever_the_agent_has() {
        let own = BmcStep::automated_http_boot(10);
        let manual =
            StepRun { steps: vec![step("metadata", 0), own.clone()], ..StepRun::default() };

        let chosen = choose(&manual, &[step("metadata", 99)]).unwrap();
        let automated = choose(&StepRun::automated(10), &[step("metadata", 99)]).unwrap();

        assert_eq!(chosen, [step("metadata", 99), own.clone()]);
        assert_eq!(automated, [own, step("metadata", 99)]);
        assert_eq!(StepRun::automated(0).steps, []);
    }

    #[test]
    fn a_step_that_the_ramdisk_lacks_is_named_together_with_those_it_has() {
        let run = StepRun { steps: vec![step("polish", 0)], ..StepRun::default() };

        let refused = choose(&run, &[step("metadata", 99)]).unwrap_err();
        let of_many = choose(&run, &vec![step("metadata", 99); MOST_OFFERED + 8]).unwrap_err();

        let (step, offered) = ("deploy.polish".to_owned(), vec!["deploy.metadata".to_owned()]);
        assert_eq!(refused, StepNotOffered { step, offered, more: 0 });
        assert_eq!((of_many.offered.len(), of_many.more), (MOST_OFFERED, 8));
    }
}
