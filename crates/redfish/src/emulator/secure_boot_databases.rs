//! `SecureBoot/SecureBootDatabases` of a system: `PK`, `KEK`, `db` and `dbx` with their certificates and signatures (Redfish
//! `SecureBootDatabase.v1_0_3`). What a client changes is shown at once, and the firmware has it from the next start.

use std::collections::BTreeMap;

use hardware::SecureBootDatabase;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::Emulator;
use super::machine::MachineResources;
use super::response::{
    EmulatorResponse, bad_request, error, missing_parameter, no_content, wrong_format,
};
use super::tree::ResourceTree;
use crate::firmware_certificates::first_certificate;

/// Number limit of the certificates in one database.
const MOST_CERTIFICATES: usize = 16;
/// Number limit of the signatures in one database: Microsoft's `dbx` has some hundred.
const MOST_SIGNATURES: usize = 1024;
/// Size limit of one certificate, in bytes.
const LONGEST_CERTIFICATE: usize = 8 * 1024;
/// The owner of what a client adds without one.
const NO_OWNER: &str = "00000000-0000-0000-0000-000000000000";

/// Secure Boot in the firmware of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmulatedSecureBoot {
    /// Whether it is enabled; it is in force if there is a platform key, too.
    pub is_enabled: bool,
    /// The contents of the databases.
    pub databases: BTreeMap<SecureBootDatabase, Vec<EmulatedSignature>>,
}

/// An entry of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmulatedSignature {
    /// `UefiSignatureOwner`.
    pub owner: String,
    /// What it stands for.
    pub data: EmulatedSignatureData,
}

/// What an entry of a database stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EmulatedSignatureData {
    /// A certificate in PEM.
    Certificate(String),
    /// The SHA-256 of a program, in hexadecimal.
    Sha256(String),
}

impl Emulator {
    /// Shows what the firmware of a system has, unless a client's changes wait for its next start. The first call says what
    /// the default keys are.
    pub fn show_secure_boot(&mut self, system: &str, shown: &EmulatedSecureBoot) {
        let Some(system) = self.systems.get(system) else { return };
        let mut machine =
            MachineResources { tree: &mut self.tree, layout: &system.layout, macs: &system.macs };
        machine.show_keys(shown);
    }

    /// What the firmware of a system is to have from this start on; `None` if no client has changed it since the last one.
    pub fn take_secure_boot(&mut self, system: &str) -> Option<EmulatedSecureBoot> {
        let system = self.systems.get(system)?;
        let mut machine =
            MachineResources { tree: &mut self.tree, layout: &system.layout, macs: &system.macs };
        machine.take_keys()
    }
}

impl MachineResources<'_> {
    fn database_path(&self, database: SecureBootDatabase) -> String {
        self.below(&format!("SecureBoot/SecureBootDatabases/{}", database.name()))
    }

    /// Where a change by a client is noted. No client sees it, since it is no path.
    fn changed_keys(&self) -> String {
        format!("changed keys of {}", self.layout.system)
    }

    /// Where the default keys are.
    fn default_keys(&self) -> String {
        format!("default keys of {}", self.layout.system)
    }

    /// Notes that a client has changed Secure Boot.
    pub(super) fn note_changed_keys(&mut self) {
        let path = self.changed_keys();
        self.tree.change(&path, &json!({ "waits": true }));
    }

    fn show_keys(&mut self, shown: &EmulatedSecureBoot) {
        let is_waiting = self.view(&self.changed_keys())["waits"] == true;
        if is_waiting || self.tree.key(&self.below("SecureBoot/SecureBootDatabases")).is_none() {
            return;
        }
        for (database, signatures) in &shown.databases {
            self.replace(*database, signatures);
        }
        if self.tree.key(&self.default_keys()).is_none() {
            let all = SecureBootDatabase::ALL.map(|it| (it.name().to_owned(), self.entries(it)));
            let path = self.default_keys();
            self.tree.change(&path, &Value::Object(all.into_iter().collect()));
        }
        let path = self.secure_boot_path();
        if self.view(&path)["SecureBootEnable"] != shown.is_enabled {
            self.tree.change(&path, &json!({ "SecureBootEnable": shown.is_enabled }));
        }
        self.start_secure_boot();
    }

    fn take_keys(&mut self) -> Option<EmulatedSecureBoot> {
        let changed = self.changed_keys();
        if self.view(&changed)["waits"] != true {
            return None;
        }
        self.tree.revert(&changed);
        let database =
            |database: SecureBootDatabase| (database, self.signatures_in(&self.entries(database)));
        Some(EmulatedSecureBoot {
            is_enabled: self.view(&self.secure_boot_path())["SecureBootEnable"] == true,
            databases: SecureBootDatabase::ALL.into_iter().map(database).collect(),
        })
    }

    /// The members of a database, certificates first.
    fn entries(&self, database: SecureBootDatabase) -> Value {
        let folder = self.database_path(database);
        let folders = [format!("{folder}/Certificates"), format!("{folder}/Signatures")];
        let members = folders.iter().flat_map(|folder| self.tree.children(folder));
        members.filter_map(|path| self.tree.view(&path)).collect()
    }

    fn signatures_in(&self, entries: &Value) -> Vec<EmulatedSignature> {
        let signature = |entry: &Value| {
            let text = |name: &str| entry[name].as_str().map(str::to_owned);
            let data = text("CertificateString").map(EmulatedSignatureData::Certificate);
            let data =
                data.or_else(|| text("SignatureString").map(EmulatedSignatureData::Sha256))?;
            Some(EmulatedSignature { owner: text("UefiSignatureOwner")?, data })
        };
        entries.as_array().into_iter().flatten().filter_map(signature).collect()
    }

    fn replace(&mut self, database: SecureBootDatabase, signatures: &[EmulatedSignature]) {
        let folder = self.database_path(database);
        let folders = ["Certificates", "Signatures"].map(|name| format!("{folder}/{name}"));
        for folder in &folders {
            for member in self.tree.children(folder) {
                self.tree.delete(&member);
            }
        }
        for signature in signatures {
            let (folder, member) = match &signature.data {
                EmulatedSignatureData::Certificate(pem) => {
                    (&folders[0], certificate_body(pem, &signature.owner))
                }
                EmulatedSignatureData::Sha256(digest) => {
                    (&folders[1], signature_body(digest, &signature.owner))
                }
            };
            if self.tree.key(folder).is_some() {
                add_member(self.tree, folder, &member);
            }
        }
        for folder in &folders {
            if self.tree.key(folder).is_some() {
                self.tree.list_children(folder);
            }
        }
        if database == SecureBootDatabase::PlatformKey {
            self.show_mode();
        }
    }

    /// Shows the mode that follows from the platform key (UEFI §32.3).
    fn show_mode(&mut self) {
        let folder = self.database_path(SecureBootDatabase::PlatformKey);
        let has_key = !self.tree.children(&format!("{folder}/Certificates")).is_empty();
        let path = self.secure_boot_path();
        let is_set_up = self.view(&path)["SecureBootMode"] != "SetupMode";
        if has_key != is_set_up {
            let mode = if has_key { "UserMode" } else { "SetupMode" };
            self.tree.change(&path, &json!({ "SecureBootMode": mode }));
        }
    }

    /// `SecureBoot.ResetKeys`, and the same for one database.
    fn reset_keys(
        &mut self,
        wanted: &str,
        of: &[SecureBootDatabase],
    ) -> Result<EmulatorResponse, EmulatorResponse> {
        use SecureBootDatabase::{Allowed, Forbidden, KeyExchangeKeys, PlatformKey};
        let (to_default, databases): (bool, &[SecureBootDatabase]) = match wanted {
            "ResetAllKeysToDefault" => (true, of),
            "DeleteAllKeys" => (false, of),
            "DeletePK" if of.len() > 1 => (false, &[PlatformKey]),
            "ResetPK" if of.len() > 1 => (true, &[PlatformKey]),
            "ResetKEK" if of.len() > 1 => (true, &[KeyExchangeKeys]),
            "ResetDB" if of.len() > 1 => (true, &[Allowed]),
            "ResetDBX" if of.len() > 1 => (true, &[Forbidden]),
            _ => {
                let words = format!(
                    "The value {wanted:?} for the parameter ResetKeysType is not in the list of acceptable values."
                );
                return Err(bad_request("ActionParameterNotSupported", &words));
            }
        };
        let defaults = self.view(&self.default_keys());
        for database in databases {
            let signatures = match to_default {
                true => self.signatures_in(&defaults[database.name()]),
                false => Vec::new(),
            };
            self.replace(*database, &signatures);
        }
        self.note_changed_keys();
        Ok(no_content())
    }
}

/// Answers a POST to a collection or an action of Secure Boot, or a DELETE of a member, if the BMC has it.
pub(super) fn act(
    machine: &mut MachineResources<'_>,
    method: &Method,
    path: &str,
    body: &Map<String, Value>,
) -> Option<EmulatorResponse> {
    let secure_boot = machine.secure_boot_path();
    if path.strip_prefix(&secure_boot) == Some("/Actions/SecureBoot.ResetKeys") {
        let actions = &machine.view(&secure_boot)["Actions"];
        let is_shown = *method == Method::POST && actions["#SecureBoot.ResetKeys"].is_object();
        return is_shown.then(|| answer_reset(machine, body, &SecureBootDatabase::ALL));
    }
    let rest = path.strip_prefix(&secure_boot)?.strip_prefix("/SecureBootDatabases/")?;
    let (name, rest) = rest.split_once('/')?;
    let database = SecureBootDatabase::ALL.into_iter().find(|it| it.name() == name)?;
    machine.tree.key(&machine.database_path(database))?;
    if *method == Method::POST && rest == "Actions/SecureBootDatabase.ResetKeys" {
        return Some(answer_reset(machine, body, &[database]));
    }
    let (folder_name, member) =
        rest.split_once('/').map_or((rest, None), |(name, member)| (name, Some(member)));
    let folder = format!("{}/{folder_name}", machine.database_path(database));
    machine.tree.key(&folder)?;
    let answer = match (method, member) {
        (&Method::POST, None) => {
            add(machine, database, &folder, body).unwrap_or_else(|refused| refused)
        }
        (&Method::DELETE, Some(_)) => {
            machine.tree.key(path)?;
            machine.tree.delete(path);
            no_content()
        }
        _ => return None,
    };
    if answer.status.is_success() {
        machine.tree.list_children(&folder);
        machine.note_changed_keys();
        machine.show_mode();
    }
    Some(answer)
}

fn answer_reset(
    machine: &mut MachineResources<'_>,
    body: &Map<String, Value>,
    of: &[SecureBootDatabase],
) -> EmulatorResponse {
    match body.get("ResetKeysType").and_then(Value::as_str) {
        None => missing_parameter("SecureBoot.ResetKeys", "ResetKeysType"),
        Some(wanted) => machine.reset_keys(wanted, of).unwrap_or_else(|refused| refused),
    }
}

fn add(
    machine: &mut MachineResources<'_>,
    database: SecureBootDatabase,
    folder: &str,
    body: &Map<String, Value>,
) -> Result<EmulatorResponse, EmulatorResponse> {
    let is_certificates = folder.ends_with("/Certificates");
    let text = |name: &str| {
        let value = body.get(name).and_then(Value::as_str);
        value.ok_or_else(|| missing_parameter("SecureBootDatabases", name))
    };
    let owner = match body.get("UefiSignatureOwner") {
        None => NO_OWNER,
        Some(owner) => {
            let owner = owner.as_str().filter(|owner| is_guid(owner));
            owner.ok_or_else(|| wrong_format("UefiSignatureOwner"))?
        }
    };
    let (member, most) = if is_certificates {
        let (kind, pem) = (text("CertificateType")?, text("CertificateString")?);
        let is_one = pem.matches("-----BEGIN CERTIFICATE-----").count() == 1
            && pem.len() <= LONGEST_CERTIFICATE
            && first_certificate(pem).is_some_and(|der| der[0] == 0x30);
        if kind != "PEM" || !is_one {
            return Err(wrong_format("CertificateString"));
        }
        let most = if database == SecureBootDatabase::PlatformKey { 1 } else { MOST_CERTIFICATES };
        (certificate_body(pem, owner), most)
    } else {
        let (kind, digest) = (text("SignatureType")?, text("SignatureString")?);
        let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        if kind != "EFI_CERT_SHA256_GUID" || !is_digest {
            return Err(wrong_format("SignatureString"));
        }
        (signature_body(digest, owner), MOST_SIGNATURES)
    };
    if machine.tree.children(folder).len() >= most {
        let words =
            "The create operation failed: the collection has the most members that it can have.";
        return Err(error(StatusCode::CONFLICT, "CreateLimitReachedForResource", words));
    }
    let (path, resource) = add_member(machine.tree, folder, &member);
    Ok(EmulatorResponse::new(StatusCode::CREATED, Some(resource)).with_header("Location", path))
}

/// Adds a member under the first free number.
fn add_member(tree: &mut ResourceTree, folder: &str, body: &Value) -> (String, Value) {
    let is_free = |number: &usize| tree.key(&format!("{folder}/{number}")).is_none();
    let number = (1..).find(is_free).unwrap_or_default();
    let path = format!("{folder}/{number}");
    let mut resource = body.clone();
    resource["@odata.id"] = path.clone().into();
    resource["Id"] = number.to_string().into();
    tree.change(&path, &resource);
    (path, resource)
}

fn certificate_body(pem: &str, owner: &str) -> Value {
    let fingerprint = first_certificate(pem).map(|der| {
        let digest = Sha256::digest(der);
        digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    });
    json!({
        "@odata.type": "#Certificate.v1_8_2.Certificate",
        "Name": "Certificate",
        "CertificateType": "PEM",
        "CertificateString": pem,
        "Fingerprint": fingerprint,
        "FingerprintHashAlgorithm": "TPM_ALG_SHA256",
        "UefiSignatureOwner": owner,
    })
}

fn signature_body(digest: &str, owner: &str) -> Value {
    json!({
        "@odata.type": "#Signature.v1_0_3.Signature",
        "Name": "Signature",
        "SignatureType": "EFI_CERT_SHA256_GUID",
        "SignatureTypeRegistry": "UEFI",
        "SignatureString": digest,
        "UefiSignatureOwner": owner,
    })
}

fn is_guid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let parts: Vec<_> = text.split('-').collect();
    parts.len() == lengths.len()
        && parts.iter().zip(lengths).all(|(part, len)| {
            part.len() == len && part.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
}
