//! Name servers for the C library's resolver, which reads its file again after a change.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;

use anyhow::{Context, Result};

/// Number of servers that the resolver uses (`MAXNS`).
const MOST: usize = 3;

/// Writes `/etc/resolv.conf`. Each server comes with the link that announced it.
///
/// # Errors
///
/// It cannot be written.
pub(super) fn set(servers: &[(IpAddr, &str)]) -> Result<()> {
    fs::create_dir_all("/etc").context("creating /etc")?;
    fs::write("/etc/resolv.conf", file(servers)).context("writing /etc/resolv.conf")
}

fn file(servers: &[(IpAddr, &str)]) -> String {
    // A broken name server may have a working one beside it, IPv4 or IPv6, so the resolver tries the next one soon.
    let mut text = "options timeout:1 attempts:3\n".to_owned();
    let mut lines = Vec::new();
    for line in servers.iter().map(|(server, link)| line(*server, link)) {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    for line in lines.iter().take(MOST) {
        let _ = writeln!(text, "nameserver {line}");
    }
    text
}

/// A link-local address needs its link (RFC 4007 §11).
fn line(server: IpAddr, link: &str) -> String {
    match server {
        IpAddr::V6(server) if server.is_unicast_link_local() => format!("{server}%{link}"),
        IpAddr::V4(_) | IpAddr::V6(_) => server.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_both_families_are_named_once_and_link_local_ones_with_their_link() {
        let [router, v6, v4, last] = ["fe80::1", "fd00::53", "10.0.0.53", "10.0.0.54"]
            .map(|address| address.parse::<IpAddr>().unwrap());

        let text =
            file(&[(router, "eth1"), (v6, "eth1"), (v6, "eth0"), (v4, "eth0"), (last, "eth0")]);

        let servers: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(
            servers,
            ["nameserver fe80::1%eth1", "nameserver fd00::53", "nameserver 10.0.0.53"]
        );
    }
}
