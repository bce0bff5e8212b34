//! Microversions: the request's version, and the changes in each number.
//!
//! Fields have their version in their own tables ([`crate::node::FIELDS`], [`crate::port::FIELDS`]), arguments of
//! queries in [`crate::query`], verbs in [`crate::states::VERBS`].

use std::fmt;

use thiserror::Error;

/// The header of requests with a version, and of every answer.
pub const HEADER: &str = "X-OpenStack-Ironic-API-Version";
/// The header with the lowest version.
pub const MIN_HEADER: &str = "X-OpenStack-Ironic-API-Minimum-Version";
/// The header with the highest version.
pub const MAX_HEADER: &str = "X-OpenStack-Ironic-API-Maximum-Version";
/// The header of all OpenStack services: `baremetal 1.N`.
pub const OPENSTACK_HEADER: &str = "OpenStack-API-Version";

/// Microversions that introduce something else than a field, an argument of a query or a verb.
pub mod since {
    /// The state after `POST /v1/nodes` and others is called `available`, not null.
    pub const AVAILABLE: u16 = 2;
    /// Nodes are found by name.
    pub const NAMES: u16 = 5;
    /// Names may have every unreserved character of RFC 3986.
    pub const FREE_NAMES: u16 = 10;
    /// A new node is in `enroll`; below, in `available`.
    pub const ENROLL: u16 = 11;
    /// `/v1/nodes/{}/states/raid`.
    pub const RAID: u16 = 12;
    /// A node's `states` are linked.
    pub const STATES_LINK: u16 = 14;
    /// `/v1/lookup` and `/v1/heartbeat`.
    pub const RAMDISK: u16 = 22;
    /// `/v1/portgroups`.
    pub const PORTGROUPS: u16 = 23;
    /// A node's `portgroups` are linked.
    pub const PORTGROUPS_LINK: u16 = 24;
    /// `soft power off` and `soft rebooting`.
    pub const SOFT_POWER: u16 = 27;
    /// `PUT /v1/nodes/{}/management/inject_nmi`.
    pub const INJECT_NMI: u16 = 29;
    /// `configdrive` with `rebuild`.
    pub const REBUILD_CONFIG_DRIVE: u16 = 35;
    /// `/v1/nodes/{}/vifs`.
    pub const VIFS: u16 = 28;
    /// `/v1/volume`, and a node's `volume` is linked.
    pub const VOLUME: u16 = 32;
    /// Traits.
    pub const TRAITS: u16 = 37;
    /// `/v1/nodes/{}/bios`.
    pub const BIOS: u16 = 40;
    /// `/v1/conductors`.
    pub const CONDUCTORS: u16 = 49;
    /// `/v1/allocations`, and a node's allocation.
    pub const ALLOCATIONS: u16 = 52;
    /// `/v1/deploy_templates`.
    pub const DEPLOY_TEMPLATES: u16 = 55;
    /// `/v1/nodes/{}/management/indicators`.
    pub const INDICATORS: u16 = 63;
    /// `network_type` of a port's `local_link_connection`.
    pub const NETWORK_TYPE: u16 = 64;
    /// `deploy_steps` of a request.
    pub const DEPLOY_STEPS: u16 = 69;
    /// `disable_ramdisk` with `clean`.
    pub const DISABLE_RAMDISK: u16 = 70;
    /// `boot_mode` and `secure_boot` among a node's states.
    pub const BOOT_MODE: u16 = 75;
    /// `PUT /v1/nodes/{}/states/boot_mode` and `…/secure_boot`.
    pub const SET_BOOT_MODE: u16 = 76;
    /// `/v1/nodes/{}/history`.
    pub const HISTORY: u16 = 78;
    /// `/v1/nodes/{}/inventory`.
    pub const INVENTORY: u16 = 81;
    /// `/v1/shards`.
    pub const SHARDS: u16 = 82;
    /// `/v1/nodes/{}/children` and the filter `include_children`.
    pub const CHILDREN: u16 = 83;
    /// `/v1/nodes/{}/firmware`.
    pub const FIRMWARE: u16 = 86;
    /// `/v1/nodes/{}/vmedia`.
    pub const VMEDIA: u16 = 89;
    /// `vtep-…-switch` of a port's `local_link_connection`.
    pub const VTEP: u16 = 90;
    /// `/v1/runbooks`.
    pub const RUNBOOKS: u16 = 92;
    /// `node_ident` of a new port.
    pub const NODE_IDENT: u16 = 94;
    /// `/v1/inspection_rules`.
    pub const INSPECTION_RULES: u16 = 96;
}

/// A supported microversion 1.N.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u16);

impl Version {
    /// The version of a request without one.
    pub const MIN: Self = Self(1);
    /// The highest version; Metal3's operator requests it first.
    pub const MAX: Self = Self(110);

    /// 1.`minor`, if it is supported.
    #[must_use]
    pub fn new(minor: u16) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0).contains(&minor).then_some(Self(minor))
    }

    /// Whether this version includes the changes of 1.`minor`.
    #[must_use]
    pub fn has(self, minor: u16) -> bool {
        self.0 >= minor
    }

    /// Parses the two headers of a request; Ironic's own one takes precedence.
    ///
    /// # Errors
    /// [`BadVersion`]: 406, as in Ironic.
    pub fn negotiate(own: Option<&str>, openstack: Option<&str>) -> Result<Self, BadVersion> {
        match own.or_else(|| openstack.and_then(baremetal)) {
            Some(text) => Self::parse(text.trim()),
            None => Ok(Self::MIN),
        }
    }

    fn parse(text: &str) -> Result<Self, BadVersion> {
        if text.eq_ignore_ascii_case("latest") {
            return Ok(Self::MAX);
        }
        let (major, minor) = text.split_once('.').ok_or(BadVersion::Unreadable)?;
        let number = |digits: &str| digits.parse::<u32>().map_err(|_| BadVersion::Unreadable);
        let (major, minor) = (number(major)?, number(minor)?);
        if major != 1 {
            return Err(BadVersion::Major { major, minor });
        }
        u16::try_from(minor).ok().and_then(Self::new).ok_or(BadVersion::Minor { minor })
    }
}

/// The part of `OpenStack-API-Version` for this service; it may list several services.
fn baremetal(header: &str) -> Option<&str> {
    header.split(',').find_map(|entry| entry.trim().strip_prefix("baremetal "))
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

/// An unsupported version: 406.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadVersion {
    /// The header is not `1.N`.
    #[error("Invalid value for {HEADER} header")]
    Unreadable,
    /// The major version is not 1.
    #[error(
        "Mutually exclusive versions requested. Version {major}.{minor} requested but not \
         supported by this service. The supported version range is: [{min}, {max}].",
        min = Version::MIN, max = Version::MAX
    )]
    Major {
        /// The major version.
        major: u32,
        /// The minor version.
        minor: u32,
    },
    /// The minor version is out of range. Clients read the range from the headers and retry.
    #[error(
        "Version 1.{minor} was requested but the minor version is not supported by this service. \
         The supported version range is: [{min}, {max}].",
        min = Version::MIN, max = Version::MAX
    )]
    Minor {
        /// The minor version.
        minor: u32,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_without_a_version_gets_the_oldest() {
        assert_eq!(Version::negotiate(None, None), Ok(Version::MIN));
        assert_eq!(Version::negotiate(None, Some("compute 2.90")), Ok(Version::MIN));
    }

    #[test]
    fn ironics_own_header_wins_over_the_shared_one() {
        let version = Version::negotiate(Some("1.72"), Some("baremetal 1.50"));
        assert_eq!(version, Ok(Version(72)));

        let version = Version::negotiate(None, Some("compute 2.1, baremetal 1.50"));
        assert_eq!(version, Ok(Version(50)));
    }

    #[test]
    fn latest_is_the_highest() {
        assert_eq!(Version::negotiate(Some("latest"), None), Ok(Version::MAX));
    }

    #[test]
    fn a_version_out_of_range_is_refused_with_the_range() {
        let refused = Version::negotiate(Some("1.200"), None).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "Version 1.200 was requested but the minor version is not supported by this service. \
             The supported version range is: [1.1, 1.110]."
        );
        let unreadable = Version::negotiate(Some("abc"), None).unwrap_err();
        assert_eq!(
            unreadable.to_string(),
            "Invalid value for X-OpenStack-Ironic-API-Version header"
        );
    }

    proptest! {
        #[test]
        fn every_version_reads_as_what_it_prints(minor in 1_u16..=110) {
            let version = Version::new(minor).unwrap();
            prop_assert_eq!(Version::negotiate(Some(&version.to_string()), None), Ok(version));
        }

        #[test]
        fn no_header_panics(own in any::<Option<String>>(), openstack in any::<Option<String>>()) {
            let _ = Version::negotiate(own.as_deref(), openstack.as_deref());
        }
    }
}
