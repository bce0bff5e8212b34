//! Dell iDRAC9 and iDRAC10: the boot URL is a BIOS attribute, which a job sets at the next reset.

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::bios::{BiosAttribute, attributes_of, check_attributes};
use super::bodies::{BmcDescription, BodiesBuilder, BootOptionForm};
use crate::emulator::machine::{MachineResources, NextBoot, SystemLayout};
use crate::emulator::patch::{ResourcePatch, is_boot_uri};
use crate::emulator::response::{
    EmulatorResponse, missing_parameter, not_writable, ok, vendor_error, wrong_format,
};
use crate::emulator::tree::ResourceBodies;
use crate::emulator::vendor::{SystemSpec, VendorRules};

pub(super) struct DellIdrac {
    /// Whether the boot override is in the settings resource (iDRAC10).
    pub(super) settings_for_boot: bool,
}

const SYSTEM: &str = "/redfish/v1/Systems/System.Embedded.1";
const SETTINGS: &str = "/redfish/v1/Systems/System.Embedded.1/Settings";
const BIOS: &str = "/redfish/v1/Systems/System.Embedded.1/Bios";
const BIOS_SETTINGS: &str = "/redfish/v1/Systems/System.Embedded.1/Bios/Settings";
const MANAGER: &str = "/redfish/v1/Managers/iDRAC.Embedded.1";
const DELL_ATTRIBUTES: &str =
    "/redfish/v1/Managers/iDRAC.Embedded.1/Oem/Dell/DellAttributes/iDRAC.Embedded.1";
const TASKS: &str = "/redfish/v1/TaskService/Tasks";
/// Collections of jobs, each with all of them.
const JOBS: [&str; 3] = [
    "/redfish/v1/Managers/iDRAC.Embedded.1/Jobs",
    "/redfish/v1/Managers/iDRAC.Embedded.1/Oem/Dell/Jobs",
    "/redfish/v1/JobService/Jobs",
];
const TARGETS: [&str; 10] = [
    "None",
    "Pxe",
    "Floppy",
    "Cd",
    "Hdd",
    "BiosSetup",
    "Utilities",
    "UefiTarget",
    "SDCard",
    "UefiHttp",
];
const RESETS: [&str; 8] = [
    "On",
    "ForceOff",
    "ForceRestart",
    "GracefulRestart",
    "GracefulShutdown",
    "PushPowerButton",
    "Nmi",
    "PowerCycle",
];

fn attributes(nics: usize) -> Vec<BiosAttribute> {
    let ports: Vec<_> = (1..=nics.max(1)).map(|port| format!("NIC.Embedded.{port}-1-1")).collect();
    let ports: Vec<_> = ports.iter().map(String::as_str).collect();
    vec![
        BiosAttribute::choice("BootMode", &["Uefi", "Bios"]),
        BiosAttribute::choice("HttpDev1EnDis", &["Disabled", "Enabled"]),
        BiosAttribute::choice("HttpDev1Interface", &ports),
        BiosAttribute::choice("HttpDev1Protocol", &["IPv4", "IPv6"]),
        BiosAttribute::choice("HttpDev1DhcpEnDis", &["Enabled", "Disabled"]),
        BiosAttribute::choice("HttpDev1DnsDhcpEnDis", &["Enabled", "Disabled"]),
        // Plain HTTP needs `None`: otherwise the firmware stops with UEFI0417.
        BiosAttribute::choice("HttpDev1TlsMode", &["OneWay", "None"]),
        BiosAttribute::text("HttpDev1Uri"),
        BiosAttribute::choice("PxeDev1EnDis", &["Enabled", "Disabled"]),
        BiosAttribute::choice("PxeDev1Interface", &ports),
        BiosAttribute::choice("SystemModelName", &["PowerEdge"]).read_only(),
    ]
}

/// Whether an attribute is read-only as long as the HTTP device is disabled.
fn belongs_to_http_device(name: &str) -> bool {
    name.starts_with("HttpDev1") && name != "HttpDev1EnDis"
}

impl VendorRules for DellIdrac {
    fn bodies(&self, specs: &[SystemSpec]) -> ResourceBodies {
        let nics = specs.first().map_or(0, |spec| spec.nics);
        let mut builder = BodiesBuilder::default();
        let model = if self.settings_for_boot { "PowerEdge R670" } else { "PowerEdge R750" };
        builder.add_bmc(&BmcDescription {
            system: SYSTEM,
            manager: MANAGER,
            chassis: "/redfish/v1/Chassis/System.Embedded.1",
            root: json!({
                "Vendor": "Dell",
                "Product": "Integrated Dell Remote Access Controller",
                "Oem": {"Dell": {"@odata.type": "#DellServiceRoot.v1_0_0.DellServiceRoot"}},
                "TaskService": {"@odata.id": "/redfish/v1/TaskService"},
                "JobService": {"@odata.id": "/redfish/v1/JobService"},
            }),
            system_body: self.system_body(model),
            manager_body: json!({
                "Model": if self.settings_for_boot { "17G Monolithic" } else { "15G Monolithic" },
                "FirmwareVersion": if self.settings_for_boot { "1.20.50.50" } else { "7.00.30.00" },
                "Links": {"Oem": {"Dell": {"DellAttributes": [{"@odata.id": DELL_ATTRIBUTES}]}}},
            }),
            resets: &RESETS,
            resets_inline: true,
            session_timeout: 1800,
        });
        builder.event_log(MANAGER, "Sel");
        builder.boot_options(
            SYSTEM,
            nics,
            &BootOptionForm {
                id: |number, _| format!("Boot{number:04X}"),
                name: |nic, kind, ip| {
                    format!(
                        "{kind} Device {0}: Embedded NIC {0} Port 1 Partition 1 (IPv{ip})",
                        nic + 1
                    )
                },
                has_path: true,
            },
        );
        builder.bios(SYSTEM, BIOS_SETTINGS, "BiosAttributeRegistry.v1_0_3", &attributes(nics));
        builder.extend(&format!("{BIOS}/BiosRegistry"), &dependencies(nics));
        if self.settings_for_boot {
            builder.add(SETTINGS, "ComputerSystem.v1_20_1", settings_body(nics));
        }
        for spec in specs {
            builder.nics(SYSTEM, spec, |position| format!("NIC.Embedded.{}-1-1", position + 1));
        }
        builder.virtual_media(MANAGER, "CD");
        builder.boot_certificates(SYSTEM);
        add_jobs(&mut builder);
        builder.done()
    }

    fn layout(&self, _: &str) -> SystemLayout {
        SystemLayout {
            system: SYSTEM.to_owned(),
            media: vec![format!("{MANAGER}/VirtualMedia/CD")],
        }
    }

    fn applies_secure_boot_at_start(&self) -> bool {
        true
    }

    fn accepts_patch(&self, _: &SystemLayout, path: &str) -> bool {
        [SYSTEM, SETTINGS, BIOS_SETTINGS, DELL_ATTRIBUTES].contains(&path)
    }

    fn patch(
        &self,
        machine: &mut MachineResources<'_>,
        patch: &ResourcePatch<'_>,
    ) -> Result<EmulatorResponse, EmulatorResponse> {
        match patch.path {
            BIOS_SETTINGS => patch_bios(machine, patch),
            DELL_ATTRIBUTES => patch_dell_attributes(machine, patch),
            SYSTEM if self.settings_for_boot && patch.body.contains_key("Boot") => {
                Err(not_writable("Boot"))
            }
            _ => {
                machine.patch_checked(patch, &[])?;
                Ok(success())
            }
        }
    }

    fn act(
        &self,
        machine: &mut MachineResources<'_>,
        method: &Method,
        path: &str,
        body: &Map<String, Value>,
    ) -> Option<EmulatorResponse> {
        if *method == Method::POST && JOBS.contains(&path) {
            return Some(create_job(machine, body));
        }
        let (folder, id) = path.rsplit_once('/')?;
        let of_a_job = *method == Method::DELETE && JOBS.contains(&folder);
        (of_a_job && machine.tree.key(path).is_some()).then(|| delete_job(machine, id))
    }

    fn apply_settings(&self, machine: &mut MachineResources<'_>) {
        if self.settings_for_boot {
            machine.apply(SETTINGS, SYSTEM, "Boot");
        }
        if let Some(job) = scheduled_job(machine) {
            machine.apply(BIOS_SETTINGS, BIOS, "Attributes");
            write_job(machine, &job, "Completed");
        }
    }

    fn boot_over_http(&self, machine: &MachineResources<'_>, _: &Value) -> NextBoot {
        if machine.attribute("HttpDev1EnDis") != "Enabled" {
            return NextBoot::Usual;
        }
        let url = machine.attribute("HttpDev1Uri");
        let interface = machine.attribute("HttpDev1Interface");
        let nic = interface.strip_prefix("NIC.Embedded.").and_then(|rest| rest.split('-').next());
        let nic =
            nic.and_then(|number| number.parse::<usize>().ok()).map_or(0, |number| number - 1);
        match url.as_str() {
            "" => NextBoot::Http { nic },
            plain
                if plain.starts_with("http:") && machine.attribute("HttpDev1TlsMode") != "None" =>
            {
                NextBoot::Usual
            }
            _ => NextBoot::Url(url),
        }
    }

    fn usual_boot(&self, machine: &MachineResources<'_>, boot: &Value) -> NextBoot {
        let attributes = machine.view(DELL_ATTRIBUTES);
        match attributes["Attributes"]["ServerBoot.1.FirstBootDevice"].as_str() {
            Some("UefiHttp") => self.boot_over_http(machine, boot),
            Some("PXE") => self.boot_over_pxe(machine),
            Some("VCD-DVD") => machine.inserted().map_or(NextBoot::Usual, NextBoot::Cd),
            Some(_) | None => boot["BootOrder"][0]
                .as_str()
                .map_or(NextBoot::Usual, |first| machine.boot_from_option(first)),
        }
    }

    fn consume_once(&self, machine: &mut MachineResources<'_>) {
        machine.consume_once();
        let attributes = machine.view(DELL_ATTRIBUTES);
        if attributes["Attributes"]["ServerBoot.1.BootOnce"] == "Enabled" {
            let normal = json!({"Attributes": {"ServerBoot.1.FirstBootDevice": "Normal"}});
            machine.tree.change(DELL_ATTRIBUTES, &normal);
        }
    }

    /// POST runs the job of the settings, which ends with it.
    fn show_in_post(&self, body: &mut Value) {
        for name in ["JobState", "TaskState"] {
            if body[name] == "Completed" {
                body[name] = "Running".into();
                body["PercentComplete"] = 34.into();
            }
        }
    }

    fn sessions_full(&self) -> EmulatorResponse {
        let words = "The maximum number of user sessions is reached.";
        vendor_error(StatusCode::SERVICE_UNAVAILABLE, "IDRAC.2.8.RAC0218", words)
    }

    fn same_power(&self) -> Option<EmulatorResponse> {
        let words = "Server is already in the requested power state.";
        Some(vendor_error(StatusCode::CONFLICT, "IDRAC.2.8.PSU501", words))
    }
}

impl DellIdrac {
    fn system_body(&self, model: &str) -> Value {
        let mut body = json!({
            "Manufacturer": "Dell Inc.",
            "Model": model,
            "Boot": {
                "BootSourceOverrideEnabled": "Disabled",
                "BootSourceOverrideMode": "UEFI",
                "BootSourceOverrideTarget": "None",
                "UefiTargetBootSourceOverride": null,
            },
        });
        if self.settings_for_boot {
            body["@Redfish.Settings"] = json!({
                "@odata.type": "#Settings.v1_3_5.Settings",
                "SettingsObject": {"@odata.id": SETTINGS},
                "SupportedApplyTimes": ["OnReset"],
            });
        } else {
            body["Boot"]["BootSourceOverrideTarget@Redfish.AllowableValues"] = TARGETS.into();
        }
        body
    }
}

fn settings_body(nics: usize) -> Value {
    let order: Vec<_> = (0..=3 * nics).map(|number| format!("Boot{number:04X}")).collect();
    json!({
        "Id": "System.Embedded.1",
        "Name": "System",
        "AssetTag": null,
        "Boot": {
            "BootOrder": order,
            "BootSourceOverrideEnabled": "Disabled",
            "BootSourceOverrideMode": "UEFI",
            "BootSourceOverrideTarget": "None",
            "BootSourceOverrideTarget@Redfish.AllowableValues": TARGETS,
            "UefiTargetBootSourceOverride": null,
        },
    })
}

fn dependencies(nics: usize) -> Value {
    let dependency = |attribute: &BiosAttribute| {
        json!({
            "DependencyFor": attribute.name,
            "Type": "Map",
            "Dependency": {
                "MapFrom": [{
                    "MapFromAttribute": "HttpDev1EnDis",
                    "MapFromCondition": "EQU",
                    "MapFromProperty": "CurrentValue",
                    "MapFromValue": "Disabled",
                }],
                "MapToAttribute": attribute.name,
                "MapToProperty": "ReadOnly",
                "MapToValue": true,
            },
        })
    };
    let attributes = attributes(nics);
    let dependent = attributes.iter().filter(|attribute| belongs_to_http_device(attribute.name));
    json!({"RegistryEntries": {"Dependencies": dependent.map(dependency).collect::<Vec<_>>()}})
}

fn add_jobs(builder: &mut BodiesBuilder) {
    builder.add(
        "/redfish/v1/TaskService",
        "TaskService.v1_2_1",
        json!({
            "Name": "Task Service",
            "Tasks": {"@odata.id": TASKS},
        }),
    );
    builder.add_collection(TASKS, "Task", &[]);
    builder.add(
        "/redfish/v1/JobService",
        "JobService.v1_1_1",
        json!({
            "Name": "Job Service",
            "Jobs": {"@odata.id": JOBS[2]},
        }),
    );
    for folder in JOBS {
        builder.add_collection(folder, "Job", &[]);
    }
    builder.add(
        DELL_ATTRIBUTES,
        "DellAttributes.v1_0_0",
        json!({
            "Name": "OEMAttributeRegistry",
            "Attributes": {
                "ServerBoot.1.BootOnce": "Enabled",
                "ServerBoot.1.FirstBootDevice": "Normal",
            },
        }),
    );
}

fn patch_bios(
    machine: &mut MachineResources<'_>,
    patch: &ResourcePatch<'_>,
) -> Result<EmulatorResponse, EmulatorResponse> {
    check_attributes(patch, &attributes(machine.macs.len()))?;
    let attributes = &patch.body["Attributes"];
    let enabled = match attributes["HttpDev1EnDis"].as_str() {
        Some(wanted) => wanted == "Enabled",
        None => machine.attribute("HttpDev1EnDis") == "Enabled",
    };
    let names = attributes.as_object().into_iter().flat_map(Map::keys);
    if let Some(child) = names.into_iter().find(|name| belongs_to_http_device(name))
        && !enabled
    {
        let words = format!(
            "Unable to modify the attribute {child} because the attribute is read-only and depends \
             on other attributes."
        );
        return Err(vendor_error(StatusCode::BAD_REQUEST, "IDRAC.2.8.SYS410", &words));
    }
    if !is_boot_uri(&attributes["HttpDev1Uri"]) {
        return Err(wrong_format("HttpDev1Uri"));
    }
    if scheduled_job(machine).is_some() {
        let words = "Pending configuration values are already committed, unable to perform another \
                     set operation.";
        return Err(vendor_error(StatusCode::BAD_REQUEST, "IDRAC.2.8.SYS011", words));
    }
    let apply_time = patch.body.get("@Redfish.SettingsApplyTime").map(|time| &time["ApplyTime"]);
    match apply_time.map(Value::as_str) {
        // Staged, but without a job it is never applied.
        None => {
            machine.tree.change(patch.path, &attributes_of(patch));
            Ok(success())
        }
        Some(Some("OnReset" | "Immediate")) => {
            machine.tree.change(patch.path, &attributes_of(patch));
            Ok(schedule_job(machine))
        }
        Some(_) => Err(wrong_format("ApplyTime")),
    }
}

fn patch_dell_attributes(
    machine: &mut MachineResources<'_>,
    patch: &ResourcePatch<'_>,
) -> Result<EmulatorResponse, EmulatorResponse> {
    let registry = [
        BiosAttribute::choice("ServerBoot.1.BootOnce", &["Enabled", "Disabled"]),
        BiosAttribute::choice(
            "ServerBoot.1.FirstBootDevice",
            &["Normal", "PXE", "HDD", "BIOS", "VCD-DVD", "UefiHttp"],
        ),
    ];
    if patch.body.contains_key("@Redfish.SettingsApplyTime") {
        let words = "The ApplyTime is not supported for the attributes of this resource.";
        return Err(vendor_error(StatusCode::BAD_REQUEST, "IDRAC.2.8.SYS428", words));
    }
    check_attributes(patch, &registry)?;
    machine.tree.change(patch.path, &attributes_of(patch));
    Ok(success())
}

/// The job that the next reset runs.
fn scheduled_job(machine: &MachineResources<'_>) -> Option<String> {
    let jobs = machine.tree.children(JOBS[0]);
    let scheduled = jobs.iter().find(|path| machine.view(path)["JobState"] == "Scheduled")?;
    scheduled.rsplit('/').next().map(str::to_owned)
}

fn schedule_job(machine: &mut MachineResources<'_>) -> EmulatorResponse {
    let id = (1..)
        .map(|number: u64| format!("JID_{number:012}"))
        .find(|id| !machine.tree.was_changed(&format!("{}/{id}", JOBS[0])))
        .unwrap_or_default();
    write_job(machine, &id, "Scheduled");
    EmulatorResponse::new(StatusCode::ACCEPTED, success().body)
        .with_header("Location", format!("{TASKS}/{id}"))
}

fn write_job(machine: &mut MachineResources<'_>, id: &str, state: &str) {
    let done = state == "Completed";
    let (percent, status) = if done { (100, "OK") } else { (0, "OK") };
    let message = if done { "Job completed successfully." } else { "Task successfully scheduled." };
    for folder in JOBS {
        let path = format!("{folder}/{id}");
        machine.tree.change(
            &path,
            &json!({
                "@odata.id": path,
                "@odata.type": "#DellJob.v1_4_0.DellJob",
                "Id": id,
                "Name": "Configure: BIOS.Setup.1-1",
                "JobType": "BIOSConfiguration",
                "JobState": state,
                "Message": message,
                "PercentComplete": percent,
                "TargetSettingsURI": BIOS_SETTINGS,
            }),
        );
    }
    let path = format!("{TASKS}/{id}");
    let task_state = if done { "Completed" } else { "Starting" };
    machine.tree.change(
        &path,
        &json!({
            "@odata.id": path,
            "@odata.type": "#Task.v1_7_4.Task",
            "Id": id,
            "Name": "Configure: BIOS.Setup.1-1",
            "TaskState": task_state,
            "TaskStatus": status,
            "PercentComplete": percent,
            "Messages": [{"Message": message}],
        }),
    );
    list_jobs(machine);
}

fn list_jobs(machine: &mut MachineResources<'_>) {
    for folder in JOBS.into_iter().chain([TASKS]) {
        machine.tree.list_children(folder);
    }
}

fn create_job(machine: &mut MachineResources<'_>, body: &Map<String, Value>) -> EmulatorResponse {
    let Some(target) = body.get("TargetSettingsURI").and_then(Value::as_str) else {
        return missing_parameter("CreateJob", "TargetSettingsURI");
    };
    let settings = machine.view(BIOS_SETTINGS);
    let staged = settings["Attributes"].as_object().is_some_and(|staged| !staged.is_empty());
    if target.trim_end_matches('/') != BIOS_SETTINGS || !staged || scheduled_job(machine).is_some()
    {
        let words = "No pending configuration values to commit.";
        return vendor_error(StatusCode::BAD_REQUEST, "IDRAC.2.8.SYS028", words);
    }
    schedule_job(machine)
}

/// Deletes a job, with its attributes if it has not run.
fn delete_job(machine: &mut MachineResources<'_>, id: &str) -> EmulatorResponse {
    if scheduled_job(machine).as_deref() == Some(id) {
        machine.tree.revert(BIOS_SETTINGS);
    }
    for folder in JOBS.into_iter().chain([TASKS]) {
        machine.tree.delete(&format!("{folder}/{id}"));
    }
    list_jobs(machine);
    success()
}

fn success() -> EmulatorResponse {
    ok(json!({
        "@Message.ExtendedInfo": [{
            "Message": "The operation successfully completed.",
            "MessageId": "IDRAC.2.8.SYS413",
            "MessageArgs": [],
            "Severity": "Informational",
        }],
    }))
}
