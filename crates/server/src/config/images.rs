//! `[images]`: `deploy_iso`, `deploy_kernel` and `deploy_ramdisk` of nodes.

use anyhow::{Result, ensure};
use netboot::image_limits::{ImageLimits, ImagePace};
use serde::Deserialize;

/// `[images]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageConfig {
    /// Whether images may be fetched from this host's loopback addresses. Images are never fetched from this service
    /// itself.
    pub loopback: bool,
    /// Whether images may be fetched from link-local addresses; clouds serve secrets at 169.254.169.254.
    pub link_local: bool,
    /// Largest image, in MiB.
    pub longest_mib: u32,
    /// Size of all downloaded images, in MiB; the least recently used are evicted.
    pub cache_mib: u32,
    /// Number of image files kept open between boots.
    pub open_files: u16,
    /// Least download rate in KiB per second, after the first minute.
    pub slowest_kib_per_sec: u32,
}

impl Default for ImageConfig {
    fn default() -> Self {
        let limits = ImageLimits::default();
        let mib = |bytes: u64| u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        Self {
            loopback: false,
            link_local: false,
            longest_mib: mib(limits.image_bytes),
            cache_mib: mib(limits.cache_bytes),
            open_files: u16::try_from(limits.open_files).unwrap_or(u16::MAX),
            slowest_kib_per_sec: u32::try_from(limits.pace.bytes_per_sec >> 10).unwrap_or(u32::MAX),
        }
    }
}

impl ImageConfig {
    /// The limits of images, in bytes.
    pub(crate) fn limits(&self) -> ImageLimits {
        let pace = ImagePace {
            bytes_per_sec: u64::from(self.slowest_kib_per_sec) << 10,
            ..ImagePace::default()
        };
        ImageLimits {
            image_bytes: u64::from(self.longest_mib) << 20,
            cache_bytes: u64::from(self.cache_mib) << 20,
            open_files: self.open_files.into(),
            pace,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        ensure!(self.longest_mib > 0, "images.longest_mib must be at least 1");
        ensure!(
            self.cache_mib >= self.longest_mib,
            "images.cache_mib must be at least longest_mib: an image of that length would never be kept"
        );
        ensure!(self.open_files > 0, "images.open_files must be at least 1");
        ensure!(
            self.slowest_kib_per_sec > 0,
            "images.slowest_kib_per_sec must be at least 1: a silent server would block a node"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::tests::refusal;

    #[test]
    fn images_have_limits_that_go_together() {
        let config: Config = "[images]\nslowest_kib_per_sec = 1\ncache_mib = 9000".parse().unwrap();
        let limits = config.images.limits();

        assert_eq!((limits.pace.bytes_per_sec, limits.cache_bytes), (1 << 10, 9000 << 20));
        assert_eq!(ImageConfig::default().limits(), ImageLimits::default());
        assert!(refusal("[images]\ncache_mib = 1").contains("at least longest_mib"));
        assert!(refusal("[images]\nslowest_kib_per_sec = 0").contains("at least 1"));
        assert!(refusal("[images]\nopen_files = 0").contains("at least 1"));
    }
}
