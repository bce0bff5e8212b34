//! The databases of Secure Boot (Redfish `SecureBoot.v1_1_0`, `SecureBootDatabases`): what `db` and `dbx` hold, and the
//! certificate that signs this service's images in `db`.
//!
//! Of `dbx` the certificates are read, not the hundreds of hashes.

use hardware::{
    BmcObservation, EnrolmentOutcome, HeldSigners, RedfishPurpose, SecureBootDatabase,
    SecureBootTrust,
};
use serde_json::Value;

use crate::channel::BmcChannel;
use crate::failure::BmcFailure;
use crate::firmware_certificates::{
    CertificateCollection, CertificateIdentity, CertificateNotEnrolled, CertificatePurposes,
    CertificateSearch, EnrolledCertificate, FirmwareCertificate, MOST_READ,
};
use crate::machine::RedfishSystem;
use crate::resource::{RedfishResource, link_in};
use crate::system::SystemView;

const PURPOSES: CertificatePurposes = CertificatePurposes {
    name: "SecureBootDatabases with db and its Certificates",
    read: RedfishPurpose::ReadSecureBootDatabase,
    add: RedfishPurpose::AddSecureBootCertificate,
    remove: RedfishPurpose::RemoveSecureBootCertificate,
};

/// What a boot does about Secure Boot.
#[derive(Clone, Copy, Debug)]
pub enum SecureBootCare<'c> {
    /// `db` and `dbx` are read if Secure Boot is on. The certificate is the one that signs images, if they are signed.
    Read(Option<&'c FirmwareCertificate>),
    /// The certificate that signs images is added to `db`, whether Secure Boot is on or not.
    Enrol(&'c FirmwareCertificate),
}

/// What a look at `db` found.
struct AllowedSearch {
    databases: RedfishResource,
    signers: SignerSearch,
}

/// What a look for the signers in a database found.
struct SignerSearch {
    /// The path of the database's certificates.
    path: String,
    microsoft: [CertificateSearch; 2],
    signer: Option<CertificateSearch>,
}

impl SignerSearch {
    /// # Errors
    /// The BMC does not show enough of a certificate.
    fn held(&self) -> Result<HeldSigners, CertificateNotEnrolled> {
        let [old, new] = &self.microsoft;
        let signer = self.signer.as_ref().map_or(Ok(false), CertificateSearch::has_it);
        Ok(HeldSigners {
            microsoft_2011: old.has_it()?,
            microsoft_2023: new.has_it()?,
            sign_certificate: signer?,
        })
    }
}

impl<C: BmcChannel> RedfishSystem<'_, C> {
    /// Looks after Secure Boot before a boot, and says what was found and done. Nothing where Secure Boot is off, and no
    /// certificate is to be enrolled.
    pub async fn care_for_secure_boot(
        &self,
        view: &SystemView,
        care: SecureBootCare<'_>,
    ) -> Vec<BmcObservation> {
        let resource = match self.secure_boot(view).await {
            Ok(resource) => resource,
            Err(failure) => return not_enrolled(care, &failure.into()),
        };
        let Some(resource) = resource else {
            return not_enrolled(care, &CertificateNotEnrolled::NoCollection("SecureBoot"));
        };
        let is_on = enforces(&resource.body);
        let signer = match care {
            SecureBootCare::Read(_) if !is_on => return Vec::new(),
            SecureBootCare::Read(signer) => signer,
            SecureBootCare::Enrol(signer) => Some(signer),
        };
        let found = self.search_allowed(&resource, signer).await;
        let mut seen = Vec::new();
        let mut is_enrolled = false;
        if let SecureBootCare::Enrol(certificate) = care {
            let enrolled = match &found {
                Ok(found) => self.enrol_signer(&found.signers, certificate).await,
                Err(why) => Err(why.clone()),
            };
            is_enrolled = enrolled.is_ok();
            seen.push(match &enrolled {
                Ok(EnrolledCertificate::Found) => enrolment(EnrolmentOutcome::Found, None),
                Ok(EnrolledCertificate::Added) => enrolment(EnrolmentOutcome::Enrolled, None),
                Err(why) => enrolment(EnrolmentOutcome::NotEnrolled, Some(why)),
            });
        }
        if is_on {
            let trust = match &found {
                Ok(found) => self.trust(found, signer, is_enrolled).await,
                Err(why) => Err(why.clone()),
            };
            let reason = trust.as_ref().err().map(ToString::to_string);
            seen.push(BmcObservation::SecureBootOn { trust: trust.ok(), reason });
        }
        seen
    }

    /// What `db` and `dbx` hold; `None` where Secure Boot is off, or the BMC does not show it.
    pub async fn secure_boot_trust(
        &self,
        view: &SystemView,
        signer: Option<&FirmwareCertificate>,
    ) -> Option<SecureBootTrust> {
        let seen = self.care_for_secure_boot(view, SecureBootCare::Read(signer)).await;
        seen.into_iter().find_map(|seen| {
            let BmcObservation::SecureBootOn { trust, .. } = seen else { return None };
            trust
        })
    }

    /// What may keep firmware with Secure Boot from starting an image that is signed with `certificate`, in words.
    pub async fn secure_boot_warning(
        &self,
        view: &SystemView,
        certificate: &FirmwareCertificate,
        is_enrolled_by_boot: bool,
    ) -> Option<String> {
        let care = SecureBootCare::Read(Some(certificate));
        let seen = self.care_for_secure_boot(view, care).await.into_iter().next()?;
        let BmcObservation::SecureBootOn { trust, reason } = seen else { return None };
        match (trust, reason) {
            (Some(trust), _) if trust.forbids_own_images() => Some(
                "Secure Boot is on, and its dbx forbids the certificate that signs images: sign with another key, or \
                 remove it from dbx in the firmware's set-up"
                    .to_owned(),
            ),
            (Some(trust), _) if trust.allowed.sign_certificate || is_enrolled_by_boot => None,
            (Some(_), _) => Some(
                "Secure Boot is on, and its db lacks the certificate that signs images: set \
                 redfish_secure_boot_certificate in driver_info to enrol, or enrol it in the firmware's set-up"
                    .to_owned(),
            ),
            (None, reason) => Some(format!(
                "Secure Boot is on, and {}: its db must have the certificate that signs images",
                reason.unwrap_or_default()
            )),
        }
    }

    /// Removes the certificate that signs images from `db`, and says what became of it. `None` if it is not there.
    pub async fn remove_sign_certificate(
        &self,
        view: &SystemView,
        certificate: &FirmwareCertificate,
    ) -> Option<BmcObservation> {
        match self.remove_signer(view, certificate).await {
            Ok(true) => Some(enrolment(EnrolmentOutcome::Removed, None)),
            Ok(false) => None,
            Err(why) => Some(enrolment(EnrolmentOutcome::NotRemoved, Some(&why))),
        }
    }

    async fn enrol_signer(
        &self,
        found: &SignerSearch,
        certificate: &FirmwareCertificate,
    ) -> Result<EnrolledCertificate, CertificateNotEnrolled> {
        let collection = CertificateCollection { path: &found.path, purposes: PURPOSES };
        match &found.signer {
            Some(search) => self.add_certificate(collection, certificate, search).await,
            None => self.enrol_certificate(collection, certificate).await,
        }
    }

    async fn remove_signer(
        &self,
        view: &SystemView,
        certificate: &FirmwareCertificate,
    ) -> Result<bool, CertificateNotEnrolled> {
        let Some(resource) = self.secure_boot(view).await? else { return Ok(false) };
        let Some(databases) = self.databases(&resource).await? else { return Ok(false) };
        let path = self.certificates_in(&databases, SecureBootDatabase::Allowed).await?;
        let Some(path) = path else { return Ok(false) };
        let collection = CertificateCollection { path: &path, purposes: PURPOSES };
        self.remove_certificate(collection, &certificate.identity).await
    }

    async fn search_allowed(
        &self,
        secure_boot: &RedfishResource,
        signer: Option<&FirmwareCertificate>,
    ) -> Result<AllowedSearch, CertificateNotEnrolled> {
        let databases = self.databases(secure_boot).await?;
        let databases = databases.ok_or(CertificateNotEnrolled::NoCollection(PURPOSES.name))?;
        let signers = self.search_signers(&databases, SecureBootDatabase::Allowed, signer).await?;
        Ok(AllowedSearch { databases, signers })
    }

    /// What was found in `db`, and what `dbx` has of the same. A `dbx` that cannot be read leaves the rest as it is.
    async fn trust(
        &self,
        found: &AllowedSearch,
        signer: Option<&FirmwareCertificate>,
        is_enrolled: bool,
    ) -> Result<SecureBootTrust, CertificateNotEnrolled> {
        let mut allowed = found.signers.held()?;
        allowed.sign_certificate |= is_enrolled;
        let dbx = SecureBootDatabase::Forbidden;
        let forbidden = self.search_signers(&found.databases, dbx, signer).await;
        let forbidden = forbidden.and_then(|forbidden| forbidden.held()).ok();
        Ok(SecureBootTrust { allowed, forbidden })
    }

    async fn search_signers(
        &self,
        databases: &RedfishResource,
        database: SecureBootDatabase,
        signer: Option<&FirmwareCertificate>,
    ) -> Result<SignerSearch, CertificateNotEnrolled> {
        let path = self.certificates_in(databases, database).await?;
        let path = path.ok_or(CertificateNotEnrolled::NoCollection(PURPOSES.name))?;
        let collection = CertificateCollection { path: &path, purposes: PURPOSES };
        let [old, new] = [microsoft_2011(), microsoft_2023()];
        Ok(match signer {
            Some(signer) => {
                let all = [&old, &new, &signer.identity];
                let [old, new, signer] =
                    self.search_certificates(collection, all, usize::MAX).await?;
                SignerSearch { microsoft: [old, new], signer: Some(signer), path }
            }
            None => {
                let microsoft =
                    self.search_certificates(collection, [&old, &new], usize::MAX).await?;
                SignerSearch { microsoft, signer: None, path }
            }
        })
    }

    /// The databases; `None` if the BMC does not show them.
    async fn databases(
        &self,
        secure_boot: &RedfishResource,
    ) -> Result<Option<RedfishResource>, BmcFailure> {
        let Some(databases) = secure_boot.link("SecureBootDatabases") else { return Ok(None) };
        self.service().collection(PURPOSES.read, databases).await
    }

    /// The path of the certificates in a database.
    async fn certificates_in(
        &self,
        databases: &RedfishResource,
        database: SecureBootDatabase,
    ) -> Result<Option<String>, BmcFailure> {
        let members = databases.body["Members"].as_array();
        let is_it = |member: &&Value| {
            let path = link_in(member).unwrap_or_default().trim_end_matches('/');
            let id = path.rsplit('/').next().unwrap_or_default();
            id.eq_ignore_ascii_case(database.name()) || member["DatabaseId"] == database.name()
        };
        let member = members.into_iter().flatten().take(MOST_READ).find(is_it);
        let Some(path) = member.and_then(link_in) else { return Ok(None) };
        let resource = self.service().find(PURPOSES.read, path).await?;
        Ok(resource.and_then(|resource| resource.link("Certificates").map(str::to_owned)))
    }
}

/// Whether the firmware refuses programs at the next boot, as far as the BMC knows: `SecureBootCurrentBoot` is that of the
/// last boot, and in setup mode nothing is refused.
fn enforces(secure_boot: &Value) -> bool {
    let is_setup =
        matches!(secure_boot["SecureBootMode"].as_str(), Some("SetupMode" | "AuditMode"));
    secure_boot["SecureBootCurrentBoot"] == "Enabled" && secure_boot["SecureBootEnable"] != false
        || secure_boot["SecureBootEnable"] == true && !is_setup
}

fn enrolment(outcome: EnrolmentOutcome, why: Option<&CertificateNotEnrolled>) -> BmcObservation {
    BmcObservation::SecureBootCertificate { outcome, reason: why.map(ToString::to_string) }
}

fn not_enrolled(care: SecureBootCare<'_>, why: &CertificateNotEnrolled) -> Vec<BmcObservation> {
    match care {
        SecureBootCare::Read(_) => Vec::new(),
        SecureBootCare::Enrol(_) => vec![enrolment(EnrolmentOutcome::NotEnrolled, Some(why))],
    }
}

/// `Microsoft Corporation UEFI CA 2011`.
fn microsoft_2011() -> CertificateIdentity {
    const SHA_1: u128 = 0x46DE_F63B_5CE6_1CF8_BA0D_E2E6_639C_1019;
    const SHA_256: [u128; 2] =
        [0x48E9_9B99_1F57_FC52_F761_4959_9BFF_0A58, 0xC471_5422_9B9F_8D60_3AC4_0D35_0024_8507];
    CertificateIdentity {
        fingerprints: fingerprints(SHA_1, 0xD0ED_14F3, SHA_256),
        serial_number: vec![0x61, 0x08, 0xD3, 0xC4, 0, 0, 0, 0, 0, 0x04],
        subject: Some("Microsoft Corporation UEFI CA 2011".to_owned()),
        issuer: Some("Microsoft Corporation Third Party Marketplace Root".to_owned()),
    }
}

/// `Microsoft UEFI CA 2023`.
fn microsoft_2023() -> CertificateIdentity {
    const SHA_1: u128 = 0xB5EE_B4A6_7060_4807_3F0E_D296_E7F5_80A7;
    const SHA_256: [u128; 2] =
        [0xF612_4E34_125B_EE3F_E6D7_9A57_4EAA_7B91, 0xC0E7_BD9D_929C_1A32_1178_EFD6_11DA_D901];
    let serial_number =
        [0x33, 0, 0, 0, 0x16, 0x36, 0xBF, 0x36, 0x89, 0x9F, 0x15, 0x75, 0xCC, 0, 0, 0, 0, 0, 0x16];
    CertificateIdentity {
        fingerprints: fingerprints(SHA_1, 0x90B5_9EAA, SHA_256),
        serial_number: serial_number.to_vec(),
        subject: Some("Microsoft UEFI CA 2023".to_owned()),
        issuer: Some("Microsoft RSA Devices Root CA 2021".to_owned()),
    }
}

/// The fingerprints by SHA-1 and SHA-256.
fn fingerprints(sha_1: u128, sha_1_end: u32, sha_256: [u128; 2]) -> Vec<Vec<u8>> {
    let sha_1 = [&sha_1.to_be_bytes()[..], &sha_1_end.to_be_bytes()].concat();
    vec![sha_1, sha_256.map(u128::to_be_bytes).concat()]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::emulator::{EmulatedFault, FaultRule, Platform};
    use crate::facts::BmcFacts;
    use crate::firmware_certificates::first_certificate;
    use crate::in_memory::InMemoryBmc;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIBAAEC\n-----END CERTIFICATE-----\n";

    fn signer() -> FirmwareCertificate {
        let identity = CertificateIdentity {
            fingerprints: vec![Sha256::digest(first_certificate(PEM).unwrap()).to_vec()],
            serial_number: vec![7],
            subject: Some("UKI".to_owned()),
            issuer: Some("UKI".to_owned()),
        };
        FirmwareCertificate { pem: PEM.to_owned(), identity }
    }

    fn rule(path: &str, method: &str, fault: EmulatedFault) -> FaultRule {
        FaultRule {
            path: path.to_owned(),
            method: Some(method.to_owned()),
            ..FaultRule::always(fault)
        }
    }

    fn refusal(status: u16) -> EmulatedFault {
        EmulatedFault::Answer { status, body: None, retry_after_secs: None, location: None }
    }

    fn shows(platform: Platform, body: Value) -> FaultRule {
        let path = format!("{}/SecureBoot", platform.system_path("1"));
        rule(&path, "GET", EmulatedFault::Merge(body))
    }

    fn on() -> Value {
        json!({ "SecureBootEnable": true, "SecureBootCurrentBoot": "Enabled" })
    }

    async fn care(bmc: &InMemoryBmc, care: SecureBootCare<'_>) -> (Vec<BmcObservation>, usize) {
        let facts = BmcFacts::default();
        let machine =
            RedfishSystem::find(bmc, &facts, None, Duration::from_secs(30)).await.unwrap();
        let view = machine.look().await.unwrap();
        let before = bmc.requests().len();
        let seen = machine.care_for_secure_boot(&view, care).await;
        (seen, bmc.requests().len() - before)
    }

    async fn remove(bmc: &InMemoryBmc) -> Option<BmcObservation> {
        let facts = BmcFacts::default();
        let machine =
            RedfishSystem::find(bmc, &facts, None, Duration::from_secs(30)).await.unwrap();
        let view = machine.look().await.unwrap();
        machine.remove_sign_certificate(&view, &signer()).await
    }

    fn texts(seen: &[BmcObservation]) -> Vec<String> {
        seen.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn the_certificate_is_enrolled_once_and_removed_where_the_bmc_shows_the_databases() {
        let signer = signer();
        for platform in Platform::ALL {
            let bmc = InMemoryBmc::new(platform);
            let has_databases = !matches!(platform, Platform::HpeIlo5 | Platform::LenovoXcc);

            let (first, _) = care(&bmc, SecureBootCare::Enrol(&signer)).await;
            let (second, _) = care(&bmc, SecureBootCare::Enrol(&signer)).await;

            let words = if has_databases {
                [
                    "the certificate that signs images was enrolled in db of Secure Boot",
                    "db of Secure Boot has the certificate that signs images",
                ]
            } else {
                ["the certificate that signs images was not enrolled in db of Secure Boot: the BMC shows no \
                  SecureBootDatabases with db and its Certificates"; 2]
            };
            assert_eq!([texts(&first), texts(&second)], words.map(|words| [words]), "{platform:?}");
            let removed = remove(&bmc).await.map(|seen| seen.to_string());
            let expected = "the certificate that signs images was removed from db of Secure Boot";
            assert_eq!(removed.as_deref(), has_databases.then_some(expected), "{platform:?}");
            assert_eq!(remove(&bmc).await, None, "{platform:?}");
        }
    }

    #[tokio::test]
    async fn db_is_read_only_while_secure_boot_is_on() {
        let platform = Platform::HpeIlo6;
        let bmc = InMemoryBmc::new(platform);
        assert_eq!(care(&bmc, SecureBootCare::Read(None)).await, (Vec::new(), 1));

        let bmc = bmc.with_faults(vec![shows(platform, on())]);
        let (seen, requests) = care(&bmc, SecureBootCare::Read(None)).await;

        let forbidden = Some(HeldSigners::default());
        let trust = Some(SecureBootTrust { forbidden, ..SecureBootTrust::default() });
        assert_eq!(seen, [BmcObservation::SecureBootOn { trust, reason: None }]);
        // SecureBoot, the databases, and of db and dbx each itself and its certificates.
        assert_eq!(requests, 6);
        for (state, is_on) in [
            (json!({"SecureBootEnable": true, "SecureBootMode": "UserMode"}), true),
            (json!({"SecureBootEnable": true, "SecureBootMode": "SetupMode"}), false),
            (json!({"SecureBootEnable": false, "SecureBootCurrentBoot": "Enabled"}), false),
            (json!({"SecureBootEnable": null, "SecureBootCurrentBoot": "Enabled"}), true),
        ] {
            let bmc = InMemoryBmc::new(platform).with_faults(vec![shows(platform, state.clone())]);
            let (seen, _) = care(&bmc, SecureBootCare::Read(None)).await;
            assert_eq!(!seen.is_empty(), is_on, "{state}");
        }
    }

    /// The certificates of a database, with these members.
    fn certificates_are(database: &str, members: &[Value]) -> FaultRule {
        let folder =
            format!("/redfish/v1/Systems/1/SecureBoot/SecureBootDatabases/{database}/Certificates");
        let member = |(number, shown): (usize, &Value)| {
            let mut member = shown.clone();
            member["@odata.id"] = format!("{folder}/{number}").into();
            member
        };
        let members: Vec<_> = members.iter().enumerate().map(member).collect();
        rule(&folder, "GET", EmulatedFault::Merge(json!({ "Members": members })))
    }

    #[tokio::test]
    async fn the_authorities_of_microsoft_are_known_by_what_a_bmc_shows_of_them() {
        let windows = json!({"Fingerprint": "00".repeat(32)});
        let old = "46:DE:F6:3B:5C:E6:1C:F8:BA:0D:E2:E6:63:9C:10:19:D0:ED:14:F3";
        let old = json!({ "Fingerprint": old });
        let new = json!({
            "Subject": {"CommonName": "Microsoft UEFI CA 2023"},
            "SerialNumber": "330000001636bf36899f1575cc000000000016",
        });
        for (members, expected) in [
            (vec![windows.clone()], [false, false]),
            (vec![windows.clone(), old.clone()], [true, false]),
            (vec![new.clone()], [false, true]),
            (vec![old, new, windows], [true, true]),
        ] {
            let [microsoft_2011, microsoft_2023] = expected;
            let held = HeldSigners { microsoft_2011, microsoft_2023, sign_certificate: false };
            for (database, [allowed, forbidden]) in
                [("db", [held, HeldSigners::default()]), ("dbx", [HeldSigners::default(), held])]
            {
                let shown = certificates_are(database, &members);
                let faults = vec![shows(Platform::Generic, on()), shown];
                let bmc = InMemoryBmc::new(Platform::Generic).with_faults(faults);

                let (seen, _) = care(&bmc, SecureBootCare::Read(Some(&signer()))).await;

                let trust = Some(SecureBootTrust { allowed, forbidden: Some(forbidden) });
                assert_eq!(seen, [BmcObservation::SecureBootOn { trust, reason: None }]);
            }
        }
    }

    #[tokio::test]
    async fn a_dbx_that_forbids_the_certificate_is_named_and_one_that_cannot_be_read_is_unknown() {
        let platform = Platform::Generic;
        let dbx = certificates_are("dbx", &[json!({ "CertificateString": PEM })]);
        let unreadable = FaultRule { fault: refusal(404), ..dbx.clone() };
        for (dbx, forbidden) in [(dbx, Some(true)), (unreadable, None)] {
            let bmc = InMemoryBmc::new(platform).with_faults(vec![shows(platform, on()), dbx]);

            let (seen, _) = care(&bmc, SecureBootCare::Enrol(&signer())).await;

            let [_, BmcObservation::SecureBootOn { trust: Some(trust), reason: None }] = &seen[..]
            else {
                panic!("{seen:?}")
            };
            assert!(trust.allowed.sign_certificate);
            assert_eq!(trust.forbidden.map(|held| held.sign_certificate), forbidden);
        }
    }

    #[tokio::test]
    async fn what_keeps_the_certificate_out_is_said_and_what_db_holds_is_then_unknown() {
        let platform = Platform::Generic;
        let folder = "/redfish/v1/Systems/1/SecureBoot/SecureBootDatabases";
        let certificates = format!("{folder}/db/Certificates");
        for (fault, words) in [
            (rule(folder, "GET", refusal(404)), "shows no SecureBootDatabases"),
            (rule(&certificates, "GET", refusal(403)), "403 Forbidden"),
            (rule(&certificates, "POST", refusal(405)), "405 Method Not Allowed"),
        ] {
            let is_read = fault.method.as_deref() == Some("POST");
            let bmc = InMemoryBmc::new(platform).with_faults(vec![shows(platform, on()), fault]);

            let (seen, _) = care(&bmc, SecureBootCare::Enrol(&signer())).await;

            let [BmcObservation::SecureBootCertificate { outcome, reason }, on] = &seen[..] else {
                panic!("{seen:?}")
            };
            assert_eq!(*outcome, EnrolmentOutcome::NotEnrolled);
            assert!(reason.as_ref().is_some_and(|it| it.contains(words)), "{words}: {reason:?}");
            let BmcObservation::SecureBootOn { trust, .. } = on else { panic!("{on:?}") };
            assert_eq!(trust.is_some(), is_read, "{words}");
            assert!(trust.is_none_or(|trust| !trust.allowed.sign_certificate));
        }
    }
}
