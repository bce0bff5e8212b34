//! The boot listener, with its trace and booting nodes.

use std::path::Path;
use std::sync::Arc;
use std::{fs, future};

use anyhow::Result;
use artifacts::{ArtifactSettings, Artifacts, BootSets};
use certificates::{
    CertificateNeeds, CertificateSource, FirmwareCiphers, FirmwareTls, OperatorFiles,
};
use netboot::urls::{UrlSettings, Urls};
use nodes::{NodeIndex, Nodes, Recorder, address_writer, trace};
use provision::node::{FreshAttempt, Secret};
use provision::{Attempt, BootInterface, Node, Policy, Procedure, ProvisionState};
use store::{Clock, Store};
use tokio_util::sync::CancellationToken;
use transport::http_server::metrics::HttpMetrics;
use transport::http_server::{ConnectionLimits, PortListener, PortShares};
use transport::listen::listen;
use uuid::Uuid;

/// `limits.connections` of the daemon.
const DAEMON: usize = 4096;

pub(crate) async fn serve(
    folder: &Path,
    plain: &str,
    encrypted: &str,
    connections: usize,
    machines: usize,
) -> Result<()> {
    let folder = fs::canonicalize(folder)?;
    let shares = PortShares::of_this_process(DAEMON.max(4 * connections));
    let url = format!("sqlite://{}", folder.join("trace.db").display());
    let store = Store::open(&url, &folder.join("ferroboot.key")).await?;
    let index = NodeIndex::default();
    let (recorder, backlog) = Recorder::new();
    let (addresses, progress) = (recorder.addresses().clone(), recorder.progress().clone());
    let settings = settings(&folder.join("boot-set"), &folder.join("files"));
    let artifacts = Artifacts::open(settings, index.clone(), recorder)?;
    for node in booting_nodes(&folder, machines)? {
        store.create_node(&node).await?;
        artifacts.prepare(&node).await?;
    }
    let nodes = Nodes::new(store.clone(), index, Policy::default());
    nodes.load().await?;
    tokio::spawn(address_writer::run(addresses, progress, nodes, CancellationToken::new()));
    tokio::spawn(trace::write(store, backlog));
    let files =
        OperatorFiles { certificate: folder.join("server.pem"), key: folder.join("server.key") };
    let tls = FirmwareTls::new(
        CertificateSource::of_files(files, CertificateNeeds::default())?,
        FirmwareCiphers::Modern,
    );
    let listeners = vec![
        PortListener { socket: listen(plain.parse()?, "HTTP")?, tls: None },
        PortListener { socket: listen(encrypted.parse()?, "HTTPS")?, tls: Some(Arc::new(tls)) },
    ];
    let limits = limits(connections, shares.boot);
    // In a task, as in the daemon: `block_on` would accept connections on a thread beside the runtime's.
    let served = artifacts.serve(listeners, limits, HttpMetrics::default(), future::pending());
    Ok(tokio::spawn(served).await?)
}

/// `0` connections stand for the daemon's limits with its share `boot`.
fn limits(connections: usize, boot: usize) -> ConnectionLimits {
    let waiting = boot / 3;
    match connections {
        0 => ConnectionLimits {
            connections: boot - waiting,
            waiting,
            per_peer: (boot - waiting) / 4,
            ..ConnectionLimits::default()
        },
        connections => {
            ConnectionLimits { connections, per_peer: connections, ..ConnectionLimits::default() }
        }
    }
}

pub(crate) fn settings(boot_set: &Path, files: &Path) -> ArtifactSettings {
    let urls = Urls::new(UrlSettings::default(), None);
    ArtifactSettings {
        image_dirs: vec![files.to_owned()],
        ..ArtifactSettings::new(BootSets::look(boot_set), files.to_owned(), urls)
    }
}

/// `machines` of them boot UKIs of one boot set, with the tickets `m0`, `m1` and so on.
fn booting_nodes(folder: &Path, machines: usize) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    if folder.join("boot-set").exists() {
        let composed = (0..machines).map(|number| format!("m{number}")).chain(["uki".to_owned()]);
        nodes.extend(composed.map(|ticket| booting(&ticket, BootInterface::Http)));
        nodes.push(booting("iso", BootInterface::RedfishHttps));
    }
    for file in fs::read_dir(folder.join("files"))? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut node = booting(&name, BootInterface::RedfishHttps);
        // Links to one image are one image.
        let path = fs::canonicalize(&path)?;
        node.driver_info.insert("deploy_iso".into(), format!("file://{}", path.display()).into());
        nodes.push(node);
    }
    Ok(nodes)
}

/// A node during a clean, with this ticket.
pub(crate) fn booting(ticket: &str, interface: BootInterface) -> Node {
    let now = Clock::process().now();
    let mut node = Node::enrolled(Uuid::new_v4(), "redfish", now);
    node.provision_state = ProvisionState::CleanWait;
    node.attempt = Some(Attempt::begun(
        FreshAttempt {
            attempt: Uuid::new_v4(),
            ticket: Secret(ticket.to_owned()),
            agent_token: Secret("A".repeat(43)),
        },
        Procedure::Clean,
        interface,
        now,
    ));
    node
}
