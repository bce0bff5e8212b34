//! The effect of a verb in a state.

use crate::procedure::{ProcedureRow, ROWS, Verb};
use crate::state::ProvisionState;

/// The effect of a verb in a state.
#[derive(Clone, Copy, Debug)]
pub enum VerbMeaning {
    /// A procedure begins; the state follows its success.
    Begin(&'static ProcedureRow, ProvisionState),
    /// The node changes its state at once.
    Move(ProvisionState),
    /// The current procedure ends.
    Abort(&'static ProcedureRow),
    /// This service does not support it.
    NotBuilt,
}

/// The effect of a verb in a state; `None` if the state does not permit the verb.
#[must_use]
pub fn meaning(verb: Verb, state: ProvisionState) -> Option<VerbMeaning> {
    if verb == Verb::Abort {
        return abortable(state).map(VerbMeaning::Abort);
    }
    if verb == Verb::Manage && MANAGED.contains(&state) {
        return Some(VerbMeaning::Move(ProvisionState::Manageable));
    }
    if !verb.is_built() {
        return Some(VerbMeaning::NotBuilt);
    }
    ROWS.iter().find_map(|row| {
        let ask = row.asks.iter().find(|ask| ask.verb == verb && ask.from.contains(&state))?;
        let begin = VerbMeaning::Begin(row, ask.to);
        Some(if row.is_built { begin } else { VerbMeaning::NotBuilt })
    })
}

/// The states from which `manage` leads directly to `manageable`.
const MANAGED: [ProvisionState; 4] = [
    ProvisionState::Available,
    ProvisionState::CleanFailed,
    ProvisionState::InspectFailed,
    ProvisionState::AdoptFailed,
];

fn abortable(state: ProvisionState) -> Option<&'static ProcedureRow> {
    let row = state.procedure().filter(|_| state.is_under_way())?.row();
    row.is_abortable.then_some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_that_is_not_built_is_so_in_each_state_from_which_it_leads() {
        for row in ROWS.iter().filter(|row| !row.is_built) {
            for ask in row.asks {
                for state in ask.from {
                    assert!(matches!(meaning(ask.verb, *state), Some(VerbMeaning::NotBuilt)));
                }
            }
        }
    }
}
