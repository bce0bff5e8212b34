//! The last announcement of a machine's latest boot to an external DHCP server, in words.

use provision::trace::BootAnnouncement;
use provision::{Attempt, BootEvent, BootEventKind};

/// Nothing was announced.
const NOTHING: &str = "was told nothing of this machine: it is told when a boot of it begins";

/// The last announcement in `trace`, the events of the machine's latest attempt; `None` if there was no attempt.
#[must_use]
pub fn last_announcement(latest: Option<(&Attempt, &[BootEvent])>) -> String {
    let Some((attempt, trace)) = latest else { return NOTHING.to_owned() };
    let announcement = |event: &BootEvent| {
        let BootEventKind::Provider { told, error, .. } = &event.what else { return None };
        Some(in_words(told, error.as_deref()))
    };
    match trace.iter().rev().find_map(announcement) {
        Some(said) => said,
        None if attempt.boot_interface.bmc_artifact().is_some() => {
            "was told nothing of this boot: the BMC tells the machine what to boot".to_owned()
        }
        None => NOTHING.to_owned(),
    }
}

fn in_words(announcement: &BootAnnouncement, error: Option<&str>) -> String {
    match error {
        None => format!("was told {announcement}"),
        Some(error) => format!("could not be told {announcement} ({error})"),
    }
}

#[cfg(test)]
mod tests {
    use hardware::Mac;
    use jiff::Timestamp;
    use provision::BootInterface;
    use provision::artifact::Artifact;
    use provision::test_nodes::booting_node;
    use provision::trace::{AnnouncementCause, DhcpService};

    use super::*;

    #[test]
    fn the_last_announcement_is_named_with_its_error() {
        let attempt = booting_node().attempt.unwrap();
        let event = |error: Option<&str>| BootEvent {
            at: Timestamp::UNIX_EPOCH,
            attempt: attempt.id,
            what: BootEventKind::Provider {
                name: DhcpService::Dnsmasq,
                told: BootAnnouncement::Boot {
                    cause: AnnouncementCause::Begin,
                    ports: vec![Mac([2, 0, 0, 0, 0, 1])],
                    artifact: Some(Artifact::BootLoader),
                    warnings: Vec::new(),
                },
                error: error.map(str::to_owned),
            },
        };
        let said = |trace: &[BootEvent]| last_announcement(Some((&attempt, trace)));

        let boot = "to let 02:00:00:00:00:01 boot bootx64.efi";
        assert_eq!(said(&[event(Some("down")), event(None)]), format!("was told {boot}"));
        let failed = said(&[event(None), event(Some("down"))]);
        assert_eq!(failed, format!("could not be told {boot} (down)"));
    }

    #[test]
    fn it_is_said_why_nothing_was_announced() {
        let mut attempt = booting_node().attempt.unwrap();

        assert_eq!(last_announcement(None), NOTHING);
        attempt.boot_interface = BootInterface::Http;
        assert_eq!(last_announcement(Some((&attempt, &[]))), NOTHING);
        attempt.boot_interface = BootInterface::RedfishHttps;
        assert!(last_announcement(Some((&attempt, &[]))).contains("the BMC tells the machine"));
    }
}
