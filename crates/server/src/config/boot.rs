//! `[boot]`: the boot listener.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use artifacts::{SignKey, UkiSigner};
use netboot::listen_addresses::ListenAddresses;
use provision::artifact::HttpLoader;
use serde::Deserialize;
use url::Url;

use super::addresses::{everywhere, expect_public};

/// `[boot]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BootConfig {
    /// The listening addresses for firmware and loaders.
    pub listen: ListenAddresses,
    /// The URL for machines; by default the service's address on the first DHCP network.
    pub url: Option<Url>,
    /// The URL for machines with IPv6, if it differs.
    pub url6: Option<Url>,
    /// The boot set; by default `ramdisk` in the state directory.
    pub ramdisk: Option<PathBuf>,
    /// The first loader of `http`, and of ISO images if it is shim.
    pub http_loader: HttpLoader,
    /// Arguments added to every kernel command line, as in Ironic's option of this name.
    pub kernel_append_params: String,
    /// Folders for nodes' `file://` images; by default `images` in the state directory.
    pub image_dirs: Option<Vec<PathBuf>>,
    /// The key that signs UKIs for Secure Boot: a file (PEM), which only its owner may read, or a key in a PKCS #11 token,
    /// by its URI (RFC 7512).
    pub sign_key: Option<String>,
    /// The certificate (PEM) of `sign_key`, with issuers that signatures shall carry.
    pub sign_certificate: Option<PathBuf>,
}

impl Default for BootConfig {
    fn default() -> Self {
        Self {
            listen: everywhere(8080).into(),
            url: None,
            url6: None,
            ramdisk: None,
            http_loader: HttpLoader::default(),
            kernel_append_params: "nofb vga=normal".to_owned(),
            image_dirs: None,
            sign_key: None,
            sign_certificate: None,
        }
    }
}

impl BootConfig {
    /// The folder of the boot set for x64, with subfolders for other architectures.
    pub(crate) fn boot_sets_in(&self, state_dir: &Path) -> PathBuf {
        self.ramdisk.clone().unwrap_or_else(|| state_dir.join("ramdisk"))
    }

    /// Folders for nodes' `file://` images.
    pub(crate) fn image_dirs_in(&self, state_dir: &Path) -> Vec<PathBuf> {
        self.image_dirs.clone().unwrap_or_else(|| vec![state_dir.join("images")])
    }

    fn sign_key(&self) -> Result<Option<SignKey>> {
        self.sign_key.as_deref().map(str::parse).transpose().context("boot.sign_key")
    }

    /// Opens the key that signs UKIs, if there is one.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub(crate) fn uki_signer(&self) -> Result<Option<UkiSigner>> {
        let (Some(key), Some(certificate)) = (self.sign_key()?, &self.sign_certificate) else {
            return Ok(None);
        };
        let signer = UkiSigner::open(&key, certificate);
        Ok(Some(signer.context("boot.sign_key and boot.sign_certificate cannot be used")?))
    }

    /// The certificate that signs UKIs, in PEM.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn read_sign_certificate(&self) -> Result<Option<String>> {
        let read = |path: &PathBuf| {
            fs::read_to_string(path).with_context(|| format!("the certificate {}", path.display()))
        };
        self.sign_certificate.as_ref().map(read).transpose()
    }

    pub(super) fn check(&self) -> Result<()> {
        ensure!(
            !self.kernel_append_params.contains(|c: char| c.is_control()),
            "boot.kernel_append_params must be one line of kernel arguments"
        );
        self.sign_key()?;
        ensure!(
            self.sign_key.is_some() == self.sign_certificate.is_some(),
            "boot.sign_key and boot.sign_certificate belong together"
        );
        ensure!(
            self.http_loader != HttpLoader::ShimUki || self.sign_key.is_some(),
            "boot.http_loader \"shim-uki\" needs boot.sign_key: shim starts only a signed UKI"
        );
        expect_public("boot.url", self.url.as_ref())?;
        expect_public("boot.url6", self.url6.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::refusal;

    #[test]
    fn shim_with_a_uki_that_nobody_signs_is_refused() {
        let refused = refusal("[boot]\nhttp_loader = \"shim-uki\"");
        assert!(refused.contains("needs boot.sign_key"), "{refused}");
    }

    #[test]
    fn the_uri_of_a_key_is_refused_with_the_reason_and_without_its_pin() {
        for (uri, reason) in [
            ("pkcs11:object=uki?module-path=/x.so&pin-value=1234", "pin-source"),
            ("pkcs11:object=uki?module-path=/x.so&pin-value=12&1234", "pin-source"),
            ("pkcs11:object=uki?module-path=/x.so&1234", "attribute 3"),
            ("pkcs11:object=uki", "module-path"),
        ] {
            let refused = refusal(&format!("[boot]\nsign_key = \"{uri}\""));
            assert!(refused.contains("boot.sign_key") && refused.contains(reason), "{refused}");
            assert!(!refused.contains("1234"), "{refused}");
        }
    }

    #[test]
    fn a_key_without_its_certificate_is_refused() {
        let refused = refusal("[boot]\nsign_key = \"/etc/ferroboot/uki.key\"");
        assert!(refused.contains("sign_certificate belong together"), "{refused}");
    }
}
