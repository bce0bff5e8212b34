//! Reads the API of a running service.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
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
            for certificate in Certificate::from_pem_bundle(&pem).with_context(read)? {
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
        let answer = answer.with_context(|| {
            format!(
                "no answer from {}: does `ferroboot serve` run, and is its CA known here (--ca, or OS_CACERT)?",
                shown_url(&self.api)
            )
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
