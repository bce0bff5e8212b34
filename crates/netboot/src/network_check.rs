//! Checks of a network: this host's interface, name servers and URL; other DHCP servers, routers and hosts; whether
//! machines boot there.

pub mod boot_url;
pub mod dhcp_servers;
pub mod name_servers;
pub mod neighbours;
pub mod own_interface;
pub mod port_holders;
pub mod probe_messages;
pub mod routers;
