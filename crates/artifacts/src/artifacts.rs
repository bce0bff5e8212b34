//! All that can be booted, and the listener that serves it.

use std::sync::Arc;

use anyhow::Result;
use nodes::{NodeIndex, Recorder};
use provision::Node;
use tokio::net::TcpListener;
use transport::http_server::metrics::HttpMetrics;
use transport::http_server::{self, BodyLimits, ConnectionLimits, HeaderNames, ServedPort};

use crate::attempt_images::AttemptImages;
use crate::service::BootService;
use crate::settings::ArtifactSettings;

/// All that can be booted; clones share it.
#[derive(Clone, Debug)]
pub struct Artifacts {
    images: Arc<AttemptImages>,
    index: NodeIndex,
    recorder: Recorder,
}

impl Artifacts {
    /// Looks for the boot set; that it is not there yet is a warning, not an error.
    ///
    /// # Errors
    /// When no HTTP client can be made for downloads.
    pub fn open(settings: ArtifactSettings, index: NodeIndex, recorder: Recorder) -> Result<Self> {
        let images = AttemptImages::open(settings, index.clone())?;
        images.say_what_is_there();
        Ok(Self { images: Arc::new(images), index, recorder })
    }

    /// Finds all that a node will boot with, downloads what is not here, and holds it for the
    /// node's attempt, if one is under way.
    ///
    /// # Errors
    /// Why the node could not boot, in words, before its machine is touched.
    pub async fn prepare(&self, node: &Node) -> Result<()> {
        self.images.prepare(node).await
    }

    /// Answers on `listeners` until `end`, and then lets answers under way come to theirs.
    pub async fn serve(
        self,
        listeners: Vec<TcpListener>,
        limits: ConnectionLimits,
        metrics: HttpMetrics,
        end: impl Future<Output = ()>,
    ) {
        let port = ServedPort {
            name: "boot",
            listeners,
            limits,
            // No request for a file has a body.
            bodies: BodyLimits { each: 0, all: 0 },
            headers: HeaderNames::TitleCase,
            service: BootService::new(self.images, self.index, self.recorder),
            metrics,
        };
        http_server::serve(port, end).await;
    }
}
