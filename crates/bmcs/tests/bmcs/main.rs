//! Links to BMCs over real sockets: the emulator with faults, hostile servers, and servers with old TLS.

#![expect(clippy::unwrap_used, reason = "in a test, what cannot be unwrapped has failed")]

mod exchanges;
mod logins;
mod test_bmc;
mod tls;
