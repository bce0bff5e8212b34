//! Firmware with Secure Boot, which trusts the operator's certificate alone.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use ferroboot::lab::firmware::with_secure_boot;
use ferroboot::lab::machine::LabMachine;
use ferroboot::lab::{Lab, Plan};

use crate::story::{Fetched as _, Verbs as _, in_a_lab, measured, with};

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
fn firmware_with_secure_boot_refuses_an_unsigned_uki_and_the_diagnosis_names_it() {
    in_a_lab(plan("unsigned", false), |lab| {
        let machine = manageable(lab)?;
        lab.boot_by(&machine, "http")?;
        lab.begin_to_clean(&machine)?;
        lab.wait_for_diagnosis(&machine, "the ramdisk was fetched but the agent never called")?;
        let hint = lab.trace(&machine.name)?.diagnosis.and_then(|diagnosis| diagnosis.hint);
        ensure!(hint.as_ref().is_some_and(|hint| hint.contains("Secure Boot")), "{hint:?}");
        let console = lab.console(&machine)?;
        ensure!(console.contains("): Access Denied"), "the firmware did not refuse the image");
        Ok(())
    });
}

fn manageable(lab: &Lab) -> Result<LabMachine> {
    let machine = lab.machines()[0].clone();
    lab.enroll(&machine)?;
    lab.manage(&machine)?;
    Ok(machine)
}

/// A machine that trusts the operator's certificate; the daemon has the key if it `signs`.
fn plan(name: &str, signs: bool) -> Plan {
    let folder = keys(name).expect("openssl makes a key");
    let [key, certificate] = ["uki.key", "uki.pem"].map(|file| folder.join(file));
    let mut plan = with([LabMachine::new(1).with_firmware(with_secure_boot(&certificate))]);
    if signs {
        plan.settings = format!("[boot]\nsign_key = {key:?}\nsign_certificate = {certificate:?}\n");
    }
    plan
}

/// A key and its certificate, made as the book says. The test starts itself again, and finds them then.
fn keys(name: &str) -> Result<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("secure-boot-{name}"));
    if folder.join("uki.pem").exists() {
        return Ok(folder);
    }
    fs::create_dir_all(&folder)?;
    let command = "umask 077; openssl req -x509 -newkey rsa:2048 -nodes -sha256 -days 3650 -subj '/CN=Ferroboot UKI' \
                   -keyout uki.key -out uki.pem";
    let made = Command::new("sh").args(["-c", command]).current_dir(&folder).output();
    let made = made.context("sh")?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(folder)
}
