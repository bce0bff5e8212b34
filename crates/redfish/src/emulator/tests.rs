//! Tests of whole requests.

use hardware::SecureBootDatabase;
use http::StatusCode;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const BASIC: &str = "Basic YWRtaW46c2VjcmV0";

const ZERO: Duration = Duration::ZERO;
const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";

fn emulator() -> Emulator {
    emulator_of(Platform::Generic)
}

fn emulator_of(platform: Platform) -> Emulator {
    let mut emulator = Emulator::new("admin", "secret");
    let macs = ["52:54:00:00:00:01", "52:54:00:00:00:0b"].map(str::to_owned);
    emulator.add_system("1", &macs, platform);
    emulator
}

fn request<'a>(method: &'a Method, path: &'a str, body: &'a [u8]) -> EmulatorRequest<'a> {
    EmulatorRequest {
        method,
        path,
        authorization: Some(BASIC),
        session_token: None,
        if_match: None,
        body,
        fresh: "fresh",
        now: ZERO,
    }
}

#[test]
fn everything_that_the_root_leads_to_is_there() {
    let mut seen = String::new();
    for platform in Platform::ALL {
        let emulator = emulator_of(platform);
        let (mut open, mut found) = (vec!["/redfish/v1".to_owned()], Vec::new());
        while let Some(path) = open.pop() {
            let body = emulator.resource(&path).unwrap_or_else(|| panic!("{path} is missing"));
            found.push(path);
            links(&body, &mut |link| {
                if !found.contains(&link) && !open.contains(&link) {
                    open.push(link);
                }
            });
        }
        found.sort();
        seen.push_str(&format!("{platform:?}\n  {}\n", found.join("\n  ")));
    }
    insta::assert_snapshot!(seen);
}

fn links(value: &Value, found: &mut impl FnMut(String)) {
    if let Some(link) = value["@odata.id"].as_str() {
        found(link.trim_end_matches('/').to_owned());
    }
    let (object, array) = (value.as_object(), value.as_array());
    object.into_iter().flat_map(|object| object.values()).for_each(|value| links(value, found));
    array.into_iter().flatten().for_each(|value| links(value, found));
}

#[test]
fn a_system_looks_like_this() {
    insta::assert_json_snapshot!(emulator().resource("/redfish/v1/Systems/1"));
}

#[test]
fn an_override_for_once_is_used_up_by_one_start() {
    let mut emulator = emulator();
    let body = br#"{"Boot": {"BootSourceOverrideEnabled": "Once",
        "BootSourceOverrideTarget": "UefiHttp", "HttpBootUri": "http://a/b.efi"}}"#;
    emulator.answer(&request(&Method::PATCH, "/redfish/v1/Systems/1", body));

    assert_eq!(emulator.starts("1", ZERO), Some(NextBoot::Url("http://a/b.efi".into())));
    assert_eq!(emulator.starts("1", ZERO), Some(NextBoot::Usual));
}

#[test]
fn nothing_but_the_root_is_shown_to_strangers() {
    let mut emulator = emulator();
    for (path, status) in [("/redfish/v1/", 200), ("/redfish/v1/Systems/1", 401)] {
        let stranger = EmulatorRequest { authorization: None, ..request(&Method::GET, path, b"") };

        assert_eq!(emulator.answer(&stranger).0.status.as_u16(), status, "{path}");
    }
}

#[test]
fn a_session_is_good_until_it_is_closed() {
    let mut emulator = emulator();
    let login = br#"{"UserName": "admin", "Password": "secret"}"#;
    let sessions = "/redfish/v1/SessionService/Sessions";
    let (opened, _) = emulator.answer(&request(&Method::POST, sessions, login));
    assert_eq!(opened.status, StatusCode::CREATED);
    let with_token = EmulatorRequest {
        authorization: None,
        session_token: Some("fresh"),
        ..request(&Method::GET, "/redfish/v1/Systems", b"")
    };
    assert_eq!(emulator.answer(&with_token).0.status, StatusCode::OK);

    emulator.answer(&request(&Method::DELETE, &format!("{sessions}/1"), b""));

    assert_eq!(emulator.answer(&with_token).0.status, StatusCode::UNAUTHORIZED);
}

#[test]
fn a_stale_etag_changes_nothing() {
    let mut emulator = emulator();
    emulator.starts("1", ZERO);
    let body = br#"{"Boot": {"BootSourceOverrideTarget": "Pxe"}}"#;
    let patch = request(&Method::PATCH, "/redfish/v1/Systems/1", body);

    let (response, _) = emulator.answer(&EmulatorRequest { if_match: Some("\"0\""), ..patch });

    assert_eq!(response.status, StatusCode::PRECONDITION_FAILED);
}

#[test]
fn a_wrong_method_is_not_a_missing_resource() {
    let mut emulator = emulator();
    let status = |emulator: &mut Emulator, path| {
        emulator.answer(&request(&Method::DELETE, path, b"")).0.status.as_u16()
    };

    assert_eq!(status(&mut emulator, "/redfish/v1/Systems/1"), 405);
    assert_eq!(status(&mut emulator, "/redfish/v1/Systems/2"), 404);
}

/// Sends a request with a strong `If-Match: *`; returns the status and the code of the error.
fn send(emulator: &mut Emulator, method: Method, path: &str, body: &Value) -> (u16, String) {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let patch = EmulatorRequest { if_match: Some("*"), ..request(&method, path, &body) };
    let (response, _) = emulator.answer(&patch);
    let body = response.body.unwrap_or_default();
    let error = &body["error"];
    let message = error["@Message.ExtendedInfo"][0]["MessageId"].as_str().unwrap_or_default();
    let message = message.rsplit('.').next().unwrap_or_default().to_owned();
    (response.status.as_u16(), message)
}

/// Sends changes that must be accepted, and starts the machine.
fn boots(platform: Platform, changes: &[(&str, Value)]) -> NextBoot {
    let mut emulator = emulator_of(platform);
    for (path, body) in changes {
        let (status, message) = send(&mut emulator, Method::PATCH, path, body);
        assert!(status < 300, "{platform:?} {path} {body}: {status} {message}");
    }
    let next = emulator.starts("1", ZERO).unwrap();
    let again = emulator.starts("1", ZERO).unwrap();
    assert_eq!(again, NextBoot::Usual, "{platform:?}: once is once");
    next
}

const URL: &str = "http://10.0.0.1/boot.efi";

#[test]
fn each_platform_accepts_and_refuses_what_its_vendor_does() {
    let once = |target: &str| json!({"Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": target}});
    let with = |target: &str, name: &str, value: &str| {
        let mut body = once(target);
        body["Boot"][name] = value.into();
        body
    };
    let with_mode = with("UefiHttp", "BootSourceOverrideMode", "UEFI");
    let with_url = with("UefiHttp", "HttpBootUri", URL);
    let order = json!({"Boot": {"BootOrder": ["Boot0002", "Boot0000"]}});
    let unknown = json!({"Boot": {"BootOrder": ["Boot0FFF"]}});
    let system = |platform: Platform| platform.system_path("1");
    let below = |platform: Platform, rest: &str| format!("{}/{rest}", platform.system_path("1"));
    use Platform::*;
    let table = [
        (Generic, system(Generic), with_url.clone(), 204, ""),
        (Generic, system(Generic), once("Floppy"), 400, "PropertyValueNotInList"),
        (
            Generic,
            system(Generic),
            json!({"Boot": {"HttpBootUri": "http://a/ b"}}),
            400,
            "PropertyValueFormatError",
        ),
        (Ami, system(Ami), with_url.clone(), 400, "OperationSupportedInFutureStateURI"),
        (Ami, below(Ami, "SD"), with_url.clone(), 204, ""),
        (Ami, below(Ami, "SD"), order.clone(), 204, ""),
        (Ami, below(Ami, "SD"), unknown, 400, "PropertyValueNotInList"),
        (Ami, below(Ami, "Bios/SD"), json!({"Attributes": {"Ipv4Http": "Enabled"}}), 204, ""),
        (
            Ami,
            below(Ami, "Bios"),
            json!({"Attributes": {"Ipv4Http": "Enabled"}}),
            405,
            "OperationNotAllowed",
        ),
        (DellIdrac9, system(DellIdrac9), with_mode.clone(), 200, ""),
        (DellIdrac9, system(DellIdrac9), with_url.clone(), 400, "PropertyUnknown"),
        (DellIdrac10, system(DellIdrac10), once("UefiHttp"), 400, "PropertyNotWritable"),
        (DellIdrac10, below(DellIdrac10, "Settings"), with_mode.clone(), 200, ""),
        (HpeIlo5, system(HpeIlo5), with_mode.clone(), 400, "PropertyNotWritable"),
        (HpeIlo5, system(HpeIlo5), once("UefiHttp"), 200, "Success"),
        (HpeIlo5, system(HpeIlo5), with_url.clone(), 400, "PropertyUnknown"),
        (
            HpeIlo5,
            "/redfish/v1/systems/1/bios/settings/".to_owned(),
            json!({"Attributes": {"UrlBootFile": URL}}),
            200,
            "SystemResetRequired",
        ),
        (
            HpeIlo5,
            below(HpeIlo5, "Bios/settings"),
            json!({"Attributes": {"UrlBootFile": "x y"}}),
            400,
            "PropertyValueFormatError",
        ),
        (
            HpeIlo5,
            below(HpeIlo5, "Bios/settings"),
            json!({"Attributes": {"SecureBootStatus": "Enabled"}}),
            400,
            "PropertyNotWritable",
        ),
        (HpeIlo6, system(HpeIlo6), with_mode.clone(), 400, "UnsupportedOperation"),
        (HpeIlo6, system(HpeIlo6), once("UefiHttp"), 200, "Success"),
        (LenovoXcc, system(LenovoXcc), once("UefiHttp"), 400, "PropertyValueNotInList"),
        (LenovoXcc, system(LenovoXcc), once("Pxe"), 200, ""),
        (
            LenovoXcc,
            system(LenovoXcc),
            json!({"Boot": {"BootSourceOverrideEnabled": "Continuous"}}),
            400,
            "PropertyValueNotInList",
        ),
        (Supermicro, system(Supermicro), with_mode, 200, ""),
        (Supermicro, system(Supermicro), with_url.clone(), 400, "PropertyUnknown"),
        (OpenBmc, system(OpenBmc), once("UefiHttp"), 400, "PropertyValueNotInList"),
        (
            OpenBmc,
            system(OpenBmc),
            with("Pxe", "BootSourceOverrideMode", "UEFI"),
            400,
            "PropertyUnknown",
        ),
        (OpenBmc, system(OpenBmc), once("Pxe"), 204, ""),
        (OpenBmc, system(OpenBmc), order.clone(), 400, "PropertyNotWritable"),
        (OpenBmc, below(OpenBmc, "Settings"), order, 204, ""),
        (NvidiaBluefield, system(NvidiaBluefield), with_url.clone(), 400, "PropertyNotWritable"),
        (NvidiaBluefield, below(NvidiaBluefield, "Settings"), with_url, 204, ""),
    ];
    for (platform, path, body, status, message) in table {
        let answer = send(&mut emulator_of(platform), Method::PATCH, &path, &body);
        assert_eq!(answer, (status, message.to_owned()), "{platform:?} {path} {body}");
    }
}

#[test]
fn each_platform_boots_over_http_in_its_own_way() {
    use Platform::*;
    let once = |target: &str| json!({"Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": target}});
    let mut with_url = once("UefiHttp");
    with_url["Boot"]["HttpBootUri"] = URL.into();
    let url = NextBoot::Url(URL.to_owned());
    let system = |platform: Platform| platform.system_path("1");
    let (ami, bluefield) =
        (format!("{}/SD", system(Ami)), format!("{}/Settings", system(NvidiaBluefield)));
    assert_eq!(boots(Ami, &[(&ami, with_url.clone())]), url);
    assert_eq!(boots(NvidiaBluefield, &[(&bluefield, with_url)]), url);

    let dell = json!({
        "@Redfish.SettingsApplyTime": {"ApplyTime": "OnReset"},
        "Attributes": {
            "HttpDev1EnDis": "Enabled", "HttpDev1Uri": URL, "HttpDev1TlsMode": "None",
            "HttpDev1Interface": "NIC.Embedded.2-1-1",
        },
    });
    let (idrac, bios) = (system(DellIdrac9), format!("{}/Bios/Settings", system(DellIdrac9)));
    assert_eq!(boots(DellIdrac9, &[(&bios, dell.clone()), (&idrac, once("UefiHttp"))]), url);
    let idrac10 = format!("{}/Settings", system(DellIdrac10));
    assert_eq!(boots(DellIdrac10, &[(&bios, dell.clone()), (&idrac10, once("UefiHttp"))]), url);
    let mut tls = dell.clone();
    tls["Attributes"]["HttpDev1TlsMode"] = "OneWay".into();
    assert_eq!(boots(DellIdrac9, &[(&bios, tls), (&idrac, once("UefiHttp"))]), NextBoot::Usual);
    let mut by_dhcp = dell;
    by_dhcp["Attributes"]["HttpDev1Uri"] = "".into();
    let second = NextBoot::Http { nic: 1 };
    assert_eq!(boots(DellIdrac9, &[(&bios, by_dhcp), (&idrac, once("UefiHttp"))]), second);

    let ilo = system(HpeIlo5);
    let file = json!({"Attributes": {"UrlBootFile": URL}});
    let settings = format!("{ilo}/Bios/settings");
    for generation in [HpeIlo5, HpeIlo6] {
        let changes = [(settings.as_str(), file.clone()), (ilo.as_str(), once("UefiHttp"))];
        assert_eq!(boots(generation, &changes), url);
    }
    let path = "PciRoot(0x1)/Pci(0x1,0x0)/MAC(52540000000B,0x1)/IPv4(0.0.0.0)/Uri()";
    let mut by_path = once("UefiTarget");
    by_path["Boot"]["UefiTargetBootSourceOverride"] = path.into();
    assert_eq!(boots(HpeIlo5, &[(&ilo, by_path)]), second);

    let pending = format!("{}/Bios/Pending", system(LenovoXcc));
    let http = json!({"Attributes": {
        "NetworkStackSettings_IPv4HTTPSupport": "Enabled",
        "NetworkStackSettings_IPv4PXESupport": "Disabled",
    }});
    let xcc = system(LenovoXcc);
    let first = NextBoot::Http { nic: 0 };
    assert_eq!(boots(LenovoXcc, &[(&xcc, once("Pxe"))]), NextBoot::Pxe { nic: 0 });
    assert_eq!(boots(LenovoXcc, &[(&pending, http.clone()), (&xcc, once("Pxe"))]), first);
    let only_pxe = json!({"Attributes": {"NetworkStackSettings_IPv4PXESupport": "Disabled"}});
    let dropped = [(pending.as_str(), http), (&pending, only_pxe), (&xcc, once("Pxe"))];
    assert_eq!(boots(LenovoXcc, &dropped), NextBoot::Usual);

    assert_eq!(boots(OpenBmc, &[(&system(OpenBmc), once("Pxe"))]), first);
}

#[test]
fn supermicro_boots_over_http_once_it_was_reset_with_http_on_and_in_uefi_mode() {
    let system = "/redfish/v1/Systems/1";
    let mut emulator = emulator_of(Platform::Supermicro);
    let on = json!({"Attributes": {"IPv4HTTPSupport_00F5": "Enabled"}});
    let once = |target: &str| json!({"Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": target}});
    let mut uefi = once("UefiHttp");
    uefi["Boot"]["BootSourceOverrideMode"] = "UEFI".into();
    let mut start_after = |path: &str, body: &Value| {
        assert_eq!(send(&mut emulator, Method::PATCH, path, body).0, 200);
        emulator.starts("1", ZERO).unwrap()
    };

    assert_eq!(start_after(system, &uefi), NextBoot::Usual, "HTTP is off");
    assert_eq!(start_after(&format!("{system}/Bios/SD"), &on), NextBoot::Usual);
    assert_eq!(start_after(system, &uefi), NextBoot::Http { nic: 0 });
    assert_eq!(start_after(system, &once("UefiHttp")), NextBoot::Usual, "the mode is Legacy again");
    assert_eq!(start_after(system, &once("Pxe")), NextBoot::Pxe { nic: 0 });
    send(&mut emulator, Method::PATCH, system, &once("Pxe"));
    let shown = emulator.resource(system).unwrap();
    assert_eq!(shown["Boot"]["BootSourceOverrideTarget"], "UefiBootNext");
}

#[test]
fn hpe_boots_its_url_file_by_the_boot_order() {
    let bios = "/redfish/v1/Systems/1/Bios/settings";
    let order = "/redfish/v1/Systems/1/Bios/oem/hpe/boot/settings";
    let first = json!({"PersistentBootConfigOrder": ["File.URL.1.1", "HD.EmbSATA.1.1"]});
    for (support, expected) in
        [("Auto", NextBoot::Url(URL.to_owned())), ("HttpsOnly", NextBoot::Usual)]
    {
        let mut ilo = emulator_of(Platform::HpeIlo6);
        let refused = send(&mut ilo, Method::PATCH, order, &first);
        assert_eq!(refused, (400, "PropertyValueNotInList".to_owned()), "there is no such entry");
        let file = json!({"Attributes": {"UrlBootFile": URL, "HttpSupport": support}});
        assert_eq!(send(&mut ilo, Method::PATCH, bios, &file).0, 200);
        assert_eq!(send(&mut ilo, Method::PATCH, order, &first).0, 200);

        let starts = [(); 2].map(|()| ilo.starts("1", ZERO).unwrap());

        assert_eq!(starts, [expected.clone(), expected], "{support}");
        let option = ilo.resource("/redfish/v1/Systems/1/BootOptions/8").unwrap();
        assert_eq!(option["UefiDevicePath"], format!("Uri({URL})"));
    }
    let card = json!({"PersistentBootConfigOrder": ["NIC.Slot.2.1.Httpv4", "HD.EmbSATA.1.1"]});
    let mut ilo = emulator_of(Platform::HpeIlo5);
    send(&mut ilo, Method::PATCH, order, &card);
    assert_eq!(ilo.starts("1", ZERO), Some(NextBoot::Http { nic: 1 }));
}

#[test]
fn dell_boots_its_first_boot_device_once() {
    let attributes =
        "/redfish/v1/Managers/iDRAC.Embedded.1/Oem/Dell/DellAttributes/iDRAC.Embedded.1";
    let mut idrac = emulator_of(Platform::DellIdrac9);
    let mut first = json!({"Attributes": {
        "ServerBoot.1.FirstBootDevice": "PXE", "ServerBoot.1.BootOnce": "Enabled",
    }});
    assert_eq!(send(&mut idrac, Method::PATCH, attributes, &first).0, 200);

    let starts = [(); 2].map(|()| idrac.starts("1", ZERO).unwrap());

    assert_eq!(starts, [NextBoot::Pxe { nic: 0 }, NextBoot::Usual]);
    first["@Redfish.SettingsApplyTime"] = json!({"ApplyTime": "OnReset"});
    assert_eq!(send(&mut idrac, Method::PATCH, attributes, &first).0, 400);
}

#[test]
fn boot_next_is_for_one_boot() {
    let mut ami = emulator_of(Platform::Ami);
    let sd = "/redfish/v1/Systems/DGX/SD";
    // The HTTP option of the first card.
    assert_eq!(
        send(&mut ami, Method::PATCH, sd, &json!({"Boot": {"BootNext": "Boot0002"}})).0,
        204
    );

    let starts = [(); 2].map(|()| ami.starts("1", ZERO).unwrap());

    assert_eq!(starts, [NextBoot::Http { nic: 0 }, NextBoot::Usual]);
}

#[test]
fn a_boot_order_holds_until_it_is_changed_again() {
    for (platform, settings) in [
        (Platform::OpenBmc, "Settings"),
        (Platform::Ami, "SD"),
        (Platform::DellIdrac10, "Settings"),
    ] {
        let mut emulator = emulator_of(platform);
        let settings = format!("{}/{settings}", platform.system_path("1"));
        // The HTTP option of the second card.
        let order = json!({"Boot": {"BootOrder": ["Boot0005", "Boot0000"]}});
        assert!(send(&mut emulator, Method::PATCH, &settings, &order).0 < 300);

        let starts = [(); 2].map(|()| emulator.starts("1", ZERO).unwrap());

        assert_eq!(starts, [NextBoot::Http { nic: 1 }, NextBoot::Http { nic: 1 }], "{platform:?}");
    }
}

#[test]
fn a_dell_job_is_made_run_and_deleted() {
    let mut idrac = emulator_of(Platform::DellIdrac9);
    let bios = "/redfish/v1/Systems/System.Embedded.1/Bios/Settings";
    let jobs = "/redfish/v1/Managers/iDRAC.Embedded.1/Jobs";
    let enable = json!({"Attributes": {"HttpDev1EnDis": "Enabled"}});
    let mut on_reset = enable.clone();
    on_reset["@Redfish.SettingsApplyTime"] = json!({"ApplyTime": "OnReset"});
    let child = json!({"Attributes": {"HttpDev1Uri": URL}});
    let enabled = |idrac: &Emulator| {
        let bios = idrac.resource("/redfish/v1/Systems/System.Embedded.1/Bios").unwrap();
        bios["Attributes"]["HttpDev1EnDis"] == "Enabled"
    };
    let refused = send(&mut idrac, Method::PATCH, bios, &child);
    assert_eq!(refused, (400, "SYS410".to_owned()));
    // Staged without a job.
    assert_eq!(send(&mut idrac, Method::PATCH, bios, &enable).0, 200);
    idrac.starts("1", ZERO);
    assert!(!enabled(&idrac));

    assert_eq!(send(&mut idrac, Method::PATCH, bios, &on_reset).0, 202);
    let refused = send(&mut idrac, Method::PATCH, bios, &on_reset);
    assert_eq!(refused, (400, "SYS011".to_owned()));
    let job = format!("{jobs}/JID_000000000001");
    assert_eq!(idrac.resource(&job).unwrap()["JobState"], "Scheduled");
    assert_eq!(idrac.resource(jobs).unwrap()["Members@odata.count"], 1);
    assert_eq!(send(&mut idrac, Method::DELETE, &job, &Value::Null).0, 200);
    assert!(idrac.resource(&job).is_none());
    idrac.starts("1", ZERO);
    assert!(!enabled(&idrac));

    assert_eq!(send(&mut idrac, Method::PATCH, bios, &on_reset).0, 202);
    idrac.starts("1", ZERO);
    assert!(enabled(&idrac));
    let task = idrac.resource("/redfish/v1/TaskService/Tasks/JID_000000000002").unwrap();
    assert_eq!(task["TaskState"], "Completed");
    assert_eq!(send(&mut idrac, Method::PATCH, bios, &child).0, 200);
}

#[test]
fn a_dell_job_runs_as_long_as_post() {
    let mut idrac = emulator_of(Platform::DellIdrac9);
    idrac.set_faults(vec![FaultRule::always(EmulatedFault::Post { secs: 60 })]);
    let settings = "/redfish/v1/Systems/System.Embedded.1/Bios/Settings";
    let enable = json!({
        "@Redfish.SettingsApplyTime": {"ApplyTime": "OnReset"},
        "Attributes": {"HttpDev1EnDis": "Enabled"},
    });
    assert_eq!(send(&mut idrac, Method::PATCH, settings, &enable).0, 202);
    idrac.starts("1", ZERO);

    let states = [59, 60].map(|seconds| {
        let task = "/redfish/v1/TaskService/Tasks/JID_000000000001";
        at(seconds, &Method::GET, task, b"", &mut idrac).body.unwrap()["TaskState"].take()
    });

    assert_eq!(states, ["Running", "Completed"]);
}

#[test]
fn a_reset_is_answered_as_each_vendor_does() {
    for (platform, reset, status) in [
        (Platform::Generic, "On", 204),
        (Platform::Generic, "ForceOff", 204),
        (Platform::Generic, "ForceRestart", 409),
        (Platform::Generic, "GracefulRestart", 409),
        (Platform::Generic, "Nmi", 409),
        (Platform::Generic, "FullPowerCycle", 400),
        (Platform::DellIdrac9, "ForceOff", 409),
        (Platform::DellIdrac9, "ForceOn", 400),
        (Platform::Supermicro, "On", 204),
    ] {
        let mut emulator = emulator_of(platform);
        let path = format!("{}/Actions/ComputerSystem.Reset", platform.system_path("1"));
        let answer = send(&mut emulator, Method::POST, &path, &json!({"ResetType": reset}));
        assert_eq!(answer.0, status, "{platform:?} {reset}: {}", answer.1);
    }
}

#[test]
fn an_inserted_image_is_booted_as_a_cd() {
    let mut emulator = emulator();
    let media = "/redfish/v1/Systems/1/VirtualMedia/Cd";
    let insert = format!("{media}/Actions/VirtualMedia.InsertMedia");
    let image = "http://10.0.0.1/image.iso";
    assert_eq!(send(&mut emulator, Method::POST, &insert, &json!({"Image": "nfs://x"})).0, 400);
    assert_eq!(send(&mut emulator, Method::POST, &insert, &json!({"Image": image})).0, 204);
    assert_eq!(send(&mut emulator, Method::POST, &insert, &json!({"Image": image})).0, 409);
    let cd =
        json!({"Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Cd"}});
    send(&mut emulator, Method::PATCH, "/redfish/v1/Systems/1", &cd);

    assert_eq!(emulator.starts("1", ZERO), Some(NextBoot::Cd(image.to_owned())));

    let eject = format!("{media}/Actions/VirtualMedia.EjectMedia");
    assert_eq!(send(&mut emulator, Method::POST, &eject, &json!({})).0, 204);
    assert_eq!(emulator.resource(media).unwrap()["Inserted"], false);
}

#[test]
fn bmcs_of_a_kind_share_their_bodies() {
    let specs = |nics| [SystemSpec { name: String::new(), first_nic: 0, nics }];
    let first = Platform::HpeIlo5.bodies(&specs(1));

    assert!(Arc::ptr_eq(&first, &Platform::HpeIlo5.bodies(&specs(1))));
    assert!(!Arc::ptr_eq(&first, &Platform::HpeIlo5.bodies(&specs(2))));
    assert!(!Arc::ptr_eq(&first, &Platform::HpeIlo6.bodies(&specs(1))));
}

#[test]
fn a_refusal_of_a_method_lists_the_others() {
    let mut emulator = emulator();
    let put = request(&Method::PUT, "/redfish/v1/Systems/1", b"{}");
    let (response, _) = emulator.answer(&put);
    assert_eq!(response.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(response.headers.contains(&("Allow", "GET, HEAD, PATCH".to_owned())));
}

#[test]
fn an_idle_session_ends_and_a_full_table_is_refused() {
    let mut emulator = emulator();
    let login = br#"{"UserName": "admin", "Password": "secret"}"#;
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let mut open = |now| {
        let post = EmulatorRequest { now, ..request(&Method::POST, SESSIONS, login) };
        emulator.answer(&post).0.status.as_u16()
    };

    let statuses: Vec<_> = (0..17).map(|_| open(minutes(0))).collect();

    assert!(statuses[..16].iter().all(|status| *status == 201));
    assert_eq!(statuses[16], 503);
    assert_eq!(open(minutes(30)), 201, "the others have been idle for SessionTimeout");
}

#[test]
fn basic_is_known_in_any_case() {
    let mut emulator = emulator();
    for (scheme, status) in [("basic", 200), ("BASIC", 200), ("Bearer", 401)] {
        let authorization = BASIC.replace("Basic", scheme);
        let get = request(&Method::GET, "/redfish/v1/Systems", b"");
        let get = EmulatorRequest { authorization: Some(&authorization), ..get };
        assert_eq!(emulator.answer(&get).0.status.as_u16(), status, "{scheme}");
    }
}

/// A generic BMC with faults.
fn faulty(faults: impl IntoIterator<Item = EmulatedFault>) -> Emulator {
    let mut emulator = emulator();
    emulator.set_faults(faults.into_iter().map(FaultRule::always).collect());
    emulator
}

const SYSTEM: &str = "/redfish/v1/Systems/1";

fn target(emulator: &Emulator) -> Value {
    emulator.resource(SYSTEM).unwrap()["Boot"]["BootSourceOverrideTarget"].take()
}

fn at(
    seconds: u64,
    method: &Method,
    path: &str,
    body: &[u8],
    bmc: &mut Emulator,
) -> EmulatorResponse {
    let now = Duration::from_secs(seconds);
    bmc.answer(&EmulatorRequest { now, ..request(method, path, body) }).0
}

const PXE: &[u8] = br#"{"Boot": {"BootSourceOverrideTarget": "Pxe"}}"#;

#[test]
fn an_answer_comes_instead_of_the_action() {
    let unavailable = EmulatedFault::Answer {
        status: 503,
        body: Some("<html>busy</html>".into()),
        retry_after_secs: Some(5),
        location: None,
    };
    let mut emulator = emulator();
    emulator.set_faults(vec![
        FaultRule::on(&Method::PATCH, "/redfish/v1/Systems/*", unavailable).times(1),
    ]);

    let refused = at(0, &Method::PATCH, SYSTEM, PXE, &mut emulator);

    assert_eq!(refused.status.as_u16(), 503);
    assert!(refused.headers.contains(&("Retry-After", "5".to_owned())));
    assert_eq!(refused.body, Some("<html>busy</html>".into()));
    assert_eq!(target(&emulator), "None");
    assert_eq!(at(0, &Method::PATCH, SYSTEM, PXE, &mut emulator).status.as_u16(), 204);
}

#[test]
fn a_connection_is_cut_before_or_after_the_effect() {
    for (fault, expected) in [(EmulatedFault::CutBefore, "None"), (EmulatedFault::CutAfter, "Pxe")]
    {
        let mut emulator = faulty([fault]);
        assert!(at(0, &Method::PATCH, SYSTEM, PXE, &mut emulator).cut);
        assert_eq!(target(&emulator), expected);
    }
}

#[test]
fn a_patch_is_forgotten_or_applied_late() {
    let mut forgetful = faulty([EmulatedFault::ForgetPatch]);
    assert_eq!(at(0, &Method::PATCH, SYSTEM, PXE, &mut forgetful).status.as_u16(), 204);
    assert_eq!(target(&forgetful), "None");

    let mut late = faulty([EmulatedFault::PatchLate { secs: 4 }]);
    assert_eq!(at(0, &Method::PATCH, SYSTEM, b"{\"X\": 1}", &mut late).status.as_u16(), 400);
    assert_eq!(at(0, &Method::PATCH, SYSTEM, PXE, &mut late).status.as_u16(), 204);
    at(3, &Method::GET, SYSTEM, b"", &mut late);
    assert_eq!(target(&late), "None");
    at(4, &Method::GET, SYSTEM, b"", &mut late);
    assert_eq!(target(&late), "Pxe");
}

#[test]
fn a_task_acts_when_it_completes() {
    let mut emulator = faulty([EmulatedFault::Task { secs: 4 }]);
    let reset = format!("{SYSTEM}/Actions/ComputerSystem.Reset");
    let on = br#"{"ResetType": "On"}"#;
    let now = Duration::from_secs(4);

    let (accepted, effect) = emulator.answer(&request(&Method::POST, &reset, on));

    assert_eq!((accepted.status.as_u16(), effect), (202, None));
    let (_, task) = accepted.headers.iter().find(|(name, _)| *name == "Location").unwrap();
    let running = at(3, &Method::GET, task, b"", &mut emulator).body.unwrap();
    assert_eq!(running["TaskState"], "Running");
    let (done, effect) =
        emulator.answer(&EmulatorRequest { now, ..request(&Method::GET, task, b"") });
    assert_eq!(done.body.unwrap()["TaskState"], "Completed");
    assert_eq!(effect, Some(PowerEffect::Start { system: "1".to_owned() }));
}

#[test]
fn power_is_shown_late_changing_or_not_at_all() {
    let shown = |seconds, emulator: &mut Emulator| {
        let body = at(seconds, &Method::GET, SYSTEM, b"", emulator).body.unwrap();
        body["PowerState"].as_str().unwrap_or("none").to_owned()
    };
    let mut late = faulty([EmulatedFault::PowerLate { secs: 60, looks: 0 }]);
    assert_eq!(shown(0, &mut late), "Off");
    late.starts("1", ZERO);
    assert_eq!([shown(59, &mut late), shown(60, &mut late)], ["Off", "On"]);
    let mut changing = faulty([EmulatedFault::PowerChanging { secs: 30 }]);
    changing.starts("1", ZERO);
    assert_eq!([shown(29, &mut changing), shown(30, &mut changing)], ["PoweringOn", "On"]);
    let mut hidden = faulty([EmulatedFault::Merge(json!({"PowerState": null}))]);
    assert_eq!(shown(0, &mut hidden), "none");
}

#[test]
fn post_refuses_changes_as_each_vendor_does() {
    for (platform, below, status, message) in [
        (Platform::HpeIlo5, "", 400, "UnableToModifyDuringSystemPOST"),
        (Platform::Ami, "/SD", 503, "ServiceTemporarilyUnavailable"),
    ] {
        let mut emulator = emulator_of(platform);
        emulator.set_faults(vec![FaultRule::always(EmulatedFault::Post { secs: 30 })]);
        emulator.starts("1", ZERO);
        let path = format!("{}{below}", platform.system_path("1"));
        let body = json!({"Boot": {"BootSourceOverrideTarget": "Pxe"}});

        let answer = send(&mut emulator, Method::PATCH, &path, &body);

        assert_eq!(answer, (status, message.to_owned()));
        let body = body.to_string();
        let patch = request(&Method::PATCH, &path, body.as_bytes());
        let later = EmulatorRequest { if_match: Some("*"), now: Duration::from_secs(30), ..patch };
        assert!(emulator.answer(&later).0.status.is_success(), "{platform:?}");
    }
}

#[test]
fn an_if_match_is_required_or_never_matches() {
    let mut ami = emulator_of(Platform::Ami);
    let sd = "/redfish/v1/Systems/DGX/SD";
    assert_eq!(at(0, &Method::PATCH, sd, PXE, &mut ami).status.as_u16(), 428);
    let etag = ami.resource(sd).unwrap()["@odata.etag"].as_str().unwrap().to_owned();
    let patch = EmulatorRequest { if_match: Some(&etag), ..request(&Method::PATCH, sd, PXE) };
    assert_eq!(ami.answer(&patch).0.status.as_u16(), 204);
    assert_eq!(ami.answer(&patch).0.status.as_u16(), 412, "the ETag has changed");

    let mut none = faulty([EmulatedFault::NoEtags]);
    assert_eq!(send(&mut none, Method::PATCH, SYSTEM, &json!({"Boot": {}})).0, 412);
    assert_eq!(at(0, &Method::PATCH, SYSTEM, PXE, &mut none).status.as_u16(), 204);
}

#[test]
fn an_etag_changes_or_an_override_is_gone_after_it_was_shown() {
    let mut changing = faulty([EmulatedFault::ChangingEtags]);
    let shown = at(0, &Method::GET, SYSTEM, b"", &mut changing).body.unwrap();
    let etag = shown["@odata.etag"].as_str().unwrap();
    let patch = EmulatorRequest { if_match: Some(etag), ..request(&Method::PATCH, SYSTEM, PXE) };
    assert_eq!(changing.answer(&patch).0.status.as_u16(), 412);

    let mut dropping = emulator();
    let rule = FaultRule::on(&Method::GET, SYSTEM, EmulatedFault::DropOverride);
    dropping.set_faults(vec![FaultRule { after: 1, ..rule }]);
    let once =
        json!({"Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe"}});
    send(&mut dropping, Method::PATCH, SYSTEM, &once);
    let shown = [(); 3].map(|()| {
        let body = at(0, &Method::GET, SYSTEM, b"", &mut dropping).body.unwrap();
        body["Boot"]["BootSourceOverrideEnabled"].as_str().unwrap().to_owned()
    });
    assert_eq!(shown, ["Once", "Once", "Disabled"]);
    assert_eq!(dropping.starts("1", ZERO), Some(NextBoot::Usual));
}

#[test]
fn a_bmc_takes_only_sessions_or_only_basic() {
    let login = br#"{"UserName": "admin", "Password": "secret"}"#;
    let mut sessions = faulty([EmulatedFault::BasicOff]);
    assert_eq!(at(0, &Method::GET, SYSTEM, b"", &mut sessions).status.as_u16(), 401);
    assert_eq!(at(0, &Method::POST, SESSIONS, login, &mut sessions).status.as_u16(), 201);
    let mut basic = faulty([EmulatedFault::SessionsOff]);
    assert_eq!(at(0, &Method::POST, SESSIONS, login, &mut basic).status.as_u16(), 405);
    assert_eq!(at(0, &Method::GET, SYSTEM, b"", &mut basic).status.as_u16(), 200);
    let mut full = faulty([EmulatedFault::SessionsFull { basic: true }]);
    assert_eq!(at(0, &Method::POST, SESSIONS, login, &mut full).status.as_u16(), 503);
    assert_eq!(at(0, &Method::GET, SYSTEM, b"", &mut full).status.as_u16(), 503);
}

#[test]
fn authorities_for_https_boot_are_added_and_removed() {
    const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    let mut emulator = emulator();
    let folder =
        emulator.resource("/redfish/v1/Systems/1").unwrap()["Boot"]["Certificates"]["@odata.id"]
            .as_str()
            .unwrap()
            .to_owned();
    assert_eq!(emulator.boot_certificates("1"), None);
    let post = |emulator: &mut Emulator, body: Value| {
        let body = body.to_string();
        emulator.answer(&request(&Method::POST, &folder, body.as_bytes())).0
    };

    let certificate = json!({"CertificateType": "PEM", "CertificateString": PEM});
    let created = post(&mut emulator, certificate.clone());
    assert_eq!(created.status, StatusCode::CREATED);
    assert_eq!(emulator.boot_certificates("1"), Some(vec![PEM.to_owned()]));
    for odd in [
        json!({}),
        json!({"CertificateType": "PKCS7", "CertificateString": PEM}),
        json!({"CertificateType": "PEM", "CertificateString": "no certificate"}),
        json!({"CertificateType": "PEM", "CertificateString": format!("{PEM}{PEM}")}),
    ] {
        assert_eq!(post(&mut emulator, odd.clone()).status, StatusCode::BAD_REQUEST, "{odd}");
    }
    for _ in 1..4 {
        post(&mut emulator, certificate.clone());
    }
    assert_eq!(post(&mut emulator, certificate).status, StatusCode::CONFLICT);

    let (_, path) = created.headers.iter().find(|(name, _)| *name == "Location").unwrap();
    let deleted = emulator.answer(&request(&Method::DELETE, path, b"")).0;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    assert_eq!(emulator.boot_certificates("1").map(|all| all.len()), Some(3));
    let listed = emulator.resource(&folder).unwrap();
    assert_eq!(listed["Members@odata.count"], 3);
}

const KEYS: &str = "/redfish/v1/Systems/1/SecureBoot/SecureBootDatabases";
const DER_IN_PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIBAAEC\n-----END CERTIFICATE-----\n";

fn post(emulator: &mut Emulator, path: &str, body: &Value) -> StatusCode {
    emulator.answer(&request(&Method::POST, path, body.to_string().as_bytes())).0.status
}

fn certificate_in_db() -> EmulatedSignature {
    EmulatedSignature {
        owner: "77fa9abd-0359-4d32-bd60-28f4e78f784b".to_owned(),
        data: EmulatedSignatureData::Certificate(DER_IN_PEM.to_owned()),
    }
}

#[test]
fn the_databases_of_secure_boot_are_those_of_the_firmware_and_are_changed_for_its_next_start() {
    let mut emulator = emulator();
    let digest = EmulatedSignature {
        data: EmulatedSignatureData::Sha256("ab".repeat(32)),
        ..certificate_in_db()
    };
    let mut firmware = EmulatedSecureBoot {
        is_enabled: true,
        databases: [
            (SecureBootDatabase::PlatformKey, vec![certificate_in_db()]),
            (SecureBootDatabase::KeyExchangeKeys, vec![certificate_in_db()]),
            (SecureBootDatabase::Allowed, vec![certificate_in_db()]),
            (SecureBootDatabase::Forbidden, vec![digest]),
        ]
        .into(),
    };
    emulator.show_secure_boot("1", &firmware);

    let shown = emulator.resource("/redfish/v1/Systems/1/SecureBoot").unwrap();
    assert_eq!(shown["SecureBootMode"], "UserMode");
    assert_eq!(shown["SecureBootCurrentBoot"], "Enabled");
    let forbidden = emulator.resource(&format!("{KEYS}/dbx/Signatures/1")).unwrap();
    assert_eq!(forbidden["SignatureString"], "ab".repeat(32));
    assert_eq!(forbidden["UefiSignatureOwner"], "77fa9abd-0359-4d32-bd60-28f4e78f784b");
    assert!(emulator.resource(&format!("{KEYS}/PK/Signatures")).is_none());
    assert_eq!(emulator.take_secure_boot("1"), None);

    let db = format!("{KEYS}/db/Certificates");
    let certificate = json!({"CertificateType": "PEM", "CertificateString": DER_IN_PEM});
    assert_eq!(post(&mut emulator, &db, &certificate), StatusCode::CREATED);
    assert_eq!(emulator.resource(&db).unwrap()["Members@odata.count"], 2);
    // What waits for the next start is not overwritten.
    emulator.show_secure_boot("1", &firmware);
    let changed = emulator.take_secure_boot("1").unwrap();
    assert_eq!(changed.databases[&SecureBootDatabase::Allowed].len(), 2);
    assert_eq!(changed.databases[&SecureBootDatabase::Forbidden].len(), 1);
    assert_eq!(emulator.take_secure_boot("1"), None);

    firmware.databases.insert(SecureBootDatabase::Allowed, Vec::new());
    emulator.show_secure_boot("1", &firmware);
    assert_eq!(emulator.resource(&db).unwrap()["Members@odata.count"], 0);
    let reset = json!({"ResetKeysType": "ResetAllKeysToDefault"});
    let action = format!("{KEYS}/db/Actions/SecureBootDatabase.ResetKeys");
    assert_eq!(post(&mut emulator, &action, &reset), StatusCode::NO_CONTENT);
    assert_eq!(emulator.resource(&db).unwrap()["Members@odata.count"], 1);

    let delete = json!({"ResetKeysType": "DeletePK"});
    assert_eq!(post(&mut emulator, &action, &delete), StatusCode::BAD_REQUEST);
    let action = "/redfish/v1/Systems/1/SecureBoot/Actions/SecureBoot.ResetKeys";
    assert_eq!(post(&mut emulator, action, &delete), StatusCode::NO_CONTENT);
    let shown = emulator.resource("/redfish/v1/Systems/1/SecureBoot").unwrap();
    assert_eq!(shown["SecureBootMode"], "SetupMode");
    let changed = emulator.take_secure_boot("1").unwrap();
    assert_eq!(changed.databases[&SecureBootDatabase::PlatformKey], []);
}

#[test]
fn a_database_refuses_what_firmware_cannot_have() {
    let mut emulator = emulator();
    let certificate = json!({"CertificateType": "PEM", "CertificateString": DER_IN_PEM});
    let platform_key = format!("{KEYS}/PK/Certificates");
    assert_eq!(post(&mut emulator, &platform_key, &certificate), StatusCode::CREATED);
    assert_eq!(post(&mut emulator, &platform_key, &certificate), StatusCode::CONFLICT);
    let digest = json!({"SignatureType": "EFI_CERT_SHA256_GUID", "SignatureString": "ab"});
    assert_eq!(
        post(&mut emulator, &format!("{KEYS}/dbx/Signatures"), &digest),
        StatusCode::BAD_REQUEST
    );
    for odd in [
        json!({"CertificateType": "PKCS7", "CertificateString": DER_IN_PEM}),
        json!({"CertificateType": "PEM", "CertificateString": "-----BEGIN CERTIFICATE-----"}),
        json!({
            "CertificateType": "PEM", "CertificateString": DER_IN_PEM, "UefiSignatureOwner": "me",
        }),
    ] {
        let status = post(&mut emulator, &format!("{KEYS}/db/Certificates"), &odd);
        assert_eq!(status, StatusCode::BAD_REQUEST, "{odd}");
    }
    assert_eq!(
        post(&mut emulator, &format!("{KEYS}/dbt/Certificates"), &certificate),
        StatusCode::NOT_FOUND
    );
    let deleted = emulator.answer(&request(&Method::DELETE, &format!("{platform_key}/1"), b"")).0;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    assert_eq!(emulator.resource(&platform_key).unwrap()["Members@odata.count"], 0);
}

#[test]
fn faults_are_switched_on_and_off_over_http() {
    let mut emulator = emulator();
    let rule = br#"{"path": "/redfish/v1/Systems/*", "fault": {"answer": {"status": 500}}}"#;
    assert_eq!(at(0, &Method::POST, FAULTS, rule, &mut emulator).status.as_u16(), 201);
    assert_eq!(at(0, &Method::POST, FAULTS, b"{}", &mut emulator).status.as_u16(), 400);
    assert_eq!(at(0, &Method::GET, SYSTEM, b"", &mut emulator).status.as_u16(), 500);
    let rules = at(0, &Method::GET, FAULTS, b"", &mut emulator).body.unwrap();
    assert_eq!(rules["Rules"][0]["fault"]["answer"]["status"], 500);
    let stranger = EmulatorRequest { authorization: None, ..request(&Method::GET, FAULTS, b"") };
    assert_eq!(emulator.answer(&stranger).0.status.as_u16(), 401);

    assert_eq!(at(0, &Method::DELETE, FAULTS, b"", &mut emulator).status.as_u16(), 204);

    assert_eq!(at(0, &Method::GET, SYSTEM, b"", &mut emulator).status.as_u16(), 200);
}

#[test]
fn a_recorded_tree_shows_what_was_recorded_and_takes_what_it_shows() {
    let system = json!({
        "@odata.id": "/redfish/v1/Systems/Self",
        "@odata.etag": "\"7\"",
        "PowerState": "On",
        "BootProgress": {"LastState": "OSRunning"},
        "Actions": {"#ComputerSystem.Reset": {"target": "/redfish/v1/Systems/Self/Actions/ComputerSystem.Reset"}},
        "@Redfish.Settings": {"SettingsObject": {"@odata.id": "/redfish/v1/Systems/Self/SD"}},
        "Boot": {"BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None"},
    });
    let baseboard = json!({"PowerState": "On"});
    let reset = json!({"target": "/redfish/v1/Systems/Two/Actions/ComputerSystem.Reset"});
    let second = json!({"PowerState": "Off", "Actions": {"#ComputerSystem.Reset": reset}});
    let tree = RecordedTree::new([
        ("/redfish/v1/Systems/Baseboard".to_owned(), baseboard),
        ("/redfish/v1/Systems/Two".to_owned(), second),
        ("/redfish/v1/Systems/Self/".to_owned(), system.clone()),
        (
            "/redfish/v1/Systems/Self/SD".to_owned(),
            json!({"Boot": {"BootSourceOverrideTarget": "None"}}),
        ),
    ]);
    let path = tree.system_path().unwrap();
    assert_eq!(path, "/redfish/v1/Systems/Self");
    let mut emulator = Emulator::new("admin", "secret");
    emulator.show_recorded("self", &tree);
    assert_eq!(emulator.resource(&path), Some(system));
    assert_eq!(emulator.power("self"), Some(EmulatedPower::On));
    let on = br#"{"ResetType": "On"}"#;
    let post = request(&Method::POST, "/redfish/v1/Systems/Two/Actions/ComputerSystem.Reset", on);
    let system = "/redfish/v1/Systems/Two".to_owned();
    assert_eq!(emulator.answer(&post).1, Some(PowerEffect::Start { system }));

    let pxe = json!({"Boot": {"BootSourceOverrideTarget": "Pxe"}});
    assert_eq!(send(&mut emulator, Method::PATCH, &format!("{path}/SD"), &pxe).0, 204);
    let unknown = json!({"Boot": {"HttpBootUri": "http://a/b"}});
    let refused = send(&mut emulator, Method::PATCH, &path, &unknown);
    assert_eq!(refused, (400, "PropertyUnknown".to_owned()));
    emulator.stopped("self", ZERO);
    assert_eq!(emulator.resource(&path).unwrap()["PowerState"], "Off");
    emulator.starts("self", ZERO);
    assert_eq!(emulator.resource(&path).unwrap()["Boot"]["BootSourceOverrideTarget"], "Pxe");
    assert_eq!(send(&mut emulator, Method::POST, SESSIONS, &Value::Null).0, 404);
}

#[test]
fn settings_of_a_recorded_bios_take_the_attributes_in_use() {
    let system = json!({
        "Bios": {"@odata.id": "/redfish/v1/systems/1/bios/"},
        "Actions": {"#ComputerSystem.Reset": {}},
    });
    let settings = json!({"SettingsObject": {"@odata.id": "/redfish/v1/systems/1/bios/settings/"}});
    let bios = json!({"@Redfish.Settings": settings, "Attributes": {"UrlBootFile": ""}});
    let tree = RecordedTree::new([
        ("/redfish/v1/Systems/1".to_owned(), system),
        ("/redfish/v1/systems/1/bios".to_owned(), bios),
        ("/redfish/v1/systems/1/bios/settings".to_owned(), json!({"Attributes": {}})),
    ]);
    let mut emulator = Emulator::new("admin", "secret");
    emulator.show_recorded("1", &tree);
    let path = "/redfish/v1/systems/1/bios/settings/";
    let mut body = json!({"Attributes": {"UrlBootFile": URL}});
    body["@Redfish.SettingsApplyTime"] = json!({"ApplyTime": "OnReset"});
    assert_eq!(send(&mut emulator, Method::PATCH, path, &body).0, 204);
    let unknown = json!({"Attributes": {"Other": ""}});
    assert_eq!(send(&mut emulator, Method::PATCH, path, &unknown).0, 400);
    let pending = emulator.resource(path).unwrap();
    assert_eq!(pending, json!({"Attributes": {"UrlBootFile": URL}}), "without the annotation");

    emulator.starts("1", ZERO);

    let bios = emulator.resource("/redfish/v1/systems/1/bios").unwrap();
    assert_eq!(bios["Attributes"]["UrlBootFile"], URL);
}

/// Changes a resource, and switches the machine.
fn no_panic(emulator: &mut Emulator, system: &str, path: &str, seconds: &[u64]) {
    let reset = format!("{system}/Actions/ComputerSystem.Reset");
    let on = br#"{"ResetType": "On"}"#;
    let requests: [(&Method, &str, &[u8]); 3] =
        [(&Method::PATCH, path, PXE), (&Method::POST, &reset, on), (&Method::GET, path, b"")];
    for (second, (method, path, body)) in seconds.iter().zip(requests.iter().cycle()) {
        let now = Duration::from_secs(*second);
        let (response, effect) = emulator.answer(&EmulatorRequest {
            now,
            if_match: Some("*"),
            ..request(method, path, body)
        });
        assert!(response.status.as_u16() >= 200);
        if effect.is_some() {
            emulator.starts("1", now);
        }
    }
    emulator.starts("1", ZERO);
    emulator.stopped("1", ZERO);
}

fn any_body() -> impl Strategy<Value = Value> {
    let settings = json!({"SettingsObject": {"@odata.id": "/redfish/v1/Systems/1/SD"}});
    prop::sample::select(vec![
        json!(null),
        json!([1]),
        json!("text"),
        json!({"Boot": 1, "Attributes": [], "@odata.etag": 7, "@Redfish.Settings": settings}),
        json!({"Boot": {}, "PowerState": 1, "Bios": "x", "BootProgress": null}),
        json!({"Actions": {"#ComputerSystem.Reset": {"@Redfish.ActionInfo": "/redfish/v1"}}}),
        json!({
            "Boot": {"BootSourceOverrideTarget": null, "BootSourceOverrideEnabled": "Once", "BootNext": 1},
            "@Redfish.Settings": settings,
        }),
        json!({"Boot": {"BootOrder": "x"}, "Members": []}),
    ])
}

fn any_fault() -> impl Strategy<Value = EmulatedFault> {
    let secs = 0u32..60;
    prop_oneof![
        (100u16..1000).prop_map(|status| EmulatedFault::Answer {
            status,
            body: None,
            retry_after_secs: Some(1),
            location: Some("\n".to_owned()),
        }),
        Just(EmulatedFault::CutBefore),
        Just(EmulatedFault::Body(json!("<html>"))),
        Just(EmulatedFault::Merge(json!({"Boot": null, "@odata.etag": 7}))),
        Just(EmulatedFault::Merge(json!([1]))),
        Just(EmulatedFault::ForgetPatch),
        Just(EmulatedFault::DropOverride),
        Just(EmulatedFault::AcceptedWithoutTask),
        Just(EmulatedFault::WeakEtags),
        Just(EmulatedFault::ChangingEtags),
        secs.clone().prop_map(|secs| EmulatedFault::PatchLate { secs }),
        secs.clone().prop_map(|secs| EmulatedFault::PowerLate { secs, looks: 1 }),
        secs.clone().prop_map(|secs| EmulatedFault::Task { secs }),
        secs.prop_map(|secs| EmulatedFault::Post { secs }),
    ]
}

proptest! {
    #[test]
    fn no_request_makes_it_panic(
        method in prop::sample::select(vec![
            Method::GET, Method::POST, Method::PATCH, Method::DELETE, Method::PUT,
        ]),
        platform in prop::sample::select(Platform::ALL.to_vec()),
        path in "/?(redfish/v1)?(/Systems/1)?(/Actions/ComputerSystem.Reset|/SessionService/Sessions)?.{0,20}",
        below in "(|/Settings|/SD|/Bios/Settings|/Bios/SD|/Bios/settings|/Bios/Pending|/Bios/oem/hpe/boot/settings)",
        body: Vec<u8>,
        name in "(Attributes|Boot)",
        inner in "(BootOrder|BootNext|HttpBootUri|HttpDev1Uri|UrlBootFile|BootSourceOverrideTarget)",
        value in prop::sample::select(vec![
            json!(null), json!([]), json!({}), json!("é"), json!(1), json!([1]), json!(["Boot0001"]),
        ]),
    ) {
        let mut emulator = emulator_of(platform);
        let (response, _) = emulator.answer(&request(&method, &path, &body));
        prop_assert!(response.status.as_u16() >= 200);
        let path = format!("{}{below}", platform.system_path("1"));
        let body = json!({name: {inner: value}}).to_string();
        emulator.answer(&request(&method, &path, body.as_bytes()));
        prop_assert!(emulator.starts("1", ZERO).is_some());
    }

    #[test]
    fn no_fault_makes_it_panic(
        platform in prop::sample::select(Platform::ALL.to_vec()),
        rules in prop::collection::vec(any_fault(), 0..4),
        below in "(|/Settings|/SD|/Bios/Settings|/Bios/SD|/Bios/settings|/Bios/Pending)",
        seconds in prop::collection::vec(0u64..100, 6),
    ) {
        let mut emulator = emulator_of(platform);
        emulator.set_faults(rules.into_iter().map(FaultRule::always).collect());
        let path = format!("{}{below}", platform.system_path("1"));
        no_panic(&mut emulator, &platform.system_path("1"), &path, &seconds);
    }

    #[test]
    fn no_recorded_tree_makes_it_panic(
        system in any_body(), settings in any_body(), seconds in prop::collection::vec(0u64..100, 6),
    ) {
        let (path, sd) = ("/redfish/v1/Systems/1", "/redfish/v1/Systems/1/SD");
        let bodies = [(path, system), (sd, settings), (SESSIONS, json!(1))];
        let tree = RecordedTree::new(bodies.map(|(path, body)| (path.to_owned(), body)));
        let mut emulator = Emulator::new("admin", "secret");
        emulator.show_recorded("1", &tree);
        no_panic(&mut emulator, path, sd, &seconds);
        no_panic(&mut emulator, path, path, &seconds);
    }

    #[test]
    fn a_refused_patch_leaves_the_override_as_it_was(
        property in "(BootSourceOverrideEnabled|BootSourceOverrideTarget|HttpBootUri|X)",
        value in "[a-zA-Z:/.]{0,12}",
    ) {
        let mut emulator = emulator();
        let before = emulator.resource("/redfish/v1/Systems/1");
        let body = json!({"Boot": {"BootSourceOverrideTarget": "Pxe", (property): value}});
        let body = body.to_string();
        let patch = request(&Method::PATCH, "/redfish/v1/Systems/1", body.as_bytes());
        let (response, _) = emulator.answer(&patch);
        if !response.status.is_success() {
            prop_assert_eq!(emulator.resource("/redfish/v1/Systems/1"), before);
        }
    }
}
