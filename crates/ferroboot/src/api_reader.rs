//! Reads the API of a running service.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Chain, Context as _, Result, bail, ensure};
use clap::Args;
use provision::text::shown_url;
use reqwest::{Certificate, Client};
use transport::answers::read_body;
use url::Url;

use crate::login::{ApiLogin, without_password};

/// Where the API is, and whose certificates it may have.
#[derive(Debug, Args)]
pub struct ApiAccess {
    /// URL of the API.
    #[arg(long, value_name = "URL", env = "OS_ENDPOINT", default_value = "http://127.0.0.1:6385")]
    api: Url,

    /// CA certificates (PEM) to trust for an https URL, beside the host's; `ferroboot ca` prints the service's own.
    #[arg(long, value_name = "FILE", env = "OS_CACERT")]
    ca: Option<PathBuf>,
}

/// A client of a service's API, with the login from the environment.
#[derive(Debug)]
pub(crate) struct ApiReader {
    api: Url,
    client: Client,
    login: ApiLogin,
}

impl ApiAccess {
    /// A client.
    ///
    /// # Errors
    /// The URL has a password, the login is incomplete, or the CA certificates cannot be read.
    pub(crate) fn reader(&self) -> Result<ApiReader> {
        without_password(&self.api)?;
        let login = ApiLogin::from_environment()?;
        Ok(ApiReader { api: self.api.clone(), client: self.client()?, login })
    }

    fn client(&self) -> Result<Client> {
        let mut client = Client::builder().timeout(Duration::from_secs(30)).no_proxy();
        if let Some(path) = &self.ca {
            let read = || format!("cannot read CA certificates from {}", path.display());
            let pem = fs::read(path).with_context(read)?;
            let certificates = Certificate::from_pem_bundle(&pem).with_context(read)?;
            ensure!(!certificates.is_empty(), "{} holds no certificate in PEM", path.display());
            for certificate in certificates {
                client = client.add_root_certificate(certificate);
            }
        }
        Ok(client.build()?)
    }
}

impl ApiReader {
    /// The text of an answer of at most `longest` bytes.
    ///
    /// # Errors
    /// The API's error message, or the reason why it was unreachable.
    pub(crate) async fn read(
        &self,
        path: &[&str],
        query: Option<(&str, &str)>,
        longest: usize,
    ) -> Result<String> {
        let mut url = self.api.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("{} is not the URL of an API", shown_url(&self.api)))?
            .pop_if_empty()
            .extend(path);
        if let Some((name, value)) = query {
            url.query_pairs_mut().append_pair(name, value);
        }
        let request = self.client.get(url).header("X-OpenStack-Ironic-API-Version", "latest");
        let answer = self.login.sign(request).send().await.map_err(reqwest::Error::without_url);
        let answer = answer.map_err(|error| {
            let question = question(self.api.scheme(), &error);
            let context = format!("no answer from {}: {question}", shown_url(&self.api));
            anyhow::Error::new(error).context(context)
        })?;
        let status = answer.status();
        let text = String::from_utf8(read_body(answer, longest).await?)
            .context("the API's answer is not text")?;
        if status.is_success() {
            return Ok(text);
        }
        let words = serde_json::from_str(&text).ok().and_then(|body| ironic::error::words(&body));
        bail!("{status}: {}{}", words.unwrap_or(text), self.login.hint(status));
    }
}

/// What an operator should look at when the API does not answer.
fn question(scheme: &str, error: &reqwest::Error) -> &'static str {
    let is_silent = error.is_timeout() || is_unreachable(error);
    match scheme {
        _ if is_silent => "does `ferroboot serve` run, and listen there (listen in [api])?",
        "https" => {
            "has its API TLS, and is the CA of its certificate known here (--ca, or OS_CACERT; `ferroboot ca` prints the \
             service's own)?"
        }
        // The answer to plain HTTP is a TLS alert, or the end of the connection.
        _ => "has its API TLS (--api https://…, or OS_ENDPOINT)?",
    }
}

/// Whether there was no connection at all.
fn is_unreachable(error: &reqwest::Error) -> bool {
    let no_connection = [
        ErrorKind::ConnectionRefused,
        ErrorKind::HostUnreachable,
        ErrorKind::NetworkUnreachable,
        ErrorKind::TimedOut,
    ];
    let mut causes = Chain::new(error).filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| no_connection.contains(&cause.kind()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use super::*;
    use crate::service::runtime;

    async fn failure(api: &str) -> String {
        let access = ApiAccess { api: api.parse().unwrap(), ca: None };
        let client = access.client().unwrap();
        let reader = ApiReader { api: access.api, client, login: ApiLogin::default() };
        format!("{:#}", reader.read(&["v1"], None, 1_000).await.unwrap_err())
    }

    #[test]
    fn the_ca_and_tls_are_named_only_where_they_can_be_the_cause() {
        let runtime = runtime().unwrap();
        let failure = |api: String| runtime.block_on(failure(&api));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 1_024]);
                // TLS: fatal alert, unexpected message.
                let _ = stream.write_all(&[0x15, 3, 3, 0, 2, 2, 10]);
            }
        });

        let plain = failure(format!("http://{at}"));
        assert!(plain.contains("--api https://") && !plain.contains("CA"), "{plain}");
        let tls = failure(format!("https://{at}"));
        assert!(tls.contains("OS_CACERT") && !tls.contains("--api"), "{tls}");

        for scheme in ["http", "https"] {
            let refused = failure(format!("{scheme}://127.0.0.1:1"));
            assert!(refused.contains("does `ferroboot serve` run"), "{refused}");
            assert!(!refused.contains("CA") && !refused.contains("TLS"), "{refused}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let api = "https://127.0.0.1:1".parse().unwrap();
        let access = ApiAccess { api, ca: Some(file.path().to_owned()) };

        let refused = access.client().unwrap_err().to_string();

        assert!(refused.contains("holds no certificate"), "{refused}");
    }
}
