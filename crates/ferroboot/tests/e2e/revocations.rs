//! Loaders whose signatures are good, and which firmware or shim refuses all the same: `dbx`, SBAT, NX. And loaders on other
//! firmware: with a `db` without the older of Microsoft's authorities, of 2026, over IPv6.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use bmc::config::{FirmwareConfig, Ip};
use efi::variables::{EfiSignature, EfiSignatureData, VariableStore};
use ferroboot::lab::firmware::{OvmfBuild, with_microsoft_keys};
use ferroboot::lab::machine::LabMachine;
use ferroboot::lab::network::LabNetwork;
use ferroboot::lab::{Lab, Plan};
use hardware::SecureBootDatabase;
use openssl::x509::X509;

use crate::boot_chains::{
    BY_GRUB, is_cleaned_by, plan_on, set_of_shim, shim_and_uki, with_owner_key, with_variables,
};
use crate::secure_boot::{forbid, keys, manageable, sign_with};
use crate::story::{Fetched as _, Verbs as _, checkout, in_a_lab, with};

const GRUB: &str = "http_loader = \"shim-grub\"\n";
const NEW_CA: &[u8] = b"Microsoft UEFI CA 2023";
const OLD_CA: &[u8] = b"Microsoft Corporation UEFI CA 2011";

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn shim_starts_by_its_newer_signature_where_db_has_microsofts_ca_of_2023_alone() {
    let firmware = with_variables(with_microsoft_keys(), "2023", |store| {
        let mut db = store.secure_boot_database(SecureBootDatabase::Allowed)?;
        db.retain(|signature| !is_of(signature, OLD_CA));
        db.push(new_authority()?);
        Ok(store.set_secure_boot_database(SecureBootDatabase::Allowed, &db)?)
    });
    in_a_lab(plan_on(firmware, "grub-2.12", GRUB), |lab| is_cleaned_by(lab, "http", &BY_GRUB));
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn one_signature_of_shim_in_dbx_is_too_many_although_db_has_the_signer_of_the_other() {
    let firmware = with_variables(with_microsoft_keys(), "both", |store| {
        let mut db = store.secure_boot_database(SecureBootDatabase::Allowed)?;
        db.push(new_authority()?);
        Ok(store.set_secure_boot_database(SecureBootDatabase::Allowed, &db)?)
    });
    in_a_lab(plan_on(firmware, "grub-2.12", GRUB), |lab| {
        let machine = manageable(lab)?;
        forbid(lab, &machine, &old_authority()?)?;
        let hint = "also if db has that of another";
        is_refused(lab, &machine, &["bootx64.efi"], hint, "): Access Denied")?;
        let said = lab.wait_for_diagnosis(&machine, "and dbx forbids Microsoft's CA of 2011")?;
        ensure!(said.contains("and Microsoft's CA of 2023, and dbx"), "{said}");
        Ok(())
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn grub_below_the_sbat_level_is_refused_by_shim_and_named_by_the_diagnosis() {
    let firmware = with_sbat_level(with_microsoft_keys(), "grub,99");
    let plan = plan_on(firmware, "grub-2.12", GRUB);
    in_a_lab(plan, |lab| {
        let files = ["bootx64.efi", "grubx64.efi"];
        is_refused(
            lab,
            &manageable(lab)?,
            &files,
            "revoked by its SBAT level",
            "Security Violation",
        )
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn a_uki_whose_stub_is_below_the_sbat_level_is_refused_by_shim_and_named_by_the_diagnosis() {
    let keys = keys("mok").expect("openssl makes a key");
    let firmware = with_owner_key(with_microsoft_keys(), "mok-sbat", &keys);
    let firmware = with_sbat_level(firmware, "systemd,99");
    in_a_lab(plan_on(firmware, "grub-2.12", &shim_and_uki(&keys)), |lab| {
        let files = ["bootx64.efi", "grubx64.efi"];
        let hint = "its SBAT level revokes the image's stub";
        is_refused(lab, &manageable(lab)?, &files, hint, "Security Violation")
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn a_shim_below_the_sbat_level_switches_the_machine_off_and_is_named_by_the_diagnosis() {
    let firmware = with_sbat_level(with_microsoft_keys(), "shim,99");
    let plan = plan_on(firmware, "grub-2.12", GRUB);
    in_a_lab(plan, |lab| {
        let hint = "found itself revoked by its SBAT level";
        is_refused(lab, &manageable(lab)?, &["bootx64.efi"], hint, "SBAT self-check failed")
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn a_signed_uki_boots_on_the_newest_firmware_with_secure_boot() {
    let plan = on_newest("newest", "OVMF_CODE_4M.secboot.fd");
    in_a_lab(plan, |lab| is_cleaned_by(lab, "http", &["bootx64.efi"]));
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn a_signed_uki_boots_on_firmware_with_strict_memory_attributes() {
    let plan = on_newest("nx", "OVMF_CODE_4M.secboot.strictnx.fd");
    in_a_lab(plan, |lab| is_cleaned_by(lab, "http", &["bootx64.efi"]));
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn grub_that_is_not_for_nx_is_refused_by_a_shim_whose_policy_requires_it() {
    /// `MOK_POLICY_REQUIRE_NX`
    const REQUIRE_NX: [u8; 1] = [1];
    let firmware = with_variables(with_microsoft_keys(), "nx-policy", |store| {
        set_of_shim(store, "MokPolicy", &REQUIRE_NX)
    });
    in_a_lab(plan_on(firmware, "grub-2.12", GRUB), |lab| {
        // The firmware goes on with its next boot option, which is HTTP as well.
        let files = ["bootx64.efi", "grubx64.efi", "bootx64.efi", "grubx64.efi"];
        is_refused(lab, &manageable(lab)?, &files, "MokPolicy requires NX", "Policy requires NX")
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn shim_starts_a_uki_over_ipv6_on_the_newest_firmware_with_secure_boot() {
    let keys = keys("mok").expect("openssl makes a key");
    let firmware = with_owner_key(newest_over_ipv6(), "mok-ipv6", &keys);
    let plan = plan_on(firmware, "grub-2.12", &shim_and_uki(&keys));
    in_a_lab(Plan { network: LabNetwork::Ipv6, ..plan }, |lab| {
        is_cleaned_by(lab, "http", &["bootx64.efi", "grubx64.efi"])
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn grub_asks_for_nothing_over_ipv6_and_the_diagnosis_names_it() {
    let plan = plan_on(newest_over_ipv6(), "grub-2.12", GRUB);
    // Where networks have IPv6 alone, the boot is refused beforehand.
    in_a_lab(Plan { network: LabNetwork::Dual, ..plan }, |lab| {
        let files = ["bootx64.efi", "grubx64.efi"];
        is_refused(lab, &manageable(lab)?, &files, "asks for anything over IPv6", "grub> ")
    });
}

fn newest_over_ipv6() -> FirmwareConfig {
    let firmware = OvmfBuild::V2026_08.with_microsoft_keys(&checkout());
    FirmwareConfig { ip: vec![Ip::Ipv6], ..firmware }
}

/// A machine with this image of the newest firmware, which trusts the certificate that signs its UKI.
fn on_newest(name: &str, image: &str) -> Plan {
    let keys = keys(name).expect("openssl makes a key");
    let firmware = OvmfBuild::V2026_08.with_secure_boot(&checkout(), &keys.join("uki.pem"));
    let firmware = FirmwareConfig { code: firmware.code.with_file_name(image), ..firmware };
    let settings = format!("[boot]\n{}", sign_with(&keys));
    Plan { settings, ..with([LabMachine::new(1).with_firmware(firmware)]) }
}

/// Boots over HTTP: the machine fetches these files alone, its console says why, and the diagnosis gives this hint.
fn is_refused(
    lab: &Lab,
    machine: &LabMachine,
    files: &[&str],
    hint: &str,
    console: &str,
) -> Result<()> {
    lab.boot_by(machine, "http")?;
    lab.begin_to_clean(machine)?;
    lab.wait_for_diagnosis(machine, "was fetched")?;
    let trace = lab.trace(&machine.name)?;
    assert_eq!(trace.fetched(), files);
    let said = trace.diagnosis.and_then(|diagnosis| diagnosis.hint).unwrap_or_default();
    ensure!(said.contains(hint), "{said}");
    let shown = lab.console(machine)?;
    ensure!(shown.contains(console), "the console does not say {console:?}");
    Ok(())
}

/// A firmware whose SBAT level revokes what is below this generation of a component.
fn with_sbat_level(firmware: FirmwareConfig, revoked: &str) -> FirmwareConfig {
    // shim replaces a level that is older than its own.
    let level = format!("sbat,1,2099010100\n{revoked}\n");
    let name = format!("sbat-{revoked}");
    with_variables(firmware, &name, |store| set_of_shim(store, "SbatLevel", level.as_bytes()))
}

/// Microsoft's CA of 2023, from the variables of a firmware that has it.
fn new_authority() -> Result<EfiSignature> {
    authority_in(&OvmfBuild::V2026_08.with_microsoft_keys(&checkout()).variables, NEW_CA)
}

/// Microsoft's CA of 2011, in PEM.
fn old_authority() -> Result<String> {
    let EfiSignatureData::X509(der) = authority_in(&with_microsoft_keys().variables, OLD_CA)?.data
    else {
        bail!("it is no certificate")
    };
    Ok(String::from_utf8(X509::from_der(&der)?.to_pem()?)?)
}

fn authority_in(variables: &Path, name: &[u8]) -> Result<EfiSignature> {
    let store = VariableStore::parse(fs::read(variables).context("run `scripts/firmware`")?)?;
    let db = store.secure_boot_database(SecureBootDatabase::Allowed)?;
    let found = db.into_iter().find(|signature| is_of(signature, name));
    found.with_context(|| format!("{} does not have it", variables.display()))
}

/// Whether a certificate has this name in it, as subject or issuer.
fn is_of(signature: &EfiSignature, name: &[u8]) -> bool {
    let EfiSignatureData::X509(der) = &signature.data else { return false };
    der.windows(name.len()).any(|window| window == name)
}
