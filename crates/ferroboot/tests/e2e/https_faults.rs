//! Boots over HTTPS that fail, each with its diagnosis.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use bmc::config::FirmwareConfig;
use ferroboot::lab::firmware::OvmfBuild;
use ferroboot::lab::machine::LabMachine;
use ferroboot::lab::{Lab, Plan};
use provision::BootEventKind;
use provision::trace::TlsFailure;
use serde_json::json;

use crate::https::{SETTINGS, https};
use crate::relay::{Relay, RelayFault};
use crate::site_certificate::SiteCertificate;
use crate::story::{Verbs as _, checkout, in_a_lab};

fn newest() -> FirmwareConfig {
    OvmfBuild::V2026_08.firmware(&checkout())
}

/// A daemon with the operator's certificate, and firmware that checks all of it.
fn with_certificate(name: &str, certificate: SiteCertificate) -> Plan {
    let tls = certificate.files(name).expect("certificates are made");
    https(newest(), &format!("{SETTINGS}{tls}"))
}

/// Puts a CA into the machine's firmware, by its BMC.
fn trust(lab: &Lab, machine: &LabMachine, pem: &str) -> Result<()> {
    let path = format!("{}/Boot/Certificates", machine.system());
    let body = json!({"CertificateType": "PEM", "CertificateString": pem});
    let status = lab.post_to_bmc(&path, &body)?;
    ensure!(status == 201, "{path}: {status}");
    Ok(())
}

fn manageable(lab: &Lab) -> Result<LabMachine> {
    let machine = lab.machines()[0].clone();
    lab.enroll(&machine)?;
    lab.manage(&machine)?;
    lab.boot_by(&machine, "http")?;
    Ok(machine)
}

/// Begins to clean, and waits for a failed handshake with its diagnosis and its hint.
fn fails(lab: &Lab, machine: &LabMachine, failure: &TlsFailure, hint: &str) -> Result<()> {
    lab.begin_to_clean(machine)?;

    lab.wait_for_event(machine, "a failed handshake", |event| {
        matches!(event, BootEventKind::TlsHandshake { .. })
    })?;
    lab.wait_for_diagnosis(machine, &format!("began to fetch over https, and {failure}"))?;
    let said = lab.trace(&machine.name)?.diagnosis.and_then(|found| found.hint);
    ensure!(said.as_ref().is_some_and(|said| said.contains(hint)), "{said:?}");
    Ok(())
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn firmware_that_trusts_another_ca_is_named_by_the_diagnosis() {
    in_a_lab(https(newest(), SETTINGS), |lab| {
        let machine = manageable(lab)?;
        lab.set_driver_info(&machine, "redfish_boot_ca", "leave")?;
        let other = certificates::CertificateAuthority::make()?;
        trust(lab, &machine, &other.certificate)?;

        // EDK2 sends no alert for an unknown CA: it closes the connection.
        fails(lab, &machine, &TlsFailure::Closed, "`ferroboot ca` prints it")
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn firmware_without_any_ca_is_named_by_the_diagnosis() {
    in_a_lab(https(newest(), SETTINGS), |lab| {
        let machine = manageable(lab)?;
        lab.set_driver_info(&machine, "redfish_boot_ca", "leave")?;

        fails(lab, &machine, &TlsFailure::Closed, "`ferroboot ca` prints it")
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn an_expired_certificate_is_named_by_the_diagnosis() {
    let validity = ["20200101000000Z", "20201231235959Z"];
    let certificate = SiteCertificate { validity, ..SiteCertificate::for_lab() };
    in_a_lab(with_certificate("expired", certificate), |lab| {
        let machine = manageable(lab)?;
        fails(lab, &machine, &TlsFailure::Expired, "replace the certificate in [tls]")
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn a_certificate_for_another_address_is_among_the_causes_in_the_diagnosis() {
    let certificate = SiteCertificate { address: "192.0.2.9", ..SiteCertificate::for_lab() };
    in_a_lab(with_certificate("other-address", certificate), |lab| {
        let machine = manageable(lab)?;
        fails(lab, &machine, &TlsFailure::Closed, "lacks the address or name in the URL")
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn a_clock_before_the_certificate_is_among_the_causes_in_the_diagnosis() {
    let mut plan = with_certificate("clock", SiteCertificate::for_lab());
    let firmware = FirmwareConfig { clock: Some("2001-01-01T00:00:00".to_owned()), ..newest() };
    plan.machines = vec![LabMachine::new(1).with_firmware(firmware)];
    in_a_lab(plan, |lab| {
        let machine = manageable(lab)?;
        fails(lab, &machine, &TlsFailure::Closed, "not valid by the machine's clock")
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn old_firmware_that_is_not_permitted_is_named_by_the_diagnosis() {
    let firmware = OvmfBuild::V2025_02.firmware(&checkout());
    in_a_lab(https(firmware, SETTINGS), |lab| {
        let machine = manageable(lab)?;
        fails(lab, &machine, &TlsFailure::NoCommonCipher, "old_firmware = true")
    });
}

/// A relay before the boot listener, at the address of the daemon.
fn relay(fault: RelayFault) -> Result<Relay> {
    let here = |port| SocketAddr::from(([10, 77, 0, 1], port));
    Relay::start(here(9443), here(8443), fault)
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn a_connection_that_is_cut_within_the_image_is_named_with_the_bytes() {
    in_a_lab(https(newest(), SETTINGS), |lab| {
        let _relay = relay(RelayFault::CutsAfter(4 << 20))?;
        let machine = manageable(lab)?;
        lab.set_driver_info(&machine, "external_http_url", "https://10.77.0.1:9443")?;

        lab.begin_to_clean(&machine)?;

        let said =
            lab.wait_for_diagnosis(&machine, "the fetch of bootx64.efi was cut off after")?;
        ensure!(!said.contains(" 0 of"), "{said}");
        Ok(())
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn a_connection_that_stalls_within_the_image_is_given_up_and_named() {
    let settings = format!("{SETTINGS}[limits]\nstall_secs = 15\n");
    in_a_lab(https(newest(), &settings), |lab| {
        let _relay = relay(RelayFault::StallsAfter(4 << 20))?;
        let machine = manageable(lab)?;
        lab.set_driver_info(&machine, "external_http_url", "https://10.77.0.1:9443")?;

        lab.begin_to_clean(&machine)?;

        lab.wait_for_diagnosis(&machine, "the fetch of bootx64.efi was cut off after").map(drop)
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn an_image_server_that_stalls_ends_the_boot_before_the_machine_is_switched_on() {
    in_a_lab(https(newest(), SETTINGS), |lab| {
        let server = crate::relay::stalling_image_server(SocketAddr::from(([10, 77, 0, 1], 0)))?;
        let machine = manageable(lab)?;
        for half in ["deploy_kernel", "deploy_ramdisk"] {
            lab.set_driver_info(&machine, half, &format!("http://{server}/{half}"))?;
        }

        lab.begin_to_clean(&machine)?;

        lab.wait_for_state(&machine, "clean failed")?;
        let node = lab.node(&machine.name)?;
        let error = node["last_error"].as_str().context("no error")?.to_owned();
        ensure!(error.contains("deploy_kernel"), "{error}");
        ensure!(lab.console(&machine).is_err(), "the machine was switched on");
        eprintln!("{error}");
        Ok(())
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn the_url_of_an_earlier_attempt_is_refused_and_named() {
    in_a_lab(https(newest(), SETTINGS), |lab| {
        let machine = manageable(lab)?;
        lab.boot_by(&machine, "redfish-https")?;
        let bmc = crate::proxy::Proxy::before(ferroboot::lab::BMC)?;
        let address = format!("http://{}", bmc.address);
        lab.set_driver_info(&machine, "redfish_address", &address)?;
        lab.clean(&machine)?;
        // A BMC that boots the machine from the URL of its last boot.
        bmc.repeat_first_boot_url();

        lab.begin_to_clean(&machine)?;

        lab.wait_for_diagnosis(&machine, "got 403: this ticket is used up").map(drop)
    });
}
