//! The boot listener over real sockets, as firmware talks to it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use jiff::Timestamp;
use proptest::prelude::*;
use provision::node::{Clean, Port, Secret};
use provision::{ProvisionState, What};
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::*;
use crate::config::Config;
use crate::trace::Recorded;

pub(super) const TICKET: &str = "AAAAAAAAAAAAAAAAAAAAAA";

const KERNEL_LEN: usize = 700_001;
const INITRAMFS_LEN: usize = 300_007;

#[tokio::test]
async fn the_length_is_the_first_header() {
    let mut listener = Listener::start().await;

    for file in ["bootx64.efi", "boot.iso", "kernel", "grub.cfg", "nothing.efi"] {
        let reply = listener.get(file).await;
        assert_eq!(reply.headers[0].0, "Content-Length", "{file}: {:?}", reply.headers);
    }
}

#[tokio::test]
async fn names_of_headers_are_in_title_case() {
    let mut listener = Listener::start().await;

    let reply = listener.get("kernel").await;

    let names: Vec<_> = reply.headers.iter().map(|(name, _)| name.as_str()).collect();
    let expected =
        ["Content-Length", "Content-Type", "Etag", "Last-Modified", "Accept-Ranges", "Connection"];
    assert_eq!(names[..6], expected);
}

/// A listener for one node that boots, and the trace it writes.
struct Listener {
    address: SocketAddr,
    artifacts: Artifacts,
    index: Index,
    recorded: mpsc::Receiver<Recorded>,
    folder: TempDir,
    end: Option<oneshot::Sender<()>>,
}

impl Listener {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_boot_set(folder.path());
        let mut settings = Settings {
            boot_set: folder.path().to_owned(),
            cache: folder.path().join("cache"),
            image_dirs: vec![folder.path().join("images")],
            http_loader: HttpLoader::Uki,
            kernel_append_params: "nofb vga=normal".to_owned(),
            urls: Urls::new(&Config::default(), None),
            limits: Limits::default(),
        };
        change(&mut settings);
        let index = Index::default();
        index.put_node(booting_node());
        index.put_ports(Uuid::nil(), vec![port()]);
        let (recorder, recorded) = Recorder::new();
        let artifacts = Artifacts::open(settings, index.clone(), recorder).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = oneshot::channel();
        tokio::spawn(artifacts.clone().serve(listener, async move {
            let _ = ended.await;
        }));
        Self { address, artifacts, index, recorded, folder, end: Some(end) }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// What is sent back to these bytes, all of it, until the listener closes.
    async fn say(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    }

    async fn ask(&self, method: &str, file: &str, headers: &str) -> Reply {
        let request = format!(
            "{method} /boot/{TICKET}/{file} HTTP/1.1\r\nHost: 192.0.2.1\r\n{headers}\
             Connection: close\r\n\r\n"
        );
        Reply::parse(&self.say(request.as_bytes()).await)
    }

    async fn get(&mut self, file: &str) -> Reply {
        self.ask("GET", file, "").await
    }
}

/// An answer, taken apart.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self { status, headers, body: bytes[end + 4..].to_vec() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

pub(super) fn booting_node() -> Node {
    let mut node = Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH);
    node.provision_state = ProvisionState::CleanWait;
    node.attempt = Some(Attempt {
        id: Uuid::from_u128(1),
        ticket: Secret(TICKET.to_owned()),
        agent_token: Secret("TOKEN".to_owned()),
        token_given: false,
        boot_interface: BootInterface::Http,
        started_at: "2026-01-02T03:04:05Z".parse().unwrap(),
        powered_on_at: None,
        ended_at: None,
        agent: None,
        clean: Clean::default(),
    });
    node
}

fn port() -> Port {
    Port {
        uuid: Uuid::from_u128(2),
        node_uuid: Uuid::nil(),
        address: "52:54:00:12:34:56".parse().unwrap(),
        pxe_enabled: true,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: None,
        extra: serde_json::Map::new(),
        kept: serde_json::Map::new(),
    }
}

fn write_boot_set(folder: &Path) {
    let files = [
        ("kernel", pattern(KERNEL_LEN, 3)),
        ("initramfs", pattern(INITRAMFS_LEN, 5)),
        ("stub.efi", stub()),
        ("snponly.efi", pattern(5_000, 7)),
        ("grubx64.efi", pattern(6_000, 11)),
    ];
    let mut manifest = serde_json::Map::new();
    for (name, contents) in files {
        fs::write(folder.join(name), &contents).unwrap();
        let sha256: String =
            Sha256::digest(&contents).iter().map(|byte| format!("{byte:02x}")).collect();
        manifest.insert(name.to_owned(), json!({ "len": contents.len(), "sha256": sha256 }));
    }
    let manifest = json!({ "version": 1, "kernel_version": "6.1.0", "files": manifest });
    fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
}

/// Bytes that tell where they are from.
fn pattern(len: usize, step: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(step) % 251) as u8).collect()
}

/// A program for x64 with two sections, laid out as systemd's stub.
fn stub() -> Vec<u8> {
    let mut bytes = vec![0; 0x800];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    let (pe, optional) = (0x80, 0x98);
    put(0, b"MZ");
    put(0x3C, &[pe as u8]);
    put(pe, b"PE\0\0");
    put(pe + 4, &0x8664u16.to_le_bytes());
    put(pe + 6, &2u16.to_le_bytes());
    put(pe + 20, &240u16.to_le_bytes());
    put(optional, &0x20Bu16.to_le_bytes());
    put(optional + 32, &0x200u32.to_le_bytes());
    put(optional + 36, &0x200u32.to_le_bytes());
    put(optional + 56, &0x6000u32.to_le_bytes());
    put(optional + 60, &0x400u32.to_le_bytes());
    put(optional + 68, &10u16.to_le_bytes());
    put(optional + 108, &16u32.to_le_bytes());
    for (n, name) in [".text", ".data"].into_iter().enumerate() {
        let at = optional + 240 + 40 * n;
        put(at, name.as_bytes());
        let n = n as u32;
        let sizes = [0x180, 0x4000 + 0x1000 * n, 0x200, 0x400 + 0x200 * n];
        put(at + 8, &sizes.map(u32::to_le_bytes).concat());
        put(at + 36, &0x6000_0020u32.to_le_bytes());
    }
    bytes
}
