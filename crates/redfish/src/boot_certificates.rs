//! The certificates that the firmware of a machine trusts for HTTPS boot (Redfish `ComputerSystem.v1_16_0`,
//! `Boot.Certificates`): an authority is found among them, added, removed.
//!
//! A look takes one request for the collection, and one for each member that the collection does not show in full, up to
//! the one that is the authority's.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hardware::{BmcObservation, BootCertificateOutcome, RedfishPurpose};
use serde_json::{Value, json};
use thiserror::Error;

use crate::channel::BmcChannel;
use crate::failure::BmcFailure;
use crate::machine::RedfishSystem;
use crate::resource::{RedfishResource, link_in};
use crate::service::AcceptedChange;
use crate::system::SystemView;
use crate::ways::ChosenWay;

/// Number limit of certificates that are read.
const MOST_READ: usize = 16;
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The certificate of an authority, and all by which a BMC may show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityCertificate {
    /// The certificate alone, in PEM.
    pub pem: String,
    /// The same in DER.
    pub der: Vec<u8>,
    /// Its fingerprints, by several hash algorithms.
    pub fingerprints: Vec<Vec<u8>>,
    /// Its serial number, the most significant byte first.
    pub serial_number: Vec<u8>,
    /// `CN` of its subject.
    pub subject: Option<String>,
    /// `CN` of its issuer.
    pub issuer: Option<String>,
}

/// Whether the firmware had the certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EnrolledCertificate {
    /// It had it.
    Found,
    /// It was added.
    Added,
}

/// The reason why the certificate is not among those that the firmware trusts, or not surely.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
enum CertificateNotEnrolled {
    /// The service does not know the certificate.
    #[error("its CA is not known here: name the file with authority in [tls]")]
    NoAuthority,
    /// The BMC has no `Boot.Certificates`.
    #[error("the BMC shows no Boot.Certificates")]
    NoCollection,
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
enum Likeness {
    Same,
    Other,
    Unclear,
}

/// What a look at the collection found.
struct CertificateSearch {
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
    fn has_it(self) -> Result<bool, CertificateNotEnrolled> {
        match self.unclear {
            Some(unclear) if self.same.is_empty() => Err(CertificateNotEnrolled::Unclear(unclear)),
            Some(_) | None => Ok(!self.same.is_empty()),
        }
    }
}

impl AuthorityCertificate {
    /// Compares it with a `Certificate`: by its text, else by its fingerprint, else by its serial number and its names. A
    /// text without a certificate, and properties that are missing or null, say nothing.
    fn likeness(&self, shown: &Value) -> Likeness {
        let told = |is_same: bool| if is_same { Likeness::Same } else { Likeness::Other };
        if let Some(der) = shown["CertificateString"].as_str().and_then(first_certificate) {
            return told(der == self.der);
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
fn first_certificate(pem: &str) -> Option<Vec<u8>> {
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

fn seen(outcome: BootCertificateOutcome, why: Option<&CertificateNotEnrolled>) -> BmcObservation {
    BmcObservation::BootCertificate { outcome, reason: why.map(ToString::to_string) }
}

impl<C: BmcChannel> RedfishSystem<'_, C> {
    /// Enrols the service's CA in the firmware for a boot by `way`, and says what became of it. `None` if the firmware does
    /// not fetch.
    pub async fn enrol_ca(
        &self,
        view: &SystemView,
        way: &ChosenWay,
        authority: Option<&AuthorityCertificate>,
    ) -> Option<BmcObservation> {
        if way.is_fetched_by_bmc() {
            return None;
        }
        let enrolled = match authority {
            Some(authority) => self.enrol_boot_certificate(view, authority).await,
            None => Err(CertificateNotEnrolled::NoAuthority),
        };
        Some(match enrolled {
            Ok(EnrolledCertificate::Found) => seen(BootCertificateOutcome::Found, None),
            Ok(EnrolledCertificate::Added) => seen(BootCertificateOutcome::Enrolled, None),
            Err(why) => seen(BootCertificateOutcome::NotEnrolled, Some(&why)),
        })
    }

    /// Removes the service's CA from the firmware, and says what became of it. `None` if the firmware does not have it.
    pub async fn remove_ca(
        &self,
        view: &SystemView,
        authority: &AuthorityCertificate,
    ) -> Option<BmcObservation> {
        match self.remove_boot_certificate(view, authority).await {
            Ok(true) => Some(seen(BootCertificateOutcome::Removed, None)),
            Ok(false) => None,
            Err(why) => Some(seen(BootCertificateOutcome::NotRemoved, Some(&why))),
        }
    }

    /// What may keep the firmware from trusting the URL of a boot by `way`, in words.
    pub async fn ca_warning(
        &self,
        view: &SystemView,
        way: &ChosenWay,
        authority: Option<&AuthorityCertificate>,
    ) -> Option<String> {
        if way.is_fetched_by_bmc() {
            return None;
        }
        let why = match authority {
            Some(authority) => self.has_boot_certificate(view, authority).await.err()?,
            None => CertificateNotEnrolled::NoAuthority,
        };
        Some(format!(
            "the boot URL begins with https, and {why}: the firmware must trust this service's CA, which `ferroboot ca` \
             prints"
        ))
    }

    /// Whether `authority` is among the certificates that the firmware trusts.
    ///
    /// # Errors
    /// [`CertificateNotEnrolled`]
    async fn has_boot_certificate(
        &self,
        view: &SystemView,
        authority: &AuthorityCertificate,
    ) -> Result<bool, CertificateNotEnrolled> {
        let path = self.boot_certificates(view).await?;
        let path = path.ok_or(CertificateNotEnrolled::NoCollection)?;
        self.search(&path, authority, 1).await?.has_it()
    }

    /// Adds `authority` to the certificates that the firmware trusts, unless it is there.
    ///
    /// # Errors
    /// [`CertificateNotEnrolled`]
    async fn enrol_boot_certificate(
        &self,
        view: &SystemView,
        authority: &AuthorityCertificate,
    ) -> Result<EnrolledCertificate, CertificateNotEnrolled> {
        let path = self.boot_certificates(view).await?;
        let path = path.ok_or(CertificateNotEnrolled::NoCollection)?;
        let search = self.search(&path, authority, 1).await?;
        let count = search.count;
        if search.has_it()? {
            return Ok(EnrolledCertificate::Found);
        }
        match self.add(&path, authority).await {
            Ok(_) => Ok(EnrolledCertificate::Added),
            Err(failure) if is_full(&failure) => Err(CertificateNotEnrolled::Full { count, path }),
            // A second POST would add it twice.
            Err(failure) if failure.may_be_done() => {
                let is_there = self.search(&path, authority, 1).await?.has_it()?;
                if is_there { Ok(EnrolledCertificate::Added) } else { Err(failure.into()) }
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// Removes `authority` from the certificates that the firmware trusts. Returns whether it was there.
    ///
    /// # Errors
    /// [`CertificateNotEnrolled`]
    async fn remove_boot_certificate(
        &self,
        view: &SystemView,
        authority: &AuthorityCertificate,
    ) -> Result<bool, CertificateNotEnrolled> {
        let Some(path) = self.boot_certificates(view).await? else { return Ok(false) };
        let search = self.search(&path, authority, MOST_READ).await?;
        for member in &search.same {
            match self.service().delete(RedfishPurpose::RemoveBootCertificate, member).await {
                Err(failure) if failure.status() == Some(404) => {}
                removed => removed?,
            }
        }
        search.has_it()
    }

    /// The path of the collection.
    async fn boot_certificates(&self, view: &SystemView) -> Result<Option<String>, BmcFailure> {
        let link = |resource: &RedfishResource| {
            link_in(&resource.body["Boot"]["Certificates"]).map(str::to_owned)
        };
        if let Some(path) = link(&view.0) {
            return Ok(Some(path));
        }
        let Some(settings) = view.0.settings() else { return Ok(None) };
        let settings = self.service().find(RedfishPurpose::ReadSettings, settings).await?;
        Ok(settings.as_ref().and_then(link))
    }

    /// Looks for a certificate in the collection, until so many are found.
    async fn search(
        &self,
        path: &str,
        authority: &AuthorityCertificate,
        most: usize,
    ) -> Result<CertificateSearch, CertificateNotEnrolled> {
        const PURPOSE: RedfishPurpose = RedfishPurpose::ReadBootCertificates;
        let collection = self.service().collection(PURPOSE, path).await?;
        let collection = collection.ok_or(CertificateNotEnrolled::NoCollection)?;
        let members = collection.body["Members"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut search =
            CertificateSearch { count: members.len(), same: Vec::new(), unclear: None };
        for member in members.iter().take(MOST_READ) {
            let Some(link) = link_in(member) else { continue };
            let mut likeness = authority.likeness(member);
            if likeness == Likeness::Unclear {
                let Some(shown) = self.service().find(PURPOSE, link).await? else { continue };
                likeness = authority.likeness(&shown.body);
            }
            match likeness {
                Likeness::Same => search.same.push(link.to_owned()),
                Likeness::Other => {}
                Likeness::Unclear => search.unclear = Some(link.to_owned()),
            }
            if search.same.len() == most {
                return Ok(search);
            }
        }
        if search.same.is_empty() && members.len() > MOST_READ {
            return Err(CertificateNotEnrolled::TooMany(members.len()));
        }
        Ok(search)
    }

    async fn add(
        &self,
        path: &str,
        authority: &AuthorityCertificate,
    ) -> Result<AcceptedChange, BmcFailure> {
        let body = json!({ "CertificateType": "PEM", "CertificateString": authority.pem });
        self.service().post(RedfishPurpose::AddBootCertificate, path, body).await
    }
}

/// Base registry: `CreateLimitReachedForResource`.
fn is_full(failure: &BmcFailure) -> bool {
    failure.has_message("CreateLimitReachedForResource")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::emulator::{EmulatedFault, FaultRule, Platform};
    use crate::facts::BmcFacts;
    use crate::in_memory::InMemoryBmc;

    const PLATFORMS: [Platform; 2] = [Platform::Generic, Platform::DellIdrac9];
    const OTHER: &str = "-----BEGIN CERTIFICATE-----\nTUlJQg==\n-----END CERTIFICATE-----\n";

    fn authority() -> AuthorityCertificate {
        AuthorityCertificate {
            pem: "-----BEGIN CERTIFICATE-----\nMIIBAAEC\n-----END CERTIFICATE-----\n".to_owned(),
            der: vec![0x30, 0x82, 0x01, 0x00, 0x01, 0x02],
            fingerprints: vec![vec![0xab; 20], vec![0xcd; 32]],
            serial_number: vec![0x0f, 0xa0],
            subject: Some("Ferroboot CA 0fa0".to_owned()),
            issuer: Some("Ferroboot CA 0fa0".to_owned()),
        }
    }

    fn other(pem: &str) -> AuthorityCertificate {
        let der = first_certificate(pem).unwrap();
        AuthorityCertificate { pem: pem.to_owned(), der, ..authority() }
    }

    fn rule(path: &str, method: &str, fault: EmulatedFault) -> FaultRule {
        FaultRule {
            path: path.to_owned(),
            method: Some(method.to_owned()),
            ..FaultRule::always(fault)
        }
    }

    fn merged(path: &str, shown: Value) -> FaultRule {
        rule(path, "GET", EmulatedFault::Merge(shown))
    }

    /// What a member shows instead of its text.
    fn showing(shown: Value) -> FaultRule {
        let mut body = json!({ "CertificateString": null });
        body.as_object_mut().unwrap().extend(shown.as_object().unwrap().clone());
        merged("/redfish/v1/Systems/*/Boot/Certificates/*", body)
    }

    type Enrolled = Result<EnrolledCertificate, CertificateNotEnrolled>;

    /// Enrols a certificate, and returns the requests after the look at the system.
    async fn enrol(bmc: &InMemoryBmc, authority: &AuthorityCertificate) -> (Enrolled, Vec<String>) {
        let facts = BmcFacts::default();
        let patience = Duration::from_secs(30);
        let machine = RedfishSystem::find(bmc, &facts, None, patience).await.unwrap();
        let view = machine.look().await.unwrap();
        let before = bmc.requests().len();
        let enrolled = machine.enrol_boot_certificate(&view, authority).await;
        let folder = "/Boot/Certificates";
        let requests = bmc.requests().split_off(before);
        let short = |request: String| match request.split_once(folder) {
            Some((before, rest)) => {
                let method = before.split(' ').next().unwrap_or_default();
                format!("{method} …{folder}{rest}")
            }
            None => request,
        };
        (enrolled, requests.into_iter().map(short).collect())
    }

    async fn remove(bmc: &InMemoryBmc) -> Result<bool, CertificateNotEnrolled> {
        let facts = BmcFacts::default();
        let patience = Duration::from_secs(30);
        let machine = RedfishSystem::find(bmc, &facts, None, patience).await.unwrap();
        let view = machine.look().await.unwrap();
        machine.remove_boot_certificate(&view, &authority()).await
    }

    fn count(bmc: &InMemoryBmc) -> usize {
        let is_member = |path: &&String| path.contains("/Boot/Certificates/");
        bmc.resources().keys().filter(is_member).count()
    }

    #[tokio::test]
    async fn a_certificate_is_added_once_found_then_and_removed() {
        for platform in PLATFORMS {
            let bmc = InMemoryBmc::new(platform);
            enrol(&bmc, &other(OTHER)).await.0.unwrap();

            let (added, requests) = enrol(&bmc, &authority()).await;
            assert_eq!(added, Ok(EnrolledCertificate::Added));
            let collection = "GET …/Boot/Certificates";
            let first = "GET …/Boot/Certificates/1";
            assert_eq!(requests, [collection, first, "POST …/Boot/Certificates"]);
            let (found, requests) = enrol(&bmc, &authority()).await;
            assert_eq!(found, Ok(EnrolledCertificate::Found));
            assert_eq!(requests, [collection, first, "GET …/Boot/Certificates/2"]);
            assert_eq!(remove(&bmc).await, Ok(true));
            assert_eq!(remove(&bmc).await, Ok(false));
            assert_eq!(count(&bmc), 1, "the other one stays");
        }
    }

    #[tokio::test]
    async fn a_certificate_without_its_text_is_known_by_what_else_is_shown() {
        let own = json!({"CommonName": "Ferroboot CA 0fa0"});
        let found = Ok(EnrolledCertificate::Found);
        let added = Ok(EnrolledCertificate::Added);
        for (shown, expected) in [
            (json!({"Fingerprint": "AB:".repeat(19) + "AB"}), found.clone()),
            (json!({"Fingerprint": "cd".repeat(32)}), found.clone()),
            (json!({"Fingerprint": "00".repeat(32)}), added.clone()),
            (json!({"SerialNumber": "0F:A0", "Subject": own, "Issuer": own}), found.clone()),
            (json!({"SerialNumber": "0x000fa0", "Subject": own}), found.clone()),
            (json!({"SerialNumber": "0F:A1", "Subject": own}), added.clone()),
            (json!({"Subject": {"CommonName": "Ferroboot CA 1234"}}), added.clone()),
            // A hash that is not known here, and names that are ours.
            (json!({"Fingerprint": "00", "SerialNumber": "fa0", "Subject": own}), found),
            (json!({"CertificateString": "hidden", "SerialNumber": "1"}), added),
        ] {
            let bmc = InMemoryBmc::new(Platform::Generic);
            enrol(&bmc, &authority()).await.0.unwrap();
            let bmc = bmc.with_faults(vec![showing(shown.clone())]);
            assert_eq!(enrol(&bmc, &authority()).await.0, expected, "{shown}");
        }
    }

    #[tokio::test]
    async fn a_certificate_that_is_not_to_be_told_apart_is_not_added_again_and_again() {
        for shown in [
            json!({}),
            json!({"Subject": {"CommonName": "Ferroboot CA 0fa0"}}),
            json!({"SerialNumber": "0FA0"}),
            json!({"Fingerprint": "no digits"}),
        ] {
            let bmc = InMemoryBmc::new(Platform::Generic);
            enrol(&bmc, &authority()).await.0.unwrap();
            let bmc = bmc.with_faults(vec![showing(shown.clone())]);

            let refused = enrol(&bmc, &authority()).await.0.unwrap_err();
            assert!(matches!(refused, CertificateNotEnrolled::Unclear(_)), "{shown}: {refused}");
            assert!(remove(&bmc).await.is_err(), "{shown}");
            assert_eq!(count(&bmc), 1, "{shown}");
        }
    }

    #[tokio::test]
    async fn members_that_the_collection_shows_in_full_cost_no_request() {
        let bmc = InMemoryBmc::new(Platform::Generic);
        let folder = "/redfish/v1/Systems/1/Boot/Certificates";
        let member = json!({
            "@odata.id": format!("{folder}/7"), "CertificateString": authority().pem.replace('\n', ""),
        });
        let bmc = bmc.with_faults(vec![merged(folder, json!({"Members": [member]}))]);

        let (found, requests) = enrol(&bmc, &authority()).await;

        assert_eq!(found, Ok(EnrolledCertificate::Found));
        assert_eq!(requests, ["GET …/Boot/Certificates"]);
    }

    #[tokio::test]
    async fn the_collection_may_be_at_the_settings_resource() {
        let system = "/redfish/v1/Systems/1";
        let link = json!({"@odata.id": format!("{system}/Boot/Certificates")});
        let settings =
            json!({"@Redfish.Settings": {"SettingsObject": {"@odata.id": "/redfish/v1"}}});
        let mut shown = settings;
        shown["Boot"] = json!({"Certificates": null});
        let bmc = InMemoryBmc::new(Platform::Generic).with_faults(vec![
            merged(system, shown),
            merged("/redfish/v1", json!({"Boot": {"Certificates": link}})),
        ]);

        assert_eq!(enrol(&bmc, &authority()).await.0, Ok(EnrolledCertificate::Added));
    }

    #[tokio::test]
    async fn what_keeps_a_certificate_out_is_said_in_words() {
        let none = merged("/redfish/v1/Systems/1", json!({"Boot": {"Certificates": null}}));
        let refusal = |status| EmulatedFault::Answer {
            status,
            body: None,
            retry_after_secs: None,
            location: None,
        };
        let folder = "/redfish/v1/Systems/1/Boot/Certificates";
        let many = json!({"Members": vec![json!({"@odata.id": format!("{folder}/1")}); 17]});
        for (fault, words, most) in [
            (none, "the BMC shows no Boot.Certificates", 0),
            (rule(folder, "GET", refusal(404)), "the BMC shows no Boot.Certificates", 1),
            (rule(folder, "POST", refusal(403)), "the user may not do this", 2),
            (rule(folder, "POST", refusal(405)), "405 Method Not Allowed", 2),
            (merged(folder, many), "17 certificates, and 16 at most are read", 17),
        ] {
            let bmc = InMemoryBmc::new(Platform::Generic).with_faults(vec![fault]);

            let (refused, requests) = enrol(&bmc, &authority()).await;

            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
            assert!(requests.len() <= most, "{words}: {requests:?}");
        }
    }

    #[tokio::test]
    async fn a_full_collection_is_named() {
        let bmc = InMemoryBmc::new(Platform::DellIdrac9);
        for number in 1..=4 {
            let body = BASE64.encode([number]);
            let begin = "-----BEGIN CERTIFICATE-----";
            let pem = format!("{begin}\n{body}\n-----END CERTIFICATE-----\n");
            enrol(&bmc, &other(&pem)).await.0.unwrap();
        }

        let (refused, requests) = enrol(&bmc, &authority()).await;

        assert!(
            matches!(refused, Err(CertificateNotEnrolled::Full { count: 4, .. })),
            "{refused:?}"
        );
        assert_eq!(requests.len(), 6);
    }

    #[tokio::test]
    async fn an_addition_whose_answer_is_lost_is_looked_for_and_not_repeated() {
        let folder = "/redfish/v1/Systems/1/Boot/Certificates";
        for (fault, is_there) in
            [(EmulatedFault::CutAfter, true), (EmulatedFault::CutBefore, false)]
        {
            let bmc =
                InMemoryBmc::new(Platform::Generic).with_faults(vec![rule(folder, "POST", fault)]);

            let (enrolled, requests) = enrol(&bmc, &authority()).await;

            assert_eq!(enrolled.is_ok(), is_there, "{enrolled:?}");
            let posts = requests.iter().filter(|request| request.starts_with("POST")).count();
            assert_eq!(posts, 1, "{requests:?}");
            assert_eq!(count(&bmc), usize::from(is_there));
        }
    }
}
