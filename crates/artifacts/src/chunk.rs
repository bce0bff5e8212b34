//! Memory for a part of a file on its way to a socket. It is used again: fresh memory would have to be zeroed for each
//! read.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// Number of bytes to read and send at once: enough for a fast link, and little memory for a stalled machine.
pub(crate) const CHUNK: usize = 64 * 1024;
/// Shorter ones come from the allocator, which is fast for those.
const SHORT: usize = CHUNK / 8;
/// Number of unused chunks that are kept.
const MOST_SPARE: usize = 64;
static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// A buffer of a fixed length.
pub(crate) struct Chunk {
    memory: Vec<u8>,
    len: usize,
}

impl Chunk {
    /// A buffer of `len` bytes, at most [`CHUNK`], with any contents.
    pub(crate) fn new(len: usize) -> Self {
        let spare = if len < SHORT { None } else { spare().pop() };
        let memory = match spare {
            Some(memory) => memory,
            None if len < SHORT => vec![0; len],
            None => vec![0; CHUNK],
        };
        Self { memory, len }
    }

    /// The first `len` bytes.
    pub(crate) fn into_bytes(mut self, len: usize) -> Bytes {
        self.len = self.len.min(len);
        Bytes::from_owner(self)
    }
}

fn spare() -> std::sync::MutexGuard<'static, Vec<Vec<u8>>> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl DerefMut for Chunk {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.len]
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if self.memory.len() < CHUNK {
            return;
        }
        let mut spare = spare();
        if spare.len() < MOST_SPARE {
            spare.push(std::mem::take(&mut self.memory));
        }
    }
}
