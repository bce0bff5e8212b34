//! Steps of procedures: the operator's request, the agent's list, and the selection.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One step of a procedure, in the words of the APIs of Ironic and of the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcedureStep {
    /// The interface: `deploy` for all steps of the agent.
    pub interface: String,
    /// Its name.
    pub step: String,
    /// Arguments.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub args: Map<String, Value>,
    /// Automated cleaning runs those above zero, highest first.
    #[serde(default)]
    pub priority: i64,
    /// Whether the machine must reboot after the step.
    #[serde(default)]
    pub reboot_requested: bool,
    /// Whether `abort` is safe during the step.
    #[serde(default)]
    pub abortable: bool,
}

impl ProcedureStep {
    /// `deploy.erase_devices_metadata`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.interface, self.step)
    }

    fn is(&self, other: &Self) -> bool {
        self.interface == other.interface && self.step == other.step
    }
}

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

/// The steps to run, in order, from the request and the agent's list.
///
/// # Errors
/// The first requested step that the agent does not have.
pub fn choose(
    run: &StepRun,
    offers: &[ProcedureStep],
) -> Result<Vec<ProcedureStep>, StepNotOffered> {
    if run.automated { Ok(by_priority(offers)) } else { asked_for(&run.steps, offers) }
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
    fn a_step_that_the_ramdisk_lacks_is_named_together_with_those_it_has() {
        let run = StepRun { steps: vec![step("polish", 0)], ..StepRun::default() };

        let refused = choose(&run, &[step("metadata", 99)]).unwrap_err();
        let of_many = choose(&run, &vec![step("metadata", 99); MOST_OFFERED + 8]).unwrap_err();

        let (step, offered) = ("deploy.polish".to_owned(), vec!["deploy.metadata".to_owned()]);
        assert_eq!(refused, StepNotOffered { step, offered, more: 0 });
        assert_eq!((of_many.offered.len(), of_many.more), (MOST_OFFERED, 8));
    }
}
