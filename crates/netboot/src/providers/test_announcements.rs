//! Announcements for the tests of all crates.

use hardware::{CpuArch, Mac};
use jiff::Timestamp;
use provision::BootInterface;
use provision::artifact::Artifact;
use provision::node::Secret;
use url::Url;
use uuid::Uuid;

use super::announcement::{AnnouncedPort, Announcement, Links};

/// A port without an operator's settings; `number` ends its MAC address.
#[must_use]
pub fn plain_port(number: u8) -> AnnouncedPort {
    AnnouncedPort { mac: Mac([0x52, 0x54, 0, 0, 0, number]), vif: None, dhcp_host: None }
}

/// A boot of one machine, from `http://HOST/` over either family.
#[must_use]
pub fn announcement(boot_interface: BootInterface, host: &str) -> Announcement {
    let link = |file: &str| -> Url {
        format!("http://{host}/boot/TICKET/{file}").parse().expect("it is a URL")
    };
    let [x64, arm64] = [CpuArch::X64, CpuArch::Arm64].map(|cpu_arch| {
        let loader = match boot_interface {
            BootInterface::HttpIpxe => Artifact::ipxe(cpu_arch).expect("there is one of it"),
            BootInterface::RedfishHttps
            | BootInterface::RedfishVirtualMedia
            | BootInterface::Http => Artifact::boot_loader(cpu_arch),
        };
        (cpu_arch, link(loader.file_name()))
    });
    let links = Links { own: x64.1.clone(), firmware: vec![x64, arm64], ipxe: link("boot.ipxe") };
    Announcement {
        node: Uuid::from_u128(1),
        attempt: Uuid::from_u128(2),
        started_at: Timestamp::UNIX_EPOCH,
        boot_interface,
        ports: vec![plain_port(1)],
        ticket: Secret("TICKET".to_owned()),
        links: [Ok(links.clone()), Ok(links)],
    }
}

/// Another boot of the same machine.
#[must_use]
pub fn next_boot(of: &Announcement) -> Announcement {
    let attempt = Uuid::from_u128(of.attempt.as_u128() + 1);
    Announcement { attempt, ticket: Secret("NEXT".to_owned()), ..of.clone() }
}
