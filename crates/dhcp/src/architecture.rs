//! IANA's "Processor Architecture Types" (option 93; RFC 4578 §2.1, RFC 5970 §3.3).

/// What a client says it is. Every code is valid; their names are the `provision` crate's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Architecture(pub u16);

impl Architecture {
    /// `x64 UEFI HTTP`.
    pub const X64_HTTP: Self = Self(0x10);
}
