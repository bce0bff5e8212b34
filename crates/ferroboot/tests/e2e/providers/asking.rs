//! Clients of all kinds on one network card of a machine, hand-made.

use std::cell::Cell;
use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dhcp::v4::options::{ARCHITECTURE, BOOT_FILE, PARAMETER_LIST, USER_CLASS, VENDOR_CLASS};
use dhcp::v4::packet::{Hardware, MessageType, Op, Packet};
use hardware::Mac;
use socket2::{Domain, Protocol, Socket, Type};

/// The card's MAC address.
pub(crate) const MAC: &str = "52:54:00:fb:02:01";
const CHADDR: Mac = Mac([0x52, 0x54, 0, 0xfb, 2, 1]);

/// Option 175, as sent by iPXE.
const IPXE_FEATURES: (u8, &[u8]) = (175, &[0xb1, 2, 1, 0]);

/// Number of times that a request is sent.
const DISCOVERS: u32 = 4;
/// The longest wait for an offer, with all repetitions.
const OFFER: Duration = Duration::from_secs(5);

/// The boot answer in an offer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Offered {
    /// The last part of the URL.
    pub(crate) file: Option<String>,
    pub(crate) vendor_class: Option<String>,
}

/// Sends requests of each kind of client.
pub(crate) struct Asker {
    socket: UdpSocket,
    /// Of the last request.
    xid: Cell<u32>,
}

impl Asker {
    /// Adds the card to the lab's bridge.
    pub(crate) fn plug_in() -> Result<Self> {
        for line in [
            format!("link add asker address {MAC} type veth peer name to-asker"),
            "link set to-asker master lab0 up".to_owned(),
            "link set asker up".to_owned(),
        ] {
            let status = Command::new("ip").args(line.split(' ')).status().context("ip")?;
            ensure!(status.success(), "ip {line}: {status}");
        }
        // Client and server share a namespace, so each receives packets from a local address.
        fs::write("/proc/sys/net/ipv4/conf/all/accept_local", "1")?;
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        socket.set_broadcast(true)?;
        socket.set_read_timeout(Some(OFFER / DISCOVERS))?;
        socket.bind_device(Some(b"asker"))?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 68)).into())?;
        Ok(Self { socket: socket.into(), xid: Cell::new(0) })
    }

    pub(crate) fn firmware(&self, class: &str, architecture: u16) -> Result<Offered> {
        let class = format!("{class}:Arch:{architecture:05}:UNDI:003000");
        self.offered(vec![
            (ARCHITECTURE, architecture.to_be_bytes().into()),
            (VENDOR_CLASS, class.into()),
        ])
    }

    pub(crate) fn ipxe(&self) -> Result<Offered> {
        self.offered(vec![
            (ARCHITECTURE, vec![0, 7]),
            (VENDOR_CLASS, b"PXEClient:Arch:00007:UNDI:003010".into()),
            (USER_CLASS, b"iPXE".into()),
            (IPXE_FEATURES.0, IPXE_FEATURES.1.into()),
        ])
    }

    pub(crate) fn running_system(&self) -> Result<Offered> {
        self.offered(Vec::new())
    }

    fn offered(&self, options: Vec<(u8, Vec<u8>)>) -> Result<Offered> {
        // A late offer to an earlier request is then not taken for one to this.
        self.xid.set(self.xid.get() + 1);
        // EDK2 requests these among others, so all clients here do.
        let wanted = (PARAMETER_LIST, vec![1, 3, 6, VENDOR_CLASS, BOOT_FILE]);
        let discover = Packet {
            op: Op::Request,
            hardware: Hardware::ETHERNET,
            hops: 0,
            xid: self.xid.get(),
            secs: 0,
            broadcast: true,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: Ipv4Addr::UNSPECIFIED,
            chaddr: CHADDR,
            file: Vec::new(),
            message: MessageType::Discover,
            options: [vec![wanted], options].concat(),
        };
        // RFC 2131 §4.1: a client repeats its request, since packets get lost.
        let offer = (0..DISCOVERS).find_map(|_| self.offer_to(&discover).transpose());
        let offer = offer.context("no offer")??;
        let text = |code| {
            let bytes = offer.option(code)?;
            Some(String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned())
        };
        let file = text(BOOT_FILE).and_then(|url| url.rsplit('/').next().map(str::to_owned));
        Ok(Offered { file, vendor_class: text(VENDOR_CLASS) })
    }

    /// Sends a DISCOVER; `None` if no offer comes in time.
    fn offer_to(&self, discover: &Packet) -> Result<Option<Packet>> {
        self.socket.send_to(&discover.emit(), (Ipv4Addr::BROADCAST, 67))?;
        let mut packet = [0; 1500];
        loop {
            let len = match self.socket.recv(&mut packet) {
                Ok(len) => len,
                Err(late) if late.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(failed) => return Err(failed.into()),
            };
            // The machine's own cards are also on the bridge.
            match Packet::parse(&packet[..len]) {
                Ok(offer) if offer.chaddr == CHADDR && offer.xid == discover.xid => {
                    return Ok(Some(offer));
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
}
