//! The boots of an instance, from the exchanges of its machine: the complete fetch of its image, and later boots that
//! the machine begins by itself.

use hardware::{ClientKind, HttpMethod, RedfishPurpose};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::artifact::{Artifact, HttpLoader};
use crate::boot::BootMethod;
use crate::boot_interface::BootInterface;
use crate::fetched_part::{FetchedBytes, FetchedPart, fetched_bytes};
use crate::node::{Attempt, Node};
use crate::position::Position;
use crate::procedure::{Boots, Procedure, Stage};
use crate::state::ProvisionState;
use crate::trace::{BootEvent, BootEventKind, latest_boot};
use crate::virtual_media;

/// Time from an [announced](BootEventKind::LastByte) last byte until its fetch counts as complete, if the end of the
/// fetch is not recorded: the daemon was killed in between. A living daemon records the end within a second, unless
/// its client stopped reading just then.
const END_RECORDED_WITHIN: SignedDuration = SignedDuration::from_secs(10);

/// Whether the node has an instance whose image is awaited.
#[must_use]
pub fn awaits_image(node: &Node) -> bool {
    node.live_attempt().is_some_and(|attempt| {
        attempt.boots() == Boots::Instance && attempt.image_fetched_at.is_none()
    })
}

/// Whether the event must be saved before the last byte that it announces is sent: with that byte the image of a
/// deployment may be complete. Clients read a file to its end last, also if they resume a fetch.
#[must_use]
pub fn is_saved_before_last_byte(
    node: &Node,
    announced: &BootEventKind,
    loader: HttpLoader,
) -> bool {
    let is_deployed = matches!(
        node.provision_state.position(),
        Position::In(Procedure::Deploy, Stage::AtWork | Stage::Waiting)
    );
    is_deployed
        && awaits_image(node)
        && !is_read_for_drive(node, announced)
        && FetchedPart::announced(announced, loader).is_some_and(|part| part.has_the_end())
}

/// Whether the trace of a boot shows a complete fetch of the file with the operating system, at once or in parts; from a
/// virtual CD drive, whether it shows that the machine [read](virtual_media) its system.
#[must_use]
pub fn is_image_fetched(events: &[BootEvent], method: BootMethod, now: Timestamp) -> bool {
    let events = since_power_off(latest_boot(events));
    if virtual_media::is_from_drive(method, events) {
        return virtual_media::is_image_read(events, now);
    }
    let announced = events.iter().enumerate().filter(|(at, event)| {
        event.at + END_RECORDED_WITHIN <= now && !is_end_recorded(&event.what, &events[at + 1..])
    });
    let announced =
        announced.filter_map(|(_, event)| FetchedPart::announced(&event.what, method.loader));
    let sent = events.iter().filter_map(|event| FetchedPart::of(&event.what, method.loader));
    fetched_bytes(sent.chain(announced).collect()).into_iter().any(FetchedBytes::are_all)
}

/// The events of a boot since its machine was switched off for it. Earlier fetches do not count: a machine that
/// restarts by itself just before can fetch from the new boot too, and loses that image.
fn since_power_off(events: &[BootEvent]) -> &[BootEvent] {
    let is_power_off = |event: &BootEvent| {
        matches!(
            event.what,
            BootEventKind::Redfish { purpose: RedfishPurpose::PowerOff, error: None, .. }
        )
    };
    let off = events.iter().rposition(is_power_off);
    &events[off.map_or(0, |off| off + 1)..]
}

/// Whether the events after an announced last byte show the end of that fetch, or of an equal later one.
fn is_end_recorded(announced: &BootEventKind, later: &[BootEvent]) -> bool {
    let BootEventKind::LastByte { artifact: fetched, range: part, .. } = announced else {
        return false;
    };
    later.iter().any(|event| match &event.what {
        BootEventKind::Http { method, artifact, range, .. } => {
            *method == HttpMethod::Get && *artifact == Some(*fetched) && range == part
        }
        BootEventKind::State { .. }
        | BootEventKind::Redfish { .. }
        | BootEventKind::BootWay { .. }
        | BootEventKind::BmcShows { .. }
        | BootEventKind::Provider { .. }
        | BootEventKind::Dhcp { .. }
        | BootEventKind::LastByte { .. }
        | BootEventKind::TlsHandshake { .. }
        | BootEventKind::Agent { .. }
        | BootEventKind::LeftOut { .. } => false,
    })
}

/// Whether an exchange shows a later boot of an instance: its image was fetched completely before, and its firmware
/// now begins again.
#[must_use]
pub fn begins_another_boot(node: &Node, attempt: &Attempt, what: &BootEventKind) -> bool {
    let is_over = node.provision_state == ProvisionState::Active
        && attempt.boots() == Boots::Instance
        && attempt.image_fetched_at.is_some();
    // A BMC reads the image for the running system as well as for the next boot: they look the same.
    let is_seen = attempt.boot_interface != BootInterface::RedfishVirtualMedia
        && !is_read_for_drive(node, what);
    is_over && is_seen && is_of_firmware(what)
}

/// Whether a BMC reads the image for its virtual CD drive.
fn is_read_for_drive(node: &Node, what: &BootEventKind) -> bool {
    match what {
        BootEventKind::Http { artifact, range, remote, .. } => {
            virtual_media::is_of_bmc(node, *artifact, range.is_some(), *remote)
        }
        BootEventKind::LastByte { artifact, range, .. } => {
            virtual_media::is_of_bmc(node, Some(*artifact), range.is_some(), None)
        }
        BootEventKind::State { .. }
        | BootEventKind::Redfish { .. }
        | BootEventKind::BootWay { .. }
        | BootEventKind::BmcShows { .. }
        | BootEventKind::Provider { .. }
        | BootEventKind::Dhcp { .. }
        | BootEventKind::TlsHandshake { .. }
        | BootEventKind::Agent { .. }
        | BootEventKind::LeftOut { .. } => false,
    }
}

/// The fate of a boot that began after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaterBootFate {
    /// The boot is, or was, an attempt of the node.
    Attempt,
    /// The boot is not an attempt yet.
    Unsaved,
    /// The boot will never be an attempt: the attempt before it continued otherwise, and gets the boot's events.
    Overtaken,
}

/// The fate of the boot `id`, which began after the attempt `before` in the recorder's view.
#[must_use]
pub fn fate_of_later_boot(node: &Node, before: Uuid, id: Uuid) -> LaterBootFate {
    let Some(attempt) = &node.attempt else { return LaterBootFate::Overtaken };
    if attempt.id == before {
        let may_begin = node.provision_state == ProvisionState::Active;
        return if may_begin { LaterBootFate::Unsaved } else { LaterBootFate::Overtaken };
    }
    match attempt.follows {
        Some(follows) if follows == before && attempt.id != id => LaterBootFate::Overtaken,
        // Older attempts are not recorded; most boots are saved, so this one counts as saved.
        Some(_) | None => LaterBootFate::Attempt,
    }
}

fn is_of_firmware(what: &BootEventKind) -> bool {
    match what {
        BootEventKind::Dhcp { client, .. } => match client {
            ClientKind::HttpClient | ClientKind::PxeClient => true,
            // These clients follow the firmware, or run without any boot.
            ClientKind::Ipxe
            | ClientKind::Grub
            | ClientKind::Agent
            | ClientKind::Firmware
            | ClientKind::System => false,
        },
        BootEventKind::Http { artifact: Some(artifact), .. } => match artifact {
            Artifact::BootLoader
            | Artifact::BootLoaderArm64
            | Artifact::BootLoaderRiscv64
            | Artifact::Ipxe
            | Artifact::IpxeArm64
            | Artifact::Iso => true,
            Artifact::ShimSecondStage
            | Artifact::IpxeScript
            | Artifact::GrubConfig
            | Artifact::Kernel
            | Artifact::Initramfs => false,
        },
        BootEventKind::Http { artifact: None, .. }
        | BootEventKind::LastByte { .. }
        | BootEventKind::TlsHandshake { .. }
        | BootEventKind::State { .. }
        | BootEventKind::Redfish { .. }
        | BootEventKind::BootWay { .. }
        | BootEventKind::BmcShows { .. }
        | BootEventKind::Provider { .. }
        | BootEventKind::Agent { .. }
        | BootEventKind::LeftOut { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::*;
    use crate::test_nodes::{ATTEMPT, booting_node};

    const LENGTH: u64 = 1_000;

    fn fetch(artifact: Artifact, range: Option<Range<u64>>, sent: u64) -> BootEvent {
        let length = range.as_ref().map_or(LENGTH, |range| range.end - range.start);
        let range = range.map(|range| format!("bytes {}-{}/{LENGTH}", range.start, range.end - 1));
        let what = BootEventKind::Http {
            method: HttpMethod::Get,
            artifact: Some(artifact),
            path: artifact.file_name().to_owned(),
            remote: None,
            user_agent: None,
            status: if range.is_some() { 206 } else { 200 },
            error: None,
            range,
            sent,
            length,
            millis: 1,
            tls: None,
        };
        BootEvent { at: Timestamp::UNIX_EPOCH, attempt: Uuid::nil(), what }
    }

    fn method(loader: HttpLoader) -> BootMethod {
        BootMethod { procedure: Procedure::Deploy, interface: BootInterface::RedfishHttps, loader }
    }

    fn is_fetched(events: &[BootEvent]) -> bool {
        is_fetched_after(SignedDuration::ZERO, events)
    }

    /// Whether the image counts as fetched this long after all events.
    fn is_fetched_after(time: SignedDuration, events: &[BootEvent]) -> bool {
        is_image_fetched(events, method(HttpLoader::Uki), Timestamp::UNIX_EPOCH + time)
    }

    fn last_byte(artifact: Artifact, range: Option<Range<u64>>) -> BootEvent {
        let fetched = fetch(artifact, range, 0);
        let BootEventKind::Http { range, length, .. } = fetched.what else { unreachable!() };
        BootEvent { what: BootEventKind::LastByte { artifact, range, length }, ..fetched }
    }

    #[test]
    fn an_image_counts_once_all_of_it_was_sent() {
        assert!(!is_fetched(&[]));
        assert!(!is_fetched(&[fetch(Artifact::Iso, None, LENGTH - 1)]));
        assert!(is_fetched(&[fetch(Artifact::Iso, None, LENGTH)]));
    }

    #[test]
    fn a_fetch_that_broke_off_and_was_resumed_counts() {
        let broken = fetch(Artifact::Iso, None, 400);
        let rest = fetch(Artifact::Iso, Some(400..LENGTH), LENGTH - 400);
        assert!(is_fetched(&[broken.clone(), rest]));
        let gap = fetch(Artifact::Iso, Some(401..LENGTH), LENGTH - 401);
        assert!(!is_fetched(&[broken, gap]));
    }

    #[test]
    fn a_loader_that_goes_on_to_fetch_the_system_is_not_the_image() {
        let events = [fetch(Artifact::Ipxe, None, LENGTH), fetch(Artifact::Kernel, None, LENGTH)];
        assert!(!is_fetched(&events));
        let grub = [fetch(Artifact::BootLoader, None, LENGTH)];
        let by_grub = method(HttpLoader::Grub);
        assert!(!is_image_fetched(&grub, by_grub, Timestamp::UNIX_EPOCH));
    }

    #[test]
    fn a_fetch_whose_end_nobody_recorded_counts_by_its_announced_last_byte() {
        let announced = last_byte(Artifact::Iso, None);

        assert!(!is_fetched(std::slice::from_ref(&announced)), "it may still break off");
        assert!(is_fetched_after(END_RECORDED_WITHIN, &[announced]));
        let begun = fetch(Artifact::Iso, None, 400);
        let rest = last_byte(Artifact::Iso, Some(400..LENGTH));
        assert!(is_fetched_after(END_RECORDED_WITHIN, &[begun, rest.clone()]));
        assert!(!is_fetched_after(END_RECORDED_WITHIN, &[rest]), "the start is missing");
        let kernel = last_byte(Artifact::Kernel, None);
        assert!(!is_fetched_after(END_RECORDED_WITHIN, &[kernel]));
    }

    #[test]
    fn a_client_that_went_away_before_the_last_byte_has_no_image() {
        let announced = last_byte(Artifact::Iso, None);
        let broken = fetch(Artifact::Iso, None, LENGTH - 1);

        assert!(!is_fetched_after(END_RECORDED_WITHIN, &[announced.clone(), broken.clone()]));
        assert!(is_fetched_after(END_RECORDED_WITHIN, &[announced.clone(), broken, announced]));
    }

    #[test]
    fn only_the_end_of_an_image_that_a_deployment_awaits_is_saved_before_its_last_byte() {
        let mut node = booting_node();
        node.provision_state = ProvisionState::DeployWait;
        node.attempt.as_mut().unwrap().procedure = Procedure::Deploy;
        let is_saved = |node: &Node, event: BootEvent| {
            is_saved_before_last_byte(node, &event.what, HttpLoader::Uki)
        };
        let whole = || last_byte(Artifact::Iso, None);

        assert!(is_saved(&node, whole()));
        assert!(is_saved(&node, last_byte(Artifact::Iso, Some(400..LENGTH))));
        assert!(!is_saved(&node, last_byte(Artifact::Iso, Some(0..400))));
        assert!(!is_saved(&node, last_byte(Artifact::Kernel, None)));
        assert!(!is_saved(&booting_node(), whole()), "it is a clean");
        let active = Node { provision_state: ProvisionState::Active, ..node.clone() };
        assert!(!is_saved(&active, whole()), "it is a later boot");
        let mut media = node.clone();
        media.attempt.as_mut().unwrap().boot_interface = BootInterface::RedfishVirtualMedia;
        assert!(!is_saved(&media, whole()), "a BMC reads the end of an image first, and again");
        node.attempt.as_mut().unwrap().image_fetched_at = Some(Timestamp::UNIX_EPOCH);
        assert!(!is_saved(&node, whole()));
    }

    #[test]
    fn what_a_machine_fetched_before_it_was_switched_off_for_the_boot_is_not_the_image() {
        let power_off = BootEvent {
            at: Timestamp::UNIX_EPOCH,
            attempt: Uuid::nil(),
            what: BootEventKind::Redfish {
                purpose: RedfishPurpose::PowerOff,
                method: HttpMethod::Post,
                path: "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset".to_owned(),
                status: Some(200),
                error: None,
            },
        };
        let whole = || fetch(Artifact::Iso, None, LENGTH);

        assert!(!is_fetched(&[whole(), power_off.clone()]));
        assert!(is_fetched(&[whole(), power_off, whole()]));
    }

    #[test]
    fn a_head_fetches_nothing() {
        let mut event = fetch(Artifact::Iso, None, LENGTH);
        let BootEventKind::Http { method, .. } = &mut event.what else { unreachable!() };
        *method = HttpMethod::Head;
        assert!(!is_fetched(&[event]));
    }

    #[test]
    fn reads_for_a_virtual_cd_begin_no_later_boot() {
        let mut node = booting_node();
        node.provision_state = ProvisionState::Active;
        let attempt = node.attempt.as_mut().unwrap();
        attempt.procedure = Procedure::Deploy;
        attempt.image_fetched_at = Some(Timestamp::UNIX_EPOCH);
        let begins = |node: &Node, event: BootEvent| {
            begins_another_boot(node, node.attempt.as_ref().unwrap(), &event.what)
        };
        let [whole, part] = [None, Some(0..10)].map(|range| fetch(Artifact::Iso, range, 10));

        assert!(begins(&node, whole.clone()) && begins(&node, part.clone()));
        node.attempt.as_mut().unwrap().boot_interface = BootInterface::RedfishVirtualMedia;
        assert!(!begins(&node, whole) && !begins(&node, part));
    }

    #[test]
    fn a_later_boot_is_overtaken_if_its_instance_is_taken_away_or_booted_anew_before_it_was_saved()
    {
        let [later, next] = [11, 12].map(Uuid::from_u128);
        let fate = |state, id, follows| {
            let mut node = booting_node();
            node.provision_state = state;
            let attempt = node.attempt.as_mut().unwrap();
            (attempt.id, attempt.follows) = (id, follows);
            fate_of_later_boot(&node, ATTEMPT, later)
        };
        let (active, clean) = (ProvisionState::Active, ProvisionState::Cleaning);

        assert_eq!(fate(active, ATTEMPT, None), LaterBootFate::Unsaved);
        assert_eq!(fate(active, later, Some(ATTEMPT)), LaterBootFate::Attempt);
        assert_eq!(fate(ProvisionState::Deleting, ATTEMPT, None), LaterBootFate::Overtaken);
        assert_eq!(fate(clean, next, Some(ATTEMPT)), LaterBootFate::Overtaken);
        assert_eq!(fate(clean, next, Some(later)), LaterBootFate::Attempt);
    }

    proptest! {
        #[test]
        fn parts_count_as_the_whole_exactly_if_no_byte_is_missing(
            parts in proptest::collection::vec((0..20_u64, 1..10_u64), 0..12),
        ) {
            let mut have = [false; 20];
            let events: Vec<_> = parts.iter().map(|(start, len)| {
                let end = (start + len).min(20);
                (*start..end).for_each(|at| have[at as usize] = true);
                fetch(Artifact::Iso, Some(start * 50..end * 50), (end - start) * 50)
            }).collect();
            prop_assert_eq!(is_fetched(&events), have.iter().all(|it| *it));
        }
    }
}
