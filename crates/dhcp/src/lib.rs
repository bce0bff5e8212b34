//! DHCP as a library: wire, the server's decisions, the client.
//!
//! Everything here is a function of its arguments: no sockets, no clock. Nodes are unknown here; the boot answer for
//! a client arrives as an [`Answer`].

pub mod address_family;
pub mod answer;
pub mod client;
pub mod firmware;
#[cfg(test)]
mod forgery;
pub mod journal;
pub mod leases;
pub mod limits;
pub mod v4;
pub mod v6;

pub use answer::Answer;
pub use client::Client;
