//! A machine's UEFI variables, which make its firmware boot from a URL, and trust what clients of its BMC want.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use efi::variables::{
    DevicePath, DevicePathNode, EfiSignature, EfiSignatureData, SetVariableError, VariableStore,
};
use hardware::SecureBootDatabase;
use redfish::emulator::{EmulatedSecureBoot, EmulatedSignature, EmulatedSignatureData, NextBoot};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::config::{Ip, MachineConfig};
use crate::private;
use crate::setup::{MachineSetup, nic_device};

/// What clients of the BMC have changed of the firmware since its last start.
#[derive(Debug, Default)]
pub(crate) struct FirmwareChanges {
    /// The authorities (PEM) for HTTPS boot.
    pub(crate) authorities: Option<Vec<String>>,
    pub(crate) secure_boot: Option<EmulatedSecureBoot>,
}

/// Writes the next boot and the changes into the machine's variables, and returns their path.
///
/// The machine must be off: QEMU keeps the file open and reads it at its start.
pub(crate) fn prepare(
    setup: &MachineSetup,
    next: &NextBoot,
    changes: &FirmwareChanges,
) -> Result<PathBuf> {
    let authorities = changes.authorities.as_ref().map(|all| all.iter().map(der).collect());
    let authorities: Option<Vec<_>> = authorities.transpose()?;
    let path = variables(setup)?;
    let secure_boot =
        changes.secure_boot.as_ref().filter(|_| setup.machine.firmware.has_secure_boot());
    if let Some(wanted) = secure_boot {
        change_secure_boot(&path, wanted)?;
    }
    edit(&path, |store| {
        store.forget_boot_once();
        if let Some(authorities) = &authorities {
            store.set_tls_authorities(authorities)?;
        }
        match next {
            NextBoot::Url(url) => store.boot_once_from(url),
            NextBoot::Http { nic } => store.boot_once_along(http_boots(&setup.machine, *nic)),
            NextBoot::Pxe { nic } => store.boot_once_along(pxe_boots(&setup.machine, *nic)),
            NextBoot::Usual | NextBoot::Cd(_) => Ok(()),
        }
    })?;
    Ok(path)
}

/// What the firmware has of Secure Boot; `None` if it has no Secure Boot.
pub(crate) fn secure_boot(setup: &MachineSetup) -> Result<Option<EmulatedSecureBoot>> {
    if !setup.machine.firmware.has_secure_boot() {
        return Ok(None);
    }
    let store = read(&variables(setup)?)?;
    let mut databases = BTreeMap::new();
    for database in SecureBootDatabase::ALL {
        let signatures = store.secure_boot_database(database).context(database.name())?;
        databases.insert(database, signatures.iter().filter_map(shown).collect());
    }
    Ok(Some(EmulatedSecureBoot { is_enabled: store.is_secure_boot_enabled(), databases }))
}

/// The machine's variables, made at its first start.
fn variables(setup: &MachineSetup) -> Result<PathBuf> {
    let path = setup.dir.join("variables.fd");
    if !path.exists() {
        let template = &setup.machine.firmware.variables;
        make(template, &path)
            .with_context(|| format!("copying {} to {}", template.display(), path.display()))?;
        if let Some(certificate) = &setup.machine.firmware.secure_boot_certificate {
            let der = CertificateDer::from_pem_file(certificate);
            let der = der.with_context(|| format!("the certificate {}", certificate.display()))?;
            edit(&path, |store| store.enroll_secure_boot(&der))?;
        }
    }
    Ok(path)
}

fn change_secure_boot(path: &Path, wanted: &EmulatedSecureBoot) -> Result<()> {
    let store = read(path)?;
    let mut changed = Vec::new();
    for (database, wanted) in &wanted.databases {
        let now = store.secure_boot_database(*database).context(database.name())?;
        // Entries that the BMC cannot show stay.
        let hidden = now.iter().filter(|signature| shown(signature).is_none()).cloned();
        let signatures = wanted.iter().map(written).collect::<Result<Vec<_>>>()?;
        let signatures: Vec<_> = signatures.into_iter().chain(hidden).collect();
        if signatures != now {
            changed.push((*database, signatures));
        }
    }
    edit(path, |store| {
        for (database, signatures) in &changed {
            store.set_secure_boot_database(*database, signatures)?;
        }
        store.enable_secure_boot(wanted.is_enabled)
    })
}

fn shown(signature: &EfiSignature) -> Option<EmulatedSignature> {
    let data = match &signature.data {
        EfiSignatureData::X509(der) => EmulatedSignatureData::Certificate(pem(der)),
        EfiSignatureData::Sha256(digest) => {
            let digits = digest.iter().map(|byte| format!("{byte:02x}"));
            EmulatedSignatureData::Sha256(digits.collect())
        }
        EfiSignatureData::Other { .. } => return None,
    };
    Some(EmulatedSignature { owner: signature.owner.to_string(), data })
}

fn written(signature: &EmulatedSignature) -> Result<EfiSignature> {
    let data = match &signature.data {
        EmulatedSignatureData::Certificate(pem) => EfiSignatureData::X509(der(pem)?),
        EmulatedSignatureData::Sha256(digits) => {
            let digest = u256(digits).context("the digest of a program")?;
            EfiSignatureData::Sha256(digest)
        }
    };
    Ok(EfiSignature { owner: signature.owner.parse().context("the owner of a signature")?, data })
}

/// 64 hexadecimal digits.
fn u256(digits: &str) -> Option<[u8; 32]> {
    let half = |range| u128::from_str_radix(digits.get(range)?, 16).ok().map(u128::to_be_bytes);
    let (high, low) = (half(0..32)?, half(32..64)?);
    [high, low].concat().try_into().ok()
}

fn der(pem: &String) -> Result<Vec<u8>> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes());
    Ok(certificate.context("a certificate for the firmware")?.to_vec())
}

fn pem(der: &[u8]) -> String {
    const LINE: usize = 64;
    let text = BASE64.encode(der);
    let lines: Vec<_> =
        (0..text.len()).step_by(LINE).map(|at| &text[at..text.len().min(at + LINE)]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Copies a variable store; creates an empty one if the template is blank flash.
fn make(template: &Path, path: &Path) -> Result<()> {
    let flash = fs::read(template)?;
    if flash.iter().any(|byte| *byte != 0) {
        return Ok(private::write(path, &flash)?);
    }
    Ok(private::write(path, VariableStore::empty_for_virt(flash.len())?.as_bytes())?)
}

/// The boot entries of a network card for HTTP.
fn http_boots(machine: &MachineConfig, nic: usize) -> Vec<DevicePath> {
    let Some(card) = machine.nics.get(nic) else {
        return Vec::new();
    };
    let path = |ip: &Ip| DevicePath::http_boot(nic_device(nic), card.mac, ip.version());
    machine.firmware.ip.iter().map(path).collect()
}

/// The boot entries of a network card for PXE: those for HTTP without the URI at their end.
fn pxe_boots(machine: &MachineConfig, nic: usize) -> Vec<DevicePath> {
    let mut paths = http_boots(machine, nic);
    for path in &mut paths {
        path.0.retain(|node| !matches!(node, DevicePathNode::Uri(_)));
    }
    paths
}

fn read(path: &Path) -> Result<VariableStore> {
    let context = || format!("the UEFI variables {}", path.display());
    VariableStore::parse(fs::read(path).with_context(context)?).with_context(context)
}

fn edit(
    path: &Path,
    change: impl FnOnce(&mut VariableStore) -> Result<(), SetVariableError>,
) -> Result<()> {
    let context = || format!("the UEFI variables {}", path.display());
    let mut store = read(path)?;
    change(&mut store).with_context(context)?;
    // The new file replaces the old by a rename, so that a crash leaves one or the other.
    let new = path.with_extension("new");
    private::write(&new, store.as_bytes()).with_context(context)?;
    fs::rename(&new, path).with_context(context)
}
