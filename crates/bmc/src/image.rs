//! The image in a virtual CD, which the BMC fetches.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::Client;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use crate::private;

/// More than any boot image has.
const LARGEST_IMAGE: u64 = 4 * 1024 * 1024 * 1024;

/// Downloads an image over HTTP or HTTPS.
///
/// # Errors
/// The server's answer, or an image that is too large. The URL is not in the text, since it may contain a ticket.
pub(crate) async fn fetch(url: &str, path: &Path) -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder()
        .no_proxy()
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(30))
        .build()?;
    let context = "fetching the image of the virtual CD";
    let answer = client.get(url).send().await.map_err(reqwest::Error::without_url);
    let mut answer = answer.context(context)?;
    ensure!(answer.status().is_success(), "{context}: its server answered {}", answer.status());
    let file = private::open(path).with_context(|| format!("writing {}", path.display()))?;
    file.set_len(0)?;
    let mut file = File::from_std(file);
    let mut length = 0;
    while let Some(chunk) =
        answer.chunk().await.map_err(reqwest::Error::without_url).context(context)?
    {
        length += chunk.len() as u64;
        ensure!(length <= LARGEST_IMAGE, "the image of the virtual CD is larger than 4 GiB");
        file.write_all(&chunk).await.with_context(|| format!("writing {}", path.display()))?;
    }
    file.flush().await.with_context(|| format!("writing {}", path.display()))
}
