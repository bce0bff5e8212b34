//! Raw frames to clients that the kernel cannot reach, since they have no address yet.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use dhcp::v4::frame::{FrameEnd, frame};
use hardware::Mac;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};

use super::interface::entries_of;

/// Sends frames on one interface.
#[derive(Debug)]
pub(super) struct Frames {
    socket: OwnedFd,
    /// Tells the kernel the interface.
    link: LinkAddr,
    from: FrameEnd,
}

impl Frames {
    /// Opens the socket, which requires root or `CAP_NET_RAW`; `address` is the service's on the interface.
    pub(super) fn open(interface: &str, address: Ipv4Addr) -> Result<Self> {
        let links = entries_of(interface)?;
        let link = links.iter().find_map(|entry| entry.address?.as_link_addr().copied());
        let link = link.with_context(|| format!("{interface} has no MAC address"))?;
        let mac =
            link.addr().map(Mac).with_context(|| format!("{interface} has no MAC address"))?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // With protocol 0 the socket receives nothing.
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        Ok(Self { socket, link, from: FrameEnd { mac, address } })
    }

    /// Sends a server's message to a client.
    pub(super) fn send(&self, mac: Mac, address: Ipv4Addr, message: &[u8]) -> io::Result<()> {
        let Some(frame) = frame(self.from, FrameEnd { mac, address }, message) else {
            return Err(io::Error::other("the answer does not fit into a frame"));
        };
        sendto(self.socket.as_raw_fd(), &frame, &self.link, MsgFlags::empty())?;
        Ok(())
    }
}
