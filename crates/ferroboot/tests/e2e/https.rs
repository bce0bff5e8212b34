//! Boots over HTTPS: three generations of firmware, which trust the service's own CA.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use bmc::config::FirmwareConfig;
use ferroboot::lab::firmware::OvmfBuild;
use ferroboot::lab::machine::LabMachine;
use ferroboot::lab::{Lab, Plan};
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

/// The service's CA, as `ferroboot ca` prints it.
fn authority(lab: &Lab) -> Result<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferroboot"));
    command.arg("ca").arg("--state-dir").arg(lab.dir().join("state"));
    let printed = command.output().context("ferroboot ca")?;
    ensure!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    String::from_utf8(printed.stdout).context("PEM is text")
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
    trust(lab, &machine, &authority(lab)?)?;

    lab.clean(&machine)?;

    let trace = lab.trace(&machine.name)?;
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
