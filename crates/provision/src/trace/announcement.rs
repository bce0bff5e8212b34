//! What a DHCP service other than ours was told of a boot.

use std::fmt;

use hardware::Mac;
use serde::{Deserialize, Serialize};

use crate::boot::Artifact;

/// A DHCP service other than ours that can be told what machines boot.
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
    /// The name that its makers use.
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

/// What a DHCP service was told of a boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "announcement", rename_all = "snake_case")]
pub enum BootAnnouncement {
    /// What the machine may boot.
    Boot {
        /// The reason to tell it now.
        cause: AnnouncementCause,
        /// The ports that it may boot from.
        ports: Vec<Mac>,
        /// What its firmware starts first; `None` if there is nothing for it.
        artifact: Option<Artifact>,
        /// What the service did not take, in words: the machine may boot nonetheless.
        warnings: Vec<String>,
    },
    /// An announcement that version 0.1 wrote in words.
    InWords {
        /// The words.
        words: String,
    },
}

/// The reason to tell a DHCP service of a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnnouncementCause {
    /// The boot begins.
    Begin,
    /// Ports or URLs have changed since the boot began.
    Change,
    /// The service has forgotten the boot.
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

/// To stand after `was told`.
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
        let file = artifact.map_or("what there is none of", Artifact::file_name);
        write!(f, "to let {} boot {file}", ports.join(" and "))?;
        warnings.iter().try_for_each(|warning| write!(f, "; but {warning}"))
    }
}
