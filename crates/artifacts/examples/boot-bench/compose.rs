//! The time to prepare the images of nodes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use artifacts::{ArtifactSettings, Artifacts, SignKey, UkiSigner, shim_authorities};
use hardware::CpuArch;
use nodes::{NodeIndex, Recorder};
use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::x509::{X509, X509NameBuilder};
use provision::BootInterface;
use provision::artifact::HttpLoader;
use serde_json::{Value, json};

use crate::serve::{booting, settings};

/// Length of the key that signs, in bits.
const KEY_BITS: u32 = 3072;

pub(crate) async fn compose(boot_set: &Path, rounds: usize) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let signer = signer(folder.path())?;
    let mut times = json!({});
    let mut images = vec![
        ("uki", BootInterface::Http, HttpLoader::Uki),
        ("iso", BootInterface::RedfishHttps, HttpLoader::Uki),
    ];
    if shim_authorities(boot_set, CpuArch::X64).is_ok() {
        images.push(("iso with shim and GRUB", BootInterface::RedfishHttps, HttpLoader::ShimGrub));
    }
    for (name, interface, http_loader) in images {
        for (how, signer) in [("unsigned", None), ("signed", Some(signer.clone()))] {
            let settings = settings(boot_set, folder.path());
            let settings = ArtifactSettings { http_loader, uki_signer: signer, ..settings };
            let artifacts = Artifacts::open(settings, NodeIndex::default(), Recorder::new().0)?;
            let mut all = Vec::new();
            // The first one reads and hashes the files.
            for round in 0..=rounds {
                let node = booting(&format!("ticket-{round}"), interface);
                let begun = Instant::now();
                artifacts.prepare(&node).await?;
                all.push(begun.elapsed().as_secs_f64() * 1_000.0);
            }
            let first = all.remove(0);
            all.sort_unstable_by(f64::total_cmp);
            let of = |part: usize| all[all.len() * part / 100];
            times[format!("{name}, {how}")] =
                json!({ "first": first, "p50": of(50), "p99": of(99) });
        }
    }
    Ok(times)
}

/// A key and its certificate.
fn signer(folder: &Path) -> Result<UkiSigner> {
    let key = PKey::from_rsa(Rsa::generate(KEY_BITS)?)?;
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_text("CN", "a benchmark")?;
    let name = name.build();
    let mut certificate = X509::builder()?;
    certificate.set_subject_name(&name)?;
    certificate.set_issuer_name(&name)?;
    certificate.set_pubkey(&key)?;
    certificate.set_not_before(&*Asn1Time::days_from_now(0)?)?;
    certificate.set_not_after(&*Asn1Time::days_from_now(1)?)?;
    certificate.sign(&key, MessageDigest::sha256())?;
    let (key_path, path) = (folder.join("key.pem"), folder.join("certificate.pem"));
    fs::write(&key_path, key.private_key_to_pem_pkcs8()?)?;
    fs::set_permissions(&key_path, fs::Permissions::from_mode(0o600))?;
    fs::write(&path, certificate.build().to_pem()?)?;
    UkiSigner::open(&SignKey::File(key_path), &path)
}
