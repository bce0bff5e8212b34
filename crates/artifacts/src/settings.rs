//! The settings of the boot listener, which the daemon fills from its own.

use std::path::PathBuf;

use netboot::image_limits::ImageLimits;
use netboot::image_reach::ImageReach;
use netboot::urls::Urls;
use provision::artifact::HttpLoader;

use crate::boot_sets::BootSets;
use crate::uki_signer::UkiSigner;

/// The settings of the boot listener.
#[derive(Clone, Debug)]
pub struct ArtifactSettings {
    /// The boot sets; they may be created later.
    pub boot_sets: BootSets,
    /// The folder of downloaded images.
    pub cache: PathBuf,
    /// Folders for nodes' `file://` images.
    pub image_dirs: Vec<PathBuf>,
    /// The servers from which nodes' images may be fetched.
    pub image_reach: ImageReach,
    /// Limits of nodes' images.
    pub image_limits: ImageLimits,
    /// The first loader of `http`.
    pub http_loader: HttpLoader,
    /// Arguments added to every kernel command line.
    pub kernel_append_params: String,
    /// Signs the nodes' UKIs, alone and in ISO images; `None` leaves them unsigned.
    pub uki_signer: Option<UkiSigner>,
    /// The boot and agent URLs.
    pub urls: Urls,
    /// The certificate (PEM) of the authority of the agents' port, for ramdisks; `None` without TLS.
    pub agent_authority: Option<String>,
}

impl ArtifactSettings {
    /// Default settings: UKIs without a signature, and no images of nodes' own.
    #[must_use]
    pub fn new(boot_sets: BootSets, cache: PathBuf, urls: Urls) -> Self {
        Self {
            boot_sets,
            cache,
            image_dirs: Vec::new(),
            image_reach: ImageReach::default(),
            image_limits: ImageLimits::default(),
            http_loader: HttpLoader::default(),
            kernel_append_params: String::new(),
            uki_signer: None,
            urls,
            agent_authority: None,
        }
    }
}
