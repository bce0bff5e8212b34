//! All boot artifacts, and the listener that serves them.

use std::sync::Arc;

use anyhow::Result;
use nodes::{NodeIndex, Recorder};
use provision::Node;
use transport::http_server::metrics::HttpMetrics;
use transport::http_server::{
    self, BodyLimits, ConnectionLimits, HeaderNames, PortListener, ServedPort,
};

use crate::attempt_images::AttemptImages;
use crate::service::BootService;
use crate::settings::ArtifactSettings;

/// All artifacts; clones share them.
#[derive(Clone, Debug)]
pub struct Artifacts {
    images: Arc<AttemptImages>,
    index: NodeIndex,
    recorder: Recorder,
}

impl Artifacts {
    /// Opens the boot sets; a missing boot set causes a warning, not an error.
    ///
    /// # Errors
    /// No HTTP client can be created for downloads.
    pub fn open(settings: ArtifactSettings, index: NodeIndex, recorder: Recorder) -> Result<Self> {
        let images = AttemptImages::open(settings, index.clone())?;
        images.say_what_is_there();
        Ok(Self { images: Arc::new(images), index, recorder })
    }

    /// Finds all images of a node, downloads missing ones, and holds them for the node's attempt, if one is under
    /// way.
    ///
    /// # Errors
    /// The reason why the node cannot boot, before its machine is touched.
    pub async fn prepare(&self, node: &Node) -> Result<()> {
        self.images.prepare(node).await
    }

    /// Serves `listeners` until `end`, then finishes current answers.
    pub async fn serve(
        self,
        listeners: Vec<PortListener>,
        limits: ConnectionLimits,
        metrics: HttpMetrics,
        end: impl Future<Output = ()>,
    ) {
        let port = ServedPort {
            name: "boot",
            listeners,
            limits,
            // Requests for files have no body.
            bodies: BodyLimits { each: 0, all: 0 },
            headers: HeaderNames::TitleCase,
            service: BootService::new(self.images, self.index, self.recorder),
            metrics,
        };
        http_server::serve(port, end).await;
    }
}
