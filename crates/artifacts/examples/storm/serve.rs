//! The boot listener, with a booting node for each machine.

use std::path::Path;
use std::sync::Arc;
use std::{fs, future};

use anyhow::Result;
use artifacts::{ArtifactSettings, Artifacts, BootSets};
use certificates::{CertificateAuthority, CertificateSource, FirmwareCiphers, FirmwareTls};
use netboot::image_limits::ImageLimits;
use netboot::image_reach::ImageReach;
use netboot::urls::{UrlPort, UrlSettings, Urls};
use nodes::{NodeIndex, Nodes, Recorder, address_writer, trace};
use provision::artifact::HttpLoader;
use provision::node::{FreshAttempt, Secret};
use provision::{Attempt, BootInterface, Node, Policy, Procedure, ProvisionState};
use store::{Clock, Store};
use tokio_util::sync::CancellationToken;
use transport::http_server::metrics::HttpMetrics;
use transport::http_server::{ConnectionLimits, ListenerTls, PortListener};
use transport::listen::listen;
use uuid::Uuid;

/// The boot listener's half of the daemon's default `limits.connections`.
const SHARE: usize = 2048;

pub(crate) async fn serve(
    address: &str,
    file: &str,
    machines: usize,
    tls: Option<&Path>,
) -> Result<()> {
    let file = fs::canonicalize(file)?;
    let folder = file.parent().unwrap_or(&file).to_owned();
    let urls = UrlSettings {
        boot: None,
        boot6: None,
        agent: None,
        boot_port: UrlPort::http(8080),
        plain_boot_port: Some(8080),
        http_loader: HttpLoader::Uki,
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
    let (recorder, backlog) = Recorder::new();
    let database = tempfile::tempdir()?;
    let url = format!("sqlite://{}/trace.db", database.path().display());
    let store = Store::open(&url, &database.path().join("ferroboot.key")).await?;
    let (addresses, progress) = (recorder.addresses().clone(), recorder.progress().clone());
    let artifacts = Artifacts::open(settings, index.clone(), recorder)?;
    for number in 0..machines {
        let node = booting(number, &file);
        store.create_node(&node).await?;
        artifacts.prepare(&node).await?;
    }
    let nodes = Nodes::new(store.clone(), index, Policy::default());
    nodes.load().await?;
    tokio::spawn(address_writer::run(addresses, progress, nodes, CancellationToken::new()));
    tokio::spawn(trace::write(store, backlog));
    let tls = tls.map(listener_tls).transpose()?;
    let listener = PortListener { socket: listen(address.parse()?, "machines")?, tls };
    let waiting = SHARE / 3;
    let connections = SHARE - waiting;
    let limits = ConnectionLimits {
        connections,
        waiting,
        per_peer: connections / 4,
        ..ConnectionLimits::default()
    };
    artifacts.serve(vec![listener], limits, HttpMetrics::default(), future::pending()).await;
    Ok(())
}

fn listener_tls(folder: &Path) -> Result<Arc<dyn ListenerTls>> {
    let authority = CertificateAuthority::make()?;
    fs::write(folder.join("ca.pem"), &authority.certificate)?;
    let authority = CertificateAuthority::of_pem(&authority)?;
    let addresses = vec![[127, 0, 0, 1].into()];
    let source = CertificateSource::issued_by(authority, Vec::new(), addresses);
    Ok(Arc::new(FirmwareTls::new(source, FirmwareCiphers::Modern)))
}

fn booting(number: usize, iso: &Path) -> Node {
    let now = Clock::process().now();
    let mut node = Node::enrolled(Uuid::new_v4(), "redfish", now);
    node.name = Some(format!("m{number}"));
    node.provision_state = ProvisionState::CleanWait;
    node.driver_info.insert("deploy_iso".into(), format!("file://{}", iso.display()).into());
    node.attempt = Some(Attempt::begun(
        FreshAttempt {
            attempt: Uuid::new_v4(),
            ticket: Secret(format!("m{number}")),
            agent_token: Secret(String::new()),
        },
        Procedure::Clean,
        BootInterface::RedfishHttps,
        now,
    ));
    node
}
