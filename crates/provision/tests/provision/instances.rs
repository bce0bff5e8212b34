//! Instances: booted from their own image, as long as they exist.

use hardware::{ClientArchitecture, ClientKind};
use provision::boot::{DhcpBoot, Means, NoBoot, bootable, kernel_command_line};
use provision::event::VerbRequest;
use provision::{
    Artifact, BootInterface, Event, PowerState, ProvisionState as State, Refused, Verb, Work,
    boot_for,
};
use serde_json::json;
use uuid::Uuid;

use crate::situations::{active, available, deleting, deploy_failed_and_torn_down, deploy_waiting};
use crate::world::World;

const MEANS: Means<'_> = Means { boot_sets: &[], tftp: false };

/// A node whose instance boots a kernel and a ramdisk.
fn with_kernel(mut world: World) -> World {
    let info = json!({ "kernel": "http://192.0.2.1/kernel", "ramdisk": "http://192.0.2.1/initrd" });
    world.node.instance_info = info.as_object().unwrap().clone();
    world
}

#[test]
fn a_node_is_active_once_its_image_was_fetched_whole() {
    let mut world = available();
    world.happens(Verb::Deploy);
    let attempt = world.attempt().id;
    assert_eq!(world.planned, Some(Work::Boot { attempt }));
    assert_eq!(world.node.target_provision_state, Some(State::Active));

    world.is_done(Event::Booting { attempt });
    assert_eq!(world.node.provision_state, State::DeployWait);
    world.happens(Event::ImageFetched { attempt });

    assert_eq!(world.node.provision_state, State::Active);
    assert_eq!((world.node.target_provision_state, &world.planned), (None, &None));
    assert!(bootable(&world.node).is_some(), "its image can be fetched at each later boot");
}

#[test]
fn an_image_that_is_never_fetched_fails_the_deployment_with_what_the_trace_says() {
    let mut world = deploy_waiting();
    let attempt = world.attempt().id;
    world.passes(1_801);
    let why = Some("the firmware never asked for it".to_owned());

    world.happens(Event::Tick { silence: world.silence(), why });

    assert_eq!(world.node.provision_state, State::DeployFailed);
    assert_eq!(
        world.node.last_error.as_deref(),
        Some("the image was not fetched whole within 1800 s: the firmware never asked for it")
    );
    assert_eq!(world.planned, Some(Work::TearDown { attempt }));
    assert!(!world.node.maintenance, "a failed deployment is the instance's trouble");
    assert_eq!(bootable(&world.node), None);
}

#[test]
fn no_agent_is_told_anything_by_an_instance() {
    let mut world = deploy_waiting();
    for call in [world.lookup(), world.heartbeat()] {
        assert!(matches!(world.tries(&call), Err(Refused::NoAgentExpected { .. })));
    }
    let world = with_kernel(world);
    let line =
        kernel_command_line(&world.node, world.attempt(), "http://api", "console=ttyS0", None);
    assert_eq!(line.unwrap(), "console=ttyS0");
}

#[test]
fn the_instances_own_kernel_arguments_come_before_the_nodes() {
    let mut world = with_kernel(deploy_waiting());
    let line = |world: &World| {
        kernel_command_line(&world.node, world.attempt(), "http://api", "quiet", None).unwrap()
    };
    world.node.driver_info.insert("kernel_append_params".into(), json!("debug"));
    assert_eq!(line(&world), "debug");
    let own = json!("root=live %default%");
    world.node.instance_info.insert("kernel_append_params".into(), own);
    assert_eq!(line(&world), "root=live quiet");
}

#[test]
fn each_later_boot_is_an_attempt_of_its_own_with_the_same_ticket() {
    let mut world = active();
    let first = world.attempt().clone();
    let next = Uuid::from_u128(0xB007);

    world.happens(Event::InstanceBoots { attempt: first.id, next });

    assert_eq!((world.attempt().id, &world.attempt().ticket), (next, &first.ticket));
    assert_eq!(world.attempt().image_fetched_at, None);
    let twice = Event::InstanceBoots { attempt: next, next: Uuid::from_u128(0xB008) };
    assert_eq!(world.tries(&twice), Err(Refused::Stale), "the same boot goes on");
    world.happens(Event::ImageFetched { attempt: next });
    assert_eq!(world.node.provision_state, State::Active);
}

#[test]
fn what_is_undeployed_is_cleaned_and_available_and_its_ticket_is_void_at_once() {
    let mut world = active();
    world.node.kept.insert("instance_uuid".into(), json!("i"));
    let attempt = world.attempt().id;

    world.happens(Verb::Undeploy);
    assert_eq!(world.node.provision_state, State::Deleting);
    assert_eq!(bootable(&world.node), None);
    assert_eq!(world.planned, Some(Work::TearDown { attempt }));

    world.is_done(Event::TornDown { attempt });
    assert_eq!(world.node.provision_state, State::Cleaning);
    assert_eq!(world.node.target_provision_state, Some(State::Available));
    assert!(world.node.instance_info.is_empty() && !world.node.kept.contains_key("instance_uuid"));
    assert_ne!(world.attempt().id, attempt);
    let clean = world.attempt().id;
    assert_eq!(world.planned, Some(Work::Boot { attempt: clean }));
}

#[test]
fn what_is_undeployed_without_a_clean_is_available_once_it_is_off() {
    let mut world = deleting();
    world.node.automated_clean = Some(false);
    let attempt = world.attempt().id;

    world.is_done(Event::TornDown { attempt });

    assert_eq!(world.node.provision_state, State::Available);
    assert_eq!(world.node.power_state, Some(PowerState::Off));
    assert_eq!(world.node.live_attempt(), None);
}

#[test]
fn a_failed_deployment_that_is_undeployed_is_cleaned_at_once() {
    let mut world = deploy_failed_and_torn_down();
    let outcome = world.happens(Verb::Undeploy);
    assert_eq!(world.node.provision_state, State::Cleaning);
    assert_eq!(world.node.last_error, None);
    let changes: Vec<_> = outcome.trace.iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["deploy failed → deleting", "deleting → cleaning"]);
}

#[test]
fn a_rebuild_boots_in_a_new_attempt_and_voids_the_ticket_before() {
    let mut world = active();
    let before = world.attempt().ticket.clone();
    world.happens(Verb::Rebuild);
    assert_eq!(world.node.provision_state, State::Deploying);
    assert_ne!(world.attempt().ticket, before);
}

#[test]
fn an_instance_that_is_protected_stays() {
    let mut world = active();
    world.node.kept.insert("protected".into(), json!(true));
    for verb in [Verb::Rebuild, Verb::Undeploy] {
        assert!(matches!(world.tries(&verb.into()), Err(Refused::Protected { .. })));
    }
}

#[test]
fn a_node_that_names_no_image_or_two_is_refused_in_words_and_stays_available() {
    let both = json!({ "boot_iso": "http://192.0.2.1/a.iso", "kernel": "http://192.0.2.1/k" });
    let half = json!({ "kernel": "http://192.0.2.1/k" });
    for (info, words) in [
        (json!({}), "names no image"),
        (half, "a kernel but no ramdisk"),
        (both, "beside a kernel"),
    ] {
        let mut world = available();
        world.node.instance_info = info.as_object().unwrap().clone();
        let refused = world.tries(&Verb::Deploy.into()).unwrap_err();
        assert!(refused.to_string().contains(words), "{refused}");
        assert_eq!(world.node.provision_state, State::Available);
    }
    let mut world = available();
    world.node.kept.insert("deploy_interface".into(), json!("direct"));
    let refused = world.tries(&Verb::Deploy.into()).unwrap_err();
    assert!(refused.to_string().contains("deploy_interface"), "{refused}");
}

#[test]
fn a_config_drive_goes_with_kernel_and_ramdisk_and_not_with_an_iso() {
    let config_drive = Some(json!({ "meta_data": { "hostname": "web" } }));
    let with_drive = || {
        Event::VerbAsked(VerbRequest { config_drive: config_drive.clone(), ..Verb::Deploy.into() })
    };

    let refused = available().tries(&with_drive()).unwrap_err();
    assert!(refused.to_string().contains("ISO image"), "{refused}");

    let mut world = with_kernel(available());
    world.happens(with_drive());
    assert_eq!(world.node.instance_info.get("configdrive"), config_drive.as_ref());
}

#[test]
fn an_iso_is_told_over_dhcp_too() {
    for (interface, loader) in
        [(BootInterface::Http, Artifact::BootLoader), (BootInterface::HttpIpxe, Artifact::Ipxe)]
    {
        let mut world = deploy_waiting();
        world.node.attempt.as_mut().unwrap().boot_interface = interface;
        let told = |world: &World, client| {
            boot_for(&world.node, client, Some(ClientArchitecture(16)), MEANS)
        };
        assert_eq!(told(&world, ClientKind::HttpClient), Ok(DhcpBoot::Url(Artifact::Iso)));
        assert_eq!(told(&world, ClientKind::Ipxe), Ok(DhcpBoot::Address));
        assert_eq!(told(&world, ClientKind::PxeClient), Err(NoBoot::PxeNotHttp));
        let world = with_kernel(world);
        assert_eq!(told(&world, ClientKind::HttpClient), Ok(DhcpBoot::Url(loader)));
    }
}

#[test]
fn the_power_of_an_instance_is_its_operators() {
    use provision::state::PowerTarget;

    let mut world = active();
    world.happens(Event::PowerAsked(PowerTarget::Reboot));
    assert_eq!(world.planned, Some(Work::SetPower { target: PowerTarget::Reboot }));
    assert_eq!(world.node.provision_state, State::Active);
}
