//! Tests of the boot listener over real sockets, with firmware's requests.

#![expect(clippy::unwrap_used, reason = "in a test, what cannot be unwrapped has failed")]

use std::ffi::OsStr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileExt, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use artifacts::{
    ArtifactSettings, Artifacts, BootSets, SignKey, SigningKey, UkiSigner, check_boot_set,
};
use certificates::{
    CertificateNeeds, CertificateSource, FirmwareCiphers, FirmwareTls, OperatorFiles,
};
use cryptoki::context::Pkcs11;
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use futures::stream::{self, StreamExt as _};
use hardware::CpuArch;
use netboot::boot_set::efi_machine;
use netboot::image_reach::ImageReach;
use netboot::urls::{UrlSettings, Urls};
use nodes::{Backlog, NodeIndex, Recorder};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use openssl::symm::Cipher;
use openssl::x509::{X509, X509NameBuilder};
use proptest::prelude::*;
use provision::artifact::{Artifact, HttpLoader};
use provision::node::Secret;
use provision::test_nodes::{TICKET, boot_port, booting_node};
use provision::trace::{HandshakePort, TlsFailure};
use provision::{BootEventKind, BootInterface, Node, Procedure, ProvisionState};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio_openssl::SslStream;
use transport::http_server::metrics::HttpMetrics;
use transport::http_server::{
    ConnectionLimits, EncryptedConnection, HandshakeFailure, ListenerTls, PacedStream,
    PortListener, PortShares,
};
use transport::listen::listen;
use uuid::Uuid;

const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
const KERNEL_LEN: usize = 700_001;
const INITRAMFS_LEN: usize = 300_007;

const FILES: [&str; 7] =
    ["bootx64.efi", "snponly.efi", "boot.ipxe", "boot.iso", "grub.cfg", "kernel", "initramfs"];

#[tokio::test]
async fn the_length_is_the_first_header_since_shim_16_reads_no_other() {
    let listener = Listener::start().await;

    for file in FILES.into_iter().chain(["revocations_sku.efi"]) {
        let reply = listener.get(file).await;
        assert_eq!(reply.headers[0].0, "Content-Length", "{file}: {:?}", reply.headers);
    }
}

#[tokio::test]
async fn names_of_headers_are_spelt_as_grub_compares_them() {
    let listener = Listener::start().await;

    let reply = listener.get("kernel").await;

    let names: Vec<_> = reply.headers.iter().map(|(name, _)| name.as_str()).collect();
    let expected =
        ["Content-Length", "Content-Type", "Etag", "Last-Modified", "Accept-Ranges", "Connection"];
    assert_eq!(names[..6], expected);
}

#[tokio::test]
async fn no_header_is_empty_and_none_asks_for_a_password() {
    let listener = Listener::start().await;

    for file in FILES.into_iter().chain(["revocations_sku.efi"]) {
        let reply = listener.get(file).await;
        for (name, value) in &reply.headers {
            assert!(!value.is_empty(), "{file}: {name} is empty");
            assert!(!name.contains("Authenticate"), "{file}: {name}");
        }
    }
}

#[tokio::test]
async fn types_are_the_ones_that_edk2_compares_letter_by_letter() {
    let listener = Listener::start().await;

    for (file, expected) in [
        ("bootx64.efi", "application/efi"),
        ("snponly.efi", "application/efi"),
        ("boot.iso", "application/vnd.efi-iso"),
        ("grub.cfg", "text/plain"),
        ("boot.ipxe", "text/plain"),
        ("kernel", "application/octet-stream"),
        ("initramfs", "application/octet-stream"),
    ] {
        let reply = listener.get(file).await;
        assert_eq!((reply.status, reply.header("Content-Type")), (200, Some(expected)), "{file}");
    }
}

#[tokio::test]
async fn head_has_the_head_of_get_and_nothing_else() {
    let listener = Listener::start().await;

    for file in FILES.into_iter().chain(["nothing.efi"]) {
        let get = listener.get(file).await;
        let head = listener.ask("HEAD", file, "").await;
        assert_eq!((head.status, head.lasting()), (get.status, get.lasting()), "{file}");
        assert!(head.body.is_empty(), "{file}");
        assert_eq!(get.header("Content-Length").unwrap(), get.body.len().to_string(), "{file}");
    }
}

#[tokio::test]
async fn every_error_has_words_since_shim_waits_for_them() {
    let mut node = booting_node();
    let listener = Listener::start().await;
    let wrong_range = format!("Range: bytes={KERNEL_LEN}-\r\n");
    let mut replies = vec![
        (404, listener.get("revocations_sbat.efi").await),
        (404, listener.get_path("/").await),
        (404, listener.get_path("/boot/BBBBBBBBBBBBBBBBBBBBBB/kernel").await),
        (404, listener.get_path(&format!("/boot/{TICKET}/%6bernel%2")).await),
        (405, listener.ask("POST", "kernel", "Content-Length: 0\r\n").await),
        (412, listener.ask("GET", "kernel", "If-Match: \"other\"\r\n").await),
        (416, listener.ask("GET", "kernel", &wrong_range).await),
        (400, Reply::parse(&listener.say(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").await)),
        (
            431,
            Reply::parse(
                &listener
                    .say(&[b"GET / HTTP/1.1\r\nA: ".as_slice(), &[b'a'; 40_000]].concat())
                    .await,
            ),
        ),
    ];
    let attempt = node.attempt.as_mut().unwrap();
    attempt.ended_at = Some(attempt.started_at);
    listener.index.put_node(node);
    replies.push((403, listener.get("kernel").await));

    for (status, reply) in replies {
        assert_eq!(reply.status, status, "{reply:?}");
        assert_eq!(reply.headers[0].0, "Content-Length", "{reply:?}");
        assert_eq!(reply.header("Content-Length").unwrap(), reply.body.len().to_string());
        assert!(reply.body.len() > 10, "{reply:?}");
        assert_eq!(reply.header("Content-Type"), Some("text/plain"), "{reply:?}");
    }
}

#[tokio::test]
async fn doubled_slashes_are_answered_and_not_redirected() {
    let listener = Listener::start().await;

    for path in [
        format!("//boot/{TICKET}/grub.cfg"),
        format!("/boot/{TICKET}//grub.cfg"),
        format!("/boot//{TICKET}/grub.cfg"),
        format!("http://other.example:1/boot/{TICKET}/grub.cfg"),
    ] {
        assert_eq!(listener.get_path(&path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_query_that_shim_has_lost_changes_nothing() {
    let listener = Listener::start().await;

    let with = listener.get("grub.cfg?token=x").await;

    assert_eq!(with.body, listener.get("grub.cfg").await.body);
}

#[tokio::test]
async fn any_host_or_none_is_served() {
    let listener = Listener::start().await;

    for host in ["", "Host:\r\n", "Host: [::1]:9\r\n", "Host: a\r\nHost: b\r\n"] {
        let request =
            format!("GET /boot/{TICKET}/grub.cfg HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        assert_eq!(Reply::parse(&listener.say(request.as_bytes()).await).status, 200, "{host}");
    }
}

#[tokio::test]
async fn nothing_is_ever_chunked_or_compressed() {
    let listener = Listener::start().await;

    for file in FILES {
        let reply =
            listener.ask("GET", file, "Accept-Encoding: gzip, zstd\r\nTE: trailers\r\n").await;
        assert_eq!(reply.header("Transfer-Encoding"), None, "{file}");
        assert_eq!(reply.header("Content-Encoding"), None, "{file}");
    }
}

#[tokio::test]
async fn one_connection_carries_the_next_request_too() {
    let listener = Listener::start().await;
    let keep = format!("HEAD /boot/{TICKET}/kernel HTTP/1.1\r\n\r\n");
    let last = format!("GET /boot/{TICKET}/grub.cfg HTTP/1.1\r\nConnection: close\r\n\r\n");

    let answer = listener.say(format!("{keep}{keep}{last}").as_bytes()).await;

    let text = String::from_utf8(answer).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), 3);
    assert!(text.ends_with("reboot\n"));
}

#[tokio::test]
async fn a_resumed_fetch_gets_the_rest_of_the_same_image_or_none_of_another() {
    let listener = Listener::start().await;
    let whole = listener.get("bootx64.efi").await;
    let tag = whole.header("Etag").unwrap();

    let resume = |tag: &str| format!("Range: bytes=1000-\r\nIf-Match: {tag}\r\n");
    let rest = listener.ask("GET", "bootx64.efi", &resume(tag)).await;
    let other = listener.ask("GET", "boot.iso", &resume(tag)).await;

    let len = whole.body.len();
    let range = format!("bytes 1000-{}/{len}", len - 1);
    assert_eq!((rest.status, rest.header("Content-Range")), (206, Some(range.as_str())));
    assert_eq!(rest.body, whole.body[1000..]);
    assert_eq!(rest.header("Etag"), Some(tag));
    assert_eq!(other.status, 412);
}

#[tokio::test]
async fn what_is_known_already_has_no_body_at_all() {
    let listener = Listener::start().await;
    let tag = listener.get("kernel").await.header("Etag").unwrap().to_owned();

    let reply = listener.ask("GET", "kernel", &format!("If-None-Match: {tag}\r\n")).await;

    assert_eq!((reply.status, reply.body.len()), (304, 0));
    assert_eq!(reply.header("Etag"), Some(tag.as_str()));
}

#[tokio::test]
async fn a_range_behind_the_end_is_told_the_length() {
    let listener = Listener::start().await;

    let reply = listener.ask("GET", "kernel", "Range: bytes=99999999-\r\n").await;

    let range = format!("bytes */{KERNEL_LEN}");
    assert_eq!((reply.status, reply.header("Content-Range")), (416, Some(range.as_str())));
}

#[test]
fn parts_of_any_size_make_up_the_whole() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(Listener::start());
    let whole = runtime.block_on(listener.get("boot.iso")).body;
    let cuts = proptest::collection::vec(1..whole.len(), 0..5);

    proptest!(ProptestConfig::with_cases(40), |(mut cuts in cuts)| {
        cuts.extend([0, whole.len()]);
        cuts.sort_unstable();
        cuts.dedup();
        let mut parts = Vec::new();
        for ends in cuts.windows(2) {
            let range = format!("Range: bytes={}-{}\r\n", ends[0], ends[1] - 1);
            parts.extend(runtime.block_on(listener.ask("GET", "boot.iso", &range)).body);
        }
        prop_assert!(parts == whole);
    });
}

#[test]
fn no_bytes_bring_the_listener_down() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(Listener::start());
    let request = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        "(GET|HEAD|POST) /{0,2}boot/[A\\PC]{0,22}/\\PC{0,12} HTTP/1.[01]\r\n(\\PC{0,20}: \\PC{0,20}\r\n){0,3}\r\n"
            .prop_map(String::into_bytes),
    ];

    proptest!(ProptestConfig::with_cases(100), |(request in request)| {
        runtime.block_on(async {
            let mut stream = listener.connect().await;
            // The listener may have closed the connection already.
            let _ = stream.write_all(&request).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
    });
    assert_eq!(runtime.block_on(listener.get("kernel")).status, 200);
}

#[tokio::test]
async fn a_client_that_has_closed_its_side_is_still_answered() {
    let listener = Listener::start().await;
    let mut stream = listener.connect().await;

    stream
        .write_all(format!("GET /boot/{TICKET}/kernel HTTP/1.1\r\n\r\n").as_bytes())
        .await
        .unwrap();
    stream.shutdown().await.unwrap();

    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(Reply::parse(&answer).body, pattern(KERNEL_LEN, 3));
}

#[tokio::test]
async fn a_peer_that_never_ends_its_request_is_let_go() {
    let limits = ConnectionLimits { head: Duration::from_millis(50), ..Default::default() };
    let listener = Listener::with_limits(limits).await;

    let answer = listener.say(b"GET /boot/").await;

    assert!(answer.is_empty() || Reply::parse(&answer).status == 408, "{answer:?}");
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_let_go_and_traced_with_what_it_took() {
    let limits = ConnectionLimits { stall: Duration::from_millis(50), ..Default::default() };
    let mut listener = Listener::with_limits(limits).await;
    listener.write_image("huge", 64 << 20);
    listener.boot_own_ramdisk("huge", "huge");
    let mut stream = listener.connect().await;

    stream
        .write_all(format!("GET /boot/{TICKET}/kernel HTTP/1.1\r\n\r\n").as_bytes())
        .await
        .unwrap();

    let fetch = listener.recorded().await;
    assert!(0 < fetch.sent && fetch.sent < fetch.length, "{fetch:?}");
    assert_eq!(fetch.length, 64 << 20);
}

#[tokio::test]
async fn a_fetch_that_breaks_off_is_traced_with_the_bytes_so_far() {
    let mut listener = Listener::start().await;
    listener.write_image("huge", 64 << 20);
    listener.boot_own_ramdisk("huge", "huge");
    let mut stream = listener.connect().await;
    let request =
        format!("GET /boot/{TICKET}/kernel HTTP/1.1\r\nUser-Agent: UefiHttpBoot/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.read_exact(&mut vec![0; 1 << 20]).await.unwrap();

    drop(stream);

    let fetch = listener.recorded().await;
    assert!((1 << 20) - 1000 <= fetch.sent && fetch.sent < fetch.length, "{fetch:?}");
    assert_eq!(fetch.user_agent.as_deref(), Some("UefiHttpBoot/1.0"));
}

#[tokio::test]
async fn each_answer_is_traced_with_what_was_really_sent() {
    let mut listener = Listener::start().await;
    let get = |file: &str| format!("GET /boot/{TICKET}/{file} HTTP/1.1\r\n\r\n");
    let part = format!("GET /boot/{TICKET}/kernel HTTP/1.1\r\nRange: bytes=5-9\r\n\r\n");
    let head = format!("HEAD /boot/{TICKET}/kernel HTTP/1.1\r\nConnection: close\r\n\r\n");

    // Pipelined: the bytes of one answer must not count for the next.
    listener.say([get("kernel"), get("nothing"), part, head].concat().as_bytes()).await;

    let kernel = listener.recorded().await;
    assert_eq!((kernel.status, kernel.sent, kernel.length), (200, 700_001, 700_001));
    assert_eq!((kernel.path.as_str(), kernel.artifact), ("kernel", Some(Artifact::Kernel)));
    assert_eq!(kernel.remote, Some(Ipv4Addr::LOCALHOST.into()));
    let nothing = listener.recorded().await;
    assert_eq!((nothing.status, nothing.sent == nothing.length), (404, true));
    assert_eq!((nothing.path.as_str(), nothing.artifact), ("nothing", None));
    assert!(nothing.error.unwrap().contains("no file of this name"));
    let part = listener.recorded().await;
    assert_eq!((part.status, part.sent, part.length), (206, 5, 5));
    assert_eq!(part.range.as_deref(), Some("bytes 5-9/700001"));
    let head = listener.recorded().await;
    assert_eq!((head.method.as_str(), head.sent, head.length), ("HEAD", 0, 0));
}

/// The length of an instance's image.
const INSTANCE_LEN: u64 = 1_000_003;

#[tokio::test]
async fn the_last_byte_of_an_awaited_image_waits_for_the_database_but_not_forever() {
    let mut listener = Listener::start().await;
    listener.deploy_instance();
    let began = Instant::now();

    // Nothing writes the recorded events.
    let reply = listener.get("boot.iso").await;

    assert_eq!(reply.body.len() as u64, INSTANCE_LEN);
    assert!(began.elapsed() >= Duration::from_secs(2), "it was held");
    let announced = listener.backlog.recorded.recv().await.unwrap().event.what;
    let expected =
        BootEventKind::LastByte { artifact: Artifact::Iso, range: None, length: INSTANCE_LEN };
    assert_eq!(announced, expected);
    let fetch = listener.recorded().await;
    assert_eq!((fetch.sent, fetch.length), (INSTANCE_LEN, INSTANCE_LEN));
}

#[tokio::test]
async fn the_end_of_an_awaited_image_comes_whole_whatever_its_length() {
    let listener = Listener::start().await;
    listener.deploy_instance();

    let lengths = [1, 2, 16 << 10, 256 << 10, (256 << 10) + 1, INSTANCE_LEN];
    let replies = lengths.map(|length| {
        let range = format!("Range: bytes=-{length}\r\n");
        let listener = &listener;
        async move { listener.ask("GET", "boot.iso", &range).await }
    });

    let got = join_all(replies).await.into_iter().map(|reply| reply.body.len() as u64);
    assert_eq!(got.collect::<Vec<_>>(), lengths);
}

#[tokio::test]
async fn a_failed_handshake_is_in_the_trace_of_the_machine_that_has_the_address() {
    let mut listener = Listener::start().await;
    // Nobody's address yet: this one is in no trace.
    listener.begin_handshake().await;
    assert_eq!(listener.get("boot.iso").await.status, 200);
    listener.recorded().await;

    listener.begin_handshake().await;

    let recorded = listener.backlog.recorded.recv().await.unwrap().event.what;
    let remote = IpAddr::from(Ipv4Addr::LOCALHOST);
    let failure = TlsFailure::NoCommonCipher;
    let port = HandshakePort::Boot;
    assert_eq!(recorded, BootEventKind::TlsHandshake { remote, failure, port, machines: 1 });
}

#[tokio::test]
async fn a_machine_that_only_looks_whether_the_port_is_open_has_no_failed_handshake() {
    let mut listener = Listener::start().await;
    assert_eq!(listener.get("boot.iso").await.status, 200);
    listener.recorded().await;

    for _ in 0..10 {
        drop(TcpStream::connect(listener.tls_address).await.unwrap());
    }
    listener.begin_handshake().await;
    assert!(matches!(
        listener.backlog.recorded.recv().await.unwrap().event.what,
        BootEventKind::TlsHandshake { .. }
    ));
    assert_eq!(listener.get("boot.iso").await.status, 200);

    // One alone, so this is the fetch.
    listener.recorded().await;
}

#[tokio::test]
async fn tls_on_the_port_for_plain_http_is_in_the_trace_of_the_machine_that_has_the_address() {
    let mut listener = Listener::start().await;
    assert_eq!(listener.get("boot.iso").await.status, 200);
    listener.recorded().await;

    listener.say(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;

    let recorded = listener.backlog.recorded.recv().await.unwrap().event.what;
    let expected = BootEventKind::TlsHandshake {
        remote: Ipv4Addr::LOCALHOST.into(),
        failure: TlsFailure::PlainPort,
        port: HandshakePort::Boot,
        machines: 1,
    };
    assert_eq!(recorded, expected);
}

#[tokio::test]
async fn a_path_is_decoded_once() {
    let listener = Listener::start().await;

    for (path, file) in [
        (format!("/boot/{TICKET}/boot%2Eiso"), format!("/boot/{TICKET}/boot.iso")),
        ("/grub/%67rub.cfg".to_owned(), "/grub/grub.cfg".to_owned()),
    ] {
        let (encoded, plain) = (listener.get_path(&path).await, listener.get_path(&file).await);
        assert_eq!((encoded.status, encoded.body == plain.body), (200, true), "{path}");
    }
}

#[tokio::test]
async fn each_refusal_of_a_valid_ticket_is_in_its_trace_without_the_ticket() {
    let mut listener = Listener::start().await;

    for (method, path, status, shown) in [
        ("GET", format!("/boot/{TICKET}"), 404, "/"),
        ("GET", format!("/boot/{TICKET}/a/b"), 404, "a/b"),
        ("GET", format!("/boot/{TICKET}/%2e%2e/kernel"), 404, "%2e%2e/kernel"),
        ("GET", format!("/boot/{TICKET}/../kernel"), 404, "../kernel"),
        ("GET", format!("/boot/{TICKET}/kernel%zz"), 404, "kernel%zz"),
        ("POST", format!("/boot/{TICKET}/kernel"), 405, "kernel"),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n\r\n");
        assert_eq!(Reply::parse(&listener.say(request.as_bytes()).await).status, status, "{path}");

        let refused = listener.recorded().await;
        let traced = (refused.method.as_str(), refused.path.as_str(), refused.status);
        assert_eq!(traced, (method, shown, status));
        assert!(refused.error.is_some() && refused.artifact.is_none(), "{refused:?}");
    }
}

#[tokio::test]
async fn the_ticket_of_an_earlier_boot_is_refused_as_late_and_is_in_the_trace_of_its_node() {
    let mut listener = Listener::start().await;
    let mut node = booting_node();
    node.attempt.as_mut().unwrap().ticket = Secret("NEWER".to_owned());
    listener.index.put_node(node);

    let reply = listener.get("boot.iso").await;

    assert_eq!(reply.status, 403);
    let late = listener.recorded().await;
    assert_eq!(
        (late.status, late.path.as_str(), late.artifact),
        (403, "boot.iso", Some(Artifact::Iso))
    );
    assert!(late.error.unwrap().contains("the boot that it was for is over"));
}

#[tokio::test]
async fn a_client_that_goes_away_before_the_last_byte_is_traced_without_it() {
    let mut listener = Listener::start().await;
    listener.deploy_instance();
    let mut stream = listener.connect().await;
    let request = format!("GET /boot/{TICKET}/boot.iso HTTP/1.1\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    // With the head: the rest fits into the buffers of the sockets.
    stream.read_exact(&mut vec![0; INSTANCE_LEN as usize]).await.unwrap();
    let announced = listener.backlog.recorded.recv().await.unwrap().event.what;
    assert!(matches!(announced, BootEventKind::LastByte { .. }), "{announced:?}");

    stream.set_zero_linger().unwrap();
    drop(stream);

    let fetch = listener.recorded().await;
    assert_eq!((fetch.sent, fetch.length), (INSTANCE_LEN - 1, INSTANCE_LEN));
}

#[tokio::test]
async fn what_is_sent_is_what_was_composed() {
    let listener = Listener::start().await;
    let folder = listener.folder.path();
    let source = |name: &str| {
        let contents = fs::read(folder.join(name)).unwrap();
        let (len, sha256) = (contents.len() as u64, Sha256::digest(&contents).into());
        efi::SharedFile { name: name.into(), len, sha256 }
    };
    let parts = efi::UkiParts {
        os_release: "ID=ferroboot\nNAME=Ferroboot\nPRETTY_NAME=\"Ferroboot ramdisk\"\n",
        uname: "6.1.0",
        kernel: &source("kernel"),
        initramfs: &source("initramfs"),
        seed: b"",
        command_line: "ipa-api-url=http://127.0.0.1:6386 ipa-agent-token=TOKEN \
                       BOOTIF=01-52-54-00-12-34-56 nofb vga=normal",
    };
    let stub = efi::UkiStub::parse(source("stub.efi"), &stub()).unwrap();
    let uki = efi::uki(&stub, &parts).unwrap().into_image();
    let iso = efi::iso(&efi::esp(&uki, efi::PeMachine::X64).unwrap()).unwrap();

    for (file, image) in [("bootx64.efi", uki), ("boot.iso", iso)] {
        let reply = listener.get(file).await;
        let read = |source: &efi::SharedFile, offset: u64, buffer: &mut [u8]| {
            fs::File::open(folder.join(&*source.name))?.read_exact_at(buffer, offset)
        };
        assert!(reply.body == image.read_with(0..image.len(), read).unwrap(), "{file}");
        assert_eq!(reply.header("Etag"), Some(image.etag().as_str()), "{file}");
    }
}

#[tokio::test]
async fn a_uki_is_signed_as_other_tools_verify_it_and_the_iso_has_the_same() {
    let keys = tempfile::tempdir().unwrap();
    let signer = UkiSigner::open(
        &SignKey::File(key_file(keys.path(), 0o600)),
        &keys.path().join("cert.pem"),
    );
    let signer = signer.unwrap();
    let listener = Listener::with(|settings| settings.uki_signer = Some(signer)).await;

    let uki = listener.get("bootx64.efi").await;
    let iso = listener.get("boot.iso").await;

    let [file, certificate] = ["uki.efi", "cert.pem"].map(|name| keys.path().join(name));
    fs::write(&file, &uki.body).unwrap();
    verified("sbverify", &["--cert".as_ref(), certificate.as_ref(), file.as_ref()]);
    verified(
        "osslsigncode",
        &[
            "verify".as_ref(),
            "-CAfile".as_ref(),
            certificate.as_ref(),
            "-in".as_ref(),
            file.as_ref(),
        ],
    );
    assert!(iso.body.windows(uki.body.len()).any(|part| part == uki.body), "another UKI");
}

/// SoftHSM finds its token by an environment variable, so the test starts itself again with it.
#[test]
fn a_key_in_a_token_signs_as_the_same_key_in_a_file() {
    const NAME: &str = "a_key_in_a_token_signs_as_the_same_key_in_a_file";
    const FOLDER: &str = "FERROBOOT_TEST_TOKEN";
    if let Some(folder) = std::env::var_os(FOLDER) {
        return token_signs(folder.as_ref());
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let key = key_file(folder.path(), 0o600);
    fs::create_dir(path("tokens")).unwrap();
    let settings = format!("directories.tokendir = {}\n", path("tokens").display());
    fs::write(path("softhsm2.conf"), settings).unwrap();
    fs::write(path("pin"), "1234\n").unwrap();
    fs::set_permissions(path("pin"), fs::Permissions::from_mode(0o600)).unwrap();
    let started = |program: &OsStr, arguments: &[&OsStr]| {
        let mut command = Command::new(program);
        command.args(arguments).env("SOFTHSM2_CONF", path("softhsm2.conf"));
        let said = command.env(FOLDER, folder.path()).output();
        let said = said.unwrap_or_else(|_| {
            panic!("{} is missing: scripts/install-dependencies", program.display())
        });
        let words = [said.stdout, said.stderr].concat();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&words));
    };
    let tool = OsStr::new("softhsm2-util");
    for label in ["boot", "twin", "twin"] {
        let words = format!("--init-token --free --label {label} --pin 1234 --so-pin 5678");
        started(tool, &words.split(' ').map(OsStr::new).collect::<Vec<_>>());
    }
    let words = "--token boot --label uki --id 01A0 --pin 1234 --import";
    let mut arguments: Vec<_> = words.split(' ').map(OsStr::new).collect();
    arguments.push(key.as_os_str());
    started(tool, &arguments);
    let this = std::env::current_exe().unwrap();
    started(this.as_os_str(), &[NAME, "--exact", "--nocapture"].map(OsStr::new));
}

/// Signs with the key in the token in a folder, and with the same key in a file.
fn token_signs(folder: &Path) {
    let certificate = folder.join("cert.pem");
    let uri = |object: &str, pin: &str, token: &str| {
        let pin = folder.join(pin);
        let uri = format!(
            "pkcs11:token={token};{object}?module-path={SOFTHSM}&pin-source={}",
            pin.display()
        );
        uri.parse::<SignKey>().unwrap()
    };
    let open = |key: &SignKey| UkiSigner::open(key, &certificate);
    let [file, token] = [
        open(&SignKey::File(folder.join("key-0600.pem"))).unwrap(),
        open(&uri("object=uki;id=%01%A0", "pin", "boot")).unwrap(),
    ];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let images = [file, token].map(|signer| {
        runtime.block_on(async {
            let listener = Listener::with(|settings| settings.uki_signer = Some(signer)).await;
            listener.get("bootx64.efi").await.body
        })
    });
    assert!(images[0] == images[1], "PKCS #1 signatures of one key are the same");

    let refusal = |key: SignKey| format!("{:#}", open(&key).unwrap_err());
    let none = refusal(uri("object=other", "pin", "boot"));
    assert!(none.contains("there is no private key \"other\" in boot"), "{none}");
    fs::write(folder.join("open"), "1234").unwrap();
    let readable = refusal(uri("object=uki", "open", "boot"));
    assert!(readable.contains("is open to other users"), "{readable}");

    let vague = refusal(uri("object=uki", "pin", "twin"));
    assert!(vague.contains("2 tokens are called twin"), "{vague}");

    refused_login_is_not_tried_again(&uri("object=uki", "pin", "boot"), &folder.join("pin"));
}

fn refused_login_is_not_tried_again(uri: &SignKey, pin: &Path) {
    let key = SigningKey::open(uri).unwrap();
    log_out();
    key.sign(b"a").unwrap();

    log_out();
    fs::write(pin, "4321").unwrap();
    let refused = format!("{:#}", key.sign(b"a").unwrap_err());
    assert!(refused.contains("the login for \"uki\" in boot: "), "{refused}");

    fs::write(pin, "1234").unwrap();
    let refused = format!("{:#}", key.sign(b"a").unwrap_err());
    assert!(refused.contains("is not tried again before the next start"), "{refused}");
    SigningKey::open(uri).unwrap().sign(b"a").unwrap();

    log_out();
    fs::write(pin, format!("1234\n{}", "\n".repeat(256))).unwrap();
    let long = format!("{:#}", SigningKey::open(uri).unwrap_err());
    assert!(long.contains("has more than 256 bytes"), "{long}");
}

/// Logs all sessions of this process out, as a token does that was reset.
fn log_out() {
    let module = Pkcs11::new(SOFTHSM).unwrap();
    for slot in module.get_slots_with_initialized_token().unwrap() {
        if module.get_token_info(slot).unwrap().label().trim_end() == "boot" {
            module.open_ro_session(slot).unwrap().logout().unwrap();
        }
    }
}

#[tokio::test]
async fn a_boot_after_the_first_does_not_read_the_files_again_for_its_signature() {
    let keys = tempfile::tempdir().unwrap();
    let signer = UkiSigner::open(
        &SignKey::File(key_file(keys.path(), 0o600)),
        &keys.path().join("cert.pem"),
    );
    let signer = signer.unwrap();
    let listener = Listener::with(|settings| settings.uki_signer = Some(signer)).await;
    let node = booting_node();
    listener.artifacts.prepare(&node).await.unwrap();

    // The files that are held open are damaged: only what is read again would differ.
    let kernel = fs::File::options().write(true).open(listener.folder.path().join("kernel"));
    kernel.unwrap().write_all_at(b"damaged", 0).unwrap();

    let uki = listener.get("bootx64.efi").await;
    let [file, certificate] = ["uki.efi", "cert.pem"].map(|name| keys.path().join(name));
    fs::write(&file, &uki.body).unwrap();
    let refused = Command::new("sbverify").arg("--cert").args([certificate, file]).output();
    assert!(!refused.unwrap().status.success(), "the signature is of the files as first read");
}

#[test]
fn a_key_that_cannot_sign_for_firmware_is_refused_in_words() {
    let keys = tempfile::tempdir().unwrap();
    let certificate = keys.path().join("cert.pem");
    let refusal = |key: &Path| {
        let key = SignKey::File(key.to_owned());
        format!("{:#}", UkiSigner::open(&key, &certificate).unwrap_err())
    };

    let open = refusal(&key_file(keys.path(), 0o640));
    assert!(open.contains("is open to other users (mode 0640): chmod 600"), "{open}");
    let key = key_file(keys.path(), 0o600);
    key_file(keys.path(), 0o400);
    let other = refusal(&key);
    assert!(other.contains("is not that of the key"), "{other}");
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let curve = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    fs::write(&key, curve.private_key_to_pem_pkcs8().unwrap()).unwrap();
    assert!(refusal(&key).contains("is not an RSA key of 2048 bits"), "{}", refusal(&key));
    let locked = Rsa::generate(2048).unwrap();
    let locked = locked.private_key_to_pem_passphrase(Cipher::aes_128_cbc(), b"secret").unwrap();
    fs::write(&key, locked).unwrap();
    assert!(refusal(&key).contains("without a passphrase"), "{}", refusal(&key));
    let key = key_file(keys.path(), 0o600);
    fs::write(&certificate, "").unwrap();
    assert!(refusal(&key).contains("holds no certificate"), "{}", refusal(&key));
}

/// Makes a key file with this mode, and its certificate in `cert.pem`.
fn key_file(folder: &Path, mode: u32) -> PathBuf {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "an operator").unwrap();
    let name = name.build();
    let mut certificate = X509::builder().unwrap();
    certificate.set_version(2).unwrap();
    certificate
        .set_serial_number(&BigNum::from_u32(0x80).unwrap().to_asn1_integer().unwrap())
        .unwrap();
    certificate.set_subject_name(&name).unwrap();
    certificate.set_issuer_name(&name).unwrap();
    certificate.set_pubkey(&key).unwrap();
    certificate.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    certificate.set_not_after(&Asn1Time::days_from_now(9).unwrap()).unwrap();
    certificate.sign(&key, MessageDigest::sha256()).unwrap();
    fs::write(folder.join("cert.pem"), certificate.build().to_pem().unwrap()).unwrap();
    let path = folder.join(format!("key-{mode:04o}.pem"));
    fs::write(&path, key.private_key_to_pem_pkcs8().unwrap()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// Runs another implementation of Authenticode, which must accept a file.
fn verified(program: &str, arguments: &[&OsStr]) {
    let said = Command::new(program).args(arguments).output();
    let said =
        said.unwrap_or_else(|_| panic!("{program} is missing: scripts/install-dependencies"));
    let words = [said.stdout, said.stderr].concat();
    assert!(said.status.success(), "{program}: {}", String::from_utf8_lossy(&words));
}

#[tokio::test]
async fn an_iso_of_the_operators_is_sent_as_it_is_even_without_a_boot_set() {
    let listener =
        Listener::with(|settings| settings.boot_sets = BootSets::look("/nowhere".as_ref())).await;
    listener.write_image("own.iso", 100_000);
    let node = listener.boot_with(BootInterface::RedfishHttps, |info| {
        info.insert("deploy_iso".into(), listener.image_url("own.iso").into());
    });

    listener.artifacts.prepare(&node).await.unwrap();

    let reply = listener.get("boot.iso").await;
    assert_eq!(reply.header("Content-Type"), Some("application/vnd.efi-iso"));
    assert!(reply.body == vec![0; 100_000]);
}

#[tokio::test]
async fn each_architecture_boots_from_its_own_set_under_one_ticket() {
    let mut listener = Listener::start().await;
    write_boot_set_for(CpuArch::Arm64, &listener.folder.path().join("arm64"), b"kernel of arm64");
    listener.boot_with(BootInterface::Http, |_| {});

    let x64 = listener.get("bootx64.efi").await;
    assert_eq!(listener.get("kernel").await.body, pattern(KERNEL_LEN, 3));
    let arm64 = listener.get("bootaa64.efi").await;
    // The fetched loader shows the architecture: GRUB and iPXE then fetch files for it.
    assert_eq!(listener.get("kernel").await.body, b"kernel of arm64");

    assert_eq!((x64.status, arm64.status), (200, 200));
    assert_eq!(x64.body[0x84..0x86], [0x64, 0x86]);
    assert_eq!(arm64.body[0x84..0x86], [0x64, 0xAA]);
    assert_eq!(arm64.header("Content-Type"), Some("application/efi"));
    let missing = listener.get("bootriscv64.efi").await;
    assert_eq!(missing.status, 503);
    let mut traced = listener.recorded().await;
    while traced.path != "bootriscv64.efi" {
        traced = listener.recorded().await;
    }
    assert!(traced.error.unwrap().contains("no boot set for riscv64"));
}

#[tokio::test]
async fn a_bmc_is_given_an_image_for_what_its_node_says_it_is() {
    let listener = Listener::start().await;
    write_boot_set_for(CpuArch::Arm64, &listener.folder.path().join("arm64"), b"kernel of arm64");
    let mut node = listener.boot_with(BootInterface::RedfishHttps, |_| {});
    node.properties.insert("cpu_arch".into(), "aarch64".into());
    listener.index.put_node(node.clone());

    listener.artifacts.prepare(&node).await.unwrap();

    let iso = listener.get("boot.iso").await.body;
    let named = |name: &[u8]| iso.windows(name.len()).any(|bytes| bytes == name);
    assert!(named(b"BOOTAA64EFI") && named(b"kernel of arm64"));
    node.properties.insert("cpu_arch".into(), "riscv64".into());
    node.attempt = None;
    let refused = listener.artifacts.prepare(&node).await.unwrap_err().to_string();
    assert!(refused.contains("no boot set for riscv64"), "{refused}");
}

#[tokio::test]
async fn a_machine_that_is_started_anew_is_given_the_token_of_its_new_start() {
    let listener = Listener::start().await;
    let mut node = listener.boot_with(BootInterface::RedfishHttps, |_| {});
    listener.artifacts.prepare(&node).await.unwrap();
    assert!(holds(&listener.get("boot.iso").await.body, b"ipa-agent-token=TOKEN "));

    node.attempt.as_mut().unwrap().agent_token = Secret("OTHER".to_owned());
    listener.index.put_node(node.clone());
    listener.artifacts.prepare(&node).await.unwrap();

    let iso = listener.get("boot.iso").await.body;
    assert!(holds(&iso, b"ipa-agent-token=OTHER ") && !holds(&iso, b"=TOKEN "));
}

fn holds(image: &[u8], text: &[u8]) -> bool {
    image.windows(text.len()).any(|bytes| bytes == text)
}

#[test]
fn a_boot_set_in_the_folder_of_another_architecture_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_boot_set_for(CpuArch::Riscv64, &folder.path().join("riscv64"), b"kernel");
    check_boot_set(folder.path(), CpuArch::Riscv64).unwrap();

    let swapped = folder.path().join("riscv64/stub.efi");
    fs::write(swapped, stub_for(efi::PeMachine::Arm64)).unwrap();

    let refused = check_boot_set(folder.path(), CpuArch::Riscv64).unwrap_err().to_string();
    assert!(refused.contains("is not for riscv64"), "{refused}");
}

#[tokio::test]
async fn a_boot_set_that_is_made_while_the_daemon_runs_is_told_of_at_the_next_boot() {
    let folder = tempfile::tempdir().unwrap();
    let boot_sets = BootSets::look(folder.path());
    assert_eq!(boot_sets.there(), []);
    let shared = boot_sets.clone();
    let listener = Listener::with(|settings| settings.boot_sets = boot_sets).await;
    write_boot_set(folder.path());
    write_boot_set_for(CpuArch::Arm64, &folder.path().join("arm64"), b"kernel of arm64");

    listener.artifacts.prepare(&booting_node()).await.unwrap();

    assert_eq!(shared.there(), [CpuArch::X64, CpuArch::Arm64]);
}

#[tokio::test]
async fn a_kernel_without_its_ramdisk_fails_before_the_machine_is_touched() {
    let listener = Listener::start().await;
    listener.write_image("kernel", 10);
    let node = listener.boot_with(BootInterface::Http, |info| {
        info.insert("deploy_kernel".into(), listener.image_url("kernel").into());
    });

    let refused = listener.artifacts.prepare(&node).await.unwrap_err();

    assert_eq!(refused.to_string(), "driver_info has a deploy_kernel but no deploy_ramdisk");
}

#[tokio::test]
async fn an_image_that_is_not_there_fails_the_boot_with_the_name_of_the_setting() {
    let listener = Listener::start().await;
    let node = listener.boot_with(BootInterface::RedfishHttps, |info| {
        info.insert("deploy_iso".into(), listener.image_url("missing.iso").into());
    });

    let refused = format!("{:#}", listener.artifacts.prepare(&node).await.unwrap_err());

    assert!(refused.starts_with("driver_info/deploy_iso cannot be used: cannot find"), "{refused}");
}

#[tokio::test]
async fn a_command_line_that_linux_would_cut_fails_before_the_machine_is_touched() {
    let listener = Listener::start().await;
    for interface in BootInterface::ALL {
        let node = listener.boot_with(interface, |info| {
            info.insert("kernel_append_params".into(), "x".repeat(3_000).into());
        });

        let refused = format!("{:#}", listener.artifacts.prepare(&node).await.unwrap_err());

        assert!(refused.contains("Linux takes at most 2047"), "{interface}: {refused}");
    }
}

#[tokio::test]
async fn a_boot_set_that_comes_later_is_taken_up() {
    let mut listener = Listener::start().await;
    let manifest = listener.folder.path().join("manifest.json");
    let aside = listener.folder.path().join("aside");
    fs::rename(&manifest, &aside).unwrap();

    let refused = listener.get("bootx64.efi").await;
    let unprepared = listener.artifacts.prepare(&booting_node()).await.unwrap_err();
    fs::rename(&aside, &manifest).unwrap();
    let taken = listener.get("bootx64.efi").await;

    assert_eq!((refused.status, taken.status), (503, 200));
    let told = String::from_utf8(refused.body).unwrap();
    assert!(!told.contains(listener.folder.path().to_str().unwrap()), "{told}");
    assert!(format!("{unprepared:#}").contains("ferroboot image build --output"));
    let traced = listener.recorded().await.error.unwrap();
    assert!(traced.contains("there is no boot set for x64 in"), "{traced}");
}

#[tokio::test]
async fn a_boot_set_replaced_during_a_boot_counts_from_the_next_boot_on() {
    let listener = Listener::start().await;
    let mut node = booting_node();
    listener.artifacts.prepare(&node).await.unwrap();
    let before = listener.get("kernel").await.body;

    let folder = listener.folder.path();
    fs::rename(folder.join("kernel"), folder.join("old")).unwrap();
    write_boot_set_with(folder, &pattern(1_000, 13));

    assert!(listener.get("kernel").await.body == before);
    node.attempt.as_mut().unwrap().id = Uuid::from_u128(9);
    listener.index.put_node(node.clone());
    listener.artifacts.prepare(&node).await.unwrap();
    assert!(listener.get("kernel").await.body == pattern(1_000, 13));
}

#[tokio::test]
async fn answers_under_way_come_to_their_end_when_the_daemon_does() {
    let mut listener = Listener::start().await;
    listener.write_image("large", 8 << 20);
    listener.boot_own_ramdisk("large", "large");
    let mut idle = listener.connect().await;
    let mut busy = listener.connect().await;
    busy.write_all(format!("GET /boot/{TICKET}/kernel HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = vec![0; 1000];
    busy.read_exact(&mut answer).await.unwrap();

    listener.end.take().unwrap().send(()).unwrap();

    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
    busy.read_to_end(&mut answer).await.unwrap();
    assert_eq!(Reply::parse(&answer).body.len(), 8 << 20);
    assert!(TcpStream::connect(listener.address).await.is_err());
}

#[tokio::test]
async fn a_machine_takes_the_place_of_a_connection_that_fetches_nothing() {
    let limits = ConnectionLimits { connections: 1, ..Default::default() };
    let listener = Listener::with_limits(limits).await;
    let mut idle = listener.connect().await;
    let request = format!("GET /boot/{TICKET}/grub.cfg HTTP/1.1\r\n\r\n");
    idle.write_all(request.as_bytes()).await.unwrap();
    idle.read_exact(&mut [0; 10]).await.unwrap();

    assert_eq!(listener.get("grub.cfg").await.status, 200);
}

#[tokio::test]
async fn a_machine_waits_while_every_connection_fetches() {
    let limits = ConnectionLimits { connections: 1, ..Default::default() };
    let listener = Listener::with_limits(limits).await;
    listener.write_image("huge", 64 << 20);
    listener.boot_own_ramdisk("huge", "huge");
    let mut first = listener.connect().await;
    let request = format!("GET /boot/{TICKET}/kernel HTTP/1.1\r\n\r\n");
    first.write_all(request.as_bytes()).await.unwrap();
    first.read_exact(&mut [0; 10]).await.unwrap();

    let mut second = Box::pin(listener.get("nothing"));
    let waiting = tokio::time::timeout(Duration::from_millis(50), &mut second).await;
    drop(first);

    assert!(waiting.is_err());
    assert_eq!(second.await.status, 404);
}

#[tokio::test]
async fn machines_behind_one_address_are_let_in_by_their_tickets() {
    let limits = ConnectionLimits { per_peer: 1, ..Default::default() };
    let listener = Listener::with_limits(limits).await;
    let mut others = Vec::new();
    for n in 1..=20 {
        let mut node = booting_node();
        node.uuid = Uuid::from_u128(100 + n);
        node.attempt.as_mut().unwrap().ticket = Secret(format!("ticket{n}"));
        listener.index.put_node(node);
        let mut stream = listener.connect().await;
        let request = format!("HEAD /boot/ticket{n}/kernel HTTP/1.1\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut start = [0; 15];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200 OK");
        others.push(stream);
    }
    // Each connection is still open.
    for (n, stream) in others.iter_mut().enumerate() {
        let request =
            format!("HEAD /boot/ticket{}/kernel HTTP/1.1\r\nConnection: close\r\n\r\n", n + 1);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).await.unwrap();
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 1, "{n}: {answers}");
    }
}

#[tokio::test]
async fn a_connection_with_404s_alone_comes_to_its_end() {
    let limits = ConnectionLimits { fruitless: Duration::from_millis(60), ..Default::default() };
    let listener = Listener::with_limits(limits).await;
    let mut stream = listener.connect().await;
    let mut ticks = tokio::time::interval(Duration::from_millis(5));

    let mut answers = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        ticks.tick().await;
        if stream.write_all(b"GET /nothing HTTP/1.1\r\n\r\n").await.is_err() {
            break;
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(n) => answers.extend_from_slice(&buffer[..n]),
        }
    }

    assert!(answers.starts_with(b"HTTP/1.1 404 Not Found"));
}

#[tokio::test]
async fn a_peer_that_asks_for_the_next_before_it_has_its_404_comes_to_its_end_too() {
    let limits = ConnectionLimits { fruitless: Duration::from_millis(60), ..Default::default() };
    let listener = Listener::with_limits(limits).await;
    let (mut read, mut write) = listener.connect().await.into_split();
    let asking = tokio::spawn(async move {
        while write.write_all(b"GET /nothing HTTP/1.1\r\n\r\n").await.is_ok() {}
    });

    // The connection may be reset while requests are in transit.
    let _ = tokio::io::copy(&mut read, &mut tokio::io::sink()).await;

    asking.await.unwrap();
}

#[tokio::test]
async fn grub_is_what_http_starts_where_the_settings_say_so() {
    let listener = Listener::with(|settings| settings.http_loader = HttpLoader::Grub).await;
    listener.artifacts.prepare(&booting_node()).await.unwrap();

    assert!(listener.get("bootx64.efi").await.body == pattern(6_000, 11));
    let config = String::from_utf8(listener.get("grub.cfg").await.body).unwrap();
    assert!(config.contains("linux \"$cmdpath/kernel\" 'ipa-api-url=http://127.0.0.1:6386'"));
}

/// Half of them come from one address, the others from one each; they send nothing, half of a request, or half of a
/// handshake.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_of_strangers_keep_no_machine_out() {
    let listener = Listener::start().await;
    let [plain, encrypted] = listener.serve_with_tls();
    let tls = SslConnector::builder(SslMethod::tls_client()).unwrap().build();
    let hello = client_hello(&tls).await;
    let descriptors = PortShares::of_this_process(1_000_000).all();
    let open = async |number: usize| {
        let from = if number.is_multiple_of(2) { 0 } else { number };
        let (address, first) = match number / 2 % 4 {
            0 => (plain, &b""[..]),
            1 => (plain, &b"GET /boot/"[..]),
            2 => (encrypted, &b""[..]),
            _ => (encrypted, &hello[..]),
        };
        let mut stream = connect_from(2, from, address).await;
        // It may have been evicted already.
        let _ = stream.write_all(first).await;
        stream
    };
    let strangers = stream::iter(0..10_000.min(descriptors)).map(open).buffer_unordered(256);
    let strangers: Vec<_> = strangers.collect().await;

    // The second time, the address of each is known.
    for _ in 0..2 {
        let fetch = async |number: usize| {
            let mut stream = connect_from(1, number, plain).await;
            let request =
                format!("GET /boot/{TICKET}/grub.cfg HTTP/1.1\r\nConnection: close\r\n\r\n");
            let mut answers = vec![exchange(&mut stream, &request).await];
            let mut ssl = tls.configure().unwrap().into_ssl("127.0.0.1").unwrap();
            ssl.set_verify(SslVerifyMode::NONE);
            let stream = connect_from(1, number, encrypted).await;
            let mut stream = SslStream::new(ssl, stream).unwrap();
            Pin::new(&mut stream).connect().await.unwrap();
            answers.push(exchange(&mut stream, &request).await);
            answers
        };
        for answer in join_all((0..20).map(fetch)).await.into_iter().flatten() {
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        }
    }
    drop(strangers);
}

/// A connection from the address with this number in 127.`network`.0.0.
async fn connect_from(network: u8, number: usize, to: SocketAddr) -> TcpStream {
    let [_, _, low, last] = (number as u32 + 1).to_be_bytes();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, network, low, last), 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // OpenSSL takes an end without an alert for an error.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

/// The first message of a client's handshake.
async fn client_hello(tls: &SslConnector) -> Vec<u8> {
    let (ours, mut theirs) = tokio::io::duplex(16 * 1024);
    let mut stream = SslStream::new(tls.configure().unwrap().into_ssl("a").unwrap(), ours).unwrap();
    let mut hello = vec![0; 16 * 1024];
    let read = tokio::select! {
        read = theirs.read(&mut hello) => read.unwrap(),
        ended = Pin::new(&mut stream).connect() => panic!("the handshake ended: {ended:?}"),
    };
    hello.truncate(read);
    hello
}

#[tokio::test]
async fn shim_gets_its_second_stage_beside_itself_and_the_signed_grub_its_way_back_to_the_ticket() {
    let loader = HttpLoader::ShimGrub;
    let mut listener = Listener::with(|settings| settings.http_loader = loader).await;
    listener.artifacts.prepare(&booting_node()).await.unwrap();

    assert!(listener.get("bootx64.efi").await.body == pattern(7_000, 13));
    // As shim asks.
    assert!(listener.get("/grubx64.efi").await.body == pattern(8_000, 17));
    let first = listener.get_path("/grub/grub.cfg").await;
    assert_eq!(first.status, 200);
    let first = String::from_utf8(first.body).unwrap();
    assert!(first.contains("configfile \"$cmdpath/grub.cfg\"") && !first.contains(TICKET));
    let config = String::from_utf8(listener.get("grub.cfg").await.body).unwrap();
    assert!(config.contains("linux \"$cmdpath/kernel\" 'ipa-api-url=http://127.0.0.1:6386'"));
    // The machine has fetched from this address before, so the request without a ticket is its own.
    for path in ["bootx64.efi", "grubx64.efi", "grub/grub.cfg"] {
        assert_eq!(listener.recorded().await.path, path);
    }
}

#[tokio::test]
async fn shim_starts_the_uki_of_the_node() {
    let loader = HttpLoader::ShimUki;
    let listener = Listener::with(|settings| settings.http_loader = loader).await;
    listener.artifacts.prepare(&booting_node()).await.unwrap();

    assert!(listener.get("bootx64.efi").await.body == pattern(7_000, 13));
    let uki = listener.get("grubx64.efi").await.body;
    assert!(uki.len() > KERNEL_LEN + INITRAMFS_LEN);
    assert!(uki.windows(12).any(|window| window == b"ipa-api-url="));
    let iso = listener.get("boot.iso").await.body;
    assert!(iso.windows(11).any(|window| window == b"GRUBX64 EFI"));
}

#[tokio::test]
async fn the_image_of_shim_and_grub_has_what_grub_reads_and_no_uki() {
    let loader = HttpLoader::ShimGrub;
    let listener = Listener::with(|settings| settings.http_loader = loader).await;
    listener.artifacts.prepare(&booting_node()).await.unwrap();

    let iso = listener.get("boot.iso").await.body;

    let has = |part: &[u8]| iso.windows(part.len()).any(|window| window == part);
    for file in [pattern(7_000, 13), pattern(8_000, 17), pattern(KERNEL_LEN, 3)] {
        assert!(has(&file));
    }
    assert!(has(b"linux \"$prefix/kernel\" 'ipa-api-url=http://127.0.0.1:6386'"));
    assert!(!has(&stub()[..1_000]));
    assert!(iso == listener.get("boot.iso").await.body);
}

#[tokio::test]
async fn an_image_with_shim_is_refused_in_words_if_the_boot_set_has_none() {
    let loader = HttpLoader::ShimGrub;
    let listener = Listener::with(|settings| settings.http_loader = loader).await;
    let path = listener.folder.path().join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["files"].as_object_mut().unwrap().remove("shimx64.efi.signed");
    fs::write(&path, manifest.to_string()).unwrap();
    let mut node = booting_node();
    node.attempt.as_mut().unwrap().boot_interface = BootInterface::RedfishHttps;

    let refused = listener.artifacts.prepare(&node).await.unwrap_err();

    let words = "boot.iso cannot be made: the boot set has no shim: add Debian's signed loaders";
    assert!(format!("{refused:#}").starts_with(words), "{refused:#}");
}

#[tokio::test]
async fn without_shim_there_is_no_second_stage() {
    let listener = Listener::start().await;

    assert_eq!(listener.get("grubx64.efi").await.status, 503);
    assert_eq!(listener.get_path("/grub/x86_64-efi/command.lst").await.status, 404);
}

/// TLS that refuses every client.
#[derive(Debug)]
struct RefusingTls;

impl ListenerTls for RefusingTls {
    fn accept(
        &self,
        _: PacedStream,
        _: IpAddr,
    ) -> BoxFuture<'_, Result<EncryptedConnection, HandshakeFailure>> {
        async { Err(HandshakeFailure::NoCommonCipher) }.boxed()
    }
}

/// A listener for one booting node, and its trace.
struct Listener {
    address: SocketAddr,
    /// The address of [`RefusingTls`].
    tls_address: SocketAddr,
    artifacts: Artifacts,
    index: NodeIndex,
    backlog: Backlog,
    folder: TempDir,
    end: Option<oneshot::Sender<()>>,
}

impl Listener {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut ArtifactSettings)) -> Self {
        Self::made(change, ConnectionLimits::default()).await
    }

    async fn with_limits(limits: ConnectionLimits) -> Self {
        Self::made(|_| {}, limits).await
    }

    async fn made(change: impl FnOnce(&mut ArtifactSettings), limits: ConnectionLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_boot_set(folder.path());
        let (boot_sets, cache) = (BootSets::look(folder.path()), folder.path().join("cache"));
        let mut settings = ArtifactSettings {
            image_dirs: vec![folder.path().join("images")],
            image_reach: ImageReach { loopback: true, ..ImageReach::default() },
            kernel_append_params: "nofb vga=normal".to_owned(),
            ..ArtifactSettings::new(boot_sets, cache, Urls::new(UrlSettings::default(), None))
        };
        change(&mut settings);
        let index = NodeIndex::default();
        index.put_node(booting_node());
        index.put_ports(
            Uuid::nil(),
            vec![boot_port(Uuid::nil(), "52:54:00:12:34:56".parse().unwrap())],
        );
        let (recorder, backlog) = Recorder::new();
        let artifacts = Artifacts::open(settings, index.clone(), recorder).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls_listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let tls_address = tls_listener.local_addr().unwrap();
        let (end, ended) = oneshot::channel();
        tokio::spawn(artifacts.clone().serve(
            vec![
                PortListener { socket: listener, tls: None },
                PortListener { socket: tls_listener, tls: Some(Arc::new(RefusingTls)) },
            ],
            limits,
            HttpMetrics::default(),
            async move {
                let _ = ended.await;
            },
        ));
        Self { address, tls_address, artifacts, index, backlog, folder, end: Some(end) }
    }

    /// Serves the same with the limits of the daemon, and returns its addresses without and with TLS.
    fn serve_with_tls(&self) -> [SocketAddr; 2] {
        let key = key_file(self.folder.path(), 0o600);
        let certificate = self.folder.path().join("cert.pem");
        let source = CertificateSource::of_files(
            OperatorFiles { certificate, key },
            CertificateNeeds::default(),
        )
        .unwrap();
        let tls: Arc<dyn ListenerTls> = Arc::new(FirmwareTls::new(source, FirmwareCiphers::Modern));
        let listeners = [None, Some(tls)].map(|tls| {
            let socket = listen((Ipv4Addr::LOCALHOST, 0).into(), "a test").unwrap();
            PortListener { socket, tls }
        });
        let addresses = listeners.each_ref().map(|one| one.socket.local_addr().unwrap());
        tokio::spawn(self.artifacts.clone().serve(
            listeners.into(),
            ConnectionLimits::default(),
            HttpMetrics::default(),
            std::future::pending(),
        ));
        addresses
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The answer to these bytes, until the listener closes the connection.
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

    async fn get(&self, file: &str) -> Reply {
        self.ask("GET", file, "").await
    }

    /// Sends the first byte of a handshake, and waits until the listener has closed the connection.
    async fn begin_handshake(&self) {
        let mut stream = TcpStream::connect(self.tls_address).await.unwrap();
        stream.write_all(&[22]).await.unwrap();
        // The listener has not read the byte, so this may be a reset.
        let _ = stream.read(&mut [0]).await;
    }

    /// The next request in the trace.
    async fn recorded(&mut self) -> Fetch {
        let what = self.backlog.recorded.recv().await.unwrap().event.what;
        let BootEventKind::Http {
            method,
            artifact,
            path,
            remote,
            user_agent,
            status,
            error,
            range,
            sent,
            length,
            ..
        } = what
        else {
            panic!("not of the boot listener: {what:?}");
        };
        Fetch {
            method: method.to_string(),
            artifact,
            path,
            remote,
            user_agent,
            status,
            error,
            range,
            sent,
            length,
        }
    }

    fn write_image(&self, name: &str, len: u64) {
        let folder = self.folder.path().join("images");
        fs::create_dir_all(&folder).unwrap();
        fs::File::create(folder.join(name)).unwrap().set_len(len).unwrap();
    }

    fn image_url(&self, name: &str) -> String {
        format!("file://{}/images/{name}", self.folder.path().display())
    }

    fn boot_own_ramdisk(&self, kernel: &str, initramfs: &str) {
        self.boot_with(BootInterface::Http, |info| {
            info.insert("deploy_kernel".into(), self.image_url(kernel).into());
            info.insert("deploy_ramdisk".into(), self.image_url(initramfs).into());
        });
    }

    fn boot_with(
        &self,
        interface: BootInterface,
        set: impl FnOnce(&mut Map<String, Value>),
    ) -> Node {
        let mut node = booting_node();
        node.attempt.as_mut().unwrap().boot_interface = interface;
        set(&mut node.driver_info);
        self.index.put_node(node.clone());
        node
    }

    /// The node awaits its machine with an instance that boots an ISO image.
    fn deploy_instance(&self) {
        self.write_image("instance.iso", INSTANCE_LEN);
        let mut node = booting_node();
        node.provision_state = ProvisionState::DeployWait;
        let attempt = node.attempt.as_mut().unwrap();
        attempt.procedure = Procedure::Deploy;
        attempt.boot_interface = BootInterface::RedfishHttps;
        node.kept.insert("deploy_interface".into(), "ramdisk".into());
        node.instance_info.insert("boot_iso".into(), self.image_url("instance.iso").into());
        self.index.put_node(node);
    }

    async fn get_path(&self, path: &str) -> Reply {
        let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n");
        Reply::parse(&self.say(request.as_bytes()).await)
    }
}

/// `BootEventKind::Http`, taken apart.
#[derive(Debug)]
struct Fetch {
    method: String,
    artifact: Option<Artifact>,
    path: String,
    remote: Option<IpAddr>,
    user_agent: Option<String>,
    status: u16,
    error: Option<String>,
    range: Option<String>,
    sent: u64,
    length: u64,
}

/// The parts of an answer.
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

    /// All headers except the date.
    fn lasting(&self) -> Vec<&(String, String)> {
        self.headers.iter().filter(|(name, _)| name != "Date").collect()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

fn write_boot_set(folder: &Path) {
    write_boot_set_with(folder, &pattern(KERNEL_LEN, 3));
}

fn write_boot_set_with(folder: &Path, kernel: &[u8]) {
    write_boot_set_for(CpuArch::X64, folder, kernel);
}

fn write_boot_set_for(cpu_arch: CpuArch, folder: &Path, kernel: &[u8]) {
    fs::create_dir_all(folder).unwrap();
    let grub = format!("grub{}.efi", cpu_arch.uefi_name());
    let files = [
        ("kernel", kernel.to_vec()),
        ("initramfs", pattern(INITRAMFS_LEN, 5)),
        ("stub.efi", stub_for(efi_machine(cpu_arch))),
        ("snponly.efi", pattern(5_000, 7)),
        (&grub, pattern(6_000, 11)),
        ("shimx64.efi.signed", pattern(7_000, 13)),
        ("grubnetx64.efi.signed", pattern(8_000, 17)),
    ];
    let mut manifest = Map::new();
    for (name, contents) in files {
        fs::write(folder.join(name), &contents).unwrap();
        let sha256: String =
            Sha256::digest(&contents).iter().map(|byte| format!("{byte:02x}")).collect();
        manifest.insert(name.to_owned(), json!({ "len": contents.len(), "sha256": sha256 }));
    }
    let manifest = json!({ "version": 1, "kernel_version": "6.1.0", "files": manifest });
    fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
}

/// Bytes that depend on their position.
fn pattern(len: usize, step: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(step) % 251) as u8).collect()
}

/// A program for x64 with two sections, in the layout of systemd's stub.
fn stub() -> Vec<u8> {
    stub_for(efi::PeMachine::X64)
}

fn stub_for(machine: efi::PeMachine) -> Vec<u8> {
    let mut bytes = vec![0; 0x800];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    let (pe, optional) = (0x80, 0x98);
    put(0, b"MZ");
    put(0x3C, &[pe as u8]);
    put(pe, b"PE\0\0");
    put(pe + 4, &(machine as u16).to_le_bytes());
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
