//! Memory for a port's answers until their peers have taken them.
//!
//! A peer that requests long lists and takes none of them is refused before other peers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::admission::Account;

/// Answers up to this many bytes are not counted: their connections are.
const SMALL: u64 = 16 * 1024;

/// The current answers of a port; clones share them.
#[derive(Clone, Debug)]
pub(super) struct AnswerBudget {
    bytes: u64,
    held: Arc<Mutex<HashMap<Account, u64>>>,
}

/// The memory of one answer, until dropped.
#[derive(Debug)]
pub(super) struct AnswerShare {
    budget: AnswerBudget,
    account: Account,
    bytes: u64,
}

impl AnswerBudget {
    pub(super) fn new(bytes: u64) -> Self {
        Self { bytes, held: Arc::default() }
    }

    /// Reserves memory for an answer. One peer gets at most a quarter, except for a single longer answer. `None` for
    /// small answers, which need no reservation.
    ///
    /// # Errors
    /// There is no room.
    pub(super) fn take(&self, account: Account, bytes: u64) -> Result<Option<AnswerShare>, NoRoom> {
        if bytes <= SMALL {
            return Ok(None);
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let own = held.get(&account).copied().unwrap_or(0);
        let all = held.values().sum::<u64>();
        let is_exempt = matches!(account, Account::Exempt(_));
        let has_share = own == 0 || is_exempt || own + bytes <= self.bytes / 4;
        if !has_share || all > 0 && all + bytes > self.bytes {
            return Err(NoRoom);
        }
        *held.entry(account).or_default() += bytes;
        drop(held);
        Ok(Some(AnswerShare { budget: self.clone(), account, bytes }))
    }
}

/// Too many answers are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

impl Drop for AnswerShare {
    fn drop(&mut self) {
        let mut held = self.budget.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = held.get_mut(&self.account) {
            *bytes -= self.bytes;
            if *bytes == 0 {
                held.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn account(n: u8) -> Account {
        Account::Node(Uuid::from_u128(n.into()))
    }

    #[test]
    fn one_peer_has_a_quarter_of_the_room_and_leaves_the_rest_to_others() {
        let budget = AnswerBudget::new(4 * MIB);
        let first = budget.take(account(1), MIB / 2).unwrap();
        let _second = budget.take(account(1), MIB / 2).unwrap();

        assert_eq!(budget.take(account(1), MIB / 2).unwrap_err(), NoRoom);
        assert!(budget.take(account(1), SMALL).is_ok(), "small ones are not counted");
        let _other = budget.take(account(2), MIB / 2).unwrap();
        drop(first);
        assert!(budget.take(account(1), MIB / 2).is_ok());
    }

    #[test]
    fn one_answer_may_be_as_long_as_it_is() {
        let budget = AnswerBudget::new(MIB);
        let long = budget.take(account(1), 9 * MIB).unwrap();

        assert_eq!(budget.take(account(2), MIB).unwrap_err(), NoRoom);
        drop(long);
        assert!(budget.take(account(2), MIB).is_ok());
        assert!(budget.held.lock().unwrap().is_empty());
    }
}
