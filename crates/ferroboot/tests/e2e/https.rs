//! Boots over HTTPS: three generations of firmware, in which the service enrols its own CA.

use anyhow::{Result, ensure};
use bmc::config::FirmwareConfig;
use ferroboot::lab::firmware::OvmfBuild;
use ferroboot::lab::machine::LabMachine;
use ferroboot::lab::{Lab, Plan};
use hardware::{BmcObservation, BootCertificateOutcome};
use provision::BootEventKind;
use serde_json::json;

use crate::story::{Fetched as _, Verbs as _, checkout, in_a_lab, with};

/// The boot listener and the agents' port have TLS alone.
const SETTINGS: &str =
    "[boot]\nlisten = \"https://[::]:8443\"\n[agent]\nlisten = \"https://[::]:6386\"\n";

fn https(firmware: FirmwareConfig, settings: &str) -> Plan {
    let machine = LabMachine::new(1).with_firmware(firmware);
    Plan { settings: settings.to_owned(), ..with([machine]) }
}

/// Puts a CA into the machine's firmware, by its BMC.
fn trust(lab: &Lab, machine: &LabMachine, pem: &str) -> Result<()> {
    let path = format!("{}/Boot/Certificates", machine.system());
    let body = json!({"CertificateType": "PEM", "CertificateString": pem});
    let status = lab.post_to_bmc(&path, &body)?;
    ensure!(status == 201, "{path}: {status}");
    Ok(())
}

fn is_cleaned_over_https(lab: &mut Lab, interface: &str) -> Result<()> {
    let machine = lab.machines()[0].clone();
    lab.enroll(&machine)?;
    lab.manage(&machine)?;
    lab.boot_by(&machine, interface)?;

    lab.clean(&machine)?;

    let trace = lab.trace(&machine.name)?;
    let enrolled = BootEventKind::BmcShows {
        observation: BmcObservation::BootCertificate {
            outcome: BootCertificateOutcome::Enrolled,
            reason: None,
        },
    };
    assert!(trace.events.iter().any(|event| event.what == enrolled), "the CA was enrolled");
    assert!(trace.fetched_by_firmware().is_some(), "the firmware fetched its image");
    assert_eq!(trace.diagnosis, None);
    Ok(())
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn firmware_of_2022_boots_over_https_if_old_firmware_is_permitted() {
    let settings = format!("{SETTINGS}[tls]\nold_firmware = true\n");
    in_a_lab(https(FirmwareConfig::default(), &settings), |lab| {
        is_cleaned_over_https(lab, "redfish-https")
    });
}

#[test]
fn firmware_of_2026_boots_over_https() {
    let firmware = OvmfBuild::V2026_08.firmware(&checkout());
    in_a_lab(https(firmware, SETTINGS), |lab| is_cleaned_over_https(lab, "http"));
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn firmware_of_2025_boots_over_https_if_old_firmware_is_permitted() {
    let settings = format!("{SETTINGS}[tls]\nold_firmware = true\n");
    let firmware = OvmfBuild::V2025_02.firmware(&checkout());
    in_a_lab(https(firmware, &settings), |lab| is_cleaned_over_https(lab, "http"));
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn firmware_that_trusts_another_ca_is_named_by_the_diagnosis() {
    let firmware = OvmfBuild::V2026_08.firmware(&checkout());
    in_a_lab(https(firmware, SETTINGS), |lab| {
        let machine = lab.machines()[0].clone();
        lab.enroll(&machine)?;
        lab.manage(&machine)?;
        lab.boot_by(&machine, "http")?;
        lab.set_driver_info(&machine, "redfish_boot_ca", "leave")?;
        let other = certificates::CertificateAuthority::make()?;
        trust(lab, &machine, &other.certificate)?;

        lab.begin_to_clean(&machine)?;

        lab.wait_for_event(&machine, "a failed handshake", |event| {
            matches!(event, BootEventKind::TlsHandshake { .. })
        })?;
        lab.wait_for_diagnosis(&machine, "began to fetch over https")?;
        // EDK2 sends no alert for an unknown CA: it closes the connection.
        let hint = lab.trace(&machine.name)?.diagnosis.and_then(|found| found.hint);
        assert!(hint.as_ref().is_some_and(|hint| hint.contains("ferroboot ca")), "{hint:?}");
        Ok(())
    });
}
