//! The diagnosis of each kind of boot failure, and its timing.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use hardware::architecture::{ARM64_HTTP, CpuArch, X64_HTTP};
use hardware::{
    BmcObservation, ClientArchitecture, ClientKind, HeldSigners, HttpMethod, Mac, RedfishPurpose,
    SecureBootTrust,
};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use provision::artifact::{Artifact, HttpLoader};
use provision::boot::{BootMethod, NoBoot};
use provision::diagnosis::{Diagnosis, Verdict, diagnose};
use provision::trace::{
    AgentCall, AgentCaller, AgentOutcome, AnnouncementCause, BootAnnouncement, CallRefusal,
    DhcpAnswer, DhcpService, HandshakePort, TlsFailure, TransitionReason,
};
use provision::{
    AgentExtension, BootEvent, BootEventKind, BootInterface, BootingStranger, Boots,
    CommandFailure, Procedure, ProvisionState as State, StepFailure, Vicinity,
};
use uuid::Uuid;

use crate::world::step_failure;

// The five most common failures. Certain ones are reported at once, with the setting to change.

#[test]
fn a_url_that_answers_404_is_named_at_once() {
    let what = refused(Some(Artifact::BootLoader), "bootx64.efi", 404, "no such boot");
    let said = Trace::switched_on().address().then(3, what).says_after(
        0,
        Verdict::Stuck,
        "the machine asked for bootx64.efi and got 404: no such boot",
    );
    assert!(said.hint.unwrap().contains("url under [boot]"));
}

#[test]
fn a_url_that_is_over_or_has_no_image_behind_it_is_told_from_a_wrong_one() {
    for (status, setting) in [
        (403, "that of an older boot: abort the clean, and start it again"),
        (410, "that of an older boot"),
        (503, "deploy_kernel"),
        (500, "ramdisk"),
    ] {
        let what = refused(Some(Artifact::Iso), "boot.iso", status, "because");
        let said = Trace::switched_on().address().then(3, what).says_after(
            0,
            Verdict::Stuck,
            "the machine asked for boot.iso and got",
        );
        assert!(said.hint.unwrap().contains(setting), "{status}");
    }
}

#[test]
fn the_late_ticket_of_a_system_that_ran_before_the_power_on_says_nothing_of_the_boot() {
    let late = refused(Some(Artifact::Iso), "boot.iso", 403, "the boot is over");
    let trace = Trace::empty(Procedure::Clean, BootInterface::RedfishHttps)
        .then(0, state(State::Manageable, State::Cleaning, None))
        .then(1, late);
    assert_eq!(trace.said_after(1), None);

    let trace = trace.then(9, redfish(RedfishPurpose::PowerOn, "POST", Some(204), None));
    trace.says_after_a_silence(Verdict::Waiting, "nothing was heard from the machine");
}

#[test]
fn a_request_that_no_firmware_makes_is_another_programs() {
    let mut post = refused(None, "boot.iso", 405, "only GET and HEAD are answered");
    if let BootEventKind::Http { method, .. } = &mut post {
        *method = HttpMethod::Post;
    }
    assert_eq!(Trace::switched_on().address().then(3, post).said_after(1), None);
}

#[test]
fn a_handshake_of_one_of_several_machines_is_not_stated_of_this_one() {
    let handshake = |port, machines| BootEventKind::TlsHandshake {
        remote: Ipv4Addr::new(192, 0, 2, 7).into(),
        failure: TlsFailure::Alert { alert: 48 },
        port,
        machines,
    };
    let its_own = Trace::switched_on().address().then(3, handshake(HandshakePort::Boot, 1));
    let text = "the machine began to fetch over https, and it does not trust the certificate's CA";
    its_own.says_after_a_silence(Verdict::Stuck, text);

    let shared = Trace::switched_on().address().then(3, handshake(HandshakePort::Boot, 3));
    let text = "but never fetched it; meanwhile a TLS handshake of one of the 3 booting machines at 192.0.2.7 with the \
                boot listener failed: it does not trust the certificate's CA";
    let said = shared.says_after_a_silence(Verdict::Stuck, text);
    assert!(said.hint.unwrap().starts_with("if that was this machine: enrol this service's CA"));

    let fetched = shared.then(2, fetched(Artifact::Iso)).then(1, handshake(HandshakePort::Boot, 3));
    let said = fetched.said_after(200).unwrap();
    assert!(!said.text.contains("TLS"), "{}", said.text);

    let agents = fetched.then(9, handshake(HandshakePort::Agents, 3));
    let said =
        agents.says_after_a_silence(Verdict::Waiting, "at 192.0.2.7 with the agents' port failed");
    assert!(said.hint.unwrap().starts_with("if that was this machine: the ramdisk does not trust"));
}

#[test]
fn an_agent_that_does_not_trust_the_agents_port_is_named() {
    let refused = BootEventKind::TlsHandshake {
        remote: Ipv4Addr::new(192, 0, 2, 7).into(),
        failure: TlsFailure::Alert { alert: 48 },
        port: HandshakePort::Agents,
        machines: 1,
    };
    let trace = Trace::switched_on().address().then(9, fetched(Artifact::Iso)).then(20, refused);

    let text = "its agent began to call over https, and it does not trust the certificate's CA";
    let said = trace.says_after_a_silence(Verdict::Stuck, text);

    assert!(said.hint.unwrap().contains("the ramdisk does not trust this service's CA"));
}

#[test]
fn a_refused_fetch_is_still_named_when_the_firmware_goes_on_to_something_else() {
    Trace::switched_on()
        .address()
        .then(3, refused(Some(Artifact::BootLoader), "bootx64.efi", 404, "no such boot"))
        .then(5, pxe())
        .says_after(1, Verdict::Stuck, "the machine asked for bootx64.efi and got 404");
}

#[test]
fn a_refused_fetch_that_was_repeated_with_success_is_forgotten() {
    let trace = Trace::switched_on()
        .address()
        .then(3, refused(Some(Artifact::BootLoader), "bootx64.efi", 503, "not yet"))
        .then(5, fetched(Artifact::BootLoader));
    assert_eq!(trace.said_after(1), None);
}

#[test]
fn firmware_that_asks_for_pxe_only_is_named_even_if_it_never_falls_silent() {
    let text =
        "the firmware asked for PXE, not HTTP: switch HTTP boot on, and PXE off, in its set-up";
    let mut trace = Trace::switched_on().then(4, pxe());
    // Firmware may yet go on to HTTP, which it often tries only after PXE.
    let said = trace.says_after(0, Verdict::Waiting, text);
    assert!(said.hint.unwrap().contains("boot order"));
    for _ in 0..30 {
        trace = trace.then(4, pxe());
    }
    trace.says_after(0, Verdict::Stuck, text);
}

#[test]
fn a_ramdisk_that_never_calls_is_named_within_45_seconds_of_silence() {
    let trace = Trace::switched_on().address().then(5, fetched(Artifact::BootLoader));
    let text = "the ramdisk was fetched but the agent never called";
    assert_eq!(trace.said_after(44), None);
    // A kernel may take this long to start; the diagnosis still reports the wait.
    let said = trace.says_after(45, Verdict::Waiting, text);
    assert!(said.hint.unwrap().contains("driver"));
    trace.says_after(300, Verdict::Stuck, text);
}

#[test]
fn a_bmc_that_refuses_the_override_is_named_at_once() {
    let trace = Trace::of(BootInterface::RedfishHttps).then(
        1,
        redfish(RedfishPurpose::BootOverride, "PATCH", Some(400), Some("PropertyValueNotInList")),
    );
    let said = trace.says_after(0, Verdict::Failed, "the BMC refused the boot override");
    assert!(said.text.ends_with("with status 400: PropertyValueNotInList"), "{}", said.text);
    assert!(said.hint.unwrap().contains("boot_interface"));
}

#[test]
fn a_bmc_that_refuses_the_user_or_has_no_such_system_names_that_setting() {
    for (status, setting) in [(401, "redfish_password"), (404, "redfish_system_id")] {
        let said = Trace::of(BootInterface::RedfishHttps)
            .then(1, redfish(RedfishPurpose::LookAtSystem, "GET", Some(status), Some("no")))
            .says_after(0, Verdict::Failed, "the BMC refused the look at the system");
        assert!(said.hint.unwrap().contains(setting), "{status}");
    }
}

#[test]
fn a_wrong_architecture_is_named_at_once() {
    let because = NoBoot::Architecture { architecture: ClientArchitecture(0x12) };
    let what = dhcp(
        ClientKind::HttpClient,
        Some(ClientArchitecture(0x12)),
        DhcpAnswer::NoBoot { because },
    );
    let said = Trace::switched_on().then(20, what).says_after(
        0,
        Verdict::Failed,
        "there is no boot loader for the architecture arm32 UEFI HTTP (0x0012)",
    );
    assert!(said.hint.unwrap().contains("x64"));
}

// Before the first packet.

#[test]
fn a_long_self_test_is_no_failure_but_is_said() {
    let trace = Trace::switched_on();
    assert_eq!(trace.said_after(40), None);
    let text = "nothing was heard from the machine since it was switched on";
    trace.says_after_a_silence(Verdict::Waiting, text);
    let said = trace.says_after(10 * 60, Verdict::Waiting, text);
    assert!(said.hint.unwrap().contains("test themselves for minutes"));
    let said = trace.says_after(20 * 60, Verdict::Stuck, text);
    assert!(said.hint.unwrap().contains("MAC address"));
}

#[test]
fn asking_the_bmc_for_the_power_state_does_not_put_the_diagnosis_off() {
    let mut trace = Trace::switched_on();
    for _ in 0..6 {
        trace = trace.then(10, redfish(RedfishPurpose::LookAtSystem, "GET", Some(200), None));
    }
    trace.says_after(0, Verdict::Waiting, "nothing was heard from the machine");
}

#[test]
fn a_bmc_that_does_not_answer_is_named() {
    Trace::of(BootInterface::RedfishHttps)
        .then(5, redfish(RedfishPurpose::PowerOff, "POST", None, Some("connection refused")))
        .says_after(0, Verdict::Failed, "the BMC did not answer to the power off: connection");
}

#[test]
fn a_bmc_call_that_was_repeated_with_success_is_forgotten() {
    let trace = Trace::of(BootInterface::RedfishHttps)
        .then(5, redfish(RedfishPurpose::BootOverride, "PATCH", Some(503), Some("busy")))
        .then(5, redfish(RedfishPurpose::BootOverride, "PATCH", Some(200), None));
    assert_eq!(trace.said_after(0), None);
}

#[test]
fn a_tear_down_that_went_well_does_not_hide_what_the_bmc_refused() {
    Trace::of(BootInterface::RedfishHttps)
        .then(1, redfish(RedfishPurpose::BootOverride, "PATCH", Some(400), Some("no")))
        .then(
            0,
            state(
                State::Cleaning,
                State::CleanFailed,
                Some(TransitionReason::NotBooted { error: "no".to_owned() }),
            ),
        )
        .then(1, redfish(RedfishPurpose::PowerOff, "POST", Some(204), None))
        .says_after(99_999, Verdict::Failed, "the BMC refused the boot override");
}

// DHCP.

#[test]
fn firmware_that_gets_no_address_is_named_with_the_reason() {
    let because = "the pool is exhausted".to_owned();
    Trace::switched_on()
        .then(9, dhcp(ClientKind::HttpClient, Some(X64_HTTP), DhcpAnswer::Ignored { because }))
        .says_after_a_silence(
            Verdict::Stuck,
            "UEFI HTTP boot asked for an address and got none: the pool is exhausted",
        );
}

#[test]
fn an_offer_that_is_not_taken_points_at_another_dhcp_server() {
    let said = Trace::switched_on()
        .then(9, offer())
        .says_after_a_silence(Verdict::Stuck, "was offered an address and did not take it");
    assert!(said.hint.unwrap().contains("another DHCP server"));
}

#[test]
fn an_address_without_a_connection_names_the_listener_the_missing_ca_and_refused_plain_http() {
    let said = Trace::switched_on()
        .address()
        .says_after_a_silence(Verdict::Stuck, "and the URL from DHCP, but never fetched it");
    let hint = said.hint.unwrap();
    assert!(hint.contains("boot listener's address is reachable"), "{hint}");
    // Firmware without the CA opens no connection (T6), and default builds refuse plain HTTP (H17).
    assert!(hint.contains("begins with https, the firmware may lack the CA"), "{hint}");
    assert!(hint.contains("begins with http, the firmware may allow HTTPS only"), "{hint}");
}

#[test]
fn pxe_after_an_address_for_http_means_that_http_boot_gave_up() {
    Trace::switched_on()
        .address()
        .then(30, pxe())
        .says_after_a_silence(Verdict::Stuck, "but never fetched it");
}

#[test]
fn a_port_that_is_not_enabled_is_named() {
    let answer = DhcpAnswer::NoBoot { because: NoBoot::PortNotEnabled };
    Trace::switched_on()
        .then(9, dhcp(ClientKind::HttpClient, Some(X64_HTTP), answer))
        .says_after_a_silence(Verdict::Stuck, "the port is not enabled for booting");
}

#[test]
fn a_running_system_that_asks_for_an_address_was_not_booted_by_us() {
    Trace::switched_on()
        .then(30, dhcp(ClientKind::System, None, ack(None)))
        .says_after_a_silence(Verdict::Stuck, "the firmware never requested HTTP boot");
}

#[test]
fn firmware_that_only_took_an_ipv6_address_tried_http_boot_too_early() {
    let address = DhcpAnswer::Ack { address: "fd77::100".parse().unwrap(), artifact: None };
    let said = Trace::switched_on()
        .then(4, dhcp(ClientKind::Firmware, None, address))
        .says_after_a_silence(Verdict::Stuck, "got an IPv6 address, but never requested");
    assert!(said.hint.unwrap().contains("HTTP boot over IPv4 first"));
}

#[test]
fn what_firmware_asks_for_beside_its_boot_does_not_hide_what_became_of_the_boot() {
    let itself = || DhcpAnswer::Ack { address: "fd77::100".parse().unwrap(), artifact: None };
    Trace::switched_on()
        .then(4, dhcp(ClientKind::Firmware, None, itself()))
        .then(5, offer())
        .then(6, dhcp(ClientKind::Firmware, None, itself()))
        .says_after_a_silence(Verdict::Stuck, "was offered an address and did not take it");
}

// HTTP.

#[test]
fn a_fetch_that_was_cut_off_is_named_with_its_bytes() {
    let what = http("GET", Some(Artifact::Iso), "boot.iso", 200, 1_000, 60_000_000);
    Trace::switched_on().address().then(9, what).says_after_a_silence(
        Verdict::Stuck,
        "the fetch of boot.iso was cut off after 1000 of 60000000 bytes",
    );
}

#[test]
fn an_image_that_was_measured_and_not_fetched_may_be_too_large() {
    let what = http("HEAD", Some(Artifact::Iso), "boot.iso", 200, 0, 60_000_000);
    let said = Trace::switched_on()
        .address()
        .then(9, what)
        .says_after_a_silence(Verdict::Stuck, "requested the size of boot.iso");
    assert!(said.hint.unwrap().contains("memory"));
}

#[test]
fn a_loader_that_goes_no_further_points_at_secure_boot() {
    let said = Trace::switched_on()
        .loader(HttpLoader::Grub)
        .address()
        .then(5, fetched(Artifact::BootLoader))
        .says_after_a_silence(Verdict::Stuck, "bootx64.efi was fetched, and nothing followed");
    assert!(said.hint.unwrap().contains("Secure Boot"));
}

#[test]
fn secure_boot_as_the_bmc_shows_it_decides_what_is_said_of_an_image_that_does_not_run() {
    let silent = |trust| {
        let seen = BmcObservation::SecureBootOn { trust, reason: None };
        Trace::of(BootInterface::Http)
            .then(1, shows(seen))
            .then(1, redfish(RedfishPurpose::PowerOn, "POST", Some(204), None))
            .address()
            .then(5, fetched(Artifact::BootLoader))
            .says_after(300, Verdict::Stuck, "the agent never called")
    };
    let microsoft = HeldSigners { microsoft_2011: true, ..HeldSigners::default() };
    let own = HeldSigners { sign_certificate: true, ..HeldSigners::default() };
    let foreign = SecureBootTrust { allowed: microsoft, forbidden: None };

    let lacking = silent(Some(foreign));
    let ending = "; the BMC shows Secure Boot on, and its db holds Microsoft's CA of 2011";
    assert!(lacking.text.ends_with(ending), "{}", lacking.text);
    assert!(lacking.hint.unwrap().contains("redfish_secure_boot_certificate = enrol"));
    let trusted = silent(Some(SecureBootTrust { allowed: own, forbidden: None }));
    assert!(trusted.hint.unwrap().starts_with("db has the certificate that signs images"));
    let forbidden = silent(Some(SecureBootTrust { allowed: own, forbidden: Some(own) }));
    let ending = ", and dbx forbids the certificate that signs this service's images";
    assert!(forbidden.text.ends_with(ending), "{}", forbidden.text);
    assert!(forbidden.hint.unwrap().starts_with("Secure Boot refuses what dbx forbids"));
    let unknown = silent(None);
    assert!(unknown.text.ends_with("; the BMC shows Secure Boot on"), "{}", unknown.text);
    assert!(unknown.hint.unwrap().starts_with("Secure Boot refused the image, unless"));

    let trace = Trace::switched_on().address().then(5, fetched(Artifact::BootLoader));
    let method = BootMethod {
        procedure: Procedure::Clean,
        interface: BootInterface::Http,
        loader: HttpLoader::Uki,
    };
    let off = Vicinity { secure_boot: Some(false), ..Vicinity::default() };
    let later = trace.last() + SignedDuration::from_mins(10);
    let said = diagnose(method, &trace.events, off, later).unwrap();
    assert!(!said.hint.unwrap().contains("Secure Boot"));
}

#[test]
fn a_shim_whose_signer_is_in_dbx_is_named_unless_it_has_started() {
    let old = HeldSigners { microsoft_2011: true, ..HeldSigners::default() };
    let trust = SecureBootTrust { allowed: old, forbidden: Some(old) };
    let shim = || {
        Trace::of(BootInterface::Http)
            .loader(HttpLoader::ShimUki)
            .then(1, shows(BmcObservation::SecureBootOn { trust: Some(trust), reason: None }))
            .then(1, redfish(RedfishPurpose::PowerOn, "POST", Some(204), None))
            .address()
            .then(5, fetched(Artifact::BootLoader))
    };
    let looked = || shim().then(1, refused(None, "revocations_sku.efi", 404, "no such file"));
    let uki = looked().then(1, fetched(Artifact::ShimSecondStage));

    for (trace, path, hint) in [
        (shim(), "bootx64.efi was fetched", "refuses a shim if dbx has the certificate"),
        (looked(), "bootx64.efi was fetched", "shim started, and fetched nothing more"),
        (uki, "the agent never called", "unless MokList or db has the certificate"),
    ] {
        let said = trace.says_after(300, Verdict::Stuck, path);
        assert!(said.text.contains("and dbx forbids Microsoft's CA of 2011"), "{}", said.text);
        assert!(said.hint.as_ref().is_some_and(|said| said.contains(hint)), "{said:?}");
    }
}

#[test]
fn files_that_shim_only_looks_for_are_not_taken_for_the_fault() {
    Trace::switched_on()
        .loader(HttpLoader::Grub)
        .address()
        .then(5, fetched(Artifact::BootLoader))
        .then(1, refused(None, "revocations_sbat.efi", 404, "there is no such file"))
        .says_after_a_silence(Verdict::Stuck, "bootx64.efi was fetched, and nothing followed");
}

#[test]
fn the_program_of_a_chain_with_shim_that_did_not_start_the_next_one_is_named() {
    let shim = || {
        Trace::switched_on()
            .loader(HttpLoader::ShimGrub)
            .address()
            .then(5, fetched(Artifact::BootLoader))
    };
    let looked = || shim().then(1, refused(None, "revocations_sku.efi", 404, "no such file"));
    let grub = || looked().then(1, fetched(Artifact::ShimSecondStage));
    let again = || grub().then(1, fetched(Artifact::BootLoader));
    let twice = again().then(1, fetched(Artifact::ShimSecondStage));
    let switched_on = || {
        grub()
            .then(9, redfish(RedfishPurpose::PowerOn, "POST", Some(204), None))
            .then(60, fetched(Artifact::BootLoader))
    };
    let refused_again = switched_on().then(1, fetched(Artifact::ShimSecondStage));
    let way_back = || grub().then(1, http("GET", None, "grub/grub.cfg", 200, 90, 90));
    let kernel =
        || way_back().then(1, fetched(Artifact::GrubConfig)).then(1, fetched(Artifact::Kernel));
    for (trace, path, hint) in [
        (shim(), "bootx64.efi", "did not start shim"),
        (looked(), "bootx64.efi", "shim started, and fetched nothing more"),
        (grub(), "grubx64.efi", "shim refuses GRUB if"),
        (twice, "grubx64.efi", "the machine was restarted, or shim returned to the firmware"),
        (switched_on(), "bootx64.efi", "did not start shim"),
        (refused_again, "grubx64.efi", "shim refuses GRUB if"),
        (way_back(), "grub/grub.cfg", "it must be 2.12 or newer"),
        (kernel(), "kernel", "only a kernel that shim accepts"),
    ] {
        let what = format!("{path} was fetched, and nothing followed");
        let said = trace.says_after_a_silence(Verdict::Stuck, &what);
        assert!(said.hint.as_ref().is_some_and(|said| said.contains(hint)), "{path}: {said:?}");
    }
}

#[test]
fn an_image_with_a_chain_that_does_not_run_points_at_its_programs_and_not_at_our_signature() {
    let image = |loader| {
        Trace::of(BootInterface::RedfishHttps)
            .loader(loader)
            .then(1, redfish(RedfishPurpose::PowerOn, "POST", Some(204), None))
            .address()
            .then(5, fetched(Artifact::Iso))
            .says_after(300, Verdict::Stuck, "the agent never called")
    };
    let hint = image(HttpLoader::ShimGrub).hint.unwrap();
    assert!(hint.starts_with("Secure Boot refused shim (db needs one of Microsoft's"), "{hint}");
    assert!(!image(HttpLoader::Uki).hint.unwrap().contains("shim"));
}

// The ramdisk and its agent.

#[test]
fn a_ramdisk_with_an_address_whose_agent_never_calls_points_at_the_api() {
    let said = Trace::switched_on()
        .address()
        .then(5, fetched(Artifact::BootLoader))
        .then(9, dhcp(ClientKind::Agent, None, ack(None)))
        .says_after_a_silence(Verdict::Waiting, "got its address, but the agent never called");
    assert!(said.hint.unwrap().contains("ipa-api-url"));
}

#[test]
fn an_image_for_x64_on_another_machine_is_named_on_the_bmc_path_too() {
    let because = NoBoot::OtherCpuArch { cpu_arch: CpuArch::Arm64, image: CpuArch::X64 };
    let answer = DhcpAnswer::NoBoot { because };
    let said = Trace::of(BootInterface::RedfishHttps)
        .then(9, dhcp(ClientKind::HttpClient, Some(ARM64_HTTP), answer))
        .says_after(0, Verdict::Failed, "the machine is arm64, and its BMC got an image for x64");
    assert!(said.hint.unwrap().contains("cpu_arch"));
}

#[test]
fn an_agent_that_was_refused_is_named_with_the_reason() {
    Trace::switched_on()
        .address()
        .then(5, fetched(Artifact::BootLoader))
        .then(9, agent(AgentCall::Heartbeat, failed("the agent token is not valid")))
        .then(9, agent(AgentCall::Heartbeat, failed("the agent token is not valid")))
        .says_after_a_silence(
            Verdict::Failed,
            "the agent called and was refused: the agent token is not valid",
        );
}

#[test]
fn an_agent_whose_command_api_cannot_be_reached_is_named() {
    Trace::running()
        .then(
            5,
            agent(
                AgentCall::GetSteps { extension: AgentExtension::Clean },
                failed("connection timed out"),
            ),
        )
        .says_after(0, Verdict::Stuck, "the agent calls home, but clean.get_clean_steps failed");
}

#[test]
fn a_machine_that_another_dhcp_service_answers_is_looked_for_in_its_log() {
    let trace = Trace::switched_on().then(1, told(None));

    let said = trace.says_after(1_000, Verdict::Stuck, "nothing was heard from the machine");

    assert!(said.hint.unwrap().starts_with("dnsmasq was told the URL: see in its log"));
}

#[test]
fn an_agent_between_two_heartbeats_is_not_silent() {
    let trace = Trace::running();
    assert_eq!(trace.said_after(180), None);
    trace.says_after(230, Verdict::Stuck, "the agent called and has been silent for 230 s since");
}

// All's well.

#[test]
fn a_boot_that_goes_on_is_not_commented() {
    let mut trace = Trace::switched_on().then(30, pxe()).address();
    for what in [
        http("HEAD", Some(Artifact::BootLoader), "bootx64.efi", 200, 0, 9),
        fetched(Artifact::BootLoader),
        dhcp(ClientKind::Agent, None, ack(None)),
        agent(AgentCall::Lookup, found()),
        agent(AgentCall::Heartbeat, alive()),
    ] {
        trace = trace.then(30, what);
        assert_eq!(trace.said_after(10), None);
    }
}

#[test]
fn a_clean_that_ended_well_is_never_commented() {
    let trace = Trace::running()
        .then(30, state(State::CleanWait, State::Cleaning, None))
        .then(3, state(State::Cleaning, State::Manageable, None));
    assert_eq!(trace.said_after(0), None);
    assert_eq!(trace.said_after(999_999), None);
}

#[test]
fn a_clean_that_failed_later_is_explained_by_its_own_reason() {
    let trace = Trace::running().then(
        30,
        state(
            State::CleanWait,
            State::CleanFailed,
            Some(TransitionReason::StepFailed { failure: step_failure("disk sda is read-only") }),
        ),
    );
    let said = trace.says_after(999_999, Verdict::Failed, "disk sda is read-only");
    assert_eq!(said.text, "the clean step deploy.erase_devices failed: disk sda is read-only");
}

#[test]
fn a_failure_is_still_explained_the_next_day_as_it_was_when_it_happened() {
    Trace::switched_on()
        .then(
            1_800,
            state(
                State::CleanWait,
                State::CleanFailed,
                Some(TransitionReason::RamdiskSilent { seconds: 1_800, diagnosis: None }),
            ),
        )
        .says_after(
            86_400,
            Verdict::Failed,
            "nothing was heard from the machine since it was switched on (1800 s)",
        );
}

#[test]
fn after_a_reboot_within_the_clean_the_first_boot_counts_no_more() {
    let trace = Trace::running()
        .then(9, state(State::CleanWait, State::Cleaning, Some(reboot())))
        .then(9, state(State::Cleaning, State::CleanWait, None));
    trace.says_after_a_silence(Verdict::Waiting, "nothing was heard from the machine");
    // The machine repeats its events after a restart, which is progress again.
    assert_eq!(trace.address().said_after(10), None);
}

proptest! {
    #[test]
    fn no_trace_makes_it_panic(picks in proptest::collection::vec((0..EVENTS, 0..100_i64), 0..30)) {
        let mut trace = Trace::switched_on();
        for (pick, seconds) in picks {
            trace = trace.then(seconds, any_event(pick));
        }
        for later in [-1_000, 0, 50, 100_000] {
            if let Some(said) = trace.said_after(later) {
                prop_assert!(!said.text.is_empty());
            }
        }
    }
}

const PORT: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 1]);

/// A stranger whose HTTP boot request came this many seconds after a time.
fn stranger(mac: Mac, after: Timestamp, seconds: i64) -> BootingStranger {
    let at = after + SignedDuration::from_secs(seconds);
    let (client, interface) = (ClientKind::HttpClient, "br0".to_owned());
    BootingStranger { mac, port_of: None, client, interface, since: at, last: at }
}

#[test]
fn a_stranger_that_asked_for_a_boot_after_power_on_is_asked_about() {
    let trace = Trace::switched_on();
    let on = trace.last();
    let later = on + SignedDuration::from_secs(60);
    let strangers = [stranger(Mac([2, 0, 0, 0, 0, 9]), on, 3)];

    let said = trace.said_beside(&strangers, later).unwrap();

    let asked = "02:00:00:00:00:09, no port of any node, asked for HTTP boot on br0 3 s after power-on: is that this \
                 machine?";
    assert!(said.text.contains(asked), "{}", said.text);
    assert_eq!(said.verdict, Verdict::Waiting);
    let hint = said.hint.unwrap();
    assert!(hint.contains("--address 02:00:00:00:00:09"), "{hint}");
    assert!(hint.contains("large servers test themselves"), "{hint}");
    let heard = trace.address();
    let said = heard.said_beside(&strangers, heard.last() + SignedDuration::from_secs(60)).unwrap();
    assert!(!said.text.contains("no port"), "the machine itself was heard: {}", said.text);
}

#[test]
fn a_stranger_whose_address_is_nearly_the_ports_is_named_at_once() {
    let trace = Trace::switched_on();
    let on = trace.last();
    let soon = on + SignedDuration::from_secs(5);
    let slip = [stranger(Mac([0x52, 0x54, 0, 0xaa, 0xbb, 2]), on, 3)];
    let other = [stranger(Mac([2, 0, 0, 0, 0, 9]), on, 3)];

    let said = trace.said_beside(&slip, soon).unwrap();

    assert_eq!(said.verdict, Verdict::Stuck);
    assert!(said.text.contains("nearly 52:54:00:aa:bb:01"), "{}", said.text);
    assert!(said.hint.unwrap().contains("--address 52:54:00:aa:bb:02"));
    assert_eq!(trace.said_beside(&other, soon), None);
}

// Virtual media.

#[test]
fn a_bmc_that_reads_nothing_of_its_virtual_cd_is_named_with_what_to_check() {
    let trace = Trace::with_media();
    let text = "the BMC took the URL of the image, and has read nothing of it";
    trace.says_after_a_silence(Verdict::Waiting, text);
    let said = trace.says_after(20 * 60, Verdict::Stuck, text);
    assert!(said.hint.unwrap().contains("external_http_url"));
}

#[test]
fn a_bmc_that_refuses_the_image_is_named_with_what_virtual_media_needs() {
    let refused = redfish(RedfishPurpose::InsertMedia, "POST", Some(403), Some("no licence"));
    let said = Trace::of(BootInterface::RedfishVirtualMedia).then(1, refused).says_after(
        0,
        Verdict::Failed,
        "the BMC refused the insertion of the image with status 403: no licence",
    );
    assert!(said.hint.unwrap().contains("licensed"));
}

#[test]
fn a_machine_that_does_not_read_its_virtual_cd_boots_otherwise() {
    let looked = Trace::of(BootInterface::RedfishVirtualMedia)
        .then(1, read(0, 65_536))
        .then(1, on())
        .then(0, state(State::Cleaning, State::CleanWait, None));
    let text = "the BMC read the start of the image, and the machine has read nothing";
    looked.says_after_a_silence(Verdict::Waiting, text);
    let said = looked.says_after(20 * 60, Verdict::Stuck, text);
    assert!(said.hint.unwrap().contains("boot from another device"));
    looked.then(90, pxe()).says_after_a_silence(
        Verdict::Stuck,
        "the machine did not boot from its virtual CD: PXE firmware asked for an address",
    );
}

#[test]
fn a_bmc_that_still_reads_is_not_silent_and_a_system_that_was_read_is_awaited() {
    let mib = 1 << 20;
    let mut trace = Trace::with_media();
    for number in 0..8 {
        trace = trace.then(40, read(number * mib, mib));
        assert_eq!(trace.said_after(40), None);
    }
    let text = "the machine read 8388608 bytes of its virtual CD, and nothing followed for 45 s";
    trace.says_after_a_silence(Verdict::Stuck, text);

    let read_it = trace.then(40, read(8 * mib, 20 * mib));
    assert_eq!(read_it.said_after(40), None);
    let text = "the ramdisk was fetched but the agent never called";
    read_it.says_after_a_silence(Verdict::Waiting, text);
}

#[test]
fn a_read_that_a_bmc_repeats_is_no_progress() {
    let mut trace = Trace::with_media();
    for _ in 0..8 {
        trace = trace.then(10, read(0, 65_536));
    }
    trace.says_after(0, Verdict::Stuck, "the machine read 524288 bytes of its virtual CD");
}

#[test]
fn a_url_of_an_image_that_is_over_is_what_the_bmc_asked_for() {
    let what = refused(Some(Artifact::Iso), "boot.iso", 410, "the boot is over");
    let text = "the BMC asked for boot.iso and got 410";
    Trace::with_media().then(1, what).says_after(0, Verdict::Stuck, text);
}

/// A part of an image with 100 MiB, as a BMC reads it.
fn read(first: u64, length: u64) -> BootEventKind {
    let mut read = http("GET", Some(Artifact::Iso), "boot.iso", 206, length, length);
    if let BootEventKind::Http { range, .. } = &mut read {
        *range = Some(format!("bytes {first}-{}/{}", first + length - 1, 100 << 20));
    }
    read
}

// Each procedure.

#[test]
fn an_instance_that_could_not_be_removed_is_explained_although_its_node_is_at_rest() {
    let reason = TransitionReason::NotSwitchedOff {
        procedure: Procedure::Undeploy,
        error: "internal error".to_owned(),
    };
    Trace::empty(Procedure::Deploy, BootInterface::RedfishHttps)
        .then(0, state(State::Active, State::Deleting, None))
        .then(1, redfish(RedfishPurpose::PowerOff, "POST", Some(500), Some("internal error")))
        .then(0, state(State::Deleting, State::Error, Some(reason)))
        .says_after(999_999, Verdict::Failed, "the BMC refused the power off with status 500");
}

/// For each procedure and each fault that its boots can have: the diagnosis five minutes after it.
#[test]
fn faults_have_the_diagnoses_on_this_page_in_each_procedure() {
    let mut page = String::new();
    for (fault, boots, events) in faults() {
        writeln!(page, "{fault}").unwrap();
        for course in Course::ALL {
            if boots.contains(&course.states().0.row().boots) {
                let said = course.said(BootInterface::Http, &events).expect("something is said");
                writeln!(page, "  {course:?}: {:?}, {}", said.verdict, said.text).unwrap();
                writeln!(page, "    {}", said.hint.unwrap()).unwrap();
            }
        }
    }

    insta::with_settings!(
        { snapshot_path => "../snapshots", prepend_module_to_snapshot => false },
        { insta::assert_snapshot!("diagnoses", page) }
    );
}

#[test]
fn the_iso_image_with_the_agent_is_named_where_a_bmc_boots_it() {
    let gone = [refused(Some(Artifact::Iso), "boot.iso", 503, "no such image")];
    let hint =
        |course: Course| course.said(BootInterface::RedfishHttps, &gone).unwrap().hint.unwrap();

    assert!(hint(Course::Clean).contains("check deploy_iso, or deploy_kernel and deploy_ramdisk"));
    assert!(
        hint(Course::Deploy).contains("check boot_iso, or kernel and ramdisk, in instance_info")
    );
}

/// A boot of each procedure, under way, failed, or begun by its machine.
#[derive(Clone, Copy, Debug)]
enum Course {
    Clean,
    FailedClean,
    Deploy,
    FailedDeploy,
    Rebuild,
    LaterBoot,
    Verify,
}

impl Course {
    const ALL: [Self; 7] = [
        Self::Clean,
        Self::FailedClean,
        Self::Deploy,
        Self::FailedDeploy,
        Self::Rebuild,
        Self::LaterBoot,
        Self::Verify,
    ];

    /// Its procedure, and the states before and after the fault.
    fn states(self) -> (Procedure, &'static [[State; 2]], Option<[State; 2]>) {
        let clean = &[[State::Manageable, State::Cleaning], [State::Cleaning, State::CleanWait]];
        let deploy = &[[State::Available, State::Deploying], [State::Deploying, State::DeployWait]];
        let rebuild = &[[State::Active, State::Deploying], [State::Deploying, State::DeployWait]];
        match self {
            Self::Clean => (Procedure::Clean, clean, None),
            Self::FailedClean => {
                (Procedure::Clean, clean, Some([State::CleanWait, State::CleanFailed]))
            }
            Self::Deploy => (Procedure::Deploy, deploy, None),
            Self::FailedDeploy => {
                (Procedure::Deploy, deploy, Some([State::DeployWait, State::DeployFailed]))
            }
            Self::Rebuild => (Procedure::Deploy, rebuild, None),
            Self::LaterBoot => (Procedure::Deploy, &[], None),
            Self::Verify => (
                Procedure::Verify,
                &[[State::Enroll, State::Verifying]],
                Some([State::Verifying, State::Enroll]),
            ),
        }
    }

    fn said(self, boot_interface: BootInterface, fault: &[BootEventKind]) -> Option<Diagnosis> {
        let (procedure, before, after) = self.states();
        let mut trace = Trace::empty(procedure, boot_interface);
        for [from, to] in before {
            trace = trace.then(0, state(*from, *to, None));
        }
        for event in fault {
            trace = trace.then(1, event.clone());
        }
        if let Some([from, to]) = after {
            trace = trace.then(300, state(from, to, None));
        }
        let mistyped = [stranger(Mac([0x52, 0x54, 0, 0xaa, 0xbb, 2]), trace.first(), 3)];
        trace.said_beside(&mistyped, trace.last() + SignedDuration::from_secs(300))
    }
}

/// Faults, with the images of the boots that can have them.
fn faults() -> Vec<(&'static str, &'static [Boots], Vec<BootEventKind>)> {
    const ANY: &[Boots] = &[Boots::Nothing, Boots::Ramdisk, Boots::Instance];
    const IMAGE: &[Boots] = &[Boots::Ramdisk, Boots::Instance];
    const RAMDISK: &[Boots] = &[Boots::Ramdisk];
    let iso = Some(Artifact::Iso);
    let called = DhcpAnswer::NoBoot { because: NoBoot::AgentHasCalled };
    let called = dhcp(ClientKind::HttpClient, Some(X64_HTTP), called);
    let foreign =
        call(AgentCall::Lookup, false, Some(CallRefusal::ForeignAddress), failed(FOREIGN));
    let mut part = http("GET", iso, "boot.iso", 206, 100, 100);
    if let BootEventKind::Http { range, .. } = &mut part {
        *range = Some("bytes 0-99/60000000".to_owned());
    }
    let whole = fetched(Artifact::Iso);
    let user = redfish(RedfishPurpose::LookAtSystem, "GET", Some(401), Some("no"));
    let nowhere = redfish(RedfishPurpose::LookAtSystem, "GET", None, Some("no route"));
    let (over, gone) = ((403, "the boot is over"), (503, "no such image"));
    let refused = |(status, error)| refused(iso, "boot.iso", status, error);
    vec![
        ("the BMC does not answer", ANY, vec![nowhere]),
        ("the BMC refuses the user", ANY, vec![user]),
        ("the URL is an older boot's", IMAGE, vec![refused(over)]),
        ("the image cannot be had", IMAGE, vec![refused(gone)]),
        ("the fetch breaks off", IMAGE, vec![http("GET", iso, "boot.iso", 200, 100, 60_000_000)]),
        ("a part of the image is fetched", IMAGE, vec![part]),
        ("the port's address has a typing error", IMAGE, vec![on()]),
        ("the agent is not heard", RAMDISK, vec![whole.clone()]),
        ("the lookup is from another address", RAMDISK, vec![whole.clone(), foreign]),
        ("the agent falls silent", RAMDISK, vec![whole, agent(AgentCall::Heartbeat, alive())]),
        ("the machine restarts", RAMDISK, vec![called]),
    ]
}

// What the BMC shows of the firmware.

fn shows(observation: BmcObservation) -> BootEventKind {
    BootEventKind::BmcShows { observation }
}

fn progress(state: &str) -> BootEventKind {
    let state = state.to_owned();
    shows(BmcObservation::BootProgress { state, oem_state: None, last_boot_secs: None })
}

fn log(severity: &str, message: &str) -> BootEventKind {
    let entry = "/redfish/v1/Systems/1/LogServices/SEL/Entries/7".to_owned();
    let (severity, message) = (severity.to_owned(), message.to_owned());
    shows(BmcObservation::LogEntry { entry, severity, message })
}

fn job(state: &str) -> BootEventKind {
    let (job, state) = ("/redfish/v1/TaskService/Tasks/JID_1".to_owned(), state.to_owned());
    shows(BmcObservation::Job { job, state, message: "Unable to apply".to_owned() })
}

#[test]
fn firmware_that_stays_in_its_memory_initialization_is_named() {
    let trace = Trace::switched_on().then(31, progress("MemoryInitializationStarted"));
    let text =
        "since it was switched on (91 s); the BMC shows BootProgress MemoryInitializationStarted";
    trace.says_after(60, Verdict::Waiting, text);

    let said = trace.says_after(16 * 60, Verdict::Stuck, "MemoryInitializationStarted");

    assert!(said.hint.unwrap().contains("does not get past its memory"));
}

#[test]
fn firmware_that_gets_on_is_not_silent_and_what_it_repeats_is_no_progress() {
    let trace = Trace::switched_on()
        .then(40, progress("MemoryInitializationStarted"))
        .then(40, progress("PCIResourceConfigStarted"));
    assert_eq!(trace.said_after(44), None);

    trace.then(40, progress("MemoryInitializationStarted")).says_after(
        20,
        Verdict::Waiting,
        "(140 s); the BMC shows BootProgress MemoryInitializationStarted",
    );
}

#[test]
fn a_machine_that_runs_another_system_is_told_by_its_boot_progress() {
    let trace = Trace::switched_on().then(60, progress("OSRunning"));

    let said = trace.says_after(50, Verdict::Stuck, "the BMC shows BootProgress OSRunning");

    assert!(said.hint.unwrap().contains("started another system"));
}

#[test]
fn an_error_in_the_log_of_the_bmc_is_a_part_of_the_diagnosis() {
    let trace = Trace::switched_on().then(35, log("OK", "Power on"));
    let said = trace.says_after(60, Verdict::Waiting, "nothing was heard from the machine");
    assert!(!said.text.contains("Power on"), "{}", said.text);
    let trace = trace.then(1, log("Critical", "Memory error at DIMM A1"));

    let text = "; the BMC's log says: Critical: Memory error at DIMM A1";
    let said = trace.says_after(60, Verdict::Waiting, text);
    assert!(said.hint.unwrap().contains("see the log of the BMC"));

    let trace = trace.then(1, log("Warning", "No bootable device found"));
    let said = trace.says_after(60, Verdict::Waiting, "No bootable device found");
    assert!(said.hint.unwrap().contains("HTTP boot is on in its set-up"));
}

#[test]
fn a_job_of_the_boot_is_awaited_and_its_failure_is_the_reason() {
    let trace = Trace::of(BootInterface::Http).then(1, job("Scheduled")).then(5, on());
    let said = trace.says_after(100, Verdict::Waiting, "JID_1 is Scheduled");
    assert!(said.hint.unwrap().contains("restarts once more"));

    let text = "the BMC's job /redfish/v1/TaskService/Tasks/JID_1 is Failed: Unable to apply";
    trace.then(60, job("Failed")).says_after(0, Verdict::Stuck, text);
}

#[test]
fn what_a_bmc_shows_of_firmware_does_not_hide_what_became_of_the_fetch() {
    let trace = Trace::switched_on()
        .then(31, progress("OSBootStarted"))
        .address()
        .then(5, fetched(Artifact::BootLoader));

    let said = trace.says_after(45, Verdict::Waiting, "the ramdisk was fetched but");

    assert!(!said.text.contains("BootProgress"), "{}", said.text);
}

/// The machine is switched on.
fn on() -> BootEventKind {
    redfish(RedfishPurpose::PowerOn, "POST", Some(204), None)
}

// Shared test helpers.

/// A trace that grows, for one boot interface and loader.
struct Trace {
    procedure: Procedure,
    boot_interface: BootInterface,
    loader: HttpLoader,
    events: Vec<BootEvent>,
}

impl Trace {
    /// The decision to boot for a clean.
    fn of(boot_interface: BootInterface) -> Self {
        let trace = Self::empty(Procedure::Clean, boot_interface);
        trace.then(0, state(State::Manageable, State::Cleaning, None))
    }

    fn empty(procedure: Procedure, boot_interface: BootInterface) -> Self {
        Self { procedure, boot_interface, loader: HttpLoader::Uki, events: Vec::new() }
    }

    fn switched_on() -> Self {
        Self::of(BootInterface::Http)
            .then(1, on())
            .then(0, state(State::Cleaning, State::CleanWait, None))
    }

    /// A clean from the virtual CD drive, whose machine is on.
    fn with_media() -> Self {
        Self::of(BootInterface::RedfishVirtualMedia)
            .then(1, on())
            .then(0, state(State::Cleaning, State::CleanWait, None))
    }

    fn running() -> Self {
        Self::switched_on()
            .address()
            .then(5, fetched(Artifact::BootLoader))
            .then(9, agent(AgentCall::Heartbeat, alive()))
    }

    fn address(self) -> Self {
        let ack = ack(Some(Artifact::BootLoader));
        self.then(9, offer()).then(0, dhcp(ClientKind::HttpClient, Some(X64_HTTP), ack))
    }

    fn loader(self, loader: HttpLoader) -> Self {
        Self { loader, ..self }
    }

    fn then(mut self, seconds: i64, what: BootEventKind) -> Self {
        let at = self.last() + SignedDuration::from_secs(seconds);
        self.events.push(BootEvent { at, attempt: Uuid::nil(), what });
        self
    }

    fn last(&self) -> Timestamp {
        let start = || "2026-01-01T00:00:00Z".parse().unwrap();
        self.events.last().map_or_else(start, |event| event.at)
    }

    fn first(&self) -> Timestamp {
        self.events.first().map_or_else(|| self.last(), |event| event.at)
    }

    fn said_after(&self, seconds: i64) -> Option<Diagnosis> {
        let now = self.last() + SignedDuration::from_secs(seconds);
        self.said_beside(&[], now)
    }

    /// The diagnosis with these strangers on the network.
    fn said_beside(&self, strangers: &[BootingStranger], now: Timestamp) -> Option<Diagnosis> {
        let vicinity = Vicinity { ports: &[PORT], strangers, secure_boot: None };
        let method = BootMethod {
            procedure: self.procedure,
            interface: self.boot_interface,
            loader: self.loader,
        };
        diagnose(method, &self.events, vicinity, now)
    }

    #[track_caller]
    fn says_after(&self, seconds: i64, verdict: Verdict, text: &str) -> Diagnosis {
        let said = self.said_after(seconds).expect("something is said");
        assert!(said.text.contains(text), "{}", said.text);
        assert_eq!(said.verdict, verdict);
        said
    }

    #[track_caller]
    fn says_after_a_silence(&self, verdict: Verdict, text: &str) -> Diagnosis {
        self.says_after(45, verdict, text)
    }
}

fn state(from: State, to: State, reason: Option<TransitionReason>) -> BootEventKind {
    BootEventKind::State { from, to, reason }
}

/// A step asks for a reboot.
fn reboot() -> TransitionReason {
    TransitionReason::StepReboot { extension: AgentExtension::Clean }
}

fn redfish(
    purpose: RedfishPurpose,
    method: &str,
    status: Option<u16>,
    error: Option<&str>,
) -> BootEventKind {
    BootEventKind::Redfish {
        purpose,
        method: method.to_owned().into(),
        path: "/redfish/v1/Systems/1".to_owned(),
        status,
        error: error.map(str::to_owned),
    }
}

fn dhcp(
    client: ClientKind,
    architecture: Option<ClientArchitecture>,
    answer: DhcpAnswer,
) -> BootEventKind {
    let message = match answer {
        DhcpAnswer::Ack { .. } | DhcpAnswer::Nak { .. } => "REQUEST",
        DhcpAnswer::Offer { .. }
        | DhcpAnswer::Beside { .. }
        | DhcpAnswer::NoBoot { .. }
        | DhcpAnswer::Ignored { .. } => "DISCOVER",
    };
    let mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
    BootEventKind::Dhcp {
        message: message.to_owned(),
        mac,
        client,
        architecture,
        answer,
        unlisted: 0,
    }
}

fn told(error: Option<&str>) -> BootEventKind {
    BootEventKind::Provider {
        name: DhcpService::Dnsmasq,
        told: BootAnnouncement::Boot {
            cause: AnnouncementCause::Begin,
            ports: vec![Mac([0x52, 0x54, 0, 0, 0, 1])],
            artifact: Some(Artifact::BootLoader),
            warnings: Vec::new(),
        },
        error: error.map(str::to_owned),
    }
}

fn pxe() -> BootEventKind {
    let answer = DhcpAnswer::NoBoot { because: NoBoot::PxeNotHttp };
    dhcp(ClientKind::PxeClient, Some(ClientArchitecture(7)), answer)
}

fn offer() -> BootEventKind {
    let artifact = Some(Artifact::BootLoader);
    let answer = DhcpAnswer::Offer { address: [192, 0, 2, 7].into(), artifact };
    dhcp(ClientKind::HttpClient, Some(X64_HTTP), answer)
}

fn ack(artifact: Option<Artifact>) -> DhcpAnswer {
    DhcpAnswer::Ack { address: [192, 0, 2, 7].into(), artifact }
}

fn fetched(artifact: Artifact) -> BootEventKind {
    http("GET", Some(artifact), artifact.file_name(), 200, 9_000, 9_000)
}

fn refused(artifact: Option<Artifact>, path: &str, status: u16, error: &str) -> BootEventKind {
    BootEventKind::Http {
        method: HttpMethod::Get,
        artifact,
        path: path.to_owned(),
        remote: Some(Ipv4Addr::new(192, 0, 2, 7).into()),
        user_agent: Some("UefiHttpBoot/1.0".to_owned()),
        status,
        error: Some(error.to_owned()),
        range: None,
        sent: 20,
        length: 20,
        millis: 1,
        tls: None,
    }
}

fn http(
    method: &str,
    artifact: Option<Artifact>,
    path: &str,
    status: u16,
    sent: u64,
    length: u64,
) -> BootEventKind {
    BootEventKind::Http {
        method: method.to_owned().into(),
        artifact,
        path: path.to_owned(),
        remote: Some(Ipv4Addr::new(192, 0, 2, 7).into()),
        user_agent: Some("UefiHttpBoot/1.0".to_owned()),
        status,
        error: None,
        range: None,
        sent,
        length,
        millis: 1,
        tls: None,
    }
}

fn agent(call: AgentCall, outcome: AgentOutcome) -> BootEventKind {
    BootEventKind::Agent { call, outcome, caller: None }
}

fn failed(error: &str) -> AgentOutcome {
    AgentOutcome::Failed { error: error.to_owned() }
}

fn alive() -> AgentOutcome {
    AgentOutcome::Alive {
        callback_url: "https://192.0.2.7:9999/".to_owned(),
        version: "11.1".to_owned(),
        fetches_calls: false,
    }
}

fn found() -> AgentOutcome {
    AgentOutcome::Found { addresses: Vec::new(), more: 0 }
}

/// A call from an address that is known to be the machine's, or not.
fn call(
    call: AgentCall,
    is_known: bool,
    refused: Option<CallRefusal>,
    outcome: AgentOutcome,
) -> BootEventKind {
    BootEventKind::Agent {
        call,
        outcome,
        caller: Some(AgentCaller {
            remote: Ipv4Addr::new(192, 0, 2, 66).into(),
            is_known,
            refused,
            unlisted: 0,
        }),
    }
}

const FOREIGN: &str = "the image was fetched by 192.0.2.7, and the lookup came from 192.0.2.66";

#[test]
fn a_lookup_that_gets_no_token_is_named_with_the_setting_once_the_image_was_fetched() {
    let foreign =
        || call(AgentCall::Lookup, false, Some(CallRefusal::ForeignAddress), failed(FOREIGN));
    let trace =
        || Trace::switched_on().address().then(1, fetched(Artifact::Iso)).then(60, foreign());

    let said = trace().says_after(1, Verdict::Waiting, FOREIGN);
    assert!(said.hint.unwrap().contains("driver_info/agent_networks"));
    trace().says_after(200, Verdict::Stuck, FOREIGN);
    let soon = Trace::switched_on().address().then(1, fetched(Artifact::Iso)).then(1, foreign());
    soon.says_after(0, Verdict::Waiting, FOREIGN);
    let given = call(AgentCall::Lookup, true, None, found());
    assert_eq!(trace().then(1, given).said_after(1), None, "then it got its token");
}

#[test]
fn what_strangers_say_hides_nothing_and_puts_nothing_off() {
    let nobody = "nothing was heard from the machine since it was switched on (60 s)";
    let forged = || {
        call(
            AgentCall::Heartbeat,
            false,
            Some(CallRefusal::WrongToken),
            failed("the token is wrong"),
        )
    };
    let stranger = || call(AgentCall::Lookup, false, None, found());
    let foreign =
        || call(AgentCall::Lookup, false, Some(CallRefusal::ForeignAddress), failed(FOREIGN));

    let trace = Trace::switched_on().then(30, stranger()).then(10, forged());
    let said = trace.says_after(20, Verdict::Waiting, nobody);
    assert!(
        said.text.contains("meanwhile an agent at 192.0.2.66, not known to be"),
        "{}",
        said.text
    );
    let said = Trace::switched_on().then(40, foreign()).says_after(20, Verdict::Waiting, nobody);
    assert!(said.text.ends_with(&format!("meanwhile {FOREIGN}")), "{}", said.text);
}

#[test]
fn the_last_words_of_an_agent_whose_machine_is_being_restarted_are_no_fault() {
    let late = call(AgentCall::Heartbeat, true, Some(CallRefusal::NotNow), failed("not now"));
    let trace = Trace::switched_on().address().then(1, fetched(Artifact::Iso)).then(1, late);
    trace.says_after(200, Verdict::Stuck, "the ramdisk was fetched but the agent never called");
}

/// Number of results of [`any_event`].
pub(crate) const EVENTS: usize = 53;

/// One event of each kind.
pub(crate) fn any_event(pick: usize) -> BootEventKind {
    let ignored = DhcpAnswer::Ignored { because: "busy".to_owned() };
    let nak = DhcpAnswer::Nak { because: "not yours".to_owned() };
    let architecture = |architecture| {
        let because = NoBoot::Architecture { architecture };
        dhcp(ClientKind::HttpClient, Some(architecture), DhcpAnswer::NoBoot { because })
    };
    let not_now = DhcpAnswer::NoBoot { because: NoBoot::NotNow { state: State::Manageable } };
    let events = [
        state(State::Cleaning, State::CleanWait, None),
        state(State::CleanWait, State::Cleaning, Some(reboot())),
        state(State::CleanWait, State::CleanFailed, None),
        state(State::Cleaning, State::Manageable, None),
        redfish(RedfishPurpose::BootOverride, "PATCH", Some(400), Some("no")),
        redfish(RedfishPurpose::BootOverride, "PATCH", Some(204), None),
        redfish(RedfishPurpose::PowerOn, "POST", None, Some("time-out")),
        pxe(),
        offer(),
        dhcp(ClientKind::HttpClient, Some(X64_HTTP), ack(None)),
        dhcp(ClientKind::Ipxe, None, ignored),
        dhcp(ClientKind::Grub, None, nak),
        dhcp(ClientKind::HttpClient, None, not_now),
        fetched(Artifact::BootLoader),
        refused(None, "x", 404, "no"),
        http("GET", Some(Artifact::Kernel), "kernel", 200, 1, u64::MAX),
        agent(AgentCall::Heartbeat, alive()),
        agent(AgentCall::Lookup, failed("refused")),
        architecture(ClientArchitecture(0x13)),
        dhcp(ClientKind::System, None, ack(None)),
        told(None),
        told(Some("no such socket")),
    ];
    let mut events = Vec::from(events);
    events
        .extend(reasons().map(|reason| state(State::CleanWait, State::CleanFailed, Some(reason))));
    events.extend(calls().map(|(call, outcome)| agent(call, outcome)));
    assert_eq!(events.len(), EVENTS);
    events.into_iter().nth(pick).unwrap()
}

fn reasons() -> impl Iterator<Item = TransitionReason> {
    use provision::Procedure;
    let text = || "why".to_owned();
    [
        TransitionReason::Step { step: text() },
        TransitionReason::BootMissed,
        TransitionReason::Aborted { procedure: Procedure::Clean },
        TransitionReason::NotVerified { error: text() },
        TransitionReason::NotBooted { error: text() },
        TransitionReason::BmcStepFailed { step: "bios.enable_http_boot".to_owned(), error: text() },
        TransitionReason::StepNotOffered {
            extension: AgentExtension::Clean,
            step: text(),
            offered: vec![text(), text()],
            more: 0,
        },
        TransitionReason::AgentUnreachable { error: text() },
        TransitionReason::RamdiskSilent { seconds: 1_800, diagnosis: Some(text()) },
        TransitionReason::ImageNotFetched { seconds: 1_800, diagnosis: None },
        TransitionReason::NotSwitchedOff { procedure: Procedure::Undeploy, error: text() },
        TransitionReason::InWords { words: text() },
        TransitionReason::StepReboot { extension: AgentExtension::Service },
        TransitionReason::StepNotOffered {
            extension: AgentExtension::Deploy,
            step: text(),
            offered: Vec::new(),
            more: 2,
        },
    ]
    .into_iter()
    .chain(step_failures().map(|failure| TransitionReason::StepFailed { failure }))
}

fn step_failures() -> impl Iterator<Item = StepFailure> {
    let text = || "erase_devices".to_owned();
    let extension = AgentExtension::Service;
    [
        StepFailure::NotReported { extension, command: CommandFailure::StillRuns },
        StepFailure::NotReported { extension, command: CommandFailure::OtherVersion },
        StepFailure::BadList { extension, error: text() },
        StepFailure::Ended { extension, step: text(), command: CommandFailure::NoReason },
        step_failure("why"),
        StepFailure::Forgotten,
        StepFailure::OtherVersion { step: text() },
        StepFailure::BadCertificate { error: text() },
        StepFailure::CallRefused { status: 400, words: text() },
    ]
    .into_iter()
}

fn calls() -> impl Iterator<Item = (AgentCall, AgentOutcome)> {
    let text = || "erase_devices".to_owned();
    let addresses = vec![Mac([2, 0, 0, 0, 0, 1])];
    let answer = AgentOutcome::Alive {
        callback_url: "http://192.0.2.7/".to_owned(),
        version: text(),
        fetches_calls: true,
    };
    [
        (AgentCall::Lookup, AgentOutcome::Found { addresses, more: 3 }),
        (AgentCall::Heartbeat, answer),
        (AgentCall::ListCommands, AgentOutcome::Failed { error: text() }),
        (AgentCall::GetSteps { extension: AgentExtension::Clean }, AgentOutcome::Accepted),
        (
            AgentCall::ExecuteStep { extension: AgentExtension::Service, step: text() },
            AgentOutcome::Accepted,
        ),
        (AgentCall::StepEnded { step: text() }, AgentOutcome::Done),
        (AgentCall::Lookup, AgentOutcome::InWords { words: text() }),
        (AgentCall::StepEnded { step: text() }, AgentOutcome::Failed { error: text() }),
    ]
    .into_iter()
}
