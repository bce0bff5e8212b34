//! The kernel's network configuration by rtnetlink: reading, watching and changing it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use hardware::Mac;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo,
};
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::{Handle, LinkUnspec, LinkVlan, MulticastGroup, RouteMessageBuilder};
use tokio::sync::watch;
use tracing::warn;

use super::links::{LinkKind, NetworkLink};

/// A connection to the kernel; clones share it.
#[derive(Debug, Clone)]
pub struct KernelNetwork(Handle);

/// A snapshot of the kernel's network configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSnapshot {
    /// Network cards and VLANs.
    pub links: Vec<NetworkLink>,
    /// Addresses of all links.
    pub addresses: Vec<Address>,
}

/// An address on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The link's number.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// The prefix length.
    pub prefix: u8,
    /// Whether it may be used.
    pub state: AddressState,
}

/// The result of duplicate address detection (RFC 4862 §5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressState {
    /// Detection is not finished.
    Tentative,
    /// Another host has the address.
    Duplicate,
    /// The address is usable.
    Usable,
}

/// The lifetime of an address, which the kernel removes at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Preferred lifetime in seconds; all ones mean no end.
    pub preferred_secs: u32,
    /// Valid lifetime in seconds; all ones mean no end.
    pub valid_secs: u32,
}

impl From<Lifetime> for CacheInfo {
    fn from(Lifetime { preferred_secs, valid_secs }: Lifetime) -> Self {
        let mut info = Self::default();
        // The kernel refuses a preferred lifetime longer than the valid one, or a lifetime of zero.
        info.ifa_preferred = preferred_secs.min(valid_secs);
        info.ifa_valid = valid_secs.max(1);
        info
    }
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelRoute {
    /// The destination network.
    pub to: Ipv4Addr,
    /// The prefix length.
    pub prefix: u8,
    /// The router; `None` if the network is on the link.
    pub router: Option<Ipv4Addr>,
}

impl NetworkSnapshot {
    /// The usable addresses of a link that other networks can reach.
    pub fn reachable(&self, index: u32) -> impl Iterator<Item = IpAddr> {
        self.usable(index).filter(|address| !is_link_local(*address))
    }

    /// Whether a link has a link-local address, which IPv6 requires.
    pub fn has_link_local(&self, index: u32) -> bool {
        self.usable(index).any(is_link_local)
    }

    fn usable(&self, index: u32) -> impl Iterator<Item = IpAddr> {
        let of_link = self.addresses.iter().filter(move |it| it.index == index);
        of_link.filter(|it| it.state == AddressState::Usable).map(|it| it.address)
    }

    /// The state of an address on a link.
    pub fn state(&self, index: u32, address: IpAddr) -> Option<AddressState> {
        let mut all = self.addresses.iter();
        all.find(|it| it.index == index && it.address == address).map(|it| it.state)
    }
}

impl KernelNetwork {
    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// The kernel has no rtnetlink.
    pub fn open() -> Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection().context("opening rtnetlink")?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// The current configuration, and each change of it.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub async fn watch(&self) -> Result<watch::Receiver<NetworkSnapshot>> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, _, mut changes) =
            rtnetlink::new_multicast_connection(&groups).context("listening to rtnetlink")?;
        tokio::spawn(connection);
        let (tell, told) = watch::channel(self.present().await?);
        let kernel = self.clone();
        tokio::spawn(async move {
            // Any change causes a complete read: messages may be lost when many arrive at once.
            while changes.next().await.is_some() {
                match kernel.present().await {
                    Ok(present) => tell.send_if_modified(|last| replace(last, present)),
                    Err(error) => {
                        warn!("the kernel does not say what changed: {error:#}");
                        continue;
                    }
                };
            }
        });
        Ok(told)
    }

    /// The current configuration.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub async fn present(&self) -> Result<NetworkSnapshot> {
        let links = self.0.link().get().execute().try_collect::<Vec<_>>();
        let mut links: Vec<_> =
            links.await.context("reading links")?.iter().filter_map(link).collect();
        links.sort_by_key(|link| link.index);
        let addresses = self.0.address().get().execute().try_collect::<Vec<_>>();
        let addresses =
            addresses.await.context("reading addresses")?.iter().filter_map(address).collect();
        Ok(NetworkSnapshot { links, addresses })
    }

    /// Brings a link up.
    ///
    /// # Errors
    ///
    /// Some drivers refuse until their firmware runs.
    pub async fn set_up(&self, index: u32) -> Result<()> {
        let up = LinkUnspec::new_with_index(index).up().build();
        Ok(self.0.link().set(up).execute().await?)
    }

    /// Sets a link's MTU.
    ///
    /// # Errors
    ///
    /// Its driver refuses the value.
    pub async fn set_mtu(&self, index: u32, mtu: u16) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu.into()).build();
        Ok(self.0.link().set(message).execute().await?)
    }

    /// Creates a VLAN link (IEEE 802.1Q) on another link.
    ///
    /// # Errors
    ///
    /// The name is taken, or the kernel has no VLAN driver.
    pub async fn add_vlan(&self, name: &str, on: u32, id: u16) -> Result<()> {
        let message = LinkVlan::new(name, on, id).up().build();
        Ok(self.0.link().add(message).execute().await?)
    }

    /// Adds an address to a link; the link may have it already.
    ///
    /// # Errors
    ///
    /// The link is gone.
    pub async fn add_address(
        &self,
        index: u32,
        address: IpAddr,
        prefix: u8,
        lifetime: Lifetime,
    ) -> Result<()> {
        let mut request = self.0.address().add(index, address, prefix).replace();
        request.message_mut().attributes.push(AddressAttribute::CacheInfo(lifetime.into()));
        Ok(request.execute().await?)
    }

    /// Removes an address from a link.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn remove_address(&self, index: u32, gone: IpAddr) -> Result<()> {
        let all = self.0.address().get().set_link_index_filter(index).execute();
        let all: Vec<_> = all.try_collect().await?;
        for message in all {
            if address(&message).is_some_and(|it| it.index == index && it.address == gone) {
                self.0.address().del(message).execute().await?;
            }
        }
        Ok(())
    }

    /// Adds a route, or replaces this link's route.
    ///
    /// # Errors
    ///
    /// The link is gone.
    pub async fn add_route(&self, index: u32, route: KernelRoute) -> Result<()> {
        let message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(route.to, route.prefix)
            .output_interface(index)
            // Two links may each have a default route: only a route of the same priority is replaced.
            .priority(index);
        let message = match route.router {
            Some(router) => message.gateway(router).onlink(),
            None => message,
        };
        Ok(self.0.route().add(message.build()).replace().execute().await?)
    }

    /// Removes all addresses from a link, and with them its routes.
    pub async fn forget(&self, link: &NetworkLink) {
        set_ipv6(&link.name, "disable_ipv6", "1");
        let present = self.present().await.unwrap_or_default();
        for address in present.addresses.iter().filter(|address| address.index == link.index) {
            if let Err(error) = self.remove_address(link.index, address.address).await {
                warn!("{} keeps {}: {error:#}", link.name, address.address);
            }
        }
    }
}

/// Changes an IPv6 setting of a link (Documentation/networking/ip-sysctl.rst). A kernel without IPv6 has no such
/// settings.
pub fn set_ipv6(link: &str, setting: &str, value: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{link}/{setting}");
    if let Err(error) = fs::write(&path, value) {
        warn!("{path} cannot be set to {value}: {error}");
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn replace<T: PartialEq>(last: &mut T, new: T) -> bool {
    let differs = *last != new;
    *last = new;
    differs
}

/// Network cards and VLANs; bridges, tunnels and the loopback are left out.
fn link(message: &LinkMessage) -> Option<NetworkLink> {
    if message.header.link_layer_type != LinkLayerType::Ether {
        return None;
    }
    let (mut name, mut mac, mut parent, mut kind) = (None, None, None, None);
    for attribute in &message.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "of some hundred, four are of use")]
        match attribute {
            LinkAttribute::IfName(it) => name = Some(it.clone()),
            LinkAttribute::Address(it) => mac = it.as_slice().try_into().ok().map(Mac),
            LinkAttribute::Link(it) => parent = Some(*it),
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.clone()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(NetworkLink {
        name: name?,
        index: message.header.index,
        mac: mac?,
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        kind: self::kind(kind.as_ref(), parent)?,
    })
}

/// A card's link has no kind, except in a container, where it is one end of a `veth`.
fn kind(kind: Option<&InfoKind>, parent: Option<u32>) -> Option<LinkKind> {
    match kind {
        None | Some(InfoKind::Veth) => Some(LinkKind::Card),
        Some(InfoKind::Vlan) => Some(LinkKind::Vlan { on: parent? }),
        Some(_) => None,
    }
}

fn address(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut given, mut wide) = (None, None, AddressFlags::empty());
    for attribute in &message.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the others are of no use")]
        match attribute {
            // On a point-to-point link, `Address` is the other end's.
            AddressAttribute::Local(it) => local = Some(*it),
            AddressAttribute::Address(it) => given = Some(*it),
            AddressAttribute::Flags(it) => wide = *it,
            _ => {}
        }
    }
    let flags = message.header.flags;
    let has = |narrow, wider| flags.contains(narrow) || wide.contains(wider);
    let state = if has(AddressHeaderFlags::Dadfailed, AddressFlags::Dadfailed) {
        AddressState::Duplicate
    } else if has(AddressHeaderFlags::Tentative, AddressFlags::Tentative) {
        AddressState::Tentative
    } else {
        AddressState::Usable
    };
    let (index, prefix) = (message.header.index, message.header.prefix_len);
    Some(Address { index, address: local.or(given)?, prefix, state })
}

/// The MAC addresses of the machine's network cards; empty if the kernel does not answer.
pub async fn addresses_of_cards() -> Vec<Mac> {
    let present = async { KernelNetwork::open()?.present().await };
    let links = present.await.map(|present| present.links).unwrap_or_default();
    links.into_iter().filter(|link| link.kind == LinkKind::Card).map(|link| link.mac).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_ends_with_its_lease_and_is_never_preferred_for_longer() {
        let told = |preferred_secs, valid_secs| {
            let info = CacheInfo::from(Lifetime { preferred_secs, valid_secs });
            [info.ifa_preferred, info.ifa_valid]
        };

        assert_eq!(told(300, 600), [300, 600]);
        assert_eq!(told(900, 600), [600, 600]);
        assert_eq!(told(0, 0), [0, 1]);
        assert_eq!(told(u32::MAX, u32::MAX), [u32::MAX; 2], "for ever");
    }
}
