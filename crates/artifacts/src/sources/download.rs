//! Downloads of images: timeouts, and the accepted answers.

use std::fs::File;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use http::StatusCode;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    LAST_MODIFIED,
};
use netboot::image_limits::ImagePace;
use netboot::image_reach::ImageReach;
use provision::text::shown_url;
use reqwest::{Client, Response};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::info;
use transport::answers::reason;
use transport::host_addresses::host_addresses;
use url::Url;

use super::cache::{Download, ImageCache, Meta};
use super::reach::{ImageResolver, redirects};

const CONNECT: Duration = Duration::from_secs(10);
/// Number of bytes to write and hash at once, on a blocking thread.
const WRITE_AT_ONCE: usize = 1 << 20;
/// Longest stored entity tag or date, in bytes.
const LONGEST_VALIDATOR: usize = 1_024;

/// The client of image servers.
#[derive(Debug)]
pub(super) struct ImageClient {
    http: Client,
    reach: ImageReach,
    pace: ImagePace,
    /// Size limit of an image in bytes.
    most: u64,
}

impl ImageClient {
    pub(super) fn new(reach: ImageReach, pace: ImagePace, most: u64) -> Result<Self> {
        // reqwest panics if the process has no crypto provider; an error means that it has one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder()
            .connect_timeout(CONNECT)
            .redirect(redirects(&reach))
            .dns_resolver(std::sync::Arc::new(ImageResolver(reach.clone())))
            // A proxy would hide the address of the server.
            .no_proxy()
            .pool_max_idle_per_host(4)
            .user_agent(concat!("ferroboot/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("cannot make an HTTP client")?;
        Ok(Self { http, reach, pace, most })
    }

    /// The image at `url`: the cached one, if the server reports no change, otherwise downloaded.
    pub(super) async fn fetch(
        &self,
        url: &Url,
        cache: &ImageCache,
        cached: Option<(Meta, File)>,
    ) -> Result<(Meta, File)> {
        let shown = shown_url(url);
        self.reach.expect_url(url).with_context(|| format!("cannot fetch {shown}"))?;
        let meta = cached.as_ref().map(|(meta, _)| meta);
        let answer = match timeout(self.pace.head, self.ask(url, meta)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => bail!("cannot fetch {shown}: {}", reason(&error)),
            Err(_) => {
                bail!("cannot fetch {shown}: no answer within {} s", self.pace.head.as_secs())
            }
        };
        self.expect_other(&answer).with_context(|| format!("cannot fetch {shown}"))?;
        if let (StatusCode::NOT_MODIFIED, Some(cached)) = (answer.status(), cached) {
            return Ok(cached);
        }
        self.download(answer, cache, url).await.with_context(|| format!("cannot use {shown}"))
    }

    async fn ask(&self, url: &Url, cached: Option<&Meta>) -> reqwest::Result<Response> {
        let mut request = self.http.get(url.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some(etag) = cached.and_then(|meta| meta.etag.as_ref()) {
            request = request.header(IF_NONE_MATCH, etag);
        } else if let Some(modified) = cached.and_then(|meta| meta.modified.as_ref()) {
            request = request.header(IF_MODIFIED_SINCE, modified);
        }
        request.send().await
    }

    /// Checks that the server is not this service: a host name may resolve to it.
    fn expect_other(&self, answer: &Response) -> Result<()> {
        let peer = answer.remote_addr().context("it is not known who answered")?;
        Ok(self.reach.expect_peer(peer, &host_addresses())?)
    }

    async fn download(
        &self,
        answer: Response,
        cache: &ImageCache,
        url: &Url,
    ) -> Result<(Meta, File)> {
        let status = answer.status();
        ensure!(status == StatusCode::OK, "the server answered {status}");
        let encoding = text_of(&answer, CONTENT_ENCODING);
        ensure!(
            encoding.as_deref().is_none_or(|it| it == "identity"),
            "the server compresses it, although that was not requested"
        );
        let len = answer.content_length();
        ensure!(len.unwrap_or(0) <= self.most, "it has more than {} bytes", self.most);
        let (etag, modified) = (text_of(&answer, ETAG), text_of(&answer, LAST_MODIFIED));
        let began = {
            let (cache, url) = (cache.clone(), url.clone());
            spawn_blocking(move || cache.begin(&url, len)).await??
        };
        let download = self.receive(answer, began).await?;
        let (meta, file) = spawn_blocking(move || download.keep(etag, modified)).await??;
        info!("downloaded {}: {} bytes", shown_url(url), meta.len);
        Ok((meta, file))
    }

    async fn receive(&self, mut answer: Response, mut download: Download) -> Result<Download> {
        let began = Instant::now();
        let (mut received, mut waiting) = (0, Vec::new());
        loop {
            let left = self.pace.allows(received).saturating_sub(began.elapsed());
            let patience = left.min(self.pace.silence);
            let chunk = match timeout(patience, answer.chunk()).await {
                Ok(chunk) => chunk.map_err(|error| {
                    anyhow::anyhow!("it broke off after {received} bytes: {}", reason(&error))
                })?,
                Err(_) if left < self.pace.silence => bail!(
                    "it arrives too slowly: {received} bytes in {} s; at least {} bytes per second are required",
                    began.elapsed().as_secs(),
                    self.pace.bytes_per_sec
                ),
                Err(_) => bail!(
                    "it broke off after {received} bytes: nothing came for {} s",
                    self.pace.silence.as_secs()
                ),
            };
            let ended = chunk.is_none();
            let chunk = chunk.unwrap_or_default();
            received += chunk.len() as u64;
            ensure!(received <= self.most, "it has more than {} bytes", self.most);
            waiting.extend_from_slice(&chunk);
            if waiting.len() >= WRITE_AT_ONCE || ended {
                (download, waiting) = write(download, waiting).await?;
            }
            if ended {
                return Ok(download);
            }
        }
    }
}

async fn write(mut download: Download, mut bytes: Vec<u8>) -> Result<(Download, Vec<u8>)> {
    spawn_blocking(move || {
        download.write(&bytes)?;
        bytes.clear();
        Ok((download, bytes))
    })
    .await?
}

/// A header that is not a text, or is too long, is ignored.
fn text_of(answer: &Response, name: HeaderName) -> Option<String> {
    let text = answer.headers().get(name)?.to_str().ok()?;
    (text.len() <= LONGEST_VALIDATOR).then(|| text.to_owned())
}
