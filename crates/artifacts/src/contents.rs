//! The contents of a ticket's files.

use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use efi::{ComposedImage, ExtentSlice, SharedFile};
use rustix::io::{ReadWriteFlags, preadv2};
use transport::http_server::FilePart;

use crate::boot_set::Shared;
use crate::chunk::{CHUNK, Chunk};

/// A shorter part of a file is sent together with what precedes it, which takes less time than the saved copy.
const SHORTEST_PART: u64 = 32 * 1024;
/// Distance of the bytes of a part that are tried: the kernel's default window of read-ahead (`read_ahead_kb`), whose pages
/// come, and mostly go, together. Trying each page would cost as much as the part itself.
const TRIED_EVERY: usize = 128 * 1024;
static ZEROS: [u8; CHUNK] = [0; CHUNK];

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

    /// Some bytes from the start of `range`, at least one if the range is not empty; `None` if that takes time.
    pub(crate) fn read_cached(&self, range: Range<u64>) -> Option<Bytes> {
        Some(match self.image.slice(range).next() {
            None => Bytes::new(),
            Some(ExtentSlice::Bytes(bytes)) => {
                Bytes::copy_from_slice(&bytes[..first(bytes.len() as u64)])
            }
            Some(ExtentSlice::Zeros(len)) => Bytes::from_static(&ZEROS[..first(len)]),
            Some(ExtentSlice::File { source, offset, len }) => {
                let mut chunk = Chunk::new(first(len));
                let file = &self.shared(source)?.file;
                let buffers = &mut [IoSliceMut::new(&mut chunk)];
                let read = preadv2(file, buffers, offset, ReadWriteFlags::NOWAIT);
                // At the end of a file that was cut, the slow read says so.
                let read = read.ok().filter(|read| *read > 0)?;
                chunk.into_bytes(read)
            }
        })
    }

    /// The part of a file with which `range` begins, if it is long and seems to be in the page cache, by a byte of each
    /// [`TRIED_EVERY`] and the last one: the kernel then sends it without waiting for a disk. Pages between these, and those
    /// that the kernel drops before the socket takes the part, are waited for in the socket's write.
    pub(crate) fn cached_part(&self, range: Range<u64>) -> Option<FilePart> {
        let ExtentSlice::File { source, offset, len } = self.image.slice(range).next()? else {
            return None;
        };
        if len < SHORTEST_PART {
            return None;
        }
        let file = &self.shared(source)?.file;
        let len = len.min(FilePart::MOST as u64);
        let is_cached = |at| {
            preadv2(file, &mut [IoSliceMut::new(&mut [0])], at, ReadWriteFlags::NOWAIT)
                .is_ok_and(|read| read > 0)
        };
        let mut tried = (offset..offset + len).step_by(TRIED_EVERY).chain([offset + len - 1]);
        let is_cached = tried.all(is_cached);
        is_cached.then(|| FilePart { file: Arc::clone(file), offset, len: len as usize })
    }

    /// The same as [`read_cached`](Self::read_cached), on a thread for blocking calls.
    pub(crate) async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let Some(ExtentSlice::File { source, offset, len }) =
            self.image.slice(range.clone()).next()
        else {
            return Ok(self.read_cached(range).unwrap_or_default());
        };
        let shared = self.shared(source);
        let shared = shared.ok_or_else(|| io::Error::other(format!("no {}", source.name)))?;
        let (file, mut chunk) = (Arc::clone(&shared.file), Chunk::new(first(len)));
        tokio::task::spawn_blocking(move || {
            file.read_exact_at(&mut chunk, offset)?;
            let read = chunk.len();
            Ok(chunk.into_bytes(read))
        })
        .await?
    }

    fn shared(&self, source: &SharedFile) -> Option<&Shared> {
        self.files.iter().find(|shared| shared.source == *source)
    }
}

/// The length of the first read of `len` bytes.
fn first(len: u64) -> usize {
    usize::try_from(len).map_or(CHUNK, |len| len.min(CHUNK))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use rustix::fs::{Advice, fadvise};

    use super::*;

    #[test]
    fn a_part_of_which_pages_in_the_middle_are_not_in_the_page_cache_is_read_elsewhere() {
        let len = FilePart::MOST as u64;
        // Beside the test itself: a temporary folder may be in memory, where nothing leaves the page cache.
        let beside = std::env::current_exe().unwrap();
        let mut file = tempfile::tempfile_in(beside.parent().unwrap()).unwrap();
        file.write_all(&vec![1; FilePart::MOST]).unwrap();
        file.sync_all().unwrap();
        let source = SharedFile { name: "kernel".into(), len, sha256: [0; 32] };
        let file = Arc::new(file);
        let shared = Shared { source: source.clone(), file: Arc::clone(&file) };
        let contents = Contents::new(ComposedImage::of_file(source), "x/y", vec![shared]);

        // Without read-ahead.
        for advice in [Advice::DontNeed, Advice::Random] {
            fadvise(&*file, 0, None, advice).unwrap();
        }
        for at in [0, len - 1] {
            file.read_exact_at(&mut [0], at).unwrap();
        }
        assert!(contents.cached_part(0..len).is_none());

        file.read_exact_at(&mut vec![0; FilePart::MOST], 0).unwrap();
        assert_eq!(contents.cached_part(0..len).unwrap().len, FilePart::MOST);
    }
}
