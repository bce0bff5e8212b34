//! BMCs that differ from the standard, each after a report or a recorded tree, with trees of our own.

use std::sync::Mutex;

use http::StatusCode;
use url::Url;

use super::*;
use crate::channel::{BmcChannel, ChannelFailure, RedfishAnswer};

const MANAGER: &str = "/redfish/v1/Managers/1";
const DRIVE: &str = "/redfish/v1/Managers/1/VirtualMedia/CD";
const INSERT: &str = "/redfish/v1/Managers/1/VirtualMedia/CD/Actions/VirtualMedia.InsertMedia";
const EJECT: &str = "/redfish/v1/Managers/1/VirtualMedia/CD/Actions/VirtualMedia.EjectMedia";

/// What an odd BMC does with a request.
enum OddAnswer {
    /// What the recorded one does.
    Usual,
    /// What the recorded one does with another request.
    Of(RedfishRequest),
    /// This.
    Instead(RedfishAnswer),
}

/// A recorded BMC behind a function that sees each request first, with its number among those of the same method.
struct OddBmc<F> {
    inside: InMemoryBmc,
    odd: F,
    seen: Mutex<Vec<RedfishRequest>>,
}

impl<F: Fn(&RedfishRequest, usize) -> OddAnswer + Sync> OddBmc<F> {
    fn new(tree: Vec<(String, Value)>, odd: F) -> Self {
        Self { inside: InMemoryBmc::recorded(tree), odd, seen: Mutex::default() }
    }

    /// The changes and actions so far, without the address of the image.
    fn changes(&self) -> String {
        let seen = self.seen.lock().unwrap();
        let changes = seen.iter().filter(|request| request.method != HttpMethod::Get);
        let words = changes.map(|request| {
            let body = request.body.as_ref().map(Value::to_string).unwrap_or_default();
            let path = request.path.rsplit('/').next().unwrap_or_default();
            format!("  {} {path} {}", request.method.as_str(), body.replace(URL, "URL"))
        });
        words.collect::<Vec<_>>().join("\n")
    }
}

impl<F: Fn(&RedfishRequest, usize) -> OddAnswer + Sync> BmcChannel for OddBmc<F> {
    fn address(&self) -> &Url {
        self.inside.address()
    }

    async fn exchange(&self, request: &RedfishRequest) -> Result<RedfishAnswer, ChannelFailure> {
        let number = {
            let mut seen = self.seen.lock().unwrap();
            seen.push(request.clone());
            seen.iter().filter(|other| other.method == request.method).count()
        };
        match (self.odd)(request, number) {
            OddAnswer::Usual => self.inside.exchange(request).await,
            OddAnswer::Of(other) => self.inside.exchange(&other).await,
            OddAnswer::Instead(answer) => Ok(answer),
        }
    }

    async fn pause(&self, how_long: Duration) {
        self.inside.pause(how_long).await;
    }
}

fn usual(_: &RedfishRequest, _: usize) -> OddAnswer {
    OddAnswer::Usual
}

/// An answer with a message of the Base registry.
fn refusal(status: u16, id: &str, words: &str) -> OddAnswer {
    let info = json!({"MessageId": format!("Base.1.8.{id}"), "Message": words});
    let body = json!({"error": {"@Message.ExtendedInfo": [info]}}).to_string();
    let status = StatusCode::from_u16(status).unwrap();
    OddAnswer::Instead(RedfishAnswer { status, body: body.into(), ..RedfishAnswer::default() })
}

fn has(request: &RedfishRequest, parameter: &str) -> bool {
    request.body.as_ref().is_some_and(|body| body.get(parameter).is_some())
}

/// The standard's insertion of the same image.
fn standard_insertion(request: &RedfishRequest) -> OddAnswer {
    let image = request.body.as_ref().map(|body| body["Image"].clone()).unwrap_or_default();
    let (path, body) = (INSERT.to_owned(), Some(json!({ "Image": image })));
    OddAnswer::Of(RedfishRequest { method: HttpMethod::Post, path, body, ..request.clone() })
}

fn standard_ejection(request: &RedfishRequest) -> OddAnswer {
    let (path, body) = (EJECT.to_owned(), Some(json!({})));
    OddAnswer::Of(RedfishRequest { method: HttpMethod::Post, path, body, ..request.clone() })
}

fn merged(mut body: Value, changes: &Value) -> Value {
    let (Some(object), Some(changes)) = (body.as_object_mut(), changes.as_object()) else {
        return body;
    };
    for (name, value) in changes {
        match object.get(name) {
            Some(old) if old.is_object() && value.is_object() => {
                let new = merged(old.clone(), value);
                object.insert(name.clone(), new);
            }
            _ if value.is_null() => drop(object.remove(name)),
            _ => drop(object.insert(name.clone(), value.clone())),
        }
    }
    body
}

/// A BMC with one system, a manager and a CD drive. The changes are a merge patch (RFC 7396) of the system, and of the
/// drive.
fn tree(system: &Value, drive: &Value) -> Vec<(String, Value)> {
    let link = |path: &str| json!({"@odata.id": path});
    let usual_system = json!({
        "@odata.id": SYSTEM,
        "Id": "1",
        "Manufacturer": "Contoso",
        "PowerState": "Off",
        "Boot": {
            "BootSourceOverrideEnabled": "Disabled",
            "BootSourceOverrideTarget": "None",
            "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "Cd", "UsbCd", "Hdd"],
        },
        "Actions": {"#ComputerSystem.Reset": {
            "target": RESET,
            "ResetType@Redfish.AllowableValues": ["On", "ForceOff", "GracefulShutdown", "Nmi"],
        }},
        "Links": {"ManagedBy": [link(MANAGER)]},
    });
    let usual_drive = json!({
        "@odata.id": DRIVE,
        "@odata.type": "#VirtualMedia.v1_5_1.VirtualMedia",
        "Id": "CD",
        "MediaTypes": ["CD", "DVD"],
        "Image": null,
        "Inserted": false,
        "WriteProtected": true,
        "Actions": {
            "#VirtualMedia.InsertMedia": {"target": INSERT},
            "#VirtualMedia.EjectMedia": {"target": EJECT},
        },
    });
    let collection = |path: &str, members: &[&str]| {
        let members: Vec<_> = members.iter().map(|path| link(path)).collect();
        (path.to_owned(), json!({"@odata.id": path, "Members": members}))
    };
    let media = format!("{MANAGER}/VirtualMedia");
    vec![
        collection("/redfish/v1/Systems", &[SYSTEM]),
        (SYSTEM.to_owned(), merged(usual_system, system)),
        collection("/redfish/v1/Managers", &[MANAGER]),
        (MANAGER.to_owned(), json!({"@odata.id": MANAGER, "VirtualMedia": link(&media)})),
        collection(&media, &[DRIVE]),
        (DRIVE.to_owned(), merged(usual_drive, drive)),
    ]
}

/// A boot of a machine that is off, and its end.
async fn boot_and_end<F>(bmc: &OddBmc<F>, need: &BootNeed<'_>) -> String
where
    F: Fn(&RedfishRequest, usize) -> OddAnswer + Sync,
{
    let facts = BmcFacts::default();
    let machine = RedfishSystem::find(bmc, &facts, None, PATIENCE).await.unwrap();
    let course = async {
        let view = machine.look().await?;
        let way = machine.choose_way(&view, need).await?;
        let wanted = HttpBootOverride::once(need.by_url.then(|| URL.to_owned()));
        machine.set_boot(&view, &way, &wanted).await?;
        let read = machine.read_back(&way, &wanted).await?;
        machine.power_on(&read.view).await?;
        let booted = bmc.inside.booted().unwrap();
        let view = machine.look().await?;
        machine.power_off(&view).await?;
        let view = machine.look().await?;
        let still_shown = machine.undo_boot(&view, way.changes()).await?;
        bmc.inside.press_on();
        let after = bmc.inside.booted().unwrap();
        let warnings = [read.warnings, still_shown].concat().join("; ");
        Ok::<_, BootNotSet>(format!("{} | {booted:?}, then {after:?} | {warnings}", way.kind()))
    };
    let words = course.await.unwrap_or_else(|error| format!("refused: {error}"));
    let waited = bmc.inside.waited().as_secs();
    format!("{} ({waited} s)", words.replace(URL, "URL"))
}

async fn media_course<F>(tree: Vec<(String, Value)>, odd: F) -> String
where
    F: Fn(&RedfishRequest, usize) -> OddAnswer + Sync,
{
    let (bmc, macs) = (OddBmc::new(tree, odd), macs());
    let need = BootNeed { media: MediaUse::Only, ..by_url(&macs) };
    let words = boot_and_end(&bmc, &need).await;
    format!("{words}\n{}\n", bmc.changes())
}

/// Refuses the insertion as long as it has one of the first parameters, or lacks one of the others; names them or not.
fn picky<'p>(
    refused: &'p [&str],
    required: &'p [&str],
    names: bool,
) -> impl Fn(&RedfishRequest, usize) -> OddAnswer + Sync + 'p {
    move |request, _| {
        if request.path != INSERT {
            return OddAnswer::Usual;
        }
        let wrong = refused.iter().find(|name| has(request, name));
        let absent = required.iter().find(|name| !has(request, name));
        match (wrong, absent) {
            (Some(name), _) if names => {
                refusal(400, "ActionParameterUnknown", &format!("The parameter {name} is unknown."))
            }
            (None, Some(name)) if names => {
                refusal(400, "ActionParameterMissing", &format!("The action requires {name}."))
            }
            (None, None) => OddAnswer::Usual,
            (Some(_) | None, _) => refusal(400, "GeneralError", "A general error has occurred."),
        }
    }
}

#[tokio::test]
async fn an_image_is_inserted_with_the_parameters_that_a_bmc_wants() {
    let (mut table, nothing) = (String::new(), json!({}));
    let usual_tree = || tree(&nothing, &nothing);
    let mut note = |name: &str, words: String| writeln!(table, "{name}: {words}").unwrap();

    note("as the standard", media_course(usual_tree(), usual).await);
    let only_image = picky(&["Inserted", "WriteProtected", "TransferMethod"], &[], true);
    note("refuses all but the image (X11)", media_course(usual_tree(), only_image).await);
    let protocol = picky(&["Inserted", "TransferMethod"], &["TransferProtocolType"], true);
    note("requires TransferProtocolType", media_course(usual_tree(), protocol).await);
    let both = picky(&["Inserted"], &["TransferProtocolType", "TransferMethod"], false);
    note("requires both, and says so of none", media_course(usual_tree(), both).await);
    let user = picky(&["Inserted"], &["UserName", "Password"], true);
    note("requires a user (DGX)", media_course(usual_tree(), user).await);
    let nothing_fits = picky(&["Image"], &[], false);
    note("refuses all", media_course(usual_tree(), nothing_fits).await);
    let busy = |request: &RedfishRequest, number: usize| match request.path == INSERT && number < 3
    {
        true => refusal(500, "InternalError", "The ejection is under way."),
        false => OddAnswer::Usual,
    };
    note("answers 500 twice (iDRAC)", media_course(usual_tree(), busy).await);
    insta::assert_snapshot!(table);
}

#[tokio::test]
async fn a_virtual_drive_is_found_and_used_in_the_form_that_each_vendor_has() {
    let (mut table, nothing) = (String::new(), json!({}));
    let mut note = |name: &str, words: String| writeln!(table, "{name}: {words}").unwrap();
    let actions =
        |actions: Value| json!({"Actions": null, "Oem": {"Vendor": {"Actions": actions}}});

    let ilo4 = actions(json!({
        "#HpiLOVirtualMedia.InsertVirtualMedia": {"target": "/ilo4/Insert"},
        "#HpiLOVirtualMedia.EjectVirtualMedia": {"target": "/ilo4/Eject"},
    }));
    let as_ilo4 = |request: &RedfishRequest, _: usize| match request.path.as_str() {
        "/ilo4/Insert" if has(request, "Inserted") => {
            refusal(400, "ActionParameterUnknown", "Inserted")
        }
        "/ilo4/Insert" => standard_insertion(request),
        "/ilo4/Eject" => standard_ejection(request),
        _ => OddAnswer::Usual,
    };
    note("iLO 4", media_course(tree(&nothing, &ilo4), as_ilo4).await);

    let vmm = actions(json!({"#VirtualMedia.VmmControl": {"target": "/huawei/VmmControl"}}));
    let as_huawei = |request: &RedfishRequest, _: usize| {
        let control = request.body.as_ref().map(|body| body["VmmControlType"].clone());
        match (request.path.as_str(), control) {
            ("/huawei/VmmControl", Some(control)) if control == "Connect" => {
                standard_insertion(request)
            }
            ("/huawei/VmmControl", _) => standard_ejection(request),
            _ => OddAnswer::Usual,
        }
    };
    note("Huawei", media_course(tree(&nothing, &vmm), as_huawei).await);

    let xcc = json!({"Actions": null, "MediaTypes": ["CD", "USBStick"]});
    let as_xcc = |request: &RedfishRequest, _: usize| {
        let is_image = request.path == DRIVE && request.method == HttpMethod::Patch;
        match request.body.as_ref().filter(|_| is_image) {
            Some(body) if body["Inserted"] == true => standard_insertion(request),
            Some(body) if body["Image"].is_null() => standard_ejection(request),
            _ => OddAnswer::Usual,
        }
    };
    note("Lenovo XCC", media_course(tree(&nothing, &xcc), as_xcc).await);

    let ami = json!({"MediaTypes": null, "Id": "CD1", "Image": "None", "ImageName": "None"});
    note("AMI, without media types", media_course(tree(&nothing, &ami), usual).await);

    let supermicro = json!({"Manufacturer": "Supermicro"});
    let eject_later = json!({"Actions": {"#VirtualMedia.EjectMedia": null}});
    note("Supermicro", media_course(tree(&supermicro, &eject_later), usual).await);

    let no_link = json!({"Links": null});
    note("no link to the manager", media_course(tree(&no_link, &nothing), usual).await);
    let no_cd =
        json!({"Boot": {"BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe"]}});
    note("no target for CDs", media_course(tree(&no_cd, &nothing), usual).await);

    let for_sticks = json!({"MediaTypes": ["USBStick", "Floppy"]});
    note("no drive for CDs", media_course(tree(&nothing, &for_sticks), usual).await);
    insta::assert_snapshot!(table);
}

#[tokio::test]
async fn a_drive_with_an_action_is_preferred_to_one_without() {
    let other = "/redfish/v1/Managers/1/VirtualMedia/Slot_0";
    let mut tree = tree(&json!({}), &json!({}));
    let only_local =
        json!({"@odata.id": other, "Id": "Slot_0", "MediaTypes": ["CD"], "Actions": {}});
    tree.push((other.to_owned(), only_local));
    let media = format!("{MANAGER}/VirtualMedia");
    let members = json!([{"@odata.id": other}, {"@odata.id": DRIVE}]);
    tree.push((media.clone(), json!({"@odata.id": media, "Members": members})));

    let words = media_course(tree, usual).await;

    assert!(words.contains("POST VirtualMedia.InsertMedia"), "{words}");
}

#[tokio::test]
async fn a_drive_that_a_user_may_not_see_is_none_and_a_login_that_has_ended_is_said() {
    let nothing = json!({});
    for (status, words) in [
        (403, "refused: the BMC shows no virtual CD drive that takes an image by URL"),
        (401, "refused: BMC answered 401 Unauthorized to the look at the virtual media"),
    ] {
        for path in [MANAGER, DRIVE] {
            let refused = |request: &RedfishRequest, _: usize| match request.path == path {
                true => refusal(status, "InsufficientPrivilege", "No."),
                false => OddAnswer::Usual,
            };
            let course = media_course(tree(&nothing, &nothing), refused).await;
            assert!(course.starts_with(words), "{status} {path}: {course}");
        }
    }
}

#[tokio::test]
async fn an_ejection_is_done_when_the_drive_is_empty() {
    let (mut table, nothing) = (String::new(), json!({}));
    let loaded = json!({"Image": "http://192.0.2.1/old.iso", "Inserted": true});
    let stale = json!({"Image": "http://192.0.2.1/old.iso", "Inserted": false});
    let mut note = |name: &str, words: String| writeln!(table, "{name}: {words}").unwrap();

    note("another image is in it", media_course(tree(&nothing, &loaded), usual).await);
    let empty = |request: &RedfishRequest, number: usize| match request.path == EJECT && number == 1
    {
        true => refusal(400, "GeneralError", "There is nothing to eject."),
        false => OddAnswer::Usual,
    };
    note("an old image is shown, and refused", media_course(tree(&nothing, &stale), empty).await);
    let bodiless = |request: &RedfishRequest, _: usize| match request.path == EJECT {
        true if request.body.is_some() => refusal(415, "GeneralError", "No body is expected."),
        _ => OddAnswer::Usual,
    };
    note("no body is accepted", media_course(tree(&nothing, &nothing), bodiless).await);
    let refused_and_done = |request: &RedfishRequest, number: usize| {
        let empties = request.path == DRIVE && request.method == HttpMethod::Get && number > 12;
        match (request.path == EJECT, empties) {
            (true, _) => refusal(500, "InternalError", "It failed."),
            (_, true) => {
                let body = json!({"@odata.id": DRIVE, "Inserted": false, "Image": null});
                OddAnswer::Instead(RedfishAnswer {
                    body: body.to_string().into(),
                    ..Default::default()
                })
            }
            (false, false) => OddAnswer::Usual,
        }
    };
    let words = media_course(tree(&nothing, &nothing), refused_and_done).await;
    assert!(!words.starts_with("refused"), "{words}");
    insta::assert_snapshot!(table);
}

#[tokio::test]
async fn an_image_that_is_shown_late_or_in_part_is_kept_and_an_old_one_is_not() {
    let nothing = json!({});
    let shows = |image: Value, after: usize| {
        move |request: &RedfishRequest, number: usize| {
            if request.path != DRIVE || request.method != HttpMethod::Get || number <= after {
                return OddAnswer::Usual;
            }
            let body = merged(
                tree(&json!({}), &json!({})).pop().unwrap().1,
                &json!({"Image": image, "Inserted": true}),
            );
            OddAnswer::Instead(RedfishAnswer {
                body: body.to_string().into(),
                ..Default::default()
            })
        }
    };
    for (image, kept) in [
        (json!(URL), true),
        (json!("//10.0.0.1:8080/boot/x/boot.iso"), true),
        (json!("boot.iso"), true),
        (json!(""), true),
        (json!("http://10.0.0.1:8080/boot/old/boot.iso"), false),
    ] {
        let bmc = OddBmc::new(tree(&nothing, &nothing), shows(image.clone(), 6));
        let macs = macs();
        let words = boot_and_end(&bmc, &BootNeed { media: MediaUse::Only, ..by_url(&macs) }).await;

        let refused = "refused: the BMC took the boot override but shows Image as another value";
        assert_eq!(!words.starts_with(refused), kept, "{image}: {words}");
    }
}

/// A reset by the given verb, with what was sent.
async fn reset_course<F>(system: &Value, verb: &str, odd: F) -> String
where
    F: Fn(&RedfishRequest, usize) -> OddAnswer + Sync,
{
    let bmc = OddBmc::new(tree(system, &json!({})), odd);
    let facts = BmcFacts::default();
    let machine = RedfishSystem::find(&bmc, &facts, None, PATIENCE).await.unwrap();
    if matches!(verb, "shut down" | "interrupt") {
        bmc.inside.press_on();
    }
    let view = machine.look().await.unwrap();
    let done = match verb {
        "shut down" => machine.shut_down(&view).await,
        "interrupt" => machine.interrupt(&view).await,
        _ => machine.power_on(&view).await,
    };
    let words = done.map_or_else(|error| format!("refused: {error}"), |()| "done".to_owned());
    let power = bmc.inside.power();
    format!("{words}, {power:?} ({} s)\n{}", bmc.inside.waited().as_secs(), bmc.changes())
}

#[tokio::test]
async fn a_reset_is_repeated_only_as_the_power_that_is_shown_permits() {
    let mut table = String::new();
    let mut note = |name: &str, words: String| writeln!(table, "{name}: {words}").unwrap();
    let reset = |list: Value| json!({"Actions": {"#ComputerSystem.Reset": {"ResetType@Redfish.AllowableValues": list}}});
    let refuses = |status: u16, id: &'static str, types: &'static [&'static str]| {
        move |request: &RedfishRequest, _: usize| match &request.body {
            Some(body) if types.iter().any(|it| body["ResetType"] == *it) => {
                refusal(status, id, "No.")
            }
            _ => OddAnswer::Usual,
        }
    };
    let unsupported = |types| refuses(400, "ActionParameterNotSupported", types);
    let both = json!(["On", "ForceOn", "ForceOff"]);
    note("On is listed and refused", reset_course(&reset(both), "on", unsupported(&["On"])).await);
    let soft = json!(["On", "ForceOff", "GracefulShutdown"]);
    note(
        "a shutdown is refused: not switched off",
        reset_course(&reset(soft), "shut down", unsupported(&["GracefulShutdown"])).await,
    );
    note(
        "another user may: not tried in another form",
        reset_course(
            &reset(json!(["On", "ForceOn"])),
            "on",
            refuses(403, "InsufficientPrivilege", &["On"]),
        )
        .await,
    );
    for status in [500, 502, 504] {
        let lost =
            move |request: &RedfishRequest, _: usize| match request.method == HttpMethod::Post {
                true => refusal(status, "GeneralError", "The gateway waited in vain."),
                false => OddAnswer::Usual,
            };
        let words = reset_course(&reset(json!(["Nmi"])), "interrupt", lost).await;
        note(&format!("NMI, {status}"), words);
        let words = reset_course(&reset(json!(["PushPowerButton"])), "on", lost).await;
        note(&format!("the button, {status}"), words);
    }
    let twice = |request: &RedfishRequest, number: usize| match request.method == HttpMethod::Post
        && number < 3
    {
        true => refusal(502, "GeneralError", "The gateway waited in vain."),
        false => OddAnswer::Usual,
    };
    note("On, 502 twice", reset_course(&json!({}), "on", twice).await);
    insta::assert_snapshot!(table);
}

#[tokio::test]
async fn a_button_that_was_pressed_is_waited_for_and_not_pressed_again() {
    let list = json!({"ResetType@Redfish.AllowableValues": ["PushPowerButton", "ForceOff"]});
    let tree = tree(&json!({"Actions": {"#ComputerSystem.Reset": list}}), &json!({}));
    let late = FaultRule::on(&Method::GET, SYSTEM, EmulatedFault::PowerLate { secs: 20, looks: 0 });
    let gone = FaultRule::on(&Method::POST, RESET, EmulatedFault::CutAfter).times(1);
    let bmc = InMemoryBmc::recorded(tree).with_faults(vec![late, gone]);
    let facts = BmcFacts::default();
    let machine = RedfishSystem::find(&bmc, &facts, None, PATIENCE).await.unwrap();
    let view = machine.look().await.unwrap();

    machine.power_on(&view).await.unwrap();

    assert_eq!(bmc.power(), EmulatedPower::On);
    assert_eq!(bmc.requests().iter().filter(|it| it.starts_with("POST")).count(), 1);
}

#[tokio::test]
async fn reset_types_come_from_the_action_info_where_the_system_lists_none() {
    let info = "/redfish/v1/Systems/1/ResetActionInfo";
    let action = json!({
        "target": format!("https://192.0.2.1{RESET}"),
        "ResetType@Redfish.AllowableValues": null,
        "@Redfish.ActionInfo": info,
    });
    let mut tree = tree(&json!({"Actions": {"#ComputerSystem.Reset": action}}), &json!({}));
    let types = json!(["ForceOn", "ForceOff"]);
    let parameters = json!([{"Name": "ResetType", "AllowableValues": types}]);
    tree.push((info.to_owned(), json!({"@odata.id": info, "Parameters": parameters})));
    let bmc = InMemoryBmc::recorded(tree);
    let facts = BmcFacts::default();
    let machine = RedfishSystem::find(&bmc, &facts, None, PATIENCE).await.unwrap();
    let view = machine.look().await.unwrap();

    machine.power_on(&view).await.unwrap();

    assert_eq!(bmc.power(), EmulatedPower::On);
}

#[tokio::test]
async fn an_override_is_set_and_cleared_in_the_form_that_a_bmc_takes() {
    let mut table = String::new();
    let mut note = |name: &str, words: String| writeln!(table, "{name}: {words}").unwrap();
    let macs = macs();
    let need = BootNeed { allows_pxe: true, ..by_dhcp(&macs) };
    let boot = |request: &RedfishRequest| match (&request.method, &request.body) {
        (HttpMethod::Patch, Some(body)) => body["Boot"].clone(),
        _ => Value::Null,
    };
    let mode = "BootSourceOverrideMode";
    let continuous = json!({"Boot": {
        "BootSourceOverrideEnabled@Redfish.AllowableValues": ["Disabled", "Continuous"],
    }});
    // The recorded one takes what it shows alone.
    let demanding = |request: &RedfishRequest, _: usize| {
        let boot = boot(request);
        let Some(with_mode) = boot.as_object() else { return OddAnswer::Usual };
        if !with_mode.contains_key(mode) {
            let words = format!("The property {mode} is a required property.");
            return refusal(400, "PropertyMissing", &words);
        }
        let mut without = with_mode.clone();
        without.remove(mode);
        OddAnswer::Of(RedfishRequest { body: Some(json!({ "Boot": without })), ..request.clone() })
    };
    let bmc = OddBmc::new(tree(&continuous, &json!({})), demanding);
    let words = boot_and_end(&bmc, &need).await;
    note("requires a mode that it does not show", format!("{words}\n{}", bmc.changes()));

    let no_none = |request: &RedfishRequest, _: usize| match boot(request)["BootSourceOverrideTarget"]
        == "None"
    {
        true => refusal(400, "PropertyValueNotInList", "None is not in the list."),
        false => OddAnswer::Usual,
    };
    let bmc = OddBmc::new(tree(&continuous, &json!({})), no_none);
    let words = boot_and_end(&bmc, &need).await;
    note("refuses None as a target", format!("{words}\n{}", bmc.changes()));

    let older = json!({"Boot": {
        "BootSourceOverrideTarget@Redfish.AllowableValues": null,
        "BootSourceOverrideSupported": ["None", "Cd", "Pxe"],
    }});
    let bmc = OddBmc::new(tree(&older, &json!({})), usual);
    let words = boot_and_end(&bmc, &need).await;
    note("lists its targets as iLO 4 does", format!("{words}\n{}", bmc.changes()));

    let refusing =
        json!({"@Redfish.Settings": {"SettingsObject": {"@odata.id": "/redfish/v1/Systems/1/SD"}}});
    let no_settings = |request: &RedfishRequest, _: usize| match request.path.ends_with("/SD") {
        true => refusal(405, "GeneralError", "Not allowed."),
        false => OddAnswer::Usual,
    };
    let bmc = OddBmc::new(tree(&refusing, &json!({})), no_settings);
    let words = boot_and_end(&bmc, &need).await;
    note("names settings that it does not show", format!("{words}\n{}", bmc.changes()));

    // What it does not show, the recorded one refuses as an unknown property.
    let no_enabled = json!({"Boot": {"BootSourceOverrideEnabled": null}});
    let bmc = OddBmc::new(tree(&no_enabled, &json!({})), usual);
    let words = boot_and_end(&bmc, &need).await;
    note("has no BootSourceOverrideEnabled", format!("{words}\n{}", bmc.changes()));
    let in_general =
        |request: &RedfishRequest, _: usize| match boot(request)["BootSourceOverrideEnabled"]
            .is_string()
        {
            true => refusal(400, "GeneralError", "A general error has occurred."),
            false => OddAnswer::Usual,
        };
    let bmc = OddBmc::new(tree(&no_enabled, &json!({})), in_general);
    let words = boot_and_end(&bmc, &need).await;
    note("has none, and does not say so", format!("{words}\n{}", bmc.changes()));
    insta::assert_snapshot!(table);
}

#[tokio::test]
async fn a_machine_in_bios_mode_is_refused_in_words_of_what_it_is_to_boot() {
    let macs = macs();
    let legacy = json!({"Boot": {
        "BootSourceOverrideMode": "Legacy",
        "BootSourceOverrideMode@Redfish.AllowableValues": ["Legacy"],
    }});
    for (media, words) in [
        (MediaUse::Never, "and HTTP boot is for UEFI only"),
        (MediaUse::AsFallback, "and HTTP boot is for UEFI only"),
        (MediaUse::Only, "and the image of its virtual CD is for UEFI only"),
    ] {
        let bmc = OddBmc::new(tree(&legacy, &json!({})), usual);

        let refused = boot_and_end(&bmc, &BootNeed { media, ..by_url(&macs) }).await;

        assert!(refused.contains(words), "{media:?}: {refused}");
    }
}

#[tokio::test]
async fn what_a_bmc_still_shows_after_it_took_the_undoing_is_named() {
    let macs = macs();
    let takes_and_keeps = |request: &RedfishRequest, _: usize| {
        let ends = request.purpose == RedfishPurpose::ClearOverride
            || request.purpose == RedfishPurpose::RestoreBootOrder
            || request.path == EJECT;
        let answer = RedfishAnswer { status: StatusCode::NO_CONTENT, ..RedfishAnswer::default() };
        if ends { OddAnswer::Instead(answer) } else { OddAnswer::Usual }
    };
    let continuous = json!({"Boot": {
        "BootSourceOverrideEnabled@Redfish.AllowableValues": ["Disabled", "Continuous"],
    }});
    let bmc = OddBmc::new(tree(&continuous, &json!({})), takes_and_keeps);
    let words = boot_and_end(&bmc, &BootNeed { media: MediaUse::Only, ..by_url(&macs) }).await;
    for still in ["still shows it, with the target Cd", "CD still shows an image"] {
        assert!(words.contains(still), "{words}");
    }

    let first = format!("{SYSTEM}/BootOptions");
    let page = json!({"@odata.id": first, "Members": [{"@odata.id": card_option().0}]});
    let order = json!(["Boot0001", "Boot0002"]);
    let bmc = OddBmc::new(ordered(&order, vec![card_option(), (first, page)]), takes_and_keeps);
    let words = boot_and_end(&bmc, &by_dhcp(&macs)).await;
    assert!(words.contains("the BMC took BootOrder as before the boot"), "{words}");
}

#[tokio::test]
async fn a_strong_form_of_a_weak_etag_is_tried() {
    let macs = macs();
    let strict = |request: &RedfishRequest, _: usize| {
        let is_strong = request.if_match.as_deref() == Some("\"7\"");
        match (&request.method, is_strong) {
            (HttpMethod::Patch, false) => refusal(412, "PreconditionFailed", "No."),
            (HttpMethod::Patch, true) => {
                OddAnswer::Of(RedfishRequest { if_match: None, ..request.clone() })
            }
            _ => OddAnswer::Usual,
        }
    };
    let weak = json!({"@odata.etag": "W/\"7\""});
    let bmc = OddBmc::new(tree(&weak, &json!({})), strict);
    let facts = BmcFacts::default();
    let machine = RedfishSystem::find(&bmc, &facts, None, PATIENCE).await.unwrap();
    let view = machine.look().await.unwrap();
    let need = BootNeed { allows_pxe: true, ..by_dhcp(&macs) };
    let way = machine.choose_way(&view, &need).await.unwrap();

    machine.set_boot(&view, &way, &HttpBootOverride::once(None)).await.unwrap();

    assert_eq!(bmc.inside.resource(SYSTEM)["Boot"]["BootSourceOverrideTarget"], "Pxe");
}

/// A machine with a boot order, whose second option is that of its card.
fn ordered(order: &Value, options: Vec<(String, Value)>) -> Vec<(String, Value)> {
    let boot = json!({
        "BootOrder": order,
        "BootOptions": {"@odata.id": format!("{SYSTEM}/BootOptions")},
        "BootSourceOverrideTarget": null,
        "BootSourceOverrideTarget@Redfish.AllowableValues": null,
        "BootSourceOverrideEnabled": null,
    });
    let mut tree = tree(&json!({ "Boot": boot }), &json!({}));
    tree.extend(options);
    tree
}

fn card_option() -> (String, Value) {
    let path = format!("{SYSTEM}/BootOptions/2");
    let device = format!("PciRoot(0x0)/MAC({},0x1)/IPv4(0.0.0.0)/Uri()", MAC.replace(':', ""));
    let body =
        json!({"@odata.id": path, "BootOptionReference": "Boot0002", "UefiDevicePath": device});
    (path, body)
}

#[tokio::test]
async fn a_boot_order_is_set_though_it_has_options_that_are_not_shown_or_have_names() {
    let (path, _) = card_option();
    let first = format!("{SYSTEM}/BootOptions");
    for order in [json!(["Boot0001", "Boot0002"]), json!(["Boot0001: Disk", "Boot0002: Card"])] {
        let page = json!({"@odata.id": first, "Members": [{"@odata.id": path}]});
        let tree = ordered(&order, vec![card_option(), (first.clone(), page)]);
        let (bmc, macs) = (OddBmc::new(tree, usual), macs());

        let words = boot_and_end(&bmc, &by_dhcp(&macs)).await;

        assert!(words.starts_with("the boot order, with the URL from DHCP"), "{words}");
        let patched: Vec<_> = bmc.changes().lines().map(str::to_owned).collect();
        let reversed = json!([order[1], order[0]]);
        assert!(patched[0].contains(&json!({ "BootOrder": reversed }).to_string()), "{patched:?}");
        assert_eq!(bmc.inside.resource(SYSTEM)["Boot"]["BootOrder"], order);
    }
}

#[tokio::test]
async fn members_on_further_pages_are_found() {
    let (path, _) = card_option();
    let first = format!("{SYSTEM}/BootOptions");
    let next = format!("{SYSTEM}/BootOptions/Page2");
    let pages = vec![
        card_option(),
        (first.clone(), json!({"@odata.id": first, "Members": [], "Members@odata.nextLink": next})),
        (next.clone(), json!({"@odata.id": next, "Members": [{"@odata.id": path}]})),
    ];
    let tree = ordered(&json!(["Boot0001", "Boot0002"]), pages);
    let (bmc, macs) = (OddBmc::new(tree, usual), macs());

    let words = boot_and_end(&bmc, &by_dhcp(&macs)).await;

    assert!(words.starts_with("the boot order"), "{words}");
}

#[tokio::test]
async fn systems_elsewhere_are_found_by_the_service_root_and_links_may_be_whole_urls() {
    const OTHER: &str = "/redfish/v1/ComputeNodes";
    let link = |path: &str| json!({"@odata.id": format!("https://192.0.2.1{path}")});
    let mut tree = tree(&json!({}), &json!({}));
    tree.retain(|(path, _)| path != "/redfish/v1/Systems");
    tree.push((
        "/redfish/v1".to_owned(),
        json!({"@odata.id": "/redfish/v1", "Systems": link(OTHER)}),
    ));
    tree.push((OTHER.to_owned(), json!({"@odata.id": OTHER, "Members": [link(SYSTEM)]})));
    let bmc = InMemoryBmc::recorded(tree);
    let facts = BmcFacts::default();

    let machine = RedfishSystem::find(&bmc, &facts, None, PATIENCE).await.unwrap();

    assert_eq!(machine.look().await.unwrap().power(), SystemPower::Off);
}

#[tokio::test]
async fn a_password_that_must_be_changed_is_named() {
    let words = "The password provided for this account must be changed before access is granted.";
    let bmc = OddBmc::new(tree(&json!({}), &json!({})), |_: &RedfishRequest, _: usize| {
        refusal(403, "PasswordChangeRequired", words)
    });
    let facts = BmcFacts::default();
    let machine = RedfishSystem::find(&bmc, &facts, Some(SYSTEM), PATIENCE).await.unwrap();

    let refused = machine.look().await.map(drop).unwrap_err().to_string();

    assert!(
        refused.contains(words) && refused.ends_with("then set redfish_password)"),
        "{refused}"
    );
}
