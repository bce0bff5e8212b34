//! What a BMC shows of its machine's firmware, as a part of the diagnosis.

use hardware::{BmcObservation, EnrolmentOutcome, MicrosoftUefiCa, SecureBootTrust};

use crate::artifact::HttpLoader;

/// What the BMC shows since the power-on.
#[derive(Default)]
pub(super) struct FirmwareSigns<'a> {
    progress: Option<&'a BmcObservation>,
    post_state: Option<&'a BmcObservation>,
    /// The last entry of the log that is a warning or worse.
    error: Option<(&'a str, &'a str)>,
    /// The job that changes BIOS attributes for this boot. It is older than the power-on.
    job: Option<&'a BmcObservation>,
    /// That the firmware lacks the CA of this service, or may lack it. It is older than the power-on.
    no_certificate: Option<&'a BmcObservation>,
    /// Secure Boot. It is older than the power-on.
    pub(super) secure_boot: ShownSecureBoot,
}

/// What the signs add to a finding.
#[derive(Default)]
pub(super) struct FirmwareFinding {
    /// After the finding's own sentence.
    pub(super) text: String,
    /// In place of its own hint.
    pub(super) hint: Option<&'static str>,
    pub(super) course: FirmwareCourse,
}

/// Whether waiting helps.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum FirmwareCourse {
    #[default]
    Unknown,
    Waits,
    Ended,
}

/// Secure Boot, as the BMC shows it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ShownSecureBoot {
    #[default]
    Unknown,
    Off,
    /// With what the databases hold, if they were read.
    On(Option<SecureBootTrust>),
}

impl ShownSecureBoot {
    /// What is added to the finding about an image that was fetched and does not run.
    pub(super) fn text(self) -> String {
        let Self::On(trust) = self else { return String::new() };
        let trust = trust.map(|trust| format!(", and its {trust}")).unwrap_or_default();
        format!("; the BMC shows Secure Boot on{trust}")
    }

    /// Whether `dbx` has a certificate that may have signed shim.
    pub(super) fn forbids_shim(self) -> bool {
        const ALL: [MicrosoftUefiCa; 2] = [MicrosoftUefiCa::Ca2011, MicrosoftUefiCa::Ca2023];
        matches!(self, Self::On(Some(trust)) if trust.forbids(&ALL))
    }

    /// The hint for a composed image that was fetched and does not run.
    pub(super) fn hint(self, loader: HttpLoader) -> &'static str {
        match self {
            Self::On(Some(trust)) if trust.forbids_own_images() => {
                "Secure Boot refuses what dbx forbids, whatever db holds: sign images with another key (sign_key in [boot]), \
                 or remove sign_certificate from dbx in the firmware's set-up"
            }
            Self::Unknown | Self::On(_) if loader == HttpLoader::ShimUki => {
                "shim refuses the image (Security Violation at the machine's console) unless MokList or db has the \
                 certificate that signs it, if its SBAT level revokes the image's stub, and if MokPolicy requires NX and the \
                 stub is not for it; or the kernel did not start, or has no driver for this network card"
            }
            Self::Unknown => {
                "Secure Boot refused the image, or the kernel did not start, or has no driver for this network card: \
                 look at the machine's console"
            }
            Self::Off => {
                "the kernel did not start, or has no driver for this network card: look at the machine's console"
            }
            Self::On(None) => {
                "Secure Boot refused the image, unless db has the certificate that signs it: look at the machine's \
                 console; or the kernel did not start, or has no driver for this network card"
            }
            Self::On(Some(trust)) if trust.allowed.sign_certificate => {
                "db has the certificate that signs images, so the kernel did not start, or has no driver for this \
                 network card, or dbx forbids the image: look at the machine's console"
            }
            Self::On(Some(_)) => {
                "Secure Boot refuses an image whose signature db does not know: enrol sign_certificate in db \
                 (redfish_secure_boot_certificate = enrol in driver_info, or the firmware's set-up), sign images \
                 (sign_key in [boot]), or switch Secure Boot off"
            }
        }
    }
}

impl<'a> FirmwareSigns<'a> {
    pub(super) fn take(&mut self, seen: &'a BmcObservation) {
        match seen {
            BmcObservation::BiosStaged { .. }
            | BmcObservation::BiosAsWanted
            | BmcObservation::ReadBack { .. }
            | BmcObservation::SecureBootCertificate { .. } => {}
            BmcObservation::SecureBootOn { trust, .. } => {
                self.secure_boot = ShownSecureBoot::On(*trust);
            }
            BmcObservation::BootProgress { .. } => self.progress = Some(seen),
            BmcObservation::PostState { .. } => self.post_state = Some(seen),
            BmcObservation::Job { .. } => self.job = Some(seen),
            BmcObservation::BootCertificate { outcome, .. } => {
                let is_missing = *outcome == EnrolmentOutcome::NotEnrolled;
                self.no_certificate = is_missing.then_some(seen);
            }
            BmcObservation::LogEntry { severity, message, .. } => {
                if !severity.eq_ignore_ascii_case("ok") {
                    self.error = Some((severity, message));
                }
            }
        }
    }

    pub(super) fn powered_on(&mut self) {
        *self = Self {
            job: self.job,
            no_certificate: self.no_certificate,
            secure_boot: self.secure_boot,
            ..Self::default()
        };
    }

    /// A job that has failed, with a remedy: the machine does not have what was to be set for this boot.
    pub(super) fn failed_job(&self) -> Option<(String, &'static str)> {
        let job = self.job.filter(|job| job.is_failed_job())?;
        let hint = "the BIOS attributes for this boot are not set: see the job and the Lifecycle Log in the BMC, and \
                    delete jobs that wait there";
        Some((job.to_string(), hint))
    }

    /// Whether the firmware has ended, so that waiting does not help.
    fn runs_a_system(&self) -> bool {
        let shown = [self.progress, self.post_state].into_iter().flatten();
        shown.filter_map(BmcObservation::runs_system).any(|runs| runs)
    }

    fn is_in_memory_initialization(&self) -> bool {
        matches!(self.progress, Some(BmcObservation::BootProgress { state, .. })
            if state == "MemoryInitializationStarted")
    }

    /// What is known of the firmware of a machine of which nothing was heard, or nothing more, and if that is so for
    /// longer than a self-test takes (`is_long`).
    pub(super) fn finding(&self, is_long: bool) -> FirmwareFinding {
        let job = self.job.filter(|job| !job.is_ended_job());
        let shown = [job, self.progress, self.post_state, self.no_certificate];
        let shown = shown.into_iter().flatten();
        let mut text: String = shown.map(|seen| format!("; {seen}")).collect();
        if let Some((severity, message)) = self.error {
            text = format!("{text}; the BMC's log says: {severity}: {message}");
        }
        let (hint, course) = if let Some((_, message)) = self.error {
            let hint = if is_about_boot_device(message) {
                "the firmware found nothing to boot: check that HTTP boot is on in its set-up, and the card's link"
            } else {
                "see the log of the BMC: the self-test found a fault"
            };
            (Some(hint), FirmwareCourse::Unknown)
        } else if job.is_some() && !is_long {
            let hint = "the machine runs the job in its self-test, and restarts once more after it";
            (Some(hint), FirmwareCourse::Waits)
        } else if self.runs_a_system() {
            let hint = "the machine started another system: check its boot order, and that HTTP boot is on in its \
                        set-up";
            (Some(hint), FirmwareCourse::Ended)
        } else if self.is_in_memory_initialization() && is_long {
            let hint = "the firmware does not get past its memory: see the log of the BMC, and look for a bad or \
                        badly seated module";
            (Some(hint), FirmwareCourse::Ended)
        } else if self.no_certificate.is_some() {
            let hint = "firmware does not fetch from an https URL whose CA it does not trust: enrol the CA of this service in \
                        its set-up (`ferroboot ca` prints it)";
            (Some(hint), FirmwareCourse::Unknown)
        } else {
            (None, FirmwareCourse::Unknown)
        };
        FirmwareFinding { text, hint, course }
    }
}

fn is_about_boot_device(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["no bootable", "no boot device", "boot device not found", "unable to boot", "no boot media"]
        .iter()
        .any(|words| message.contains(words))
}
