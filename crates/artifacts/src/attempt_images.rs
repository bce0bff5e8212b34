//! The images of each node's attempt: found before its machine is touched, and composed when the machine fetches them.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use anyhow::{Context, Result};
use hardware::CpuArch;
use netboot::composition::{agent_authority_archive, artifacts_of};
use nodes::NodeIndex;
use provision::artifact::{Artifact, HttpLoader};
use provision::boot::{boot_mac, bootable, kernel_command_line};
use provision::image_memory::memory_warning;
use provision::virtual_media::attempt_with_live_cd;
use provision::{Attempt, Boots, Node};
use tracing::{debug, info, warn};

use crate::contents::Contents;
use crate::images::{Files, ImageStore, Images, image_urls};
use crate::settings::ArtifactSettings;
use crate::sources::{Fresh, Sources};

/// The images of all nodes' attempts.
#[derive(Debug)]
pub(crate) struct AttemptImages {
    settings: ArtifactSettings,
    store: ImageStore,
    index: NodeIndex,
}

impl AttemptImages {
    pub(crate) fn open(settings: ArtifactSettings, index: NodeIndex) -> Result<Self> {
        let booting = index.clone();
        let sources = Sources::open(
            settings.image_dirs.clone(),
            settings.cache.clone(),
            &settings.image_reach,
            settings.image_limits,
            move || booting.booting().iter().flat_map(|node| image_urls(node)).collect(),
        )?;
        let authority = settings.agent_authority.as_deref().map(agent_authority_archive);
        let store = ImageStore::new(
            settings.boot_sets.folder(),
            sources,
            authority.unwrap_or_default(),
            settings.uki_signer.clone(),
        );
        Ok(Self { settings, store, index })
    }

    /// The first loader of `http`.
    pub(crate) fn loader(&self) -> HttpLoader {
        self.settings.http_loader
    }

    /// Logs the available boot sets.
    pub(crate) fn say_what_is_there(&self) {
        let mut there = Vec::new();
        for (cpu_arch, boot_set) in self.store.boot_sets() {
            match boot_set {
                Ok(_) => there.push(cpu_arch.name()),
                Err(missing) if cpu_arch == CpuArch::X64 => {
                    warn!("x64 nodes without images of their own cannot boot yet: {missing:#}");
                }
                Err(missing) => debug!("no boot set for {cpu_arch}: {missing:#}"),
            }
        }
        if !there.is_empty() {
            info!("there are boot sets for {}", there.join(" and "));
        }
    }

    /// Finds a node's images, tries to compose them, and holds them for the node's attempt.
    pub(crate) async fn prepare(&self, node: &Node) -> Result<()> {
        self.settings.boot_sets.look_again();
        let attempt = node.live_attempt();
        let interface = attempt.map_or(node.boot_interface, |attempt| attempt.boot_interface);
        let boots = attempt.map_or(Boots::Ramdisk, Attempt::boots);
        let found = self.store.find(node, boots, interface, Fresh::Checked).await?;
        let found = Arc::new(found);
        let (loader, cpu_arch) = (self.settings.http_loader, found.cpu_arch());
        let artifacts = match &found.files {
            Files::Iso(_) => vec![Artifact::Iso],
            Files::Ramdisks(_) => artifacts_of(interface, loader, cpu_arch)?,
        };
        for artifact in artifacts {
            // The longest possible address, for the length of the command line.
            let near = IpAddr::V6(Ipv6Addr::from([0xff; 16]));
            let command_line = match attempt {
                Some(attempt) => self.command_line(node, attempt, near)?,
                None => String::new(),
            };
            let composed = found
                .compose(artifact, cpu_arch, loader, command_line)
                .await
                .with_context(|| format!("{} cannot be made", artifact.file_name()))?;
            if let Some(warning) = memory_warning(node, composed.image.len()) {
                warn!(node.uuid = %node.uuid, "{}: {warning}", node.uuid);
            }
        }
        if let Some(attempt) = attempt {
            self.hold(node, attempt, &found);
        }
        Ok(())
    }

    /// A file of an attempt; `near` is the service's address that the machine reached.
    pub(crate) async fn contents(
        &self,
        node: &Node,
        attempt: &Attempt,
        artifact: Artifact,
        near: IpAddr,
    ) -> Result<Arc<Contents>> {
        let held = match self.store.held(node.uuid, attempt.id) {
            Some(held) => held,
            // The daemon was restarted during a boot.
            None => {
                let (boots, interface) = (attempt.boots(), attempt.boot_interface);
                let found = self.store.find(node, boots, interface, Fresh::AsKnown).await?;
                let found = Arc::new(found);
                self.hold(node, attempt, &found);
                found
            }
        };
        let command_line = || self.command_line(node, attempt, near);
        held.contents(artifact, near, self.settings.http_loader, command_line).await
    }

    fn hold(&self, node: &Node, attempt: &Attempt, images: &Arc<Images>) {
        let is_over = |node, attempt| {
            let node = self.index.by_uuid(node);
            let current = node
                .as_ref()
                .and_then(|(node, _)| bootable(node).or_else(|| attempt_with_live_cd(node)));
            current.is_none_or(|current| current.id != attempt)
        };
        self.store.hold(node.uuid, attempt.id, images, is_over);
    }

    fn command_line(&self, node: &Node, attempt: &Attempt, near: IpAddr) -> Result<String> {
        let ports = self.index.by_uuid(node.uuid).map(|(_, ports)| ports).unwrap_or_default();
        let api_url = self.settings.urls.agent(near);
        let append = &self.settings.kernel_append_params;
        Ok(kernel_command_line(node, attempt, &api_url, append, boot_mac(&ports))?)
    }
}
