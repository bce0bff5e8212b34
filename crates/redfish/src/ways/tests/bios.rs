//! BIOS attributes, boot mode and Secure Boot, against the platforms of the emulator.

use super::*;

/// A clean step for HTTP boot, as the daemon does it: planned, staged, one reset, awaited.
async fn enable_http(bmc: &InMemoryBmc, support: HttpSupport) -> Result<BiosPlan, BiosNotSet> {
    let facts = BmcFacts::default();
    let machine = RedfishSystem::find(bmc, &facts, None, PATIENCE).await.unwrap();
    let wanted = WantedBios::HttpBoot(support);
    let view = machine.look().await?;
    let plan = machine.plan_bios(&view, &wanted).await?;
    if plan.is_done() {
        return Ok(plan);
    }
    let job = machine.stage_bios_plan(&plan).await?;
    machine.power_on(&view).await?;
    machine.await_bios(&wanted, job.as_deref(), PATIENCE).await?;
    let view = machine.look().await?;
    machine.power_off(&view).await?;
    Ok(plan)
}

#[tokio::test]
async fn http_boot_is_enabled_in_the_bios_of_each_platform_by_one_change_and_one_reset() {
    let (mut table, macs) = (String::new(), macs());
    for platform in Platform::ALL {
        let bmc = InMemoryBmc::new(platform);
        let done = enable_http(&bmc, PLAIN).await;
        let words = match &done {
            Ok(plan) => {
                let changes: Vec<_> = plan.changes.iter().map(ToString::to_string).collect();
                format!("{} at {}", changes.join(", "), plan.settings)
            }
            Err(error) => format!("refused: {error}"),
        };
        let patches = bmc.requests().iter().filter(|it| it.starts_with("PATCH")).count();
        let resets =
            bmc.requests().iter().filter(|it| it.ends_with("ComputerSystem.Reset")).count();
        let course = boot(&bmc, &by_dhcp(&macs)).await;
        let booted = course.map(|_| bmc.booted().unwrap()).map_err(|error| error.to_string());
        writeln!(
            table,
            "{platform:?}: {words} | {patches} PATCH, {resets} power changes | {booted:?}"
        )
        .unwrap();
    }
    insta::assert_snapshot!(table);
}

#[tokio::test]
async fn a_bios_that_boots_over_http_already_is_left_alone() {
    let bmc = InMemoryBmc::new(Platform::Supermicro);
    enable_http(&bmc, PLAIN).await.unwrap();
    let before = bmc.requests().len();

    let plan = enable_http(&bmc, PLAIN).await.unwrap();

    assert!(plan.is_done(), "{plan:?}");
    let after = &bmc.requests()[before..];
    assert!(after.iter().all(|request| request.starts_with("GET")), "{after:?}");
}

#[tokio::test]
async fn http_over_ipv6_is_enabled_if_it_is_asked_for() {
    let bmc = InMemoryBmc::new(Platform::LenovoXcc);

    let plan = enable_http(&bmc, HttpSupport { ipv6: true, ..PLAIN }).await.unwrap();

    let names: Vec<_> = plan.changes.iter().map(|change| change.attribute.as_str()).collect();
    assert_eq!(names, ["BootModes_InfiniteBootRetry", "NetworkStackSettings_IPv6HTTPSupport"]);
}

#[tokio::test]
async fn what_somebody_else_has_staged_at_lenovo_is_staged_again_with_the_change() {
    const PENDING: &str = "/redfish/v1/Systems/1/Bios/Pending";
    let bmc = InMemoryBmc::new(Platform::LenovoXcc);
    let staged = RedfishRequest {
        purpose: RedfishPurpose::SetBios,
        method: HttpMethod::Patch,
        path: PENDING.to_owned(),
        if_match: None,
        body: Some(json!({"Attributes": {"NetworkStackSettings_IPv6HTTPSupport": "Enabled"}})),
    };
    assert!(bmc.exchange(&staged).await.unwrap().status.is_success());

    enable_http(&bmc, PLAIN).await.unwrap();

    let attributes = &bmc.resource("/redfish/v1/Systems/1/Bios")["Attributes"];
    assert_eq!(attributes["NetworkStackSettings_IPv6HTTPSupport"], "Enabled");
    assert_eq!(attributes["NetworkStackSettings_IPv4HTTPSupport"], "Enabled");
}

#[tokio::test]
async fn attributes_that_the_reset_does_not_apply_are_named_with_what_they_are() {
    let forgets =
        FaultRule::on(&Method::PATCH, "/redfish/v1/Systems/1/Bios/SD", EmulatedFault::ForgetPatch);
    let bmc = InMemoryBmc::new(Platform::Supermicro).with_faults(vec![forgets]);

    let failed = enable_http(&bmc, PLAIN).await.unwrap_err();

    assert_eq!(
        failed.to_string(),
        "the BMC took the BIOS attributes, but 300 s after the reset IPv4HTTPSupport_00F5 is Disabled, not Enabled"
    );
}

#[tokio::test]
async fn a_target_that_appears_only_after_a_start_in_uefi_mode_is_looked_for_once() {
    let macs = macs();
    let bmc = InMemoryBmc::new(Platform::SupermicroA21ge);
    enable_http(&bmc, PLAIN).await.unwrap();

    let course = boot(&bmc, &by_dhcp(&macs)).await.unwrap();

    assert_eq!(bmc.booted(), Some(NextBoot::Http { nic: 0 }));
    assert!(
        course.way.warnings.iter().any(|it| it.contains("resets the machine once")),
        "{}",
        course.way
    );
    assert!(boot(&bmc, &by_url(&macs)).await.is_err(), "no way for a URL appears");
}

#[tokio::test]
async fn a_target_that_does_not_appear_after_a_start_in_uefi_mode_is_refused_and_the_machine_is_off()
 {
    let macs = macs();
    let forgets = FaultRule::on(&Method::PATCH, SYSTEM, EmulatedFault::ForgetPatch);
    let bmc = InMemoryBmc::new(Platform::SupermicroA21ge).with_faults(vec![forgets]);

    let refused = boot(&bmc, &by_dhcp(&macs)).await.unwrap_err().to_string();

    assert!(refused.contains("UefiHttp is not among them"), "{refused}");
    assert!(refused.contains("even after a start in UEFI mode"), "{refused}");
    assert_eq!(bmc.power(), EmulatedPower::Off);
}

/// After the recording of a Gigabyte H262: no override is set, and its mode is `Legacy`.
fn gigabyte_h262() -> InMemoryBmc {
    let system = "/redfish/v1/Systems/Self";
    let bodies = [
        ("/redfish/v1", json!({"Vendor": "AMI", "Systems": {"@odata.id": "/redfish/v1/Systems"}})),
        ("/redfish/v1/Systems", json!({"Members": [{"@odata.id": system}]})),
        (
            system,
            json!({
                "Manufacturer": "GIGABYTE",
                "Model": "H262-Z63-00",
                "PowerState": "Off",
                "Boot": {
                    "BootSourceOverrideEnabled": "Disabled",
                    "BootSourceOverrideEnabled@Redfish.AllowableValues": ["Disabled", "Once", "Continuous"],
                    "BootSourceOverrideMode": "Legacy",
                    "BootSourceOverrideMode@Redfish.AllowableValues": ["Legacy", "UEFI"],
                    "BootSourceOverrideTarget": "None",
                    "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "Hdd", "UefiHttp"],
                },
                "Actions": {"#ComputerSystem.Reset": {
                    "target": "/redfish/v1/Systems/Self/Actions/ComputerSystem.Reset",
                    "ResetType@Redfish.AllowableValues": ["On", "ForceOff"],
                }},
            }),
        ),
    ];
    InMemoryBmc::recorded(bodies.map(|(path, body)| (path.to_owned(), body)))
}

#[tokio::test]
async fn the_mode_of_an_override_that_is_not_set_refuses_no_boot() {
    let macs = macs();
    let bmc = gigabyte_h262();

    let course = boot(&bmc, &by_dhcp(&macs)).await.unwrap();

    let boot = bmc.resource("/redfish/v1/Systems/Self")["Boot"].clone();
    assert_eq!(boot["BootSourceOverrideMode"], "UEFI", "{boot}");
    assert!(
        course.way.warnings[0].contains("may be in BIOS mode, and UEFI is tried"),
        "{}",
        course.way
    );
    let facts = BmcFacts::default();
    let fresh = gigabyte_h262();
    let machine = RedfishSystem::find(&fresh, &facts, None, PATIENCE).await.unwrap();
    let shown = machine.shown_boot_mode(&machine.look().await.unwrap()).await.unwrap();
    assert_eq!(shown, ShownBootMode::default());
}

#[tokio::test]
async fn secure_boot_is_switched_where_the_bmc_shows_it() {
    let mut table = String::new();
    for platform in Platform::ALL {
        let bmc = InMemoryBmc::new(platform);
        let facts = BmcFacts::default();
        let machine = RedfishSystem::find(&bmc, &facts, None, PATIENCE).await.unwrap();
        let view = machine.look().await.unwrap();
        let before = machine.shown_boot_mode(&view).await.unwrap();
        let done = machine.set_secure_boot(&view, true).await;
        let done = done.map_err(|error| error.to_string());
        let current = |bmc: &InMemoryBmc| {
            let system = platform.system_path("1");
            bmc.resource(&format!("{system}/SecureBoot"))["SecureBootCurrentBoot"].clone()
        };
        let not_yet = current(&bmc);
        bmc.press_on();
        let view = machine.look().await.unwrap();
        let after = machine.shown_boot_mode(&view).await.unwrap();
        writeln!(
            table,
            "{platform:?}: {:?} {:?} | {done:?} | {not_yet} | after a start {:?} {}",
            before.boot_mode,
            before.secure_boot,
            after.secure_boot,
            current(&bmc)
        )
        .unwrap();
    }
    insta::assert_snapshot!(table);
}

#[tokio::test]
async fn secure_boot_is_refused_for_a_machine_in_bios_mode() {
    let bmc = InMemoryBmc::new(Platform::Supermicro);
    let facts = BmcFacts::default();
    let machine = RedfishSystem::find(&bmc, &facts, None, PATIENCE).await.unwrap();
    let view = machine.look().await.unwrap();
    machine.set_boot_device(&view, BootDevice::Disk, OverrideEnabled::Continuous).await.unwrap();
    machine.set_boot_mode(&machine.look().await.unwrap(), BootMode::Bios).await.unwrap();

    let view = machine.look().await.unwrap();
    let refused = machine.set_secure_boot(&view, true).await;

    assert_eq!(refused, Err(SecureBootNotSet::BiosMode));
    assert_eq!(machine.set_secure_boot(&view, false).await, Ok(ModeEffect::Shown));
}

#[tokio::test]
async fn a_boot_mode_that_a_bios_attribute_says_is_set_there_and_applied_by_a_reset() {
    for (platform, attribute, values) in [
        (Platform::DellIdrac9, "BootMode", ["Bios", "Uefi"]),
        (Platform::LenovoXcc, "BootModes_SystemBootMode", ["LegacyMode", "UEFIMode"]),
        (Platform::HpeIlo5, "BootMode", ["LegacyBios", "Uefi"]),
    ] {
        let bmc = InMemoryBmc::new(platform);
        let facts = BmcFacts::default();
        let machine = RedfishSystem::find(&bmc, &facts, None, PATIENCE).await.unwrap();
        for (mode, value) in [BootMode::Bios, BootMode::Uefi].into_iter().zip(values) {
            let view = machine.look().await.unwrap();

            let effect = machine.set_boot_mode(&view, mode).await.unwrap();

            assert_eq!(effect, ModeEffect::AtReset, "{platform:?}");
            bmc.press_on();
            let bios = bmc.resource(&format!("{}/Bios", platform.system_path("1")));
            assert_eq!(bios["Attributes"][attribute], value, "{platform:?}");
            let again = machine.set_boot_mode(&machine.look().await.unwrap(), mode).await;
            assert_eq!(again, Ok(ModeEffect::Shown), "{platform:?} {mode}");
        }
    }
}
