//! The settings of the boot listener, which the daemon fills from its own.

use std::path::PathBuf;

use netboot::image_limits::ImageLimits;
use netboot::image_reach::ImageReach;
use netboot::urls::Urls;
use provision::boot::HttpLoader;

use crate::boot_sets::BootSets;

/// What the boot listener serves, and how machines are told of it.
#[derive(Clone, Debug)]
pub struct ArtifactSettings {
    /// The boot sets; they may come later.
    pub boot_sets: BootSets,
    /// Where downloaded images are kept.
    pub cache: PathBuf,
    /// Folders that `file://` images of nodes may lie in.
    pub image_dirs: Vec<PathBuf>,
    /// Which servers images of nodes may be fetched from.
    pub image_reach: ImageReach,
    /// How much images of nodes may take.
    pub image_limits: ImageLimits,
    /// What `http` starts first.
    pub http_loader: HttpLoader,
    /// Added to every kernel command line.
    pub kernel_append_params: String,
    /// Where agents call.
    pub urls: Urls,
}
