//! Bodies that all vendors have: root, systems, managers, boot options, BIOS, virtual media.

use serde_json::{Value, json};

use super::bios::BiosAttribute;
use crate::emulator::event_log::log_resources;
use crate::emulator::tree::{ResourceBodies, merge};
use crate::emulator::vendor::SystemSpec;

/// Makes the bodies of a BMC.
#[derive(Debug, Default)]
pub(super) struct BodiesBuilder {
    bodies: ResourceBodies,
    etag: Option<&'static str>,
}

/// What a vendor's BMC shows of itself and its machine.
pub(super) struct BmcDescription<'a> {
    pub(super) system: &'a str,
    pub(super) manager: &'a str,
    pub(super) chassis: &'a str,
    /// Properties of the service root.
    pub(super) root: Value,
    /// Properties of the system, `Boot` among them.
    pub(super) system_body: Value,
    /// Properties of the manager.
    pub(super) manager_body: Value,
    /// Allowable reset types.
    pub(super) resets: &'a [&'a str],
    /// Whether the reset types are in the system, or in an `ActionInfo` only.
    pub(super) resets_inline: bool,
    /// `SessionTimeout`, in seconds.
    pub(super) session_timeout: u32,
}

/// The form of a boot option.
pub(super) struct BootOptionForm {
    /// The ID of the option with this number, at this position.
    pub(super) id: fn(u16, usize) -> String,
    /// The name of a card's option: position of the card, `PXE` or `HTTP`, IP version.
    pub(super) name: fn(usize, &str, u8) -> String,
    /// Whether there is a `UefiDevicePath`.
    pub(super) has_path: bool,
}

pub(super) const RESETS: [&str; 9] = [
    "On",
    "ForceOn",
    "ForceOff",
    "GracefulShutdown",
    "ForceRestart",
    "GracefulRestart",
    "Nmi",
    "PushPowerButton",
    "PowerCycle",
];

impl BodiesBuilder {
    /// The resources begin with this ETag.
    pub(super) fn with_etag(etag: &'static str) -> Self {
        Self { etag: Some(etag), ..Self::default() }
    }

    pub(super) fn done(self) -> ResourceBodies {
        self.bodies
    }

    /// Paths are the same in upper and lower case.
    pub(super) fn folding_case(mut self) -> Self {
        self.bodies.folds_case = true;
        self
    }

    /// Adds a resource: `kind` is its type with the version.
    pub(super) fn add(&mut self, path: &str, kind: &str, body: Value) {
        let id = path.rsplit('/').next().unwrap_or_default();
        let (name, _) = kind.split_once('.').unwrap_or((kind, ""));
        let mut full = json!({
            "@odata.id": path,
            "@odata.type": format!("#{kind}.{name}"),
            "Id": id,
            "Name": id,
        });
        if let Some(etag) = self.etag {
            full["@odata.etag"] = etag.into();
        }
        merge(&mut full, &body);
        self.bodies.bodies.insert(path.to_owned(), full);
    }

    /// Adds a collection.
    pub(super) fn add_collection(&mut self, path: &str, kind: &str, members: &[String]) {
        self.bodies.bodies.insert(path.to_owned(), collection(path, kind, members));
    }

    /// Adds root, sessions, system, manager and chassis.
    pub(super) fn add_bmc(&mut self, description: &BmcDescription<'_>) {
        self.add_service(description);
        let link = |path: &str| json!({"@odata.id": path});
        let links = |path: &str| json!([{"@odata.id": path}]);
        let (system, manager, chassis) =
            (description.system, description.manager, description.chassis);
        let mut reset = json!({
            "target": format!("{system}/Actions/ComputerSystem.Reset"),
            "@Redfish.ActionInfo": format!("{system}/ResetActionInfo"),
        });
        if description.resets_inline {
            reset["ResetType@Redfish.AllowableValues"] = description.resets.into();
        }
        let mut body = json!({
            "Name": "System",
            "SystemType": "Physical",
            "PowerState": "Off",
            "BootProgress": {"LastState": "None"},
            "Status": {"State": "Enabled", "Health": "OK"},
            "EthernetInterfaces": link(&format!("{system}/EthernetInterfaces")),
            "Actions": {"#ComputerSystem.Reset": reset},
            "Links": {"Chassis": links(chassis), "ManagedBy": links(manager)},
        });
        merge(&mut body, &description.system_body);
        self.add(system, "ComputerSystem.v1_20_1", body);
        self.add(
            &format!("{system}/ResetActionInfo"),
            "ActionInfo.v1_4_2",
            json!({"Name": "Reset Action Info", "Parameters": [{
                "Name": "ResetType",
                "Required": true,
                "DataType": "String",
                "AllowableValues": description.resets,
            }]}),
        );
        let mut body = json!({
            "Name": "Manager",
            "ManagerType": "BMC",
            "PowerState": "On",
            "Status": {"State": "Enabled", "Health": "OK"},
            "Links": {"ManagerForServers": links(system), "ManagerForChassis": links(chassis)},
        });
        merge(&mut body, &description.manager_body);
        self.add(manager, "Manager.v1_19_1", body);
        self.add(
            chassis,
            "Chassis.v1_25_1",
            json!({
                "Name": "Chassis",
                "ChassisType": "RackMount",
                "Status": {"State": "Enabled", "Health": "OK"},
                "Links": {"ComputerSystems": links(system), "ManagedBy": links(manager)},
            }),
        );
        for (path, kind, member) in [
            ("/redfish/v1/Systems", "ComputerSystem", system),
            ("/redfish/v1/Managers", "Manager", manager),
            ("/redfish/v1/Chassis", "Chassis", chassis),
        ] {
            self.add_collection(path, kind, &[member.to_owned()]);
        }
    }

    fn add_service(&mut self, description: &BmcDescription<'_>) {
        self.bodies.bodies.insert("/redfish".to_owned(), json!({"v1": "/redfish/v1/"}));
        let mut root = json!({
            "@odata.id": "/redfish/v1/",
            "Id": "RootService",
            "Name": "Root Service",
            "RedfishVersion": "1.20.0",
        });
        for name in ["Systems", "Managers", "Chassis", "SessionService"] {
            root[name] = json!({"@odata.id": format!("/redfish/v1/{name}")});
        }
        root["Links"] = json!({"Sessions": {"@odata.id": "/redfish/v1/SessionService/Sessions"}});
        merge(&mut root, &description.root);
        self.add("/redfish/v1", "ServiceRoot.v1_16_1", root);
        self.add(
            "/redfish/v1/SessionService",
            "SessionService.v1_1_9",
            json!({
                "Name": "Session Service",
                "ServiceEnabled": true,
                "SessionTimeout": description.session_timeout,
                "Sessions": {"@odata.id": "/redfish/v1/SessionService/Sessions"},
            }),
        );
        self.add_collection("/redfish/v1/SessionService/Sessions", "Session", &[]);
    }

    /// Adds the network cards of a system. `id` is made of the position of the card.
    pub(super) fn nics(&mut self, system: &str, spec: &SystemSpec, id: fn(usize) -> String) {
        let folder = format!("{system}/EthernetInterfaces");
        let mut members = Vec::new();
        for position in 0..spec.nics {
            let path = format!("{folder}/{}", id(position));
            let mac = format!("{{mac{}}}", spec.first_nic + position);
            self.add(
                &path,
                "EthernetInterface.v1_12_1",
                json!({
                    "Name": format!("Network interface {position}"),
                    "MACAddress": mac,
                    "PermanentMACAddress": mac,
                    "Status": {"State": "Enabled", "Health": "OK"},
                }),
            );
            members.push(path);
        }
        self.add_collection(&folder, "EthernetInterface", &members);
    }

    /// Adds a disk's boot option, then those of each card: PXE and HTTP over IPv4, HTTP over IPv6. Puts `BootOrder`
    /// into the system.
    pub(super) fn boot_options(&mut self, system: &str, nics: usize, form: &BootOptionForm) {
        let disk = "PciRoot(0x0)/Pci(0x3,0x0)/NVMe(0x1,00-00-00-00-00-00-00-01)";
        let mut options = vec![("Hard disk".to_owned(), disk.to_owned())];
        for nic in 0..nics {
            let card = format!("PciRoot(0x1)/Pci(0x{nic:X},0x0)/MAC({{MAC{nic}}},0x1)");
            let v6 = "IPv6(0000:0000:0000:0000:0000:0000:0000:0000)";
            options.push(((form.name)(nic, "PXE", 4), format!("{card}/IPv4(0.0.0.0)")));
            options.push(((form.name)(nic, "HTTP", 4), format!("{card}/IPv4(0.0.0.0)/Uri()")));
            options.push(((form.name)(nic, "HTTP", 6), format!("{card}/{v6}/Uri()")));
        }
        let folder = format!("{system}/BootOptions");
        let (mut members, mut order) = (Vec::new(), Vec::new());
        for (position, (name, device)) in options.into_iter().enumerate() {
            let number = u16::try_from(position).unwrap_or(u16::MAX);
            let path = format!("{folder}/{}", (form.id)(number, position));
            let reference = format!("Boot{number:04X}");
            let mut body = json!({
                "Name": reference,
                "BootOptionReference": reference,
                "BootOptionEnabled": true,
                "DisplayName": name,
            });
            if form.has_path {
                body["UefiDevicePath"] = device.into();
            }
            self.add(&path, "BootOption.v1_0_4", body);
            members.push(path);
            order.push(reference);
        }
        self.add_collection(&folder, "BootOption", &members);
        if let Some(system) = self.bodies.bodies.get_mut(system) {
            let options = json!({"@odata.id": folder});
            merge(system, &json!({"Boot": {"BootOrder": order, "BootOptions": options}}));
        }
    }

    /// Adds the BIOS of a system, its settings resource, and its registry.
    pub(super) fn bios(
        &mut self,
        system: &str,
        settings: &str,
        registry: &str,
        attributes: &[BiosAttribute],
    ) {
        let named =
            attributes.iter().map(|attribute| (attribute.name.to_owned(), attribute.value.clone()));
        let values: Value = named.collect::<serde_json::Map<_, _>>().into();
        let bios = format!("{system}/Bios");
        self.add(
            &bios,
            "Bios.v1_2_0",
            json!({
                "Name": "BIOS Configuration Current Settings",
                "AttributeRegistry": registry,
                "Attributes": values,
                "@Redfish.Settings": {
                    "@odata.type": "#Settings.v1_3_5.Settings",
                    "SettingsObject": {"@odata.id": settings},
                    "SupportedApplyTimes": ["OnReset"],
                },
            }),
        );
        self.add(
            settings,
            "Bios.v1_2_0",
            json!({
                "Name": "BIOS Configuration Pending Settings",
                "AttributeRegistry": registry,
                "Attributes": {},
            }),
        );
        if let Some(system) = self.bodies.bodies.get_mut(system) {
            merge(system, &json!({"Bios": {"@odata.id": bios}}));
        }
        self.registry(&bios, registry, attributes);
    }

    fn registry(&mut self, bios: &str, registry: &str, attributes: &[BiosAttribute]) {
        let file = format!("{bios}/BiosRegistry");
        let entry = |attribute: &BiosAttribute| {
            let values: Vec<_> =
                attribute.allowable.iter().map(|value| json!({"ValueName": value})).collect();
            let kind = if values.is_empty() { "String" } else { "Enumeration" };
            let mut entry = json!({
                "AttributeName": attribute.name,
                "DefaultValue": attribute.value,
                "DisplayName": attribute.name,
                "ReadOnly": attribute.read_only,
                "Type": kind,
            });
            match kind {
                "String" => entry["MaxLength"] = 255.into(),
                _ => entry["Value"] = values.into(),
            }
            entry
        };
        let entries: Vec<_> = attributes.iter().map(entry).collect();
        self.add(
            &file,
            "AttributeRegistry.v1_3_6",
            json!({
                "Id": registry,
                "Name": "BIOS Attribute Registry",
                "Language": "en",
                "OwningEntity": "Ferroboot",
                "RegistryVersion": "1.0.0",
                "RegistryEntries": {"Attributes": entries, "Dependencies": []},
            }),
        );
        let path = format!("/redfish/v1/Registries/{registry}");
        self.add(
            &path,
            "MessageRegistryFile.v1_1_3",
            json!({
                "Name": registry,
                "Registry": registry,
                "Languages": ["en"],
                "Location": [{"Language": "en", "Uri": file}],
            }),
        );
        self.add_collection("/redfish/v1/Registries", "MessageRegistryFile", &[path]);
        if let Some(root) = self.bodies.bodies.get_mut("/redfish/v1") {
            merge(root, &json!({"Registries": {"@odata.id": "/redfish/v1/Registries"}}));
        }
    }

    /// Device paths of the boot options of a system, in the order of their numbers.
    pub(super) fn device_paths(&self, system: &str) -> Vec<String> {
        let folder = format!("{system}/BootOptions/");
        let options = self.bodies.bodies.iter().filter(|(path, _)| path.starts_with(&folder));
        let mut options: Vec<_> = options
            .filter_map(|(_, body)| {
                let path = body["UefiDevicePath"].as_str()?.to_owned();
                Some((body["BootOptionReference"].as_str()?.to_owned(), path))
            })
            .collect();
        options.sort();
        options.into_iter().map(|(_, path)| path).collect()
    }

    /// Merges into a resource.
    pub(super) fn extend(&mut self, path: &str, more: &Value) {
        if let Some(body) = self.bodies.bodies.get_mut(path) {
            merge(body, more);
        }
    }

    /// Adds a log below `owner`: the system, or its manager.
    pub(super) fn event_log(&mut self, owner: &str, name: &str) {
        let services = format!("{owner}/LogServices");
        self.extend(owner, &json!({"LogServices": {"@odata.id": services}}));
        for (path, kind, body) in log_resources(owner, name) {
            self.add(&path, kind, body);
        }
        self.add_collection(&services, "LogService", &[format!("{services}/{name}")]);
    }

    /// Adds the collection of authorities that the firmware trusts, empty.
    pub(super) fn boot_certificates(&mut self, system: &str) {
        let folder = format!("{system}/Boot/Certificates");
        self.add_collection(&folder, "Certificate", &[]);
        self.extend(system, &json!({"Boot": {"Certificates": {"@odata.id": folder}}}));
    }

    /// Adds the collection of virtual media below `parent`, with one that can hold a CD.
    pub(super) fn virtual_media(&mut self, parent: &str, id: &str) {
        let folder = format!("{parent}/VirtualMedia");
        let path = format!("{folder}/{id}");
        self.add(
            &path,
            "VirtualMedia.v1_6_3",
            json!({
                "Name": "Virtual CD",
                "MediaTypes": ["CD", "DVD"],
                "ConnectedVia": "NotConnected",
                "Image": null,
                "ImageName": null,
                "Inserted": false,
                "WriteProtected": true,
                "TransferProtocolType": null,
                "Actions": {
                    "#VirtualMedia.InsertMedia": {
                        "target": format!("{path}/Actions/VirtualMedia.InsertMedia"),
                    },
                    "#VirtualMedia.EjectMedia": {
                        "target": format!("{path}/Actions/VirtualMedia.EjectMedia"),
                    },
                },
            }),
        );
        self.add_collection(&folder, "VirtualMedia", &[path]);
        if let Some(parent) = self.bodies.bodies.get_mut(parent) {
            merge(parent, &json!({"VirtualMedia": {"@odata.id": folder}}));
        }
    }
}

/// A collection of resources.
pub(in crate::emulator) fn collection(path: &str, kind: &str, members: &[String]) -> Value {
    let link = |member: &String| json!({"@odata.id": member});
    json!({
        "@odata.id": path,
        "@odata.type": format!("#{kind}Collection.{kind}Collection"),
        "Name": format!("{kind} Collection"),
        "Members@odata.count": members.len(),
        "Members": members.iter().map(link).collect::<Vec<_>>(),
    })
}
