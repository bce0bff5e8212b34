//! A file that is not stored anywhere: a list of extents in order.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// A file shared by many images.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SharedFile {
    /// The name by which the server of the image finds the file.
    pub name: Arc<str>,
    /// Its length in bytes.
    pub len: u64,
    /// The digest of its contents.
    pub sha256: [u8; 32],
}

/// A run of bytes in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// These bytes.
    Bytes(Arc<[u8]>),
    /// A part of a shared file.
    File {
        /// The file.
        source: SharedFile,
        /// The offset in the file.
        offset: u64,
        /// The length.
        len: u64,
    },
    /// Padding.
    Zeros(u64),
}

/// A part of an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentSlice<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// A part of a shared file.
    File {
        /// The file.
        source: &'a SharedFile,
        /// The offset in the file.
        offset: u64,
        /// The length.
        len: u64,
    },
    /// Padding.
    Zeros(u64),
}

/// A file composed of extents. A clone shares the contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComposedImage {
    extents: Vec<Extent>,
    len: u64,
}

impl ComposedImage {
    /// The image of a whole file.
    #[must_use]
    pub fn of_file(source: SharedFile) -> Self {
        let len = source.len;
        [Extent::File { source, offset: 0, len }].into_iter().collect()
    }

    /// The image of these bytes.
    #[must_use]
    pub fn of_bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        [Extent::Bytes(bytes.into())].into_iter().collect()
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The extents in order.
    #[must_use]
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// A strong entity tag (RFC 9110 §8.8.3), with quotes: the digest of the extents, where a file counts with its
    /// own digest. It is the same on every daemon and after every restart.
    #[must_use]
    pub fn etag(&self) -> String {
        let mut hash = Sha256::new();
        for extent in &self.extents {
            match extent {
                Extent::Bytes(bytes) => {
                    hash.update(b"bytes");
                    hash.update((bytes.len() as u64).to_le_bytes());
                    hash.update(bytes);
                }
                Extent::File { source, offset, len } => {
                    hash.update(b"file");
                    hash.update(source.sha256);
                    hash.update(offset.to_le_bytes());
                    hash.update(len.to_le_bytes());
                }
                Extent::Zeros(len) => {
                    hash.update(b"zeros");
                    hash.update(len.to_le_bytes());
                }
            }
        }
        // 128 bits keep the header short and make collisions negligible.
        let digits: String = hash.finalize()[..16].iter().map(|b| format!("{b:02x}")).collect();
        format!("\"{digits}\"")
    }

    /// Appends an extent; empty ones are left out.
    pub(crate) fn push(&mut self, extent: Extent) {
        if extent.len() > 0 {
            self.len += extent.len();
            self.extents.push(extent);
        }
    }

    /// Appends bytes.
    pub(crate) fn push_bytes(&mut self, bytes: impl Into<Arc<[u8]>>) {
        self.push(Extent::Bytes(bytes.into()));
    }

    /// Appends another image.
    pub(crate) fn append(&mut self, other: &Self) {
        self.extents.extend_from_slice(&other.extents);
        self.len += other.len;
    }

    /// Appends zeros up to `len`.
    pub(crate) fn pad_to(&mut self, len: u64) {
        self.push(Extent::Zeros(len.saturating_sub(self.len)));
    }

    /// The slices in `range`, in order, up to the end of the image.
    pub fn slice(&self, range: Range<u64>) -> impl Iterator<Item = ExtentSlice<'_>> {
        let mut start = 0;
        self.extents.iter().filter_map(move |extent| {
            let this = start..start + extent.len();
            start = this.end;
            let from = range.start.max(this.start);
            let to = range.end.min(this.end);
            (from < to).then(|| extent.part(from - this.start..to - this.start))
        })
    }

    /// The bytes in `range`; `read` fills a buffer from a shared file at an offset.
    ///
    /// For small images and for tests: the result is in memory.
    ///
    /// # Errors
    /// The first error of `read`.
    pub fn read_with<E>(
        &self,
        range: Range<u64>,
        mut read: impl FnMut(&SharedFile, u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Vec<u8>, E> {
        let mut bytes = Vec::new();
        for slice in self.slice(range) {
            match slice {
                ExtentSlice::Bytes(part) => bytes.extend_from_slice(part),
                ExtentSlice::File { source, offset, len } => {
                    let start = bytes.len();
                    bytes.resize(start + len as usize, 0);
                    read(source, offset, &mut bytes[start..])?;
                }
                ExtentSlice::Zeros(len) => bytes.resize(bytes.len() + len as usize, 0),
            }
        }
        Ok(bytes)
    }

    /// All bytes, if none of them is in a file.
    #[must_use]
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let in_file = self.extents.iter().any(|extent| matches!(extent, Extent::File { .. }));
        let read = |_: &SharedFile, _, _: &mut [u8]| Ok::<_, Infallible>(());
        (!in_file).then(|| self.read_with(0..self.len, read).unwrap_or_else(|never| match never {}))
    }
}

impl FromIterator<Extent> for ComposedImage {
    fn from_iter<I: IntoIterator<Item = Extent>>(extents: I) -> Self {
        let mut image = Self::default();
        extents.into_iter().for_each(|extent| image.push(extent));
        image
    }
}

impl From<ExtentSlice<'_>> for Extent {
    fn from(slice: ExtentSlice<'_>) -> Self {
        match slice {
            ExtentSlice::Bytes(bytes) => Self::Bytes(bytes.into()),
            ExtentSlice::File { source, offset, len } => {
                Self::File { source: source.clone(), offset, len }
            }
            ExtentSlice::Zeros(len) => Self::Zeros(len),
        }
    }
}

impl Extent {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { len, .. } | Self::Zeros(len) => *len,
        }
    }

    /// The slice of the extent; `range` is within the extent.
    fn part(&self, range: Range<u64>) -> ExtentSlice<'_> {
        match self {
            Self::Bytes(bytes) => {
                ExtentSlice::Bytes(&bytes[range.start as usize..range.end as usize])
            }
            Self::File { source, offset, .. } => ExtentSlice::File {
                source,
                offset: offset + range.start,
                len: range.end - range.start,
            },
            Self::Zeros(_) => ExtentSlice::Zeros(range.end - range.start),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A shared file whose bytes depend on their positions.
    pub(crate) fn source(name: &str, len: u64) -> SharedFile {
        let sha256 = Sha256::digest(format!("{name} {len}")).into();
        SharedFile { name: name.into(), len, sha256 }
    }

    pub(crate) fn byte(source: &SharedFile, at: u64) -> u8 {
        source.name.as_bytes()[0] ^ (at % 251) as u8
    }

    pub(crate) fn contents(image: &ComposedImage) -> Vec<u8> {
        part(image, 0..image.len())
    }

    pub(crate) fn part(image: &ComposedImage, range: Range<u64>) -> Vec<u8> {
        let read = |source: &SharedFile, offset: u64, buffer: &mut [u8]| {
            assert!(offset + buffer.len() as u64 <= source.len, "read behind the end");
            for (at, out) in (offset..).zip(buffer) {
                *out = byte(source, at);
            }
            Ok::<_, Infallible>(())
        };
        image.read_with(range, read).unwrap()
    }

    fn extent() -> impl Strategy<Value = Extent> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..50).prop_map(|b| Extent::Bytes(b.into())),
            (0u64..50, 0u64..50).prop_map(|(offset, len)| Extent::File {
                source: source("kernel", 100),
                offset,
                len
            }),
            (0u64..50).prop_map(Extent::Zeros),
        ]
    }

    proptest! {
        #[test]
        fn a_slice_is_that_part_of_the_whole(
            extents in proptest::collection::vec(extent(), 0..8), from in 0u64..400, len in 0u64..400,
        ) {
            let image: ComposedImage = extents.into_iter().collect();
            let whole = contents(&image);
            prop_assert_eq!(whole.len() as u64, image.len());

            let sliced = part(&image, from..from + len);

            let from = (from as usize).min(whole.len());
            let to = (from + len as usize).min(whole.len());
            prop_assert_eq!(&sliced, &whole[from..to]);
        }
    }

    #[test]
    fn a_tag_changes_with_the_digest_of_a_shared_file() {
        let old = ComposedImage::of_file(source("kernel", 10));
        let mut other = source("kernel", 10);
        other.sha256[0] ^= 1;

        assert_ne!(old.etag(), ComposedImage::of_file(other).etag());
        assert_eq!(old.etag(), ComposedImage::of_file(source("kernel", 10)).etag());
    }

    #[test]
    fn a_tag_is_strong_and_quoted() {
        let tag = ComposedImage::of_bytes(*b"text").etag();
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() == 34, "{tag}");
    }
}
