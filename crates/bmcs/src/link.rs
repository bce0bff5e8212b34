//! The channel of one node to its BMC.

use std::sync::Arc;
use std::time::Duration;

use redfish::channel::{BmcChannel, ChannelFailure, RedfishAnswer, RedfishRequest};
use tokio::time::Instant;
use url::Url;

use crate::login::BmcCaller;
pub use crate::login::BmcObserver;

/// The channel of one node to its BMC. `F` are the facts that its conversations found out about the BMC.
pub struct BmcLink<'o, F>(BmcCaller<'o, F>);

impl<'o, F> BmcLink<'o, F> {
    pub(crate) fn new(caller: BmcCaller<'o, F>) -> Self {
        Self(caller)
    }

    /// The same for a single look at the system: its connection is closed after it if many are open.
    #[must_use]
    pub fn for_one_look(self) -> Self {
        Self(BmcCaller { looks_once: true, ..self.0 })
    }

    /// The facts about the BMC. They are dropped when it cannot be reached, and when it was not called for long.
    #[must_use]
    pub fn facts(&self) -> Option<Arc<F>> {
        self.0.record.facts()
    }

    /// Keeps facts about the BMC, for all links to it.
    pub fn note_facts(&self, facts: Arc<F>) {
        self.0.record.note_facts(Some(facts));
    }
}

impl<F: Send + Sync> BmcChannel for BmcLink<'_, F> {
    fn address(&self) -> &Url {
        &self.0.record.address
    }

    async fn exchange(&self, request: &RedfishRequest) -> Result<RedfishAnswer, ChannelFailure> {
        let record = &self.0.record;
        let begun = Instant::now();
        let place = record.places.acquire().await;
        let _place = place.expect("the semaphore of a BMC is never closed");
        record.note_use();
        let outcome = self.0.exchange(request, begun).await;
        record.note_use();
        outcome
    }

    async fn pause(&self, how_long: Duration) {
        tokio::time::sleep(how_long).await;
    }
}
