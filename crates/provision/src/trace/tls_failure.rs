//! The reasons for which a machine's TLS handshake failed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The port of a failed TLS handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandshakePort {
    /// The boot listener's.
    #[default]
    Boot,
    /// The agents' port.
    Agents,
}

impl HandshakePort {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
    pub(super) fn is_boot(&self) -> bool {
        *self == Self::Boot
    }
}

impl fmt::Display for HandshakePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boot => "the boot listener",
            Self::Agents => "the agents' port",
        })
    }
}

/// The reason for which a machine's TLS handshake failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum TlsFailure {
    /// The client refused the certificate, or the handshake, with an alert (RFC 8446 §6).
    Alert {
        /// The number of the alert's description.
        alert: u8,
    },
    /// The client offers no cipher that the listener permits.
    NoCommonCipher,
    /// The client offers no version that the listener permits.
    NoCommonVersion,
    /// The client speaks plain HTTP, or anything else that is no TLS.
    #[serde(rename = "plain_http")]
    NotTls,
    /// The client speaks TLS, and the port is for plain HTTP.
    PlainPort,
    /// The client ended the handshake, and the service's certificate has expired.
    Expired,
    /// The client closed the connection within the handshake.
    Closed,
    /// Anything else, in the words of the library.
    Other {
        /// The words.
        words: String,
    },
}

impl TlsFailure {
    pub(super) fn text(&mut self) -> Option<&mut String> {
        match self {
            Self::Other { words } => Some(words),
            Self::Alert { .. }
            | Self::NoCommonCipher
            | Self::NoCommonVersion
            | Self::NotTls
            | Self::PlainPort
            | Self::Expired
            | Self::Closed => None,
        }
    }

    /// The remedy for firmware or a loader.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            // unknown_ca
            Self::Alert { alert: 48 } => {
                "enrol this service's CA in the firmware (`ferroboot ca` prints it)"
            }
            // certificate_expired
            Self::Alert { alert: 45 } => {
                "check the clock of the machine, and the dates of the certificate"
            }
            // bad_certificate, certificate_unknown: firmware says so of any fault, a wrong name among them.
            Self::Alert { alert: 42 | 46 } => {
                "the firmware does not trust the CA (`ferroboot ca` prints it), the certificate lacks the address in the \
                 URL (names in [tls]), or the machine's clock is wrong"
            }
            // handshake_failure, insufficient_security
            Self::Alert { alert: 40 | 71 } | Self::NoCommonCipher => {
                "old firmware has only DHE or RSA key exchange: old_firmware = true in [tls] permits these"
            }
            // protocol_version
            Self::Alert { alert: 70 } | Self::NoCommonVersion => {
                "the firmware's TLS is older than 1.2: update the firmware, or boot this machine by http"
            }
            // unsupported_certificate
            Self::Alert { alert: 43 } => {
                "the firmware verifies only another kind of key: the certificate in [tls] should have an RSA key instead \
                 of ECDSA, or the reverse"
            }
            // decrypt_error; OpenSSL says so if the certificate's signature does not fit the CA of its issuer's name.
            Self::Alert { alert: 51 } => {
                "the firmware may trust a CA of the same name with another key (`ferroboot ca` prints this service's: \
                 enrol it), or may not know the kind of signature (RSA with SHA-256 is known to most)"
            }
            Self::Alert { .. } => {
                "RFC 8446 §6.2 says what the alert stands for; the machine's console may say more"
            }
            Self::NotTls => "the URL may begin with http:// and name the port for https",
            Self::PlainPort => {
                "the URL begins with https:// and names a port for plain http: correct the URL, or add an https:// \
                 address to listen in [boot]"
            }
            Self::Expired => "replace the certificate in [tls]: its files are read again",
            // EDK2 sends no alert, whatever it dislikes.
            Self::Closed | Self::Other { .. } => {
                "firmware closes the connection without a word if it does not trust the CA (`ferroboot ca` prints it: \
                 enrol it), if the certificate lacks the address or name in the URL (names in [tls]), or if the \
                 certificate is not valid by the machine's clock"
            }
        }
    }

    /// The remedy for an agent.
    #[must_use]
    pub fn agent_hint(&self) -> &'static str {
        match self {
            Self::NotTls => "url in [agent] may begin with http:// and name the port for https",
            Self::PlainPort => {
                "url in [agent] begins with https:// and names a port for plain http: correct it, or add an https:// \
                 address to listen in [agent]"
            }
            Self::Expired => "replace the certificate in [tls]: its files are read again",
            Self::NoCommonCipher | Self::NoCommonVersion | Self::Alert { alert: 40 | 70 | 71 } => {
                "the agents' port needs TLS 1.2 or later with an elliptic curve: take a newer ramdisk"
            }
            Self::Alert { .. } | Self::Closed | Self::Other { .. } => {
                "the ramdisk does not trust this service's CA (`ferroboot ca` prints it; an ISO of your own gets none), \
                 the certificate lacks the address in the agents' URL (names in [tls]), or the machine's clock is wrong"
            }
        }
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alert { alert: 42 } => f.write_str("it calls the certificate bad"),
            Self::Alert { alert: 43 } => {
                f.write_str("it does not support this kind of certificate")
            }
            Self::Alert { alert: 45 } => {
                f.write_str("by its clock the certificate has expired or is not valid yet")
            }
            Self::Alert { alert: 46 } => f.write_str("it does not accept the certificate"),
            Self::Alert { alert: 48 } => f.write_str("it does not trust the certificate's CA"),
            Self::Alert { alert: 51 } => f.write_str("it could not verify a signature"),
            Self::Alert { alert: 40 | 71 } | Self::NoCommonCipher => {
                f.write_str("it offers no cipher that this service permits")
            }
            Self::Alert { alert: 70 } | Self::NoCommonVersion => {
                f.write_str("it offers no version of TLS that this service permits")
            }
            Self::Alert { alert } => write!(f, "it sent the TLS alert {alert}"),
            Self::NotTls => f.write_str("it sends no TLS to the port for https"),
            Self::PlainPort => f.write_str("it speaks TLS on a port for plain HTTP"),
            Self::Expired => f.write_str("the certificate of this service has expired"),
            Self::Closed => f.write_str("it closed the connection within the handshake"),
            Self::Other { words } => f.write_str(words),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_version_is_explained_by_old_tls() {
        let old = "the firmware's TLS is older than 1.2";
        for failure in [TlsFailure::NoCommonVersion, TlsFailure::Alert { alert: 70 }] {
            assert!(failure.hint().starts_with(old), "{failure}");
        }
        for alert in (0..=u8::MAX).filter(|alert| *alert != 70) {
            let failure = TlsFailure::Alert { alert };
            assert!(!failure.hint().contains("older than"), "{failure}");
            assert!(!failure.hint().contains("by http"), "{failure}");
        }
    }

    #[test]
    fn stored_rows_name_what_is_not_tls_as_they_did_before() {
        let row = serde_json::to_value(TlsFailure::NotTls).unwrap();

        assert_eq!(row, serde_json::json!({ "reason": "plain_http" }));
    }

    #[test]
    fn an_alert_about_a_key_or_a_signature_has_a_remedy_of_its_own() {
        for (alert, words) in [
            (43, "only another kind of key"),
            (51, "a CA of the same name with another key"),
            (80, "RFC 8446 §6.2"),
        ] {
            let failure = TlsFailure::Alert { alert };
            assert!(failure.hint().contains(words), "{failure}: {}", failure.hint());
        }
    }
}
