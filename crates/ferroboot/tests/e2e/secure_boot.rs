//! Firmware with Secure Boot, which trusts the operator's certificate alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use ferroboot::lab::firmware::{OvmfBuild, with_microsoft_keys};
use ferroboot::lab::machine::LabMachine;
use ferroboot::lab::{Lab, Plan};
use hardware::{BmcObservation, EnrolmentOutcome, HeldSigners, SecureBootTrust};
use provision::BootEventKind;
use serde_json::json;

use crate::story::{Fetched as _, Verbs as _, checkout, in_a_lab, made_once, measured, with};

#[test]
fn firmware_with_secure_boot_starts_a_signed_uki_by_http_and_a_signed_iso_by_redfish_https() {
    in_a_lab(plan("signed", true), |lab| {
        let machine = manageable(lab)?;
        for (boot_interface, file) in [("http", "bootx64.efi"), ("redfish-https", "boot.iso")] {
            lab.boot_by(&machine, boot_interface)?;
            lab.clean(&machine)?;
            let trace = lab.trace(&machine.name)?;
            assert_eq!(trace.fetched_by_firmware().as_deref(), Some(file));
            eprintln!("measured: {boot_interface}: {}", measured(&trace));
        }
        let console = lab.console(&machine)?;
        for words in ["Secure boot enabled", "Kernel is locked down from EFI Secure Boot"] {
            ensure!(console.contains(words), "the console does not say {words:?}");
        }
        Ok(())
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn an_unsigned_uki_is_refused_before_the_boot_where_the_bmc_shows_secure_boot() {
    in_a_lab(plan("unsigned", false), |lab| {
        let machine = manageable(lab)?;
        lab.boot_by(&machine, "http")?;
        let refused = lab.begin_to_clean(&machine).err().context("the clean began")?;
        let refused = format!("{refused:#}");
        ensure!(refused.contains("Secure Boot is on, and images are not signed"), "{refused}");
        Ok(())
    });
}

/// A new server: `PK` of its vendor, Microsoft's keys in `KEK` and `db`.
fn new_server(name: &str) -> Plan {
    let signed = plan(name, true);
    let machine = LabMachine::new(1).with_firmware(with_microsoft_keys());
    Plan { settings: signed.settings, ..with([machine]) }
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn the_certificate_is_enrolled_in_db_by_redfish_and_a_signed_uki_boots() {
    in_a_lab(new_server("enrolled"), |lab| {
        let machine = manageable(lab)?;
        lab.boot_by(&machine, "http")?;
        lab.set_driver_info(&machine, "redfish_secure_boot_certificate", "enrol")?;

        lab.clean(&machine)?;

        let trace = lab.trace(&machine.name)?;
        let outcome = EnrolmentOutcome::Enrolled;
        let enrolled = BmcObservation::SecureBootCertificate { outcome, reason: None };
        let trust = SecureBootTrust {
            allowed: HeldSigners {
                microsoft_2011: true,
                microsoft_2023: false,
                sign_certificate: true,
            },
            forbidden: Some(HeldSigners::default()),
        };
        let on = BmcObservation::SecureBootOn { trust: Some(trust), reason: None };
        for observation in [enrolled, on] {
            let shown = BootEventKind::BmcShows { observation };
            ensure!(trace.events.iter().any(|event| event.what == shown), "no {shown:?}");
        }
        eprintln!("measured: http: {}", measured(&trace));
        let console = lab.console(&machine)?;
        ensure!(console.contains("Secure boot enabled"), "Secure Boot was off");
        Ok(())
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn a_signed_uki_whose_certificate_is_not_in_db_is_named_by_the_diagnosis() {
    in_a_lab(new_server("lacking"), |lab| {
        let machine = manageable(lab)?;
        lab.boot_by(&machine, "http")?;
        lab.begin_to_clean(&machine)?;
        let words = "the BMC shows Secure Boot on, and its db holds Microsoft's CA of 2011";
        lab.wait_for_diagnosis(&machine, words)?;
        let hint = lab.trace(&machine.name)?.diagnosis.and_then(|diagnosis| diagnosis.hint);
        let advice = "redfish_secure_boot_certificate = enrol";
        ensure!(hint.as_ref().is_some_and(|hint| hint.contains(advice)), "{hint:?}");
        let console = lab.console(&machine)?;
        ensure!(console.contains("): Access Denied"), "the firmware did not refuse the image");
        Ok(())
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn a_certificate_in_dbx_is_named_by_the_diagnosis_and_by_validate() {
    in_a_lab(plan("forbidden", true), |lab| {
        let machine = manageable(lab)?;
        lab.boot_by(&machine, "http")?;
        forbid(lab, &machine, &fs::read_to_string(keys("forbidden")?.join("uki.pem"))?)?;
        lab.begin_to_clean(&machine)?;
        let words = "and dbx forbids the certificate that signs this service's images";
        lab.wait_for_diagnosis(&machine, words)?;
        let console = lab.console(&machine)?;
        ensure!(console.contains("): Access Denied"), "the firmware did not refuse the image");

        lab.baremetal(&["node", "abort", &machine.name])?;
        lab.wait_for_state(&machine, "clean failed")?;
        let said = lab.baremetal(&["node", "validate", "-f", "json", &machine.name])?;
        let words = "its dbx forbids the certificate that signs images";
        ensure!(said.contains(words), "{said}");
        Ok(())
    });
}

/// Adds a certificate (PEM) to `dbx`, as an update by the BMC between `manage` and a boot does.
pub(crate) fn forbid(lab: &Lab, machine: &LabMachine, pem: &str) -> Result<()> {
    let path = format!("{}/SecureBoot/SecureBootDatabases/dbx/Certificates", machine.system());
    let body = json!({ "CertificateType": "PEM", "CertificateString": pem });
    let status = lab.post_to_bmc(&path, &body)?;
    ensure!(status == 201, "the BMC answered {status}");
    Ok(())
}

pub(crate) fn manageable(lab: &Lab) -> Result<LabMachine> {
    let machine = lab.machines()[0].clone();
    lab.enroll(&machine)?;
    lab.manage(&machine)?;
    Ok(machine)
}

/// A machine that trusts the operator's certificate; the daemon has the key if it `signs`.
fn plan(name: &str, signs: bool) -> Plan {
    let folder = keys(name).expect("openssl makes a key");
    let firmware = OvmfBuild::Installed.with_secure_boot(&checkout(), &folder.join("uki.pem"));
    let mut plan = with([LabMachine::new(1).with_firmware(firmware)]);
    if signs {
        plan.settings = format!("[boot]\n{}", sign_with(&folder));
    }
    plan
}

/// The settings that sign with the key in a folder.
pub(crate) fn sign_with(keys: &Path) -> String {
    let [key, certificate] = ["uki.key", "uki.pem"].map(|file| keys.join(file));
    format!("sign_key = {key:?}\nsign_certificate = {certificate:?}\n")
}

/// A key and its certificate, made as the book says.
pub(crate) fn keys(name: &str) -> Result<PathBuf> {
    made_once(&format!("secure-boot-{name}"), |folder| {
        let command = "umask 077; openssl req -x509 -newkey rsa:2048 -nodes -sha256 -days 3650 -subj '/CN=Ferroboot UKI' \
                       -keyout uki.key -out uki.pem";
        let made = Command::new("sh").args(["-c", command]).current_dir(folder).output();
        let made = made.context("sh")?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Ok(())
    })
}
