//! The boot listener: it serves the files for firmware and boot loaders, composed for each node, over HTTP/1.1.
//!
//! It is a separate server, not a part of the API: firmware supports less of HTTP than a browser, and gives up
//! silently if an answer has an unexpected form.
//!
//! [`Artifacts`] finds a node's images before its machine is touched, and serves them. [`netboot`] decides the answer
//! to each request.

mod answer;
mod artifacts;
mod attempt_images;
mod body;
mod boot_set;
mod boot_sets;
mod chunk;
mod contents;
mod exchange;
mod images;
mod machine_peers;
mod private_file;
mod service;
mod settings;
mod sources;
mod token_key;
mod uki_signer;

pub use artifacts::Artifacts;
pub use boot_sets::{BootSets, check_boot_set, ipxe_trusts_firmware_cas, shim_authorities};
pub use machine_peers::MachinePeers;
pub use settings::ArtifactSettings;
pub use token_key::TokenKeyUri;
pub use uki_signer::{SignKey, SigningKey, UkiSigner};
