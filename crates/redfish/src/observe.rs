//! What a BMC shows while its machine boots: BootProgress, HPE's PostState, new entries of its event log, and the job
//! that changes BIOS attributes.
//!
//! A look takes 1 request where the BMC has no log, 3 where it has one, and up to `MOST_READ` more where the log
//! lists links. The log is looked for once.

use std::collections::HashSet;
use std::time::Duration;

use hardware::{BmcObservation, RedfishPurpose};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::channel::BmcChannel;
use crate::failure::BmcFailure;
use crate::machine::RedfishSystem;
use crate::resource::{RedfishResource, link_in};

/// Number limit of entries of one boot that are shown.
const MOST_SHOWN: usize = 8;
/// Number limit of entries that are read one by one at a look.
const MOST_READ: usize = 4;
/// Length limit of a message, in characters.
const LONGEST: usize = 300;
/// Number limit of services that may have the log.
const MOST_LOGS: usize = 12;
/// An entry may have been made this long before the answer to the power-on, by the clock of the log.
const MARGIN: SignedDuration = SignedDuration::from_secs(5);

/// The last part of the path of a log of the machine's own events, in lower case, best first: Dell `Sel`, HPE `IML`,
/// Supermicro and Huawei `Log1`, OpenBMC `SEL` and `EventLog`, Lenovo `StandardLog`, Fujitsu `SystemEventLog`.
const LOGS: [&str; 7] =
    ["sel", "iml", "systemeventlog", "eventlog", "log1", "standardlog", "platformlog"];

/// What is known of one boot from earlier looks.
#[derive(Clone, Debug, Default)]
pub struct BootWatch {
    progress: Option<BmcObservation>,
    post_state: Option<String>,
    /// The job that is not over.
    job: Option<BmcObservation>,
    log: LogPlace,
    /// Paths of entries that were shown or are older than the boot.
    entries: HashSet<String>,
    /// Number of shown entries.
    shown: usize,
    /// Whether the log was read before.
    has_read_log: bool,
}

#[derive(Clone, Debug, Default)]
enum LogPlace {
    #[default]
    Unknown,
    None,
    At(String),
}

impl BootWatch {
    /// Takes an observation of the boot from its trace, in the trace's order.
    pub fn take(&mut self, seen: &BmcObservation) {
        match seen {
            BmcObservation::BiosStaged { .. }
            | BmcObservation::BiosAsWanted
            | BmcObservation::BootCertificate { .. }
            | BmcObservation::SecureBootCertificate { .. }
            | BmcObservation::SecureBootOn { .. }
            | BmcObservation::ReadBack { .. } => {}
            BmcObservation::BootProgress { .. } => self.progress = Some(seen.clone()),
            BmcObservation::PostState { state } => self.post_state = Some(state.clone()),
            BmcObservation::Job { .. } => {
                self.job = (!seen.is_ended_job()).then(|| seen.clone());
            }
            BmcObservation::LogEntry { entry, .. } => {
                if self.entries.insert(entry.clone()) {
                    self.shown += 1;
                }
            }
        }
    }

    /// What the system shows otherwise than before.
    fn news_of_system(&mut self, body: &Value) -> Vec<BmcObservation> {
        let mut news = Vec::new();
        let progress = &body["BootProgress"];
        if let Some(state) = progress["LastState"].as_str().filter(|state| *state != "None") {
            let oem_state = progress["OemLastState"].as_str().filter(|oem| !oem.is_empty());
            let secs = progress["LastBootTimeSeconds"].as_f64().filter(|secs| *secs > 0.0);
            news.push(BmcObservation::BootProgress {
                state: short(state),
                oem_state: oem_state.map(short),
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "positive, and a cast from a float saturates"
                )]
                last_boot_secs: secs.map(|secs| secs as u64),
            });
        }
        let post = [&body["Oem"]["Hpe"]["PostState"], &body["Oem"]["Hp"]["PostState"]];
        if let Some(state) = post.into_iter().find_map(Value::as_str) {
            news.push(BmcObservation::PostState { state: short(state) });
        }
        let known_post = self.post_state.clone().map(|state| BmcObservation::PostState { state });
        news.retain(|seen| {
            [&self.progress, &known_post].iter().all(|known| known.as_ref() != Some(seen))
        });
        news.iter().for_each(|seen| self.take(seen));
        news
    }

    /// The entries of this boot among those of a log, whose clock shows `clock`. Clocks of BMCs may be wrong by years, so
    /// only the age of an entry counts. Without a clock, an entry belongs to the boot if an earlier look did not see it.
    fn news_of_log(
        &mut self,
        entries: &[Value],
        clock: Option<Timestamp>,
        since_power_on: Duration,
    ) -> Vec<BmcObservation> {
        let begin = SignedDuration::try_from(since_power_on).ok();
        let begin = clock
            .zip(begin)
            .and_then(|(clock, since)| clock.checked_sub(since).ok()?.checked_sub(MARGIN).ok());
        let mut news = Vec::new();
        for body in entries {
            let Some(entry) = link_in(body) else { continue };
            if !self.entries.insert(entry.to_owned()) {
                continue;
            }
            let made = body["Created"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
            let is_of_boot = match (begin, made) {
                (Some(begin), Some(made)) => made >= begin,
                _ => self.has_read_log,
            };
            if is_of_boot && let Some(seen) = log_entry(entry, body) {
                news.push((made, seen));
            }
        }
        self.has_read_log = true;
        news.sort_by_key(|(made, _)| *made);
        let room = MOST_SHOWN.saturating_sub(self.shown);
        let newest = news.split_off(news.len().saturating_sub(room));
        self.shown += newest.len();
        newest.into_iter().map(|(_, seen)| seen).collect()
    }
}

fn log_entry(path: &str, body: &Value) -> Option<BmcObservation> {
    let message = body["Message"].as_str().filter(|message| !message.trim().is_empty())?;
    let severity = body["Severity"].as_str().unwrap_or("OK");
    let (entry, severity) = (path.to_owned(), short(severity));
    Some(BmcObservation::LogEntry { entry, severity, message: short(message) })
}

fn short(text: &str) -> String {
    text.trim().chars().take(LONGEST).collect()
}

impl<C: BmcChannel> RedfishSystem<'_, C> {
    /// What the BMC shows of the boot and did not show at earlier looks. The machine was switched on `since_power_on`
    /// ago.
    ///
    /// # Errors
    /// [`BmcFailure`] of the system. A job or a log that cannot be read shows nothing.
    pub async fn observe(
        &self,
        watch: &mut BootWatch,
        since_power_on: Duration,
    ) -> Result<Vec<BmcObservation>, BmcFailure> {
        let view = self.look().await?;
        let mut news = watch.news_of_system(&view.0.body);
        if let Some(seen) = self.job_news(watch).await {
            watch.take(&seen);
            news.push(seen);
        }
        if let LogPlace::Unknown = watch.log {
            watch.log = self.find_log(&view.0).await.map_or(LogPlace::None, LogPlace::At);
        }
        if let LogPlace::At(path) = &watch.log {
            match self.read_log(&path.clone(), watch, since_power_on).await {
                Ok(seen) => news.extend(seen),
                // Some logs are larger than any answer that is accepted.
                Err(BmcFailure::Refused { .. } | BmcFailure::NoAnswer { .. }) => {
                    watch.log = LogPlace::None;
                }
                Err(BmcFailure::TaskFailed { .. }) => {}
            }
        }
        Ok(news)
    }

    /// The job's state, if it is another one than before.
    async fn job_news(&self, watch: &BootWatch) -> Option<BmcObservation> {
        let Some(BmcObservation::Job { job, state: before, .. }) = &watch.job else { return None };
        let shown = self.service().find(RedfishPurpose::ReadJobs, job).await.ok()??;
        let text = |name: &str| shown.body[name].as_str();
        let state = text("JobState").or_else(|| text("TaskState")).filter(|it| it != before)?;
        let message = text("Message").or_else(|| shown.body["Messages"][0]["Message"].as_str());
        let (job, state) = (job.clone(), short(state));
        Some(BmcObservation::Job { job, state, message: short(message.unwrap_or_default()) })
    }

    /// The log of the machine's events: of the system, else of its manager.
    async fn find_log(&self, system: &RedfishResource) -> Option<String> {
        let services = system.link("LogServices").map(str::to_owned);
        if let Some(path) = services
            && let Some(log) = self.log_among(&path).await
        {
            return Some(log);
        }
        let manager = link_in(&system.body["Links"]["ManagedBy"][0])?;
        let manager = self.service().find(RedfishPurpose::ReadLog, manager).await.ok()??;
        self.log_among(manager.link("LogServices")?).await
    }

    async fn log_among(&self, services: &str) -> Option<String> {
        let services = self.service().find(RedfishPurpose::ReadLog, services).await.ok()??;
        let members: Vec<_> = services.members().into_iter().take(MOST_LOGS).collect();
        LOGS.into_iter().find_map(|wanted| {
            let name = |path: &String| {
                let path = path.trim_end_matches('/');
                path.rsplit('/').next().is_some_and(|name| name.eq_ignore_ascii_case(wanted))
            };
            members.iter().find(|path| name(path)).cloned()
        })
    }

    async fn read_log(
        &self,
        path: &str,
        watch: &mut BootWatch,
        since_power_on: Duration,
    ) -> Result<Vec<BmcObservation>, BmcFailure> {
        let service = self.service().get(RedfishPurpose::ReadLog, path).await?;
        let clock = service.body["DateTime"].as_str().and_then(|text| text.parse().ok());
        let Some(entries) = service.link("Entries") else { return Ok(Vec::new()) };
        let first = self.service().get(RedfishPurpose::ReadLog, entries).await?;
        let page = match last_page(&first.body) {
            Some(last) => self.service().get(RedfishPurpose::ReadLog, &last).await?,
            None => first,
        };
        let members = page.body["Members"].as_array().cloned().unwrap_or_default();
        let is_expanded = members.iter().any(|member| member.get("Created").is_some());
        let entries = if is_expanded { members } else { self.newest(watch, &members).await? };
        Ok(watch.news_of_log(&entries, clock, since_power_on))
    }

    /// The newest entries that are not known, of a log that lists links. Some logs begin with the newest entry.
    async fn newest(
        &self,
        watch: &mut BootWatch,
        links: &[Value],
    ) -> Result<Vec<Value>, BmcFailure> {
        let mut paths: Vec<_> = links.iter().filter_map(link_in).map(str::to_owned).collect();
        if let (Some(first), Some(last)) = (paths.first(), paths.last())
            && number_of(first) > number_of(last)
        {
            paths.reverse();
        }
        let mut unread = paths.split_off(paths.len().saturating_sub(MOST_READ));
        // What is not among the newest is not read later either.
        watch.entries.extend(paths);
        unread.retain(|path| !watch.entries.contains(path));
        let mut entries = Vec::new();
        for path in unread {
            if let Some(entry) = self.service().find(RedfishPurpose::ReadLog, &path).await? {
                entries.push(entry.body);
            }
        }
        Ok(entries)
    }
}

/// The path of the last page of a collection that comes page by page, oldest entry first.
fn last_page(first: &Value) -> Option<String> {
    let (next, count) =
        (first["Members@odata.nextLink"].as_str()?, first["Members@odata.count"].as_u64()?);
    let members = first["Members"].as_array()?;
    let number = |member: Option<&Value>| number_of(link_in(member?)?);
    if number(members.first()) > number(members.last()) {
        return None;
    }
    let (begin, rest) = next.split_once("$skip=").filter(|_| next.starts_with('/'))?;
    let rest = rest.trim_start_matches(|it: char| it.is_ascii_digit());
    let page = u64::try_from(members.len()).ok()?;
    Some(format!("{begin}$skip={}{rest}", count.checked_sub(page)?))
}

/// The number at the end of a path.
fn number_of(path: &str) -> Option<u64> {
    let path = path.trim_end_matches('/');
    let digits = path.rsplit(|it: char| !it.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use hardware::Mac;
    use serde_json::json;

    use super::*;
    use crate::emulator::{EmulatedFault, FaultRule, Platform};
    use crate::facts::BmcFacts;
    use crate::in_memory::{InMemoryBmc, MAC};
    use crate::system::SystemPower;
    use crate::ways::{BootNeed, HttpBootOverride, MediaUse};

    const PATIENCE: Duration = Duration::from_secs(30);

    fn watching(job: Option<String>) -> BootWatch {
        let mut watch = BootWatch::default();
        if let Some(job) = job {
            let (state, message) = ("Scheduled".to_owned(), String::new());
            watch.take(&BmcObservation::Job { job, state, message });
        }
        watch
    }

    /// A boot from a URL, and what is seen of it at looks this long after the power-on. The last column is the number of
    /// requests of the look.
    async fn boot_seen(bmc: &InMemoryBmc, looks: &[u64]) -> String {
        let (facts, macs): (_, Vec<Mac>) = (BmcFacts::default(), vec![MAC.parse().unwrap()]);
        let machine = RedfishSystem::find(bmc, &facts, None, PATIENCE).await.unwrap();
        let view = machine.look().await.unwrap();
        let media = MediaUse::Never;
        let need = BootNeed { by_url: true, macs: &macs, allows_pxe: true, media, advice: None };
        let job = match machine.choose_way(&view, &need).await {
            Ok(way) => {
                let wanted = HttpBootOverride::once(Some("http://10.0.0.1/boot.iso".to_owned()));
                machine.set_boot(&view, &way, &wanted).await.unwrap()
            }
            Err(_) => None,
        };
        let mut watch = watching(job);
        machine.power_on(&machine.look().await.unwrap()).await.unwrap();
        machine.await_power(SystemPower::On, Duration::from_secs(90)).await.unwrap();
        let (begin, mut text) = (bmc.waited(), String::new());
        for secs in looks {
            let due = begin + Duration::from_secs(*secs);
            machine.service().pause(due.saturating_sub(bmc.waited())).await;
            let before = bmc.requests().len();
            let news = machine.observe(&mut watch, Duration::from_secs(*secs)).await.unwrap();
            writeln!(text, "  {secs} s, {} requests", bmc.requests().len() - before).unwrap();
            news.iter().for_each(|seen| writeln!(text, "    {seen}").unwrap());
        }
        text
    }

    #[tokio::test]
    async fn what_each_platform_shows_of_a_boot_is_seen_once() {
        let mut table = String::new();
        for platform in Platform::ALL {
            let bmc = InMemoryBmc::new(platform);
            let seen = boot_seen(&bmc, &[1, 3, 30, 40]).await;
            write!(table, "{platform:?}\n{seen}").unwrap();
        }
        insta::assert_snapshot!(table);
    }

    #[tokio::test]
    async fn firmware_that_stays_where_it_is_and_an_error_of_its_self_test_are_seen() {
        let state = "MemoryInitializationStarted".to_owned();
        let message = "UEFI0060: Memory training failed on DIMM A1.".to_owned();
        for platform in [Platform::DellIdrac9, Platform::HpeIlo5] {
            let faults = [
                FaultRule::always(EmulatedFault::BootStays { state: state.clone() }),
                FaultRule::always(EmulatedFault::PostError { message: message.clone() }),
            ];
            let bmc = InMemoryBmc::new(platform).with_faults(faults.to_vec());

            let seen = boot_seen(&bmc, &[30, 60]).await;

            assert!(seen.contains("BootProgress MemoryInitializationStarted\n"), "{seen}");
            assert!(seen.contains("Critical: UEFI0060: Memory training failed"), "{seen}");
            assert!(!seen.contains("The BMC was started"), "{seen}");
            assert_eq!(seen.matches("UEFI0060").count(), 1, "{seen}");
        }
    }

    #[tokio::test]
    async fn a_job_that_fails_in_the_self_test_is_seen() {
        let failed = json!({
            "TaskState": "Exception",
            "Messages": [{"Message": "Unable to apply the settings."}],
        });
        let path = "/redfish/v1/TaskService/Tasks/JID_*";
        let rule =
            FaultRule { path: path.to_owned(), ..FaultRule::always(EmulatedFault::Merge(failed)) };
        let bmc = InMemoryBmc::new(Platform::DellIdrac9).with_faults(vec![rule]);

        let seen = boot_seen(&bmc, &[30, 40]).await;

        let words = "is Exception: Unable to apply the settings.";
        assert_eq!(seen.matches(words).count(), 1, "{seen}");
    }

    fn entry(id: &str, created: Option<&str>) -> Value {
        let path = format!("/log/Entries/{id}");
        json!({"@odata.id": path, "Created": created, "Severity": "Critical", "Message": id})
    }

    fn ids(news: &[BmcObservation]) -> Vec<&str> {
        let messages = news.iter().map(|seen| {
            let BmcObservation::LogEntry { message, .. } = seen else { panic!("{seen}") };
            message.as_str()
        });
        messages.collect()
    }

    #[test]
    fn entries_of_the_boot_are_told_by_the_clock_of_the_log_whatever_it_shows() {
        let clock = "2003-01-01T00:01:00-05:00".parse().ok();
        let entries = [
            entry("new", Some("2003-01-01T05:00:30Z")),
            entry("old", Some("2003-01-01T05:00:10Z")),
            entry("undated", None),
        ];
        let mut watch = BootWatch::default();

        let news = watch.news_of_log(&entries, clock, Duration::from_secs(40));

        assert_eq!(ids(&news), ["new"]);
        assert_eq!(watch.news_of_log(&entries, clock, Duration::from_secs(50)), []);
    }

    #[test]
    fn without_a_clock_entries_of_the_boot_are_those_that_an_earlier_look_did_not_see() {
        let mut watch = BootWatch::default();
        let first = [entry("1", Some("2003-01-01T05:00:30Z"))];
        assert_eq!(watch.news_of_log(&first, None, Duration::from_secs(40)), []);

        let both = [entry("2", None), first[0].clone()];
        let news = watch.news_of_log(&both, None, Duration::from_secs(50));

        assert_eq!(ids(&news), ["2"]);
    }

    #[test]
    fn of_many_entries_the_newest_are_shown_and_no_more_than_so_many_of_one_boot() {
        let mut watch = BootWatch::default();
        watch.news_of_log(&[], None, Duration::ZERO);
        let entries: Vec<_> = (0..100).map(|id| entry(&id.to_string(), None)).collect();

        let news = watch.news_of_log(&entries, None, Duration::from_secs(50));

        assert_eq!(news.len(), MOST_SHOWN);
        let more = watch.news_of_log(&[entry("more", None)], None, Duration::from_secs(60));
        assert_eq!(more, []);
    }

    #[test]
    fn a_watch_from_the_trace_knows_what_it_shows() {
        let body = json!({
            "BootProgress": {"LastState": "OEM", "OemLastState": "x", "LastBootTimeSeconds": 12.9},
            "Oem": {"Hpe": {"PostState": "InPost"}},
        });
        let news = BootWatch::default().news_of_system(&body);
        let shown: Vec<_> = news.iter().map(ToString::to_string).collect();
        let progress = "the BMC shows BootProgress OEM (x), the last boot took 12 s";
        assert_eq!(shown, [progress, "the BMC shows PostState InPost"]);

        let mut watch = BootWatch::default();
        news.iter().for_each(|seen| watch.take(seen));

        assert_eq!(watch.news_of_system(&body), []);
        assert_eq!(BootWatch::default().news_of_system(&json!({"BootProgress": {}})), []);
    }

    #[test]
    fn the_newest_entries_of_a_paged_log_are_on_its_last_page_unless_it_begins_with_them() {
        let page = |first: u32, last: u32| {
            json!({
                "Members": [
                    {"@odata.id": format!("/l/Entries/{first}")},
                    {"@odata.id": format!("/l/Entries/{last}")},
                ],
                "Members@odata.count": 100,
                "Members@odata.nextLink": "/l/Entries?$skip=2&$top=2",
            })
        };

        assert_eq!(last_page(&page(1, 2)).as_deref(), Some("/l/Entries?$skip=98&$top=2"));
        assert_eq!(last_page(&page(100, 99)), None);
        assert_eq!(last_page(&json!({"Members": []})), None);
    }
}
