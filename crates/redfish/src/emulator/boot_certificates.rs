//! `Boot/Certificates` of a system: the authorities that its firmware trusts for HTTPS boot (Redfish
//! `ComputerSystem.v1_16_0`, `Boot.Certificates`).

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::Emulator;
use super::machine::MachineResources;
use super::response::{EmulatorResponse, bad_request, error, missing_parameter, no_content};

/// Number limit: the firmware's variables have room for a few.
const MOST_CERTIFICATES: usize = 4;
/// Size limit of one certificate, in bytes.
const LONGEST_CERTIFICATE: usize = 8 * 1024;

impl Emulator {
    /// The authorities in the firmware of a system, each in PEM; `None` if nobody has changed them.
    #[must_use]
    pub fn boot_certificates(&self, system: &str) -> Option<Vec<String>> {
        let folder = folder(&self.systems.get(system)?.layout.system);
        let members = self.tree.was_changed(&folder).then(|| self.tree.children(&folder))?;
        let text = |path: String| {
            let body = self.tree.view(&path)?;
            body["CertificateString"].as_str().map(str::to_owned)
        };
        Some(members.into_iter().filter_map(text).collect())
    }
}

fn folder(system: &str) -> String {
    format!("{system}/Boot/Certificates")
}

/// Answers a POST to the collection, or a DELETE of a member, if the BMC has the collection.
pub(super) fn act(
    machine: &mut MachineResources<'_>,
    method: &Method,
    path: &str,
    body: &Map<String, Value>,
) -> Option<EmulatorResponse> {
    let folder = folder(&machine.layout.system);
    machine.tree.key(&folder)?;
    if *method == Method::POST && path == folder {
        return Some(add(machine, &folder, body).unwrap_or_else(|refused| refused));
    }
    let is_member = path.strip_prefix(&folder).is_some_and(|rest| rest.starts_with('/'));
    if *method != Method::DELETE || !is_member {
        return None;
    }
    machine.tree.key(path)?;
    machine.tree.delete(path);
    machine.tree.list_children(&folder);
    Some(no_content())
}

fn add(
    machine: &mut MachineResources<'_>,
    folder: &str,
    body: &Map<String, Value>,
) -> Result<EmulatorResponse, EmulatorResponse> {
    let text = |name: &str| {
        let value = body.get(name).and_then(Value::as_str);
        value.ok_or_else(|| missing_parameter("Certificates", name))
    };
    let (kind, certificate) = (text("CertificateType")?, text("CertificateString")?);
    let is_one = certificate.matches("-----BEGIN CERTIFICATE-----").count() == 1
        && certificate.contains("-----END CERTIFICATE-----");
    if kind != "PEM" || !is_one || certificate.len() > LONGEST_CERTIFICATE {
        let words = "The value for CertificateString is not one certificate of the type PEM.";
        return Err(bad_request("PropertyValueFormatError", words));
    }
    let members = machine.tree.children(folder);
    if members.len() >= MOST_CERTIFICATES {
        let words =
            "The create operation failed: the collection has the most members that it can have.";
        return Err(error(StatusCode::CONFLICT, "CreateLimitReachedForResource", words));
    }
    let is_free = |number: &u32| machine.tree.key(&format!("{folder}/{number}")).is_none();
    let number = (1..).find(is_free).unwrap_or_default();
    let path = format!("{folder}/{number}");
    let resource = json!({
        "@odata.id": path,
        "@odata.type": "#Certificate.v1_8_2.Certificate",
        "Id": number.to_string(),
        "Name": "Certificate",
        "CertificateType": "PEM",
        "CertificateString": certificate,
    });
    machine.tree.change(&path, &resource);
    machine.tree.list_children(folder);
    Ok(EmulatorResponse::new(StatusCode::CREATED, Some(resource)).with_header("Location", path))
}
