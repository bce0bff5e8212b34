//! Architectures: those with boot sets, and IANA's names of all client architectures.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An architecture that has boot sets; named as in a node's `properties.cpu_arch`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum CpuArch {
    /// x86-64.
    #[default]
    X64,
    /// AArch64.
    Arm64,
    /// RISC-V with 64 bits.
    Riscv64,
}

impl CpuArch {
    /// All architectures with boot sets.
    pub const ALL: [Self; 3] = [Self::X64, Self::Arm64, Self::Riscv64];

    /// The name of its boot set.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::X64 => "x64",
            Self::Arm64 => "arm64",
            Self::Riscv64 => "riscv64",
        }
    }

    /// The suffix after `boot` in the default loader's file name on a removable medium (UEFI §3.5.1.1).
    #[must_use]
    pub fn uefi_name(self) -> &'static str {
        match self {
            Self::X64 => "x64",
            Self::Arm64 => "aa64",
            Self::Riscv64 => "riscv64",
        }
    }

    /// The option 93 code of its firmware's HTTP boot.
    #[must_use]
    pub fn http_client(self) -> ClientArchitecture {
        match self {
            Self::X64 => X64_HTTP,
            Self::Arm64 => ARM64_HTTP,
            Self::Riscv64 => RISCV64_HTTP,
        }
    }

    /// The architecture of HTTP boot firmware with this code. Some firmware sends its code for TFTP: its vendor class
    /// already says HTTP.
    #[must_use]
    pub fn of_http_client(code: ClientArchitecture) -> Option<Self> {
        match code {
            X64_HTTP => Some(Self::X64),
            ARM64_PXE | ARM64_HTTP => Some(Self::Arm64),
            RISCV64_PXE | RISCV64_HTTP => Some(Self::Riscv64),
            code if X64_PXE.contains(&code) => Some(Self::X64),
            _ => None,
        }
    }

    /// The architecture for an iPXE with this code: the code of the firmware that started it, for TFTP (which iPXE
    /// sends in any case) or for HTTP.
    ///
    /// iPXE on an x86 BIOS is included: it enters the kernel of the x64 boot set in real mode, as every BIOS loader
    /// does, and takes the same script. The code does not tell whether the processor is 64-bit; on a 32-bit one, the
    /// kernel prints an error on the screen.
    #[must_use]
    pub fn of_ipxe(code: ClientArchitecture) -> Option<Self> {
        match code {
            X86_BIOS => Some(Self::X64),
            code => Self::of_http_client(code),
        }
    }
}

/// The text is no architecture that has boot sets.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("there is no loader for the architecture {0:?}; there are x86_64, aarch64 and riscv64")]
pub struct NoSuchCpuArch(pub String);

impl FromStr for CpuArch {
    type Err = NoSuchCpuArch;

    /// Accepts Ironic's, Debian's and UEFI's names.
    fn from_str(text: &str) -> Result<Self, NoSuchCpuArch> {
        match text.to_ascii_lowercase().as_str() {
            "x86_64" | "amd64" | "x64" => Ok(Self::X64),
            "aarch64" | "arm64" | "aa64" => Ok(Self::Arm64),
            "riscv64" => Ok(Self::Riscv64),
            _ => Err(NoSuchCpuArch(text.to_owned())),
        }
    }
}

impl fmt::Display for CpuArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A DHCP client's architecture (option 93), by IANA's code. Every code is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientArchitecture(pub u16);

/// `x86 BIOS`.
pub const X86_BIOS: ClientArchitecture = ClientArchitecture(0);
/// `arm64 UEFI`.
pub const ARM64_PXE: ClientArchitecture = ClientArchitecture(0x0B);
/// `riscv64 UEFI`.
pub const RISCV64_PXE: ClientArchitecture = ClientArchitecture(0x1B);
/// `x64 UEFI HTTP`.
pub const X64_HTTP: ClientArchitecture = ClientArchitecture(0x10);
/// `arm64 UEFI HTTP`.
pub const ARM64_HTTP: ClientArchitecture = ClientArchitecture(0x13);
/// `riscv64 UEFI HTTP`.
pub const RISCV64_HTTP: ClientArchitecture = ClientArchitecture(0x1C);
/// x64 UEFI that boots over TFTP: 7 was meant for EBC, but EDK2 sends it (RFC 4578, erratum 4625).
pub const X64_PXE: [ClientArchitecture; 2] = [ClientArchitecture(7), ClientArchitecture(9)];

/// IANA's "Processor Architecture Types" (RFC 4578 §2.1, RFC 5970 §3.3), by their codes.
const NAMES: [&str; 42] = [
    "x86 BIOS",
    "NEC/PC98",
    "Itanium UEFI",
    "DEC Alpha",
    "Arc x86",
    "Intel Lean Client",
    "x86 UEFI",
    "x64 UEFI",
    "XScale UEFI",
    "EFI byte code",
    "arm32 UEFI",
    "arm64 UEFI",
    "PowerPC Open Firmware",
    "PowerPC ePAPR",
    "POWER OPAL v3",
    "x86 UEFI HTTP",
    "x64 UEFI HTTP",
    "EFI byte code HTTP",
    "arm32 UEFI HTTP",
    "arm64 UEFI HTTP",
    "x86 BIOS HTTP",
    "arm32 U-Boot",
    "arm64 U-Boot",
    "arm32 U-Boot HTTP",
    "arm64 U-Boot HTTP",
    "riscv32 UEFI",
    "riscv32 UEFI HTTP",
    "riscv64 UEFI",
    "riscv64 UEFI HTTP",
    "riscv128 UEFI",
    "riscv128 UEFI HTTP",
    "s390 Basic",
    "s390 Extended",
    "MIPS32 UEFI",
    "MIPS64 UEFI",
    "Sunway32 UEFI",
    "Sunway64 UEFI",
    "LoongArch32 UEFI",
    "LoongArch32 UEFI HTTP",
    "LoongArch64 UEFI",
    "LoongArch64 UEFI HTTP",
    "Raspberry Pi boot ROM",
];

impl fmt::Display for ClientArchitecture {
    /// The name with the code.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(code) = self;
        match NAMES.get(usize::from(*code)) {
            Some(name) => write!(f, "{name} ({code:#06x})"),
            None => write!(f, "of an unknown architecture ({code:#06x})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_get_a_loader_are_those_that_iana_gave_firmware_of_the_architecture() {
        for (code, name) in (0..).map(ClientArchitecture).zip(NAMES) {
            let named = |arch: &CpuArch| {
                name == format!("{arch} UEFI") || name == format!("{arch} UEFI HTTP")
            };
            let expected = match name {
                "EFI byte code" => Some(CpuArch::X64),
                _ => CpuArch::ALL.into_iter().find(named),
            };
            assert_eq!(CpuArch::of_http_client(code), expected, "{name}");
        }
        for cpu_arch in CpuArch::ALL {
            assert_eq!(CpuArch::of_http_client(cpu_arch.http_client()), Some(cpu_arch));
        }
    }

    #[test]
    fn an_ipxe_is_of_the_architecture_that_its_code_is_named_after() {
        for (code, name) in (0..).map(ClientArchitecture).zip(NAMES) {
            let named = |arch: &CpuArch| {
                name == format!("{arch} UEFI") || name == format!("{arch} UEFI HTTP")
            };
            let expected = match name {
                "x86 BIOS" | "EFI byte code" => Some(CpuArch::X64),
                _ => CpuArch::ALL.into_iter().find(named),
            };
            assert_eq!(CpuArch::of_ipxe(code), expected, "{name}");
        }
    }

    #[test]
    fn the_last_code_that_iana_gave_out_has_its_name_and_those_after_it_are_numbers() {
        assert_eq!(ClientArchitecture(0x00).to_string(), "x86 BIOS (0x0000)");
        assert_eq!(ClientArchitecture(0x29).to_string(), "Raspberry Pi boot ROM (0x0029)");
        assert_eq!(ClientArchitecture(0x2A).to_string(), "of an unknown architecture (0x002a)");
    }
}
