//! The parts of files with an operating system, as the fetches in a trace got them.

use std::ops::Range;

use hardware::HttpMethod;

use crate::artifact::{Artifact, HttpLoader};
use crate::trace::BootEventKind;

/// The sent bytes of a file, and its size.
#[derive(Clone, Debug)]
pub(crate) struct FetchedPart {
    artifact: Artifact,
    bytes: Range<u64>,
    total: u64,
}

impl FetchedPart {
    /// The part that a fetch got of a file with the operating system.
    pub(crate) fn of(what: &BootEventKind, loader: HttpLoader) -> Option<Self> {
        let BootEventKind::Http {
            method, artifact, status: 200..=299, range, sent, length, ..
        } = what
        else {
            return None;
        };
        let artifact = artifact.filter(|artifact| artifact.holds_ramdisk(loader))?;
        if *method != HttpMethod::Get {
            return None;
        }
        Self::of_answer(artifact, range.as_deref(), *sent, *length)
    }

    /// The part that a fetch gets with its last byte.
    pub(crate) fn announced(what: &BootEventKind, loader: HttpLoader) -> Option<Self> {
        let BootEventKind::LastByte { artifact, range, length } = what else { return None };
        let artifact = Some(*artifact).filter(|artifact| artifact.holds_ramdisk(loader))?;
        Self::of_answer(artifact, range.as_deref(), *length, *length)
    }

    /// The part in an answer with `length` bytes, of which `sent` were sent.
    fn of_answer(artifact: Artifact, range: Option<&str>, sent: u64, length: u64) -> Option<Self> {
        let (start, total) = range.map_or(Some((0, length)), content_range)?;
        Some(Self { artifact, bytes: start..start.saturating_add(sent), total })
    }

    /// Whether it reaches the end of the file.
    pub(crate) fn has_the_end(&self) -> bool {
        self.bytes.end == self.total
    }
}

/// The first byte and the total size in `bytes 0-99/1000` (RFC 9110 §14.4).
pub(crate) fn content_range(range: &str) -> Option<(u64, u64)> {
    let (bytes, total) = range.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = bytes.split_once('-')?;
    Some((first.parse().ok()?, total.parse().ok()?))
}

/// Number of distinct bytes of a file, and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FetchedBytes {
    pub(crate) bytes: u64,
    pub(crate) total: u64,
}

impl FetchedBytes {
    /// Whether no byte is missing.
    pub(crate) fn are_all(self) -> bool {
        self.total > 0 && self.bytes >= self.total
    }
}

/// The bytes of each file, from parts in any order.
pub(crate) fn fetched_bytes(mut parts: Vec<FetchedPart>) -> Vec<FetchedBytes> {
    parts.sort_by_key(|part| (part.artifact, part.bytes.start));
    let of_one_file = |parts: &[FetchedPart]| {
        let (mut bytes, mut reached) = (0, 0);
        for part in parts {
            bytes += part.bytes.end.saturating_sub(part.bytes.start.max(reached));
            reached = reached.max(part.bytes.end);
        }
        let total = parts.iter().map(|part| part.total).max().unwrap_or_default();
        FetchedBytes { bytes, total }
    };
    parts.chunk_by(|a, b| a.artifact == b.artifact).map(of_one_file).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_range_makes_it_panic(range in "(bytes )?[0-9/*-]{0,40}") {
            let _ = content_range(&range);
        }
    }
}
