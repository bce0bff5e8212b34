//! What is to be told to a client, decided by whoever knows the machine.

use std::net::Ipv4Addr;

/// What is to be told to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An address, and this URL to boot from.
    Boot(String),
    /// An address, and a file to fetch over TFTP. IPv4 only: with IPv6, PXE firmware takes a URL.
    Tftp {
        /// Whose file it is.
        server: Ipv4Addr,
        /// Its name there.
        file: String,
    },
    /// An address alone.
    Address,
    /// Nothing: it must go on to its next boot option.
    Nothing,
}
