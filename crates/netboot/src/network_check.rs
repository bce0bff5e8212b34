//! Checks of the other DHCP servers, routers and hosts of a network: whether machines boot beside them.

pub mod dhcp_servers;
pub mod neighbours;
pub mod routers;
