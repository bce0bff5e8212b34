//! Whole boots against the platforms of the emulator.

mod bios;

use std::fmt::Write as _;
use std::time::Duration;

use hardware::{BootChange, BootMode, BootWayKind, HttpMethod, Mac, RedfishPurpose, ShownBootMode};
use http::Method;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::channel::{BmcChannel as _, RedfishRequest};
use crate::emulator::{EmulatedFault, EmulatedPower, FaultRule, NextBoot, Platform};
use crate::facts::BmcFacts;
use crate::in_memory::{InMemoryBmc, MAC};
use crate::machine::RedfishSystem;
use crate::system::SystemPower;

mod odd_bmcs;

pub(crate) const URL: &str = "http://10.0.0.1:8080/boot/x/boot.iso";
const PATIENCE: Duration = Duration::from_secs(300);
const PLAIN: HttpSupport = HttpSupport { ipv6: false, plain: true };

fn macs() -> Vec<Mac> {
    vec![MAC.parse().unwrap()]
}

fn by_url(macs: &[Mac]) -> BootNeed<'_> {
    BootNeed { by_url: true, macs, allows_pxe: false, media: MediaUse::Never, advice: None }
}

fn by_dhcp(macs: &[Mac]) -> BootNeed<'_> {
    BootNeed { by_url: false, ..by_url(macs) }
}

/// What a boot left behind.
#[derive(Debug)]
struct BootCourse {
    way: ChosenWay,
    requests: usize,
}

/// A boot from power off as the daemon makes it: chosen, set, read back, switched on.
async fn boot(bmc: &InMemoryBmc, need: &BootNeed<'_>) -> Result<BootCourse, BootNotSet> {
    let facts = BmcFacts::default();
    let found = RedfishSystem::find(bmc, &facts, None, PATIENCE).await;
    let machine = found.map_err(|error| match error {
        crate::machine::NotOneSystem::Failure(failure) => failure,
        several => panic!("{several}"),
    })?;
    let view = machine.look().await?;
    let way = machine.choose_way(&view, need).await?;
    let uri = need.by_url.then(|| URL.to_owned());
    let wanted = HttpBootOverride::once(uri);
    machine.set_boot(&view, &way, &wanted).await?;
    let read = machine.read_back(&way, &wanted).await?;
    machine.power_on(&read.view).await?;
    machine.await_power(SystemPower::On, Duration::from_secs(90)).await?;
    Ok(BootCourse { way, requests: bmc.requests().len() })
}

/// Its end: switched off and undone. Returns the number of requests.
async fn end(bmc: &InMemoryBmc, changes: &[BootChange]) -> usize {
    let facts = BmcFacts::default();
    let machine = RedfishSystem::find(bmc, &facts, None, PATIENCE).await.unwrap();
    let before = bmc.requests().len();
    let view = machine.look().await.unwrap();
    machine.power_off(&view).await.unwrap();
    let view = machine.await_power(SystemPower::Off, Duration::from_secs(90)).await.unwrap();
    if view.needs_undoing(changes) {
        assert_eq!(machine.undo_boot(&view, changes).await.unwrap(), [""; 0]);
    }
    bmc.requests().len() - before
}

fn words(result: &Result<BootCourse, BootNotSet>, bmc: &InMemoryBmc) -> String {
    match result {
        Ok(course) => {
            format!("{} | {:?} | {} requests", course.way, bmc.booted().unwrap(), course.requests)
        }
        Err(error) => format!("refused: {error}"),
    }
}

#[tokio::test]
async fn each_platform_boots_in_its_best_way() {
    let (mut table, macs) = (String::new(), macs());
    for platform in Platform::ALL {
        let by_media = BootNeed { media: MediaUse::Only, ..by_url(&macs) };
        for (name, need) in [("url", by_url(&macs)), ("dhcp", by_dhcp(&macs)), ("media", by_media)]
        {
            let bmc = InMemoryBmc::new(platform);
            let course = boot(&bmc, &need).await;
            write!(table, "{platform:?} {name}: {}", words(&course, &bmc)).unwrap();
            match course {
                Ok(course) => {
                    writeln!(table, ", {} to end", end(&bmc, course.way.changes()).await).unwrap();
                }
                Err(_) => writeln!(table).unwrap(),
            }
        }
    }
    insta::assert_snapshot!(table);
}

#[tokio::test]
async fn what_a_boot_changed_is_undone_on_each_platform() {
    let macs = macs();
    for platform in Platform::ALL {
        for need in [by_url(&macs), by_dhcp(&macs)] {
            let bmc = InMemoryBmc::new(platform);
            let Ok(course) = boot(&bmc, &need).await else { continue };

            end(&bmc, course.way.changes()).await;

            assert_eq!(bmc.power(), EmulatedPower::Off, "{platform:?}");
            // Attributes that wait for a reset are applied by it.
            bmc.press_on();
            let next = bmc.booted().unwrap();
            let is_ours = matches!(&next, NextBoot::Url(url) if url == URL);
            assert!(!is_ours, "{platform:?} {need:?} still boots from {URL}");
        }
    }
}

#[tokio::test]
async fn attributes_that_somebody_else_has_staged_are_not_lost_with_the_job_of_a_boot() {
    const SETTINGS: &str = "/redfish/v1/Systems/System.Embedded.1/Bios/Settings";
    let (bmc, macs) = (InMemoryBmc::new(Platform::DellIdrac9), macs());
    let course = boot(&bmc, &by_url(&macs)).await.unwrap();
    let staged = RedfishRequest {
        purpose: RedfishPurpose::SetBios,
        method: HttpMethod::Patch,
        path: SETTINGS.to_owned(),
        if_match: None,
        body: Some(json!({
            "@Redfish.SettingsApplyTime": {"ApplyTime": "OnReset"},
            "Attributes": {"PxeDev1EnDis": "Disabled"},
        })),
    };
    bmc.pause(Duration::from_secs(600)).await;
    assert!(bmc.exchange(&staged).await.unwrap().status.is_success());

    end(&bmc, course.way.changes()).await;

    let pending = &bmc.resource(SETTINGS)["Attributes"];
    assert_eq!(pending["PxeDev1EnDis"], "Disabled", "{pending}");
    assert_eq!(pending["HttpDev1Uri"], "", "{pending}");
}

#[tokio::test]
async fn a_boot_order_is_as_before_after_the_boot() {
    let order = |bmc: &InMemoryBmc| {
        bmc.resource("/redfish/v1/Systems/System_0")["Boot"]["BootOrder"].clone()
    };
    let bmc = InMemoryBmc::with_cards(Platform::OpenBmc, &["52:54:00:00:00:02", MAC]);
    let macs = macs();
    // Only the settings resource shows the order before the first start.
    bmc.press_on();
    let before = order(&bmc);
    end(&bmc, &[]).await;

    let course = boot(&bmc, &by_dhcp(&macs)).await.unwrap();
    assert_ne!(order(&bmc), before);
    assert_eq!(bmc.booted(), Some(NextBoot::Http { nic: 1 }));
    end(&bmc, course.way.changes()).await;
    bmc.press_on();

    assert_eq!(course.way.kind(), BootWayKind::BootOrder);
    assert_eq!(order(&bmc), before);
}

#[tokio::test]
async fn a_changed_resource_that_the_bmc_does_not_have_any_more_needs_no_undoing() {
    let bmc = InMemoryBmc::new(Platform::DellIdrac9);
    let gone = "/redfish/v1/Systems/Old".to_owned();
    let order = BootChange::Order {
        resource: gone.clone(),
        property: "BootOrder".to_owned(),
        before: vec!["Boot0001".to_owned()],
    };
    let url = BootChange::BiosUrl { settings: gone.clone(), attribute: "HttpDev1Uri".to_owned() };

    end(&bmc, &[order, url, BootChange::Media { drive: gone }]).await;

    assert_eq!(bmc.power(), EmulatedPower::Off);
}

#[tokio::test]
async fn a_url_in_the_bios_that_firmware_prefers_to_dhcps_is_named_without_its_secret() {
    let (macs, url) = (macs(), "http://old.example/secret/boot.iso");
    for (platform, attributes) in [
        (Platform::DellIdrac9, json!({"HttpDev1EnDis": "Enabled", "HttpDev1Uri": url})),
        (Platform::HpeIlo5, json!({"UrlBootFile": url})),
        (Platform::HpeIlo6, json!({"UrlBootFile": url})),
    ] {
        let leftover = EmulatedFault::Merge(json!({"Attributes": attributes}));
        let rule = FaultRule { path: "**ios".to_owned(), ..FaultRule::always(leftover) };
        let bmc = InMemoryBmc::new(platform).with_faults(vec![rule]);

        let course = boot(&bmc, &by_dhcp(&macs)).await.unwrap();

        let words = course.way.to_string();
        assert!(words.contains("has a URL at old.example that this boot does not set"), "{words}");
        assert!(!words.contains("secret"), "{words}");
        let fresh = InMemoryBmc::new(platform);
        let course = boot(&fresh, &by_dhcp(&macs)).await.unwrap();
        assert!(!course.way.to_string().contains("has a URL"), "{platform:?}");
    }
}

#[tokio::test]
async fn an_idrac9_before_6_00_boots_its_virtual_cd_by_its_own_attribute() {
    let macs = macs();
    let need = BootNeed { media: MediaUse::Only, ..by_url(&macs) };
    for (firmware, by_attribute) in
        [("5.10.50.00", true), ("3.36.36.36", true), ("6.10.30.00", false), ("1.20.50.50", false)]
    {
        let version = EmulatedFault::Merge(json!({"FirmwareVersion": firmware}));
        let path = "/redfish/v1/Managers/iDRAC.Embedded.1".to_owned();
        let rule = FaultRule { path, ..FaultRule::always(version) };
        let bmc = InMemoryBmc::new(Platform::DellIdrac9).with_faults(vec![rule]);

        let course = boot(&bmc, &need).await.unwrap();

        assert_eq!(bmc.booted(), Some(NextBoot::Cd(URL.to_owned())), "{firmware}");
        let patched = bmc
            .requests()
            .iter()
            .any(|it| it.starts_with("PATCH") && it.contains("/DellAttributes/"));
        assert_eq!(patched, by_attribute, "{firmware}");
        end(&bmc, course.way.changes()).await;
        bmc.press_on();
        assert!(!matches!(bmc.booted(), Some(NextBoot::Cd(_))), "{firmware}");
    }
}

#[tokio::test]
async fn a_boot_device_is_set_and_shown_on_each_platform_that_allows_it() {
    let mut table = String::new();
    for platform in Platform::ALL {
        let bmc = InMemoryBmc::new(platform);
        let facts = BmcFacts::default();
        let machine = RedfishSystem::find(&bmc, &facts, None, PATIENCE).await.unwrap();
        let view = machine.look().await.unwrap();
        let names: Vec<_> = machine.boot_devices(&view).await.unwrap();
        let names: Vec<_> = names.into_iter().map(BootDevice::name).collect();
        writeln!(table, "{platform:?} allows {}", names.join(" ")).unwrap();
        let none = machine.boot_device(&view).await.unwrap();
        assert_eq!(none, ShownBootDevice { device: None, persistent: None }, "{platform:?}");
        for device in [BootDevice::Pxe, BootDevice::Disk, BootDevice::Floppy] {
            for enabled in [OverrideEnabled::Once, OverrideEnabled::Continuous] {
                let view = machine.look().await.unwrap();
                let words = match machine.set_boot_device(&view, device, enabled).await {
                    Ok(()) => {
                        let view = machine.look().await.unwrap();
                        let shown = machine.boot_device(&view).await.unwrap();
                        let name = shown.device.map(BootDevice::name);
                        format!("{name:?}, persistent {:?}", shown.persistent)
                    }
                    Err(error) => format!("refused: {error}"),
                };
                writeln!(table, "  {device} {}: {words}", enabled.name()).unwrap();
            }
        }
    }
    insta::assert_snapshot!(table);
}

#[tokio::test]
async fn a_boot_mode_is_set_where_it_is_writable_and_refused_with_a_reason_elsewhere() {
    let mut table = String::new();
    for platform in Platform::ALL {
        for mode in [BootMode::Bios, BootMode::Uefi] {
            let bmc = InMemoryBmc::new(platform);
            let facts = BmcFacts::default();
            let machine = RedfishSystem::find(&bmc, &facts, None, PATIENCE).await.unwrap();
            let view = machine.look().await.unwrap();
            let done = machine.set_boot_mode(&view, mode).await;
            let words = done
                .map_or_else(|error| format!("refused: {error}"), |effect| format!("{effect:?}"));
            writeln!(table, "{platform:?} {mode}: {words}").unwrap();
        }
    }
    insta::assert_snapshot!(table);
}

#[tokio::test]
async fn a_machine_in_bios_mode_keeps_it_when_its_boot_device_is_set() {
    let bmc = InMemoryBmc::new(Platform::Supermicro);
    let facts = BmcFacts::default();
    let machine = RedfishSystem::find(&bmc, &facts, None, PATIENCE).await.unwrap();
    for device in [BootDevice::Disk, BootDevice::Cdrom] {
        let view = machine.look().await.unwrap();
        machine.set_boot_device(&view, device, OverrideEnabled::Continuous).await.unwrap();
        let view = machine.look().await.unwrap();
        machine.set_boot_mode(&view, BootMode::Bios).await.unwrap();
    }

    let view = machine.look().await.unwrap();
    machine.set_boot_device(&view, BootDevice::Disk, OverrideEnabled::Once).await.unwrap();

    assert_eq!(bmc.resource(SYSTEM)["Boot"]["BootSourceOverrideMode"], "Legacy");
}

#[tokio::test]
async fn an_interrupt_whose_answer_is_lost_is_not_sent_again() {
    let lost = FaultRule::on(&Method::POST, RESET, EmulatedFault::CutAfter).times(1);
    let bmc = InMemoryBmc::new(Platform::Generic).with_faults(vec![lost]);
    bmc.press_on();
    let facts = BmcFacts::default();
    let machine = RedfishSystem::find(&bmc, &facts, None, PATIENCE).await.unwrap();
    let view = machine.look().await.unwrap();

    let failure = machine.interrupt(&view).await.unwrap_err();

    assert!(failure.may_be_done());
    let resets = bmc.requests().iter().filter(|it| it.starts_with("POST")).count();
    assert_eq!(resets, 1);
}

fn answer(status: u16, body: Option<Value>, retry_after_secs: Option<u32>) -> EmulatedFault {
    EmulatedFault::Answer { status, body, retry_after_secs, location: None }
}

fn message(id: &str) -> Option<Value> {
    Some(json!({"error": {"@Message.ExtendedInfo": [{"MessageId": id}]}}))
}

const SYSTEM: &str = "/redfish/v1/Systems/1";
const RESET: &str = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";

/// Odd manners of real BMCs.
fn manners() -> Vec<(&'static str, Vec<FaultRule>)> {
    use EmulatedFault as Fault;
    let get = |fault| FaultRule::on(&Method::GET, SYSTEM, fault);
    let patch = |fault| FaultRule::on(&Method::PATCH, SYSTEM, fault);
    let reset = |fault| FaultRule::on(&Method::POST, RESET, fault);
    let merge =
        |value| FaultRule { path: SYSTEM.to_owned(), ..FaultRule::always(Fault::Merge(value)) };
    let page = || Fault::Body(json!("<html><title>iLO is starting</title></html>"));
    let list = "BootSourceOverrideTarget@Redfish.AllowableValues";
    vec![
        ("well", vec![]),
        ("503 with Retry-After, thrice", vec![get(answer(503, None, Some(5))).times(3)]),
        ("503 for 45 s", vec![get(answer(503, None, None)).times(6)]),
        ("503 to the PATCH", vec![patch(answer(503, None, Some(5))).times(1)]),
        ("500 once", vec![get(answer(500, None, None)).times(1)]),
        ("500 always", vec![get(answer(500, None, None))]),
        ("GET cut twice", vec![get(Fault::CutAfter).times(2)]),
        ("GET cut always", vec![get(Fault::CutAfter)]),
        ("PATCH cut", vec![patch(Fault::CutAfter).times(1)]),
        ("Reset cut, done", vec![reset(Fault::CutAfter).times(1)]),
        ("Reset cut, not done", vec![reset(Fault::CutBefore).times(1)]),
        ("weak ETags", vec![FaultRule::always(Fault::WeakEtags)]),
        ("no ETags, If-Match refused", vec![FaultRule::always(Fault::NoEtags)]),
        ("PATCH with a task", vec![patch(Fault::Task { secs: 4 })]),
        ("PATCH 202 without Location", vec![patch(Fault::AcceptedWithoutTask)]),
        ("Reset 202 without Location", vec![reset(Fault::AcceptedWithoutTask)]),
        ("Reset with a task", vec![reset(Fault::Task { secs: 4 })]),
        (
            "in POST",
            vec![
                patch(answer(400, message("iLO.2.14.UnableToModifyDuringSystemPOST"), None))
                    .times(3),
            ],
        ),
        ("power shown after 60 s", vec![get(Fault::PowerLate { secs: 60, looks: 0 })]),
        ("PoweringOn for 30 s", vec![get(Fault::PowerChanging { secs: 30 })]),
        ("Reset 409 twice", vec![reset(answer(409, None, None)).times(2)]),
        ("Reset 409 always", vec![reset(answer(409, None, None))]),
        ("a web page once", vec![get(page()).times(1)]),
        ("a web page always", vec![get(page())]),
        ("no PowerState", vec![merge(json!({"PowerState": null}))]),
        ("no AllowableValues", vec![merge(json!({"Boot": {list: null}}))]),
        (
            "null among AllowableValues",
            vec![merge(json!({"Boot": {list: ["None", null, "UefiHttp"]}}))],
        ),
        ("forgets the override", vec![patch(Fault::ForgetPatch)]),
        ("wrong password", vec![FaultRule::always(answer(401, None, None))]),
        (
            "mode read-only",
            vec![patch(answer(400, message("Base.1.8.PropertyNotWritable"), None)).times(1)],
        ),
    ]
}

#[tokio::test]
async fn odd_manners_are_met_with_patience() {
    let (mut table, macs) = (String::new(), macs());
    for (name, faults) in manners() {
        let bmc = InMemoryBmc::new(Platform::Generic).with_faults(faults);
        let course = boot(&bmc, &by_url(&macs)).await;
        let end = match course {
            Ok(_) => "boots".to_owned(),
            Err(error) => format!("{error}"),
        };
        let (requests, waited) = (bmc.requests().len(), bmc.waited().as_secs());
        writeln!(table, "{name}: {end} ({requests} requests, {waited} s)").unwrap();
    }
    insta::assert_snapshot!(table);
}

#[tokio::test]
async fn a_path_that_moved_on_the_same_host_is_followed_and_another_host_is_named() {
    let moved = |location: &str| EmulatedFault::Answer {
        status: 308,
        body: None,
        retry_after_secs: None,
        location: Some(location.to_owned()),
    };
    let facts = BmcFacts::default();
    for (location, expected) in [
        ("/redfish/v1/Systems/1/", Ok(())),
        ("https://bmc.example/redfish/v1/Systems/1/", Ok(())),
        (
            "https://elsewhere.example/redfish/v1/Systems/1",
            Err(
                "it redirects to \"https://elsewhere.example/redfish/v1/Systems/1\": if that is the BMC, set redfish_address to it",
            ),
        ),
    ] {
        let rule = FaultRule::on(&Method::GET, SYSTEM, moved(location)).times(1);
        let bmc = InMemoryBmc::new(Platform::Generic).with_faults(vec![rule]);
        let machine = RedfishSystem::find(&bmc, &facts, Some(SYSTEM), PATIENCE).await.unwrap();

        let looked = machine.look().await.map(drop);

        match expected {
            Ok(()) => assert_eq!(looked, Ok(())),
            Err(words) => assert!(looked.unwrap_err().to_string().ends_with(words)),
        }
    }
}

#[tokio::test]
async fn a_machine_that_is_in_that_state_already_is_no_failure() {
    let refusal = answer(409, message("IDRAC.2.8.PSU501"), None);
    let bmc = InMemoryBmc::new(Platform::Generic).with_faults(vec![FaultRule::on(
        &Method::POST,
        RESET,
        refusal,
    )]);
    let facts = BmcFacts::default();
    let machine = RedfishSystem::find(&bmc, &facts, None, PATIENCE).await.unwrap();
    let view = machine.look().await.unwrap();
    bmc.press_on();

    machine.power_on(&view).await.unwrap();

    assert_eq!(bmc.waited(), Duration::ZERO);
}

#[tokio::test]
async fn a_bmc_with_several_systems_is_not_guessed_about() {
    let link = |id: &str| json!({"@odata.id": format!("/redfish/v1/Systems/{id}")});
    let systems = json!({"@odata.id": "/redfish/v1/Systems", "Members": [link("1"), link("2")]});
    let bmc = InMemoryBmc::recorded([("/redfish/v1/Systems".to_owned(), systems)]);
    let facts = BmcFacts::default();

    let several = RedfishSystem::find(&bmc, &facts, None, PATIENCE).await.map(drop).unwrap_err();

    assert_eq!(
        several.to_string(),
        "the BMC has 2 systems: set redfish_system_id in driver_info to one of \
         /redfish/v1/Systems/1, /redfish/v1/Systems/2"
    );
}

/// JSON of any shape, from the names and values that the client looks for.
fn any_json() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "On",
        "Off",
        "UEFI",
        "Legacy",
        "UefiHttp",
        "UefiTarget",
        "Pxe",
        "Once",
        "Disabled",
        "Running",
        "",
        "/",
        SYSTEM,
        URL,
        "Dell Inc.",
        "HPE",
        "CD",
        "Boot0001",
        "MAC(525400000001,0x1)/IPv4(0.0.0.0)/Uri()",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        words.prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    let names = prop::sample::select(vec![
        "@odata.id",
        "@odata.etag",
        "PowerState",
        "Boot",
        "Actions",
        "Manufacturer",
        "Members",
        "#ComputerSystem.Reset",
        "target",
        "ResetType@Redfish.AllowableValues",
        "@Redfish.ActionInfo",
        "@Redfish.Settings",
        "SettingsObject",
        "HttpBootUri",
        "BootOrder",
        "BootOptions",
        "BootOptionReference",
        "UefiDevicePath",
        "BootSourceOverrideEnabled",
        "BootSourceOverrideEnabled@Redfish.AllowableValues",
        "BootSourceOverrideMode",
        "BootSourceOverrideTarget",
        "BootSourceOverrideTarget@Redfish.AllowableValues",
        "UefiTargetBootSourceOverride@Redfish.AllowableValues",
        "Bios",
        "Attributes",
        "HttpDev1Uri",
        "HttpDev1EnDis",
        "UrlBootFile",
        "RegistryEntries",
        "AttributeName",
        "Value",
        "ValueName",
        "EthernetInterfaces",
        "MACAddress",
        "Id",
        "VirtualMedia",
        "MediaTypes",
        "Links",
        "ManagedBy",
        "Image",
        "Inserted",
        "Vendor",
        "Oem",
        "Hpe",
        "Manager",
        "ManagerType",
        "TaskState",
        "JobState",
        "error",
        "message",
        "Message",
        "MessageId",
        "@Message.ExtendedInfo",
    ]);
    leaf.prop_recursive(5, 96, 10, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(names.clone().prop_map(str::to_owned), inner, 0..16)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// All that the client does with a BMC, whatever it answers.
async fn do_everything(bmc: &InMemoryBmc, resources: usize) {
    let (facts, macs) = (BmcFacts::default(), macs());
    let found = RedfishSystem::find(bmc, &facts, Some(SYSTEM), Duration::from_secs(10)).await;
    let Ok(machine) = found else { return };
    let Ok(view) = machine.look().await else { return };
    let all = [by_url(&macs), by_dhcp(&macs)].into_iter().flat_map(|need| {
        [MediaUse::Never, MediaUse::AsFallback, MediaUse::Only].map(|media| BootNeed {
            media,
            advice: Some(PLAIN),
            allows_pxe: resources.is_multiple_of(2),
            ..need
        })
    });
    for need in all {
        let Ok(way) = machine.choose_way(&view, &need).await else { continue };
        let wanted = HttpBootOverride::once(need.by_url.then(|| URL.to_owned()));
        let _ = machine.set_boot(&view, &way, &wanted).await;
        let _ = machine.read_back(&way, &wanted).await;
        let _ = machine.undo_boot(&view, way.changes()).await;
    }
    let _ = machine.boot_device(&view).await;
    for device in machine.boot_devices(&view).await.unwrap_or_default() {
        let _ = machine.set_boot_device(&view, device, OverrideEnabled::Once).await;
    }
    let _ = machine.set_boot_mode(&view, BootMode::Bios).await;
    let _ = machine.power_on(&view).await;
    let _ = machine.shut_down(&view).await;
    let _ = machine.interrupt(&view).await;
    let _ = machine.power_off(&view).await;
}

proptest! {
    #[test]
    fn nothing_that_a_bmc_answers_makes_the_client_panic(
        bodies in prop::collection::vec(any_json(), 1..4), statuses in prop::collection::vec(200..600u16, 0..6),
    ) {
        let rules = bodies.iter().map(|body| FaultRule::always(EmulatedFault::Body(body.clone())).times(3));
        let odd = statuses.iter().map(|status| {
            FaultRule { after: u32::from(*status % 7), ..FaultRule::always(answer(*status, None, None)).times(1) }
        });
        let last = FaultRule::always(EmulatedFault::Body(bodies[0].clone()));
        let faults = odd.chain(rules).chain([last]).collect();
        let bmc = InMemoryBmc::new(Platform::Generic).with_faults(faults);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(do_everything(&bmc, bodies.len()));
    }
}
