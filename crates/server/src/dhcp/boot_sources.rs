//! The inputs of DHCP answers besides the networks: the nodes in memory, the URLs, the boot sets, the pools of other
//! daemons.

use artifacts::BootSets;
use hardware::{CpuArch, Mac};
use netboot::boot_answer::BootContext;
use netboot::foreign_pools::ForeignPools;
use netboot::node_view::{NodeView, RegisteredPort};
use netboot::urls::Urls;
use nodes::{FoundPort, NodeIndex};
use tokio::sync::watch;

/// The inputs of DHCP answers besides the network.
#[derive(Clone, Debug)]
pub struct BootSources {
    /// The registered machines.
    pub nodes: IndexView,
    /// The boot URLs.
    pub urls: Urls,
    /// Whether PXE firmware gets iPXE over TFTP.
    pub tftp: bool,
    /// The boot sets.
    pub boot_sets: BootSets,
    /// The DHCP pools of other daemons of the same database.
    pub foreign_pools: watch::Receiver<ForeignPools>,
}

/// The index for the DHCP path.
#[derive(Clone, Debug)]
pub struct IndexView(pub NodeIndex);

impl BootSources {
    /// The context with `boot_sets`, which are searched once for many packets.
    pub(super) fn context<'a>(&'a self, boot_sets: &'a [CpuArch]) -> BootContext<'a, IndexView> {
        BootContext { nodes: &self.nodes, urls: &self.urls, boot_sets, tftp: self.tftp }
    }
}

impl NodeView for IndexView {
    fn by_mac(&self, mac: Mac) -> Option<RegisteredPort> {
        self.0.by_mac(mac).map(|FoundPort { node, port }| RegisteredPort { node, port })
    }

    fn by_machine_id(&self, id: [u8; 16]) -> Option<RegisteredPort> {
        self.0.by_machine_id(id).map(|FoundPort { node, port }| RegisteredPort { node, port })
    }

    fn port_count(&self) -> usize {
        self.0.ports()
    }
}
