//! The request of a DHCP client, and its machine.

use std::fmt::{self, Display};

use dhcp::client::Features;
use hardware::{ClientArchitecture, ClientKind, Mac};
use uuid::Uuid;

use crate::node_view::RegisteredPort;

/// A client's request.
#[derive(Debug)]
pub struct DhcpRequest {
    /// The port of the machine; `None` if it is not registered.
    pub registered: Option<RegisteredPort>,
    /// The type of the message.
    pub message: &'static str,
    /// The client's MAC address, if known.
    pub mac: Option<Mac>,
    /// The kind of client.
    pub client: ClientKind,
    /// The architecture that selects the loader, among those in the request.
    pub architecture: Option<ClientArchitecture>,
    /// iPXE's features, from the request.
    pub features: Features,
}

impl DhcpRequest {
    /// The node of the machine, if it is registered.
    #[must_use]
    pub fn node(&self) -> Option<Uuid> {
        self.registered.as_ref().map(|registered| registered.node.uuid)
    }
}

/// `DISCOVER from iPXE at 52:54:00:00:00:01`
impl Display for DhcpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.message, self.client)?;
        match self.mac {
            Some(mac) => write!(f, " at {mac}"),
            None => write!(f, " with no MAC address"),
        }
    }
}
