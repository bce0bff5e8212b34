//! Handshakes over real sockets, with OpenSSL as the client: it can be as old as any firmware.
#![expect(clippy::unwrap_used, reason = "clippy sees tests only where they are marked as such")]

use std::fs::{self, Permissions};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use certificates::{
    AuthorityPem, CertificateAuthority, CertificateNeeds, CertificateSource, FirmwareCiphers,
    FirmwareTls, OperatorFiles, OperatorTls,
};
use futures::FutureExt as _;
use openssl::ec::EcKey;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::ssl::{Ssl, SslContextBuilder, SslMethod, SslVerifyMode, SslVersion};
use openssl::x509::X509;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_openssl::SslStream;
use transport::http_server::{HandshakeFailure, ListenerTls, OtherAnswers, TlsAlert};

static AUTHORITY: LazyLock<AuthorityPem> = LazyLock::new(|| CertificateAuthority::make().unwrap());
static SOURCE: LazyLock<CertificateSource> = LazyLock::new(|| source(&AUTHORITY));

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn source(authority: &AuthorityPem) -> CertificateSource {
    let authority = CertificateAuthority::of_pem(authority).unwrap();
    let addresses = vec![[192, 0, 2, 1].into()];
    CertificateSource::issued_by(authority, vec!["boot.example".to_owned()], addresses)
}

fn firmware_tls(ciphers: FirmwareCiphers) -> Arc<dyn ListenerTls> {
    Arc::new(FirmwareTls::new(SOURCE.clone(), ciphers))
}

/// A client: its versions, ciphers of TLS 1.2, signatures, and the host that it expects in the certificate.
#[derive(Clone)]
struct TlsClient {
    versions: [SslVersion; 2],
    ciphers: &'static str,
    signatures: Option<&'static str>,
    host: &'static str,
    trusts: &'static AuthorityPem,
}

impl Default for TlsClient {
    fn default() -> Self {
        Self {
            versions: [SslVersion::TLS1_2, SslVersion::TLS1_3],
            ciphers: "DEFAULT",
            signatures: None,
            host: "127.0.0.1",
            trusts: &AUTHORITY,
        }
    }
}

/// What a successful handshake agreed on.
#[derive(Debug, PartialEq, Eq)]
struct Agreed {
    version: &'static str,
    cipher: String,
    key: &'static str,
}

impl TlsClient {
    fn session(&self) -> Ssl {
        let mut context = SslContextBuilder::new(SslMethod::tls_client()).unwrap();
        context.set_min_proto_version(Some(self.versions[0])).unwrap();
        context.set_max_proto_version(Some(self.versions[1])).unwrap();
        context.set_cipher_list(&format!("{}:@SECLEVEL=0", self.ciphers)).unwrap();
        if let Some(signatures) = self.signatures {
            context.set_sigalgs_list(signatures).unwrap();
        }
        context.set_verify(SslVerifyMode::PEER);
        let trusted = X509::from_pem(self.trusts.certificate.as_bytes()).unwrap();
        context.cert_store_mut().add_cert(trusted).unwrap();
        let mut ssl = Ssl::new(&context.build()).unwrap();
        match self.host.parse() {
            Ok(address) => ssl.param_mut().set_ip(address).unwrap(),
            Err(_) => ssl.param_mut().set_host(self.host).unwrap(),
        }
        ssl
    }
}

/// The results of a handshake at both ends. The client's is `None` if it failed. The server's is what it says of it.
async fn shake(
    tls: &Arc<dyn ListenerTls>,
    client: &TlsClient,
    at: IpAddr,
) -> (Option<Agreed>, Result<String, HandshakeFailure>) {
    let listener = TcpListener::bind(SocketAddr::new(at, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        tls.accept(OtherAnswers::new().connection(stream), at)
            .await
            .map(|connection| connection.agreed)
    };
    let session = client.session();
    let client = async move {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = SslStream::new(session, stream).unwrap();
        Pin::new(&mut stream).connect().await.ok()?;
        let ssl = stream.ssl();
        let key = ssl.peer_certificate().unwrap().public_key().unwrap();
        Some(Agreed {
            version: ssl.version_str(),
            cipher: ssl.current_cipher().unwrap().name().to_owned(),
            key: if key.rsa().is_ok() { "RSA" } else { "ECDSA" },
        })
    };
    tokio::join!(client, server)
}

async fn agreed(tls: &Arc<dyn ListenerTls>, client: &TlsClient) -> Agreed {
    let (agreed, accepted) = shake(tls, client, LOOPBACK).await;
    accepted.unwrap();
    agreed.expect("the client accepts")
}

async fn refused(tls: &Arc<dyn ListenerTls>, client: &TlsClient) -> HandshakeFailure {
    let (agreed, accepted) = shake(tls, client, LOOPBACK).await;
    assert_eq!(agreed, None);
    accepted.unwrap_err()
}

#[tokio::test]
async fn firmware_with_tls_1_2_or_1_3_gets_the_kind_of_certificate_that_it_verifies() {
    let tls = firmware_tls(FirmwareCiphers::Modern);
    for (version, name) in [(SslVersion::TLS1_2, "TLSv1.2"), (SslVersion::TLS1_3, "TLSv1.3")] {
        for (signatures, key) in
            [("RSA-PSS+SHA256:RSA+SHA256", "RSA"), ("ECDSA+SHA256:RSA+SHA256", "ECDSA")]
        {
            let client = TlsClient {
                versions: [version, version],
                signatures: Some(signatures),
                ..TlsClient::default()
            };
            let agreed = agreed(&tls, &client).await;
            assert_eq!((agreed.version, agreed.key), (name, key), "{signatures}");
        }
    }
}

#[tokio::test]
async fn the_listener_says_what_a_handshake_agreed_on() {
    let tls = firmware_tls(FirmwareCiphers::Modern);
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        for signatures in ["RSA-PSS+SHA256:RSA+SHA256", "ECDSA+SHA256:RSA+SHA256"] {
            let client = TlsClient {
                versions: [version, version],
                signatures: Some(signatures),
                ..TlsClient::default()
            };
            let (agreed, said) = shake(&tls, &client, LOOPBACK).await;
            let Agreed { version, cipher, key } = agreed.unwrap();
            assert_eq!(said.unwrap(), format!("{version}, {cipher}, certificate with {key}"));
        }
    }
}

#[tokio::test]
async fn a_client_that_ends_the_handshake_with_an_expired_certificate_is_told_from_others() {
    let folder = tempfile::tempdir().unwrap();
    let files = write_files(folder.path(), &AUTHORITY, "boot.example", "20200101000000Z");
    let source = operator_source(files);
    let tls: Arc<dyn ListenerTls> = Arc::new(FirmwareTls::new(source, FirmwareCiphers::Modern));

    let client = TlsClient { host: "boot.example", ..TlsClient::default() };

    assert_eq!(refused(&tls, &client).await, HandshakeFailure::Expired);
}

#[tokio::test]
async fn old_firmware_gets_dhe_or_rsa_key_exchange_only_if_that_is_permitted() {
    let (modern, old) =
        (firmware_tls(FirmwareCiphers::Modern), firmware_tls(FirmwareCiphers::OldFirmware));
    // What OVMF 2022.11 offers; what HPE's Gen10 offers.
    for ciphers in ["DHE-RSA-AES256-GCM-SHA384", "AES256-GCM-SHA384", "AES128-SHA256"] {
        let client = TlsClient {
            versions: [SslVersion::TLS1_2, SslVersion::TLS1_2],
            ciphers,
            ..TlsClient::default()
        };
        assert_eq!(refused(&modern, &client).await, HandshakeFailure::NoCommonCipher, "{ciphers}");
        assert_eq!(agreed(&old, &client).await.cipher, ciphers);
    }
}

#[tokio::test]
async fn newer_firmware_gets_forward_secrecy_although_old_firmware_is_permitted() {
    let old = firmware_tls(FirmwareCiphers::OldFirmware);
    let client = TlsClient {
        versions: [SslVersion::TLS1_2, SslVersion::TLS1_2],
        ciphers: "AES256-GCM-SHA384:DHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256",
        ..TlsClient::default()
    };

    assert_eq!(agreed(&old, &client).await.cipher, "ECDHE-RSA-AES128-GCM-SHA256");
}

#[tokio::test]
async fn the_certificate_has_the_address_that_was_reached_and_the_names_in_the_settings() {
    for tls in [
        firmware_tls(FirmwareCiphers::Modern),
        Arc::new(OperatorTls::new(SOURCE.clone())) as Arc<dyn ListenerTls>,
    ] {
        for host in ["127.0.0.1", "192.0.2.1", "boot.example"] {
            agreed(&tls, &TlsClient { host, ..TlsClient::default() }).await;
        }
        let six = TlsClient { host: "::1", ..TlsClient::default() };
        let (agreed, _) = shake(&tls, &six, Ipv6Addr::LOCALHOST.into()).await;
        assert!(agreed.is_some(), "{tls:?}");
        let wrong = TlsClient { host: "198.51.100.1", ..TlsClient::default() };
        // OpenSSL's alert for a wrong name.
        assert_eq!(refused(&tls, &wrong).await, HandshakeFailure::Alert(TlsAlert(42)), "{tls:?}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_authority_is_heard() {
    static OTHER: LazyLock<AuthorityPem> = LazyLock::new(|| CertificateAuthority::make().unwrap());
    for tls in [
        firmware_tls(FirmwareCiphers::Modern),
        Arc::new(OperatorTls::new(SOURCE.clone())) as Arc<dyn ListenerTls>,
    ] {
        for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            let versions = [version, version];
            let client = TlsClient { versions, trusts: &OTHER, ..TlsClient::default() };
            let failure = refused(&tls, &client).await;
            assert_eq!(failure, HandshakeFailure::Alert(TlsAlert(48)), "{tls:?}");
        }
    }
}

#[tokio::test]
async fn old_versions_and_other_protocols_are_told_apart() {
    for tls in [
        firmware_tls(FirmwareCiphers::OldFirmware),
        Arc::new(OperatorTls::new(SOURCE.clone())) as Arc<dyn ListenerTls>,
    ] {
        let versions = [SslVersion::TLS1, SslVersion::TLS1_1];
        let client = TlsClient { versions, ..TlsClient::default() };
        assert_eq!(refused(&tls, &client).await, HandshakeFailure::NoCommonVersion, "{tls:?}");
        assert_eq!(said(&tls, SSL_3_HELLO).await, HandshakeFailure::NoCommonVersion, "{tls:?}");
        for bytes in [
            "GET /boot/x HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2p1\r\n",
        ] {
            let failure = said(&tls, bytes.as_bytes()).await;
            assert_eq!(failure, HandshakeFailure::NotTls, "{bytes:?}, {tls:?}");
        }
        assert_eq!(said(&tls, b"\x16\x03\x01").await, HandshakeFailure::Closed, "{tls:?}");
    }
}

/// A record with the hello of SSL 3.0, which offers one cipher.
const SSL_3_HELLO: &[u8] = b"\x16\x03\x00\x00\x2d\x01\x00\x00\x29\x03\x00\
    0123456789abcdef0123456789abcdef\x00\x00\x02\x00\x35\x01\x00";

/// OpenSSL wants the same bytes again after a write that the socket did not take. A storm that begins in between makes records
/// shorter.
#[tokio::test]
async fn a_record_that_waits_for_the_socket_is_sent_whole_although_a_storm_begins() {
    let tls = firmware_tls(FirmwareCiphers::Modern);
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let client = TlsClient { versions: [version, version], ..TlsClient::default() };
        let others = OtherAnswers::new();
        let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let mut client = SslStream::new(client.session(), stream).unwrap();
        let (server, connected) = tokio::join!(
            tls.accept(others.connection(accepted), LOOPBACK),
            Pin::new(&mut client).connect(),
        );
        connected.unwrap();
        let mut server = server.unwrap().stream;
        let image: Vec<u8> = (0..16 << 20).map(|at: u32| (at / 1000) as u8).collect();
        let mut written = 0;
        // Until the socket's buffer and the client's are full.
        while let Some(more) = server.write(&image[written..]).now_or_never() {
            written += more.unwrap();
            assert!(written < image.len(), "{version:?}: the image has no room");
        }

        others.begin(1_000);

        let send = async {
            server.write_all(&image[written..]).await?;
            server.shutdown().await
        };
        let mut received = Vec::new();
        tokio::try_join!(send, client.read_to_end(&mut received)).unwrap();
        assert!(received == image, "{version:?}: {} bytes came", received.len());
    }
}

/// The failure of a handshake with a client that sends these bytes, and no more.
async fn said(tls: &Arc<dyn ListenerTls>, bytes: &[u8]) -> HandshakeFailure {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.write_all(bytes).await.unwrap();
    client.shutdown().await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    tls.accept(OtherAnswers::new().connection(stream), LOOPBACK).await.map(drop).unwrap_err()
}

fn operator_source(files: OperatorFiles) -> CertificateSource {
    CertificateSource::of_files(files, CertificateNeeds::default()).unwrap()
}

/// Writes a certificate for `name` by the authority, valid until `not_after`, with its key, into files.
fn write_files(
    folder: &Path,
    authority: &AuthorityPem,
    name: &str,
    not_after: &str,
) -> OperatorFiles {
    let files =
        OperatorFiles { certificate: folder.join("server.pem"), key: folder.join("server.key") };
    let issuer = X509::from_pem(authority.certificate.as_bytes()).unwrap();
    let issuer_key = PKey::private_key_from_pem_passphrase(authority.key.as_bytes(), b"").unwrap();
    let curve = openssl::ec::EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&curve).unwrap()).unwrap();
    let mut certificate = X509::builder().unwrap();
    certificate.set_version(2).unwrap();
    certificate.set_issuer_name(issuer.subject_name()).unwrap();
    certificate.set_pubkey(&key).unwrap();
    let time = |text| openssl::asn1::Asn1Time::from_str(text).unwrap();
    certificate.set_not_before(&time("20190101000000Z")).unwrap();
    certificate.set_not_after(&time(not_after)).unwrap();
    let mut alternative = openssl::x509::extension::SubjectAlternativeName::new();
    alternative.dns(name);
    let alternative = alternative.build(&certificate.x509v3_context(Some(&issuer), None)).unwrap();
    certificate.append_extension(alternative).unwrap();
    certificate.sign(&issuer_key, openssl::hash::MessageDigest::sha256()).unwrap();
    fs::write(&files.certificate, certificate.build().to_pem().unwrap()).unwrap();
    fs::write(&files.key, key.private_key_to_pem_pkcs8().unwrap()).unwrap();
    // Like the folder of Debian's ssl-cert.
    fs::set_permissions(&files.key, Permissions::from_mode(0o640)).unwrap();
    files
}

#[tokio::test]
async fn the_operators_certificate_is_served_with_the_date_of_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let files = write_files(folder.path(), &AUTHORITY, "api.example", "20991231235959Z");
    let source = operator_source(files);
    let tls: Arc<dyn ListenerTls> = Arc::new(OperatorTls::new(source.clone()));

    agreed(&tls, &TlsClient { host: "api.example", ..TlsClient::default() }).await;

    assert_eq!(source.validity().unwrap().unwrap().until.to_string(), "2099-12-31T23:59:59Z");
    assert_eq!(SOURCE.validity().unwrap(), None);
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?} {:?}", *AUTHORITY, *SOURCE);

    assert!(shown.contains("BEGIN CERTIFICATE") && !shown.contains("PRIVATE"), "{shown}");
}
