//! DHCP as a library: wire, the server's decisions, the client.
