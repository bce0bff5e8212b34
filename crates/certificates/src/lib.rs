//! TLS of the listeners: the service's own authority, the operator's certificates, and handshakes.
//!
//! OpenSSL serves firmware, rustls everybody else.

mod address_cache;
mod authority;
mod certificate_pair;
mod certificate_source;
mod firmware_stream;
mod firmware_tls;
mod operator_tls;

pub use self::authority::{AuthorityPem, CertificateAuthority};
pub use self::certificate_pair::{CertificatePair, ServerCertificates};
pub use self::certificate_source::{CertificateSource, OperatorFiles};
pub use self::firmware_tls::{FirmwareCiphers, FirmwareTls};
pub use self::operator_tls::OperatorTls;
