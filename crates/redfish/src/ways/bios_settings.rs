//! Changes of BIOS attributes that one reset applies: planned, staged, and awaited.

use std::time::Duration;

use hardware::{BiosChange, RedfishPurpose};
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::bios::settings_of;
use super::http_attributes::{HttpSupport, for_http, knows_any};
use super::reader::BootReader;
use crate::channel::BmcChannel;
use crate::failure::BmcFailure;
use crate::machine::RedfishSystem;
use crate::platform::BmcPlatform;
use crate::quirks;
use crate::resource::{RedfishResource, strings};
use crate::service::TaskEnd;
use crate::system::SystemView;

/// The longest time between two readings of the attributes.
const LONGEST_BETWEEN_LOOKS: Duration = Duration::from_secs(30);

/// The BIOS attributes that are asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum WantedBios {
    /// Whatever the firmware needs to boot over HTTP.
    HttpBoot(HttpSupport),
    /// These values.
    Attributes(Map<String, Value>),
}

/// Changes of BIOS attributes, and where they go.
#[derive(Clone, Debug, PartialEq)]
pub struct BiosPlan {
    /// The path of the BIOS settings resource.
    pub settings: String,
    /// The changes; none if the attributes have the wanted values.
    pub changes: Vec<BiosChange>,
    attributes: Map<String, Value>,
    platform: BmcPlatform,
    /// Whether `ApplyTime` is sent.
    sends_apply_time: bool,
    /// All attributes as they are shown.
    shown: Map<String, Value>,
}

/// The reason why BIOS attributes were not changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BiosNotSet {
    /// A request failed.
    #[error(transparent)]
    Failure(#[from] BmcFailure),
    /// The BMC shows no BIOS attributes.
    #[error("the BMC shows no BIOS attributes (no Bios of the system, or no right to read it)")]
    NoAttributes,
    /// No attribute for HTTP boot is known.
    #[error(
        "the BIOS shows no attribute for HTTP boot that is known: switch HTTP boot on in the setup of the firmware"
    )]
    NoHttpAttribute,
    /// The BIOS does not have an attribute.
    #[error("the BIOS has no attribute {0}")]
    Unknown(String),
    /// The registry says that an attribute cannot be written.
    #[error("the BIOS attribute {0} is read-only")]
    ReadOnly(String),
    /// The reset did not apply the attributes.
    #[error("the BMC took the BIOS attributes, but {} s after the reset {shown}", waited.as_secs())]
    NotApplied {
        /// The attributes with the values that are shown.
        shown: String,
        /// The time since the reset.
        waited: Duration,
    },
}

impl BiosNotSet {
    /// Whether the BIOS shows nothing that could be set.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NoAttributes | Self::NoHttpAttribute)
    }
}

impl BiosPlan {
    /// Whether the attributes have the wanted values.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.changes.is_empty()
    }

    /// The body of the only PATCH: a second one before the reset would drop the first on Lenovo, as would this one what
    /// somebody else has staged there.
    fn body(&self, pending: &RedfishResource) -> Value {
        let mut attributes = self.attributes.clone();
        if quirks::forgets_staged_bios(self.platform) {
            for (name, value) in pending.body["Attributes"].as_object().into_iter().flatten() {
                let waits = self.shown.get(name).is_some_and(|shown| shown != value);
                if waits && !attributes.contains_key(name) {
                    attributes.insert(name.clone(), value.clone());
                }
            }
        }
        let mut body = json!({ "Attributes": attributes });
        if self.sends_apply_time {
            body["@Redfish.SettingsApplyTime"] = json!({ "ApplyTime": "OnReset" });
        }
        body
    }
}

impl<C: BmcChannel> RedfishSystem<'_, C> {
    /// Finds what the BIOS attributes lack. Nothing is changed.
    ///
    /// # Errors
    /// [`BiosNotSet`]
    pub async fn plan_bios(
        &self,
        view: &SystemView,
        wanted: &WantedBios,
    ) -> Result<BiosPlan, BiosNotSet> {
        let mut reader = BootReader::new(self.service(), view, self.facts());
        let platform = reader.platform().await?;
        let Some(bios) = reader.bios().await?.cloned() else {
            return Err(BiosNotSet::NoAttributes);
        };
        let shown = reader.attributes().await?;
        if shown.is_empty() {
            return Err(BiosNotSet::NoAttributes);
        }
        let registry = reader.attribute_registry(&bios).await;
        let attributes = lacking(&shown, &registry, wanted)?;
        let is_read_only = |name: &&String| {
            registry
                .iter()
                .any(|entry| entry["AttributeName"] == **name && entry["ReadOnly"] == true)
        };
        if let Some(name) = attributes.keys().find(is_read_only) {
            return Err(BiosNotSet::ReadOnly(name.clone()));
        }
        let changes = attributes.iter().map(|(name, to)| BiosChange {
            attribute: name.clone(),
            from: text(&shown[name]),
            to: text(to),
        });
        let times = strings(&bios.body["@Redfish.Settings"]["SupportedApplyTimes"]);
        let lists_on_reset = times.is_some_and(|times| times.contains(&"OnReset"));
        Ok(BiosPlan {
            settings: settings_of(&bios, platform),
            changes: changes.collect(),
            attributes,
            platform,
            sends_apply_time: lists_on_reset || platform == BmcPlatform::DellIdrac,
            shown,
        })
    }

    /// Stages the changes for the next reset. Returns the path of the job, if the BMC makes one. It can be repeated.
    ///
    /// # Errors
    /// [`BmcFailure`]
    pub async fn stage_bios_plan(&self, plan: &BiosPlan) -> Result<Option<String>, BmcFailure> {
        let settings = self.bios_settings(&plan.settings).await?;
        let body = plan.body(&settings);
        let purpose = RedfishPurpose::SetBios;
        let end = TaskEnd::AtReset;
        let staged = match self.service().patch(purpose, &settings, body.clone(), end).await {
            // A job of before is replaced, with what it would have set.
            Err(failure) if failure.has_message("SYS011") => {
                let mut all = self.delete_bios_jobs(&plan.settings).await?;
                all.extend(plan.attributes.clone());
                let mut body = body;
                body["Attributes"] = all.into();
                self.service().patch(purpose, &settings, body, end).await?
            }
            done => done?,
        };
        Ok(staged.location)
    }

    /// Reads the BIOS attributes after the reset until they have the wanted values, or `patience` is over: the firmware
    /// applies them in its self-test, some machines with a further reset. A job that failed ends it at once.
    ///
    /// # Errors
    /// [`BiosNotSet`]
    pub async fn await_bios(
        &self,
        wanted: &WantedBios,
        job: Option<&str>,
        patience: Duration,
    ) -> Result<(), BiosNotSet> {
        let (mut left, mut wait) = (patience, Duration::from_secs(2));
        let mut job = job;
        loop {
            let view = self.look().await?;
            let shown = BootReader::new(self.service(), &view, self.facts()).attributes().await?;
            // During the self-test, some show none.
            let lacking = if shown.is_empty() { None } else { Some(lacking(&shown, &[], wanted)?) };
            if lacking.as_ref().is_some_and(Map::is_empty) {
                return Ok(());
            }
            if left.is_zero() {
                let words = lacking.into_iter().flatten().map(|(name, value)| {
                    format!("{name} is {}, not {}", text(&shown[&name]), text(&value))
                });
                let words: Vec<_> = words.collect();
                let shown =
                    if words.is_empty() { "none is shown".to_owned() } else { words.join(", ") };
                return Err(BiosNotSet::NotApplied { shown, waited: patience });
            }
            if let Some(path) = job {
                match self.service().task_is_over(RedfishPurpose::SetBios, path).await {
                    Ok(true) => job = None,
                    Ok(false) => {}
                    // The attributes decide, where the job is gone or cannot be read.
                    Err(failure @ BmcFailure::TaskFailed { .. }) => return Err(failure.into()),
                    Err(_) => job = None,
                }
            }
            let now = wait.min(left);
            self.service().pause(now).await;
            left -= now;
            wait = (wait * 2).min(LONGEST_BETWEEN_LOOKS);
        }
    }
}

/// The attributes that do not have the wanted values, with these.
fn lacking(
    shown: &Map<String, Value>,
    registry: &[Value],
    wanted: &WantedBios,
) -> Result<Map<String, Value>, BiosNotSet> {
    match wanted {
        WantedBios::HttpBoot(_) if !knows_any(shown) => Err(BiosNotSet::NoHttpAttribute),
        WantedBios::HttpBoot(support) => {
            Ok(for_http(shown, registry, *support).into_iter().collect())
        }
        WantedBios::Attributes(wanted) => differing(shown, wanted),
    }
}

/// The wanted values that differ from those shown.
fn differing(
    shown: &Map<String, Value>,
    wanted: &Map<String, Value>,
) -> Result<Map<String, Value>, BiosNotSet> {
    if let Some(name) = wanted.keys().find(|name| !shown.contains_key(*name)) {
        return Err(BiosNotSet::Unknown(name.clone()));
    }
    let typed = wanted.iter().map(|(name, value)| (name.clone(), as_shown(&shown[name], value)));
    Ok(typed.filter(|(name, value)| shown[name] != *value).collect())
}

/// A value in the type of the one that is shown: Ironic's clients send all values as texts.
fn as_shown(shown: &Value, wanted: &Value) -> Value {
    let Some(given) = wanted.as_str() else { return wanted.clone() };
    let typed = match shown {
        Value::Number(_) => given.parse::<i64>().ok().map(Value::from),
        Value::Bool(_) => given.to_ascii_lowercase().parse::<bool>().ok().map(Value::from),
        Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    };
    typed.unwrap_or_else(|| wanted.clone())
}

/// A value as text.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
