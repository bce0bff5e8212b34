//! Boots over HTTPS: each build of OVMF, with each boot interface, over IPv4 and IPv6. The service enrols its own CA.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use bmc::config::FirmwareConfig;
use bmc::config::Ip::{self, Ipv4, Ipv6};
use ferroboot::lab::firmware::OvmfBuild;
use ferroboot::lab::machine::LabMachine;
use ferroboot::lab::network::LabNetwork;
use ferroboot::lab::{Lab, Plan};
use hardware::{BmcObservation, EnrolmentOutcome};
use ironic::trace::BootTrace;
use provision::BootEventKind;

use self::KeyOfCertificate::{Both, Rsa};
use crate::site_certificate::SiteCertificate;
use crate::story::{Fetched as _, Verbs as _, checkout, in_a_lab, measured, with};

/// The boot listener and the agents' port have TLS alone.
pub(crate) const SETTINGS: &str =
    "[boot]\nlisten = \"https://[::]:8443\"\n[agent]\nlisten = \"https://[::]:6386\"\n";

/// A machine with this firmware, and a daemon with these settings.
pub(crate) fn https(firmware: FirmwareConfig, settings: &str) -> Plan {
    let machine = LabMachine::new(1).with_firmware(firmware);
    Plan { settings: settings.to_owned(), ..with([machine]) }
}

/// One test per row: a build of OVMF, a boot interface, a network, the keys of the listener's certificates, and what the
/// handshakes of the firmware agree on. Ignored rows belong to `make test-lab`.
macro_rules! matrix {
    ($($(#[$attribute:meta])* $name:ident: $build:ident, $boot_interface:literal, $network:ident, $key:ident => $agreed:expr;)*) => {$(
        #[test]
        $(#[$attribute])*
        fn $name() {
            let row = Row {
                build: OvmfBuild::$build,
                boot_interface: $boot_interface,
                network: LabNetwork::$network,
                key: $key,
            };
            in_a_lab(row.plan(stringify!($name)), |lab| row.hold(lab, $agreed));
        }
    )*};
}

#[derive(Clone, Copy, Debug)]
struct Row {
    build: OvmfBuild,
    boot_interface: &'static str,
    network: LabNetwork,
    key: KeyOfCertificate,
}

/// The keys of the listener's certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyOfCertificate {
    /// RSA with 3072 bits, and ECDSA: those of the service's CA.
    Both,
    /// RSA with 3072 bits alone: an operator's.
    Rsa,
}

/// No build offers TLS 1.3 (EDK2's `TlsConfigureSession` asks for 1.2).
const MODERN_ECDSA: &str = "TLSv1.2, ECDHE-ECDSA-AES256-GCM-SHA384, certificate with ECDSA";
const MODERN_RSA: &str = "TLSv1.2, ECDHE-RSA-AES256-GCM-SHA384, certificate with RSA";
const OLD: &str = "TLSv1.2, DHE-RSA-AES256-GCM-SHA384, certificate with RSA";

matrix! {
    firmware_of_2026_boots_over_https: V2026_08, "http", Ipv4, Both => MODERN_ECDSA;
    #[ignore = "one of the full matrix: make test-lab"]
    firmware_of_2026_boots_over_https_by_its_bmc: V2026_08, "redfish-https", Ipv4, Both => MODERN_ECDSA;
    #[ignore = "one of the full matrix: make test-lab"]
    firmware_of_2026_boots_over_https_and_ipv6: V2026_08, "http", Ipv6, Both => MODERN_ECDSA;
    #[ignore = "one of the full matrix: make test-lab"]
    firmware_of_2026_boots_over_https_and_ipv6_by_its_bmc: V2026_08, "redfish-https", Ipv6, Both => MODERN_ECDSA;
    #[ignore = "one of the full matrix: make test-lab"]
    firmware_of_2026_boots_over_https_with_an_rsa_certificate_of_the_operator: V2026_08, "http", Ipv4, Rsa => MODERN_RSA;

    #[ignore = "one of the full matrix: make test-lab"]
    firmware_of_2025_boots_over_https_if_old_firmware_is_permitted: V2025_02, "http", Ipv4, Both => OLD;
    #[ignore = "one of the full matrix: make test-lab"]
    firmware_of_2025_boots_over_https_by_its_bmc_if_old_firmware_is_permitted: V2025_02, "redfish-https", Ipv4, Both => OLD;
    #[ignore = "one of the full matrix: make test-lab"]
    firmware_of_2025_boots_over_https_and_ipv6_if_old_firmware_is_permitted: V2025_02, "http", Ipv6, Both => OLD;
    #[ignore = "one of the full matrix: make test-lab"]
    firmware_of_2025_boots_over_https_and_ipv6_by_its_bmc_if_old_firmware_is_permitted: V2025_02, "redfish-https", Ipv6, Both => OLD;

    #[ignore = "one of the full matrix: make test-lab"]
    firmware_of_2022_boots_over_https_if_old_firmware_is_permitted: Installed, "http", Ipv4, Both => OLD;
    #[ignore = "one of the full matrix: make test-lab"]
    firmware_of_2022_boots_over_https_by_its_bmc_if_old_firmware_is_permitted: Installed, "redfish-https", Ipv4, Both => OLD;
    #[ignore = "one of the full matrix: make test-lab"]
    firmware_of_2022_boots_over_https_and_ipv6_if_old_firmware_is_permitted: Installed, "http", Ipv6, Both => OLD;
    #[ignore = "one of the full matrix: make test-lab"]
    firmware_of_2022_boots_over_https_and_ipv6_by_its_bmc_if_old_firmware_is_permitted: Installed, "redfish-https", Ipv6, Both => OLD;
}

impl Row {
    fn ip(self) -> Ip {
        match self.network {
            LabNetwork::Ipv4 | LabNetwork::Dual => Ipv4,
            LabNetwork::Ipv6 => Ipv6,
        }
    }

    fn plan(self, name: &str) -> Plan {
        let is_old = self.build != OvmfBuild::V2026_08;
        // These ask over IPv6 before their link-local address is ready.
        let logo_secs = if is_old && self.network == LabNetwork::Ipv6 { 8 } else { 0 };
        let own = self.build.firmware(&checkout());
        let firmware = FirmwareConfig { ip: vec![self.ip()], logo_secs, ..own };
        let mut settings = SETTINGS.to_owned();
        let tls = SiteCertificate::for_lab().files(name).expect("certificates are made");
        match self.key {
            Both if is_old => settings += "[tls]\nold_firmware = true\n",
            Both => {}
            Rsa => settings += &tls,
        }
        Plan { network: self.network, ..https(firmware, &settings) }
    }

    fn hold(self, lab: &Lab, agreed: &str) -> Result<()> {
        let machine = &lab.machines()[0];
        let trace = cleaned(lab, machine, self.boot_interface)?;
        let by = trace.firmware_fetched_by().context("the firmware fetched nothing")?;
        ensure!(by == self.ip(), "the firmware fetched by {by}");
        eprintln!("measured: {}", measured(&trace));
        let of_firmware = handshakes(&trace);
        ensure!(!of_firmware.is_empty(), "no fetch over TLS");
        ensure!(of_firmware.iter().all(|one| one == agreed), "agreed on {of_firmware:?}");
        Ok(())
    }
}

/// Cleans a machine over HTTPS; returns the trace.
pub(crate) fn cleaned(lab: &Lab, machine: &LabMachine, interface: &str) -> Result<BootTrace> {
    lab.enroll(machine)?;
    lab.manage(machine)?;
    lab.boot_by(machine, interface)?;

    lab.clean(machine)?;

    let trace = lab.trace(&machine.name)?;
    let enrolled = BootEventKind::BmcShows {
        observation: BmcObservation::BootCertificate {
            outcome: EnrolmentOutcome::Enrolled,
            reason: None,
        },
    };
    ensure!(trace.events.iter().any(|event| event.what == enrolled), "the CA was not enrolled");
    ensure!(trace.fetched_by_firmware().is_some(), "the firmware fetched no image");
    ensure!(trace.diagnosis.is_none(), "{:?}", trace.diagnosis);
    let mut events = trace.events.iter().map(|event| &event.what);
    let failed = events.find(|what| matches!(what, BootEventKind::TlsHandshake { .. }));
    ensure!(failed.is_none(), "a handshake failed: {failed:?}");
    Ok(trace)
}

/// What the handshakes of the fetches agreed on.
pub(crate) fn handshakes(trace: &BootTrace) -> Vec<String> {
    let all = trace.events.iter().filter_map(|event| tls_of(&event.what).cloned());
    all.collect()
}

fn tls_of(what: &BootEventKind) -> Option<&String> {
    if let BootEventKind::Http { tls, .. } = what { tls.as_ref() } else { None }
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn firmware_whose_clock_is_at_2001_boots_over_https() {
    // It checks dates (EDK2 since 2025-07), and so does the agent.
    let own = OvmfBuild::V2026_08.firmware(&checkout());
    let firmware = FirmwareConfig { clock: Some("2001-01-01T00:00:00".to_owned()), ..own };
    in_a_lab(https(firmware, SETTINGS), |lab| cleaned(lab, &lab.machines()[0], "http").map(drop));
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn ipxe_with_tls_trusts_the_ca_in_the_firmware_and_fetches_all_over_https() {
    let mut plan = https(OvmfBuild::V2026_08.firmware(&checkout()), SETTINGS);
    let newer = checkout().join("target/firmware/ipxe-2025.05/usr/lib/ipxe/snponly.efi");
    plan.ramdisk = boot_set_with_ipxe(&plan.ramdisk, &newer).expect("a boot set is made");
    in_a_lab(plan, |lab| {
        let trace = cleaned(lab, &lab.machines()[0], "http-ipxe")?;
        let files = trace.fetched();
        assert_eq!(files, ["snponly.efi", "boot.ipxe", "kernel", "initramfs"]);
        let fetches = trace.events.iter();
        let fetches = fetches.filter(|event| matches!(event.what, BootEventKind::Http { .. }));
        assert_eq!(handshakes(&trace).len(), fetches.count(), "all over TLS");
        eprintln!("measured: {:?}", handshakes(&trace));
        Ok(())
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn loaders_without_tls_fetch_in_clear_where_firmware_fetches_over_https() {
    let settings = "[boot]\nlisten = [\"[::]:8080\", \"https://[::]:8443\"]\n";
    in_a_lab(https(OvmfBuild::V2026_08.firmware(&checkout()), settings), |lab| {
        let trace = cleaned(lab, &lab.machines()[0], "http-ipxe")?;
        let over_tls = |file: &str| {
            trace.events.iter().any(|event| {
                matches!(&event.what, BootEventKind::Http { path, tls: Some(_), .. } if path == file)
            })
        };
        assert_eq!(trace.fetched(), ["snponly.efi", "boot.ipxe", "kernel", "initramfs"]);
        assert!(over_tls("snponly.efi") && !over_tls("boot.ipxe") && !over_tls("kernel"));
        Ok(())
    });
}

/// A copy of a boot set with another iPXE: links, and a manifest of its own.
fn boot_set_with_ipxe(boot_set: &Path, ipxe: &Path) -> Result<std::path::PathBuf> {
    use std::fs;

    use netboot::boot_set::{BootSetManifest, ManifestFile};
    use sha2::{Digest as _, Sha256};

    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boot-set-with-ipxe-of-2025");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let program =
        fs::read(ipxe).with_context(|| format!("{}: scripts/firmware", ipxe.display()))?;
    let mut manifest = BootSetManifest::parse(&fs::read(boot_set.join("manifest.json"))?)?;
    for name in manifest.names() {
        std::os::unix::fs::symlink(fs::canonicalize(boot_set.join(name))?, folder.join(name))?;
    }
    fs::remove_file(folder.join("snponly.efi"))?;
    fs::write(folder.join("snponly.efi"), &program)?;
    let sha256 = Sha256::digest(&program).into();
    manifest.insert("snponly.efi", ManifestFile { len: program.len() as u64, sha256 });
    fs::write(folder.join("manifest.json"), serde_json::to_vec(&manifest)?)?;
    Ok(folder)
}
