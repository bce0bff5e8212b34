//! The network of a run: the daemon's interface, and the machines' end of the link, in a separate namespace.

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket as StdUdpSocket};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use rand::random;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::broadcast;
use tokio::time::{sleep, timeout};

use crate::report::SoakReport;

/// The daemon's end of the link.
pub(crate) const INTERFACE: &str = "soak0";
const FAR: &str = "soak1";
/// The daemon's address on it.
pub(crate) const ADDRESS: &str = "10.79.0.1";
pub(crate) const POOL: &str = "10.79.0.10-10.79.3.250";
pub(crate) const POOL6: &str = "fd79::10-fd79::ffff";
/// The relays through which machines fetch and call.
pub(crate) const BOOT_RELAY: &str = "127.0.0.1:18080";
pub(crate) const AGENT_RELAY: &str = "127.0.0.1:16386";

/// The machines' end of the link. Clones share it.
#[derive(Clone)]
pub(crate) struct FirmwareLink {
    four: Arc<UdpSocket>,
    six: Arc<UdpSocket>,
    heard4: broadcast::Sender<Vec<u8>>,
    heard6: broadcast::Sender<Vec<u8>>,
    daemon6: SocketAddr,
    /// Packet loss in each direction, in percent, by machine.
    loss: Arc<Mutex<HashMap<u8, u8>>>,
}

impl FirmwareLink {
    /// Creates the network in the current namespace. Needs a runtime.
    pub(crate) fn build() -> Self {
        ip(&format!(
            "link set lo up\nlink add {INTERFACE} type veth peer name {FAR}\n\
             address add {ADDRESS}/22 dev {INTERFACE}\naddress add fd79::1/64 dev {INTERFACE} nodad\n"
        ));
        fs::write(format!("/proc/sys/net/ipv6/conf/{INTERFACE}/accept_dad"), "0").unwrap();
        ip(&format!("link set {INTERFACE} up\n"));
        // Sockets of a thread that moves into a new namespace stay in that namespace.
        let (four, six, interface) = thread::spawn(far_end).join().unwrap();
        let (four, six) = (UdpSocket::from_std(four).unwrap(), UdpSocket::from_std(six).unwrap());
        let link = Self {
            four: Arc::new(four),
            six: Arc::new(six),
            heard4: broadcast::channel(1_024).0,
            heard6: broadcast::channel(1_024).0,
            daemon6: SocketAddr::V6(SocketAddrV6::new(
                Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2),
                547,
                0,
                interface,
            )),
            loss: Arc::default(),
        };
        tokio::spawn(listen(Arc::clone(&link.four), link.heard4.clone()));
        tokio::spawn(listen(Arc::clone(&link.six), link.heard6.clone()));
        link
    }

    /// Sets a machine's packet loss in both directions, in percent.
    pub(crate) fn lose(&self, machine: u8, percent: u8) {
        self.loss.lock().unwrap_or_else(PoisonError::into_inner).insert(machine, percent);
    }

    fn is_lost(&self, machine: u8) -> bool {
        let loss = self.loss.lock().unwrap_or_else(PoisonError::into_inner);
        random::<u8>() % 100 < loss.get(&machine).copied().unwrap_or_default()
    }

    /// Sends a packet to the DHCPv4 server.
    pub(crate) async fn send4(&self, packet: &[u8]) {
        let _ = self.four.send_to(packet, ("255.255.255.255", 67)).await;
    }

    /// Sends a packet to all DHCPv6 servers.
    pub(crate) async fn send6(&self, packet: &[u8]) {
        let _ = self.six.send_to(packet, self.daemon6).await;
    }

    /// Firmware that retries until it gets a URL.
    pub(crate) async fn ask_until_answered(&self, machine: u8, report: &SoakReport) -> String {
        let mac = [0x52, 0x54, 0, 0x50, 0xa1, machine];
        loop {
            if let Some(url) = self.boot_over_dhcp(machine, mac).await {
                report.count("machines that were told their URL by DHCP");
                return url;
            }
            report.count("DHCP exchanges of machines that came to nothing");
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// DISCOVER, OFFER, REQUEST, ACK; returns the URL in the ACK.
    async fn boot_over_dhcp(&self, machine: u8, mac: [u8; 6]) -> Option<String> {
        let xid: u32 = random();
        let mut heard = self.heard4.subscribe();
        if !self.is_lost(machine) {
            self.send4(&message4(1, xid, mac, true, &[])).await;
        }
        let offer = self.answer4(machine, &mut heard, xid, 2).await?;
        let (address, server) = (offer.get(16..20)?, option4(&offer, 54)?);
        let taken = [&[50, 4], address, &[54, 4], &server[..]].concat();
        if !self.is_lost(machine) {
            self.send4(&message4(3, xid, mac, true, &taken)).await;
        }
        let ack = self.answer4(machine, &mut heard, xid, 5).await?;
        let url = String::from_utf8(option4(&ack, 67)?).ok()?;
        Some(url.trim_end_matches('\0').to_owned())
    }

    async fn answer4(
        &self,
        machine: u8,
        heard: &mut broadcast::Receiver<Vec<u8>>,
        xid: u32,
        kind: u8,
    ) -> Option<Vec<u8>> {
        let answer = async {
            loop {
                let packet = match heard.recv().await {
                    Ok(packet) => packet,
                    Err(broadcast::error::RecvError::Lagged(_)) => continue,
                    Err(broadcast::error::RecvError::Closed) => return None,
                };
                let ours = packet.get(4..8) == Some(&xid.to_be_bytes());
                if ours && option4(&packet, 53) == Some(vec![kind]) && !self.is_lost(machine) {
                    return Some(packet);
                }
            }
        };
        timeout(Duration::from_secs(1), answer).await.ok().flatten()
    }

    /// Whether a machine with this MAC address gets an IPv4 offer.
    pub(crate) async fn is_offered4(&self, mac: [u8; 6]) -> bool {
        let xid: u32 = random();
        let mut heard = self.heard4.subscribe();
        self.send4(&message4(1, xid, mac, false, &[])).await;
        self.answer4(0, &mut heard, xid, 2).await.is_some()
    }

    /// Whether a machine with this MAC address gets a DHCPv6 advertisement.
    pub(crate) async fn is_offered6(&self, mac: [u8; 6]) -> bool {
        let transaction: [u8; 3] = random();
        let mut heard = self.heard6.subscribe();
        self.send6(&solicit(transaction, mac)).await;
        let answer = async {
            loop {
                match heard.recv().await {
                    Ok(packet) if packet.get(1..4) == Some(&transaction) && packet[0] == 2 => {
                        return true;
                    }
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return false,
                }
            }
        };
        timeout(Duration::from_secs(1), answer).await.unwrap_or(false)
    }
}

fn far_end() -> (StdUdpSocket, StdUdpSocket, u32) {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    // `ip` is started by this thread, and so in its namespace; the link's end is still in the namespace of the
    // process.
    let parent = std::process::id();
    let own = gettid();
    let moved = Command::new("nsenter")
        .args([
            &format!("--net=/proc/{parent}/ns/net"),
            "ip",
            "link",
            "set",
            FAR,
            "netns",
            &own.to_string(),
        ])
        .status()
        .unwrap();
    assert!(moved.success(), "the end of the wire cannot be moved");
    fs::write(format!("/proc/sys/net/ipv6/conf/{FAR}/accept_dad"), "0").unwrap();
    ip(&format!("link set lo up\nlink set {FAR} up\n"));
    let four = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    four.bind_device(Some(FAR.as_bytes())).unwrap();
    four.set_broadcast(true).unwrap();
    four.set_nonblocking(true).unwrap();
    four.bind(&"0.0.0.0:68".parse::<SocketAddr>().unwrap().into()).unwrap();
    let index = nix::net::if_::if_nametoindex(FAR).unwrap();
    let six = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    six.set_only_v6(true).unwrap();
    six.bind_device(Some(FAR.as_bytes())).unwrap();
    six.set_nonblocking(true).unwrap();
    six.bind(&"[::]:546".parse::<SocketAddr>().unwrap().into()).unwrap();
    (four.into(), six.into(), index)
}

async fn listen(socket: Arc<UdpSocket>, heard: broadcast::Sender<Vec<u8>>) {
    let mut buffer = vec![0; 65_536];
    loop {
        match socket.recv_from(&mut buffer).await {
            // The receiver may be gone.
            Ok((len, _)) => drop(heard.send(buffer[..len].to_vec())),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// A client's message (RFC 2131 §2); firmware's messages are those of UEFI HTTP boot.
pub(crate) fn message4(
    kind: u8,
    xid: u32,
    mac: [u8; 6],
    is_firmware: bool,
    options: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0; 240];
    packet[..4].copy_from_slice(&[1, 1, 6, 0]);
    packet[4..8].copy_from_slice(&xid.to_be_bytes());
    packet[10] = 0x80; // to be answered by broadcast
    packet[28..34].copy_from_slice(&mac);
    packet[236..].copy_from_slice(b"\x63\x82\x53\x63");
    packet.extend([53, 1, kind, 55, 5, 1, 3, 6, 60, 67, 57, 2, 5, 0xc0]);
    if is_firmware {
        let class = b"HTTPClient:Arch:00016:UNDI:003001";
        packet.extend([60, u8::try_from(class.len()).unwrap()]);
        packet.extend(class);
        packet.extend([93, 2, 0, 16, 94, 3, 1, 3, 0]);
    }
    packet.extend(options);
    packet.push(255);
    packet.resize(packet.len().max(300), 0);
    packet
}

/// A SOLICIT (RFC 8415 §8) of a client with a DUID of its MAC address.
pub(crate) fn solicit(transaction: [u8; 3], mac: [u8; 6]) -> Vec<u8> {
    let mut packet = vec![1];
    packet.extend(transaction);
    packet.extend([0, 1, 0, 10, 0, 3, 0, 1]);
    packet.extend(mac);
    packet.extend([0, 3, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    packet.extend([0, 8, 0, 2, 0, 0]);
    packet
}

fn option4(packet: &[u8], wanted: u8) -> Option<Vec<u8>> {
    let mut rest = packet.get(240..)?;
    while let [code, more @ ..] = rest {
        match code {
            0 => rest = more,
            255 => return None,
            code => {
                let (len, more) = more.split_first()?;
                let (value, more) = more.split_at_checked((*len).into())?;
                if *code == wanted {
                    return Some(value.to_vec());
                }
                rest = more;
            }
        }
    }
    None
}

/// Runs the lines of a script with `ip`, in the namespace of this thread.
fn ip(script: &str) {
    for line in script.lines() {
        let done = Command::new("ip").args(line.split_whitespace()).stdin(Stdio::null()).status();
        assert!(done.unwrap().success(), "ip {line}");
    }
}
