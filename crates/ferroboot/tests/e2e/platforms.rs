//! A clean on each platform that the emulated BMC has: in the vendor's own way, with real firmware.

use anyhow::Result;
use ferroboot::lab::Lab;
use ferroboot::lab::machine::LabMachine;
use hardware::BootWayKind;
use provision::BootEventKind;

use crate::story::{Fetched as _, Verbs as _, in_a_lab, with};

fn machine(platform: &'static str) -> LabMachine {
    LabMachine::new(1).on_platform(platform)
}

/// Cleans the only machine by `interface`, in the way that is expected, and checks that the BMC boots nothing of ours
/// afterwards.
fn is_cleaned(lab: &mut Lab, interface: &str, expected: BootWayKind) -> Result<()> {
    let machine = lab.machines()[0].clone();
    lab.enroll(&machine)?;
    lab.manage(&machine)?;
    lab.boot_by(&machine, interface)?;

    lab.clean(&machine)?;

    assert_eq!(lab.state(&machine)?, "manageable");
    let trace = lab.trace(&machine.name)?;
    assert!(trace.fetched_by_firmware().is_some(), "the firmware fetched its image");
    assert_eq!(trace.diagnosis, None);
    let ways = trace.events.iter().filter_map(|event| {
        let BootEventKind::BootWay { way, .. } = &event.what else { return None };
        Some(*way)
    });
    assert_eq!(ways.collect::<Vec<_>>(), [expected]);
    Ok(())
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn dell_idrac9_boots_by_redfish_https() {
    in_a_lab(with([machine("dell-idrac9")]), |lab| {
        is_cleaned(lab, "redfish-https", BootWayKind::DellHttpDevice)
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn dell_idrac10_boots_by_redfish_https() {
    in_a_lab(with([machine("dell-idrac10")]), |lab| {
        is_cleaned(lab, "redfish-https", BootWayKind::DellHttpDevice)
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn hpe_ilo5_boots_by_redfish_https() {
    in_a_lab(with([machine("hpe-ilo5")]), |lab| {
        is_cleaned(lab, "redfish-https", BootWayKind::HpeUrlBootFile)
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn hpe_ilo6_boots_by_redfish_https() {
    in_a_lab(with([machine("hpe-ilo6")]), |lab| {
        is_cleaned(lab, "redfish-https", BootWayKind::HpeUrlBootFile)
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn hpe_ilo6_boots_by_http() {
    in_a_lab(with([machine("hpe-ilo6")]), |lab| is_cleaned(lab, "http", BootWayKind::BootOption));
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn ami_boots_by_redfish_https() {
    in_a_lab(with([machine("ami")]), |lab| {
        is_cleaned(lab, "redfish-https", BootWayKind::HttpBootUri)
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn nvidia_bluefield_boots_by_redfish_https() {
    in_a_lab(with([machine("nvidia-bluefield")]), |lab| {
        is_cleaned(lab, "redfish-https", BootWayKind::HttpBootUri)
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn openbmc_boots_by_http() {
    in_a_lab(with([machine("openbmc")]), |lab| is_cleaned(lab, "http", BootWayKind::BootOrder));
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn hpe_ilo5_boots_by_http() {
    in_a_lab(with([machine("hpe-ilo5")]), |lab| is_cleaned(lab, "http", BootWayKind::UefiHttp));
}
