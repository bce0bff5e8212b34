//! Announcements of a boot to an external DHCP service.

use std::fmt;

use hardware::Mac;
use serde::{Deserialize, Serialize};

use crate::artifact::Artifact;

/// An external DHCP service that can be configured for each boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DhcpService {
    /// dnsmasq.
    #[serde(rename = "dnsmasq")]
    Dnsmasq,
    /// Kea.
    Kea,
    /// OpenStack Neutron.
    Neutron,
}

impl DhcpService {
    /// The service's own spelling of its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dnsmasq => "dnsmasq",
            Self::Kea => "Kea",
            Self::Neutron => "Neutron",
        }
    }
}

impl fmt::Display for DhcpService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An announcement of a boot to a DHCP service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "announcement", rename_all = "snake_case")]
pub enum BootAnnouncement {
    /// The boot answer for a machine.
    Boot {
        /// The reason for the announcement.
        cause: AnnouncementCause,
        /// The boot ports.
        ports: Vec<Mac>,
        /// The first artifact for its firmware; `None` if there is none.
        artifact: Option<Artifact>,
        /// Parts that the service did not accept; the machine may boot nonetheless.
        warnings: Vec<String>,
    },
    /// An announcement in the words of version 0.1.
    InWords {
        /// The words.
        words: String,
    },
}

/// The reason for an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnnouncementCause {
    /// The boot has begun.
    Begin,
    /// Ports or URLs have changed since the boot began.
    Change,
    /// The service had lost the boot.
    Forgotten,
}

impl BootAnnouncement {
    pub(super) fn texts(&mut self) -> impl Iterator<Item = &mut String> {
        match self {
            Self::Boot { warnings, .. } => warnings.iter_mut(),
            Self::InWords { words } => std::slice::from_mut(words).iter_mut(),
        }
    }
}

/// The text after `was told`, in traces.
impl fmt::Display for BootAnnouncement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cause, ports, artifact, warnings) = match self {
            Self::InWords { words } => return f.write_str(words),
            Self::Boot { cause, ports, artifact, warnings } => (cause, ports, artifact, warnings),
        };
        f.write_str(match cause {
            AnnouncementCause::Begin => "",
            AnnouncementCause::Change => "anew, ",
            AnnouncementCause::Forgotten => "again, which it had forgotten, ",
        })?;
        let ports: Vec<_> = ports.iter().map(Mac::to_string).collect();
        let file = artifact.map_or("nothing", Artifact::file_name);
        write!(f, "to let {} boot {file}", ports.join(" and "))?;
        warnings.iter().try_for_each(|warning| write!(f, "; but {warning}"))
    }
}
