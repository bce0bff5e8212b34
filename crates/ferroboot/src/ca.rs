//! `ferroboot ca`: the certificate that machines must trust.

use std::io::{Write as _, stdout};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use efi::variables::{own_signatures, signature_lists};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::serve::ServeSettings;
use crate::service::runtime;

/// Prints the certificate of the service's own CA, which firmware must trust to boot over HTTPS.
#[derive(Debug, Args)]
pub struct CaCommand {
    /// The form of the certificate.
    #[arg(long, value_enum, default_value_t)]
    form: CertificateForm,

    #[command(flatten)]
    settings: ServeSettings,
}

/// The form of a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CertificateForm {
    /// Text, as BMCs and set-up pages take it.
    #[default]
    Pem,
    /// Binary.
    Der,
    /// An EFI signature list, as QEMU's fw_cfg `etc/edk2/https/cacerts` takes it.
    Esl,
}

impl CaCommand {
    /// Prints the certificate.
    ///
    /// # Errors
    /// There is none, or the database cannot be read.
    pub fn run(self) -> Result<()> {
        let config = self.settings.config()?;
        let pem = runtime()?.block_on(server::ca::authority_certificate(&config))?;
        let bytes = match self.form {
            CertificateForm::Pem => pem.into_bytes(),
            CertificateForm::Der => der(&pem)?,
            CertificateForm::Esl => signature_lists(&own_signatures(&[der(&pem)?])),
        };
        stdout().write_all(&bytes).context("cannot print")
    }
}

fn der(pem: &str) -> Result<Vec<u8>> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes());
    Ok(der.context("the certificate in the database")?.to_vec())
}
