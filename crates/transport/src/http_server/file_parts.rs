//! Parts of files in the body of an answer, which the kernel sends from its page cache without a copy in this process.
//!
//! A placeholder of the same length stands for a part in the body that hyper sees. The socket sends the part in its place.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::fs::sendfile;

/// A part of a file.
#[derive(Clone, Debug)]
pub struct FilePart {
    /// The file.
    pub file: Arc<File>,
    /// Where the part begins.
    pub offset: u64,
    /// Its length, at most [`FilePart::MOST`].
    pub len: usize,
}

/// Never read: only its place in memory and its length count.
static PLACEHOLDER: [u8; FilePart::MOST] = [0; FilePart::MOST];

/// The parts that are not sent yet, in their order; clones share them.
#[derive(Clone, Debug, Default)]
pub struct FileParts(Arc<Mutex<VecDeque<FilePart>>>);

impl FilePart {
    /// The greatest length of a part.
    pub const MOST: usize = 512 * 1024;
}

impl FileParts {
    /// Adds a part, and returns its placeholder for the body.
    #[must_use]
    pub fn push(&self, part: FilePart) -> Bytes {
        let placeholder = Bytes::from_static(&PLACEHOLDER[..part.len.min(FilePart::MOST)]);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(part);
        placeholder
    }

    /// Sends up to `most` bytes of the first part.
    pub(super) fn send(&self, socket: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let part = parts.front_mut().ok_or_else(|| io::Error::other("no part of a file"))?;
        let sent = sendfile(socket, &part.file, Some(&mut part.offset), part.len.min(most))?;
        if sent == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file was cut"));
        }
        part.len -= sent;
        if part.len == 0 {
            parts.pop_front();
        }
        Ok(sent)
    }
}

/// Whether these bytes of a body stand for a part of a file.
pub(super) fn is_placeholder(bytes: &[u8]) -> bool {
    !bytes.is_empty() && PLACEHOLDER.as_ptr_range().contains(&bytes.as_ptr())
}
