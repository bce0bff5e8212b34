//! What a BMC shows of its machine's firmware, as a part of the diagnosis.

use hardware::BmcObservation;
use jiff::SignedDuration;

use super::{Diagnosis, SELF_TEST, Verdict, stuck};

/// What the BMC shows since the power-on.
#[derive(Default)]
pub(super) struct FirmwareSigns<'a> {
    progress: Option<&'a BmcObservation>,
    post_state: Option<&'a BmcObservation>,
    /// The last entry of the log that is a warning or worse.
    error: Option<(&'a str, &'a str)>,
    /// The job that changes BIOS attributes for this boot. It is older than the power-on.
    job: Option<&'a BmcObservation>,
}

impl<'a> FirmwareSigns<'a> {
    pub(super) fn take(&mut self, seen: &'a BmcObservation) {
        match seen {
            BmcObservation::ReadBack { .. } => {}
            BmcObservation::BootProgress { .. } => self.progress = Some(seen),
            BmcObservation::PostState { .. } => self.post_state = Some(seen),
            BmcObservation::Job { .. } => self.job = Some(seen),
            BmcObservation::LogEntry { severity, message, .. } => {
                if !severity.eq_ignore_ascii_case("ok") {
                    self.error = Some((severity, message));
                }
            }
        }
    }

    pub(super) fn powered_on(&mut self) {
        *self = Self { job: self.job, ..Self::default() };
    }

    /// A job that has failed: the machine does not have what was to be set for this boot.
    pub(super) fn failed_job(&self) -> Option<Diagnosis> {
        let job = self.job.filter(|job| job.is_failed_job())?;
        let hint = "the BIOS attributes for this boot are not set: see the job and the Lifecycle Log in the BMC, and \
                    delete jobs that wait there";
        Some(stuck(job.to_string(), hint))
    }

    /// Whether the firmware's own end is known, so that waiting does not help.
    fn runs_a_system(&self) -> bool {
        let runs = |state: &str| {
            matches!(state, "OSBootStarted" | "OSRunning" | "OsIsRunning" | "OSBootCompleted")
        };
        matches!(self.progress, Some(BmcObservation::BootProgress { state, oem_state, .. })
            if runs(state) || oem_state.as_deref().is_some_and(runs))
    }

    fn is_in_memory_initialization(&self) -> bool {
        matches!(self.progress, Some(BmcObservation::BootProgress { state, .. })
            if state == "MemoryInitializationStarted")
    }

    /// Adds what is known of the firmware to a finding about a machine of which nothing was heard, or nothing more.
    pub(super) fn explain(&self, found: Diagnosis, quiet: SignedDuration) -> Diagnosis {
        let job = self.job.filter(|job| !job.is_ended_job());
        let shown = [job, self.progress, self.post_state].into_iter().flatten();
        let mut text = found.text;
        for seen in shown {
            text = format!("{text}; {seen}");
        }
        if let Some((severity, message)) = self.error {
            text = format!("{text}; the BMC's log says: {severity}: {message}");
        }
        let no_device = self.error.is_some_and(|(_, message)| is_about_boot_device(message));
        let own = if no_device {
            Some((
                found.verdict,
                "the firmware found nothing to boot: check that HTTP boot is on in its set-up, and the card's link",
            ))
        } else if self.error.is_some() {
            Some((found.verdict, "see the log of the BMC: the self-test found a fault"))
        } else if job.is_some() && quiet < SELF_TEST {
            let hint = "the machine runs the job in its self-test, and restarts once more after it";
            Some((Verdict::Waiting, hint))
        } else if self.runs_a_system() {
            let hint = "the machine started another system: check its boot order, and that HTTP boot is on in its \
                        set-up";
            Some((Verdict::Stuck, hint))
        } else if self.is_in_memory_initialization() && quiet >= SELF_TEST {
            let hint = "the firmware does not get past its memory: see the log of the BMC, and look for a bad or \
                        badly seated module";
            Some((Verdict::Stuck, hint))
        } else {
            None
        };
        match own {
            Some((verdict, hint)) => Diagnosis { verdict, text, hint: Some(hint.to_owned()) },
            None => Diagnosis { text, ..found },
        }
    }
}

fn is_about_boot_device(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["no bootable", "no boot device", "boot device not found", "unable to boot", "no boot media"]
        .iter()
        .any(|words| message.contains(words))
}
