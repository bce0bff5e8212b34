//! Nodes as the daemon holds them: the index in memory that follows the store, every change of a node, and what is
//! recorded of its boots.
//!
//! [`Nodes`] changes nodes, and [`NodeIndex`] finds them without waiting. A [`Recorder`] takes what happens in boots.

mod address_book;
pub mod address_writer;
pub mod follower;
mod index;
mod later_boots;
mod nodes;
#[cfg(any(test, feature = "test-nodes"))]
mod test_nodes;
pub mod trace;

pub use address_book::AddressBook;
pub use index::{FoundPort, NodeIndex};
pub use later_boots::{LaterBoot, LaterBoots};
pub use nodes::{Nodes, WorkUnderWay};
pub use trace::{Backlog, FetchEnds, Recorded, Recorder};
