//! A machine's UEFI variables, which make its firmware boot from a URL.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use efi::variables::{DevicePath, DevicePathNode, SetVariableError, VariableStore};
use redfish::emulator::NextBoot;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::config::{Ip, MachineConfig};
use crate::private;
use crate::setup::{MachineSetup, nic_device};

/// Writes the next boot and the authorities (PEM), unless they are `None`, into the machine's variables, and returns their path.
///
/// The machine must be off: QEMU keeps the file open and reads it at its start.
pub(crate) fn prepare(
    setup: &MachineSetup,
    next: &NextBoot,
    authorities: Option<&[String]>,
) -> Result<PathBuf> {
    let der = |pem: &String| {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes());
        Ok(certificate.context("a certificate of Boot/Certificates")?.to_vec())
    };
    let authorities =
        authorities.map(|all| all.iter().map(der).collect::<Result<Vec<_>>>()).transpose()?;
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

fn edit(
    path: &Path,
    change: impl FnOnce(&mut VariableStore) -> Result<(), SetVariableError>,
) -> Result<()> {
    let context = || format!("the UEFI variables {}", path.display());
    let mut store =
        VariableStore::parse(fs::read(path).with_context(context)?).with_context(context)?;
    change(&mut store).with_context(context)?;
    // The new file replaces the old by a rename, so that a crash leaves one or the other.
    let new = path.with_extension("new");
    private::write(&new, store.as_bytes()).with_context(context)?;
    fs::rename(&new, path).with_context(context)
}
