//! The wanted configuration of an external DHCP service.

use std::sync::Arc;

use hardware::CpuArch;
use provision::boot::bootable;
use provision::{Node, Port};

use super::announcement::{AnnouncedPort, Announcement};
use crate::urls::Urls;

/// The wanted configuration of an external DHCP service.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// The current boots.
    pub told: Vec<Announcement>,
    /// The latest boots of all nodes without a current boot.
    pub over: Vec<Announcement>,
    /// The ports of all nodes.
    pub ports: Vec<AnnouncedPort>,
}

impl Picture {
    /// The configuration for all nodes, each with its ports.
    #[must_use]
    pub fn of(
        nodes: impl Iterator<Item = (Arc<Node>, Vec<Arc<Port>>)>,
        urls: &Urls,
        boot_sets: &[CpuArch],
    ) -> Self {
        let mut picture = Self::default();
        for (node, ports) in nodes {
            let boots = bootable(&node).is_some();
            let list = if boots { &mut picture.told } else { &mut picture.over };
            list.extend(Announcement::of(&node, &ports, urls, boot_sets));
            picture.ports.extend(ports.iter().map(|port| AnnouncedPort::of(port)));
        }
        picture
    }
}
