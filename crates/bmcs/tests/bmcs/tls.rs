//! Certificates that are trusted or not, and servers with old TLS.

use std::sync::Arc;

use bmcs::BmcConnections;
use openssl::asn1::Asn1Time;
use openssl::dh::Dh;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::ssl::{SslContext, SslContextBuilder, SslMethod, SslVersion};
use openssl::x509::{X509, X509NameBuilder};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use transport::tls::CertificateFingerprint;

use crate::test_bmc::{SYSTEM, TestBmc, TestTls, get};

/// `200`, or the failure.
async fn asked(bmc: &TestBmc, policy: &str, more: Value) -> String {
    let mut settings = more;
    settings["redfish_tls"] = json!(policy);
    let link = bmc.link(&BmcConnections::new(), settings).await;
    match get(&link, SYSTEM).await {
        Ok(answer) => answer.status.as_u16().to_string(),
        Err(failure) => failure.to_string(),
    }
}

async fn rustls_bmc(certificate: &Certificate, key: &KeyPair) -> TestBmc {
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    TestBmc::with_tls(TestTls::Rustls(TlsAcceptor::from(Arc::new(tls)))).await
}

fn file(folder: &TempDir, name: &str, text: &str) -> Value {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    json!({"redfish_verify_ca": path})
}

/// Self-signed, for another name, and marked as an authority's, as `openssl req -x509` makes it.
fn self_signed() -> (Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["bmc.invalid".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.self_signed(&key).unwrap(), key)
}

#[tokio::test]
async fn a_certificate_that_a_bmc_signed_itself_can_be_trusted_as_a_file_or_by_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let ((certificate, key), (other, _)) = (self_signed(), self_signed());
    let bmc = rustls_bmc(&certificate, &key).await;
    let shown = CertificateFingerprint::of(certificate.der()).to_string();
    let of_other = CertificateFingerprint::of(other.der()).to_string();
    let both = file(&folder, "both.pem", &format!("{}{}", other.pem(), certificate.pem()));
    let wrong = file(&folder, "other.pem", &other.pem());

    for policy in ["modern", "legacy"] {
        assert_eq!(asked(&bmc, policy, both.clone()).await, "200");
        assert_eq!(asked(&bmc, policy, json!({"redfish_fingerprint": shown})).await, "200");
        assert_eq!(asked(&bmc, policy, json!({"redfish_verify_ca": false})).await, "200");
        for more in [json!({}), wrong.clone()] {
            let refused = asked(&bmc, policy, more).await;
            assert_eq!(
                refused,
                format!(
                    "the BMC's certificate is signed by itself or by an authority that is not trusted: set \
                     redfish_verify_ca to the file of that certificate, or redfish_fingerprint to {shown}"
                ),
                "{policy}"
            );
        }
        let refused = asked(&bmc, policy, json!({"redfish_fingerprint": of_other})).await;
        let words = "the BMC's certificate has another fingerprint than redfish_fingerprint: ";
        assert_eq!(refused, format!("{words}{shown}"), "{policy}");
    }
}

#[tokio::test]
async fn a_wrong_name_and_a_past_date_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "the authority");
    let authority = params.self_signed(&authority_key).unwrap();
    let trusted = file(&folder, "authority.pem", &authority.pem());
    let issuer = Issuer::new(params, authority_key);
    for (name, until, words) in [
        ("127.0.0.1", 2036, "200"),
        (
            "127.0.0.1",
            2020,
            "the BMC's certificate has expired: renew it, or set redfish_fingerprint to ",
        ),
        (
            "rack7.example",
            2036,
            "the BMC's certificate is for rack7.example, which is not the host of redfish_address: ",
        ),
        ("192.0.2.7", 2036, "the BMC's certificate is for 192.0.2.7, which is not the host"),
    ] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let bmc = rustls_bmc(&params.signed_by(&key, &issuer).unwrap(), &key).await;

        for policy in ["modern", "legacy"] {
            let said = asked(&bmc, policy, trusted.clone()).await;
            assert!(said.starts_with(words), "{policy}, {name}: {said}");
        }
    }
}

#[tokio::test]
async fn an_authority_in_the_file_is_trusted_without_its_own_issuer() {
    let folder = tempfile::tempdir().unwrap();
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let root = Issuer::new(authority("the root"), KeyPair::generate().unwrap());
    let (params, key) = (authority("the site"), KeyPair::generate().unwrap());
    let trusted = file(&folder, "site.pem", &params.signed_by(&key, &root).unwrap().pem());
    let site = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let bmc = rustls_bmc(&params.signed_by(&key, &site).unwrap(), &key).await;

    for policy in ["modern", "legacy"] {
        assert_eq!(asked(&bmc, policy, trusted.clone()).await, "200", "{policy}");
    }
}

#[tokio::test]
async fn plain_http_on_an_https_address_is_said_so() {
    let mut bmc = TestBmc::start().await;
    bmc.url = bmc.url.replace("http:", "https:");

    for policy in ["modern", "legacy"] {
        let said = asked(&bmc, policy, json!({})).await;
        assert!(said.starts_with("the BMC answers plain HTTP where https was expected"), "{said}");
    }
}

/// A server of the last decade: this version of TLS, this cipher, a certificate with SHA-1, and its certificate.
fn old_server(version: SslVersion, cipher: &str) -> (SslContext, X509) {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let certificate = with_sha1(&key);
    let mut context = SslContextBuilder::new(SslMethod::tls_server()).unwrap();
    context.set_min_proto_version(Some(version)).unwrap();
    context.set_max_proto_version(Some(version)).unwrap();
    context.set_cipher_list(&format!("{cipher}:@SECLEVEL=0")).unwrap();
    context.set_tmp_dh(&Dh::get_2048_256().unwrap()).unwrap();
    context.set_private_key(&key).unwrap();
    context.set_certificate(&certificate).unwrap();
    (context.build(), certificate)
}

fn with_sha1(key: &PKey<Private>) -> X509 {
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "bmc.invalid").unwrap();
    let name = name.build();
    let mut certificate = X509::builder().unwrap();
    certificate.set_subject_name(&name).unwrap();
    certificate.set_issuer_name(&name).unwrap();
    certificate.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    certificate.set_not_after(&Asn1Time::days_from_now(9).unwrap()).unwrap();
    certificate.set_pubkey(key).unwrap();
    certificate.sign(key, MessageDigest::sha1()).unwrap();
    certificate.build()
}

#[tokio::test]
async fn old_tls_needs_a_setting_which_the_failure_without_it_names() {
    let folder = tempfile::tempdir().unwrap();
    for (version, cipher) in [
        // RSA key exchange.
        (SslVersion::TLS1_2, "AES128-SHA"),
        (SslVersion::TLS1_2, "DHE-RSA-AES128-SHA"),
        (SslVersion::TLS1_1, "AES128-SHA"),
        (SslVersion::TLS1, "AES128-SHA"),
        // A signature with MD5 and SHA-1.
        (SslVersion::TLS1, "DHE-RSA-AES128-SHA"),
    ] {
        let (context, certificate) = old_server(version, cipher);
        let bmc = TestBmc::with_tls(TestTls::OpenSsl(context)).await;
        let der = certificate.to_der().unwrap();
        let shown = CertificateFingerprint::of(&CertificateDer::from_slice(&der)).to_string();
        let pem = String::from_utf8(certificate.to_pem().unwrap()).unwrap();

        let refused = asked(&bmc, "modern", json!({"redfish_verify_ca": false})).await;
        assert!(
            refused.starts_with("the BMC has no version and cipher of TLS that is secure today")
                && refused.ends_with("set redfish_tls to legacy"),
            "{cipher}: {refused}"
        );
        for more in [
            json!({"redfish_verify_ca": false}),
            json!({"redfish_fingerprint": shown}),
            file(&folder, "own.pem", &pem),
        ] {
            assert_eq!(asked(&bmc, "legacy", more).await, "200", "{cipher}");
        }
        let refused = asked(&bmc, "legacy", json!({})).await;
        assert!(refused.contains(&format!("or redfish_fingerprint to {shown}")), "{refused}");
    }
}

/// As BMCs of 2014 have them: secure ciphers, and a certificate of version 1.
#[tokio::test]
async fn a_certificate_of_an_old_form_can_be_pinned_with_outdated_tls() {
    let (context, certificate) = old_server(SslVersion::TLS1_2, "ECDHE-RSA-AES128-GCM-SHA256");
    let bmc = TestBmc::with_tls(TestTls::OpenSsl(context)).await;
    let der = certificate.to_der().unwrap();
    let shown = CertificateFingerprint::of(&CertificateDer::from_slice(&der)).to_string();
    let pinned = json!({"redfish_fingerprint": shown});

    let refused = asked(&bmc, "modern", pinned.clone()).await;

    assert!(
        refused.starts_with("the BMC's certificate cannot be checked by today's rules")
            && refused.ends_with("set redfish_tls to legacy"),
        "{refused}"
    );
    assert_eq!(asked(&bmc, "legacy", pinned).await, "200");
    assert_eq!(asked(&bmc, "modern", json!({"redfish_verify_ca": false})).await, "200");
}

#[tokio::test]
async fn a_server_that_closes_at_the_beginning_of_tls_may_be_old_or_busy() {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let mut bmc = TestBmc::start().await;
    bmc.url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        }
    });

    let said = asked(&bmc, "modern", json!({})).await;
    assert!(said.ends_with("if it is old, set redfish_tls to legacy"), "{said}");
    let said = asked(&bmc, "legacy", json!({})).await;
    assert_eq!(said, "the BMC closed the connection at the beginning of TLS");
}

/// A `ServerHello` of TLS 1.2 with AES128-SHA and no extensions, so without RFC 5746.
fn server_hello() -> Vec<u8> {
    let mut hello = vec![0x16, 3, 3, 0, 42, 2, 0, 0, 38, 3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 0x2F, 0]);
    hello
}

#[tokio::test]
async fn a_server_that_has_never_heard_of_secure_renegotiation_is_talked_to_with_outdated_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut bmc = TestBmc::start().await;
    bmc.url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        stream.write_all(&server_hello()).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
    });

    // OpenSSL accepts the hello, and waits for the certificate.
    let said = asked(&bmc, "legacy", json!({})).await;
    assert_eq!(said, "the BMC closed the connection at the beginning of TLS");
}
