//! The boots of machines in Kea: client classes in its configuration.
//!
//! Kea 2 has no free hook library with a command for a single class or host. So the configuration is read, changed
//! and set as a whole. Boots that begin meanwhile are configured together in the next round.

mod classes;
pub mod precedence;

use std::collections::{HashMap, HashSet};

use jiff::SignedDuration;
use serde_json::Value;
use thiserror::Error;
use uuid::Uuid;

use self::precedence::Obstacles;
use super::announcement::{Announcement, NoLinks};
use crate::urls::IpFamily;

/// Kea reports its configuration time in whole seconds, so two closer times may be the same.
const BLURRED: SignedDuration = SignedDuration::from_secs(2);

/// The boots to configure in Kea's servers.
#[derive(Clone, Debug, Default)]
pub struct KeaBoots {
    /// The boots, by node.
    all: HashMap<Uuid, Announcement>,
    /// The ended attempts, whose classes are to be removed.
    over: HashSet<Uuid>,
    changes: u64,
    /// The number of the change by [`KeaBoots::set_all`], 0 for none. A server without this change loses the classes
    /// of all boots that are not in `all`, those of other daemons included.
    alone: u64,
    rounds: u64,
}

/// The result of changing a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeaConfiguration {
    /// The options that take precedence over this service's.
    pub obstacles: Obstacles,
    /// Whether the configuration has changed, and must be set.
    pub is_changed: bool,
}

/// Leases only in Kea's memory are lost when a configuration is set, and their addresses are leased to other clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "it keeps leases in its memory only, and would forget them now and give their addresses \
     away: set persist to true in its lease-database"
)]
pub struct LeasesInMemory;

/// The result of configuring one server.
#[derive(Clone, Debug)]
pub struct ServerOutcome {
    /// The server's name in words.
    pub server: String,
    /// The address family of the server's clients.
    pub family: IpFamily,
    /// The options that take precedence over this service's, or the reason for the failure in words.
    pub told: Result<Obstacles, String>,
}

/// The state of a server, as far as known. Times are of a monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeaKnowledge {
    /// The number of the last configured change; 0 if unknown.
    pub changes: u64,
    /// The time of the configuration in which all boots were found, if it was read.
    since: Option<SignedDuration>,
}

/// The state of a server's boots, from its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeaStatus {
    /// The last change is not configured in the server, which answers again.
    Outdated,
    /// The configuration is the one in which all boots were found.
    AsBefore,
    /// The server was configured since then, so its configuration must be read.
    Configured {
        /// The time of the configuration.
        at: SignedDuration,
        /// The age of the configuration.
        age: SignedDuration,
    },
}

/// A server's status lacks the time of its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it does not say when it was configured")]
pub struct NoReloadTime;

impl KeaBoots {
    /// Adds a boot. It replaces an earlier one of its node.
    pub fn add(&mut self, told: &Announcement) {
        let before = self.all.insert(told.node, told.clone());
        self.over.extend(before.map(|before| before.attempt));
        self.over.remove(&told.attempt);
        self.changes += 1;
    }

    /// Removes a boot.
    pub fn withdraw(&mut self, attempt: Uuid) {
        let known = self.all.len();
        self.all.retain(|_, boot| boot.attempt != attempt);
        if self.over.insert(attempt) || self.all.len() < known {
            self.changes += 1;
        }
    }

    /// Sets the boots, and removes all others, whichever daemon configured them.
    pub fn set_all(&mut self, told: &[Announcement]) {
        let all = told.iter().map(|told| (told.node, told.clone())).collect();
        if self.alone > 0 && self.all == all {
            return;
        }
        self.all = all;
        self.changes += 1;
        self.alone = self.changes;
    }

    /// Number of changes.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Number of rounds that were begun.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Begins to configure the servers; returns the boots to configure.
    pub fn begin_round(&mut self) -> Self {
        self.rounds += 1;
        self.clone()
    }

    /// Ends a round that has configured `told` in all servers.
    pub fn end_round(&mut self, told: &Self) {
        self.over.retain(|attempt| !told.over.contains(attempt));
    }

    /// Changes the configuration of a server whose last configured change is `told`.
    ///
    /// # Errors
    /// The server would lose its leases.
    pub fn configure(
        &self,
        configuration: &mut Value,
        family: IpFamily,
        told: u64,
    ) -> Result<KeaConfiguration, LeasesInMemory> {
        let obstacles = Obstacles::of(configuration, family, self.all.values());
        let ours = self.classes(family);
        let is_changed =
            classes::replace(configuration, ours, |attempt| self.replaces(attempt, told));
        let leases = &configuration["lease-database"];
        if is_changed && leases["type"] == "memfile" && leases["persist"] == false {
            return Err(LeasesInMemory);
        }
        Ok(KeaConfiguration { obstacles, is_changed })
    }

    /// Whether a server's configuration lacks some of the boots.
    #[must_use]
    pub fn are_lacking_in(&self, configuration: &Value, family: IpFamily) -> bool {
        classes::lacks(configuration, &self.classes(family))
    }

    fn classes(&self, family: IpFamily) -> Vec<Value> {
        let all: Vec<_> = self.all.values().cloned().collect();
        classes::of(&all, family)
    }

    /// Whether the classes of an attempt are replaced on a server whose last configured change is `told`.
    fn replaces(&self, attempt: Uuid, told: u64) -> bool {
        told < self.alone
            || self.over.contains(&attempt)
            || self.all.values().any(|boot| boot.attempt == attempt)
    }
}

impl KeaKnowledge {
    /// The state of a server's boots, from its answer to `status-get`. This command is sent more often than
    /// `config-get`: a configuration may be long, and Kea answers no client while it composes one.
    ///
    /// # Errors
    /// The status lacks the time of the configuration.
    pub fn status(
        &self,
        boots: &KeaBoots,
        status: &Value,
        now: SignedDuration,
    ) -> Result<KeaStatus, NoReloadTime> {
        if self.changes != boots.changes {
            return Ok(KeaStatus::Outdated);
        }
        let age = status["reload"].as_u64().ok_or(NoReloadTime)?;
        let age = SignedDuration::from_secs(i64::try_from(age).unwrap_or(i64::MAX));
        let at = now.saturating_sub(age);
        let is_as_before = self.since.is_some_and(|since| at.saturating_sub(since) < BLURRED);
        Ok(if is_as_before { KeaStatus::AsBefore } else { KeaStatus::Configured { at, age } })
    }

    /// Records the result of reading the configuration that was set at `at`, `age` ago.
    pub fn note_configuration(
        &mut self,
        at: SignedDuration,
        age: SignedDuration,
        has_forgotten: bool,
    ) {
        // A younger configuration may be mistaken for the next one.
        self.since = (!has_forgotten && age > BLURRED).then_some(at);
        if has_forgotten {
            self.changes = 0;
        }
    }
}

/// Checks that at least one of the servers, given by their families, can send URLs that machines can fetch.
///
/// # Errors
/// The reason of the first server, if there is none.
pub fn expect_announceable(
    told: &Announcement,
    families: impl IntoIterator<Item = IpFamily>,
) -> Result<(), NoLinks> {
    let mut tried = families.into_iter().map(|family| told.links_in_options(family).map(drop));
    let first = tried.next().unwrap_or(Ok(()));
    first.or_else(|refused| if tried.any(|it| it.is_ok()) { Ok(()) } else { Err(refused) })
}

/// The obstacles to the answers of a boot, in words. The boot is possible if one of the servers sends the URL.
///
/// # Errors
/// The reasons of all servers, if none of them sends it.
pub fn warnings(
    told: &Announcement,
    outcomes: impl IntoIterator<Item = ServerOutcome>,
) -> Result<Vec<String>, String> {
    let (mut warnings, mut failed, mut answers) = (Vec::new(), Vec::new(), false);
    for ServerOutcome { server, family, told: outcome } in outcomes {
        if told.links_in_options(family).is_err() {
            continue;
        }
        let warning = outcome.and_then(|obstacles| {
            obstacles.warning(told).map_err(|in_front| format!("{server}: {in_front}"))
        });
        match warning {
            Ok(warning) => {
                answers = true;
                warnings.extend(warning.map(|in_front| format!("{server}: {in_front}")));
            }
            Err(words) => failed.push(words),
        }
    }
    if answers { Ok([warnings, failed].concat()) } else { Err(failed.join("; ")) }
}

/// A command in the encoding that Kea accepts.
///
/// Kea shows each byte of a text that is not ASCII as a separate character (`\u00c3`), and accepts only that form: it
/// would treat each byte of UTF-8 as a character.
#[must_use]
pub fn in_ascii(command: &Value) -> String {
    let text = command.to_string();
    let mut ascii = String::with_capacity(text.len());
    for character in text.chars() {
        match u8::try_from(character) {
            Ok(byte @ ..=0x7e) => ascii.push(byte.into()),
            Ok(byte) => ascii.push_str(&as_kea_shows(byte)),
            Err(_) => {
                let bytes = character.to_string().into_bytes();
                ascii.extend(bytes.into_iter().map(as_kea_shows));
            }
        }
    }
    ascii
}

fn as_kea_shows(byte: u8) -> String {
    format!("\\u{byte:04x}")
}

#[cfg(test)]
mod tests {
    use provision::BootInterface::Http;
    use serde_json::json;

    use super::*;
    use crate::providers::test_announcements::{announcement, next_boot};

    fn secs(secs: i64) -> SignedDuration {
        SignedDuration::from_secs(secs)
    }

    /// The configuration after [`KeaBoots::configure`].
    fn configured(boots: &KeaBoots, shown: &Value, told: u64) -> Value {
        let mut configuration = shown.clone();
        boots.configure(&mut configuration, IpFamily::V4, told).unwrap();
        configuration
    }

    #[test]
    fn a_boot_in_place_of_another_of_its_node_takes_that_ones_classes_and_nobody_elses() {
        let first = announcement(Http, "10.0.0.1");
        let mut of_others = next_boot(&next_boot(&first));
        of_others.node = Uuid::from_u128(9);
        let mut others = KeaBoots::default();
        others.add(&of_others);
        let mut boots = KeaBoots::default();
        boots.add(&first);
        let shown = configured(&boots, &configured(&others, &json!({}), 0), 0);

        boots.add(&next_boot(&first));
        let after = configured(&boots, &shown, boots.changes());

        let mut alone = KeaBoots::default();
        alone.add(&next_boot(&first));
        assert!(!alone.are_lacking_in(&after, IpFamily::V4));
        assert!(!others.are_lacking_in(&after, IpFamily::V4));
        let count =
            |configuration: &Value| configuration["client-classes"].as_array().unwrap().len();
        assert_eq!(count(&after), count(&shown));
    }

    #[test]
    fn what_is_set_in_whole_leaves_classes_of_no_other_boot_and_changes_nothing_when_set_again() {
        let first = announcement(Http, "10.0.0.1");
        let mut others = KeaBoots::default();
        others.add(&next_boot(&first));
        let shown = configured(&others, &json!({}), 0);
        let mut boots = KeaBoots::default();

        boots.set_all(&[]);

        assert_eq!(configured(&boots, &shown, 0), json!({"client-classes": []}));
        assert_eq!(configured(&boots, &shown, boots.changes()), shown, "it was told that already");
        let changes = boots.changes();
        boots.set_all(&[]);
        assert_eq!(boots.changes(), changes);
    }

    #[test]
    fn a_server_that_would_forget_its_leases_is_not_told() {
        let mut boots = KeaBoots::default();
        let mut shown = json!({"lease-database": {"type": "memfile", "persist": false}});
        let unchanged = boots.configure(&mut shown, IpFamily::V4, 0).unwrap();
        assert!(!unchanged.is_changed);

        boots.add(&announcement(Http, "10.0.0.1"));

        assert_eq!(boots.configure(&mut shown, IpFamily::V4, 0), Err(LeasesInMemory));
    }

    #[test]
    fn a_configuration_is_read_again_only_if_it_may_be_another_one() {
        let mut boots = KeaBoots::default();
        boots.add(&announcement(Http, "10.0.0.1"));
        let mut known = KeaKnowledge::default();
        let status = |known: &KeaKnowledge, age, now| {
            known.status(&boots, &json!({"reload": age}), secs(now)).unwrap()
        };
        assert_eq!(status(&known, 60, 0), KeaStatus::Outdated);

        known.changes = boots.changes();
        let young = KeaStatus::Configured { at: secs(99), age: secs(1) };
        assert_eq!(status(&known, 1, 100), young);
        known.note_configuration(secs(99), secs(1), false);
        assert_eq!(status(&known, 1, 100), young, "another one could have the same age");
        known.note_configuration(secs(99), secs(11), false);
        assert_eq!(status(&known, 21, 120), KeaStatus::AsBefore);
        assert_ne!(status(&known, 1, 120), KeaStatus::AsBefore);
        known.note_configuration(secs(119), secs(5), true);
        assert_eq!(status(&known, 60, 130), KeaStatus::Outdated);
        let silent = known.status(&KeaBoots::default(), &json!({}), secs(130));
        assert_eq!(silent, Err(NoReloadTime));
    }

    #[test]
    fn one_server_that_tells_machines_is_enough_and_of_the_other_it_is_said_why_not() {
        let boot = announcement(Http, "boot.example");
        let outcome = |family, told| ServerOutcome { server: "Kea".to_owned(), family, told };
        let well = || outcome(IpFamily::V4, Ok(Obstacles::default()));
        let failed = || outcome(IpFamily::V6, Err("no answer".to_owned()));

        assert_eq!(warnings(&boot, [well(), failed()]), Ok(vec!["no answer".to_owned()]));
        assert_eq!(warnings(&boot, [failed()]), Err("no answer".to_owned()));
        let four = announcement(Http, "10.0.0.1");
        assert_eq!(warnings(&four, [well(), failed()]), Ok(Vec::new()), "it has nothing to tell");
    }

    #[test]
    fn text_that_is_not_ascii_is_said_byte_by_byte() {
        assert_eq!(
            in_ascii(&json!("Zürich, 東\u{7f}")),
            r#""Z\u00fcrich, \u00e6\u009d\u00b1\u007f""#
        );
    }
}
