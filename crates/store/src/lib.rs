//! Nodes, ports, work and traces, on SQLite or PostgreSQL.
//!
//! The same statements serve both databases (`sqlx::Any`), and the same contract tests check both. Nothing is decided
//! here: [`Store::change`] takes the decision as a function, and saves the result (the node, its next work, its
//! trace) in one transaction.

mod agent_calls;
mod authority;
mod boot_changes;
mod change;
mod clock;
mod connections;
mod daemons;
mod error;
mod events;
mod health;
mod key;
mod lock;
mod nodes;
mod numbers;
mod open;
mod pools;
mod ports;
mod secrets;
mod secrets_in_clear;
mod sql;
mod taken_node;
mod work;

pub use agent_calls::{AgentCallProgress, StoredAgentAnswer, StoredAgentCall};
pub use authority::StoredAuthority;
pub use change::Change;
pub use clock::Clock;
pub use daemons::{DaemonIdentity, KnownDaemon};
pub use error::{
    ChangeError, CreateNodeError, ListError, Other, PortChangeError, PortError, RegistrationError,
    StoreError, StoreFailure, WorkError, log_store_failure,
};
pub use events::{AttemptSummary, Retention};
pub use health::{FailureCounts, Health};
pub use key::{DecryptError, HOW_TO_MAKE_A_KEY, KeyError};
pub use lock::{DatabaseLock, DatabaseLockError};
pub use nodes::{NodeFilter, NodeKey, NodeSort, SortDirection, StoredNode};
pub use numbers::{ChangeNumber, ChangePage, NodeChange, SavedNode, SavedPorts};
pub use open::Store;
pub use pools::{DaemonPools, DaemonReservation, PoolOverlap, PoolRange, ReservationConflict};
pub use ports::{ChangedPort, PortFilter, PortKey};
pub use work::{Claim, Claimed};
