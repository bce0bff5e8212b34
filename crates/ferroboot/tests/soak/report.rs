//! The faults and failures of a run, as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Number of listed failures; the rest is counted.
const LISTED: usize = 60;

/// Counters of a run; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct SoakReport {
    title: String,
    began: Instant,
    inside: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    counted: BTreeMap<&'static str, u64>,
    most: BTreeMap<&'static str, u64>,
    failed: BTreeMap<String, u64>,
    broken: Vec<String>,
}

impl SoakReport {
    pub(crate) fn new(title: String) -> Self {
        Self { title, began: Instant::now(), inside: Arc::default() }
    }

    pub(crate) fn count(&self, what: &'static str) {
        self.add(what, 1);
    }

    pub(crate) fn add(&self, what: &'static str, more: u64) {
        *self.counts().counted.entry(what).or_default() += more;
    }

    /// Keeps the maximum.
    pub(crate) fn most(&self, what: &'static str, seen: u64) {
        let mut counts = self.counts();
        let most = counts.most.entry(what).or_default();
        *most = seen.max(*most);
    }

    /// Counts a procedure that failed because of an injected fault.
    pub(crate) fn failed(&self, why: &str) {
        // One row for all texts that differ only in an address or a number.
        let mut words = String::new();
        for c in why.chars().take(160) {
            match c {
                '0'..='9' if words.ends_with('#') => {}
                '0'..='9' => words.push('#'),
                other => words.push(other),
            }
        }
        *self.counts().failed.entry(words).or_default() += 1;
    }

    /// A violation.
    pub(crate) fn broke(&self, what: String) {
        eprintln!("{:>8.1} s  BROKEN: {what}", self.seconds());
        self.counts().broken.push(what);
    }

    /// A line of the run's log.
    pub(crate) fn say(&self, what: &str) {
        eprintln!("{:>8.1} s  {what}", self.seconds());
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.counts().broken.is_empty()
    }

    pub(crate) fn table(&self) -> String {
        let counts = self.counts();
        let mut text = format!("\n=== soak: {}, {:.0} s ===\n", self.title, self.seconds());
        let mut row = |name: &str, value: u64| {
            let _ = writeln!(text, "{name:<58} {value:>12}");
        };
        counts.counted.iter().for_each(|(name, value)| row(name, *value));
        counts.most.iter().for_each(|(name, value)| row(name, *value));
        if !counts.failed.is_empty() {
            text.push_str("--- what failed for the sake of a fault that was injected ---\n");
            for (why, times) in &counts.failed {
                let _ = writeln!(text, "{times:>6} × {why}");
            }
        }
        let _ = writeln!(text, "--- broken: {} ---", counts.broken.len());
        for what in counts.broken.iter().take(LISTED) {
            let _ = writeln!(text, "BROKEN: {what}");
        }
        text
    }

    fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
