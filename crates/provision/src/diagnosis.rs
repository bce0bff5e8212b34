//! Why a boot does not go on, in words, read off its trace.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::boot::{Artifact, BootInterface, HttpLoader};
use crate::trace::{BootEvent, DhcpAnswer, DhcpClient, What};

/// Silence after which a boot is taken to be stuck.
///
/// The longest quiet that is normal is the machine's self-test: real servers need minutes for it,
/// so before the first packet the text says that they may.
pub const SILENCE: SignedDuration = SignedDuration::from_secs(45);

/// What the trace of a boot says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// What is wrong, or where the boot stands, as one sentence.
    pub text: String,
    /// What an operator can do about it.
    pub hint: Option<String>,
}

/// Reads a trace, in the order of time. `None` while all goes well.
#[must_use]
pub fn diagnose(
    boot_interface: BootInterface,
    loader: HttpLoader,
    events: &[BootEvent],
    now: Timestamp,
) -> Option<Diagnosis> {
    // What the BMC refused is certain at once; all else must first have been silent for a while.
    if let Some(refused) = bmc_refused(events) {
        return Some(refused);
    }
    if agent_called(events) {
        return agent_went_silent(events, now);
    }
    let last = events.last()?.at;
    if now.duration_since(last) < SILENCE {
        return None;
    }
    let seen = Seen::of(loader, events);
    Some(seen.stuck(boot_interface, now.duration_since(last)))
}

fn bmc_refused(events: &[BootEvent]) -> Option<Diagnosis> {
    let last = events.iter().rev().find_map(|event| match &event.what {
        What::Redfish { purpose, status, error, .. } => Some((purpose, status, error)),
        What::State { .. } | What::Dhcp { .. } | What::Http { .. } | What::Agent { .. } => None,
    })?;
    let (purpose, status, Some(error)) = last else { return None };
    let text = match status {
        Some(status) => format!("the BMC refused the {purpose} with status {status}: {error}"),
        None => format!("the BMC did not answer to the {purpose}: {error}"),
    };
    Some(with_hint(
        text,
        match status {
            Some(_) => {
                "check that the BMC's firmware can do UEFI HTTP boot, and that boot mode is UEFI"
            }
            None => "check redfish_address, the network to the BMC, and its credentials",
        },
    ))
}

fn agent_called(events: &[BootEvent]) -> bool {
    events.iter().any(
        |event| matches!(&event.what, What::Agent { call, ok: true, .. } if call == "heartbeat"),
    )
}

fn agent_went_silent(events: &[BootEvent], now: Timestamp) -> Option<Diagnosis> {
    let last = events.iter().rev().find(|event| matches!(event.what, What::Agent { .. }))?;
    let silence = now.duration_since(last.at);
    // Heartbeats come at most every 300 s × 0.6; a longer silence is none of the agent's making.
    (silence > SignedDuration::from_secs(200)).then(|| {
        with_hint(
            format!("the agent called and has been silent for {} s since", silence.as_secs()),
            "look at the machine's console; if it hangs, abort the clean and start it again",
        )
    })
}

/// What of a boot has been seen so far.
#[derive(Default)]
struct Seen<'a> {
    last_dhcp: Option<(DhcpClient, &'a DhcpAnswer)>,
    http_client_asked: bool,
    acknowledged: bool,
    offered_url: bool,
    http_error: Option<(u16, &'a str, &'a str)>,
    cut: Option<(&'a str, u64, u64)>,
    fetched: Vec<&'a str>,
    ramdisk_fetched: bool,
    agent_asked_dhcp: bool,
    agent_refused: Option<&'a str>,
}

impl<'a> Seen<'a> {
    fn of(loader: HttpLoader, events: &'a [BootEvent]) -> Self {
        let mut seen = Self::default();
        for event in events {
            seen.take(loader, &event.what);
        }
        seen
    }

    fn take(&mut self, loader: HttpLoader, what: &'a What) {
        match what {
            What::State { .. } | What::Redfish { .. } => {}
            What::Dhcp { client, answer, .. } => self.take_dhcp(*client, answer),
            What::Http { method, artifact, path, status, error, sent, length, .. } => {
                if *status >= 400 {
                    self.http_error = Some((*status, path, error.as_deref().unwrap_or("")));
                } else if method == "GET" {
                    self.take_fetch(loader, *artifact, path, *sent, *length);
                }
            }
            What::Agent { result, ok, .. } => {
                self.agent_refused = (!ok).then_some(result.as_str());
            }
        }
    }

    fn take_dhcp(&mut self, client: DhcpClient, answer: &'a DhcpAnswer) {
        self.http_client_asked |= client == DhcpClient::HttpClient;
        self.agent_asked_dhcp |= client == DhcpClient::Agent;
        match answer {
            DhcpAnswer::Offer { artifact, .. } => self.offered_url |= artifact.is_some(),
            DhcpAnswer::Ack { .. } => self.acknowledged |= client == DhcpClient::HttpClient,
            DhcpAnswer::Nak { .. } | DhcpAnswer::NoBoot { .. } | DhcpAnswer::Ignored { .. } => {}
        }
        self.last_dhcp = Some((client, answer));
    }

    fn take_fetch(
        &mut self,
        loader: HttpLoader,
        artifact: Option<Artifact>,
        path: &'a str,
        sent: u64,
        length: u64,
    ) {
        if sent < length {
            self.cut = Some((path, sent, length));
            return;
        }
        self.cut = None;
        self.fetched.push(path);
        self.ramdisk_fetched |= artifact.is_some_and(|artifact| artifact.holds_ramdisk(loader));
    }

    /// The last thing that went right decides what is to be looked at.
    fn stuck(&self, boot_interface: BootInterface, silence: SignedDuration) -> Diagnosis {
        let silence = silence.as_secs();
        if let Some(refused) = self.agent_refused {
            return with_hint(
                format!("the agent called and was refused: {refused}"),
                "a machine that runs an older boot's ramdisk must be switched off",
            );
        }
        if self.ramdisk_fetched {
            return self.ramdisk_silent(silence);
        }
        if let Some((path, sent, length)) = self.cut {
            return with_hint(
                format!("the fetch of {path} was cut off after {sent} of {length} bytes"),
                "look for a loose link, a full memory (the image is kept in RAM), or a reset",
            );
        }
        if let Some((status, path, error)) = self.http_error {
            return with_hint(
                format!("the machine asked for {path} and got {status}: {error}"),
                "the URL is wrong, or its ticket belongs to a boot that is over",
            );
        }
        if let Some(path) = self.fetched.last() {
            return with_hint(
                format!("{path} was fetched, and then nothing more for {silence} s"),
                "the loader did not start or went no further: Secure Boot may refuse it; \
                 look at the machine's console",
            );
        }
        self.never_fetched(boot_interface, silence)
    }

    fn ramdisk_silent(&self, silence: i64) -> Diagnosis {
        if self.agent_asked_dhcp {
            return with_hint(
                format!(
                    "the ramdisk was fetched and got its address, but the agent never called \
                     ({silence} s)"
                ),
                "check that the machine reaches the API's URL (ipa-api-url on its command line)",
            );
        }
        with_hint(
            format!("the ramdisk was fetched but the agent never called ({silence} s)"),
            "the kernel did not start, or has no driver for this network card: \
             look at the machine's console",
        )
    }

    fn never_fetched(&self, boot_interface: BootInterface, silence: i64) -> Diagnosis {
        let Some((client, answer)) = self.last_dhcp else {
            return with_hint(
                format!(
                    "nothing was heard from the machine since it was switched on ({silence} s)"
                ),
                "large servers test themselves for minutes; after that: is the cable in this \
                 network, is the port's MAC address right, is network boot on in the set-up, \
                 does DHCP reach this host",
            );
        };
        match answer {
            DhcpAnswer::NoBoot { because } if !self.http_client_asked || !self.acknowledged => {
                Diagnosis { text: because.to_string(), hint: None }
            }
            DhcpAnswer::Ignored { because } | DhcpAnswer::Nak { because } => Diagnosis {
                text: format!("{client} asked for an address and got none: {because}"),
                hint: None,
            },
            DhcpAnswer::Offer { .. } if !self.acknowledged => with_hint(
                format!("{client} was offered an address and did not take it ({silence} s)"),
                "another DHCP server on this network may have been quicker, or the answers do \
                 not reach the machine",
            ),
            DhcpAnswer::Offer { .. } | DhcpAnswer::Ack { .. } | DhcpAnswer::NoBoot { .. } => {
                self.address_but_no_fetch(boot_interface)
            }
        }
    }

    fn address_but_no_fetch(&self, boot_interface: BootInterface) -> Diagnosis {
        let who_told = match boot_interface {
            BootInterface::RedfishHttps => "the BMC",
            BootInterface::Http | BootInterface::HttpIpxe => "DHCP",
        };
        let text = format!(
            "the machine got its address, and the URL from {who_told}, but never asked for it"
        );
        with_hint(
            text,
            "check that the boot listener's address is reachable from the machine; firmware that \
             allows https only, or does not trust its CA, gives up in silence",
        )
    }
}

fn with_hint(text: String, hint: &str) -> Diagnosis {
    Diagnosis { text, hint: Some(hint.to_owned()) }
}
