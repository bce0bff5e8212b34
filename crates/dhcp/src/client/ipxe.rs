//! The features of an iPXE build, from option 175 (`features.h`).

use std::fmt;

use crate::v4::Packet;
use crate::v4::options::{self as code, sub_options};

/// A feature of an iPXE build. The value is the sub-option's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Feature {
    /// Extensions of the PXE programming interface.
    PxeExtensions = 16,
    /// iSCSI.
    Iscsi = 17,
    /// ATA over Ethernet.
    Aoe = 18,
    /// HTTP.
    Http = 19,
    /// HTTPS.
    Https = 20,
    /// TFTP.
    Tftp = 21,
    /// FTP.
    Ftp = 22,
    /// DNS name resolution.
    Dns = 23,
    /// Linux kernels of x86.
    BzImage = 24,
    /// Multiboot kernels.
    Multiboot = 25,
    /// SLAM.
    Slam = 26,
    /// SCSI RDMA.
    Srp = 27,
    /// Network boot images.
    Nbi = 32,
    /// PXE boot files.
    Pxe = 33,
    /// ELF files.
    Elf = 34,
    /// COMBOOT files.
    Comboot = 35,
    /// EFI programs.
    Efi = 36,
    /// Fibre Channel over Ethernet.
    Fcoe = 37,
    /// VLANs.
    Vlan = 38,
    /// Menus.
    Menu = 39,
    /// System Deployment Images.
    Sdi = 40,
    /// NFS.
    Nfs = 41,
}

impl Feature {
    /// All features, in the order of their sub-options.
    pub const ALL: [Self; 22] = [
        Self::PxeExtensions,
        Self::Iscsi,
        Self::Aoe,
        Self::Http,
        Self::Https,
        Self::Tftp,
        Self::Ftp,
        Self::Dns,
        Self::BzImage,
        Self::Multiboot,
        Self::Slam,
        Self::Srp,
        Self::Nbi,
        Self::Pxe,
        Self::Elf,
        Self::Comboot,
        Self::Efi,
        Self::Fcoe,
        Self::Vlan,
        Self::Menu,
        Self::Sdi,
        Self::Nfs,
    ];

    /// The feature's name in iPXE's start-up banner.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PxeExtensions => "PXEXT",
            Self::Iscsi => "iSCSI",
            Self::Aoe => "AoE",
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Tftp => "TFTP",
            Self::Ftp => "FTP",
            Self::Dns => "DNS",
            Self::BzImage => "bzImage",
            Self::Multiboot => "MBOOT",
            Self::Slam => "SLAM",
            Self::Srp => "SRP",
            Self::Nbi => "NBI",
            Self::Pxe => "PXE",
            Self::Elf => "ELF",
            Self::Comboot => "COMBOOT",
            Self::Efi => "EFI",
            Self::Fcoe => "FCoE",
            Self::Vlan => "VLAN",
            Self::Menu => "Menu",
            Self::Sdi => "SDI",
            Self::Nfs => "NFS",
        }
    }

    fn bit(self) -> u64 {
        1 << self as u8
    }
}

/// A set of [`Feature`]s.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Features(u64);

impl Features {
    /// Reads the features from a packet; empty if the sender is not iPXE.
    #[must_use]
    pub fn of(packet: &Packet) -> Self {
        let said = sub_options(packet.option(code::IPXE).unwrap_or_default());
        // A value of 0 means that the feature is switched off.
        let on = said.filter(|(_, value)| value.iter().any(|byte| *byte != 0));
        Self(on.filter(|(code, _)| *code < 64).fold(0, |set, (code, _)| set | 1 << code))
    }

    /// Whether the build has this feature.
    #[must_use]
    pub fn has(self, feature: Feature) -> bool {
        self.0 & feature.bit() != 0
    }

    /// All known features of the set.
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.into_iter().filter(move |feature| self.has(*feature))
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, feature) in self.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{}", feature.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v4::packet::tests::discover;

    fn of(value: &[u8]) -> Features {
        let mut packet = discover([2; 6]);
        packet.options.push((code::IPXE, value.to_vec()));
        Features::of(&packet)
    }

    #[test]
    fn an_ipxe_without_https_is_told_from_one_with_it() {
        let plain = of(&[19, 1, 1, 36, 1, 1, 235, 3, 1, 21, 1]);
        let tls = of(&[19, 1, 1, 20, 1, 1, 36, 1, 1]);

        assert!(plain.has(Feature::Http) && !plain.has(Feature::Https));
        assert!(tls.has(Feature::Https));
        assert_eq!(plain.to_string(), "HTTP, EFI");
    }

    #[test]
    fn what_is_cut_off_or_switched_off_is_no_feature() {
        assert_eq!(of(&[19, 1, 0, 20, 4, 1]), Features::default());
        assert_eq!(Features::of(&discover([2; 6])).iter().count(), 0);
    }
}
