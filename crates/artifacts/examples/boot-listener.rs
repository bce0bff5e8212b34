//! The boot listener alone, for measurements: each file of a folder is the ISO image of a separate node, whose ticket
//! is the file's name.
//!
//! ```text
//! boot-listener 127.0.0.1:8080 FOLDER    # http://127.0.0.1:8080/boot/FILE/boot.iso
//! ```

use std::path::{Path, PathBuf};
use std::{env, fs, future};

use anyhow::{Context, Result};
use artifacts::{ArtifactSettings, Artifacts, BootSets};
use netboot::image_limits::ImageLimits;
use netboot::image_reach::ImageReach;
use netboot::urls::{UrlPort, UrlSettings, Urls};
use nodes::{NodeIndex, Recorder};
use provision::artifact::HttpLoader;
use provision::node::{FreshAttempt, Secret};
use provision::{Attempt, BootInterface, Node, Procedure, ProvisionState};
use store::{Clock, SavedNode};
use tokio::net::TcpListener;
use transport::http_server::metrics::HttpMetrics;
use transport::http_server::{ConnectionLimits, PortListener};
use uuid::Uuid;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().context("no address to listen on")?;
    let folder: PathBuf = arguments.next().context("no folder to serve")?.into();
    let folder = fs::canonicalize(folder)?;
    let urls = UrlSettings {
        boot: None,
        boot6: None,
        agent: None,
        boot_port: UrlPort::http(8080),
        agent_port: UrlPort::http(6386),
    };
    let settings = ArtifactSettings {
        boot_sets: BootSets::look(&folder),
        cache: folder.clone(),
        image_dirs: vec![folder.clone()],
        image_reach: ImageReach::default(),
        image_limits: ImageLimits::default(),
        http_loader: HttpLoader::Uki,
        kernel_append_params: String::new(),
        uki_signer: None,
        urls: Urls::new(urls, None),
        agent_authority: None,
    };
    let index = NodeIndex::default();
    let (recorder, mut backlog) = Recorder::new();
    let artifacts = Artifacts::open(settings, index.clone(), recorder)?;
    for file in fs::read_dir(&folder)? {
        let node = booting(&file?.path());
        index.note_node(SavedNode { number: 1.into(), node: node.clone() });
        artifacts.prepare(&node).await?;
    }
    let listener = TcpListener::bind(&address).await?;
    // Replaces the writer of the trace.
    tokio::spawn(async move { while backlog.recorded.recv().await.is_some() {} });
    let limits = ConnectionLimits { per_peer: 1024, ..ConnectionLimits::default() };
    let listener = PortListener { socket: listener, tls: None };
    artifacts.serve(vec![listener], limits, HttpMetrics::default(), future::pending()).await;
    Ok(())
}

fn booting(iso: &Path) -> Node {
    let now = Clock::process().now();
    let name = iso.file_name().unwrap_or_default().to_string_lossy();
    let mut node = Node::enrolled(Uuid::new_v4(), "redfish", now);
    node.provision_state = ProvisionState::CleanWait;
    node.driver_info.insert("deploy_iso".into(), format!("file://{}", iso.display()).into());
    node.attempt = Some(Attempt::begun(
        FreshAttempt {
            attempt: Uuid::new_v4(),
            ticket: Secret(name.into_owned()),
            agent_token: Secret(String::new()),
        },
        Procedure::Clean,
        BootInterface::RedfishHttps,
        now,
    ));
    node
}
