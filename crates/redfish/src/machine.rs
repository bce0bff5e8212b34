//! A system of a BMC: its state and its power.

use std::time::Duration;

use hardware::RedfishPurpose;
use http::StatusCode;
use serde_json::json;
use thiserror::Error;

use crate::channel::BmcChannel;
use crate::facts::BmcFacts;
use crate::failure::BmcFailure;
use crate::resource::strings;
use crate::service::RedfishService;
use crate::system::{SystemPower, SystemView};

/// Number of tries of a reset that the BMC refuses because of the power state.
const RESETS: u32 = 4;
/// Time between them.
const BETWEEN_RESETS: Duration = Duration::from_secs(5);
/// The longest time between two readings of the power state.
const LONGEST_BETWEEN_LOOKS: Duration = Duration::from_secs(8);

/// A system of a BMC.
#[derive(Debug)]
pub struct RedfishSystem<'c, C> {
    service: RedfishService<'c, C>,
    facts: &'c BmcFacts,
    path: String,
    patience: Duration,
}

/// The reason why the BMC's only system was not found.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotOneSystem {
    /// The request failed.
    #[error(transparent)]
    Failure(#[from] BmcFailure),
    /// The BMC has several systems, or none.
    #[error(
        "the BMC has {} systems: set redfish_system_id in driver_info{}", .0.len(), among(.0)
    )]
    Several(Vec<String>),
}

fn among(paths: &[String]) -> String {
    if paths.is_empty() { String::new() } else { format!(" to one of {}", paths.join(", ")) }
}

impl<'c, C: BmcChannel> RedfishSystem<'c, C> {
    /// The system at `path`; without one, the BMC's only system (as in Ironic). All waits for one request are at most
    /// `patience`.
    ///
    /// # Errors
    /// [`NotOneSystem`]
    pub async fn find(
        channel: &'c C,
        facts: &'c BmcFacts,
        path: Option<&str>,
        patience: Duration,
    ) -> Result<Self, NotOneSystem> {
        let service = RedfishService::new(channel, patience);
        let path = match path.or_else(|| facts.only_system()) {
            Some(path) => path.to_owned(),
            None => {
                let path = only_system(&service).await?;
                facts.note_only_system(path.clone());
                path
            }
        };
        Ok(Self { service, facts, path, patience })
    }

    pub(crate) fn service(&self) -> RedfishService<'c, C> {
        self.service
    }

    pub(crate) fn facts(&self) -> &'c BmcFacts {
        self.facts
    }

    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Reads the system.
    ///
    /// # Errors
    /// [`BmcFailure`]
    pub async fn look(&self) -> Result<SystemView, BmcFailure> {
        let system = self.service.get(RedfishPurpose::LookAtSystem, &self.path).await?;
        Ok(SystemView::from(system))
    }

    /// Reads the system until its power state is the wanted one, or `patience` is over: after 1 s, 2 s, 4 s, then
    /// every 8 s, as Redfish cannot notify of it. Returns the last state.
    ///
    /// # Errors
    /// [`BmcFailure`]
    pub async fn await_power(
        &self,
        wanted: SystemPower,
        patience: Duration,
    ) -> Result<SystemView, BmcFailure> {
        let mut left = patience;
        let mut wait = Duration::from_secs(1);
        loop {
            let view = self.look().await?;
            if view.power() == wanted || left.is_zero() {
                return Ok(view);
            }
            let now = wait.min(left);
            self.service.pause(now).await;
            left -= now;
            wait = (wait * 2).min(LONGEST_BETWEEN_LOOKS);
        }
    }

    /// Switches the machine on.
    ///
    /// # Errors
    /// [`BmcFailure`]
    pub async fn power_on(&self, view: &SystemView) -> Result<(), BmcFailure> {
        let end = Some(SystemPower::On);
        self.reset(RedfishPurpose::PowerOn, view, &["On", "ForceOn", "PushPowerButton"], end).await
    }

    /// Switches the machine off at once.
    ///
    /// # Errors
    /// [`BmcFailure`]
    pub async fn power_off(&self, view: &SystemView) -> Result<(), BmcFailure> {
        let end = Some(SystemPower::Off);
        self.reset(RedfishPurpose::PowerOff, view, &["ForceOff"], end).await
    }

    /// Requests a shutdown of the operating system.
    ///
    /// # Errors
    /// [`BmcFailure`]
    pub async fn shut_down(&self, view: &SystemView) -> Result<(), BmcFailure> {
        let types = ["GracefulShutdown", "PushPowerButton", "ForceOff"];
        self.reset(RedfishPurpose::Shutdown, view, &types, Some(SystemPower::Off)).await
    }

    /// Sends a non-maskable interrupt.
    ///
    /// # Errors
    /// [`BmcFailure`]
    pub async fn interrupt(&self, view: &SystemView) -> Result<(), BmcFailure> {
        self.reset(RedfishPurpose::Nmi, view, &["Nmi"], None).await
    }

    /// Sends a reset. Its answer may be lost, and the BMC may refuse because the machine is in that state already, or
    /// on its way to another one: the power state that is shown decides.
    async fn reset(
        &self,
        purpose: RedfishPurpose,
        view: &SystemView,
        wanted: &[&'static str],
        leads_to: Option<SystemPower>,
    ) -> Result<(), BmcFailure> {
        let Some((target, types)) = view.reset_action() else {
            let message = "the BMC offers no ComputerSystem.Reset action".to_owned();
            return Err(BmcFailure::NoAnswer { purpose, message, may_be_done: false });
        };
        let mut reset_type = first_of(wanted, types.as_deref());
        let mut tries = 1;
        loop {
            let body = json!({ "ResetType": reset_type });
            let Err(failure) = self.service.post(purpose, target, body).await else {
                return Ok(());
            };
            // An interrupt may have been received, and a second one would break off the first one's crash dump.
            if tries >= RESETS || leads_to.is_none() && failure.may_be_done() {
                return Err(failure);
            }
            tries += 1;
            if is_conflict(&failure) || failure.may_be_done() {
                let is_there =
                    async || self.look().await.is_ok_and(|view| Some(view.power()) == leads_to);
                if leads_to.is_some() && is_there().await {
                    return Ok(());
                }
                self.service.pause(BETWEEN_RESETS).await;
                if leads_to.is_some() && is_there().await {
                    return Ok(());
                }
                continue;
            }
            match self.listed_type(view, wanted, &failure).await? {
                Some(listed) if listed != reset_type => reset_type = listed,
                Some(_) | None => return Err(failure),
            }
        }
    }

    /// The reset type that the BMC lists in its `ActionInfo`, after it has refused one.
    async fn listed_type(
        &self,
        view: &SystemView,
        wanted: &[&'static str],
        failure: &BmcFailure,
    ) -> Result<Option<&'static str>, BmcFailure> {
        let action = &view.0.body["Actions"]["#ComputerSystem.Reset"];
        let Some(info) = action["@Redfish.ActionInfo"].as_str() else { return Ok(None) };
        if failure.status() != Some(StatusCode::BAD_REQUEST.as_u16()) {
            return Ok(None);
        }
        let info = self.service.find(RedfishPurpose::ReadActionInfo, info).await?;
        let parameters = info.as_ref().and_then(|info| info.body["Parameters"].as_array());
        let types = parameters.into_iter().flatten().find(|it| it["Name"] == "ResetType");
        let types = types.and_then(|types| strings(&types["AllowableValues"]));
        Ok(types.and_then(|types| wanted.iter().copied().find(|it| types.contains(it))))
    }
}

async fn only_system<C: BmcChannel>(
    service: &RedfishService<'_, C>,
) -> Result<String, NotOneSystem> {
    const SYSTEMS: &str = "/redfish/v1/Systems";
    let systems = service.get(RedfishPurpose::ListSystems, SYSTEMS).await?;
    match <[String; 1]>::try_from(systems.members()) {
        Ok([path]) => Ok(path),
        Err(paths) => Err(NotOneSystem::Several(paths)),
    }
}

/// The reset type to send: the first of `wanted` that the BMC lists, or the first of all if it lists none of them.
fn first_of(wanted: &[&'static str], listed: Option<&[&str]>) -> &'static str {
    let is_listed = |it: &&&'static str| listed.is_none_or(|listed| listed.contains(*it));
    wanted.iter().find(is_listed).or_else(|| wanted.first()).copied().unwrap_or("On")
}

/// Whether the BMC refused because of the power state: 409, or a message for it (Dell's PSU501, iLO's).
fn is_conflict(failure: &BmcFailure) -> bool {
    const NAMES: [&str; 4] =
        ["PSU501", "InvalidOperationForSystemState", "PowerValueNotAllowed", "NoOperation"];
    let conflict = failure.status() == Some(StatusCode::CONFLICT.as_u16());
    conflict || NAMES.iter().any(|name| failure.has_message(name))
}
