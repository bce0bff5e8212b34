//! Certificates and keys in PEM, and OpenSSL's reasons in words.

use anyhow::{Result, anyhow, bail};
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;

/// The certificates of a text.
///
/// # Errors
/// It has none, or one that cannot be read.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<X509>> {
    match X509::stack_from_pem(pem) {
        Ok(certificates) if certificates.is_empty() => bail!("has no certificate in PEM"),
        Ok(certificates) => Ok(certificates),
        Err(stack) => bail!("has a certificate that cannot be read: {}", reason(&stack)),
    }
}

/// The private key of a text.
///
/// # Errors
/// It has none, or one with a passphrase.
pub(crate) fn private_key(pem: &[u8]) -> Result<PKey<Private>> {
    // A passphrase, so that OpenSSL does not ask for one at the terminal.
    PKey::private_key_from_pem_passphrase(pem, b"").map_err(|stack| {
        if is_encrypted(pem) {
            return anyhow!("is encrypted: remove its passphrase (`openssl pkey -in … -out …`)");
        }
        anyhow!("has no private key in PEM that can be read: {}", reason(&stack))
    })
}

/// PKCS #8 (RFC 7468 §11), or the older form with a header (RFC 1421 §4.6.1.1).
fn is_encrypted(pem: &[u8]) -> bool {
    let lines = pem.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let mut marks = lines.filter(|line| {
        *line == b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
            || line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED")
    });
    marks.next().is_some()
}

/// The first reason, without the places in OpenSSL's sources.
pub(crate) fn reason(stack: &ErrorStack) -> String {
    let reasons = stack.errors().iter().filter_map(|error| error.reason());
    reasons.map(str::to_owned).next().unwrap_or_else(|| "no reason is known".to_owned())
}

#[cfg(test)]
mod tests {
    use openssl::symm::Cipher;

    use super::*;

    #[test]
    fn an_encrypted_key_is_called_encrypted_and_nobody_is_asked_for_its_passphrase() {
        let key = PKey::from_rsa(openssl::rsa::Rsa::generate(2048).unwrap()).unwrap();
        let cipher = Cipher::aes_256_cbc();
        let newer = key.private_key_to_pem_pkcs8_passphrase(cipher, b"secret").unwrap();
        let older = key.rsa().unwrap().private_key_to_pem_passphrase(cipher, b"secret").unwrap();

        for encrypted in [newer, older] {
            let said = private_key(&encrypted).unwrap_err().to_string();
            assert!(said.starts_with("is encrypted: remove its passphrase"), "{said}");
        }
        assert!(private_key(&key.private_key_to_pem_pkcs8().unwrap()).is_ok());
    }

    #[test]
    fn a_text_that_is_no_key_or_certificate_is_refused_in_few_words() {
        let garbage = |what| format!("-----BEGIN {what}-----\nAAAA\n-----END {what}-----\n");
        let said = [
            private_key(b"nothing").unwrap_err(),
            private_key(garbage("PRIVATE KEY").as_bytes()).unwrap_err(),
            certificates(b"nothing").unwrap_err(),
            certificates(garbage("CERTIFICATE").as_bytes()).unwrap_err(),
        ]
        .map(|error| error.to_string());

        for (said, begins) in said.iter().zip([
            "has no private key in PEM",
            "has no private key in PEM",
            "has no certificate in PEM",
            "has a certificate that cannot be read: ",
        ]) {
            assert!(said.starts_with(begins) && said.len() < 100, "{said}");
        }
    }
}
