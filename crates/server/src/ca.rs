//! The certificate of the service's own authority, for those who must trust it.

use anyhow::{Context as _, Result, bail};
use store::Store;

use crate::config::Config;

/// The certificate (PEM) of the authority that issues, or issued, the listeners' certificates. Changes nothing.
///
/// # Errors
/// There is none, or the database cannot be read.
pub async fn authority_certificate(config: &Config) -> Result<String> {
    if let Some(authority) = config.tls.read_authority()? {
        return Ok(authority);
    }
    if let Some(files) = config.tls.files() {
        bail!(
            "the listeners use the certificate {}: machines must trust the authority that issued it; name its file with \
             authority in [tls]",
            files.certificate.display()
        );
    }
    let state = config.state_dir()?;
    let (url, key) = (config.database.url_in(&state), config.database.key_file_in(&state));
    let store = Store::open_to_read(&url, &key).await.context("cannot open the database")?;
    let authority = store.authority().await;
    store.close().await;
    let authority = authority.context("cannot read the authority")?.context(
        "there is no CA yet: it is made when the service first starts with an https:// address in listen",
    )?;
    Ok(authority.certificate)
}
