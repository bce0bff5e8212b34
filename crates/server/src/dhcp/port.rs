//! Who has a UDP port.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use nix::unistd::getpid;
use socket2::{Domain, Protocol, Socket, Type};

/// Whether a DHCP server's port can be had on an interface, or this service has it already.
///
/// # Errors
/// In words: who has it, or that we may not.
pub fn who_has(interface: &str, port: u16) -> Result<String> {
    match take(interface, port) {
        Ok(()) => Ok("free".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let holders = holders(port);
            match holders.iter().find(|(name, _)| name == "ferroboot") {
                Some((_, pid)) => Ok(format!("this service has it already (process {pid})")),
                None if holders.is_empty() => bail!("another program has it"),
                None => {
                    let names: Vec<_> = holders
                        .iter()
                        .map(|(name, pid)| format!("{name} (process {pid})"))
                        .collect();
                    bail!("{} has it: end that, or keep it off {interface}", names.join(", "))
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            bail!("may not be had: that takes root, or CAP_NET_BIND_SERVICE and CAP_NET_RAW")
        }
        Err(error) => Err(anyhow!(error).context("cannot be had")),
    }
}

/// Takes it and lets it go. Others that have it on another interface alone are not in the way.
fn take(interface: &str, port: u16) -> io::Result<()> {
    let is_six = port == 547;
    let domain = if is_six { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    let address = if is_six {
        socket.set_only_v6(true)?;
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
    } else {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
    };
    socket.bind(&address.into())
}

/// The programs that have sockets on it, as far as we may see: name and process.
fn holders(port: u16) -> Vec<(String, u32)> {
    let sockets: Vec<_> = ["/proc/net/udp", "/proc/net/udp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| sockets_on(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let own = u32::try_from(getpid().as_raw()).unwrap_or_default();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own && has_any(*pid, &sockets))
        .map(|pid: u32| (name_of(pid), pid))
        .collect()
}

/// The inodes of the sockets in a table of `/proc/net` that are on a port.
fn sockets_on(table: &str, port: u16) -> Vec<String> {
    let of = |line: &str| {
        let mut fields = line.split_whitespace();
        let (_, local) = fields.nth(1)?.rsplit_once(':')?;
        (u16::from_str_radix(local, 16) == Ok(port)).then_some(())?;
        fields.nth(7).map(str::to_owned)
    };
    table.lines().skip(1).filter_map(of).collect()
}

fn has_any(pid: u32, sockets: &[String]) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.into_iter().any(|link| sockets.iter().any(|socket| Path::new(socket) == link))
}

fn name_of(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn the_sockets_of_a_port_are_told_from_others() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             10: 00000000:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 777 2 0 0\n\
             11: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 778 2 0 0\n";

        assert_eq!(sockets_on(table, 67), ["777"]);
        assert_eq!(sockets_on("damaged\nlines here: there\n", 67), [""; 0]);
    }

    #[test]
    fn the_holder_of_a_port_is_named() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let table = fs::read_to_string("/proc/net/udp").unwrap();

        let sockets: Vec<_> =
            sockets_on(&table, port).iter().map(|inode| format!("socket:[{inode}]")).collect();

        assert!(has_any(std::process::id(), &sockets));
    }
}
