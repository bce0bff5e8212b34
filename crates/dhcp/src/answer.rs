//! What a client is told to boot. The caller decides that: this crate knows no machines.

use std::net::Ipv4Addr;

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An address, and this URL to boot from.
    Boot(String),
    /// An address, and a file to fetch over TFTP. IPv4 only: with IPv6, PXE firmware takes a URL.
    Tftp {
        /// The TFTP server's address.
        server: Ipv4Addr,
        /// The file's name on the server.
        file: String,
    },
    /// An address alone.
    Address,
    /// Nothing: it must go on to its next boot option.
    Nothing,
}
