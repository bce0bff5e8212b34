//! The client of BMCs: nv-redfish over HTTP, with each call recorded in the node's trace.

mod http;

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use nix::libc::O_NONBLOCK;
use nodes::Recorder;
use nv_redfish_bmc_http::{BmcCredentials, CacheSettings, HttpBmc};
use provision::{BootEventKind, Node};
use redfish::boot::{
    BmcCall, BmcFailure, CannotHttpBoot, NotOneSystem, RedfishSystem, SystemPower, SystemView,
    only_system,
};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use thiserror::Error;
use tokio::time::{Instant, sleep};
use tracing::debug;
use transport::tls::{CertificateFingerprint, TrustedCertificate};
use url::Url;

use self::http::RedfishClient;

/// Connection timeout: a slower BMC is considered unreachable.
const CONNECT: Duration = Duration::from_secs(10);
/// Time limit of an exchange. Some BMCs take most of a minute during their machine's self-test.
const ANSWER: Duration = Duration::from_secs(60);
/// Polling interval: Redfish cannot notify of a power change.
pub(crate) const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
const LOOKS: u32 = 3;
/// Largest certificate file in bytes: the bundle of all public authorities has 300 KiB.
const CERTIFICATES_LIMIT: u64 = 4 << 20;

/// The client of one node's BMC.
pub struct BmcClient<'n> {
    http: HttpBmc<RedfishClient>,
    system: Option<&'n str>,
    observer: Box<Observer<'n>>,
}

type Observer<'n> = dyn Fn(&BmcCall, Option<&BmcFailure>) + Send + Sync + 'n;

/// A machine behind a [`BmcClient`].
pub type BmcMachine<'a> = RedfishSystem<'a, HttpBmc<RedfishClient>>;

/// The reason why a BMC could not be used.
#[derive(Debug, Error)]
pub enum BmcError {
    /// A setting of the node is missing or invalid.
    #[error("driver_info/{setting} {problem}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// The problem.
        problem: String,
    },
    /// The BMC's system could not be determined.
    #[error(transparent)]
    System(#[from] NotOneSystem),
    /// A request failed.
    #[error(transparent)]
    Failure(#[from] BmcFailure),
    /// It lacks a required feature.
    #[error(transparent)]
    Cannot(#[from] CannotHttpBoot),
    /// It answers, but all requests together take too long.
    #[error("the BMC took longer than {} s in all", .0.as_secs())]
    Slow(Duration),
}

impl<'n> BmcClient<'n> {
    /// The BMC of `node`, from its `redfish_*` settings. Nothing is sent yet.
    ///
    /// # Errors
    /// [`BmcError::Setting`]
    pub async fn of(node: &'n Node, recorder: &'n Recorder) -> Result<Self, BmcError> {
        let text = |key| node.driver_text(key).unwrap_or_default().to_owned();
        let credentials = BmcCredentials::new(text("redfish_username"), text("redfish_password"));
        let address = address(node)?;
        let client = client(node, &address).await?.build().map_err(|error| BmcError::Setting {
            setting: "redfish_verify_ca",
            problem: format!("cannot be used: {error}"),
        })?;
        let http = HttpBmc::new(
            RedfishClient::new(client),
            address,
            credentials,
            // A BMC's former answers may be outdated.
            CacheSettings::with_capacity(0),
        );
        let observer = Box::new(|call: &BmcCall, failure: Option<&BmcFailure>| {
            debug!(node.uuid = %node.uuid, call.method = call.method.as_str(), call.path, ?failure, "called the BMC");
            // Before the first boot and after the last, there is no trace.
            if node.live_attempt().is_some() {
                recorder.record(node, what(call, failure));
            }
        });
        Ok(Self { http, system: node.driver_text("redfish_system_id"), observer })
    }

    /// The machine behind it.
    ///
    /// # Errors
    /// [`BmcError::System`] if the node does not set the system, and the BMC has not exactly one.
    pub async fn machine(&self) -> Result<BmcMachine<'_>, BmcError> {
        let system = match self.system {
            Some(system) => system.to_owned(),
            None => only_system(&self.http, &self.observer).await?,
        };
        Ok(RedfishSystem::new(&self.http, &system, &self.observer))
    }
}

/// Reads the state of a machine. The request is repeated while the BMC is busy or restarts, since reading has no side
/// effects.
///
/// # Errors
/// [`BmcError::Failure`]
pub async fn look(machine: &BmcMachine<'_>) -> Result<SystemView, BmcError> {
    for _ in 1..LOOKS {
        match machine.look().await {
            Err(failure) if matches!(failure.status(), None | Some(500..)) => {
                sleep(BETWEEN_LOOKS).await;
            }
            answer => return Ok(answer?),
        }
    }
    Ok(machine.look().await?)
}

/// Polls until the power state is reached, or `patience` is over. Returns the last state.
///
/// # Errors
/// [`BmcError::Failure`]
pub async fn await_power(
    machine: &BmcMachine<'_>,
    wanted: SystemPower,
    patience: Duration,
) -> Result<SystemView, BmcError> {
    let until = Instant::now() + patience;
    loop {
        let view = look(machine).await?;
        if view.power() == wanted || Instant::now() >= until {
            return Ok(view);
        }
        sleep(BETWEEN_LOOKS).await;
    }
}

/// Checks that the BMC of `node` can boot the machine by the node's boot interface.
///
/// # Errors
/// The missing feature, or the reason why the BMC did not answer.
pub async fn validate(node: &Node, recorder: &Recorder) -> Result<SystemView, BmcError> {
    let bmc = BmcClient::of(node, recorder).await?;
    let view = bmc.machine().await?.look().await?;
    view.validate(node.boot_interface.http_boot_uri().is_some())?;
    Ok(view)
}

/// Ironic accepts a bare host and assumes https.
fn address(node: &Node) -> Result<Url, BmcError> {
    let wrong = |problem: &str| setting("redfish_address", problem);
    let text = node.driver_text("redfish_address").ok_or_else(|| wrong("is missing"))?;
    let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let url = Url::parse(&full).map_err(|error| wrong(&format!("is no URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("must begin with https:// or http://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // The value must not appear in logs and errors.
        return Err(wrong(
            "must not hold a user name or a password: set redfish_username and redfish_password",
        ));
    }
    Ok(url)
}

fn setting(setting: &'static str, problem: &str) -> BmcError {
    BmcError::Setting { setting, problem: problem.to_owned() }
}

async fn client(node: &Node, address: &Url) -> Result<ClientBuilder, BmcError> {
    let client = Client::builder()
        .connect_timeout(CONNECT)
        .timeout(ANSWER)
        // A redirect would send the password elsewhere; BMCs are not reached through proxies.
        .redirect(Policy::none())
        .no_proxy()
        .user_agent(concat!("ferroboot/", env!("CARGO_PKG_VERSION")));
    Ok(match verification(node, address)? {
        BmcVerification::Public => client,
        BmcVerification::Nothing => client.danger_accept_invalid_certs(true),
        BmcVerification::Fingerprint(fingerprint) => {
            trusting(client, TrustedCertificate::Fingerprint(fingerprint))?
        }
        BmcVerification::File(path) => {
            let path = path.to_owned();
            let read = tokio::task::spawn_blocking(move || certificates(Path::new(&path)));
            let certificates = read.await.map_err(|error| error.to_string()).flatten();
            let certificates =
                certificates.map_err(|problem| setting("redfish_verify_ca", &problem))?;
            trusting(client, TrustedCertificate::of_file(certificates))?
        }
    })
}

fn trusting(client: ClientBuilder, trusted: TrustedCertificate) -> Result<ClientBuilder, BmcError> {
    let tls = trusted.client();
    let tls =
        tls.map_err(|error| setting("redfish_verify_ca", &format!("cannot be used: {error}")));
    Ok(client.use_preconfigured_tls(tls?))
}

/// The verification of the BMC's certificate, from the node's settings.
#[derive(Debug, PartialEq, Eq)]
enum BmcVerification<'n> {
    /// By the authorities trusted by this host.
    Public,
    /// None.
    Nothing,
    /// By the certificates in a file.
    File(&'n str),
    /// By its fingerprint only, whatever `redfish_verify_ca` is.
    Fingerprint(CertificateFingerprint),
}

fn verification<'n>(node: &'n Node, address: &Url) -> Result<BmcVerification<'n>, BmcError> {
    match node.driver_info.get("redfish_fingerprint") {
        None | Some(Value::Null) => {}
        Some(Value::String(_)) if address.scheme() != "https" => {
            return Err(setting("redfish_fingerprint", "needs a redfish_address with https"));
        }
        Some(Value::String(text)) => {
            let fingerprint = text.parse::<CertificateFingerprint>();
            return fingerprint
                .map(BmcVerification::Fingerprint)
                .map_err(|wrong| setting("redfish_fingerprint", &wrong.to_string()));
        }
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            return Err(setting("redfish_fingerprint", "must be a string"));
        }
    }
    match node.driver_info.get("redfish_verify_ca") {
        None | Some(Value::Bool(true)) => Ok(BmcVerification::Public),
        Some(Value::Bool(false)) => Ok(BmcVerification::Nothing),
        Some(Value::String(text)) => Ok(match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => BmcVerification::Public,
            "false" | "no" | "0" => BmcVerification::Nothing,
            _ => BmcVerification::File(text),
        }),
        Some(Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(setting("redfish_verify_ca", "must be true, false or the path of a PEM file"))
        }
    }
}

/// The certificates in a PEM file, at least one.
///
/// # Errors
/// A text to follow the name of the setting.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = path.display();
    let unreadable = |error| format!("cannot be read, {shown}: {error}");
    let file = open_regular(path)?;
    let mut pem = Vec::new();
    // A file's stated length may be wrong (`/proc`).
    file.take(CERTIFICATES_LIMIT + 1).read_to_end(&mut pem).map_err(unreadable)?;
    if pem.len() as u64 > CERTIFICATES_LIMIT {
        return Err(format!(
            "cannot be used, {shown}: it has more than {CERTIFICATES_LIMIT} bytes, and is no file of \
             certificates"
        ));
    }
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let certificates =
        certificates.map_err(|error| format!("holds no certificates, {shown}: {error}"))?;
    if certificates.is_empty() {
        return Err(format!("holds no certificates, {shown}: it must be a file in PEM format"));
    }
    Ok(certificates)
}

/// Opens a file without blocking on a pipe.
fn open_regular(path: &Path) -> Result<File, String> {
    let shown = path.display();
    let unreadable = |error| format!("cannot be read, {shown}: {error}");
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path);
    let file = file.map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_file() {
        Ok(file)
    } else {
        Err(format!("cannot be used, {shown}: it is not a regular file"))
    }
}

fn what(call: &BmcCall, failure: Option<&BmcFailure>) -> BootEventKind {
    BootEventKind::Redfish {
        purpose: call.purpose,
        method: call.method.clone(),
        path: call.path.clone(),
        // The client reports the status only for failures.
        status: failure.map_or(Some(200), BmcFailure::status),
        error: failure.map(|failure| failure.message().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use transport::test_servers::{Hostility, hostile_server};

    use super::*;

    fn node(driver_info: Value) -> Node {
        let mut node = provision::test_nodes::booting_node();
        node.driver_info = driver_info.as_object().unwrap().clone();
        node
    }

    #[tokio::test]
    async fn a_bmc_that_answers_without_end_is_left_at_the_limit() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (recorder, _backlog) = Recorder::new();
        let address = hostile_server(Hostility::Endless).await;
        let node = node(json!({"redfish_address": format!("http://{address}")}));
        let bmc = BmcClient::of(&node, &recorder).await.unwrap();

        let refused = bmc.machine().await.map(drop).unwrap_err().to_string();

        assert!(refused.ends_with("the answer has more than 4194304 bytes"), "{refused}");
    }

    /// A BMC with a self-signed CA certificate; the certificate, and its fingerprint.
    async fn self_signed() -> (String, String, CertificateFingerprint) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["bmc.invalid".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
                let systems = r#"{"@odata.id": "/redfish/v1/Systems", "Members": []}"#;
                let len = systems.len();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n{systems}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (url, certificate.pem(), CertificateFingerprint::of(certificate.der()))
    }

    #[tokio::test]
    async fn a_certificate_that_a_bmc_signed_itself_can_be_trusted_as_a_file_or_by_fingerprint() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (recorder, _backlog) = Recorder::new();
        let folder = tempfile::tempdir().unwrap();
        let ((url, pem, fingerprint), (_, other, of_other)) =
            (self_signed().await, self_signed().await);
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (own, other) = (file("own.pem", &format!("{other}{pem}")), file("other.pem", &other));
        let asked = async |setting: &str, value: Value| {
            let node = node(json!({"redfish_address": url, setting: value}));
            let bmc = BmcClient::of(&node, &recorder).await.unwrap();
            bmc.machine().await.map(drop).unwrap_err().to_string()
        };
        let answered = "the BMC has 0 systems: set redfish_system_id in driver_info";

        assert_eq!(asked("redfish_verify_ca", json!(own)).await, answered);
        assert_eq!(asked("redfish_fingerprint", json!(fingerprint.to_string())).await, answered);
        assert_eq!(asked("redfish_verify_ca", json!(false)).await, answered);
        for (setting, value, words) in [
            ("redfish_verify_ca", json!(true), "certificate"),
            ("redfish_verify_ca", json!(other), "certificate"),
            ("redfish_fingerprint", json!(of_other.to_string()), &fingerprint.to_string()[..]),
        ] {
            let refused = asked(setting, value).await;
            assert!(refused.starts_with("no usable answer from the BMC"), "{refused}");
            assert!(refused.contains(words), "{refused}");
        }
    }

    #[test]
    fn what_is_no_file_of_certificates_is_refused_in_words_and_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        fs::write(at("empty"), "").unwrap();
        fs::write(at("text"), "not PEM").unwrap();
        fs::write(at("bad"), "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")
            .unwrap();
        File::create(at("huge")).unwrap().set_len(1 << 40).unwrap();
        let refused = |path: &Path| certificates(path).unwrap_err();

        for special in ["/dev/zero", "/dev/null", "/tmp", "/"] {
            let refused = refused(Path::new(special));
            assert!(refused.ends_with("is not a regular file"), "{refused}");
        }
        assert!(refused(&at("fifo")).ends_with("is not a regular file"));
        assert!(refused(&at("huge")).contains("more than 4194304 bytes"));
        assert!(refused(&at("gone")).starts_with("cannot be read, "));
        for name in ["empty", "text", "bad"] {
            let refused = refused(&at(name));
            assert!(refused.starts_with("holds no certificates, "), "{refused}");
        }
    }

    #[test]
    fn an_address_with_a_password_is_refused_without_saying_it() {
        for address in
            ["https://admin:geheim@192.0.2.1", "admin:geheim@192.0.2.1", "https://geheim@h"]
        {
            let node = node(json!({"redfish_address": address}));
            let refused = super::address(&node).unwrap_err().to_string();
            assert!(refused.contains("must not hold a user name or a password"), "{refused}");
            assert!(!refused.contains("geheim"), "{refused}");
        }
    }

    #[test]
    fn a_fingerprint_wins_over_redfish_verify_ca_and_is_checked() {
        let address = |text: &str| Url::parse(text).unwrap();
        let https = address("https://192.0.2.1");
        let pinned =
            |value: Value| node(json!({"redfish_verify_ca": false, "redfish_fingerprint": value}));
        let good = pinned(json!("ab".repeat(32)));
        let said = |node: &Node, address| verification(node, address).unwrap_err().to_string();

        assert!(matches!(verification(&good, &https), Ok(BmcVerification::Fingerprint(_))));
        assert!(said(&pinned(json!("abc")), &https).contains("64 hexadecimal digits"));
        assert!(said(&pinned(json!(true)), &https).ends_with("must be a string"));
        assert!(
            said(&good, &address("http://192.0.2.1"))
                .contains("needs a redfish_address with https")
        );
    }
}
