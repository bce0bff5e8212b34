//! The answers to a booting machine: its DHCP answer, its URL, its permission to fetch, and the scripts for boot
//! loaders.
//!
//! Everything here is a function of its arguments. Settings, nodes, leases and the time arrive as values.
//!
//! # From a DHCP packet to a URL
//!
//! [`respond::respond`] is the only path. It has four steps. Each step that fails returns the reason.
//!
//! | step | function | DHCPv4, DHCPv6 and ProxyDHCP | result |
//! | --- | --- | --- | --- |
//! | 1. Check the destination | [`Responder::check_destination`] | one each | the client's message, and its subnet |
//! | 2. Identify the client | [`Responder::identify_client`] | one each | the client, its port and its node |
//! | 3. Choose the boot | [`choose_boot`] | shared | a URL, a file over TFTP, or nothing with a reason |
//! | 4. Build the reply | [`Responder::build_reply`] | one each | the reply, and the lease records |
//!
//! The daemon, `ferroboot explain` and `ferroboot replay` all call `respond`. The responders are [`v4`], [`v6`] and
//! [`proxy`]; the outcome of a packet is a [`exchange::DhcpExchange`].
//!
//! # From a URL to a file
//!
//! [`ticket::admit`] decides whether a ticket opens a file, [`composition::compose`] what the file is made of, and
//! [`fetch_answer::FetchAnswer`] which part of the file a request gets ([`fetch_plan::plan`]), and with which headers.
//! [`image_reach::ImageReach`] decides from which servers the daemon fetches images of nodes.
//!
//! # Boot answers of external DHCP servers
//!
//! If dnsmasq, Kea or Neutron answers machines in place of the embedded server, [`providers`] decides what to
//! configure there, and when to repeat it.
//!
//! [`Responder::check_destination`]: respond::Responder::check_destination
//! [`Responder::identify_client`]: respond::Responder::identify_client
//! [`choose_boot`]: boot_answer::choose_boot
//! [`Responder::build_reply`]: respond::Responder::build_reply

pub mod boot_answer;
pub mod boot_set;
pub mod composition;
pub mod dhcp_decision;
pub mod dhcp_request;
pub mod dry_run;
pub mod exchange;
pub mod fetch_answer;
pub mod fetch_plan;
pub mod foreign_pools;
pub mod image_limits;
pub mod image_reach;
pub mod interface_addresses;
pub mod listen_addresses;
pub mod network_check;
pub mod network_plan;
pub mod network_settings;
pub mod node_view;
pub mod providers;
pub mod proxy;
pub mod repeated_exchanges;
pub mod respond;
pub mod router_advertisements;
pub mod scripts;
pub mod secure_boot;
pub mod shim_signers;
pub mod strangers;
#[cfg(test)]
mod test_view;
pub mod tftp_limits;
pub mod ticket;
pub mod urls;
pub mod v4;
pub mod v6;
