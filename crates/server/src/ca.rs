//! The certificate of the service's own authority, for those who must trust it.

use anyhow::{Context as _, Error, Result, bail};
use store::{Store, StoreError};

use crate::config::Config;

/// The certificate (PEM) of the authority that issues, or issued, the listeners' certificates. Changes nothing.
///
/// # Errors
/// There is none, or the database cannot be read.
pub async fn authority_certificate(config: &Config) -> Result<String> {
    if let Some(authority) = config.tls.read_authority()? {
        return authority.pem();
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
    let store = Store::open_to_read(&url, &key).await.map_err(not_opened)?;
    let authority = store.authority().await;
    store.close().await;
    let authority = authority.context("cannot read the authority")?.context(
        "there is no CA yet: it is made when the service first starts with an https:// address in listen",
    )?;
    Ok(authority.certificate)
}

fn not_opened(error: StoreError) -> Error {
    let is_new = matches!(error, StoreError::Missing { .. } | StoreError::NoTables { .. });
    let error = Error::new(error);
    if is_new {
        error.context(
            "there is no CA here: start `ferroboot serve` once, or give its --config or --state-dir",
        )
    } else {
        error.context("cannot open the database")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wrong_state_directory_is_named_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { state_dir: Some(dir.path().to_owned()), ..Config::default() };

        let refused = format!("{:#}", authority_certificate(&config).await.unwrap_err());

        assert!(refused.contains("start `ferroboot serve` once"), "{refused}");
        assert!(refused.contains("there is no database"), "{refused}");
    }
}
