//! The operator's certificate, its key and its CA, in files.
#![expect(clippy::unwrap_used, reason = "clippy sees tests only where they are marked as such")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use certificates::{
    CertificateNeeds, CertificateSource, FilesLook, FirmwareCiphers, OperatorAuthority,
    OperatorFiles,
};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::symm::Cipher;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509NameBuilder};
use tempfile::TempDir;

const UNTIL: &str = "20991231235959Z";

/// A certificate and its key.
struct Issued {
    certificate: X509,
    key: PKey<Private>,
}

/// A certificate to issue.
struct Wanted<'w> {
    name: &'w str,
    is_authority: bool,
    until: &'w str,
    key: PKey<Private>,
}

impl Wanted<'_> {
    fn root(name: &str) -> Issued {
        Wanted { name, is_authority: true, until: UNTIL, key: ec(Nid::X9_62_PRIME256V1) }
            .issue(None)
    }

    fn issue(self, issuer: Option<&Issued>) -> Issued {
        let Self { name, is_authority, until, key } = self;
        let mut subject = X509NameBuilder::new().unwrap();
        subject.append_entry_by_text("CN", name).unwrap();
        let subject = subject.build();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        let mut serial = BigNum::new().unwrap();
        serial.rand(64, openssl::bn::MsbOption::ONE, false).unwrap();
        builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
        builder.set_subject_name(&subject).unwrap();
        let issuer_name = issuer.map_or(&*subject, |issuer| issuer.certificate.subject_name());
        builder.set_issuer_name(issuer_name).unwrap();
        builder.set_pubkey(&key).unwrap();
        let time = |text| Asn1Time::from_str(text).unwrap();
        builder.set_not_before(&time("20190101000000Z")).unwrap();
        builder.set_not_after(&time(until)).unwrap();
        if is_authority {
            builder
                .append_extension(BasicConstraints::new().critical().ca().build().unwrap())
                .unwrap();
        } else {
            let mut names = SubjectAlternativeName::new();
            names.dns(name).ip("192.0.2.1").ip("2001:db8::1");
            let names = names.build(&builder.x509v3_context(None, None)).unwrap();
            builder.append_extension(names).unwrap();
        }
        let signer = issuer.map_or(&key, |issuer| &issuer.key);
        builder.sign(signer, MessageDigest::sha256()).unwrap();
        Issued { certificate: builder.build(), key }
    }
}

fn ec(curve: Nid) -> PKey<Private> {
    let curve = EcGroup::from_curve_name(curve).unwrap();
    PKey::from_ec_key(EcKey::generate(&curve).unwrap()).unwrap()
}

fn rsa(bits: u32) -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap()
}

fn authority_in_between(issuer: &Issued, until: &str) -> Issued {
    let key = ec(Nid::X9_62_PRIME256V1);
    Wanted { name: "Between", is_authority: true, until, key }.issue(Some(issuer))
}

fn server(name: &str, issuer: &Issued) -> Issued {
    server_with(ec(Nid::X9_62_PRIME256V1), name, issuer)
}

fn server_with(key: PKey<Private>, name: &str, issuer: &Issued) -> Issued {
    Wanted { name, is_authority: false, until: UNTIL, key }.issue(Some(issuer))
}

/// A folder with files.
struct Site(TempDir);

impl Site {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn files(&self) -> OperatorFiles {
        OperatorFiles { certificate: self.path("server.pem"), key: self.path("server.key") }
    }

    fn write_pem(&self, name: &str, certificates: &[&Issued]) -> PathBuf {
        let pem = certificates.iter().flat_map(|one| one.certificate.to_pem().unwrap());
        fs::write(self.path(name), pem.collect::<Vec<_>>()).unwrap();
        self.path(name)
    }

    /// Writes a certificate with those of its issuers, and its key.
    fn write(&self, own: &Issued, issuers: &[&Issued]) -> OperatorFiles {
        let chain: Vec<_> = std::iter::once(own).chain(issuers.iter().copied()).collect();
        self.write_pem("server.pem", &chain);
        self.write_key(&own.key.private_key_to_pem_pkcs8().unwrap());
        self.files()
    }

    fn write_key(&self, pem: &[u8]) {
        fs::write(self.path("server.key"), pem).unwrap();
        // Like the folder of Debian's ssl-cert.
        set_mode(&self.path("server.key"), 0o640);
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// What all ports with TLS need.
fn all_ports() -> CertificateNeeds {
    CertificateNeeds { firmware: Some(FirmwareCiphers::Modern), others: true, authority: None }
}

fn refusal(files: &OperatorFiles, needs: CertificateNeeds) -> String {
    format!("{:#}", CertificateSource::of_files(files.clone(), needs).unwrap_err())
}

#[test]
fn the_operators_certificate_is_for_its_names_and_addresses_alone() {
    let (site, root) = (Site::new(), Wanted::root("Root"));
    let source = |name: &str| {
        let files = site.write(&server(name, &root), &[]);
        CertificateSource::of_files(files, all_ports()).unwrap()
    };
    let (named, wild) = (source("api.example"), source("*.example"));
    let unnamed = |source: &CertificateSource, hosts: &[&str]| -> Vec<String> {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        source.unnamed(&hosts).into_iter().map(str::to_owned).collect()
    };

    let hosts = ["api.example", "API.example", "192.0.2.1", "2001:db8::1"];
    assert!(unnamed(&named, &hosts).is_empty());
    let hosts = ["boot.example", "example", "192.0.2.2", "::1"];
    assert_eq!(unnamed(&named, &hosts), hosts);
    let hosts = ["boot.example", "a.boot.example", "example"];
    assert_eq!(unnamed(&wild, &hosts), hosts[1..]);
}

#[test]
fn files_that_cannot_be_used_are_named_with_the_reason_and_the_remedy() {
    let (site, root) = (Site::new(), Wanted::root("Root"));
    let own = server("api.example", &root);
    let files = site.write(&own, &[]);
    let said = |part: &str| {
        let said = refusal(&files, all_ports());
        assert!(said.contains(part) && said.len() < 300, "{said}");
    };

    let cipher = Cipher::aes_256_cbc();
    site.write_key(&own.key.private_key_to_pem_pkcs8_passphrase(cipher, b"secret").unwrap());
    said("server.key is encrypted: remove its passphrase");
    site.write_key(&root.key.private_key_to_pem_pkcs8().unwrap());
    said("server.key does not belong to the certificate");
    set_mode(&files.key, 0o644);
    said("is open to all users (mode 0644)");
    fs::write(&files.certificate, "nothing").unwrap();
    said("server.pem has no certificate in PEM");
    fs::remove_file(&files.certificate).unwrap();
    said("server.pem: No such file");
}

#[test]
fn a_certificate_that_a_port_cannot_use_is_refused_with_the_reason() {
    let (site, root) = (Site::new(), Wanted::root("Root"));
    let boot = || CertificateNeeds { others: false, ..all_ports() };
    let others = || CertificateNeeds { firmware: None, ..all_ports() };

    let short = site.write(&server_with(rsa(512), "api.example", &root), &[]);
    let said = refusal(&short, boot());
    assert!(said.contains("boot listener does not take it: ee key too small"), "{said}");
    let said = refusal(&short, others());
    assert!(said.contains("takes keys of RSA with 2048 to 8192 bits"), "{said}");

    let p521 = site.write(&server_with(ec(Nid::SECP521R1), "api.example", &root), &[]);
    assert!(refusal(&p521, others()).contains("P-256, P-384 and Ed25519 alone"));
    CertificateSource::of_files(p521, boot()).unwrap();

    let weak = Wanted { name: "Weak", is_authority: true, until: UNTIL, key: rsa(512) }.issue(None);
    let by_weak = site.write(&server("api.example", &weak), &[&weak]);
    let said = refusal(&by_weak, boot());
    assert!(said.contains("boot listener does not take it: ca key too small"), "{said}");
}

#[test]
fn files_are_read_again_when_they_change_and_refused_ones_leave_the_former_in_use() {
    let (site, root) = (Site::new(), Wanted::root("Root"));
    let files = site.write(&server("one.example", &root), &[]);
    let source = CertificateSource::of_files(files.clone(), all_ports()).unwrap();
    let has = |name: &str| source.unnamed(&[name.to_owned()]).is_empty();
    assert_eq!(source.look(), FilesLook::Unchanged);

    site.write(&server_with(rsa(512), "two.example", &root), &[]);
    assert_eq!(source.look(), FilesLook::Refused);
    assert!(has("one.example") && source.refusal().unwrap().contains("ee key too small"));

    site.write(&server("three.example", &root), &[]);
    set_mode(&files.key, 0o644);
    assert_eq!(source.look(), FilesLook::Refused);
    set_mode(&files.key, 0o600);
    assert_eq!(source.look(), FilesLook::Read, "the time of a file's content is as before");
    assert!(has("three.example") && source.refusal().is_none());
    assert_eq!(source.look(), FilesLook::Unchanged);
}

#[test]
fn the_first_end_in_the_chain_counts() {
    let (site, root) = (Site::new(), Wanted::root("Root"));
    let between = authority_in_between(&root, "20300101000000Z");
    let files = site.write(&server("api.example", &between), &[&between, &root]);

    let source = CertificateSource::of_files(files, all_ports()).unwrap();

    let validity = source.validity().unwrap().unwrap();
    assert_eq!(validity.from.to_string(), "2019-01-01T00:00:00Z");
    assert_eq!(validity.until.to_string(), "2030-01-01T00:00:00Z");
    assert_eq!(validity.until_of_issuer.as_deref(), Some("Between"));
}

/// The name of the CA that is taken of these certificates.
fn taken(
    site: &Site,
    authorities: &[&Issued],
    certificate: Option<&Path>,
) -> Result<String, String> {
    let path = site.write_pem("ca.pem", authorities);
    let read = OperatorAuthority::read(&path, certificate);
    read.map(|authority| authority.subject()).map_err(|error| format!("{error:#}"))
}

#[test]
fn the_ca_that_issued_the_certificate_is_taken_wherever_it_is_in_its_file() {
    let (site, [root, other]) = (Site::new(), ["Root", "Other"].map(Wanted::root));
    let between = authority_in_between(&root, UNTIL);
    let own = server("api.example", &between);
    let alone = site.write_pem("alone.pem", &[&own]);
    let whole = site.write_pem("whole.pem", &[&own, &between]);

    assert_eq!(taken(&site, &[&own, &other, &root], Some(&whole)).unwrap(), "Root");
    assert_eq!(taken(&site, &[&own, &between], Some(&alone)).unwrap(), "Between");
    for wrong in [&[&other][..], &[&own], &[&root]] {
        let said = taken(&site, wrong, Some(&alone)).unwrap_err();
        assert!(said.contains("no CA in") && said.contains("has issued the certificate"), "{said}");
    }

    let authority =
        OperatorAuthority::read(&site.write_pem("ca.pem", &[&own, &other, &root]), Some(&whole))
            .unwrap();
    assert_eq!(authority.pem().unwrap().as_bytes(), root.certificate.to_pem().unwrap());
    let all = X509::stack_from_pem(authority.all_pem().unwrap().as_bytes()).unwrap();
    assert_eq!(all, [root.certificate, own.certificate, other.certificate]);
}

#[test]
fn a_certificate_that_issued_itself_is_its_own_ca() {
    let site = Site::new();
    let key = ec(Nid::X9_62_PRIME256V1);
    let own = Wanted { name: "api.example", is_authority: false, until: UNTIL, key }.issue(None);
    let certificate = site.write_pem("server.pem", &[&own]);

    assert_eq!(taken(&site, &[&own], Some(&certificate)).unwrap(), "api.example");
}

#[test]
fn the_ca_of_a_proxy_is_the_first_one_in_its_file() {
    let (site, root) = (Site::new(), Wanted::root("Root"));
    let between = authority_in_between(&root, UNTIL);
    let own = server("proxy.example", &between);

    assert_eq!(taken(&site, &[&own, &between, &root], None).unwrap(), "Between");
    assert!(taken(&site, &[&own], None).unwrap_err().contains("has no certificate of a CA"));
}

#[test]
fn a_file_of_a_ca_that_cannot_be_used_is_refused_with_the_remedy() {
    let site = Site::new();
    let said = |text: Option<&str>| {
        let path = site.path("ca.pem");
        match text {
            Some(text) => fs::write(&path, text).unwrap(),
            None => drop(fs::remove_file(&path)),
        }
        format!("{:#}", OperatorAuthority::read(&path, None).unwrap_err())
    };

    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(said(Some(garbage)).contains("has a certificate that cannot be read: "));
    assert!(said(Some("nothing")).contains("has no certificate in PEM"));
    assert!(said(None).contains("cannot be read: name the file with the CA's certificate in PEM"));
}

#[test]
fn a_new_certificate_of_another_ca_is_refused_until_a_restart() {
    let (site, [root, other]) = (Site::new(), ["Root", "Other"].map(Wanted::root));
    let files = site.write(&server("one.example", &root), &[]);
    let path = site.write_pem("ca.pem", &[&root]);
    let authority = OperatorAuthority::read(&path, Some(&files.certificate)).unwrap();
    let needs = CertificateNeeds { authority: Some(authority), ..all_ports() };
    let source = CertificateSource::of_files(files, needs).unwrap();

    site.write(&server("two.example", &other), &[]);
    site.write_pem("ca.pem", &[&other]);

    assert_eq!(source.look(), FilesLook::Refused);
    let said = source.refusal().unwrap();
    assert!(said.contains("is not issued by the CA that machines trust (Root, "), "{said}");
    assert!(said.contains("takes a restart"), "{said}");
}
