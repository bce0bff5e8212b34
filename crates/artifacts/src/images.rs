//! The images of each attempt, held from before the power-on, so that no boot mixes two versions of a boot set.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, Result};
use efi::Uki;
use hardware::CpuArch;
use netboot::boot_set::{boot_set_instructions, folder_of};
use netboot::composition::{Ingredients, compose, config_drive_archive, content_type, unsigned};
use provision::artifact::{Artifact, HttpLoader};
use provision::boot::NoBoot;
use provision::image::{MachineImage, NamedImage, image_of};
use provision::{BootInterface, Boots, Node};
use tokio::task::spawn_blocking;
use tracing::info;
use uuid::Uuid;

use crate::boot_set::{BootSet, Ramdisk, Shared};
use crate::contents::Contents;
use crate::sources::{Fresh, Sources};
use crate::uki_signer::UkiSigner;

/// The URLs of the images in a node's attempt.
pub(crate) fn image_urls(node: &Node) -> Vec<String> {
    let image = node
        .live_attempt()
        .and_then(|attempt| image_of(node, attempt.boots(), attempt.boot_interface).ok());
    image.into_iter().flat_map(MachineImage::named).map(|named| named.url.to_owned()).collect()
}

/// The images of an attempt, all open.
#[derive(Debug)]
pub(crate) struct Images {
    pub(crate) files: Files,
    /// The archive to unpack over the initramfs; empty for none.
    seed: Vec<u8>,
    signer: Option<UkiSigner>,
    /// The architecture of the loader that the machine fetched, otherwise the node's: kernel, ramdisk and scripts
    /// have the same names for all architectures.
    cpu_arch: Mutex<CpuArch>,
    /// Keyed by the service's address that the machine reached, which is on the kernel command line.
    composed: Mutex<HashMap<(Artifact, CpuArch, IpAddr), Arc<Contents>>>,
}

/// The parts of images.
#[derive(Debug)]
pub(crate) enum Files {
    /// A foreign image, sent unchanged.
    Iso(Shared),
    /// For each architecture, a boot set's loaders and a ramdisk, the node's own or the boot set's.
    Ramdisks(BTreeMap<CpuArch, (Arc<BootSet>, Ramdisk)>),
}

impl Images {
    fn of(files: Files, cpu_arch: CpuArch, seed: Vec<u8>, signer: Option<UkiSigner>) -> Self {
        Self { files, seed, signer, cpu_arch: Mutex::new(cpu_arch), composed: Mutex::default() }
    }

    /// The composed image, cached, since a BMC fetches an ISO in thousands of parts.
    pub(crate) async fn contents(
        self: &Arc<Self>,
        artifact: Artifact,
        near: IpAddr,
        loader: HttpLoader,
        command_line: impl FnOnce() -> Result<String>,
    ) -> Result<Arc<Contents>> {
        let cpu_arch = self.cpu_arch_of(artifact);
        let place = (artifact, cpu_arch, near);
        if let Some(contents) = locked(&self.composed).get(&place) {
            return Ok(Arc::clone(contents));
        }
        let contents = self.compose(artifact, cpu_arch, loader, command_line()?).await?;
        let mut composed = locked(&self.composed);
        // Another request may have composed it meanwhile, from the same data.
        Ok(Arc::clone(composed.entry(place).or_insert_with(|| Arc::new(contents))))
    }

    /// Composes an artifact; on a thread for blocking calls, since a signature may read the files.
    pub(crate) async fn compose(
        self: &Arc<Self>,
        artifact: Artifact,
        cpu_arch: CpuArch,
        loader: HttpLoader,
        command_line: String,
    ) -> Result<Contents> {
        let images = Arc::clone(self);
        let compose = move || images.compose_blocking(artifact, cpu_arch, loader, &command_line);
        spawn_blocking(compose).await.context("the composition ended early")?
    }

    fn compose_blocking(
        &self,
        artifact: Artifact,
        cpu_arch: CpuArch,
        loader: HttpLoader,
        command_line: &str,
    ) -> Result<Contents> {
        let (ingredients, files) = match &self.files {
            Files::Iso(iso) => (Ingredients::Iso(&iso.source), vec![iso.clone()]),
            Files::Ramdisks(ramdisks) => {
                let no_boot_set = || NoBoot::NoBootSet { cpu_arch }.to_string();
                let (boot_set, ramdisk) = ramdisks.get(&cpu_arch).with_context(no_boot_set)?;
                let files = boot_set.ramdisk_files(ramdisk, &self.seed);
                (Ingredients::Ramdisk(files), boot_set.open_files(ramdisk))
            }
        };
        let sign = |uki: Uki| match &self.signer {
            Some(signer) => Ok(signer.sign(&uki, &files)?),
            None => unsigned(uki),
        };
        let image = compose(artifact, loader, &ingredients, command_line, &sign)?;
        Ok(Contents::new(image, content_type(artifact), files))
    }

    /// The architecture of the machine, as far as known.
    pub(crate) fn cpu_arch(&self) -> CpuArch {
        *locked(&self.cpu_arch)
    }

    fn cpu_arch_of(&self, artifact: Artifact) -> CpuArch {
        let mut known = locked(&self.cpu_arch);
        if let Some(cpu_arch) = artifact.cpu_arch() {
            *known = cpu_arch;
        }
        *known
    }
}

/// The sources of images, and the images held by attempts.
#[derive(Debug)]
pub(crate) struct ImageStore {
    boot_sets: [Folder; CpuArch::ALL.len()],
    sources: Sources,
    /// The archive that each ramdisk gets; empty for none.
    agent_authority: Vec<u8>,
    signer: Option<UkiSigner>,
    /// Keyed by node.
    held: Mutex<HashMap<Uuid, Held>>,
}

/// The images of a node's attempt.
#[derive(Debug)]
struct Held {
    attempt: Uuid,
    images: Arc<Images>,
}

impl ImageStore {
    /// `agent_authority` is the archive that each ramdisk gets; empty for none.
    pub(crate) fn new(
        boot_sets: &Path,
        sources: Sources,
        agent_authority: Vec<u8>,
        signer: Option<UkiSigner>,
    ) -> Self {
        let boot_sets = CpuArch::ALL.map(|cpu_arch| Folder {
            cpu_arch,
            path: folder_of(boot_sets, cpu_arch),
            open: Mutex::default(),
        });
        Self { boot_sets, sources, agent_authority, signer, held: Mutex::default() }
    }

    /// The current boot sets on disk, or the reason for their absence, by architecture.
    pub(crate) fn boot_sets(&self) -> impl Iterator<Item = (CpuArch, Result<Arc<BootSet>>)> {
        self.boot_sets.iter().map(|folder| (folder.cpu_arch, folder.current()))
    }

    /// The images of a node's attempt, as first found.
    pub(crate) fn held(&self, node: Uuid, attempt: Uuid) -> Option<Arc<Images>> {
        let held = locked(&self.held);
        held.get(&node).filter(|held| held.attempt == attempt).map(|held| Arc::clone(&held.images))
    }

    /// Holds images for a node's attempt, and drops those of ended attempts.
    pub(crate) fn hold(
        &self,
        node: Uuid,
        attempt: Uuid,
        images: &Arc<Images>,
        over: impl Fn(Uuid, Uuid) -> bool,
    ) {
        let mut all = locked(&self.held);
        all.retain(|node, held| !over(*node, held.attempt));
        all.insert(node, Held { attempt, images: Arc::clone(images) });
    }

    /// Finds the images of a node, and downloads missing ones.
    pub(crate) async fn find(
        &self,
        node: &Node,
        boots: Boots,
        interface: BootInterface,
        fresh: Fresh,
    ) -> Result<Images> {
        let own = match image_of(node, boots, interface)? {
            MachineImage::Iso(iso) => {
                let files = Files::Iso(self.named(iso, fresh).await?);
                return Ok(Images::of(files, CpuArch::default(), Vec::new(), None));
            }
            MachineImage::Ramdisk { kernel, ramdisk } => {
                let kernel = self.named(kernel, fresh).await?;
                let initramfs = self.named(ramdisk, fresh).await?;
                Some(Ramdisk { kernel, initramfs })
            }
            MachineImage::BootSet => None,
        };
        let cpu_arch = node.cpu_arch()?;
        let files = Files::Ramdisks(self.ramdisks(cpu_arch, own.as_ref())?);
        let seed = match boots {
            Boots::Instance => config_drive_archive(node)?,
            Boots::Ramdisk | Boots::Nothing => self.agent_authority.clone(),
        };
        Ok(Images::of(files, cpu_arch, seed, self.signer.clone()))
    }

    /// The ramdisks for each architecture; an error if there is none for `needed`.
    fn ramdisks(
        &self,
        needed: CpuArch,
        own: Option<&Ramdisk>,
    ) -> Result<BTreeMap<CpuArch, (Arc<BootSet>, Ramdisk)>> {
        let mut ramdisks = BTreeMap::new();
        for (cpu_arch, boot_set) in self.boot_sets() {
            match boot_set {
                Ok(boot_set) => {
                    let ramdisk = own.unwrap_or(&boot_set.ramdisk).clone();
                    ramdisks.insert(cpu_arch, (boot_set, ramdisk));
                }
                Err(missing) if cpu_arch == needed => return Err(missing),
                Err(_) => {}
            }
        }
        Ok(ramdisks)
    }

    async fn named(&self, image: NamedImage<'_>, fresh: Fresh) -> Result<Shared> {
        let found = self.sources.find(image.url, fresh).await;
        found.with_context(|| format!("{} cannot be used", image.field))
    }
}

/// The folder of a boot set, which may be created or replaced at any time.
#[derive(Debug)]
struct Folder {
    cpu_arch: CpuArch,
    path: PathBuf,
    open: Mutex<Option<(Seen, Arc<BootSet>)>>,
}

/// Distinguishes a manifest from its replacement.
type Seen = (u64, u64, Option<SystemTime>);

impl Folder {
    fn current(&self) -> Result<Arc<BootSet>> {
        let manifest = self.path.join("manifest.json");
        let seen = fs::metadata(&manifest).with_context(|| {
            format!(
                "there is no boot set for {} in {}: {}",
                self.cpu_arch,
                self.path.display(),
                boot_set_instructions(self.cpu_arch, &self.path),
            )
        })?;
        let seen = (seen.ino(), seen.len(), seen.modified().ok());
        let mut open = locked(&self.open);
        if let Some((known, boot_set)) = &*open
            && *known == seen
        {
            return Ok(Arc::clone(boot_set));
        }
        let boot_set = Arc::new(BootSet::open(&self.path, self.cpu_arch)?);
        info!(
            "{} boots use kernel {} of {}",
            self.cpu_arch,
            boot_set.kernel_version,
            self.path.display()
        );
        *open = Some((seen, Arc::clone(&boot_set)));
        Ok(boot_set)
    }
}

/// A panic elsewhere leaves nothing half done under these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
