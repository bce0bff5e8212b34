//! The limits of nodes' images: disk space, open files, and download time.

use std::time::Duration;

/// The limits of nodes' images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Bytes of one image.
    pub image_bytes: u64,
    /// Bytes of all downloaded images.
    pub cache_bytes: u64,
    /// Number of open image files. Images of current boots are kept open beyond it.
    pub open_files: usize,
    /// Least speed of downloads.
    pub pace: ImagePace,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self {
            image_bytes: 8 << 30,
            cache_bytes: 32 << 30,
            open_files: 256,
            pace: ImagePace::default(),
        }
    }
}

/// The time limits of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImagePace {
    /// Time for name resolution, connections and redirects, up to the answer's head.
    pub head: Duration,
    /// Longest silence within the body.
    pub silence: Duration,
    /// Least average rate in bytes per second; the head's time is added.
    pub bytes_per_sec: u64,
}

impl Default for ImagePace {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(60),
            silence: Duration::from_secs(30),
            bytes_per_sec: 128 << 10,
        }
    }
}

impl ImagePace {
    /// The deadline of a body after `received` bytes, since its head.
    ///
    /// An image of `n` bytes takes at most `head + n / bytes_per_sec`.
    #[must_use]
    pub fn allows(self, received: u64) -> Duration {
        let secs = received / self.bytes_per_sec.max(1);
        self.head.saturating_add(Duration::from_secs(secs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_for_an_image_fits_its_length() {
        let pace = ImagePace { bytes_per_sec: 1 << 20, ..ImagePace::default() };

        assert_eq!(pace.allows(0), Duration::from_secs(60));
        assert_eq!(pace.allows(100 << 20), Duration::from_secs(160));
        assert_eq!(ImagePace { bytes_per_sec: 0, ..pace }.allows(9).as_secs(), 69);
    }
}
