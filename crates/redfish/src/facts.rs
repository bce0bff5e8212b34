//! What does not change while a BMC runs, and is read once.

use std::sync::OnceLock;

use crate::resource::RedfishResource;

/// The constant facts of a BMC that were read.
#[derive(Debug, Default)]
pub struct BmcFacts {
    root: OnceLock<RedfishResource>,
    only_system: OnceLock<String>,
}

impl BmcFacts {
    /// The service root.
    #[must_use]
    pub fn root(&self) -> Option<&RedfishResource> {
        self.root.get()
    }

    /// Keeps the service root.
    pub fn note_root(&self, root: RedfishResource) {
        // The first reading is as good as a later one.
        let _ = self.root.set(root);
    }

    /// The path of the BMC's only system.
    #[must_use]
    pub fn only_system(&self) -> Option<&str> {
        self.only_system.get().map(String::as_str)
    }

    /// Keeps the path of the BMC's only system.
    pub fn note_only_system(&self, path: String) {
        let _ = self.only_system.set(path);
    }
}
