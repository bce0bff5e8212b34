//! A clean on each platform that the emulated BMC has: in the vendor's own way, with real firmware.

use anyhow::Result;
use ferroboot::lab::Lab;
use ferroboot::lab::machine::LabMachine;
use hardware::{BmcObservation, BootWayKind};
use provision::BootEventKind;

use self::Before::{EnableHttpBoot, Nothing};
use crate::story::{ERASE_METADATA, Fetched as _, Verbs as _, in_a_lab, with};

/// One test per row: a platform, what is done at its BMC before the boot, a boot interface, and the way of the boot.
macro_rules! platforms {
    ($($name:ident: $platform:literal, $before:ident, $boot_interface:literal => $way:ident;)*) => {$(
        #[test]
        #[ignore = "one of the full matrix: make test-lab"]
        fn $name() {
            let machine = LabMachine::new(1).on_platform($platform);
            in_a_lab(with([machine]), |lab| {
                is_cleaned(lab, $before, $boot_interface, BootWayKind::$way)
            });
        }
    )*};
}

platforms! {
    dell_idrac9_boots_by_redfish_https: "dell-idrac9", Nothing, "redfish-https" => DellHttpDevice;
    dell_idrac9_boots_by_http_once_its_bios_is_set: "dell-idrac9", EnableHttpBoot, "http" => UefiHttp;
    dell_idrac10_boots_by_redfish_https: "dell-idrac10", Nothing, "redfish-https" => DellHttpDevice;
    hpe_ilo5_boots_by_redfish_https: "hpe-ilo5", Nothing, "redfish-https" => HpeUrlBootFile;
    hpe_ilo5_boots_by_http: "hpe-ilo5", Nothing, "http" => UefiHttp;
    hpe_ilo6_boots_by_redfish_https: "hpe-ilo6", Nothing, "redfish-https" => HpeUrlBootFile;
    hpe_ilo6_boots_by_http: "hpe-ilo6", Nothing, "http" => BootOption;
    lenovo_xcc_boots_by_http_once_its_bios_is_set: "lenovo-xcc", EnableHttpBoot, "http" => Pxe;
    lenovo_xcc_boots_from_its_virtual_cd: "lenovo-xcc", Nothing, "redfish-virtual-media" => VirtualMedia;
    supermicro_boots_by_http_once_its_bios_is_set: "supermicro", EnableHttpBoot, "http" => UefiHttp;
    supermicro_boots_from_its_virtual_cd: "supermicro", Nothing, "redfish-virtual-media" => VirtualMedia;
    supermicro_a21ge_boots_by_http_once_its_bios_is_set: "supermicro-a21ge", EnableHttpBoot, "http" => UefiHttp;
    ami_boots_by_redfish_https: "ami", Nothing, "redfish-https" => HttpBootUri;
    openbmc_boots_by_http: "openbmc", Nothing, "http" => BootOrder;
    openbmc_boots_from_its_virtual_cd: "openbmc", Nothing, "redfish-virtual-media" => VirtualMedia;
    nvidia_bluefield_boots_by_redfish_https: "nvidia-bluefield", Nothing, "redfish-https" => HttpBootUri;
    nvidia_bluefield_boots_by_http: "nvidia-bluefield", Nothing, "http" => UefiHttp;
}

/// What is done at the BMC in the same clean, before the ramdisk boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    /// The step `bios.enable_http_boot`.
    EnableHttpBoot,
}

impl Before {
    fn steps(self) -> Vec<&'static str> {
        match self {
            Nothing => vec![ERASE_METADATA],
            EnableHttpBoot => {
                vec![r#"{"interface": "bios", "step": "enable_http_boot"}"#, ERASE_METADATA]
            }
        }
    }
}

/// Cleans the only machine by `boot_interface`, and checks that the boot took the expected way, alone.
fn is_cleaned(
    lab: &mut Lab,
    before: Before,
    boot_interface: &str,
    expected: BootWayKind,
) -> Result<()> {
    let machine = lab.machines()[0].clone();
    lab.enroll(&machine)?;
    lab.manage(&machine)?;
    lab.boot_by(&machine, boot_interface)?;

    lab.clean_by(&machine, &before.steps())?;

    assert_eq!(lab.state(&machine)?, "manageable");
    let trace = lab.trace(&machine.name)?;
    let by_firmware = trace.fetched_by_firmware();
    if expected == BootWayKind::VirtualMedia {
        assert_eq!((trace.fetched(), by_firmware), (vec!["boot.iso".to_owned()], None));
    } else {
        assert!(by_firmware.is_some(), "the firmware fetched its image");
    }
    assert_eq!(trace.diagnosis, None);
    let (mut ways, mut staged, mut otherwise) = (Vec::new(), false, Vec::new());
    for event in &trace.events {
        match &event.what {
            BootEventKind::BootWay { way, .. } => ways.push(*way),
            BootEventKind::BmcShows { observation } => match observation {
                BmcObservation::BiosStaged { .. } => staged = true,
                BmcObservation::ReadBack { warning } => otherwise.push(warning.clone()),
                BmcObservation::BiosAsWanted
                | BmcObservation::BootProgress { .. }
                | BmcObservation::PostState { .. }
                | BmcObservation::LogEntry { .. }
                | BmcObservation::Job { .. }
                | BmcObservation::BootCertificate { .. }
                | BmcObservation::SecureBootCertificate { .. }
                | BmcObservation::SecureBootOn { .. } => {}
            },
            BootEventKind::State { .. }
            | BootEventKind::Redfish { .. }
            | BootEventKind::Provider { .. }
            | BootEventKind::Dhcp { .. }
            | BootEventKind::Http { .. }
            | BootEventKind::LastByte { .. }
            | BootEventKind::TlsHandshake { .. }
            | BootEventKind::Agent { .. }
            | BootEventKind::LeftOut { .. } => {}
        }
    }
    assert_eq!(ways, [expected]);
    assert_eq!(staged, before == EnableHttpBoot, "BIOS attributes were changed");
    let still_shown: Vec<_> = otherwise.iter().filter(|it| it.contains("still shows")).collect();
    assert_eq!(still_shown, [""; 0], "what the boot set is undone");
    Ok(())
}
