//! Boot answers for firmware, and kernel command lines.

use std::fmt::Write;

use hardware::architecture::{
    ARM64_HTTP, ARM64_PXE, RISCV64_HTTP, RISCV64_PXE, X64_HTTP, X64_PXE, X86_BIOS,
};
use hardware::{ClientArchitecture, ClientKind, CpuArch, Mac};
use jiff::Timestamp;
use proptest::prelude::*;
use provision::artifact::{Artifact, HttpLoader};
use provision::boot::{
    BadArguments, DhcpBoot, Means, NoBoot, architecture_for, boot_for, boot_mac, bootable,
    kernel_command_line,
};
use provision::{BootInterface, Port, ProvisionState};
use serde_json::{Map, json};
use uuid::Uuid;

use crate::situations::{self, asking, waiting};

const CLIENTS: [ClientKind; 7] = [
    ClientKind::HttpClient,
    ClientKind::PxeClient,
    ClientKind::Ipxe,
    ClientKind::Grub,
    ClientKind::Agent,
    ClientKind::Firmware,
    ClientKind::System,
];

const NOTHING: Means<'_> = Means { boot_sets: &[], tftp: false };
const ALL: Means<'_> = Means { boot_sets: &CpuArch::ALL, tftp: true };

#[test]
fn every_client_is_told_what_is_on_this_page() {
    let mut page = String::new();
    let mut answers = |title: &str, node: &provision::Node, architecture| {
        writeln!(page, "{title}").unwrap();
        for client in CLIENTS {
            let answer = match boot_for(node, client, architecture, NOTHING) {
                Ok(DhcpBoot::Url(artifact)) => format!("the URL of {}", artifact.file_name()),
                Ok(DhcpBoot::Tftp(artifact)) => format!("{} over TFTP", artifact.file_name()),
                Ok(DhcpBoot::Address) => "an address".to_owned(),
                Err(because) => format!("nothing: {because}"),
            };
            writeln!(page, "    {client}: {answer}").unwrap();
        }
    };
    for boot_interface in BootInterface::ALL {
        let mut node = waiting().node;
        node.attempt.as_mut().unwrap().boot_interface = boot_interface;
        answers(&format!("waiting, {boot_interface}, x64"), &node, Some(X64_HTTP));
    }
    let mut node = waiting().node;
    node.attempt.as_mut().unwrap().boot_interface = BootInterface::Http;
    answers("waiting, http, arm64", &node, Some(ARM64_HTTP));
    answers("waiting, http, x86 BIOS", &node, Some(ClientArchitecture(0x14)));
    answers("waiting, http, architecture not said", &node, None);
    answers("the agent has called", &asking().node, Some(X64_HTTP));
    answers("manageable", &situations::all()[2].1.node, Some(X64_HTTP));
    insta::with_settings!(
        { snapshot_path => "../snapshots", prepend_module_to_snapshot => false },
        { insta::assert_snapshot!("boot_for", page) }
    );
}

#[test]
fn each_architecture_gets_its_own_loader_where_its_boot_set_has_been_made() {
    let told = |boot_interface, code, boot_sets: &[CpuArch]| {
        let mut node = waiting().node;
        node.attempt.as_mut().unwrap().boot_interface = boot_interface;
        boot_for(&node, ClientKind::HttpClient, Some(code), Means { boot_sets, tftp: false }).map(
            |boot| match boot {
                DhcpBoot::Url(artifact) | DhcpBoot::Tftp(artifact) => artifact.file_name(),
                DhcpBoot::Address => "an address",
            },
        )
    };
    let (http, ipxe) = (BootInterface::Http, BootInterface::HttpIpxe);

    assert_eq!(told(http, X64_HTTP, &CpuArch::ALL), Ok("bootx64.efi"));
    assert_eq!(told(http, ARM64_HTTP, &CpuArch::ALL), Ok("bootaa64.efi"));
    assert_eq!(told(http, RISCV64_HTTP, &CpuArch::ALL), Ok("bootriscv64.efi"));
    assert_eq!(told(ipxe, ARM64_HTTP, &CpuArch::ALL), Ok("snponly-arm64.efi"));
    for (code, loader) in
        [(X64_PXE[0], "bootx64.efi"), (X64_PXE[1], "bootx64.efi"), (ARM64_PXE, "bootaa64.efi")]
    {
        assert_eq!(told(http, code, &CpuArch::ALL), Ok(loader), "it says the code of TFTP");
    }
    let cpu_arch = CpuArch::Riscv64;
    assert_eq!(told(ipxe, RISCV64_HTTP, &CpuArch::ALL), Err(NoBoot::NoIpxe { cpu_arch }));
    assert_eq!(told(http, RISCV64_HTTP, &[CpuArch::Arm64]), Err(NoBoot::NoBootSet { cpu_arch }));
}

#[test]
fn firmware_that_does_not_say_what_it_is_gets_the_loader_for_what_its_node_is() {
    let told = |cpu_arch| {
        let mut node = waiting().node;
        node.attempt.as_mut().unwrap().boot_interface = BootInterface::Http;
        node.properties.insert("cpu_arch".to_owned(), json!(cpu_arch));
        boot_for(&node, ClientKind::HttpClient, None, ALL)
    };

    assert_eq!(told("x86_64"), Ok(DhcpBoot::Url(Artifact::BootLoader)));
    assert_eq!(told("aarch64"), Ok(DhcpBoot::Url(Artifact::BootLoaderArm64)));
    assert_eq!(told("ppc64le"), Err(NoBoot::ArchitectureUnknown));
}

#[test]
fn a_machine_that_names_several_architectures_boots_by_the_first_that_it_can_be_booted_by() {
    let mut node = waiting().node;
    node.attempt.as_mut().unwrap().boot_interface = BootInterface::Http;
    let chosen =
        |client, named: &[ClientArchitecture], means| architecture_for(&node, client, named, means);
    let http = |named: &[ClientArchitecture]| chosen(ClientKind::HttpClient, named, NOTHING);

    assert_eq!(
        http(&[ClientArchitecture(0x0F), X64_HTTP]),
        Some(X64_HTTP),
        "there is nothing for x86 with 32 bits"
    );
    assert_eq!(http(&[ARM64_HTTP, X64_HTTP]), Some(X64_HTTP), "arm64 has no boot set");
    assert_eq!(http(&[X64_HTTP, ARM64_HTTP]), Some(X64_HTTP));
    assert_eq!(
        http(&[ClientArchitecture(0x0F), ClientArchitecture(0x14)]),
        Some(ClientArchitecture(0x0F)),
        "the reason is about the first"
    );
    assert_eq!(http(&[]), None);
    assert_eq!(
        chosen(ClientKind::PxeClient, &[ClientArchitecture(0), ClientArchitecture(7)], ALL),
        Some(ClientArchitecture(7))
    );
    assert_eq!(
        chosen(ClientKind::PxeClient, &[ClientArchitecture(0), ClientArchitecture(7)], NOTHING),
        Some(ClientArchitecture(0))
    );
}

#[test]
fn ipxe_gets_its_script_only_where_its_machine_runs_the_kernel_in_it() {
    let told = |code, boot_sets: &[CpuArch]| {
        let mut node = waiting().node;
        node.attempt.as_mut().unwrap().boot_interface = BootInterface::HttpIpxe;
        boot_for(&node, ClientKind::Ipxe, code, Means { boot_sets, tftp: false })
    };
    let script = Ok(DhcpBoot::Url(Artifact::IpxeScript));

    for code in [X86_BIOS, X64_PXE[0], X64_PXE[1], X64_HTTP] {
        assert_eq!(told(Some(code), &[]), script);
    }
    assert_eq!(told(None, &[]), script);
    assert_eq!(told(Some(ARM64_PXE), &[CpuArch::Arm64]), script);
    let (arm64, riscv64) = (CpuArch::Arm64, CpuArch::Riscv64);
    assert_eq!(told(Some(ARM64_PXE), &[]), Err(NoBoot::NoBootSet { cpu_arch: arm64 }));
    assert_eq!(told(Some(RISCV64_PXE), &[arm64]), Err(NoBoot::NoBootSet { cpu_arch: riscv64 }));
    assert_eq!(
        told(Some(ClientArchitecture(6)), &CpuArch::ALL),
        Err(NoBoot::Architecture { architecture: ClientArchitecture(6) })
    );
}

#[test]
fn pxe_firmware_is_helped_over_tftp_where_that_is_enabled_and_its_node_boots_by_dhcp() {
    let told = |boot_interface, code, means| {
        let mut node = waiting().node;
        node.attempt.as_mut().unwrap().boot_interface = boot_interface;
        boot_for(&node, ClientKind::PxeClient, Some(code), means)
    };
    let helped = Ok(DhcpBoot::Tftp(Artifact::Ipxe));

    assert_eq!(told(BootInterface::Http, ClientArchitecture(7), ALL), helped);
    assert_eq!(told(BootInterface::HttpIpxe, ClientArchitecture(9), ALL), helped);
    assert_eq!(told(BootInterface::Http, ClientArchitecture(7), NOTHING), Err(NoBoot::PxeNotHttp));
    assert_eq!(
        told(BootInterface::RedfishHttps, ClientArchitecture(7), ALL),
        Err(NoBoot::PxeNotHttp)
    );
    assert_eq!(told(BootInterface::Http, ClientArchitecture(11), ALL), Err(NoBoot::PxeNotHttp));
}

#[test]
fn a_machine_whose_bmc_was_told_an_image_for_another_one_gets_the_reason() {
    let mut node = waiting().node;
    node.attempt.as_mut().unwrap().boot_interface = BootInterface::RedfishHttps;
    let told = |node: &_| boot_for(node, ClientKind::HttpClient, Some(ARM64_HTTP), NOTHING);
    let (cpu_arch, image) = (CpuArch::Arm64, CpuArch::X64);

    assert_eq!(told(&node), Err(NoBoot::OtherCpuArch { cpu_arch, image }));
    node.driver_info.insert("deploy_iso".to_owned(), json!("http://images.example/any.iso"));
    assert_eq!(told(&node), Ok(DhcpBoot::Address));
    node.driver_info.remove("deploy_iso");
    node.properties.insert("cpu_arch".to_owned(), json!("aarch64"));
    assert_eq!(told(&node), Ok(DhcpBoot::Address));
}

#[test]
fn a_missing_boot_set_is_named_with_the_place_it_belongs_in() {
    let because = NoBoot::NoBootSet { cpu_arch: CpuArch::Arm64 };

    assert_eq!(
        because.to_string(),
        "there is no boot set for arm64: make one with `ferroboot image build --architecture arm64`, \
         in the folder arm64 of the x64 one"
    );
}

#[test]
fn images_can_be_fetched_from_the_decision_to_boot_until_the_agent_calls_or_the_instance_goes() {
    let ramdisk = ["cleaning (booting)", "clean wait (for the agent)"];
    let deployment = ["deploying (booting)", "deploying (image fetched)", "wait call-back"];
    let instance = ["active", "active (booting again)"];
    let bootable_in = [&ramdisk[..], &deployment, &instance].concat();
    for (situation, world) in situations::all() {
        let expected = bootable_in.contains(&situation);
        assert_eq!(bootable(&world.node).is_some(), expected, "{situation}");
    }
}

#[test]
fn a_switch_of_the_boot_interface_does_not_disturb_the_boot_under_way() {
    let mut node = waiting().node;
    node.attempt.as_mut().unwrap().boot_interface = BootInterface::Http;
    node.boot_interface = BootInterface::RedfishHttps;
    let told = boot_for(&node, ClientKind::HttpClient, Some(X64_HTTP), NOTHING);
    assert_eq!(told, Ok(DhcpBoot::Url(Artifact::BootLoader)));
}

#[test]
fn the_bmc_gets_an_iso_and_dhcp_nodes_get_no_uri_over_redfish() {
    assert_eq!(BootInterface::RedfishHttps.bmc_artifact(), Some(Artifact::Iso));
    assert_eq!(BootInterface::RedfishVirtualMedia.bmc_artifact(), Some(Artifact::Iso));
    assert_eq!(BootInterface::Http.bmc_artifact(), None);
    assert_eq!(BootInterface::HttpIpxe.bmc_artifact(), None);
}

#[test]
fn the_specs_names_of_the_boot_interfaces_are_understood_and_upstreams_are_given_back() {
    for (given, kept) in [
        ("redfish-https", "redfish-https"),
        ("redfish-http-url", "redfish-https"),
        ("http", "http"),
        ("httpboot", "http"),
        ("http-ipxe", "http-ipxe"),
        ("redfish-virtual-media", "redfish-virtual-media"),
    ] {
        assert_eq!(given.parse::<BootInterface>().unwrap().name(), kept);
        let parsed: BootInterface = serde_json::from_value(json!(given)).unwrap();
        assert_eq!(serde_json::to_value(parsed).unwrap(), kept);
    }
    let wrong = "pxe".parse::<BootInterface>().unwrap_err().to_string();
    assert!(wrong.contains("\"pxe\"") && wrong.contains("http-ipxe"), "{wrong}");
}

#[test]
fn each_artifact_has_a_file_name_of_its_own() {
    for artifact in Artifact::ALL {
        assert_eq!(Artifact::of_file_name(artifact.file_name()), Some(artifact));
    }
    assert_eq!(Artifact::of_file_name("revocations_sbat.efi"), None);
}

#[test]
fn the_boot_loader_holds_the_ramdisk_only_as_a_uki() {
    assert!(Artifact::BootLoader.holds_ramdisk(HttpLoader::Uki));
    assert!(!Artifact::BootLoader.holds_ramdisk(HttpLoader::Grub));
    assert!(Artifact::Iso.holds_ramdisk(HttpLoader::Grub));
}

#[test]
fn an_image_begins_with_shim_where_http_does_and_signed_loaders_exist() {
    use HttpLoader::{Grub, ShimGrub, ShimUki, Uki};
    let in_image = |cpu_arch| [Uki, Grub, ShimGrub, ShimUki].map(|it| it.in_image(cpu_arch));
    assert_eq!(in_image(CpuArch::X64), [Uki, Uki, ShimGrub, ShimUki]);
    assert_eq!(in_image(CpuArch::Arm64), [Uki; 4]);
}

#[test]
fn the_command_line_names_api_token_and_port() {
    let line = command_line(None, "console=ttyS0", Some(Mac([0x52, 0x54, 0, 0xAA, 0xBB, 1])));
    assert_eq!(
        line.unwrap(),
        "ipa-api-url=http://192.0.2.1:6385 \
         ipa-agent-token=token-0000000000000000000000000000000000001 \
         BOOTIF=01-52-54-00-aa-bb-01 console=ttyS0"
    );
}

#[test]
fn a_machine_is_told_its_boot_port_only_where_it_can_be_no_other() {
    let port = |last, pxe_enabled| Port {
        uuid: Uuid::from_u128(last),
        node_uuid: Uuid::nil(),
        address: Mac([0x52, 0x54, 0, 0, 0, last as u8]),
        pxe_enabled,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: None,
        extra: Map::new(),
        kept: Map::new(),
    };

    assert_eq!(boot_mac(&[port(1, false), port(2, true)]), Some(Mac([0x52, 0x54, 0, 0, 0, 2])));
    assert_eq!(boot_mac(&[port(1, true), port(2, true)]), None);
    assert_eq!(boot_mac(&[port(1, false)]), None);
}

#[test]
fn the_nodes_own_arguments_replace_the_services_which_default_stands_for() {
    let plain = command_line(Some("quiet"), "console=ttyS0", None).unwrap();
    assert!(plain.ends_with(" quiet") && !plain.contains("console"), "{plain}");
    let both = command_line(Some("a %default% b"), "console=ttyS0", None).unwrap();
    assert!(both.ends_with(" a console=ttyS0 b"), "{both}");
    let none = command_line(Some(""), "console=ttyS0", None).unwrap();
    assert!(none.ends_with("00001"), "{none}");
}

#[test]
fn arguments_of_several_lines_are_refused() {
    assert_eq!(command_line(Some("a\nb"), "", None), Err(BadArguments('\n')));
    assert_eq!(command_line(None, "a\0", None), Err(BadArguments('\0')));
}

proptest! {
    #[test]
    fn a_command_line_is_one_line_that_begins_with_ours(own: String, append: String) {
        if let Ok(line) = command_line(Some(&own), &append, Some(Mac([1; 6]))) {
            prop_assert!(!line.chars().any(char::is_control));
            prop_assert!(line.starts_with("ipa-api-url=http://192.0.2.1:6385 ipa-agent-token="));
        }
    }

    #[test]
    fn no_architecture_makes_it_panic(architecture: Option<u16>, client in 0..6_usize) {
        let node = waiting().node;
        if let Err(because) = boot_for(&node, CLIENTS[client], architecture.map(ClientArchitecture), ALL) {
            prop_assert!(!because.to_string().is_empty());
        }
    }
}

fn command_line(
    own: Option<&str>,
    append: &str,
    boot_mac: Option<Mac>,
) -> Result<String, BadArguments> {
    let mut node = waiting().node;
    assert_eq!(node.provision_state, ProvisionState::CleanWait);
    if let Some(own) = own {
        node.driver_info.insert("kernel_append_params".to_owned(), json!(own));
    }
    let attempt = node.attempt.clone().unwrap();
    kernel_command_line(&node, &attempt, "http://192.0.2.1:6385", append, boot_mac)
}
