//! The DHCPv4 option codes in use (RFC 2132 and the RFCs named), and their fixed sizes.

/// Subnet mask.
pub const SUBNET_MASK: u8 = 1;
/// Routers.
pub const ROUTER: u8 = 3;
/// Domain name servers.
pub const DNS: u8 = 6;
/// Host name.
pub const HOST_NAME: u8 = 12;
/// Domain name.
pub const DOMAIN: u8 = 15;
/// Interface MTU.
pub const MTU: u8 = 26;
/// NTP servers.
pub const NTP: u8 = 42;
/// Vendor-specific information.
pub const VENDOR_INFORMATION: u8 = 43;
/// Requested IP address.
pub const REQUESTED_ADDRESS: u8 = 50;
/// Lease time, in seconds.
pub const LEASE_TIME: u8 = 51;
/// Option overload.
pub const OVERLOAD: u8 = 52;
/// DHCP message type.
pub const MESSAGE_TYPE: u8 = 53;
/// Server identifier.
pub const SERVER_ID: u8 = 54;
/// Parameter request list.
pub const PARAMETER_LIST: u8 = 55;
/// Message.
pub const MESSAGE: u8 = 56;
/// Maximum message size.
pub const MAX_SIZE: u8 = 57;
/// Renewal time T1, in seconds.
pub const RENEWAL: u8 = 58;
/// Rebinding time T2, in seconds.
pub const REBINDING: u8 = 59;
/// Vendor class identifier.
pub const VENDOR_CLASS: u8 = 60;
/// Client identifier.
pub const CLIENT_ID: u8 = 61;
/// TFTP server name.
pub const TFTP_SERVER: u8 = 66;
/// Boot file name.
pub const BOOT_FILE: u8 = 67;
/// User class (RFC 3004).
pub const USER_CLASS: u8 = 77;
/// Relay agent information (RFC 3046).
pub const RELAY_AGENT: u8 = 82;
/// Client system architecture (RFC 4578 §2.1).
pub const ARCHITECTURE: u8 = 93;
/// Client network interface (RFC 4578 §2.2).
pub const INTERFACE: u8 = 94;
/// Client machine identifier (RFC 4578 §2.3).
pub const MACHINE_ID: u8 = 97;
/// Subnet selection (RFC 3011).
pub const SUBNET_SELECTION: u8 = 118;
/// Classless static routes (RFC 3442).
pub const CLASSLESS_ROUTES: u8 = 121;
/// iPXE's own, encapsulated.
pub const IPXE: u8 = 175;

/// Padding; has no length byte.
pub const PAD: u8 = 0;
/// End of options; has no length byte.
pub const END: u8 = 255;

/// The size of an option's value in bytes, if it is fixed (RFC 2132, RFC 4578).
#[must_use]
pub fn fixed_size(code: u8) -> Option<usize> {
    match code {
        OVERLOAD | MESSAGE_TYPE => Some(1),
        MAX_SIZE | MTU => Some(2),
        INTERFACE => Some(3),
        SUBNET_MASK | REQUESTED_ADDRESS | LEASE_TIME | SERVER_ID | RENEWAL | REBINDING
        | SUBNET_SELECTION => Some(4),
        MACHINE_ID => Some(17),
        _ => None,
    }
}

/// A message type (option 53) that no client sends to a server or receives from it: its name, and why it is not
/// answered.
#[must_use]
pub fn message_of_others(message: u8) -> Option<(&'static str, &'static str)> {
    let query =
        "which queries the leases of others, and is not answered (RFC 4388, RFC 6926, RFC 7724)";
    let answer =
        "which answers a lease query, and is for its sender (RFC 4388, RFC 6926, RFC 7724)";
    Some(match message {
        9 => ("DHCPFORCERENEW", "which a server sends, and is not answered (RFC 3203)"),
        10 => ("DHCPLEASEQUERY", query),
        11 => ("DHCPLEASEUNASSIGNED", answer),
        12 => ("DHCPLEASEUNKNOWN", answer),
        13 => ("DHCPLEASEACTIVE", answer),
        14 => ("DHCPBULKLEASEQUERY", query),
        15 => ("DHCPLEASEQUERYDONE", answer),
        16 => ("DHCPACTIVELEASEQUERY", query),
        17 => ("DHCPLEASEQUERYSTATUS", answer),
        18 => ("DHCPTLS", "which begins a lease query over TCP, and is not answered (RFC 7724)"),
        _ => return None,
    })
}

/// The sub-options of an encapsulating option, up to the first truncated one.
pub fn sub_options(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_at_checked(2)?;
        let (value, after) = rest.split_at_checked(usize::from(head[1]))?;
        bytes = after;
        Some((head[0], value))
    })
}
