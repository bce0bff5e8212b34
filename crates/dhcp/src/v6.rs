//! DHCPv6 (RFC 8415), and router advertisements (RFC 4861), whose flags make clients use DHCPv6.

pub mod advertisement;
pub mod client_identity;
pub mod decide;
pub mod lease_client;
pub mod leases;
mod names;
pub mod options;
pub mod packet;
pub mod ports;
pub mod reply;
#[cfg(test)]
mod week;

pub use packet::{Message, MessageType, Packet, ParseError};
