//! The peers of a port, of which only the addresses are known before a request.

use std::fmt::Debug;
use std::net::IpAddr;

use super::HandshakeFailure;

/// What is known of a port's peers by their addresses, and what becomes of their failed handshakes.
pub trait PortPeers: Debug + Send + Sync {
    /// Whether a machine is expected at this address. Its connections then come before those of others.
    fn expects(&self, remote: IpAddr) -> bool;

    /// A TLS handshake of this address failed, or came to a port for plain HTTP.
    fn handshake_failed(&self, remote: IpAddr, failure: &HandshakeFailure);
}
