//! IANA's "Processor Architecture Types" (option 93; RFC 4578 §2.1, RFC 5970 §3.3).

use std::fmt;

/// What a client says it is. Every code is valid; some have names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Architecture(pub u16);

/// How firmware of an architecture fetches its first file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TFTP: PXE.
    Tftp,
    /// HTTP: UEFI HTTP boot.
    Http,
}

/// Code, name, transport.
const NAMED: [(u16, &str, Transport); 42] = [
    (0x00, "x86 BIOS", Transport::Tftp),
    (0x01, "NEC/PC98", Transport::Tftp),
    (0x02, "Itanium UEFI", Transport::Tftp),
    (0x03, "DEC Alpha", Transport::Tftp),
    (0x04, "Arc x86", Transport::Tftp),
    (0x05, "Intel Lean Client", Transport::Tftp),
    (0x06, "x86 UEFI", Transport::Tftp),
    (0x07, "x64 UEFI", Transport::Tftp),
    (0x08, "XScale UEFI", Transport::Tftp),
    (0x09, "EFI byte code", Transport::Tftp),
    (0x0a, "arm32 UEFI", Transport::Tftp),
    (0x0b, "arm64 UEFI", Transport::Tftp),
    (0x0c, "PowerPC Open Firmware", Transport::Tftp),
    (0x0d, "PowerPC ePAPR", Transport::Tftp),
    (0x0e, "POWER OPAL v3", Transport::Tftp),
    (0x0f, "x86 UEFI HTTP", Transport::Http),
    (0x10, "x64 UEFI HTTP", Transport::Http),
    (0x11, "EFI byte code HTTP", Transport::Http),
    (0x12, "arm32 UEFI HTTP", Transport::Http),
    (0x13, "arm64 UEFI HTTP", Transport::Http),
    (0x14, "x86 BIOS HTTP", Transport::Http),
    (0x15, "arm32 U-Boot", Transport::Tftp),
    (0x16, "arm64 U-Boot", Transport::Tftp),
    (0x17, "arm32 U-Boot HTTP", Transport::Http),
    (0x18, "arm64 U-Boot HTTP", Transport::Http),
    (0x19, "riscv32 UEFI", Transport::Tftp),
    (0x1a, "riscv32 UEFI HTTP", Transport::Http),
    (0x1b, "riscv64 UEFI", Transport::Tftp),
    (0x1c, "riscv64 UEFI HTTP", Transport::Http),
    (0x1d, "riscv128 UEFI", Transport::Tftp),
    (0x1e, "riscv128 UEFI HTTP", Transport::Http),
    (0x1f, "s390 Basic", Transport::Tftp),
    (0x20, "s390 Extended", Transport::Tftp),
    (0x21, "MIPS32 UEFI", Transport::Tftp),
    (0x22, "MIPS64 UEFI", Transport::Tftp),
    (0x23, "Sunway32 UEFI", Transport::Tftp),
    (0x24, "Sunway64 UEFI", Transport::Tftp),
    (0x25, "LoongArch32 UEFI", Transport::Tftp),
    (0x26, "LoongArch32 UEFI HTTP", Transport::Http),
    (0x27, "LoongArch64 UEFI", Transport::Tftp),
    (0x28, "LoongArch64 UEFI HTTP", Transport::Http),
    (0x29, "Raspberry Pi boot ROM", Transport::Tftp),
];

impl Architecture {
    /// `x64 UEFI HTTP`.
    pub const X64_HTTP: Self = Self(0x10);

    /// Its name, if IANA gave the code one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        self.entry().map(|(_, name, _)| *name)
    }

    /// How it fetches, if the code is known.
    #[must_use]
    pub fn transport(self) -> Option<Transport> {
        self.entry().map(|(_, _, transport)| *transport)
    }

    fn entry(self) -> Option<&'static (u16, &'static str, Transport)> {
        NAMED.iter().find(|(code, _, _)| *code == self.0)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({:#06x})", self.0),
            None => write!(f, "unknown architecture {:#06x}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_up_to_the_last_that_iana_gave_out_has_a_name() {
        let codes: Vec<_> = NAMED.iter().map(|(code, _, _)| *code).collect();

        assert_eq!(codes, (0..=0x29).collect::<Vec<_>>());
    }

    #[test]
    fn a_code_that_fetches_over_http_says_so_in_its_name() {
        let says_http = |(_, name, _): &(u16, &str, Transport)| name.ends_with(" HTTP");

        assert!(NAMED.iter().all(|named| says_http(named) == (named.2 == Transport::Http)));
    }

    #[test]
    fn a_code_of_the_future_is_shown_as_a_number() {
        assert_eq!(Architecture(0x1234).to_string(), "unknown architecture 0x1234");
        assert_eq!(Architecture::X64_HTTP.to_string(), "x64 UEFI HTTP (0x0010)");
    }
}
