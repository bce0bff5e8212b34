//! The diagnosis of a boot: the reason why it does not go on, from its trace.

mod boot_chain;
mod diagnosed_boot;
mod drive;
mod firmware;

use std::net::IpAddr;

use hardware::{
    BmcObservation, ClientArchitecture, ClientKind, CpuArch, HttpMethod, RedfishPurpose,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use self::boot_chain::ShimSigns;
use self::diagnosed_boot::{BootCourse, DiagnosedBoot};
use self::drive::DriveReads;
use self::firmware::{FirmwareCourse, FirmwareSigns, ShownSecureBoot};
use crate::artifact::{Artifact, HttpLoader};
use crate::boot::{BootMethod, KERNEL_START, NoBoot};
use crate::boot_interface::BootInterface;
use crate::instance_boot::is_image_fetched;
use crate::position::Position;
use crate::procedure::{Boots, Stage};
use crate::state::ProvisionState;
use crate::stranger::{Candidates, Vicinity};
use crate::trace::{
    AgentCall, AgentCaller, AgentOutcome, BootEvent, BootEventKind, CallRefusal, DhcpAnswer,
    DhcpService, HandshakePort, TlsFailure, TransitionReason, latest_boot,
};
use crate::virtual_media::is_from_drive;

/// Time without progress after which the boot counts as silent.
///
/// A repetition is no progress: firmware that requests PXE every few seconds gets nowhere.
pub const SILENCE: SignedDuration = SignedDuration::from_secs(45);

/// Time of a server's self-test before its first packet: with much memory and many cards it takes some ten minutes.
const SELF_TEST: SignedDuration = SignedDuration::from_mins(15);

/// Longest interval of heartbeats, 180 s (0.6 of the agent's timeout of 300 s), with a margin.
const HEARTBEAT: SignedDuration = SignedDuration::from_secs(200);

/// The diagnosis of a boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// Its certainty.
    pub verdict: Verdict,
    /// The fault, or the position of the boot, in one sentence.
    pub text: String,
    /// The operator's remedy.
    pub hint: Option<String>,
}

/// The certainty that a boot went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Silent, but no longer than a healthy machine may be at this point.
    Waiting,
    /// Silent for longer, or in a loop.
    Stuck,
    /// Failed; it will not go on by itself.
    Failed,
}

/// The diagnosis of an attempt from its events, ordered by time. `None` while all is well, and after success. If
/// nothing was heard of the machine, strangers in its vicinity are considered.
#[must_use]
pub fn diagnose(
    method: BootMethod,
    events: &[BootEvent],
    vicinity: Vicinity<'_>,
    now: Timestamp,
) -> Option<Diagnosis> {
    if method.boots() == Boots::Instance && is_image_fetched(events, method, now) {
        // Only the traffic of the running system follows.
        return None;
    }
    let events = latest_boot(events);
    match end(events) {
        Some(End::Well) => None,
        // Events after the end are tear-down, and silence after it is no fault.
        Some(End::Failed { event, reason }) => {
            let (before, at) = (&events[..event], events[event].at);
            let boot = DiagnosedBoot { method, course: BootCourse::Failed };
            let found =
                BootEvidence::of(method, before, vicinity, at).diagnosis(boot, vicinity, at);
            Some(found.map_or_else(
                || {
                    let reason = reason.map(ToString::to_string);
                    failure(reason.unwrap_or_else(|| "the boot failed".to_owned()), None)
                },
                |found| Diagnosis { verdict: Verdict::Failed, ..found },
            ))
        }
        None => {
            let boot = DiagnosedBoot { method, course: course(method, events) };
            BootEvidence::of(method, events, vicinity, now).diagnosis(boot, vicinity, now)
        }
    }
}

/// The course of a boot that has not ended. The trace of a boot that the machine began by itself has no states.
fn course(method: BootMethod, events: &[BootEvent]) -> BootCourse {
    let has_state = events.iter().any(|event| matches!(event.what, BootEventKind::State { .. }));
    match method.boots() {
        Boots::Instance if !has_state => BootCourse::ByItself,
        Boots::Instance | Boots::Ramdisk | Boots::Nothing => BootCourse::UnderWay,
    }
}

/// The end of an attempt.
enum End<'a> {
    Well,
    Failed { event: usize, reason: Option<&'a TransitionReason> },
}

fn end(events: &[BootEvent]) -> Option<End<'_>> {
    events.iter().enumerate().rev().find_map(|(event, BootEvent { what, .. })| match what {
        BootEventKind::State { from, to, reason } if is_failure(*from, *to) => {
            Some(End::Failed { event, reason: reason.as_ref() })
        }
        BootEventKind::State { from, to, .. }
            if from.is_under_way() && to.position() == Position::Rest =>
        {
            Some(End::Well)
        }
        BootEventKind::State { .. }
        | BootEventKind::Redfish { .. }
        | BootEventKind::BootWay { .. }
        | BootEventKind::BmcShows { .. }
        | BootEventKind::Provider { .. }
        | BootEventKind::Dhcp { .. }
        | BootEventKind::Http { .. }
        | BootEventKind::LastByte { .. }
        | BootEventKind::TlsHandshake { .. }
        | BootEventKind::Agent { .. }
        | BootEventKind::LeftOut { .. } => None,
    })
}

/// Whether a change of state is the failure of a procedure. Some failures lead to a state of rest: `error`.
fn is_failure(from: ProvisionState, to: ProvisionState) -> bool {
    let is_end = from.is_under_way() && to.position() == Position::Rest;
    let failed = from.procedure().map(|procedure| procedure.row().fails.to);
    to.stage() == Some(Stage::Failed) || (is_end && failed == Some(to))
}

/// The state of the boot after the events so far.
#[derive(Default)]
struct BootEvidence<'a> {
    /// The time of the last new event.
    progress_at: Option<Timestamp>,
    /// Events that a machine in a loop repeats.
    known: Vec<Progress<'a>>,
    /// Purposes whose last call to the BMC failed.
    bmc_errors: Vec<(RedfishPurpose, Option<u16>, &'a str)>,
    /// The time of the power-on.
    powered_on_at: Option<Timestamp>,
    /// The external DHCP service that has the boot, if it is not this daemon's.
    provider: Option<DhcpService>,
    last_dhcp: Option<(ClientKind, &'a DhcpAnswer)>,
    other_architecture: Option<ClientArchitecture>,
    acknowledged: bool,
    http: Option<FetchResult<'a>>,
    /// Whether a file with the operating system was fetched, at once or in parts.
    system_fetched: bool,
    loader_fetched: bool,
    shim: ShimSigns,
    ramdisk_fetched: bool,
    agent_asked_dhcp: bool,
    agent_refused: Option<&'a str>,
    /// The reason for refusing a lookup that may be the machine's.
    lookup_refused: Option<&'a str>,
    /// A refused call from an unknown address.
    stranger_refused: Option<(IpAddr, &'a str)>,
    /// The last handshake with the agents' port that failed.
    agent_handshake: Option<&'a TlsFailure>,
    /// A failed handshake of this machine or another one at its address.
    shared_handshake: Option<FailedHandshake<'a>>,
    heartbeat_at: Option<Timestamp>,
    drive: DriveReads,
    firmware: FirmwareSigns<'a>,
    command_failed: Option<(&'a AgentCall, &'a str)>,
}

/// An exchange without its variable parts.
#[derive(PartialEq)]
enum Progress<'a> {
    Dhcp(ClientKind, &'a str, bool),
    Http(&'a HttpMethod, &'a str, u16, Option<&'a str>),
    Tls(HandshakePort, &'a TlsFailure),
    Agent(&'a AgentCall, bool),
    Firmware(&'a BmcObservation),
}

/// A TLS handshake that failed.
#[derive(Clone, Copy)]
struct FailedHandshake<'a> {
    port: HandshakePort,
    remote: IpAddr,
    /// Number of booting machines at the address.
    machines: u32,
    failure: &'a TlsFailure,
}

/// The result of the last significant fetch.
enum FetchResult<'a> {
    NoTls(&'a TlsFailure),
    Asked(&'a str),
    Fetched(&'a str),
    /// A part of a file with the operating system, of which other parts are missing.
    Part(&'a str),
    Cut {
        path: &'a str,
        sent: u64,
        length: u64,
    },
    Refused {
        path: &'a str,
        status: u16,
        error: &'a str,
    },
}

impl FetchResult<'_> {
    /// Whether the ticket was right once. In the traces of earlier versions the status is 410.
    fn is_late_ticket(&self) -> bool {
        matches!(self, Self::Refused { status: 403, .. })
    }
}

impl<'a> BootEvidence<'a> {
    fn of(
        method: BootMethod,
        events: &'a [BootEvent],
        vicinity: Vicinity<'_>,
        now: Timestamp,
    ) -> Self {
        let system_fetched = is_image_fetched(events, method, now);
        let is_used = is_from_drive(method, events);
        let drive = DriveReads { is_used, ..DriveReads::default() };
        let mut seen = Self { system_fetched, drive, ..Self::default() };
        if vicinity.secure_boot == Some(false) {
            seen.firmware.secure_boot = ShownSecureBoot::Off;
        }
        for event in events {
            seen.take(method.loader, event);
        }
        seen
    }

    fn take(&mut self, loader: HttpLoader, event: &'a BootEvent) {
        match &event.what {
            BootEventKind::State { to, .. } => {
                self.progress_at = Some(event.at);
                // A machine that was on already has no power-on call.
                if to.stage() == Some(Stage::Waiting) {
                    self.powered_on_at.get_or_insert(event.at);
                }
            }
            BootEventKind::Redfish { purpose, method, status, error, .. } => {
                self.bmc_errors.retain(|(failed, ..)| failed != purpose);
                if let Some(error) = error.as_ref().filter(|_| !purpose.is_optional()) {
                    self.bmc_errors.push((*purpose, *status, error));
                } else if *purpose == RedfishPurpose::PowerOn {
                    self.powered_on_at = Some(event.at);
                    self.firmware.powered_on();
                    self.drive.since_power_on = 0;
                    self.shim = ShimSigns::default();
                    // That was the system which ran before.
                    self.http.take_if(|http| http.is_late_ticket());
                }
                // Reading the power state says nothing about the machine's boot.
                if *method != HttpMethod::Get {
                    self.progress_at = Some(event.at);
                }
            }
            BootEventKind::BmcShows { observation } => {
                // Firmware that gets on is not silent. Entries of a log may be of any moment.
                if !matches!(observation, BmcObservation::LogEntry { .. }) {
                    self.note(event.at, Progress::Firmware(observation));
                }
                self.firmware.take(observation);
            }
            BootEventKind::TlsHandshake { remote, failure, port, machines } => {
                let (port, remote, machines) = (*port, *remote, *machines);
                let handshake = FailedHandshake { port, remote, machines, failure };
                self.take_handshake(handshake, event.at);
            }
            BootEventKind::LastByte { .. } | BootEventKind::BootWay { .. } => {
                self.progress_at = Some(event.at);
            }
            BootEventKind::Provider { name, .. } => {
                self.provider = Some(*name);
                self.progress_at = Some(event.at);
            }
            BootEventKind::Dhcp { message, client, architecture, answer, .. } => {
                let served = matches!(
                    answer,
                    DhcpAnswer::Offer { .. } | DhcpAnswer::Ack { .. } | DhcpAnswer::Beside { .. }
                );
                self.note(event.at, Progress::Dhcp(*client, message, served));
                self.take_dhcp(*client, *architecture, answer);
            }
            // Machines fetch with GET and HEAD: this is another program.
            BootEventKind::Http { method, .. }
                if !matches!(method, HttpMethod::Get | HttpMethod::Head) => {}
            BootEventKind::Http { method, artifact, path, status, error, range, .. } => {
                self.note(event.at, Progress::Http(method, path, *status, range.as_deref()));
                if *status >= 400 {
                    self.take_http_error(*artifact, path, *status, error.as_deref());
                } else if *method == HttpMethod::Get {
                    self.take_fetch(loader, &event.what);
                } else {
                    self.http = Some(FetchResult::Asked(path));
                }
            }
            BootEventKind::Agent { call, outcome, caller: None } => {
                self.take_agent(call, outcome, event.at);
            }
            BootEventKind::Agent { call, outcome, caller: Some(caller) } => {
                self.take_call(call, outcome, caller, event.at);
            }
            // The omitted events also count as activity.
            BootEventKind::LeftOut { .. } => self.progress_at = Some(event.at),
        }
    }

    fn note(&mut self, at: Timestamp, progress: Progress<'a>) {
        if !self.known.contains(&progress) {
            self.known.push(progress);
            self.progress_at = Some(at);
        }
    }

    fn take_handshake(&mut self, handshake: FailedHandshake<'a>, at: Timestamp) {
        let FailedHandshake { port, machines, failure, .. } = handshake;
        if machines > 1 {
            // A machine with its ramdisk is past the boot listener.
            let may_be_its_own = port == HandshakePort::Agents || !self.ramdisk_fetched;
            if may_be_its_own {
                self.shared_handshake = Some(handshake);
            }
            return;
        }
        self.note(at, Progress::Tls(port, failure));
        match port {
            HandshakePort::Boot => self.http = Some(FetchResult::NoTls(failure)),
            HandshakePort::Agents => self.agent_handshake = Some(failure),
        }
    }

    fn take_dhcp(
        &mut self,
        client: ClientKind,
        arch: Option<ClientArchitecture>,
        answer: &'a DhcpAnswer,
    ) {
        self.agent_asked_dhcp |= client == ClientKind::Agent;
        if client == ClientKind::HttpClient {
            self.acknowledged |= matches!(answer, DhcpAnswer::Ack { .. });
            self.other_architecture = arch.filter(|arch| CpuArch::of_http_client(*arch).is_none());
        }
        // Firmware's requests beside its boot are ignored, unless there is nothing else.
        if client != ClientKind::Firmware || self.last_dhcp.is_none() {
            self.last_dhcp = Some((client, answer));
        }
    }

    fn take_http_error(
        &mut self,
        artifact: Option<Artifact>,
        path: &'a str,
        status: u16,
        error: Option<&'a str>,
    ) {
        self.shim.take_missing(path);
        // Loaders look for optional files (shim: `revocations_sbat.efi`), and go on without them.
        if artifact.is_some() || !self.loader_fetched {
            self.http =
                Some(FetchResult::Refused { path, status, error: error.unwrap_or("no reason") });
        }
    }

    /// Applies a successful GET.
    fn take_fetch(&mut self, loader: HttpLoader, what: &'a BootEventKind) {
        let BootEventKind::Http { artifact, path, range, sent, length, .. } = what else { return };
        self.shim.take_fetch(*artifact);
        // Handshakes before were another machine's, or are made good.
        (self.agent_handshake, self.shared_handshake) = (None, None);
        let holds_system = artifact.is_some_and(|artifact| artifact.holds_ramdisk(loader));
        if holds_system {
            self.drive.has_begun = true;
            self.drive.since_power_on += if self.powered_on_at.is_some() { *sent } else { 0 };
        }
        self.http = Some(if self.drive.is_used && !self.system_fetched {
            FetchResult::Part(path)
        } else if sent < length {
            FetchResult::Cut { path, sent: *sent, length: *length }
        } else if holds_system && range.is_some() && !self.system_fetched {
            FetchResult::Part(path)
        } else {
            self.loader_fetched = true;
            self.ramdisk_fetched |= holds_system;
            FetchResult::Fetched(path)
        });
    }

    /// Applies a call from an unknown address. Any host can send one, so it is neither progress nor a remedy.
    fn take_call(
        &mut self,
        call: &'a AgentCall,
        outcome: &'a AgentOutcome,
        caller: &AgentCaller,
        at: Timestamp,
    ) {
        match (outcome.error(), caller.refused) {
            (None, _) if caller.is_known => {
                (self.lookup_refused, self.stranger_refused) = (None, None);
                self.take_agent(call, outcome, at);
            }
            (None, _) | (Some(_), Some(CallRefusal::NotNow)) => {}
            (Some(error), Some(CallRefusal::ForeignAddress | CallRefusal::TokenTaken)) => {
                self.lookup_refused = Some(error);
            }
            (Some(error), Some(CallRefusal::WrongToken | CallRefusal::SecondAgent) | None) => {
                if caller.is_known {
                    self.take_agent(call, outcome, at);
                } else {
                    self.stranger_refused = Some((caller.remote, error));
                }
            }
        }
    }

    /// Applies a call from or to the machine's own agent.
    fn take_agent(&mut self, call: &'a AgentCall, outcome: &'a AgentOutcome, at: Timestamp) {
        let error = outcome.error();
        self.note(at, Progress::Agent(call, error.is_none()));
        if call.is_from_agent() {
            self.agent_refused = error;
            self.agent_handshake = None;
        } else {
            self.command_failed = error.map(|error| (call, error));
        }
        if *call == AgentCall::Heartbeat && error.is_none() {
            self.heartbeat_at = Some(at);
        }
    }
}

impl BootEvidence<'_> {
    fn diagnosis(
        &self,
        boot: DiagnosedBoot,
        vicinity: Vicinity<'_>,
        now: Timestamp,
    ) -> Option<Diagnosis> {
        if let Some((purpose, status, error)) = self.bmc_errors.first() {
            return Some(bmc_refused(*purpose, *status, error));
        }
        if let Some(heartbeat) = self.heartbeat_at {
            return self.agent_called(boot, now.duration_since(heartbeat));
        }
        let quiet = now.duration_since(self.progress_at?);
        let is_heard = self.last_dhcp.is_some() || self.http.is_some();
        if let Some(failed) = self.firmware.failed_job().filter(|_| !is_heard) {
            let (text, hint) = failed;
            return Some(stuck(text, hint));
        }
        let candidates = self.candidates(vicinity, now);
        // A ramdisk without a token is up, but gets nowhere.
        let is_told_no = self.ramdisk_fetched && self.lookup_refused.is_some();
        let is_certain = self.is_certain() || candidates.is_a_slip() || is_told_no;
        let found = (quiet >= SILENCE || is_certain).then(|| self.stuck(boot, &candidates, quiet));
        let found = found.map(|found| self.with_shared_handshake(self.with_strangers(found)))?;
        // A machine that has its system is past its firmware.
        let is_in_firmware = !self.system_fetched && !self.agent_asked_dhcp;
        Some(if is_in_firmware && !is_certain { self.with_firmware(found, quiet) } else { found })
    }

    /// The strangers that may be the machine, if nothing was heard of the machine.
    fn candidates<'b>(&self, vicinity: Vicinity<'b>, now: Timestamp) -> Candidates<'b> {
        let is_heard =
            self.last_dhcp.is_some() || self.http.is_some() || self.agent_refused.is_some();
        let powered_on = self.powered_on_at.filter(|_| !is_heard);
        powered_on.map(|on| vicinity.candidates(on, now)).unwrap_or_default()
    }

    /// Adds what the BMC shows of the firmware to a finding.
    fn with_firmware(&self, found: Diagnosis, quiet: SignedDuration) -> Diagnosis {
        let firmware = self.firmware.finding(quiet >= SELF_TEST);
        // A machine with a part of its image is past what its firmware could have done instead.
        if self.http.is_some() {
            return Diagnosis { text: format!("{}{}", found.text, firmware.text), ..found };
        }
        Diagnosis {
            verdict: match firmware.course {
                FirmwareCourse::Unknown => found.verdict,
                FirmwareCourse::Waits => Verdict::Waiting,
                FirmwareCourse::Ended => Verdict::Stuck,
            },
            text: format!("{}{}", found.text, firmware.text),
            hint: firmware.hint.map(str::to_owned).or(found.hint),
        }
    }

    /// Adds refused strangers to a finding: they hide nothing, but one of them may be the machine.
    fn with_strangers(&self, found: Diagnosis) -> Diagnosis {
        let refused = match (self.lookup_refused, self.stranger_refused) {
            (Some(_), _) if self.ramdisk_fetched => return found,
            (Some(refused), _) => refused.to_owned(),
            (None, Some((remote, refused))) => {
                format!(
                    "an agent at {remote}, not known to be this machine's, was refused: {refused}"
                )
            }
            (None, None) => return found,
        };
        Diagnosis { text: format!("{}; meanwhile {refused}", found.text), ..found }
    }

    /// Adds a failed handshake that may be this machine's or another one's at its address.
    fn with_shared_handshake(&self, found: Diagnosis) -> Diagnosis {
        let Some(FailedHandshake { port, remote, machines, failure }) = self.shared_handshake
        else {
            return found;
        };
        let remedy = match port {
            HandshakePort::Boot => failure.hint(),
            HandshakePort::Agents => failure.agent_hint(),
        };
        let hint = match found.hint {
            Some(hint) => format!("if that was this machine: {remedy}; if not: {hint}"),
            None => format!("if that was this machine: {remedy}"),
        };
        let text = format!(
            "{}; meanwhile a TLS handshake of one of the {machines} booting machines at {remote} with {port} failed: \
             {failure}",
            found.text
        );
        Diagnosis { text, hint: Some(hint), ..found }
    }

    /// Whether waiting cannot help. Any other finding requires a silence first.
    fn is_certain(&self) -> bool {
        let answered_no = matches!(self.last_dhcp, Some((_, DhcpAnswer::NoBoot { .. })));
        match self.http {
            _ if self.other_architecture.is_some() => true,
            _ if self.ramdisk_fetched => false,
            // The system that ran before the power-on may ask as well.
            Some(ref http) if http.is_late_ticket() => self.powered_on_at.is_some(),
            Some(FetchResult::Refused { .. }) => true,
            // Firmware repeats the handshake, and a repetition is no progress.
            Some(
                FetchResult::NoTls(_)
                | FetchResult::Asked(_)
                | FetchResult::Fetched(_)
                | FetchResult::Part(_)
                | FetchResult::Cut { .. },
            ) => false,
            None => answered_no && !self.acknowledged,
        }
    }

    fn agent_called(&self, boot: DiagnosedBoot, quiet: SignedDuration) -> Option<Diagnosis> {
        if quiet > HEARTBEAT {
            return Some(stuck(
                format!("the agent called and has been silent for {} s since", quiet.as_secs()),
                &boot.hanging_ramdisk(),
            ));
        }
        if let Some(refused) = self.agent_refused {
            return Some(stuck(
                format!("an agent called and was refused: {refused}"),
                "another machine may hold a copy of this one's ramdisk and token",
            ));
        }
        let (call, error) = self.command_failed?;
        Some(stuck(
            format!("the agent calls home, but {call} failed: {error}"),
            "check that this host reaches the agent's command API (port 9999 of the machine)",
        ))
    }

    /// The finding after the last success.
    fn stuck(
        &self,
        boot: DiagnosedBoot,
        candidates: &Candidates<'_>,
        quiet: SignedDuration,
    ) -> Diagnosis {
        let seconds = quiet.as_secs();
        if let Some(refused) = self.agent_refused {
            return failure(
                format!("the agent called and was refused: {refused}"),
                Some("a machine that runs an older boot's ramdisk must be switched off"),
            );
        }
        if let Some(architecture) = self.other_architecture {
            return no_boot(boot, &NoBoot::Architecture { architecture }, quiet);
        }
        if self.ramdisk_fetched && boot.method.boots() != Boots::Instance {
            return self.ramdisk_silent(boot, quiet);
        }
        match &self.http {
            Some(FetchResult::Refused { path, status, error }) => {
                http_refused(boot, self.client(), (path, *status, error))
            }
            Some(FetchResult::NoTls(failure)) => stuck(
                format!("the {} began to fetch over https, and {failure}", self.client()),
                failure.hint(),
            ),
            _ if self.drive.is_used => self.drive_stuck(quiet),
            Some(FetchResult::Cut { path, sent, length }) => stuck(
                format!("the fetch of {path} was cut off after {sent} of {length} bytes"),
                "look for a loose link, a full memory (the image is kept in RAM), or a reset",
            ),
            Some(FetchResult::Part(path)) => stuck(
                format!("{path} was not fetched whole, and nothing followed for {seconds} s"),
                "look for a loose link, a full memory (the image is kept in RAM), or a reset",
            ),
            Some(FetchResult::Fetched(path)) => {
                let text = format!("{path} was fetched, and nothing followed for {seconds} s");
                stuck(
                    text + &self.firmware.secure_boot.text(),
                    self.shim.advice(boot.method.loader, path, self.firmware.secure_boot),
                )
            }
            Some(FetchResult::Asked(path)) => stuck(
                format!("the machine requested the size of {path}, and then did not fetch it"),
                "firmware does so if the image does not fit into its memory",
            ),
            None => self.never_fetched(boot, candidates, quiet),
        }
    }

    /// The client that fetches the image.
    fn client(&self) -> &'static str {
        if self.drive.is_used { "BMC" } else { "machine" }
    }

    fn drive_stuck(&self, quiet: SignedDuration) -> Diagnosis {
        let found = self.drive.finding(self.last_dhcp.map(|(client, _)| client), quiet);
        let patience = if found.may_be_self_test { SELF_TEST } else { SILENCE };
        let verdict = if quiet < patience { Verdict::Waiting } else { Verdict::Stuck };
        Diagnosis { verdict, text: found.text, hint: Some(found.hint.to_owned()) }
    }

    fn ramdisk_silent(&self, boot: DiagnosedBoot, quiet: SignedDuration) -> Diagnosis {
        let verdict = if quiet < KERNEL_START { Verdict::Waiting } else { Verdict::Stuck };
        let seconds = quiet.as_secs();
        if let Some(failure) = self.agent_handshake.filter(|_| self.lookup_refused.is_none()) {
            let text = format!(
                "the ramdisk was fetched, its agent began to call over https, and {failure}"
            );
            return stuck(text, failure.agent_hint());
        }
        let (text, hint) = if let Some(refused) = self.lookup_refused {
            let again = boot.again_after(
                "set driver_info/agent_networks of the node to a network that its address is in",
            );
            (refused.to_owned(), format!("if the lookup came from this machine: {again}"))
        } else if self.agent_asked_dhcp {
            (
                format!(
                    "the ramdisk was fetched and got its address, but the agent never called \
                     ({seconds} s)"
                ),
                "check that the machine reaches the API's URL (ipa-api-url on its command line)"
                    .to_owned(),
            )
        } else {
            let text = format!("the ramdisk was fetched but the agent never called ({seconds} s)");
            let shown = self.firmware.secure_boot;
            let chain = boot_chain::after_image(boot.method, shown);
            let hint = chain.unwrap_or_else(|| shown.hint(boot.method.loader));
            (format!("{text}{}", shown.text()), hint.to_owned())
        };
        Diagnosis { verdict, text, hint: Some(hint) }
    }

    fn never_fetched(
        &self,
        boot: DiagnosedBoot,
        candidates: &Candidates<'_>,
        quiet: SignedDuration,
    ) -> Diagnosis {
        let seconds = quiet.as_secs();
        let Some((client, answer)) = self.last_dhcp else {
            let signs = self.progress_at.zip(self.powered_on_at);
            let before = signs.map(|(last, on)| last.duration_since(on)).unwrap_or_default();
            let found = never_heard(self.provider, quiet, quiet + before);
            return if candidates.is_empty() { found } else { asks_about(boot, candidates, found) };
        };
        // Firmware with an address as HTTP client that then tries PXE has given up on HTTP.
        if self.acknowledged {
            return address_but_no_fetch(boot.method.interface);
        }
        match answer {
            DhcpAnswer::NoBoot { because } => no_boot(boot, because, quiet),
            DhcpAnswer::Ignored { because } | DhcpAnswer::Nak { because } => stuck(
                format!("{client} asked for an address and got none: {because}"),
                "see the settings of the DHCP service",
            ),
            DhcpAnswer::Offer { .. } => stuck(
                format!("{client} was offered an address and did not take it ({seconds} s)"),
                "another DHCP server on this network may have been faster, or the answers do \
                 not reach the machine",
            ),
            DhcpAnswer::Beside { .. } => stuck(
                format!("{client} got a boot answer and did not fetch it ({seconds} s)"),
                "the other DHCP server on this network must give it an address, and its router a route \
                 to the URL; check whether that server sends a boot file as well",
            ),
            // Firmware does so before the HTTP boot's request, and even without one.
            DhcpAnswer::Ack { .. } if client == ClientKind::Firmware => stuck(
                format!(
                    "the firmware got an IPv6 address, but never requested HTTP boot ({seconds} s)"
                ),
                "firmware with EDK2 from before May 2025 gives up HTTP boot over IPv6 if that \
                 is its first boot option: update it, or put HTTP boot over IPv4 first",
            ),
            DhcpAnswer::Ack { .. } => stuck(
                format!("{client} got an address, but the firmware never requested HTTP boot"),
                "the machine booted from another device: check its boot order",
            ),
        }
    }
}

fn bmc_refused(purpose: RedfishPurpose, status: Option<u16>, error: &str) -> Diagnosis {
    let Some(status) = status else {
        return failure(
            format!("the BMC did not answer to the {purpose}: {error}"),
            Some("check redfish_address in driver_info, and the network to the BMC"),
        );
    };
    let hint = match status {
        _ if purpose == RedfishPurpose::InsertMedia => {
            "check that virtual media is licensed and switched on in the BMC, that its user may use it, and that the \
             BMC's network reaches the URL (external_http_url in driver_info, url in [boot])"
        }
        401 | 403 => {
            "check redfish_username and redfish_password in driver_info, and that user's role"
        }
        404 => "check redfish_system_id in driver_info",
        _ if purpose == RedfishPurpose::BootOverride => {
            "set the machine's boot mode to UEFI; if its BMC cannot do HTTP boot, set \
             boot_interface to http or http-ipxe, and HTTP boot first in the machine's boot order"
        }
        _ => "see the BMC's own log; it may have to be started anew",
    };
    let text = format!("the BMC refused the {purpose} with status {status}: {error}");
    failure(text, Some(hint))
}

fn http_refused(
    boot: DiagnosedBoot,
    client: &str,
    (path, status, error): (&str, u16, &str),
) -> Diagnosis {
    let hint = match status {
        // 410: in the traces of earlier versions.
        403 | 410 => boot.older_url(),
        500.. => boot.missing_image(),
        _ => boot.unknown_url(),
    };
    stuck(format!("the {client} asked for {path} and got {status}: {error}"), &hint)
}

/// `quiet` is the time since the last sign of the firmware, `on` that since the power-on.
fn never_heard(
    provider: Option<DhcpService>,
    quiet: SignedDuration,
    on: SignedDuration,
) -> Diagnosis {
    let seconds = on.as_secs();
    let text = format!("nothing was heard from the machine since it was switched on ({seconds} s)");
    if quiet < SELF_TEST {
        let hint = "large servers test themselves for minutes before their first packet";
        return Diagnosis { verdict: Verdict::Waiting, text, hint: Some(hint.to_owned()) };
    }
    if let Some(provider) = provider {
        return stuck(
            text,
            &format!(
                "{provider} was told the URL: see in its log whether the machine asked and what it \
                 was answered, and check that the machine reaches the URL's address"
            ),
        );
    }
    stuck(
        text,
        "is the cable in this network, is the port's MAC address right, is network boot on in the \
         set-up, does DHCP reach this host?",
    )
}

/// The most common mistake is a wrong MAC address on the port.
fn asks_about(boot: DiagnosedBoot, candidates: &Candidates<'_>, found: Diagnosis) -> Diagnosis {
    let address = candidates.likeliest().map_or_else(|| "MAC".to_owned(), |mac| mac.to_string());
    let set = format!("set the port's address (`baremetal port set PORT --address {address}`)");
    let set = format!("if it is: {}", boot.again_after(&set));
    let hint = match found.hint {
        Some(hint) if !candidates.is_a_slip() => format!("{set}; if not: {hint}"),
        Some(_) | None => set,
    };
    let verdict = if candidates.is_a_slip() { Verdict::Stuck } else { found.verdict };
    Diagnosis { verdict, text: format!("{}, but {candidates}", found.text), hint: Some(hint) }
}

fn address_but_no_fetch(boot_interface: BootInterface) -> Diagnosis {
    let who_told = if boot_interface.bmc_artifact().is_some() { "the BMC" } else { "DHCP" };
    stuck(
        format!("the machine got its address, and the URL from {who_told}, but never fetched it"),
        // EDK2 checks the CA before it connects, and refuses http:// unless PcdAllowHttpConnections is set.
        "check that the boot listener's address is reachable from the machine; if the URL begins with https, the \
         firmware may lack the CA, and opens no connection then: enrol it (`ferroboot ca` prints it); if it begins with \
         http, the firmware may allow HTTPS only, as its console says: add an https:// address to listen in [boot]",
    )
}

fn no_boot(boot: DiagnosedBoot, because: &NoBoot, quiet: SignedDuration) -> Diagnosis {
    // Firmware often tries PXE first, for a minute or more, on each card.
    let unless_it_goes_on = if quiet < SILENCE { Verdict::Waiting } else { Verdict::Stuck };
    let restarted =
        format!("the machine restarted during the {}: by hand, or because of a fault", boot.noun());
    let (verdict, hint) = match because {
        NoBoot::PortNotEnabled => (
            unless_it_goes_on,
            "set pxe_enabled on the port, or let the machine boot from another one",
        ),
        NoBoot::PxeNotHttp => (
            unless_it_goes_on,
            "in the machine's set-up, put HTTP boot before PXE in the boot order",
        ),
        NoBoot::NotNow { .. } => (unless_it_goes_on, "it was started by someone else, or too late"),
        NoBoot::AgentHasCalled => (unless_it_goes_on, restarted.as_str()),
        NoBoot::Architecture { .. } | NoBoot::ArchitectureUnknown => (
            Verdict::Failed,
            "only x64, arm64 and riscv64 machines in UEFI mode can be booted: check the boot mode in \
             its set-up, and that the port's address is this machine's",
        ),
        NoBoot::NoBootSet { .. } => (
            Verdict::Failed,
            "the daemon looks for it in the folder of that name beside the boot set for x64",
        ),
        NoBoot::OtherCpuArch { .. } => {
            (Verdict::Failed, "set cpu_arch in the node's properties: x86_64, aarch64 or riscv64")
        }
        NoBoot::NoIpxe { .. } => (
            Verdict::Failed,
            "the boot interface http fetches one image with kernel and ramdisk, and needs no iPXE",
        ),
    };
    Diagnosis { verdict, text: because.to_string(), hint: Some(hint.to_owned()) }
}

fn stuck(text: String, hint: &str) -> Diagnosis {
    Diagnosis { verdict: Verdict::Stuck, text, hint: Some(hint.to_owned()) }
}

fn failure(text: String, hint: Option<&str>) -> Diagnosis {
    Diagnosis { verdict: Verdict::Failed, text, hint: hint.map(str::to_owned) }
}
