//! A system of a BMC: its state and its power.

use std::time::Duration;

use hardware::RedfishPurpose;
use http::StatusCode;
use serde_json::json;
use thiserror::Error;

use crate::channel::BmcChannel;
use crate::facts::BmcFacts;
use crate::failure::BmcFailure;
use crate::resource::{link_in, path_in, strings};
use crate::service::RedfishService;
use crate::system::{SystemPower, SystemView};

/// Number of tries of a reset that the BMC refuses because of the power state.
const RESETS: u32 = 4;
/// Time between them.
const BETWEEN_RESETS: Duration = Duration::from_secs(5);
/// Time limit for the power to follow a button that may have been pressed.
const AFTER_BUTTON: Duration = Duration::from_secs(60);
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
        let Some((target, listed)) = view.reset_action() else {
            let message = "the BMC offers no ComputerSystem.Reset action".to_owned();
            return Err(BmcFailure::NoAnswer { purpose, message, may_be_done: false });
        };
        let mut types = ResetTypes::of(wanted, listed.as_deref());
        let mut reset_type = types.next().unwrap_or("On");
        let mut tries = 1;
        loop {
            let body = json!({ "ResetType": reset_type });
            let Err(failure) = self.service.post(purpose, target, body).await else {
                return Ok(());
            };
            let (may_be_done, conflict) = (failure.may_be_done(), is_conflict(&failure));
            // An interrupt may have been received, and a second one would break off the first one's crash dump.
            let is_final = leads_to.is_none() && may_be_done;
            if is_final || !(may_be_done || conflict || is_of_the_type(&failure)) {
                return Err(failure);
            }
            if self.is_there(leads_to).await {
                return Ok(());
            }
            if conflict || may_be_done {
                self.wait_after_a_reset(reset_type, leads_to, &failure).await;
                if self.is_there(leads_to).await {
                    return Ok(());
                }
                // The button does the opposite, pressed again.
                let again = reset_type != "PushPowerButton" || !may_be_done;
                if !again || tries >= RESETS {
                    return Err(failure);
                }
                tries += 1;
                continue;
            }
            if !types.has_list() {
                types.take_list(wanted, self.listed_types(view).await?.as_deref(), reset_type);
            }
            let Some(next) = types.next() else { return Err(failure) };
            reset_type = next;
        }
    }

    /// Whether the machine is in this power state.
    async fn is_there(&self, wanted: Option<SystemPower>) -> bool {
        match wanted {
            Some(wanted) => self.look().await.is_ok_and(|view| view.power() == wanted),
            None => false,
        }
    }

    /// Waits before the power is looked at once more: for as long as a pressed button may take if it may have been
    /// pressed.
    async fn wait_after_a_reset(
        &self,
        reset_type: &str,
        leads_to: Option<SystemPower>,
        failure: &BmcFailure,
    ) {
        match leads_to {
            Some(wanted) if reset_type == "PushPowerButton" && failure.may_be_done() => {
                let _ = self.await_power(wanted, AFTER_BUTTON).await;
            }
            Some(_) | None => self.service.pause(BETWEEN_RESETS).await,
        }
    }

    /// The reset types that the BMC lists in its `ActionInfo`, if it has one.
    async fn listed_types(&self, view: &SystemView) -> Result<Option<Vec<String>>, BmcFailure> {
        let info = &view.0.body["Actions"]["#ComputerSystem.Reset"]["@Redfish.ActionInfo"];
        let info = info.as_str().and_then(path_in).or_else(|| link_in(info));
        let Some(info) = info else { return Ok(None) };
        let info = self.service.find(RedfishPurpose::ReadActionInfo, info).await?;
        let parameters = info.as_ref().and_then(|info| info.body["Parameters"].as_array());
        let types = parameters.into_iter().flatten().find(|it| it["Name"] == "ResetType");
        let types = types.and_then(|types| strings(&types["AllowableValues"]));
        Ok(types.map(|types| types.into_iter().map(str::to_owned).collect()))
    }
}

/// The reset types to try, the best one first.
struct ResetTypes {
    left: Vec<&'static str>,
    has_list: bool,
}

impl ResetTypes {
    /// Of `wanted`, those that the system lists. The first of all if it lists none of them, or has no list.
    fn of(wanted: &[&'static str], listed: Option<&[&str]>) -> Self {
        let mut left: Vec<_> = wanted.to_vec();
        if let Some(listed) = listed {
            left.retain(|it| listed.contains(it));
        }
        if listed.is_none() || left.is_empty() {
            left = wanted.iter().copied().take(1).collect();
        }
        Self { left: in_turn(left), has_list: listed.is_some() }
    }

    fn next(&mut self) -> Option<&'static str> {
        self.left.pop()
    }

    fn has_list(&self) -> bool {
        self.has_list
    }

    /// After `refused`, those of `wanted` in the list of the `ActionInfo`.
    fn take_list(&mut self, wanted: &[&'static str], listed: Option<&[String]>, refused: &str) {
        self.has_list = true;
        let is_listed = |it: &&str| listed.is_some_and(|all| all.iter().any(|one| one == it));
        self.left = in_turn(wanted.iter().copied().filter(is_listed).collect());
        self.left.retain(|it| *it != refused);
    }
}

/// The types as a stack. A machine whose shutdown is refused is not switched off in place of it.
fn in_turn(mut types: Vec<&'static str>) -> Vec<&'static str> {
    let first = types.first().copied();
    types.retain(|it| *it != "ForceOff" || first == Some("ForceOff"));
    types.reverse();
    types
}

/// The path of the only system. A BMC without the usual path of the collection names it in its service root.
async fn only_system<C: BmcChannel>(
    service: &RedfishService<'_, C>,
) -> Result<String, NotOneSystem> {
    const PURPOSE: RedfishPurpose = RedfishPurpose::ListSystems;
    const SYSTEMS: &str = "/redfish/v1/Systems";
    let systems = match service.collection(PURPOSE, SYSTEMS).await? {
        Some(systems) => systems,
        None => {
            let root = service.find(RedfishPurpose::ReadServiceRoot, "/redfish/v1/").await?;
            let path = root.as_ref().and_then(|root| root.link("Systems")).unwrap_or(SYSTEMS);
            service.get(PURPOSE, path).await?
        }
    };
    match <[String; 1]>::try_from(systems.members()) {
        Ok([path]) => Ok(path),
        Err(paths) => Err(NotOneSystem::Several(paths)),
    }
}

/// Whether the BMC refused because of the power state: 409, or a message for it (Dell's PSU501, iLO's).
fn is_conflict(failure: &BmcFailure) -> bool {
    const NAMES: [&str; 4] =
        ["PSU501", "InvalidOperationForSystemState", "PowerValueNotAllowed", "NoOperation"];
    let conflict = failure.status() == Some(StatusCode::CONFLICT.as_u16());
    conflict || NAMES.iter().any(|name| failure.has_message(name))
}

/// Whether another reset type may be accepted.
fn is_of_the_type(failure: &BmcFailure) -> bool {
    const STATUSES: [StatusCode; 4] = [
        StatusCode::BAD_REQUEST,
        StatusCode::METHOD_NOT_ALLOWED,
        StatusCode::UNPROCESSABLE_ENTITY,
        StatusCode::NOT_IMPLEMENTED,
    ];
    matches!(failure, BmcFailure::Refused { status, .. } if STATUSES.contains(status))
}
