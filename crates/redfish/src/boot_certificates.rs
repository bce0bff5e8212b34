//! The authorities that the firmware of a machine trusts for HTTPS boot (Redfish `ComputerSystem.v1_16_0`,
//! `Boot.Certificates`): this service's CA is enrolled among them, and removed.

use hardware::{BmcObservation, EnrolmentOutcome, RedfishPurpose};

use crate::channel::BmcChannel;
use crate::failure::BmcFailure;
use crate::firmware_certificates::{
    CertificateCollection, CertificateNotEnrolled, CertificatePurposes, EnrolledCertificate,
    FirmwareCertificate,
};
use crate::machine::RedfishSystem;
use crate::resource::{RedfishResource, link_in};
use crate::system::SystemView;
use crate::ways::ChosenWay;

const PURPOSES: CertificatePurposes = CertificatePurposes {
    name: "Boot.Certificates",
    read: RedfishPurpose::ReadBootCertificates,
    add: RedfishPurpose::AddBootCertificate,
    remove: RedfishPurpose::RemoveBootCertificate,
};

fn seen(outcome: EnrolmentOutcome, why: Option<&CertificateNotEnrolled>) -> BmcObservation {
    BmcObservation::BootCertificate { outcome, reason: why.map(ToString::to_string) }
}

impl<C: BmcChannel> RedfishSystem<'_, C> {
    /// Enrols the service's CA in the firmware for a boot by `way`, and says what became of it. `None` if the firmware does
    /// not fetch.
    pub async fn enrol_ca(
        &self,
        view: &SystemView,
        way: &ChosenWay,
        authority: Option<&FirmwareCertificate>,
    ) -> Option<BmcObservation> {
        if way.is_fetched_by_bmc() {
            return None;
        }
        let enrolled = match authority {
            Some(authority) => self.enrol_boot_certificate(view, authority).await,
            None => Err(CertificateNotEnrolled::NoAuthority),
        };
        Some(match enrolled {
            Ok(EnrolledCertificate::Found) => seen(EnrolmentOutcome::Found, None),
            Ok(EnrolledCertificate::Added) => seen(EnrolmentOutcome::Enrolled, None),
            Err(why) => seen(EnrolmentOutcome::NotEnrolled, Some(&why)),
        })
    }

    /// Removes the service's CA from the firmware, and says what became of it. `None` if the firmware does not have it.
    pub async fn remove_ca(
        &self,
        view: &SystemView,
        authority: &FirmwareCertificate,
    ) -> Option<BmcObservation> {
        match self.remove_boot_certificate(view, authority).await {
            Ok(true) => Some(seen(EnrolmentOutcome::Removed, None)),
            Ok(false) => None,
            Err(why) => Some(seen(EnrolmentOutcome::NotRemoved, Some(&why))),
        }
    }

    /// What may keep the firmware from trusting the URL of a boot by `way`, in words.
    pub async fn ca_warning(
        &self,
        view: &SystemView,
        way: &ChosenWay,
        authority: Option<&FirmwareCertificate>,
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

    async fn has_boot_certificate(
        &self,
        view: &SystemView,
        authority: &FirmwareCertificate,
    ) -> Result<bool, CertificateNotEnrolled> {
        let path = self.boot_certificates(view).await?;
        let path = path.ok_or(CertificateNotEnrolled::NoCollection(PURPOSES.name))?;
        let collection = CertificateCollection { path: &path, purposes: PURPOSES };
        self.search_certificate(collection, &authority.identity, 1).await?.has_it()
    }

    async fn enrol_boot_certificate(
        &self,
        view: &SystemView,
        authority: &FirmwareCertificate,
    ) -> Result<EnrolledCertificate, CertificateNotEnrolled> {
        let path = self.boot_certificates(view).await?;
        let path = path.ok_or(CertificateNotEnrolled::NoCollection(PURPOSES.name))?;
        let collection = CertificateCollection { path: &path, purposes: PURPOSES };
        self.enrol_certificate(collection, authority).await
    }

    async fn remove_boot_certificate(
        &self,
        view: &SystemView,
        authority: &FirmwareCertificate,
    ) -> Result<bool, CertificateNotEnrolled> {
        let Some(path) = self.boot_certificates(view).await? else { return Ok(false) };
        let collection = CertificateCollection { path: &path, purposes: PURPOSES };
        self.remove_certificate(collection, &authority.identity).await
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
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use serde_json::{Value, json};
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::emulator::{EmulatedFault, FaultRule, Platform};
    use crate::facts::BmcFacts;
    use crate::firmware_certificates::{CertificateIdentity, first_certificate};
    use crate::in_memory::InMemoryBmc;

    const PLATFORMS: [Platform; 2] = [Platform::Generic, Platform::DellIdrac9];
    const OTHER: &str = "-----BEGIN CERTIFICATE-----\nTUlJQg==\n-----END CERTIFICATE-----\n";

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIBAAEC\n-----END CERTIFICATE-----\n";

    fn fingerprint(pem: &str) -> Vec<u8> {
        Sha256::digest(first_certificate(pem).unwrap()).to_vec()
    }

    fn authority() -> FirmwareCertificate {
        let identity = CertificateIdentity {
            fingerprints: vec![vec![0xab; 20], fingerprint(PEM)],
            serial_number: vec![0x0f, 0xa0],
            subject: Some("Ferroboot CA 0fa0".to_owned()),
            issuer: Some("Ferroboot CA 0fa0".to_owned()),
        };
        FirmwareCertificate { pem: PEM.to_owned(), identity }
    }

    fn other(pem: &str) -> FirmwareCertificate {
        let fingerprints = vec![fingerprint(pem)];
        let identity = CertificateIdentity { fingerprints, ..authority().identity };
        FirmwareCertificate { pem: pem.to_owned(), identity }
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

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What a member shows instead of its text.
    fn showing(shown: Value) -> FaultRule {
        let mut body = json!({ "CertificateString": null });
        body.as_object_mut().unwrap().extend(shown.as_object().unwrap().clone());
        merged("/redfish/v1/Systems/*/Boot/Certificates/*", body)
    }

    type Enrolled = Result<EnrolledCertificate, CertificateNotEnrolled>;

    /// Enrols a certificate, and returns the requests after the look at the system.
    async fn enrol(bmc: &InMemoryBmc, authority: &FirmwareCertificate) -> (Enrolled, Vec<String>) {
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
            (json!({"Fingerprint": hex(&fingerprint(PEM))}), found.clone()),
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
        let many = json!({"Members": vec![json!({"@odata.id": format!("{folder}/1")}); 33]});
        for (fault, words, most) in [
            (none, "the BMC shows no Boot.Certificates", 0),
            (rule(folder, "GET", refusal(404)), "the BMC shows no Boot.Certificates", 1),
            (rule(folder, "POST", refusal(403)), "the user may not do this", 2),
            (rule(folder, "POST", refusal(405)), "405 Method Not Allowed", 2),
            (merged(folder, many), "33 certificates, and 32 at most are read", 33),
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
