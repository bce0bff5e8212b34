//! The certificates that the firmware of a machine trusts: one is found in a collection, added, removed.
//!
//! A look takes one request for the collection, and one for each member that the collection does not show in full, up to
//! the one that is looked for.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hardware::RedfishPurpose;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::channel::BmcChannel;
use crate::failure::BmcFailure;
use crate::machine::RedfishSystem;
use crate::resource::link_in;
use crate::service::AcceptedChange;

/// Number limit of certificates that are read.
pub(crate) const MOST_READ: usize = 32;
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A certificate that firmware may trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareCertificate {
    /// The certificate alone, in PEM.
    pub pem: String,
    /// All by which a BMC may show it.
    pub identity: CertificateIdentity,
}

/// All by which a BMC may show a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateIdentity {
    /// Its fingerprints, by several hash algorithms; SHA-256 among them.
    pub fingerprints: Vec<Vec<u8>>,
    /// Its serial number, the most significant byte first.
    pub serial_number: Vec<u8>,
    /// `CN` of its subject.
    pub subject: Option<String>,
    /// `CN` of its issuer.
    pub issuer: Option<String>,
}

/// A collection of certificates at a BMC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CertificateCollection<'p> {
    /// Its path.
    pub(crate) path: &'p str,
    /// What requests are for.
    pub(crate) purposes: CertificatePurposes,
}

/// What the requests to a collection are for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CertificatePurposes {
    /// The words for the collection.
    pub(crate) name: &'static str,
    pub(crate) read: RedfishPurpose,
    pub(crate) add: RedfishPurpose,
    pub(crate) remove: RedfishPurpose,
}

/// Whether the firmware had a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EnrolledCertificate {
    /// It had it.
    Found,
    /// It was added.
    Added,
}

/// The reason why a certificate is not among those that the firmware trusts, or not surely.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum CertificateNotEnrolled {
    /// The service does not know its own certificate.
    #[error("its CA is not known here: name the file with authority in [tls]")]
    NoAuthority,
    /// The BMC has no such collection.
    #[error("the BMC shows no {0}")]
    NoCollection(&'static str),
    /// Adding it at each boot would fill the collection.
    #[error(
        "the BMC does not show enough of the certificate at {0} to tell whether it is this one"
    )]
    Unclear(String),
    /// More certificates than are read.
    #[error("the BMC shows {0} certificates, and {MOST_READ} at most are read")]
    TooMany(usize),
    /// No room for one more.
    #[error(
        "the firmware has room for {count} certificates alone, and all are taken: remove one at {path}"
    )]
    Full {
        /// Number of certificates.
        count: usize,
        /// The path of the collection.
        path: String,
    },
    /// A request failed.
    #[error(transparent)]
    Failure(#[from] BmcFailure),
}

/// What a BMC shows of a certificate, beside another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Likeness {
    Same,
    Other,
    Unclear,
}

/// What a look at a collection found.
#[derive(Debug, Default)]
pub(crate) struct CertificateSearch {
    /// Number of members.
    count: usize,
    /// The paths of the members that are the certificate.
    same: Vec<String>,
    /// The path of a member that may be the certificate.
    unclear: Option<String>,
}

impl CertificateSearch {
    /// Whether the certificate was found.
    ///
    /// # Errors
    /// [`CertificateNotEnrolled::Unclear`]
    pub(crate) fn has_it(&self) -> Result<bool, CertificateNotEnrolled> {
        match &self.unclear {
            Some(unclear) if self.same.is_empty() => {
                Err(CertificateNotEnrolled::Unclear(unclear.clone()))
            }
            Some(_) | None => Ok(!self.same.is_empty()),
        }
    }

    pub(crate) fn note(&mut self, likeness: Likeness, link: &str) {
        match likeness {
            Likeness::Same => self.same.push(link.to_owned()),
            Likeness::Other => {}
            Likeness::Unclear => self.unclear = Some(link.to_owned()),
        }
    }
}

impl CertificateIdentity {
    /// Compares it with a `Certificate`: by its text, else by its fingerprint, else by its serial number and its names. A
    /// text without a certificate, and properties that are missing or null, say nothing.
    fn likeness(&self, shown: &Value) -> Likeness {
        let told = |is_same: bool| if is_same { Likeness::Same } else { Likeness::Other };
        if let Some(der) = shown["CertificateString"].as_str().and_then(first_certificate) {
            return told(self.fingerprints.contains(&Sha256::digest(der).to_vec()));
        }
        if let Some(shown) = shown["Fingerprint"].as_str().and_then(bytes_of_hex) {
            // A hash by an algorithm that is not among these says nothing.
            if self.fingerprints.iter().any(|own| own.len() == shown.len()) {
                return told(self.fingerprints.contains(&shown));
            }
        }
        let names = [(&self.subject, &shown["Subject"]), (&self.issuer, &shown["Issuer"])];
        let names = names.map(|(own, shown)| {
            let shown = shown["CommonName"].as_str()?;
            Some(own.as_deref() == Some(shown))
        });
        if names.contains(&Some(false)) {
            return Likeness::Other;
        }
        let serial = shown["SerialNumber"].as_str().and_then(bytes_of_hex);
        match serial.map(|serial| without_zeros(&serial) == without_zeros(&self.serial_number)) {
            Some(is_same) if names[0].is_some() => told(is_same),
            Some(false) => Likeness::Other,
            Some(true) | None => Likeness::Unclear,
        }
    }
}

/// The first certificate of a text in PEM, in DER; some BMCs leave the line ends out.
pub(crate) fn first_certificate(pem: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let body: String = body.replace("\\n", "").split_ascii_whitespace().collect();
    BASE64.decode(body).ok().filter(|der| !der.is_empty())
}

/// Bytes in hexadecimal, with or without a separator between them.
fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    let text = text.strip_prefix("0x").unwrap_or(text);
    let digits: Vec<_> = text.chars().filter(|it| !matches!(it, ':' | ' ' | '-')).collect();
    let digits: Option<Vec<_>> = digits.into_iter().map(|digit| digit.to_digit(16)).collect();
    let mut digits = digits.filter(|digits| !digits.is_empty())?;
    if digits.len() % 2 == 1 {
        digits.insert(0, 0);
    }
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect()
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

impl<C: BmcChannel> RedfishSystem<'_, C> {
    /// Adds a certificate to a collection, unless it is there.
    ///
    /// # Errors
    /// [`CertificateNotEnrolled`]
    pub(crate) async fn enrol_certificate(
        &self,
        collection: CertificateCollection<'_>,
        certificate: &FirmwareCertificate,
    ) -> Result<EnrolledCertificate, CertificateNotEnrolled> {
        let search = self.search_certificate(collection, &certificate.identity, 1).await?;
        self.add_certificate(collection, certificate, &search).await
    }

    /// Adds a certificate to a collection after a look at all of it, unless it was found.
    ///
    /// # Errors
    /// [`CertificateNotEnrolled`]
    pub(crate) async fn add_certificate(
        &self,
        collection: CertificateCollection<'_>,
        certificate: &FirmwareCertificate,
        search: &CertificateSearch,
    ) -> Result<EnrolledCertificate, CertificateNotEnrolled> {
        if search.has_it()? {
            return Ok(EnrolledCertificate::Found);
        }
        match self.post_certificate(collection, &certificate.pem).await {
            Ok(_) => Ok(EnrolledCertificate::Added),
            Err(failure) if is_full(&failure) => {
                let path = collection.path.to_owned();
                Err(CertificateNotEnrolled::Full { count: search.count, path })
            }
            // A second POST would add it twice.
            Err(failure) if failure.may_be_done() => {
                let identity = &certificate.identity;
                let is_there = self.search_certificate(collection, identity, 1).await?.has_it()?;
                if is_there { Ok(EnrolledCertificate::Added) } else { Err(failure.into()) }
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// Removes a certificate from a collection. Returns whether it was there.
    ///
    /// # Errors
    /// [`CertificateNotEnrolled`]
    pub(crate) async fn remove_certificate(
        &self,
        collection: CertificateCollection<'_>,
        identity: &CertificateIdentity,
    ) -> Result<bool, CertificateNotEnrolled> {
        let search = self.search_certificate(collection, identity, MOST_READ).await?;
        for member in &search.same {
            match self.service().delete(collection.purposes.remove, member).await {
                Err(failure) if failure.status() == Some(404) => {}
                removed => removed?,
            }
        }
        search.has_it()
    }

    /// Looks for a certificate in a collection, until so many are found.
    ///
    /// # Errors
    /// [`CertificateNotEnrolled`]
    pub(crate) async fn search_certificate(
        &self,
        collection: CertificateCollection<'_>,
        identity: &CertificateIdentity,
        most: usize,
    ) -> Result<CertificateSearch, CertificateNotEnrolled> {
        let [search] = self.search_certificates(collection, [identity], most).await?;
        Ok(search)
    }

    /// Looks for several certificates in a collection, until so many of them are found.
    ///
    /// # Errors
    /// [`CertificateNotEnrolled`]
    pub(crate) async fn search_certificates<const N: usize>(
        &self,
        collection: CertificateCollection<'_>,
        identities: [&CertificateIdentity; N],
        most: usize,
    ) -> Result<[CertificateSearch; N], CertificateNotEnrolled> {
        let CertificateCollection { path, purposes } = collection;
        let shown = self.service().collection(purposes.read, path).await?;
        let shown = shown.ok_or(CertificateNotEnrolled::NoCollection(purposes.name))?;
        let members = shown.body["Members"].as_array().map(Vec::as_slice).unwrap_or_default();
        let search = || CertificateSearch { count: members.len(), ..CertificateSearch::default() };
        let mut searches = [(); N].map(|()| search());
        for member in members.iter().take(MOST_READ) {
            let Some(link) = link_in(member) else { continue };
            let mut likenesses = identities.map(|identity| identity.likeness(member));
            if likenesses.contains(&Likeness::Unclear) && !likenesses.contains(&Likeness::Same) {
                let Some(whole) = self.service().find(purposes.read, link).await? else { continue };
                likenesses = identities.map(|identity| identity.likeness(&whole.body));
            }
            // A certificate is not two of them.
            let is_known = likenesses.contains(&Likeness::Same);
            for (search, likeness) in searches.iter_mut().zip(likenesses) {
                let is_other = is_known && likeness == Likeness::Unclear;
                search.note(if is_other { Likeness::Other } else { likeness }, link);
            }
            if searches.iter().map(|search| search.same.len()).sum::<usize>() >= most {
                return Ok(searches);
            }
        }
        let is_cut = members.len() > MOST_READ;
        if is_cut && searches.iter().any(|search| search.same.is_empty()) {
            return Err(CertificateNotEnrolled::TooMany(members.len()));
        }
        Ok(searches)
    }

    async fn post_certificate(
        &self,
        collection: CertificateCollection<'_>,
        pem: &str,
    ) -> Result<AcceptedChange, BmcFailure> {
        let body = json!({ "CertificateType": "PEM", "CertificateString": pem });
        self.service().post(collection.purposes.add, collection.path, body).await
    }
}

/// Base registry: `CreateLimitReachedForResource`.
fn is_full(failure: &BmcFailure) -> bool {
    failure.has_message("CreateLimitReachedForResource")
}
