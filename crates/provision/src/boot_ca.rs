//! The service's CA in the firmware of a node's machine, by `redfish_boot_ca` in `driver_info`.

use crate::node::Node;

/// The key of `driver_info`.
pub const BOOT_CA: &str = "redfish_boot_ca";

/// Its values.
pub const BOOT_CA_VALUES: [&str; 3] = ["enrol", "leave", "remove"];

/// What is done with the service's CA in the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootCa {
    /// It is enrolled before a boot over https, and stays.
    Enrol,
    /// It is the operator's matter.
    Leave,
    /// It is enrolled before a boot over https, and removed after it.
    Remove,
}

impl BootCa {
    /// That of a node. A value that is none of [`BOOT_CA_VALUES`] changes nothing at the BMC.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        match node.driver_info.get(BOOT_CA).map(|value| value.as_str().unwrap_or_default()) {
            None | Some("enrol") => Self::Enrol,
            Some("remove") => Self::Remove,
            Some(_) => Self::Leave,
        }
    }
}
