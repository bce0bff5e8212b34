//! The other DHCP servers and the routers of a network: whether machines boot beside them.

pub mod dhcp_servers;
pub mod routers;
