//! Tries of ending an attempt.

use std::time::Duration;

use uuid::Uuid;

use crate::event::Event;

/// Number of tries. A machine that stays on may boot into an unwanted system.
const TRIES: u32 = 3;
const BETWEEN_TRIES: Duration = Duration::from_secs(5);

/// The tries to end an attempt.
#[derive(Clone, Copy, Debug)]
pub struct TearDownPlan {
    attempt: Uuid,
    /// Number of failed tries.
    failed: u32,
}

/// The action after a try.
#[derive(Clone, Debug, PartialEq)]
pub enum TearDownAction {
    /// Another try.
    TryAgain {
        /// The wait before it.
        after: Duration,
    },
    /// None: the result.
    Done(Event),
}

impl TearDownPlan {
    /// Before the first try to end `attempt`.
    #[must_use]
    pub fn new(attempt: Uuid) -> Self {
        Self { attempt, failed: 0 }
    }

    /// The action after a try with this result.
    pub fn next(&mut self, tried: Result<(), String>) -> TearDownAction {
        let attempt = self.attempt;
        let Err(reason) = tried else {
            return TearDownAction::Done(Event::TornDown { attempt });
        };
        self.failed += 1;
        if self.failed < TRIES {
            TearDownAction::TryAgain { after: BETWEEN_TRIES }
        } else {
            TearDownAction::Done(Event::TearDownFailed { attempt, reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions(tries: &[Result<(), &str>]) -> Vec<TearDownAction> {
        let mut plan = TearDownPlan::new(Uuid::nil());
        tries.iter().map(|tried| plan.next(tried.map_err(str::to_owned))).collect()
    }

    #[test]
    fn a_tear_down_is_tried_three_times() {
        let again = TearDownAction::TryAgain { after: BETWEEN_TRIES };
        let attempt = Uuid::nil();
        let done = TearDownAction::Done(Event::TornDown { attempt });
        let reason = "its last words".to_owned();
        let failed = TearDownAction::Done(Event::TearDownFailed { attempt, reason });

        assert_eq!(actions(&[Ok(())]), std::slice::from_ref(&done));
        assert_eq!(actions(&[Err("no"), Ok(())]), [again.clone(), done.clone()]);
        assert_eq!(actions(&[Err("no"), Err("no"), Ok(())]), [again.clone(), again.clone(), done]);
        assert_eq!(
            actions(&[Err("no"), Err("no"), Err("its last words")]),
            [again.clone(), again, failed]
        );
    }
}
