//! The IPv6 properties of an interface of this host.

use std::net::Ipv6Addr;

use anyhow::{Context as _, Result, bail};
use dhcp::leases::LeasePool;
use hardware::Mac;
use ipnet::Ipv6Net;
use netboot::interface_addresses::{Ipv6Address, choose, link_local, server_duid};
use nix::net::if_::if_nametoindex;

use super::addresses;
use super::interface::entries_of;

/// The IPv6 properties of an interface.
#[derive(Clone, Debug)]
pub(super) struct Ipv6Link {
    pub(super) name: String,
    pub(super) index: u32,
    /// An address that is not link-local, for URLs.
    pub(super) address: Ipv6Addr,
    pub(super) prefix_len: u8,
    pub(super) mac: Option<Mac>,
}

impl Ipv6Link {
    /// The service's address, with its network.
    pub(super) fn net(&self) -> Result<Ipv6Net> {
        Ok(Ipv6Net::new(self.address, self.prefix_len)?)
    }

    pub(super) fn find(interface: &str) -> Result<Self> {
        Self::of(interface, choose(&addresses::of(interface), None))
    }

    /// The link, with the address in the pool's network.
    pub(super) fn of_pool(interface: &str, pool: LeasePool<Ipv6Addr>) -> Result<Self> {
        let all = addresses::of(interface);
        let address = choose(&all, Some(pool));
        if address.is_none()
            && let Some(other) = choose(&all, None)
        {
            bail!(
                "cannot answer DHCPv6 on {interface}: no address of it, such as {}/{}, is in a network \
                 with the pool {}-{}; add such an address, or correct pool6",
                other.address,
                other.prefix_len,
                pool.first,
                pool.last
            );
        }
        Self::of(interface, address)
    }

    fn of(interface: &str, address: Option<Ipv6Address>) -> Result<Self> {
        let entries = entries_of(interface)?;
        let Ipv6Address { address, prefix_len, .. } = address.with_context(|| {
            format!(
                "cannot answer DHCPv6 on {interface}: it has no IPv6 address but a link-local one; \
                 give it one first"
            )
        })?;
        let mac = entries.iter().find_map(|entry| entry.address?.as_link_addr()?.addr()).map(Mac);
        Ok(Self {
            name: interface.to_owned(),
            index: if_nametoindex(interface).context("cannot number the interface")?,
            address,
            prefix_len,
            mac,
        })
    }

    /// Its link-local address, once it is usable.
    pub(super) fn local(&self) -> Option<Ipv6Addr> {
        link_local(&addresses::of(&self.name))
    }

    /// The service's DUID on the link.
    pub(super) fn duid(&self) -> Vec<u8> {
        server_duid(&self.name, self.mac)
    }
}
