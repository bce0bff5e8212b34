//! The settings of OpenSSL for a listener's certificates and for firmware.

use anyhow::{Result, anyhow};
use openssl::dh::Dh;
use openssl::error::ErrorStack;
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslSessionCacheMode,
    SslVersion,
};

use crate::certificate_pair::ServerCertificates;
use crate::pem;

/// The ciphers of TLS 1.2 with forward secrecy by elliptic curves.
const MODERN: &str = "ECDHE+AESGCM:ECDHE+CHACHA20";
/// Those that old firmware has beside or in place of these: OVMF before 2025-04, HPE Gen10 Plus and Gen11. The modern ones
/// stand first, and the server's order counts.
const OLD_FIRMWARE: &str = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:AES256-GCM-SHA384:AES128-GCM-SHA256:\
                            DHE+AES+SHA256:AES256-SHA256:AES128-SHA256";
/// RFC 7919 §A.1, `ffdhe2048`.
const FFDHE2048: &str = "-----BEGIN DH PARAMETERS-----
MIIBDAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAgICAOE=
-----END DH PARAMETERS-----
";

/// The ciphers that firmware may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirmwareCiphers {
    /// With forward secrecy by elliptic curves.
    #[default]
    Modern,
    /// Also DHE and RSA key exchange, for firmware that offers nothing else. A peer that offers better ones gets those.
    OldFirmware,
}

/// TLS with these certificates.
///
/// # Errors
/// OpenSSL does not take a certificate or its key.
pub(crate) fn firmware_context(
    certificates: &ServerCertificates,
    ciphers: FirmwareCiphers,
) -> Result<SslContext> {
    let mut context = SslContextBuilder::new(SslMethod::tls_server())?;
    context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    let list = match ciphers {
        FirmwareCiphers::Modern => MODERN,
        FirmwareCiphers::OldFirmware => {
            context.set_tmp_dh(&*Dh::params_from_pem(FFDHE2048.as_bytes())?)?;
            OLD_FIRMWARE
        }
    };
    context.set_cipher_list(list)?;
    context.set_options(SslOptions::CIPHER_SERVER_PREFERENCE | SslOptions::NO_RENEGOTIATION);
    // A write ends after each record, so that it is known how much of an answer a slow peer has taken. Idle connections
    // hold no buffers.
    context.set_mode(
        SslMode::ENABLE_PARTIAL_WRITE
            | SslMode::ACCEPT_MOVING_WRITE_BUFFER
            | SslMode::RELEASE_BUFFERS,
    );
    // A call of the kernel takes all that has come, not first the head of a record and then its content.
    context.set_read_ahead(true);
    // A boot is one connection or two: sessions would only cost memory.
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    for pair in &certificates.pairs {
        if let Some((own, issuers)) = pair.chain.split_first() {
            context.set_certificate(own).map_err(|stack| unusable(&stack))?;
            context.set_private_key(&pair.key).map_err(|stack| unusable(&stack))?;
            for issuer in issuers {
                context.add_extra_chain_cert(issuer.clone())?;
            }
        }
    }
    Ok(context.build())
}

/// Checks that a handshake can present the certificates: OpenSSL looks at those of issuers only there.
///
/// # Errors
/// OpenSSL does not take a certificate or a key.
pub(crate) fn expect_usable(
    certificates: &ServerCertificates,
    ciphers: FirmwareCiphers,
) -> Result<()> {
    let mut ssl = Ssl::new(&*firmware_context(certificates, ciphers)?)?;
    for issuer in certificates.pairs.iter().flat_map(|pair| pair.chain.iter().skip(1)) {
        ssl.add_chain_cert(issuer.clone()).map_err(|stack| unusable(&stack))?;
    }
    Ok(())
}

/// Such as `ee key too small`, which an end entity's certificate has.
fn unusable(stack: &ErrorStack) -> anyhow::Error {
    anyhow!("TLS of the boot listener does not take it: {} (OpenSSL)", pem::reason(stack))
}
