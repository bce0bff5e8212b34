//! The interfaces of the hardware type: their kinds, and the permitted values.

/// The microversion that shows a driver's interfaces.
pub(crate) const INTERFACES_SINCE: u16 = 30;

/// A kind of interface.
#[derive(Clone, Copy, Debug)]
pub struct HardwareInterface {
    /// `boot`, `deploy`, ….
    pub kind: &'static str,
    /// The microversion that introduced it is 1.`since`.
    pub since: u16,
    /// The enabled interfaces, the default first.
    pub enabled: &'static [&'static str],
}

/// All kinds of interfaces. `no-…` is Ironic's name for none; `custom-agent` is the deploy interface that runs an
/// agent's steps and deploys nothing by itself.
///
/// Some are only stored and shown, since clients such as Metal3 set them when they enroll a node.
pub const INTERFACES: [HardwareInterface; 13] = [
    only("bios", 40, &["no-bios", "redfish"]),
    only(
        "boot",
        INTERFACES_SINCE,
        &["redfish-https", "http", "http-ipxe", "redfish-virtual-media"],
    ),
    only("console", INTERFACES_SINCE, &["no-console"]),
    only("deploy", INTERFACES_SINCE, &["custom-agent", "direct", "ramdisk"]),
    only("firmware", 86, &["no-firmware", "redfish"]),
    only("inspect", INTERFACES_SINCE, &["no-inspect", "agent", "redfish"]),
    only("management", INTERFACES_SINCE, &["redfish"]),
    only("network", INTERFACES_SINCE, &["noop"]),
    only("power", INTERFACES_SINCE, &["redfish"]),
    only("raid", INTERFACES_SINCE, &["no-raid", "agent", "redfish"]),
    only("rescue", 38, &["no-rescue", "agent"]),
    only("storage", 33, &["noop"]),
    only("vendor", INTERFACES_SINCE, &["no-vendor", "redfish"]),
];

const fn only(
    kind: &'static str,
    since: u16,
    enabled: &'static [&'static str],
) -> HardwareInterface {
    HardwareInterface { kind, since, enabled }
}

/// The default interface of a kind.
#[must_use]
pub fn default(kind: &str) -> Option<&'static str> {
    enabled(kind).first().copied()
}

/// The interfaces of a kind, the default first.
#[must_use]
pub fn enabled(kind: &str) -> &'static [&'static str] {
    INTERFACES.iter().find(|interface| interface.kind == kind).map_or(&[], |i| i.enabled)
}
