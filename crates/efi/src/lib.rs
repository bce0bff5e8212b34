//! What firmware and kernels read: UKI, ESP, ISO, boot variables and initramfs, composed from extents.
//!
//! Nothing here opens a file. An [`ComposedImage`] says which bytes of which shared file lie where, and
//! whoever serves it does the reading. From a kernel to what a BMC boots it is three calls:
//! [`uki`], [`esp`], [`iso`].

mod cpio;
mod fat;
mod image;
mod iso;
mod pe;
mod uki;
pub mod variables;

pub use self::cpio::CpioArchive;
pub use self::fat::{EspError, esp};
pub use self::image::{ComposedImage, Extent, ExtentSlice, SharedFile};
pub use self::iso::{IsoError, iso};
pub use self::pe::{AddSectionError, PeMachine, StubError, UkiStub};
pub use self::uki::{COMMAND_LINE_ROOM, UkiError, UkiParts, seeded_initramfs, uki};
