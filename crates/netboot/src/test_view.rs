//! Registered machines for the tests of this crate.

use std::collections::HashMap;
use std::sync::Arc;

use hardware::Mac;
use provision::Node;
use provision::test_nodes::{boot_port, booting_node};

use crate::node_view::{NodeView, RegisteredPort};
use crate::urls::{UrlSettings, Urls};

/// One node, with its ports.
#[derive(Debug)]
pub(crate) struct TestView {
    ports: HashMap<Mac, RegisteredPort>,
    machine_id: Option<[u8; 16]>,
}

impl TestView {
    pub(crate) fn of(node: Node, macs: impl IntoIterator<Item = Mac>) -> Self {
        let node = Arc::new(node);
        let port = |mac| {
            let port = Arc::new(boot_port(node.uuid, mac));
            (mac, RegisteredPort { node: Arc::clone(&node), port })
        };
        Self { ports: macs.into_iter().map(port).collect(), machine_id: None }
    }

    pub(crate) fn with_ports(macs: impl IntoIterator<Item = Mac>) -> Self {
        Self::of(booting_node(), macs)
    }

    pub(crate) fn with_machine_id(self, id: [u8; 16]) -> Self {
        Self { machine_id: Some(id), ..self }
    }
}

impl NodeView for TestView {
    fn by_mac(&self, mac: Mac) -> Option<RegisteredPort> {
        self.ports.get(&mac).cloned()
    }

    fn by_machine_id(&self, id: [u8; 16]) -> Option<RegisteredPort> {
        self.ports.values().next().filter(|_| self.machine_id == Some(id)).cloned()
    }

    fn port_count(&self) -> usize {
        self.ports.len()
    }
}

/// The URLs of a service that machines reach at `boot`.
pub(crate) fn urls(boot: &str) -> Urls {
    let settings =
        UrlSettings { boot: Some(boot.parse().expect("it is a URL")), ..UrlSettings::default() };
    Urls::new(settings, None)
}
