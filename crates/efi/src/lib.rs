//! Images and data for firmware and kernels: UKI and its signature, ESP, ISO, boot variables and initramfs, composed from extents.
//!
//! Nothing here opens a file. A [`ComposedImage`] is a list of extents in shared files; the server of the image reads
//! them. Three calls lead from a kernel to an image for a BMC: [`uki`], [`esp`], [`iso`].

mod authenticode;
mod cpio;
mod der;
mod fat;
mod image;
mod iso;
mod pe;
mod pe_headers;
mod program_signatures;
mod uki;
pub mod variables;

pub use self::authenticode::{
    AuthenticodeBytes, ImageDigest, SignerCertificate, SpcIndirectData, signed_uki,
};
pub use self::cpio::CpioArchive;
pub use self::fat::{EspError, esp, esp_with_shim};
pub use self::image::{ComposedImage, Extent, ExtentSlice, SharedFile};
pub use self::iso::{IsoError, IsoFolder, iso, iso_with_folder};
pub use self::pe::{AddSectionError, NotSignable, PeMachine, StubError, UkiStub};
pub use self::program_signatures::{SignaturesError, program_signatures};
pub use self::uki::{COMMAND_LINE_ROOM, Uki, UkiError, UkiParts, seeded_initramfs, uki};
