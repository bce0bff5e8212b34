//! The nodes as the daemon holds them: the in-memory index that follows the store, every change of a node, and the
//! records of its boots.
//!
//! [`Nodes`] changes nodes, and [`NodeIndex`] finds them without waiting. A [`Recorder`] accepts the events of boots.

mod address_book;
pub mod address_writer;
mod boot_progress;
pub mod follower;
mod index;
mod later_boots;
mod nodes;
#[cfg(any(test, feature = "test-nodes"))]
mod test_nodes;
pub mod trace;

pub use address_book::AddressBook;
pub use boot_progress::{BootProgressTable, FetchProgress, RunningFetch};
pub use index::{FoundPort, NodeIndex};
pub use later_boots::{LaterBoot, LaterBoots};
pub use nodes::{Nodes, WorkUnderWay};
pub use trace::{Backlog, FetchEnds, Recorded, Recorder};
