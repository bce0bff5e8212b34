//! Boot chains that begin with shim, on firmware with Secure Boot and Microsoft's keys.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use bmc::config::FirmwareConfig;
use efi::variables::VariableStore;
use ferroboot::lab::firmware::with_microsoft_keys;
use ferroboot::lab::machine::LabMachine;
use ferroboot::lab::{Lab, Plan};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tempfile::NamedTempFile;
use uuid::{Uuid, uuid};

use crate::secure_boot::{keys, manageable, sign_with};
use crate::story::{Fetched as _, Verbs as _, checkout, in_a_lab, made_once, measured, with};

/// `SHIM_LOCK_GUID`, the vendor of shim's variables.
const SHIM_LOCK: Uuid = uuid!("605dab50-e046-4300-abb6-3dd810dd8b23");
/// The boot listener with TLS alone, for the installed firmware.
const HTTPS: &str = "listen = \"https://[::]:8443\"\n[tls]\nold_firmware = true\n";

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn debians_shim_and_grub_2_12_boot_over_http_with_secure_boot() {
    let plan = plan("grub-2.12", "http_loader = \"shim-grub\"\n");
    in_a_lab(plan, |lab| is_cleaned_by(lab, "http", &BY_GRUB));
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn debians_shim_and_grub_2_12_boot_over_https_with_secure_boot() {
    let plan = plan("grub-2.12", &format!("http_loader = \"shim-grub\"\n{HTTPS}"));
    in_a_lab(plan, |lab| is_cleaned_by(lab, "http", &BY_GRUB));
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn debians_shim_and_grub_2_14_boot_over_http_with_secure_boot() {
    let plan = plan("grub-2.14", "http_loader = \"shim-grub\"\n");
    in_a_lab(plan, |lab| is_cleaned_by(lab, "http", &BY_GRUB));
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn debians_shim_and_grub_2_14_boot_over_https_with_secure_boot() {
    let plan = plan("grub-2.14", &format!("http_loader = \"shim-grub\"\n{HTTPS}"));
    in_a_lab(plan, |lab| is_cleaned_by(lab, "http", &BY_GRUB));
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn debians_shim_and_grub_2_12_boot_from_an_iso_with_secure_boot() {
    let plan = plan("grub-2.12", "http_loader = \"shim-grub\"\n");
    in_a_lab(plan, |lab| is_cleaned_by(lab, "redfish-https", &["boot.iso"]));
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn debians_shim_and_grub_2_14_boot_from_an_iso_with_secure_boot() {
    let plan = plan("grub-2.14", "http_loader = \"shim-grub\"\n");
    in_a_lab(plan, |lab| is_cleaned_by(lab, "redfish-https", &["boot.iso"]));
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn debians_shim_and_grub_2_12_boot_from_a_virtual_cd_with_secure_boot() {
    let plan = plan("grub-2.12", "http_loader = \"shim-grub\"\n");
    in_a_lab(plan, |lab| is_cleaned_by(lab, "redfish-virtual-media", &["boot.iso"]));
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn shim_starts_a_uki_signed_with_a_machine_owner_key_over_http() {
    let keys = keys("mok").expect("openssl makes a key");
    in_a_lab(plan_with_uki(&keys, "", Some(&keys)), |lab| {
        is_cleaned_by(lab, "http", &["bootx64.efi", "grubx64.efi"])
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn shim_starts_a_uki_signed_with_a_machine_owner_key_in_an_iso() {
    let keys = keys("mok").expect("openssl makes a key");
    in_a_lab(plan_with_uki(&keys, "", Some(&keys)), |lab| {
        is_cleaned_by(lab, "redfish-https", &["boot.iso"])
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn shim_starts_a_uki_signed_with_a_machine_owner_key_over_https() {
    let keys = keys("mok").expect("openssl makes a key");
    in_a_lab(plan_with_uki(&keys, HTTPS, Some(&keys)), |lab| {
        is_cleaned_by(lab, "http", &["bootx64.efi", "grubx64.efi"])
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn shim_refuses_a_uki_of_a_key_that_the_machine_does_not_have_and_the_diagnosis_names_it() {
    let keys = keys("mok").expect("openssl makes a key");
    in_a_lab(plan_with_uki(&keys, "", None), |lab| {
        let machine = manageable(lab)?;
        lab.boot_by(&machine, "http")?;
        lab.begin_to_clean(&machine)?;
        lab.wait_for_diagnosis(&machine, "the ramdisk was fetched but the agent never called")?;
        let trace = lab.trace(&machine.name)?;
        assert_eq!(trace.fetched(), ["bootx64.efi", "grubx64.efi"]);
        let hint = trace.diagnosis.and_then(|diagnosis| diagnosis.hint);
        ensure!(
            hint.as_ref().is_some_and(|hint| hint.contains("unless MokList or db has")),
            "{hint:?}"
        );
        ensure!(lab.console(&machine)?.contains("Security Violation"), "shim did not refuse it");
        Ok(())
    });
}

/// The files that shim and GRUB fetch.
pub(crate) const BY_GRUB: [&str; 5] =
    ["bootx64.efi", "grubx64.efi", "grub.cfg", "kernel", "initramfs"];

pub(crate) fn is_cleaned_by(lab: &Lab, boot_interface: &str, files: &[&str]) -> Result<()> {
    let machine = cleaned(lab, boot_interface)?;
    let trace = lab.trace(&machine.name)?;
    assert_eq!(trace.fetched(), files);
    eprintln!("measured: {}", measured(&trace));
    Ok(())
}

/// Cleans the machine, with Secure Boot on.
fn cleaned(lab: &Lab, boot_interface: &str) -> Result<LabMachine> {
    let machine = manageable(lab)?;
    lab.boot_by(&machine, boot_interface)?;
    lab.clean(&machine)?;
    assert_eq!(lab.trace(&machine.name)?.diagnosis, None);
    let console = lab.console(&machine)?;
    for words in ["Secure boot enabled", "Kernel is locked down from EFI Secure Boot"] {
        ensure!(console.contains(words), "the console does not say {words:?}");
    }
    Ok(machine)
}

/// A machine with Microsoft's keys, and a boot set with Debian's shim and this GRUB.
fn plan(grub: &str, boot_settings: &str) -> Plan {
    plan_on(with_microsoft_keys(), grub, boot_settings)
}

/// The same on another firmware.
pub(crate) fn plan_on(firmware: FirmwareConfig, grub: &str, boot_settings: &str) -> Plan {
    let plan = with([LabMachine::new(1).with_firmware(firmware)]);
    Plan {
        ramdisk: boot_set(&plan, grub).expect("a boot set with signed loaders"),
        settings: format!("[boot]\n{boot_settings}"),
        ..plan
    }
}

/// A machine with Microsoft's keys, perhaps with an owner's, and a boot set with shim for a signed UKI.
fn plan_with_uki(keys: &Path, boot_settings: &str, owner: Option<&Path>) -> Plan {
    let firmware = match owner {
        Some(owner) => with_owner_key(with_microsoft_keys(), "mok", owner),
        None => with_microsoft_keys(),
    };
    plan_on(firmware, "grub-2.12", &format!("{}{boot_settings}", shim_and_uki(keys)))
}

/// The settings for shim and UKIs signed with a key.
pub(crate) fn shim_and_uki(keys: &Path) -> String {
    format!("http_loader = \"shim-uki\"\n{}", sign_with(keys))
}

/// A firmware with its variables after a change.
pub(crate) fn with_variables(
    firmware: FirmwareConfig,
    name: &str,
    change: impl FnOnce(&mut VariableStore) -> Result<()>,
) -> FirmwareConfig {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let variables = folder.join(format!("variables-{name}.fd"));
    let make = || {
        let mut store = VariableStore::parse(fs::read(&firmware.variables)?)?;
        change(&mut store)?;
        // Another test may read the file at this moment.
        let mut file = NamedTempFile::new_in(folder)?;
        file.write_all(store.as_bytes())?;
        file.persist(&variables).context("the changed variables")
    };
    make().expect("a firmware's variables can be changed");
    FirmwareConfig { variables, ..firmware }
}

/// Sets one of shim's variables.
pub(crate) fn set_of_shim(store: &mut VariableStore, name: &str, data: &[u8]) -> Result<()> {
    /// Non-volatile, with boot-time access alone: shim deletes a variable that the system may write.
    const ATTRIBUTES: u32 = 0x3;
    Ok(store.set(name, SHIM_LOCK, ATTRIBUTES, data)?)
}

/// A firmware whose shim trusts an owner's certificate.
pub(crate) fn with_owner_key(firmware: FirmwareConfig, name: &str, owner: &Path) -> FirmwareConfig {
    with_variables(firmware, name, |store| enrol_owner_key(store, owner))
}

/// Adds an owner's certificate, as `mokutil --import` and a confirmation at the console leave it.
fn enrol_owner_key(store: &mut VariableStore, owner: &Path) -> Result<()> {
    /// `EFI_CERT_X509_GUID` (UEFI §32.4.1).
    const CERT_X509: Uuid = uuid!("a5c059a1-94e4-4aa7-87b5-ab155c2bf072");
    let certificate = CertificateDer::from_pem_file(owner.join("uki.pem"))?;
    let signature_len = u32::try_from(16 + certificate.len())?;
    let mut list = CERT_X509.to_bytes_le().to_vec();
    for len in [28 + signature_len, 0, signature_len] {
        list.extend(len.to_le_bytes());
    }
    list.extend(SHIM_LOCK.to_bytes_le());
    list.extend(certificate.iter());
    set_of_shim(store, "MokList", &list)
}

/// The boot set of the plan with signed loaders.
fn boot_set(plan: &Plan, grub: &str) -> Result<PathBuf> {
    let manifest = fs::read(plan.ramdisk.join("manifest.json")).context("run `make ramdisk`")?;
    let digest = openssl::sha::sha256(&manifest);
    let name = format!(
        "boot-set-{grub}-{}",
        u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
    );
    made_once(&name, |folder| {
        fs::write(folder.join("manifest.json"), manifest)?;
        for file in ["kernel", "initramfs", "stub.efi", "snponly.efi", "grubx64.efi"] {
            let (from, to) = (plan.ramdisk.join(file).canonicalize()?, folder.join(file));
            symlink(&from, &to).with_context(|| format!("cannot link {}", to.display()))?;
        }
        let firmware = checkout().join("target/firmware");
        let shim = firmware.join("shim-16.1/usr/lib/shim/shimx64.efi.signed");
        let grub = firmware.join(grub).join("usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed");
        let mut add = Command::new(&plan.ferroboot);
        add.args(["image", "loaders", "--boot-set"]).arg(folder);
        add.arg("--shim").arg(shim).arg("--grub").arg(grub);
        let added = add.output().context("ferroboot image loaders")?;
        ensure!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
        Ok(())
    })
}
