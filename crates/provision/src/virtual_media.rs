//! Boots from a BMC's virtual CD drive. The BMC reads the image for its machine: in ranges, some of them when the image
//! is inserted, most of them while the machine boots, and others for as long as the machine runs.

use std::collections::HashMap;
use std::net::IpAddr;

use hardware::{BootChange, BootWayKind, HttpMethod, RedfishPurpose};
use jiff::{SignedDuration, Timestamp};
use url::{Host, Url};
use uuid::Uuid;

use crate::artifact::{Artifact, HttpLoader};
use crate::boot::{BootMethod, boots_iso};
use crate::boot_interface::BootInterface;
use crate::fetched_part::{FetchedBytes, FetchedPart, content_range, fetched_bytes};
use crate::node::{Attempt, Node};
use crate::position::Position;
use crate::procedure::{Boots, Stage};
use crate::state::ProvisionState;
use crate::trace::{BootEvent, BootEventKind};

/// The key of `driver_info` for the fallback of a BMC that takes no URL.
pub const BOOT_FALLBACK: &str = "redfish_boot_fallback";

/// Its only value.
pub const VIRTUAL_MEDIA: &str = "virtual-media";

/// Number of bytes that show the start of an operating system. Firmware that only looks at a CD reads less than 1 MiB;
/// the kernel and the initramfs of a system have more than 20 MiB.
const OF_A_SYSTEM: u64 = 16 << 20;

/// The same as a fraction of an image, for small ones: 1/`PART_OF_A_SMALL_IMAGE`.
const PART_OF_A_SMALL_IMAGE: u64 = 4;

/// Time after the power-on, and after the last byte of a BMC's copy, within which a BMC that shows BootProgress or
/// PostState is asked for it (the first look at a silent boot is after 30 s).
const COPY_BOOTS: SignedDuration = SignedDuration::from_secs(60);

/// Whether the image of the node's attempt may be in the virtual CD drive of its BMC.
#[must_use]
pub fn may_be_in_drive(node: &Node, attempt: &Attempt) -> bool {
    match attempt.boot_interface {
        BootInterface::RedfishVirtualMedia => true,
        BootInterface::RedfishHttps => node.driver_text(BOOT_FALLBACK) == Some(VIRTUAL_MEDIA),
        BootInterface::Http | BootInterface::HttpIpxe => false,
    }
}

/// Whether the image of a boot with these events is in the virtual CD drive of the BMC.
pub(crate) fn is_from_drive(method: BootMethod, events: &[BootEvent]) -> bool {
    // sushy-tools puts the image of `HttpBootUri` into the drive.
    let is_chosen = |event: &BootEvent| {
        let BootEventKind::BootWay { way, changes, .. } = &event.what else { return false };
        let fills_drive = |change: &BootChange| matches!(change, BootChange::Media { .. });
        *way == BootWayKind::VirtualMedia || changes.iter().any(fills_drive)
    };
    method.interface == BootInterface::RedfishVirtualMedia || events.iter().any(is_chosen)
}

/// Whether a request for a file of the node's attempt is its BMC's, and not the machine's. Firmware that got the URL
/// fetches the whole image, without a range; so do some BMCs, from their own address.
#[must_use]
pub fn is_of_bmc(
    node: &Node,
    artifact: Option<Artifact>,
    has_range: bool,
    remote: Option<IpAddr>,
) -> bool {
    let Some(attempt) = &node.attempt else { return false };
    let is_sure = has_range
        || attempt.boot_interface == BootInterface::RedfishVirtualMedia
        || remote.is_some_and(|remote| bmc_address(node) == Some(remote.to_canonical()));
    artifact == Some(Artifact::Iso) && is_sure && may_be_in_drive(node, attempt)
}

/// The IP address of the node's BMC, if `redfish_address` has it and not a name.
fn bmc_address(node: &Node) -> Option<IpAddr> {
    let text = node.driver_text("redfish_address")?;
    let url = if text.contains("://") {
        Url::parse(text)
    } else {
        Url::parse(&format!("https://{text}"))
    };
    match url.ok()?.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(IpAddr::from(address).to_canonical()),
        Host::Domain(_) => None,
    }
}

/// Whether an exchange is a read of the virtual CD by an instance that already runs. It says nothing about a boot, and
/// is not recorded: a system whose root is on the CD reads all day.
#[must_use]
pub fn is_read_by_running_system(node: &Node, what: &BootEventKind) -> bool {
    let BootEventKind::Http { artifact, range, remote, status: 200..=299, .. } = what else {
        return false;
    };
    let has_booted = node.live_attempt().is_some_and(|attempt| {
        attempt.boots() == Boots::Instance && attempt.image_fetched_at.is_some()
    });
    node.provision_state == ProvisionState::Active
        && has_booted
        && is_of_bmc(node, *artifact, range.is_some(), *remote)
}

/// The attempt whose operator's own ISO image is still read after its agent's first call, since the root of that system
/// may be on the CD. Such an image holds no token.
#[must_use]
pub fn attempt_with_live_cd(node: &Node) -> Option<&Attempt> {
    node.live_attempt().filter(|attempt| {
        let is_under_way = matches!(
            node.provision_state.position(),
            Position::In(procedure, Stage::AtWork | Stage::Waiting) if procedure == attempt.procedure
        );
        is_under_way
            && attempt.boots() == Boots::Ramdisk
            && may_be_in_drive(node, attempt)
            && boots_iso(node, attempt)
    })
}

/// Whether a machine has read enough of the image in its virtual CD drive to have started its system. `events` are those
/// since the machine was switched off for this boot.
///
/// The start of a kernel cannot be seen. What the BMC reads in ranges since the power-on, the machine has asked for:
/// [`OF_A_SYSTEM`] bytes are enough. A BMC that fetches the whole image, before the power-on or after it, makes a copy, and
/// reads nothing more when its machine boots. Then BootProgress or PostState tells. Where the BMC shows neither, or none
/// that says it, the copy and [`COPY_BOOTS`] are the only evidence.
pub(crate) fn is_image_read(events: &[BootEvent], now: Timestamp) -> bool {
    let Some(on) = events.iter().rposition(|event| is_power_on(&event.what)) else { return false };
    let since_on = &events[on..];
    if bytes_in(since_on, |what| is_iso_fetch(what) && has_range(what)).is_some_and(has_system) {
        return true;
    }
    if !iso_bytes(events).is_some_and(FetchedBytes::are_all) {
        return false;
    }
    let shown = since_on.iter().rev().find_map(|event| match &event.what {
        BootEventKind::BmcShows { observation } => observation.runs_system(),
        BootEventKind::State { .. }
        | BootEventKind::Redfish { .. }
        | BootEventKind::BootWay { .. }
        | BootEventKind::Provider { .. }
        | BootEventKind::Dhcp { .. }
        | BootEventKind::Http { .. }
        | BootEventKind::LastByte { .. }
        | BootEventKind::Agent { .. }
        | BootEventKind::TlsHandshake { .. }
        | BootEventKind::LeftOut { .. } => None,
    });
    let begin = copied_at(events).map(|copied| copied.max(events[on].at));
    shown.unwrap_or_else(|| begin.is_some_and(|begin| begin + COPY_BOOTS <= now))
}

/// The time at which a BMC first had the whole image. It may fetch the image again at each start of the machine.
fn copied_at(events: &[BootEvent]) -> Option<Timestamp> {
    let fetches: Vec<_> = events.iter().filter(|it| is_iso_fetch(&it.what)).cloned().collect();
    let lengths: Vec<_> = (1..=fetches.len()).collect();
    let lacks_some =
        |length: &usize| !iso_bytes(&fetches[..*length]).is_some_and(FetchedBytes::are_all);
    fetches.get(lengths.partition_point(lacks_some)).map(|last| last.at)
}

fn has_system(FetchedBytes { bytes, total }: FetchedBytes) -> bool {
    bytes > 0 && bytes >= OF_A_SYSTEM.min(total / PART_OF_A_SMALL_IMAGE)
}

/// Whether an event is the machine's power-on.
pub(crate) fn is_power_on(what: &BootEventKind) -> bool {
    matches!(what, BootEventKind::Redfish { purpose: RedfishPurpose::PowerOn, error: None, .. })
}

/// The bytes that were read of the ISO image.
pub(crate) fn iso_bytes(events: &[BootEvent]) -> Option<FetchedBytes> {
    bytes_in(events, is_iso_fetch)
}

/// The bytes that were read of the ISO image in some of its fetches.
fn bytes_in(events: &[BootEvent], counts: fn(&BootEventKind) -> bool) -> Option<FetchedBytes> {
    // The ISO image holds the system with each loader.
    let part = |event: &BootEvent| FetchedPart::of(&event.what, HttpLoader::Uki);
    let parts = events.iter().filter(|event| counts(&event.what)).filter_map(part).collect();
    fetched_bytes(parts).first().copied()
}

fn is_iso_fetch(what: &BootEventKind) -> bool {
    matches!(what, BootEventKind::Http { artifact: Some(Artifact::Iso), .. })
}

fn has_range(what: &BootEventKind) -> bool {
    matches!(what, BootEventKind::Http { range: Some(_), .. })
}

/// Joins reads of adjoining ranges of one image, as a BMC sends them by the thousand. The events of each node keep their
/// order; a joined event has the time of its last read.
#[must_use]
pub fn joined_reads(events: Vec<(Uuid, BootEvent)>) -> Vec<(Uuid, BootEvent)> {
    let mut joined: Vec<(Uuid, BootEvent)> = Vec::with_capacity(events.len());
    let mut last_of_nodes = HashMap::new();
    for (node, event) in events {
        let before = last_of_nodes.get(&node).map(|at: &usize| &mut joined[*at].1);
        if !before.is_some_and(|before| join(before, &event)) {
            last_of_nodes.insert(node, joined.len());
            joined.push((node, event));
        }
    }
    joined
}

/// Adds a read to the read before it, if it continues it.
fn join(before: &mut BootEvent, event: &BootEvent) -> bool {
    let BootEventKind::Http {
        method: HttpMethod::Get,
        artifact: Some(Artifact::Iso),
        remote,
        user_agent,
        status: 206,
        error: None,
        range: Some(range),
        sent,
        length,
        millis,
        ..
    } = &mut before.what
    else {
        return false;
    };
    let BootEventKind::Http {
        method: HttpMethod::Get,
        artifact: Some(Artifact::Iso),
        remote: next_remote,
        user_agent: next_user_agent,
        status: 206,
        error: None,
        range: Some(next_range),
        sent: next_sent,
        length: next_length,
        millis: next_millis,
        ..
    } = &event.what
    else {
        return false;
    };
    let is_same = before.attempt == event.attempt
        && (&*remote, &*user_agent) == (next_remote, next_user_agent)
        && (*sent, *next_sent) == (*length, *next_length);
    let (Some((first, total)), Some((next, next_total))) =
        (content_range(range), content_range(next_range))
    else {
        return false;
    };
    if !is_same || first.saturating_add(*sent) != next || total != next_total {
        return false;
    }
    *sent += next_sent;
    *length = *sent;
    *millis = millis.saturating_add(*next_millis);
    *range = format!("bytes {first}-{}/{total}", (first + *sent).saturating_sub(1));
    before.at = event.at;
    true
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use hardware::BmcObservation;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::procedure::Procedure;
    use crate::test_nodes::booting_node;

    const MIB: u64 = 1 << 20;
    /// The size of an installation CD.
    const CD: u64 = 900 * MIB;

    fn event(what: BootEventKind) -> BootEvent {
        BootEvent { at: Timestamp::UNIX_EPOCH, attempt: Uuid::nil(), what }
    }

    fn power_on() -> BootEvent {
        event(BootEventKind::Redfish {
            purpose: RedfishPurpose::PowerOn,
            method: HttpMethod::Post,
            path: "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset".to_owned(),
            status: Some(204),
            error: None,
        })
    }

    fn read(bytes: Range<u64>, total: u64) -> BootEvent {
        let length = bytes.end - bytes.start;
        event(BootEventKind::Http {
            method: HttpMethod::Get,
            artifact: Some(Artifact::Iso),
            path: "boot.iso".to_owned(),
            remote: Some(IpAddr::from([192, 0, 2, 9])),
            user_agent: Some("curl/8.5.0".to_owned()),
            status: 206,
            error: None,
            range: Some(format!("bytes {}-{}/{total}", bytes.start, bytes.end - 1)),
            sent: length,
            length,
            millis: 1,
            tls: None,
        })
    }

    fn instance(interface: BootInterface) -> Node {
        let mut node = booting_node();
        node.provision_state = ProvisionState::Active;
        let attempt = node.attempt.as_mut().unwrap();
        attempt.procedure = Procedure::Deploy;
        attempt.boot_interface = interface;
        attempt.image_fetched_at = Some(Timestamp::UNIX_EPOCH);
        node
    }

    /// Whether the image counts as read this long after all events.
    fn is_read_after(secs: i64, events: &[BootEvent]) -> bool {
        is_image_read(events, Timestamp::UNIX_EPOCH + SignedDuration::from_secs(secs))
    }

    fn is_read(events: &[BootEvent]) -> bool {
        is_read_after(0, events)
    }

    /// A fetch of the whole image in one answer.
    fn copy() -> BootEvent {
        let BootEvent { at, attempt, mut what } = read(0..CD, CD);
        let BootEventKind::Http { range, status, .. } = &mut what else { unreachable!() };
        (*range, *status) = (None, 200);
        BootEvent { at, attempt, what }
    }

    fn shows(state: &str) -> BootEvent {
        let state = state.to_owned();
        let observation =
            BmcObservation::BootProgress { state, oem_state: None, last_boot_secs: None };
        event(BootEventKind::BmcShows { observation })
    }

    #[test]
    fn a_machine_that_read_a_kernel_from_its_cd_after_its_power_on_has_started_its_system() {
        let look = || read(32 * 1024..MIB, CD);
        let kernel = || read(100 * MIB..117 * MIB, CD);

        assert!(!is_read(&[kernel()]), "it is not on yet");
        assert!(!is_read_after(900, &[kernel(), power_on()]), "the BMC read ahead");
        assert!(!is_read(&[power_on(), look(), look()]), "it only looked at the CD");
        assert!(is_read(&[look(), power_on(), look(), kernel()]));
    }

    #[test]
    fn the_copy_of_a_bmc_is_no_boot_of_its_machine_unless_there_is_no_other_evidence() {
        let whole = || read(0..CD, CD);
        for boot in [[whole(), power_on()], [copy(), power_on()], [power_on(), copy()]] {
            let then = |state| [&boot[..], &[shows(state)]].concat();
            assert!(!is_read_after(59, &boot), "the BMC may yet show how the boot gets on");
            assert!(is_read_after(60, &boot), "it shows nothing");
            assert!(!is_read_after(900, &then("MemoryInitializationStarted")));
            assert!(!is_read_after(900, &then("SetupEntered")));
            assert!(is_read_after(0, &then("OSBootStarted")));
            assert!(is_read_after(60, &then("SystemHardwareInitializationComplete")));
        }
        let again = BootEvent { at: Timestamp::from_second(50).unwrap(), ..copy() };
        assert!(is_read_after(60, &[copy(), power_on(), again]), "each start may make a copy");
        assert!(!is_read_after(900, &[whole()]), "the machine is off");
        assert!(!is_read_after(900, &[shows("OSRunning"), whole()]));
    }

    #[test]
    fn of_a_small_image_a_quarter_shows_the_start_of_its_system() {
        let small = 8 * MIB;
        assert!(!is_read(&[power_on(), read(0..MIB, small)]));
        assert!(is_read(&[power_on(), read(0..MIB, small), read(3 * MIB..4 * MIB, small)]));
    }

    #[test]
    fn a_boot_is_from_the_drive_by_its_interface_or_by_the_way_that_was_chosen() {
        let changing = |way, changes| {
            event(BootEventKind::BootWay {
                way,
                platform: "Dell iDRAC".to_owned(),
                resource: "/redfish/v1/Managers/1/VirtualMedia/CD".to_owned(),
                warnings: Vec::new(),
                changes,
            })
        };
        let way = |way| changing(way, Vec::new());
        let media = BootChange::Media { drive: "/redfish/v1/Systems/1/VirtualMedia/Cd".to_owned() };
        let is_from_drive = |interface, events: &[BootEvent]| {
            let (procedure, loader) = (Procedure::Clean, HttpLoader::Uki);
            is_from_drive(BootMethod { procedure, interface, loader }, events)
        };
        let https = BootInterface::RedfishHttps;

        assert!(is_from_drive(BootInterface::RedfishVirtualMedia, &[]));
        assert!(is_from_drive(https, &[way(BootWayKind::VirtualMedia), power_on()]));
        assert!(!is_from_drive(https, &[way(BootWayKind::HttpBootUri), power_on()]));
        assert!(is_from_drive(https, &[changing(BootWayKind::HttpBootUri, vec![media])]));
    }

    #[test]
    fn the_bmc_reads_for_virtual_media_and_in_ranges_for_the_fallback() {
        let is_at = |node: &Node, has_range, remote: [u8; 4]| {
            is_of_bmc(node, Some(Artifact::Iso), has_range, Some(remote.into()))
        };
        let is_of_bmc = |node: &Node, has_range| is_at(node, has_range, [192, 0, 2, 7]);
        let media = instance(BootInterface::RedfishVirtualMedia);
        let mut fallback = instance(BootInterface::RedfishHttps);

        assert!(is_of_bmc(&media, true) && is_of_bmc(&media, false));
        assert!(!is_of_bmc(&fallback, true));
        fallback.driver_info.insert(BOOT_FALLBACK.to_owned(), json!(VIRTUAL_MEDIA));
        assert!(is_of_bmc(&fallback, true) && !is_of_bmc(&fallback, false));
        for address in ["https://192.0.2.9:8443/redfish", "192.0.2.9", "[::ffff:192.0.2.9]"] {
            fallback.driver_info.insert("redfish_address".to_owned(), json!(address));
            assert!(is_at(&fallback, false, [192, 0, 2, 9]), "{address}");
            assert!(!is_of_bmc(&fallback, false), "{address}");
        }
        assert!(!is_of_bmc(&instance(BootInterface::Http), true));
    }

    #[test]
    fn reads_by_a_system_that_runs_from_its_cd_are_told_from_those_of_its_boot() {
        let what = read(0..MIB, CD).what;
        let mut node = instance(BootInterface::RedfishVirtualMedia);

        assert!(is_read_by_running_system(&node, &what));
        assert!(!is_read_by_running_system(&instance(BootInterface::Http), &what));
        node.attempt.as_mut().unwrap().image_fetched_at = None;
        assert!(!is_read_by_running_system(&node, &what));
    }

    #[test]
    fn only_an_operators_own_cd_is_read_on_after_the_agents_call() {
        let mut node = booting_node();
        let attempt = node.attempt.as_mut().unwrap();
        attempt.boot_interface = BootInterface::RedfishVirtualMedia;

        assert_eq!(attempt_with_live_cd(&node), None, "the composed image holds the token");
        node.driver_info.insert("deploy_iso".to_owned(), json!("http://images.example/live.iso"));
        assert!(attempt_with_live_cd(&node).is_some());
        node.provision_state = ProvisionState::CleanFailed;
        assert_eq!(attempt_with_live_cd(&node), None);
    }

    #[test]
    fn adjoining_reads_are_joined_and_others_are_not() {
        let [one, other] = [1, 2].map(Uuid::from_u128);
        let later = BootEvent {
            at: Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1),
            ..read(10..20, 100)
        };
        let events = vec![
            (one, read(0..10, 100)),
            (other, power_on()),
            (one, later.clone()),
            (one, read(30..40, 100)),
            (one, power_on()),
            (one, read(40..50, 100)),
        ];

        let joined = joined_reads(events);

        let first = BootEvent { at: later.at, ..read(0..20, 100) };
        let shown: Vec<_> = joined.iter().map(|(_, event)| event.what.to_string()).collect();
        assert_eq!(joined.len(), 5, "{shown:?}");
        assert_eq!(joined[0].1.at, first.at);
        let BootEventKind::Http { range, sent, .. } = &joined[0].1.what else { unreachable!() };
        assert_eq!((range.as_deref(), *sent), (Some("bytes 0-19/100"), 20));
    }

    proptest! {
        #[test]
        fn joining_loses_no_byte(
            parts in proptest::collection::vec((0..20_u64, 1..10_u64), 0..12),
        ) {
            let events: Vec<_> = (parts.iter())
                .map(|(start, len)| (Uuid::nil(), read(*start..start + len, 40)))
                .collect();
            let of = |events: &[(Uuid, BootEvent)]| {
                iso_bytes(&events.iter().map(|(_, event)| event.clone()).collect::<Vec<_>>())
            };
            prop_assert_eq!(of(&joined_reads(events.clone())), of(&events));
        }
    }
}
