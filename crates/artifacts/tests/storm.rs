//! Many machines, or many requests, at once: a boot storm, and a BMC that reads virtual media.

#![expect(clippy::unwrap_used, reason = "in a test, what cannot be unwrapped has failed")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use artifacts::{ArtifactSettings, Artifacts, BootSets};
use certificates::{CertificateAuthority, CertificateSource, FirmwareCiphers, FirmwareTls};
use futures::future::join_all;
use netboot::urls::{UrlSettings, Urls};
use nodes::{Backlog, NodeIndex, Recorder};
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use provision::artifact::HttpLoader;
use provision::node::Secret;
use provision::test_nodes::booting_node;
use provision::{BootEventKind, BootInterface, BootStage, Node};
use store::{Clock, Store};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Barrier;
use tokio_openssl::SslStream;
use transport::http_server::metrics::HttpMetrics;
use transport::http_server::{ConnectionLimits, ListenerTls, PortListener};
use uuid::Uuid;

const MACHINES: usize = 200;
/// Larger than what socket buffers hold, so that all bodies are under way together.
const IMAGE_LEN: u64 = 16 << 20;

#[tokio::test]
async fn each_machine_of_a_storm_has_its_first_byte_while_all_others_fetch_and_none_stands_still() {
    let listener = Listener::start(patient(), IMAGE_LEN).await;

    storm(&listener, async |from| listener.connect(from).await).await;
}

#[tokio::test]
async fn each_machine_of_a_storm_over_tls_has_its_first_byte_while_all_others_fetch_and_none_stands_still()
 {
    let authority = CertificateAuthority::of_pem(&CertificateAuthority::make().unwrap()).unwrap();
    let source = CertificateSource::issued_by(authority, Vec::new(), Vec::new());
    let tls = Arc::new(FirmwareTls::new(source, FirmwareCiphers::Modern));
    let listener = Listener::start_with(patient(), IMAGE_LEN, Some(tls)).await;
    let connector = SslConnector::builder(SslMethod::tls_client()).unwrap().build();

    storm(&listener, async |from| {
        let stream = listener.connect(from).await.into_inner();
        let mut client = connector.configure().unwrap();
        client.set_verify(SslVerifyMode::NONE);
        let mut stream = SslStream::new(client.into_ssl("127.0.0.1").unwrap(), stream).unwrap();
        Pin::new(&mut stream).connect().await.unwrap();
        BufReader::with_capacity(1_024, stream)
    })
    .await;
}

/// Limits without those of time: all machines wait for the slowest, on a busy host for long.
fn patient() -> ConnectionLimits {
    let long = Duration::from_secs(600);
    ConnectionLimits {
        idle: long,
        head: long,
        stall: long,
        fruitless: long,
        ..ConnectionLimits::default()
    }
}

/// Each machine waits for all others after its first byte, and after each further 16 KiB: that ends only if the
/// listener serves all of them, each at the pace at which it reads.
async fn storm<S: AsyncRead + AsyncWrite + Unpin>(
    listener: &Listener,
    connect: impl AsyncFn(Ipv4Addr) -> BufReader<S>,
) {
    let turns = Barrier::new(MACHINES);
    let machine = async |number: usize| {
        let from = Ipv4Addr::new(127, 1, 1, u8::try_from(number).unwrap());
        let mut stream = connect(from).await;
        ask(&mut stream, number, "").await;
        head(&mut stream).await;
        stream.read_exact(&mut [0; 1]).await.unwrap();
        for _ in 0..8 {
            if turns.wait().await.is_leader() {
                let fetches = listener.recorder.progress().fetches();
                assert_eq!(fetches.len(), MACHINES);
            }
            stream.read_exact(&mut [0; 16 * 1024]).await.unwrap();
        }
        // No connection is closed before all machines are done.
        turns.wait().await;
    };
    join_all((0..MACHINES).map(machine)).await;
}

/// Range requests of BMCs' virtual media: some 3,000 of them for one boot.
#[tokio::test]
async fn a_bmc_reads_an_image_in_3000_ranges_on_one_connection_and_on_many() {
    const PART: u64 = 4_096;
    const PARTS: u64 = 3_000;
    let mut listener = Listener::start(ConnectionLimits::default(), PARTS * PART).await;
    let node = listener.node(0, BootInterface::RedfishVirtualMedia);
    let store = listener.write_trace(&node).await;
    let image = fs::read(listener.folder.path().join("images/image.iso")).unwrap();
    // It is held open, and found no second time.
    fs::remove_file(listener.folder.path().join("images/image.iso")).unwrap();

    let reader = async |parts: Vec<u64>| {
        let mut stream = listener.connect(Ipv4Addr::LOCALHOST).await;
        for part in parts {
            let (start, end) = (part * PART, (part + 1) * PART);
            ask(&mut stream, 0, &format!("Range: bytes={start}-{}\r\n", end - 1)).await;
            let head = head(&mut stream).await;
            assert!(head.starts_with("HTTP/1.1 206 "), "{head}");
            let range = format!("Content-Range: bytes {start}-{}/{}", end - 1, image.len());
            assert!(head.contains(&range), "{head}");
            let mut bytes = vec![0; PART as usize];
            stream.read_exact(&mut bytes).await.unwrap();
            assert!(bytes == image[start as usize..end as usize], "part {part}");
        }
    };
    reader((0..PARTS).collect()).await;
    listener.recorder.flush().await;
    let in_order = store.events(node.uuid, None).await.unwrap().len();
    join_all((0..8).map(|first| reader((first..PARTS).step_by(8).collect()))).await;
    listener.recorder.flush().await;
    let events = store.events(node.uuid, None).await.unwrap();

    assert!(in_order < 100, "{in_order} events");
    assert!(
        events.len() <= 2_100,
        "{} events: the trace of an attempt has its limit",
        events.len()
    );
    let attempt = node.attempt.as_ref().unwrap().id;
    let progress = listener.recorder.progress().of(attempt);
    let stage = BootStage::of(&node, progress.as_ref(), HttpLoader::Uki, Clock::process().now());
    assert_eq!(stage, Some(BootStage::Fetching), "parts in any order are no whole image");
}

/// EDK2 ends its connection with a reset after the last byte (`Tcp4Close` with unread or aborted control blocks).
#[tokio::test]
async fn a_client_that_resets_its_connection_after_the_last_byte_has_fetched_the_image() {
    let mut listener = Listener::start(ConnectionLimits::default(), 300_000).await;
    listener.node(0, BootInterface::RedfishHttps);
    let mut stream = listener.connect(Ipv4Addr::LOCALHOST).await;
    ask(&mut stream, 0, "").await;
    head(&mut stream).await;
    stream.read_exact(&mut vec![0; 300_000]).await.unwrap();

    stream.get_ref().set_zero_linger().unwrap();
    drop(stream);

    let backlog = listener.backlog.as_mut().unwrap();
    let what = backlog.recorded.recv().await.unwrap().event.what;
    let BootEventKind::Http { status, error, sent, length, .. } = what else { panic!("{what:?}") };
    assert_eq!((status, error, sent, length), (200, None, 300_000, 300_000));
}

/// A listener with an ISO image for each of [`MACHINES`] nodes.
struct Listener {
    address: SocketAddr,
    artifacts: Artifacts,
    index: NodeIndex,
    recorder: Recorder,
    backlog: Option<Backlog>,
    folder: TempDir,
}

impl Listener {
    async fn start(limits: ConnectionLimits, image_len: u64) -> Self {
        Self::start_with(limits, image_len, None).await
    }

    async fn start_with(
        limits: ConnectionLimits,
        image_len: u64,
        tls: Option<Arc<dyn ListenerTls>>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let images = folder.path().join("images");
        fs::create_dir_all(&images).unwrap();
        let image = fs::File::create(images.join("image.iso")).unwrap();
        image.set_len(image_len).unwrap();
        for at in (0..image_len).step_by(4_096).take(3_000) {
            image.write_all_at(&at.to_le_bytes(), at).unwrap();
        }
        let (boot_sets, cache) = (BootSets::look(folder.path()), folder.path().join("cache"));
        let urls = Urls::new(UrlSettings::default(), None);
        let settings = ArtifactSettings {
            image_dirs: vec![images],
            ..ArtifactSettings::new(boot_sets, cache, urls)
        };
        let index = NodeIndex::default();
        let (recorder, backlog) = Recorder::new();
        let artifacts = Artifacts::open(settings, index.clone(), recorder.clone()).unwrap();
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let ports = vec![PortListener { socket, tls }];
        let served =
            artifacts.clone().serve(ports, limits, HttpMetrics::default(), std::future::pending());
        tokio::spawn(served);
        let listener = Self { address, artifacts, index, recorder, backlog: Some(backlog), folder };
        for number in 0..MACHINES {
            let node = listener.node(number, BootInterface::RedfishHttps);
            listener.artifacts.prepare(&node).await.unwrap();
        }
        listener
    }

    /// A booting node, whose ticket is `m` and its number.
    fn node(&self, number: usize, interface: BootInterface) -> Node {
        let mut node = booting_node();
        node.uuid = Uuid::from_u128(100 + number as u128);
        let iso = self.folder.path().join("images/image.iso");
        node.driver_info.insert("deploy_iso".into(), format!("file://{}", iso.display()).into());
        let attempt = node.attempt.as_mut().unwrap();
        attempt.id = Uuid::from_u128(10_000 + number as u128);
        attempt.ticket = Secret(format!("m{number}"));
        attempt.boot_interface = interface;
        self.index.put_node(node.clone());
        node
    }

    /// Writes the trace to a store, which has this node.
    async fn write_trace(&mut self, node: &Node) -> Store {
        let url = format!("sqlite://{}/test.db", self.folder.path().display());
        let store = Store::open(&url, &self.folder.path().join("ferroboot.key")).await.unwrap();
        store.create_node(node).await.unwrap();
        tokio::spawn(nodes::trace::write(store.clone(), self.backlog.take().unwrap()));
        store
    }

    /// A connection with a small receive window.
    async fn connect(&self, from: Ipv4Addr) -> BufReader<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        socket.bind((from, 0).into()).unwrap();
        BufReader::with_capacity(1_024, socket.connect(self.address).await.unwrap())
    }
}

async fn ask(stream: &mut (impl AsyncWrite + Unpin), number: usize, headers: &str) {
    let request = format!("GET /boot/m{number}/boot.iso HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// The head of an answer.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 20"), "{head}");
    head
}
