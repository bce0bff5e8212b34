//! The contents of a ticket's files.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use efi::{ComposedImage, ExtentSlice};

use crate::boot_set::Shared;

/// Number of bytes to read and send at once: enough for a fast link, and little memory for a stalled machine.
const CHUNK: u64 = 256 * 1024;
static ZEROS: [u8; CHUNK as usize] = [0; CHUNK as usize];

/// A file of a ticket.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) image: ComposedImage,
    /// Its strong entity tag, with quotes.
    pub(crate) etag: String,
    pub(crate) content_type: &'static str,
    /// All files with extents of the image.
    files: Vec<Shared>,
}

impl Contents {
    /// An image whose extents lie in these files.
    pub(crate) fn new(
        image: ComposedImage,
        content_type: &'static str,
        files: Vec<Shared>,
    ) -> Self {
        Self { etag: image.etag(), image, content_type, files }
    }

    /// A text instead of a file.
    pub(crate) fn sentence(sentence: String) -> Self {
        Self::new(ComposedImage::of_bytes(sentence.into_bytes()), "text/plain", Vec::new())
    }

    /// Some bytes from the start of `range`, at least one if the range is not empty.
    pub(crate) async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let Some(slice) = self.image.slice(range).next() else { return Ok(Bytes::new()) };
        match slice {
            ExtentSlice::Bytes(bytes) => Ok(Bytes::copy_from_slice(bytes)),
            ExtentSlice::Zeros(len) => Ok(Bytes::from_static(&ZEROS[..len.min(CHUNK) as usize])),
            ExtentSlice::File { source, offset, len } => {
                let shared = self.files.iter().find(|shared| shared.source == *source);
                let shared =
                    shared.ok_or_else(|| io::Error::other(format!("no {}", source.name)))?;
                let file = Arc::clone(&shared.file);
                let mut buffer = vec![0; len.min(CHUNK) as usize];
                tokio::task::spawn_blocking(move || {
                    file.read_exact_at(&mut buffer, offset).map(|()| Bytes::from(buffer))
                })
                .await?
            }
        }
    }
}
