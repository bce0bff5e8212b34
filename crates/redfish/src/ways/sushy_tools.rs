//! Boots against sushy-tools' emulator as its libvirt driver behaves: one permanent boot device for each machine, and
//! one `HttpBootUri` for all.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use hardware::{BootWayKind, HttpMethod};
use http::StatusCode;
use serde_json::{Value, json};
use url::Url;

use super::tests::URL;
use super::*;
use crate::channel::{BmcChannel, ChannelFailure, RedfishAnswer, RedfishRequest};
use crate::facts::BmcFacts;
use crate::machine::RedfishSystem;

const SYSTEM: &str = "/redfish/v1/Systems/1";
const DRIVE: &str = "/redfish/v1/Systems/1/VirtualMedia/Cd";
const PATIENCE: Duration = Duration::from_secs(60);

/// A machine behind sushy-tools, switched off.
struct SushyToolsBmc {
    address: Url,
    shows_maker: bool,
    has_disk: bool,
    inside: Mutex<Inside>,
}

struct Inside {
    /// The device of the first boot order; none if that device was removed.
    device: Option<&'static str>,
    /// Kept for as long as the emulator runs.
    uri: Option<String>,
    image: String,
}

impl SushyToolsBmc {
    fn new() -> Self {
        let device = Some("Hdd");
        let inside = Inside { device, uri: None, image: String::new() };
        Self {
            address: Url::parse("http://bmc.example").unwrap(),
            shows_maker: true,
            has_disk: true,
            inside: Mutex::new(inside),
        }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap()
    }

    fn system(&self) -> Value {
        let inside = self.inside();
        let uri = inside.uri.clone().unwrap_or_else(|| "None".to_owned());
        let mut boot = json!({"BootSourceOverrideEnabled": "Continuous"});
        if let Some(device) = inside.device {
            boot = json!({
                "BootSourceOverrideEnabled": "Continuous",
                "BootSourceOverrideTarget": device,
                "BootSourceOverrideTarget@Redfish.AllowableValues": ["Pxe", "Cd", "Hdd", "UefiHttp"],
                "BootSourceOverrideMode": "UEFI",
                "UefiTargetBootSourceOverride": "/0x31/0x33/0x01/0x01",
                "HttpBootUri": uri,
            });
        }
        let mut system = json!({
            "@odata.id": SYSTEM,
            "PowerState": "Off",
            "Boot": boot,
            "VirtualMedia": {"@odata.id": format!("{SYSTEM}/VirtualMedia")},
            "Actions": {"#ComputerSystem.Reset": {"target": format!("{SYSTEM}/Actions/ComputerSystem.Reset")}},
        });
        if self.shows_maker {
            system["Manufacturer"] = "Sushy Emulator".into();
        }
        system
    }

    fn drive(&self) -> Value {
        let image = self.inside().image.clone();
        json!({
            "@odata.id": DRIVE, "MediaTypes": ["CD", "DVD"], "Inserted": !image.is_empty(), "Image": image,
            "Actions": {
                "#VirtualMedia.InsertMedia": {"target": format!("{DRIVE}/Actions/VirtualMedia.InsertMedia")},
                "#VirtualMedia.EjectMedia": {"target": format!("{DRIVE}/Actions/VirtualMedia.EjectMedia")},
            },
        })
    }

    /// A PATCH of the system. `BootSourceOverrideEnabled` is ignored.
    fn patch(&self, boot: &Value) -> Result<(), &'static str> {
        let mut inside = self.inside();
        let target = boot["BootSourceOverrideTarget"].as_str();
        let device = match (target, boot["HttpBootUri"].as_str()) {
            (Some("UefiHttp"), Some(uri)) => {
                inside.uri = Some(uri.to_owned());
                inside.image = uri.to_owned();
                "Cd"
            }
            (Some("UefiHttp" | "Pxe"), _) => "Pxe",
            (Some("Cd"), _) if !inside.image.is_empty() => "Cd",
            (Some("Hdd"), _) if self.has_disk => "Hdd",
            _ => {
                return Err(
                    "Target libvirt device None does not exist in domain fe440b00-0000-4000-8000-000000000001",
                );
            }
        };
        inside.device = Some(device);
        Ok(())
    }

    fn eject(&self) {
        let mut inside = self.inside();
        inside.image.clear();
        if inside.device == Some("Cd") {
            inside.device = None;
        }
    }

    fn answer(&self, request: &RedfishRequest) -> Result<Value, &'static str> {
        let body = request.body.as_ref();
        match (&request.method, request.path.strip_prefix(SYSTEM).unwrap_or("elsewhere")) {
            (HttpMethod::Get, "") => Ok(self.system()),
            (HttpMethod::Get, "/VirtualMedia") => Ok(json!({"Members": [{"@odata.id": DRIVE}]})),
            (HttpMethod::Get, "/VirtualMedia/Cd") => Ok(self.drive()),
            (HttpMethod::Patch, "") => self.patch(&body.unwrap()["Boot"]).map(|()| Value::Null),
            (HttpMethod::Post, "/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia") => {
                self.inside().image = body.unwrap()["Image"].as_str().unwrap().to_owned();
                Ok(Value::Null)
            }
            (HttpMethod::Post, "/VirtualMedia/Cd/Actions/VirtualMedia.EjectMedia") => {
                self.eject();
                Ok(Value::Null)
            }
            (method, path) => panic!("no such request: {method:?} {path}"),
        }
    }
}

impl BmcChannel for SushyToolsBmc {
    fn address(&self) -> &Url {
        &self.address
    }

    async fn exchange(&self, request: &RedfishRequest) -> Result<RedfishAnswer, ChannelFailure> {
        let (status, body) = match self.answer(request) {
            Ok(Value::Null) => (StatusCode::NO_CONTENT, Vec::new()),
            Ok(body) => (StatusCode::OK, body.to_string().into_bytes()),
            Err(message) => {
                let info = json!([{"MessageId": "Base.1.0.GeneralError"}]);
                let error = json!({"code": "Base.1.0.GeneralError", "message": message, "@Message.ExtendedInfo": info});
                let body = json!({"error": error}).to_string().into_bytes();
                (StatusCode::INTERNAL_SERVER_ERROR, body)
            }
        };
        Ok(RedfishAnswer { status, body, ..RedfishAnswer::default() })
    }

    async fn pause(&self, _: Duration) {}
}

const BY_DHCP: BootNeed<'_> =
    BootNeed { by_url: false, macs: &[], allows_pxe: false, media: MediaUse::Never, advice: None };
const BY_URL: BootNeed<'_> = BootNeed { by_url: true, ..BY_DHCP };
const BY_CD: BootNeed<'_> = BootNeed { media: MediaUse::Only, ..BY_URL };

/// Sets a boot and reads it back; then ends it. Returns the way, the warnings of the reading, and the device between.
async fn boot_and_end(
    bmc: &SushyToolsBmc,
    need: &BootNeed<'_>,
) -> (ChosenWay, Vec<String>, Option<&'static str>) {
    let facts = BmcFacts::default();
    let machine = RedfishSystem::find(bmc, &facts, Some(SYSTEM), PATIENCE).await.unwrap();
    let view = machine.look().await.unwrap();
    let way = machine.choose_way(&view, need).await.unwrap();
    let wanted = HttpBootOverride::once(need.by_url.then(|| URL.to_owned()));
    machine.set_boot(&view, &way, &wanted).await.unwrap();
    let read = machine.read_back(&way, &wanted).await.unwrap();
    let between = bmc.inside().device;
    if read.view.needs_undoing(way.changes()) {
        assert_eq!(machine.undo_boot(&read.view, way.changes()).await.unwrap(), [""; 0]);
    }
    (way, read.warnings, between)
}

#[tokio::test]
async fn each_way_ends_with_the_disk_as_the_boot_device_and_an_empty_drive() {
    for (need, kind, device) in [
        (BY_DHCP, BootWayKind::UefiHttp, "Pxe"),
        (BY_URL, BootWayKind::HttpBootUri, "Cd"),
        (BY_CD, BootWayKind::VirtualMedia, "Cd"),
    ] {
        let bmc = SushyToolsBmc::new();

        let (way, _, between) = boot_and_end(&bmc, &need).await;

        assert_eq!((way.kind(), between), (kind, Some(device)));
        let inside = bmc.inside();
        assert_eq!((inside.device, inside.image.as_str()), (Some("Hdd"), ""), "{way}");
    }
}

#[tokio::test]
async fn another_spelling_of_what_was_set_is_a_warning() {
    let (way, warnings, _) = boot_and_end(&SushyToolsBmc::new(), &BY_URL).await;

    assert_eq!(
        way.to_string(),
        "the BMC (sushy-tools) boots the machine by HttpBootUri in the boot override at /redfish/v1/Systems/1; \
         sushy-tools fetches the image itself, and its machine boots it as a CD"
    );
    assert_eq!(warnings, ["the BMC took BootSourceOverrideTarget UefiHttp and shows it as Cd"]);
}

#[tokio::test]
async fn the_url_of_another_machine_neither_fails_a_boot_nor_needs_undoing() {
    let bmc = SushyToolsBmc::new();
    bmc.inside().uri = Some("http://10.0.0.1:8080/boot/y/boot.iso".to_owned());
    let facts = BmcFacts::default();
    let machine = RedfishSystem::find(&bmc, &facts, Some(SYSTEM), PATIENCE).await.unwrap();
    let view = machine.look().await.unwrap();
    assert!(!view.needs_undoing(&[]));
    let way = machine.choose_way(&view, &BY_URL).await.unwrap();
    let wanted = HttpBootOverride::once(Some(URL.to_owned()));
    machine.set_boot(&view, &way, &wanted).await.unwrap();
    bmc.inside().uri = Some("http://10.0.0.1:8080/boot/y/boot.iso".to_owned());

    let read = machine.read_back(&way, &wanted).await.unwrap();

    let last = read.warnings.last().unwrap();
    assert!(last.starts_with("sushy-tools shows the HttpBootUri of another machine"), "{last}");
}

#[tokio::test]
async fn a_machine_without_a_disk_is_no_failure_at_the_end_of_a_boot() {
    for (need, after) in [(BY_DHCP, Some("Pxe")), (BY_URL, None)] {
        let bmc = SushyToolsBmc { has_disk: false, ..SushyToolsBmc::new() };

        boot_and_end(&bmc, &need).await;

        let inside = bmc.inside();
        assert_eq!((inside.device, inside.image.as_str()), (after, ""));
    }
}

#[tokio::test]
async fn it_is_known_with_fewer_features_too() {
    let bmc = SushyToolsBmc { shows_maker: false, ..SushyToolsBmc::new() };

    let (way, _, _) = boot_and_end(&bmc, &BY_URL).await;

    assert_eq!(way.platform, crate::platform::BmcPlatform::SushyTools);
    assert_eq!(bmc.inside().image, "");
}
