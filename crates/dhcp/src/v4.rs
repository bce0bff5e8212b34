//! DHCPv4 (RFC 2131, RFC 2132).

pub mod decide;
pub mod destination;
pub mod frame;
pub mod lease_client;
pub mod leases;
pub mod options;
pub mod packet;
pub mod proxy;
pub mod relay;
pub mod reply;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod week;

pub use packet::{MessageType, Packet, ParseError};
