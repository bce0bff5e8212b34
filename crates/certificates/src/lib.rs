//! TLS of the listeners: the service's own authority, the operator's certificates, and handshakes.
//!
//! OpenSSL serves firmware, rustls everybody else.

mod address_cache;
mod authority;
mod certificate_pair;
mod certificate_source;
mod file_certificates;
mod firmware_context;
mod firmware_stream;
mod firmware_tls;
mod operator_authority;
mod operator_config;
mod operator_tls;
mod pem;

pub use self::authority::{AuthorityPem, CertificateAuthority};
pub use self::certificate_pair::{CertificatePair, CertificateValidity, ServerCertificates};
pub use self::certificate_source::CertificateSource;
pub use self::file_certificates::{CertificateNeeds, FilesLook, OperatorFiles};
pub use self::firmware_context::FirmwareCiphers;
pub use self::firmware_tls::FirmwareTls;
pub use self::operator_authority::OperatorAuthority;
pub use self::operator_tls::OperatorTls;
