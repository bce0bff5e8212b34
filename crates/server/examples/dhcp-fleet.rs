//! Creates a database with a fleet that is about to boot over HTTP, for measurements of DHCP: each node has one port
//! and an attempt under way, so that every exchange is decided and traced in full.
//!
//! ```text
//! dhcp-fleet sqlite:///path/to/ferroboot.db ferroboot.key 00:0c:01:02:03:04 10000    # that address and those after it
//! ```

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};
use hardware::Mac;
use jiff::Timestamp;
use provision::node::{FreshAttempt, Secret};
use provision::{Attempt, BootInterface, Node, Port, Procedure, ProvisionState};
use serde_json::Map;
use store::{Clock, Store};
use uuid::Uuid;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let database = arguments.next().context("no database")?;
    let key_file: PathBuf = arguments.next().context("no key file")?.into();
    let first: Mac = arguments.next().context("no first MAC address")?.parse()?;
    let nodes: u64 = arguments.next().context("no number of nodes")?.parse()?;
    let store = Store::open(&database, &key_file).await?;
    let [a, b, c, d, e, f] = first.0;
    let first = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    for number in 0..nodes {
        let now = Clock::process().now();
        let [_, _, address @ ..] = (first + number).to_be_bytes();
        let node = booting(now);
        store.create_node(&node).await?;
        store.create_port(&port(&node, Mac(address), now), now).await?;
    }
    store.close().await;
    Ok(())
}

fn port(node: &Node, address: Mac, now: Timestamp) -> Port {
    Port {
        uuid: Uuid::new_v4(),
        node_uuid: node.uuid,
        address,
        pxe_enabled: true,
        created_at: now,
        updated_at: None,
        extra: Map::new(),
        kept: Map::new(),
    }
}

fn booting(now: Timestamp) -> Node {
    let mut node = Node::enrolled(Uuid::new_v4(), "redfish", now);
    node.provision_state = ProvisionState::CleanWait;
    node.attempt = Some(Attempt::begun(
        FreshAttempt {
            attempt: Uuid::new_v4(),
            ticket: Secret(Uuid::new_v4().simple().to_string()),
            agent_token: Secret(String::new()),
        },
        Procedure::Clean,
        BootInterface::Http,
        now,
    ));
    node
}
