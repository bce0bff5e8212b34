//! DHCPv6 option codes, by their names in the RFCs, and message types that clients do not use.

/// Client identifier (RFC 8415 §21.2).
pub const CLIENT_ID: u16 = 1;
/// Server identifier (RFC 8415 §21.3).
pub const SERVER_ID: u16 = 2;
/// Identity association for non-temporary addresses (RFC 8415 §21.4).
pub const IA_NA: u16 = 3;
/// Identity association for temporary addresses (RFC 8415 §21.5).
pub const IA_TA: u16 = 4;
/// An address of an identity association (RFC 8415 §21.6).
pub const IA_ADDRESS: u16 = 5;
/// Option request (RFC 8415 §21.7).
pub const OPTION_REQUEST: u16 = 6;
/// Preference (RFC 8415 §21.8).
pub const PREFERENCE: u16 = 7;
/// Elapsed time (RFC 8415 §21.9).
pub const ELAPSED_TIME: u16 = 8;
/// Relay message (RFC 8415 §21.10).
pub const RELAY_MESSAGE: u16 = 9;
/// Status code (RFC 8415 §21.13).
pub const STATUS: u16 = 13;
/// Rapid commit (RFC 8415 §21.14).
pub const RAPID_COMMIT: u16 = 14;
/// User class (RFC 8415 §21.15).
pub const USER_CLASS: u16 = 15;
/// Vendor class (RFC 8415 §21.16).
pub const VENDOR_CLASS: u16 = 16;
/// Interface-Id of a relay (RFC 8415 §21.18).
pub const INTERFACE_ID: u16 = 18;
/// Recursive name servers (RFC 3646 §3).
pub const DNS: u16 = 23;
/// DNS search domains (RFC 3646 §4).
pub const DOMAINS: u16 = 24;
/// Identity association for prefixes (RFC 8415 §21.21).
pub const IA_PD: u16 = 25;
/// SNTP servers (RFC 4075).
pub const SNTP: u16 = 31;
/// Information refresh time (RFC 8415 §21.23).
pub const REFRESH_TIME: u16 = 32;
/// NTP servers (RFC 5908).
pub const NTP: u16 = 56;
/// Boot file URL (RFC 5970 §3.1).
pub const BOOT_FILE_URL: u16 = 59;
/// Client system architecture (RFC 5970 §3.3).
pub const ARCHITECTURE: u16 = 61;
/// Client network interface (RFC 5970 §3.4).
pub const INTERFACE: u16 = 62;
/// Client link-layer address, added by a relay (RFC 6939 §4).
pub const CLIENT_LINK_LAYER: u16 = 79;
/// A relay's own UDP port, instead of the servers' (RFC 8357 §5.2).
pub const RELAY_PORT: u16 = 135;

/// A message type that no client sends to a server or receives from it: its name, and why it is not answered.
#[must_use]
pub fn message_of_others(message: u8) -> Option<(&'static str, &'static str)> {
    let query =
        "which queries the leases of others, and is not answered (RFC 5007, RFC 5460, RFC 7653)";
    let answer =
        "which answers a lease query, and is for its sender (RFC 5007, RFC 5460, RFC 7653)";
    Some(match message {
        14 => ("LEASEQUERY", query),
        15 => ("LEASEQUERY-REPLY", answer),
        16 => ("LEASEQUERY-DONE", answer),
        17 => ("LEASEQUERY-DATA", answer),
        18 => ("RECONFIGURE-REQUEST", "which a relay sends, and is not answered (RFC 6977)"),
        19 => ("RECONFIGURE-REPLY", "which a server sends to a relay (RFC 6977)"),
        20 => ("DHCPV4-QUERY", "which is DHCPv4 over IPv6, and is not answered (RFC 7341)"),
        21 => ("DHCPV4-RESPONSE", "which a server sends (RFC 7341)"),
        22 => ("ACTIVELEASEQUERY", query),
        23 => ("STARTTLS", "which begins a lease query over TCP, and is not answered (RFC 7653)"),
        _ => return None,
    })
}
