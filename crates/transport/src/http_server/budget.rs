//! Memory for a port's request bodies, and the choice of a body to drop if that is exceeded.
//!
//! Only received bytes count: an announced length costs nothing. Of the account that holds most, the largest body is
//! dropped, so that a heartbeat of a kilobyte has room beside any number of large bodies.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::task::AtomicWaker;

use super::admission::Account;

/// The bodies of a port; clones share them.
#[derive(Clone, Debug)]
pub(super) struct BodyBudget(Arc<Mutex<BodyLedger>>);

#[derive(Debug)]
struct BodyLedger {
    bytes: u64,
    taken: u64,
    bodies: BTreeMap<u64, BodyEntry>,
    accounts: HashMap<Account, u64>,
    next: u64,
}

#[derive(Debug)]
struct BodyEntry {
    account: Account,
    taken: u64,
    notice: Arc<Notice>,
}

/// Notifies the reader of a body that the body is dropped.
#[derive(Debug, Default)]
pub(super) struct Notice {
    gives_way: AtomicBool,
    pub(super) reader: AtomicWaker,
}

impl Notice {
    pub(super) fn gives_way(&self) -> bool {
        self.gives_way.load(Ordering::Acquire)
    }
}

/// The memory of one request's body, until its answer is ready.
#[derive(Debug)]
pub(super) struct BodyShare {
    budget: BodyBudget,
    id: u64,
    notice: Arc<Notice>,
}

impl BodyBudget {
    pub(super) fn new(bytes: u64) -> Self {
        let ledger = BodyLedger {
            bytes,
            taken: 0,
            bodies: BTreeMap::new(),
            accounts: HashMap::new(),
            next: 0,
        };
        Self(Arc::new(Mutex::new(ledger)))
    }

    /// The share of a body of which nothing has arrived.
    pub(super) fn share(&self, account: Account) -> BodyShare {
        let notice = Arc::<Notice>::default();
        let mut ledger = self.ledger();
        let id = ledger.next;
        ledger.next += 1;
        ledger.bodies.insert(id, BodyEntry { account, taken: 0, notice: Arc::clone(&notice) });
        BodyShare { budget: self.clone(), id, notice }
    }

    fn ledger(&self) -> MutexGuard<'_, BodyLedger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BodyShare {
    /// Adds `bytes`; false if this body is the one to drop.
    #[must_use]
    pub(super) fn take(&self, bytes: u64) -> bool {
        self.budget.ledger().take(self.id, bytes)
    }

    pub(super) fn notice(&self) -> &Notice {
        &self.notice
    }
}

impl Drop for BodyShare {
    fn drop(&mut self) {
        self.budget.ledger().give_back(self.id);
    }
}

impl BodyLedger {
    fn take(&mut self, id: u64, bytes: u64) -> bool {
        let Some(entry) = self.bodies.get_mut(&id).filter(|entry| !entry.notice.gives_way()) else {
            return false;
        };
        entry.taken += bytes;
        *self.accounts.entry(entry.account).or_default() += bytes;
        self.taken += bytes;
        while self.taken > self.bytes {
            let Some(largest) = self.largest() else { break };
            self.let_go(largest);
            if largest == id {
                return false;
            }
        }
        true
    }

    /// The largest body of the account that holds most.
    fn largest(&self) -> Option<u64> {
        let holding = self.bodies.iter().filter(|(_, entry)| entry.taken > 0);
        let of = |entry: &BodyEntry| self.accounts.get(&entry.account).copied().unwrap_or(0);
        holding.max_by_key(|(id, entry)| (of(entry), entry.taken, **id)).map(|(id, _)| *id)
    }

    /// Removes a body. Its reader drops the data as soon as it is notified.
    fn let_go(&mut self, id: u64) {
        let Some(entry) = self.bodies.get_mut(&id) else { return };
        let (account, taken) = (entry.account, std::mem::take(&mut entry.taken));
        entry.notice.gives_way.store(true, Ordering::Release);
        entry.notice.reader.wake();
        self.subtract(account, taken);
    }

    fn give_back(&mut self, id: u64) {
        if let Some(entry) = self.bodies.remove(&id) {
            self.subtract(entry.account, entry.taken);
        }
    }

    fn subtract(&mut self, account: Account, taken: u64) {
        self.taken -= taken;
        if let Some(left) = self.accounts.get_mut(&account) {
            *left -= taken;
            if *left == 0 {
                self.accounts.remove(&account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn account(n: u8) -> Account {
        Account::Node(Uuid::from_u128(n.into()))
    }

    #[test]
    fn a_small_body_has_room_beside_large_ones() {
        let budget = BodyBudget::new(1_000);
        let large: Vec<_> = (0..4).map(|_| budget.share(account(1))).collect();
        assert!(large.iter().all(|share| share.take(240)));

        let small = budget.share(account(2));

        assert!(small.take(100));
        assert_eq!(large.iter().filter(|share| share.notice().gives_way()).count(), 1);
        assert!(!small.notice().gives_way());
    }

    #[test]
    fn the_one_that_is_too_large_itself_gives_way() {
        let budget = BodyBudget::new(1_000);
        let (first, second) = (budget.share(account(1)), budget.share(account(2)));
        assert!(first.take(400));

        assert!(!second.take(700));

        assert!(!first.notice().gives_way());
        assert!(!second.take(1), "it stays refused");
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let budget = BodyBudget::new(1_000);
        for _ in 0..10 {
            assert!(budget.share(account(1)).take(1_000));
        }
        assert_eq!(budget.ledger().taken, 0);
        assert!(budget.ledger().accounts.is_empty());
    }

    proptest! {
        #[test]
        fn the_budget_is_never_passed(
            actions in prop::collection::vec((0..8_usize, 0..600_u64, any::<bool>()), 0..200),
        ) {
            let budget = BodyBudget::new(1_000);
            let mut shares: Vec<_> = (0..8).map(|n| budget.share(account(n % 3))).collect();
            for (at, bytes, ends) in actions {
                let _ = shares[at].take(bytes);
                if ends {
                    shares[at] = budget.share(account(u8::try_from(at % 3).unwrap()));
                }
                let ledger = budget.ledger();
                prop_assert!(ledger.taken <= 1_000);
                let sum: u64 = ledger.bodies.values().map(|entry| entry.taken).sum();
                prop_assert_eq!(ledger.taken, sum);
                prop_assert_eq!(ledger.accounts.values().sum::<u64>(), sum);
            }
        }
    }
}
