//! The boot answer for a client. The caller decides it: this crate has no notion of nodes.

use std::net::Ipv4Addr;

/// The boot answer for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An address, and this URL to boot from.
    Boot(String),
    /// An address, and a file to fetch over TFTP. IPv4 only: over IPv6, PXE firmware takes a URL.
    Tftp {
        /// The TFTP server's address.
        server: Ipv4Addr,
        /// The file's name on the server.
        file: String,
    },
    /// An address alone.
    Address,
    /// No answer: the client must go on to its next boot option.
    Nothing,
}
