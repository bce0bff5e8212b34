//! This service's certificates in the firmware of a node's machine, by settings in `driver_info`.

use crate::node::Node;

/// The key of `driver_info` for the CA by which firmware trusts the boot listener.
pub const BOOT_CA: &str = "redfish_boot_ca";
/// The key of `driver_info` for the certificate that signs images, in `db` of Secure Boot.
pub const SECURE_BOOT_CERTIFICATE: &str = "redfish_secure_boot_certificate";

/// The values of both.
pub const ENROLMENTS: [&str; 3] = ["enrol", "leave", "remove"];

/// What is done with a certificate of this service in the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enrolment {
    /// It is enrolled before a boot that needs it, and stays.
    Enrol,
    /// It is the operator's matter.
    Leave,
    /// It is enrolled before a boot that needs it, and removed after it.
    Remove,
}

impl Enrolment {
    /// That of the CA. A value that is none of [`ENROLMENTS`] changes nothing at the BMC.
    #[must_use]
    pub fn of_boot_ca(node: &Node) -> Self {
        Self::of(node, BOOT_CA).unwrap_or(Self::Enrol)
    }

    /// That of the certificate that signs images. It is left alone unless the node says otherwise: whoever has its key may
    /// start anything on the machine.
    #[must_use]
    pub fn of_sign_certificate(node: &Node) -> Self {
        Self::of(node, SECURE_BOOT_CERTIFICATE).unwrap_or(Self::Leave)
    }

    fn of(node: &Node, key: &str) -> Option<Self> {
        match node.driver_info.get(key)?.as_str().unwrap_or_default() {
            "enrol" => Some(Self::Enrol),
            "remove" => Some(Self::Remove),
            _ => Some(Self::Leave),
        }
    }
}
