//! Judges the validity of a certificate, for the log and for `ferroboot check`.

use certificates::CertificateValidity;
use jiff::{SignedDuration, Timestamp};

/// Time before the end of a certificate from which on there are warnings.
const WARNED_BEFORE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The remedy if the service's own CA ends. Nothing replaces it, since machines have it in their firmware.
pub(crate) const OWN_AUTHORITY_REMEDY: &str =
    "set certificate and key in [tls] to ones of a CA of yours, and enrol that in the machines";
/// Hours of a day.
const DAY: i64 = 24;

/// The judgement of a certificate's validity. The words go on after the name of the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CertificateTerm {
    /// It is valid.
    Valid(String),
    /// It is valid, and ends soon.
    Ending(String),
    /// Clients refuse it.
    Invalid(String),
}

impl CertificateTerm {
    /// Judges a validity.
    pub(crate) fn judge(validity: &CertificateValidity, now: Timestamp) -> Self {
        let CertificateValidity { from, until, until_of_issuer } = validity;
        let of = match until_of_issuer {
            None => String::new(),
            Some(issuer) => format!(" (by that of its issuer {issuer})"),
        };
        let left = until.duration_since(now);
        if left.is_negative() || left.is_zero() {
            return Self::Invalid(format!("expired at {until}{of}"));
        }
        if *from > now {
            return Self::Invalid(format!(
                "is not valid before {from} (or the clock of this host is wrong)"
            ));
        }
        if left >= WARNED_BEFORE {
            return Self::Valid(format!("valid until {until}{of}"));
        }
        let days = match left.as_hours() / DAY {
            0 => "in less than a day".to_owned(),
            1 => "in 1 day".to_owned(),
            days => format!("in {days} days"),
        };
        Self::Ending(format!("expires {days}, at {until}{of}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: &str = "2026-01-01T00:00:00Z";
    const UNTIL: &str = "2026-12-31T12:00:00Z";

    fn at(now: &str, until_of_issuer: Option<&str>) -> CertificateTerm {
        let until_of_issuer = until_of_issuer.map(str::to_owned);
        let [from, until] = [FROM, UNTIL].map(|time| time.parse().unwrap());
        let validity = CertificateValidity { from, until, until_of_issuer };
        CertificateTerm::judge(&validity, now.parse().unwrap())
    }

    #[test]
    fn the_last_thirty_days_are_counted() {
        let ending = |words: &str| CertificateTerm::Ending(words.to_owned());

        let early = at("2026-12-01T12:00:00Z", None);
        assert_eq!(early, CertificateTerm::Valid(format!("valid until {UNTIL}")));
        let five = at("2026-12-26T11:00:00Z", None);
        assert_eq!(five, ending("expires in 5 days, at 2026-12-31T12:00:00Z"));
        let one = at("2026-12-30T00:00:00Z", None);
        assert_eq!(one, ending("expires in 1 day, at 2026-12-31T12:00:00Z"));
        let last = at("2026-12-31T00:00:00Z", None);
        assert_eq!(last, ending("expires in less than a day, at 2026-12-31T12:00:00Z"));
    }

    #[test]
    fn a_certificate_that_nobody_accepts_is_told_from_one_that_ends_soon() {
        let invalid = |words: &str| CertificateTerm::Invalid(words.to_owned());

        let ended = at("2027-01-01T00:00:00Z", Some("Site CA"));
        let words = "expired at 2026-12-31T12:00:00Z (by that of its issuer Site CA)";
        assert_eq!(ended, invalid(words));
        let early = at("2025-12-31T00:00:00Z", None);
        assert_eq!(
            early,
            invalid(
                "is not valid before 2026-01-01T00:00:00Z (or the clock of this host is wrong)"
            )
        );
    }
}
