//! A system of the emulated BMC: its power, its paths, and what it boots next.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::faults::EmulatedFault;
use super::tree::ResourceTree;

/// `PowerState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmulatedPower {
    /// On.
    On,
    /// Off.
    Off,
}

/// The boot target of a starting machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextBoot {
    /// The firmware's own boot order.
    Usual,
    /// Over HTTP, from this URL.
    Url(String),
    /// Over HTTP, with the URL from DHCP.
    Http {
        /// The position of the network card in the machine's list.
        nic: usize,
    },
    /// By PXE.
    Pxe {
        /// The position of the network card in the machine's list.
        nic: usize,
    },
    /// From the image at this URL, which the BMC shows as a CD.
    Cd(String),
}

/// Where the resources of a system are.
#[derive(Clone, Debug, Default)]
pub(super) struct SystemLayout {
    /// The path of the system.
    pub(super) system: String,
    /// The paths of its virtual media that can hold a CD.
    pub(super) media: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct EmulatedSystem {
    pub(super) layout: SystemLayout,
    /// MAC addresses of its cards.
    pub(super) macs: Vec<String>,
    pub(super) power: EmulatedPower,
    /// Time of the last change of its power.
    pub(super) changed: Option<Duration>,
    /// Number of GETs since then.
    pub(super) looks: u32,
    /// Time of its last start.
    pub(super) started: Option<Duration>,
}

impl EmulatedSystem {
    pub(super) fn new(layout: SystemLayout, macs: &[String]) -> Self {
        Self {
            layout,
            macs: macs.to_vec(),
            power: EmulatedPower::Off,
            changed: None,
            looks: 0,
            started: None,
        }
    }

    pub(super) fn turn(&mut self, power: EmulatedPower, now: Duration) {
        if self.power != power {
            self.changed = Some(now);
            self.looks = 0;
        }
        self.power = power;
    }

    /// `PowerState` and `BootProgress` as a GET shows them.
    pub(super) fn shown<'f>(
        &self,
        faults: &'f [EmulatedFault],
        now: Duration,
    ) -> (&'static str, &'f str) {
        let since = self.changed.map(|changed| now.saturating_sub(changed));
        let within = |secs: &u32| since.is_some_and(|since| since.as_secs() < u64::from(*secs));
        let mut power = self.power;
        for fault in faults {
            if let EmulatedFault::PowerLate { secs, looks } = fault
                && (within(secs) || (since.is_some() && self.looks < *looks))
            {
                power = match self.power {
                    EmulatedPower::On => EmulatedPower::Off,
                    EmulatedPower::Off => EmulatedPower::On,
                };
            }
            if let EmulatedFault::PowerChanging { secs } = fault
                && within(secs)
            {
                return match self.power {
                    EmulatedPower::On => ("PoweringOn", "SystemHardwareInitializationComplete"),
                    EmulatedPower::Off => ("PoweringOff", "None"),
                };
            }
        }
        match power {
            EmulatedPower::On => ("On", self.progress(faults, now)),
            EmulatedPower::Off => ("Off", "None"),
        }
    }

    /// `BootProgress.LastState` of a machine that is on.
    fn progress<'f>(&self, faults: &'f [EmulatedFault], now: Duration) -> &'f str {
        let stays = faults.iter().find_map(|fault| {
            let EmulatedFault::BootStays { state } = fault else { return None };
            Some(state.as_str())
        });
        let since = self.started.map(|started| now.saturating_sub(started).as_secs());
        stays.unwrap_or(match since {
            Some(0..2) => "MemoryInitializationStarted",
            Some(2..4) => "PCIResourceConfigStarted",
            Some(_) | None => "SystemHardwareInitializationComplete",
        })
    }

    /// Whether the machine was started less than so many seconds ago.
    pub(super) fn is_in_post(&self, secs: u32, now: Duration) -> bool {
        let since = self.started.map(|started| now.saturating_sub(started));
        self.power == EmulatedPower::On
            && since.is_some_and(|since| since.as_secs() < u64::from(secs))
    }
}

/// The resources of a BMC, from the side of one machine.
pub(super) struct MachineResources<'a> {
    pub(super) tree: &'a mut ResourceTree,
    pub(super) layout: &'a SystemLayout,
    pub(super) macs: &'a [String],
}

impl MachineResources<'_> {
    /// The path of a resource below the system.
    pub(super) fn below(&self, rest: &str) -> String {
        format!("{}/{rest}", self.layout.system)
    }

    /// A resource, or null.
    pub(super) fn view(&self, path: &str) -> Value {
        self.tree.view(path).unwrap_or_default()
    }

    /// `Boot` of the system.
    pub(super) fn boot(&self) -> Value {
        self.view(&self.layout.system)["Boot"].clone()
    }

    /// A BIOS attribute in use; empty if there is none.
    pub(super) fn attribute(&self, name: &str) -> String {
        let bios = self.view(&self.below("Bios"));
        bios["Attributes"][name].as_str().unwrap_or_default().to_owned()
    }

    /// Moves the `part` of a settings resource into the resource that it is for.
    pub(super) fn apply(&mut self, settings: &str, resource: &str, part: &str) {
        let Some(changes) = self.tree.changes(settings) else { return };
        let Some(part_changes) = changes.get(part).cloned() else { return };
        self.tree.revert(settings);
        let mut body = Map::new();
        body.insert(part.to_owned(), part_changes);
        self.tree.change(resource, &Value::Object(body));
    }

    /// `BootOptionReference`s of the system.
    pub(super) fn boot_option_references(&self) -> Vec<String> {
        let options = self.tree.children(&self.below("BootOptions"));
        let reference =
            |path: String| self.view(&path)["BootOptionReference"].as_str().map(str::to_owned);
        options.into_iter().filter_map(reference).collect()
    }

    /// The URL of the image in the virtual CD.
    pub(super) fn inserted(&self) -> Option<String> {
        let image = |path: &String| {
            let media = self.view(path);
            let inserted = media["Inserted"].as_bool()?;
            inserted.then(|| media["Image"].as_str().map(str::to_owned)).flatten()
        };
        self.layout.media.iter().find_map(image)
    }

    /// The boot from a boot option.
    pub(super) fn boot_from_option(&self, reference: &str) -> NextBoot {
        for path in self.tree.children(&self.below("BootOptions")) {
            let option = self.view(&path);
            if option["BootOptionReference"] != reference {
                continue;
            }
            let path = option["UefiDevicePath"].as_str().or_else(|| option["DisplayName"].as_str());
            return self.boot_along(path.unwrap_or_default());
        }
        NextBoot::Usual
    }

    /// The boot along a device path, or from an option with such a name.
    pub(super) fn boot_along(&self, path: &str) -> NextBoot {
        let upper = path.to_uppercase();
        if let Some((_, rest)) = path.split_once("Uri(http")
            && let Some((url, _)) = rest.rsplit_once(')')
        {
            return NextBoot::Url(format!("http{url}"));
        }
        let of_card = |mac: &String| upper.contains(&mac.replace([':', '-'], "").to_uppercase());
        match self.macs.iter().position(of_card) {
            Some(nic) if upper.contains("URI()") || upper.contains("HTTP") => {
                NextBoot::Http { nic }
            }
            Some(nic) => NextBoot::Pxe { nic },
            None => NextBoot::Usual,
        }
    }

    /// Ends what was for one boot.
    pub(super) fn consume_once(&mut self) {
        let boot = self.boot();
        let mut after = json!({});
        if boot["BootSourceOverrideEnabled"] == "Once" {
            after["BootSourceOverrideEnabled"] = "Disabled".into();
        }
        if boot["BootNext"].as_str().is_some_and(|next| !next.is_empty()) {
            after["BootNext"] = Value::Null;
        }
        if after.as_object().is_some_and(|after| !after.is_empty()) {
            self.tree.change(&self.layout.system, &json!({"Boot": after}));
        }
    }
}
