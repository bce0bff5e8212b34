//! A unified kernel image: a stub, a kernel, an initramfs and a command line in one program
//! (UAPI.5, "Unified Kernel Image").
//!
//! The command line differs between nodes, so it has a fixed length and comes last: everything before it is the same
//! for every node.

use thiserror::Error;

use crate::image::{ComposedImage, SharedFile};
use crate::pe::{AddSectionError, NotSignable, SignaturePlaces, UkiStub};

/// Room for the command line in bytes: Linux's `COMMAND_LINE_SIZE` on x86, with the final NUL. Linux would silently
/// truncate a longer one.
pub const COMMAND_LINE_ROOM: usize = 2048;

/// The room for the archive over the initramfs grows by this many bytes: few lengths of it, so few different headers,
/// whose digest a signature needs.
const SEED_STEP: u64 = 64 * 1024;

/// The parts of a UKI.
#[derive(Clone, Copy, Debug)]
pub struct UkiParts<'a> {
    /// The text of `/etc/os-release`, which boot menus use for the system's name.
    pub os_release: &'a str,
    /// The kernel's version, as in `uname -r`.
    pub uname: &'a str,
    /// A kernel with an EFI stub.
    pub kernel: &'a SharedFile,
    /// Its initramfs.
    pub initramfs: &'a SharedFile,
    /// An archive that the kernel unpacks over the initramfs; empty for none.
    pub seed: &'a [u8],
    /// Its command line.
    pub command_line: &'a str,
}

/// A composed UKI, without a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uki {
    image: ComposedImage,
    places: Result<SignaturePlaces, NotSignable>,
}

/// The reason for not composing a UKI.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UkiError {
    /// The command line is too long for Linux.
    #[error(
        "the kernel command line has {0} bytes; Linux takes at most {max}",
        max = COMMAND_LINE_ROOM - 1
    )]
    CommandLineLong(usize),
    /// The command line has a control character: Linux's EFI stub stops at a newline.
    #[error("the kernel command line holds the control character {0:?}")]
    CommandLineControl(char),
    /// A file is empty.
    #[error("{0} is empty")]
    Empty(String),
    /// The stub has no room for it.
    #[error(transparent)]
    Stub(#[from] AddSectionError),
}

/// Composes a UKI. Its length does not depend on the command line.
///
/// # Errors
/// [`UkiError`] if a part is unsuitable, or all parts together are too long.
pub fn uki(stub: &UkiStub, parts: &UkiParts<'_>) -> Result<Uki, UkiError> {
    let command_line = padded(parts.command_line)?;
    if let Some(empty) = [parts.kernel, parts.initramfs].into_iter().find(|file| file.len == 0) {
        return Err(UkiError::Empty(empty.name.to_string()));
    }
    let sections = [
        (".osrel", ComposedImage::of_bytes(parts.os_release.as_bytes())),
        (".uname", ComposedImage::of_bytes(parts.uname.as_bytes())),
        (".linux", ComposedImage::of_file(parts.kernel.clone())),
        (".initrd", roomy_initramfs(parts.initramfs, parts.seed)),
        (".cmdline", ComposedImage::of_bytes(command_line)),
    ];
    let lengths = sections.each_ref().map(|(name, contents)| (*name, contents.len()));
    let headers = stub.headers_with(&lengths)?;

    let mut image = ComposedImage::default();
    image.push_bytes(headers);
    image.push(stub.contents());
    for (_, contents) in sections {
        image.pad_to(stub.align_in_file(image.len()));
        contents.extents().iter().cloned().for_each(|extent| image.push(extent));
    }
    image.pad_to(stub.align_in_file(image.len()));
    Ok(Uki { image, places: stub.signature_places() })
}

impl Uki {
    /// The program.
    #[must_use]
    pub fn image(&self) -> &ComposedImage {
        &self.image
    }

    /// The program.
    #[must_use]
    pub fn into_image(self) -> ComposedImage {
        self.image
    }

    pub(crate) fn signature_places(&self) -> Result<SignaturePlaces, NotSignable> {
        self.places
    }
}

fn padded(command_line: &str) -> Result<Vec<u8>, UkiError> {
    if command_line.len() >= COMMAND_LINE_ROOM {
        return Err(UkiError::CommandLineLong(command_line.len()));
    }
    if let Some(control) = command_line.chars().find(|c| c.is_control()) {
        return Err(UkiError::CommandLineControl(control));
    }
    // Padded with NULs: the stub and Linux both stop at the first.
    let mut padded = command_line.as_bytes().to_vec();
    padded.resize(COMMAND_LINE_ROOM, 0);
    Ok(padded)
}

/// The initramfs followed by an archive and zeros, which the kernel skips, up to a multiple of [`SEED_STEP`].
fn roomy_initramfs(initramfs: &SharedFile, seed: &[u8]) -> ComposedImage {
    let mut image = seeded_initramfs(initramfs, seed);
    let room = (seed.len() as u64).next_multiple_of(SEED_STEP);
    image.pad_to(image.len() - seed.len() as u64 + room);
    image
}

/// The initramfs followed by an archive, which the kernel unpacks over it
/// (`Documentation/driver-api/early-userspace/buffer-format.rst`); the initramfs alone if the archive is empty.
#[must_use]
pub fn seeded_initramfs(initramfs: &SharedFile, seed: &[u8]) -> ComposedImage {
    let mut image = ComposedImage::of_file(initramfs.clone());
    if !seed.is_empty() {
        // An archive begins at a multiple of four bytes.
        image.pad_to(image.len().next_multiple_of(4));
        image.push_bytes(seed.to_vec());
    }
    image
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::tests::{byte, contents, source};
    use crate::pe::tests::{parse, sections_of, small_stub};

    pub(crate) fn small_uki(kernel: u64, initramfs: u64, command_line: &str) -> ComposedImage {
        small_uki_with_seed(kernel, initramfs, b"", command_line).into_image()
    }

    pub(crate) fn small_uki_with_seed(
        kernel: u64,
        initramfs: u64,
        seed: &[u8],
        command_line: &str,
    ) -> Uki {
        let (kernel, initramfs) = (source("kernel", kernel), source("initramfs", initramfs));
        let stub = parse(&small_stub()).unwrap();
        let parts = UkiParts {
            os_release: "ID=ferroboot\n",
            uname: "6.1.0",
            kernel: &kernel,
            initramfs: &initramfs,
            seed,
            command_line,
        };
        uki(&stub, &parts).unwrap()
    }

    #[test]
    fn two_nodes_images_differ_in_the_last_two_kilobytes_only() {
        let one = contents(&small_uki(70_000, 5_001, "ipa-agent-token=one"));
        let two = contents(&small_uki(70_000, 5_001, "ipa-agent-token=another"));

        assert_eq!(one.len(), two.len());
        let first = one.iter().zip(&two).position(|(a, b)| a != b).unwrap();
        assert!(first >= one.len() - COMMAND_LINE_ROOM, "they differ at {first} of {}", one.len());
    }

    #[test]
    fn what_is_unpacked_over_an_initramfs_begins_at_a_multiple_of_four() {
        let initramfs = source("initramfs", 5_001);

        let seeded = contents(&seeded_initramfs(&initramfs, b"070701"));

        assert_eq!(&seeded[5_001..5_004], [0; 3]);
        assert_eq!(&seeded[5_004..], b"070701");
        assert_eq!(seeded_initramfs(&initramfs, b""), ComposedImage::of_file(initramfs));
    }

    #[test]
    fn archives_of_about_the_same_length_leave_the_headers_as_they_are() {
        let headers =
            |seed| contents(small_uki_with_seed(70_000, 5_001, seed, "").image())[..0x400].to_vec();

        assert_eq!(headers(&[1; 10]), headers(&[2; 64 * 1024]));
        assert_ne!(headers(&[1; 10]), headers(&[2; 64 * 1024 + 1]));
    }

    #[test]
    fn a_command_line_that_linux_would_cut_is_refused() {
        assert!(padded(&"x".repeat(2047)).is_ok());
        assert_eq!(padded(&"x".repeat(2048)), Err(UkiError::CommandLineLong(2048)));
        assert_eq!(
            UkiError::CommandLineLong(2048).to_string(),
            "the kernel command line has 2048 bytes; Linux takes at most 2047"
        );
    }

    #[test]
    fn a_command_line_of_two_lines_is_refused() {
        assert_eq!(padded("quiet\ninit=/x"), Err(UkiError::CommandLineControl('\n')));
    }

    #[test]
    fn an_empty_initramfs_is_refused() {
        let stub = parse(&small_stub()).unwrap();
        let parts = UkiParts {
            os_release: "",
            uname: "",
            kernel: &source("kernel", 1),
            initramfs: &source("initramfs", 0),
            seed: b"",
            command_line: "",
        };
        assert_eq!(uki(&stub, &parts), Err(UkiError::Empty("initramfs".into())));
    }

    proptest! {
        #[test]
        fn each_section_is_where_the_headers_say(
            kernel in 1u64..100_000, initramfs in 1u64..100_000, command_line in "[ -~]{0,2047}",
        ) {
            let bytes = contents(&small_uki(kernel, initramfs, &command_line));

            let sections = sections_of(&bytes);
            let names: Vec<_> = sections
                .iter()
                .map(|s| String::from_utf8_lossy(&s.name).trim_end_matches('\0').to_owned())
                .collect();
            prop_assert_eq!(
                names, [".text", ".data", ".osrel", ".uname", ".linux", ".initrd", ".cmdline"]
            );
            for pair in sections.windows(2) {
                let memory_end = pair[0].virtual_address + pair[0].raw_size.max(pair[0].virtual_size);
                prop_assert!(memory_end <= pair[1].virtual_address);
                prop_assert!(pair[0].raw_offset + pair[0].raw_size <= pair[1].raw_offset);
                prop_assert!(pair[1].raw_offset.is_multiple_of(0x200));
            }
            let at = |n: usize| {
                let section = sections[n];
                &bytes[section.raw_offset as usize..][..section.virtual_size as usize]
            };
            prop_assert_eq!(at(2), b"ID=ferroboot\n");
            for (n, file) in [(4, source("kernel", kernel)), (5, source("initramfs", initramfs))] {
                prop_assert_eq!(at(n).len() as u64, file.len);
                prop_assert_eq!(at(n)[0], byte(&file, 0));
                prop_assert_eq!(*at(n).last().unwrap(), byte(&file, file.len - 1));
            }
            prop_assert!(at(6).starts_with(command_line.as_bytes()));
            let last = sections[6];
            prop_assert_eq!((last.raw_offset + last.raw_size) as usize, bytes.len());
            let image_len = u32::from_le_bytes(bytes[0x98 + 56..][..4].try_into().unwrap());
            prop_assert!(image_len >= last.virtual_address + last.raw_size);
        }
    }
}
