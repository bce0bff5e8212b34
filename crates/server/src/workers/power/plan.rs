//! The order of switching a machine off, setting its boot override, and switching it on: one action at a time.
//!
//! Pure, and in this crate because it needs both a BMC's state (`redfish`) and the phases in the store (`provision`).
//! [`carry_out`](super::carry_out) executes the actions.
//!
//! A phase is recorded before its action, so that a daemon that takes the work over after a crash knows which
//! requests may have been sent. From [`BootPhase::PoweringOn`] on, no plan switches the machine off, and nothing is
//! prepared for a machine that is on: a failure of the preparation would otherwise switch the machine off.

use std::time::Duration;

use hardware::BootChange;
use provision::event::BootPhase;
use provision::state::PowerTarget;
use redfish::system::{SystemPower, SystemView};
use redfish::ways::HttpBootOverride;
use thiserror::Error;

/// Number of checks, a second apart, until a reset from before a crash must be visible. They are counted in the
/// store, so that even a daemon that restarts every few seconds gets past them.
const RESET_SHOWS: u8 = 10;
/// Time for a forced power change, unless the settings have another one; some BMCs take a minute.
const POWER_FOLLOWS: Duration = Duration::from_secs(90);
/// Time for a shutdown by the operating system: Ironic's `[conductor]soft_power_off_timeout`.
const SHUT_DOWN: Duration = Duration::from_secs(600);

/// The plan for one machine's power.
#[derive(Clone, Debug)]
pub(crate) struct PowerPlan {
    /// The way to switch off a running machine first; `None` if it may stay on.
    off: Option<SwitchOff>,
    end: PowerEnd,
    /// The phase in the store.
    phase: BootPhase,
    /// Time for a forced power change.
    change_takes: Duration,
    /// The last executed action.
    last: Option<PlannedAction>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SwitchOff {
    AtOnce,
    /// A shutdown by the operating system.
    BySystem,
}

/// The final state of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PowerEnd {
    Off,
    OffAndBootUndone {
        /// What the boot changed at the BMC beside the override.
        changes: Vec<BootChange>,
        /// Whether certificates are removed from the firmware.
        removes: bool,
    },
    On {
        /// The boot target to set before the power-on, if any.
        boot: Option<PlannedBoot>,
    },
}

/// A boot target.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PlannedBoot {
    /// Whether the way of the BMC is chosen.
    has_way: bool,
    /// The override, once the preparation is done.
    prepared: Option<HttpBootOverride>,
    /// Whether certificates are enrolled in the firmware first, or looked at.
    enrols: bool,
}

impl PlannedBoot {
    const fn new() -> Self {
        Self { has_way: false, prepared: None, enrols: false }
    }

    /// What is missing before the machine is touched.
    fn next_preparation(&self) -> Option<PlannedAction> {
        match (self.has_way, &self.prepared) {
            (false, _) => Some(PlannedAction::ChooseWay),
            (true, None) => Some(PlannedAction::Prepare),
            (true, Some(_)) => None,
        }
    }
}

/// The next action for a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PlannedAction {
    /// Record the phase in the store; the next action requires that this has succeeded.
    Note(BootPhase),
    /// Switch off immediately.
    PowerOff,
    /// Request a shutdown of the operating system.
    ShutDown,
    /// Poll until the machine is off, or this time has passed.
    AwaitOff { patience: Duration },
    /// Choose the way in which the BMC has its machine boot. Predictable failures occur before the machine is touched.
    ChooseWay,
    /// Prepare the boot target, and pass the override to [`PowerPlan::prepared`].
    Prepare,
    /// Enrol the service's certificates in the firmware before this boot is set, and look at Secure Boot. The boot goes on if
    /// that is not possible: the firmware may have them by hand.
    EnrolCertificates(HttpBootOverride),
    /// Set the boot, in the way that was chosen.
    SetBoot(HttpBootOverride),
    /// Read the boot back, and fail if the BMC does not keep it.
    ReadBack(HttpBootOverride),
    /// Clear the boot override, and undo these changes.
    UndoBoot(Vec<BootChange>),
    /// Remove the service's certificates from the firmware, if that is possible.
    RemoveCertificates,
    /// Switch the machine on.
    PowerOn,
    /// Poll until the machine is on, or this time has passed.
    AwaitOn { patience: Duration },
    /// Read the state again in a second.
    LookAgain,
    /// None: the machine is in its final state.
    Done,
}

/// The reason why a machine does not reach its final state.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum PowerPlanFailure {
    /// The power state does not change.
    #[error(
        "the BMC took the reset, but {} s later the machine is still not {wanted} (change_timeout_secs in [power], or \
         redfish_power_change_timeout in driver_info)",
        waited.as_secs()
    )]
    PowerStays {
        /// `on` or `off`.
        wanted: &'static str,
        /// The time since the reset.
        waited: Duration,
    },
    /// The operating system does not shut down.
    #[error("the system did not end itself within {} s", SHUT_DOWN.as_secs())]
    SystemRuns,
    /// The BMC shows no power state.
    #[error("the BMC does not show the power state of the machine (no PowerState in the system)")]
    PowerUnknown,
}

impl PowerPlan {
    /// A boot from power off.
    pub(crate) fn boot(phase: BootPhase) -> Self {
        let boot = Some(PlannedBoot::new());
        Self::new(Some(SwitchOff::AtOnce), PowerEnd::On { boot }, phase)
    }

    /// An operator's request. If `sets_boot`, a boot is set before the power-on.
    pub(crate) fn power(target: PowerTarget, sets_boot: bool, phase: BootPhase) -> Self {
        let boot = sets_boot.then_some(PlannedBoot::new());
        let (off, end) = match target {
            PowerTarget::On => (None, PowerEnd::On { boot }),
            PowerTarget::Off => (Some(SwitchOff::AtOnce), PowerEnd::Off),
            PowerTarget::SoftOff => (Some(SwitchOff::BySystem), PowerEnd::Off),
            PowerTarget::Reboot => (Some(SwitchOff::AtOnce), PowerEnd::On { boot }),
            PowerTarget::SoftReboot => (Some(SwitchOff::BySystem), PowerEnd::On { boot }),
        };
        Self::new(off, end, phase)
    }

    /// The end of an attempt. No phase is recorded: it can be repeated at any time, and needs no database.
    pub(crate) fn tear_down(changes: Vec<BootChange>) -> Self {
        let end = PowerEnd::OffAndBootUndone { changes, removes: false };
        Self::new(Some(SwitchOff::AtOnce), end, BootPhase::Untouched)
    }

    fn new(off: Option<SwitchOff>, end: PowerEnd, phase: BootPhase) -> Self {
        Self { off, end, phase, change_takes: POWER_FOLLOWS, last: None }
    }

    /// The same plan with another time for a forced power change.
    pub(crate) fn within(self, change_takes: Duration) -> Self {
        Self { change_takes, ..self }
    }

    /// The same plan; if `is_wanted`, with certificates enrolled in the firmware before a boot is set, or removed from it
    /// after one is undone.
    pub(crate) fn with_certificates(mut self, is_wanted: bool) -> Self {
        match &mut self.end {
            PowerEnd::OffAndBootUndone { removes, .. } => *removes = is_wanted,
            PowerEnd::On { boot: Some(boot) } => boot.enrols = is_wanted,
            PowerEnd::Off | PowerEnd::On { boot: None } => {}
        }
        self
    }

    /// Sets the override of a prepared boot.
    pub(crate) fn prepared(&mut self, boot: HttpBootOverride) {
        if let PowerEnd::On { boot: Some(planned) } = &mut self.end {
            planned.prepared = Some(boot);
        }
    }

    /// The next action, after the success of the previous one. `shown` is the latest state of the machine.
    ///
    /// # Errors
    /// [`PowerPlanFailure`]: no action is left.
    pub(crate) fn next(&mut self, shown: &SystemView) -> Result<PlannedAction, PowerPlanFailure> {
        if let (Some(PlannedAction::ChooseWay), PowerEnd::On { boot: Some(boot) }) =
            (&self.last, &mut self.end)
        {
            boot.has_way = true;
        }
        let next = self.after_last(shown)?;
        if let PlannedAction::Note(phase) = next {
            self.phase = phase;
        }
        self.last = Some(next.clone());
        Ok(next)
    }

    fn after_last(&self, shown: &SystemView) -> Result<PlannedAction, PowerPlanFailure> {
        // Just before its power-on, a machine that shows "on" was off a moment ago: the BMC may show an old state.
        let is_about_to = self.last == Some(PlannedAction::Note(BootPhase::PoweringOn));
        if self.may_have_switched_on() && shown.power() == SystemPower::On && !is_about_to {
            return Ok(PlannedAction::Done);
        }
        match &self.last {
            None
            | Some(PlannedAction::LookAgain | PlannedAction::ChooseWay | PlannedAction::Prepare) => {
                Ok(self.begin(shown))
            }
            Some(PlannedAction::Note(phase)) => match phase {
                BootPhase::Untouched | BootPhase::PoweringOff | BootPhase::Overriding => {
                    Ok(self.begin(shown))
                }
                BootPhase::PoweringOn => Ok(PlannedAction::PowerOn),
                BootPhase::SeenOff(_) => Ok(PlannedAction::LookAgain),
            },
            Some(PlannedAction::PowerOff) => {
                Ok(PlannedAction::AwaitOff { patience: self.change_takes })
            }
            Some(PlannedAction::ShutDown) => Ok(PlannedAction::AwaitOff { patience: SHUT_DOWN }),
            Some(PlannedAction::AwaitOff { .. }) => self.awaited_off(shown),
            Some(PlannedAction::EnrolCertificates(boot)) => {
                Ok(PlannedAction::SetBoot(boot.clone()))
            }
            Some(PlannedAction::SetBoot(boot)) => Ok(PlannedAction::ReadBack(boot.clone())),
            Some(PlannedAction::ReadBack(_)) => Ok(PlannedAction::Note(BootPhase::PoweringOn)),
            Some(PlannedAction::PowerOn) => {
                Ok(PlannedAction::AwaitOn { patience: self.change_takes })
            }
            Some(PlannedAction::AwaitOn { .. }) => self.awaited_on(shown),
            Some(PlannedAction::UndoBoot(_)) => Ok(self.when_undone()),
            Some(PlannedAction::RemoveCertificates | PlannedAction::Done) => {
                Ok(PlannedAction::Done)
            }
        }
    }

    /// Whether this work may have switched on the running machine, which then stays on.
    fn may_have_switched_on(&self) -> bool {
        self.ends_on() && self.phase >= BootPhase::PoweringOn
    }

    fn ends_on(&self) -> bool {
        match self.end {
            PowerEnd::Off | PowerEnd::OffAndBootUndone { .. } => false,
            PowerEnd::On { .. } => true,
        }
    }

    /// The first action, from the phase and the power state alone.
    fn begin(&self, shown: &SystemView) -> PlannedAction {
        if self.may_have_switched_on() {
            return self.await_reset(shown);
        }
        if self.off.is_none() && shown.power() == SystemPower::On {
            return PlannedAction::Done;
        }
        if let PowerEnd::On { boot: Some(boot) } = &self.end
            && let Some(action) = boot.next_preparation()
        {
            return action;
        }
        match self.off {
            Some(off) if shown.power() != SystemPower::Off => self.switch_off(off),
            Some(_) | None => self.when_off(shown),
        }
    }

    /// Waits for a reset that was sent before a crash, or was about to be.
    fn await_reset(&self, shown: &SystemView) -> PlannedAction {
        let looks = match self.phase {
            BootPhase::Untouched
            | BootPhase::PoweringOff
            | BootPhase::Overriding
            | BootPhase::PoweringOn => 0,
            BootPhase::SeenOff(looks) => looks,
        };
        if looks < RESET_SHOWS {
            return PlannedAction::Note(BootPhase::SeenOff(looks + 1));
        }
        match shown.power() {
            SystemPower::Off => self.when_off(shown),
            // Some BMCs show no power state during the machine's self-test.
            SystemPower::On | SystemPower::Changing | SystemPower::Unknown => {
                PlannedAction::AwaitOn { patience: self.change_takes }
            }
        }
    }

    /// The record tells a later claimer that the power was on before this work. If the machine's final state is off,
    /// repeating the power-off is harmless.
    fn switch_off(&self, off: SwitchOff) -> PlannedAction {
        if self.ends_on() && self.phase != BootPhase::PoweringOff {
            return PlannedAction::Note(BootPhase::PoweringOff);
        }
        match off {
            SwitchOff::AtOnce => PlannedAction::PowerOff,
            SwitchOff::BySystem => PlannedAction::ShutDown,
        }
    }

    fn awaited_off(&self, shown: &SystemView) -> Result<PlannedAction, PowerPlanFailure> {
        match (shown.power(), self.off) {
            (SystemPower::Off, _) => Ok(self.when_off(shown)),
            (SystemPower::Unknown, _) => Err(PowerPlanFailure::PowerUnknown),
            (SystemPower::On | SystemPower::Changing, Some(SwitchOff::BySystem)) => {
                Err(PowerPlanFailure::SystemRuns)
            }
            (SystemPower::On | SystemPower::Changing, Some(SwitchOff::AtOnce) | None) => {
                Err(PowerPlanFailure::PowerStays { wanted: "off", waited: self.change_takes })
            }
        }
    }

    fn when_off(&self, shown: &SystemView) -> PlannedAction {
        match &self.end {
            PowerEnd::OffAndBootUndone { changes, .. } if shown.needs_undoing(changes) => {
                PlannedAction::UndoBoot(changes.clone())
            }
            PowerEnd::Off | PowerEnd::OffAndBootUndone { .. } => self.when_undone(),
            PowerEnd::On { boot: None } => PlannedAction::Note(BootPhase::PoweringOn),
            PowerEnd::On { boot: Some(boot) } => match (boot.next_preparation(), &boot.prepared) {
                (Some(action), _) => action,
                // If a reset may have been sent, that record must stay until the next one.
                _ if self.phase < BootPhase::Overriding => {
                    PlannedAction::Note(BootPhase::Overriding)
                }
                (None, Some(prepared)) if boot.enrols => {
                    PlannedAction::EnrolCertificates(prepared.clone())
                }
                (None, Some(prepared)) => PlannedAction::SetBoot(prepared.clone()),
                (None, None) => PlannedAction::Prepare,
            },
        }
    }

    fn when_undone(&self) -> PlannedAction {
        match self.end {
            PowerEnd::OffAndBootUndone { removes: true, .. } => PlannedAction::RemoveCertificates,
            PowerEnd::OffAndBootUndone { .. } | PowerEnd::Off | PowerEnd::On { .. } => {
                PlannedAction::Done
            }
        }
    }

    fn awaited_on(&self, shown: &SystemView) -> Result<PlannedAction, PowerPlanFailure> {
        match (self.phase, shown.power()) {
            // The reset was recorded before the crash, but not sent.
            (BootPhase::SeenOff(_), SystemPower::Off) => Ok(self.when_off(shown)),
            (_, SystemPower::On) => Ok(PlannedAction::Done),
            (_, SystemPower::Unknown) => Err(PowerPlanFailure::PowerUnknown),
            (_, SystemPower::Off | SystemPower::Changing) => {
                Err(PowerPlanFailure::PowerStays { wanted: "on", waited: self.change_takes })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;
    use redfish::resource::RedfishResource;
    use redfish::ways::OverrideEnabled;
    use serde_json::json;

    use super::*;

    const URL: &str = "http://10.0.0.1:8080/boot/x/boot.iso";
    const POWERS: [SystemPower; 3] = [SystemPower::On, SystemPower::Off, SystemPower::Changing];
    const PHASES: [BootPhase; 6] = [
        BootPhase::Untouched,
        BootPhase::PoweringOff,
        BootPhase::Overriding,
        BootPhase::PoweringOn,
        BootPhase::SeenOff(RESET_SHOWS - 1),
        BootPhase::SeenOff(RESET_SHOWS),
    ];
    const TARGETS: [PowerTarget; 5] = [
        PowerTarget::On,
        PowerTarget::Off,
        PowerTarget::SoftOff,
        PowerTarget::Reboot,
        PowerTarget::SoftReboot,
    ];

    fn url() -> HttpBootOverride {
        HttpBootOverride::once(Some(URL.to_owned()))
    }

    /// The state of a machine that can boot over HTTP.
    fn shown(power: SystemPower, boot: Option<&HttpBootOverride>) -> SystemView {
        let power = match power {
            SystemPower::On => json!("On"),
            SystemPower::Off => json!("Off"),
            SystemPower::Changing => json!("PoweringOff"),
            SystemPower::Unknown => json!(null),
        };
        let enabled = boot.map_or("Disabled", |boot| match boot.enabled {
            OverrideEnabled::Once => "Once",
            OverrideEnabled::Continuous => "Continuous",
        });
        let system = json!({
            "@odata.id": "/redfish/v1/Systems/1",
            "PowerState": power,
            "Boot": {
                "BootSourceOverrideEnabled": enabled,
                "BootSourceOverrideTarget": boot.map_or("None", |_| "UefiHttp"),
                "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "UefiHttp"],
                "HttpBootUri": boot.and_then(|boot| boot.uri.as_deref()),
            },
            "Actions": { "#ComputerSystem.Reset": { "target": "/reset" } },
        });
        SystemView::from(RedfishResource {
            path: "/redfish/v1/Systems/1".to_owned(),
            etag: None,
            body: system,
        })
    }

    fn words(next: &Result<PlannedAction, PowerPlanFailure>) -> String {
        match next {
            Ok(PlannedAction::Note(phase)) => format!("note {phase:?}"),
            Ok(PlannedAction::PowerOff) => "power off".to_owned(),
            Ok(PlannedAction::ShutDown) => "shut down".to_owned(),
            Ok(PlannedAction::AwaitOff { patience }) => {
                format!("await off {} s", patience.as_secs())
            }
            Ok(PlannedAction::Prepare) => "prepare".to_owned(),
            Ok(PlannedAction::SetBoot(boot)) => format!("override {:?}", boot.enabled),
            Ok(PlannedAction::ChooseWay) => "choose the way".to_owned(),
            Ok(PlannedAction::EnrolCertificates(_)) => "enrol certificates".to_owned(),
            Ok(PlannedAction::RemoveCertificates) => "remove certificates".to_owned(),
            Ok(PlannedAction::ReadBack(_)) => "read back".to_owned(),
            Ok(PlannedAction::UndoBoot(_)) => "undo the boot".to_owned(),
            Ok(PlannedAction::PowerOn) => "power on".to_owned(),
            Ok(PlannedAction::AwaitOn { patience }) => format!("await on {} s", patience.as_secs()),
            Ok(PlannedAction::LookAgain) => "look again".to_owned(),
            Ok(PlannedAction::Done) => "done".to_owned(),
            Err(PowerPlanFailure::PowerUnknown) => "fail: unknown".to_owned(),
            Err(PowerPlanFailure::PowerStays { wanted, .. }) => format!("fail: not {wanted}"),
            Err(PowerPlanFailure::SystemRuns) => "fail: system runs".to_owned(),
        }
    }

    impl PowerPlan {
        /// The plan after the choice of the way.
        fn with_way(mut self) -> Self {
            if let PowerEnd::On { boot: Some(boot) } = &mut self.end {
                boot.has_way = true;
            }
            self
        }
    }

    /// A prepared boot.
    fn prepared_boot(phase: BootPhase) -> PowerPlan {
        let mut plan = PowerPlan::boot(phase);
        plan.prepared(url());
        plan.with_way()
    }

    fn header() -> String {
        format!("{:<28} {:<20} {:<20} {}\n", "", "On", "Off", "Changing")
    }

    /// The next actions if the machine is on, off, or neither.
    fn row(table: &mut String, name: &str, plan: &PowerPlan, boot: Option<&HttpBootOverride>) {
        let next = POWERS.map(|power| words(&plan.clone().next(&shown(power, boot))));
        let [on, off, changing] = next;
        writeln!(table, "{name:<28} {on:<20} {off:<20} {changing}").unwrap();
    }

    #[test]
    fn whoever_takes_over_goes_by_the_phase_and_the_power() {
        let mut table = header();
        for phase in PHASES {
            row(&mut table, &format!("boot: {phase:?}"), &PowerPlan::boot(phase), None);
        }
        for phase in PHASES {
            row(&mut table, &format!("prepared: {phase:?}"), &prepared_boot(phase), None);
        }
        for target in TARGETS {
            for phase in PHASES {
                let plan = PowerPlan::power(target, false, phase);
                row(&mut table, &format!("{}: {phase:?}", target.name()), &plan, None);
            }
        }
        row(&mut table, "tear down", &PowerPlan::tear_down(Vec::new()), None);
        row(&mut table, "tear down, override set", &PowerPlan::tear_down(Vec::new()), Some(&url()));
        let without_ca = PowerPlan::tear_down(Vec::new()).with_certificates(true);
        row(&mut table, "tear down, without the CA", &without_ca, None);
        let with_ca = prepared_boot(BootPhase::Overriding).with_certificates(true);
        row(&mut table, "prepared, with the CA", &with_ca, None);

        insta::assert_snapshot!(table, @r"
                                     On                   Off                  Changing
        boot: Untouched              choose the way       choose the way       choose the way
        boot: PoweringOff            choose the way       choose the way       choose the way
        boot: Overriding             choose the way       choose the way       choose the way
        boot: PoweringOn             done                 note SeenOff(1)      note SeenOff(1)
        boot: SeenOff(9)             done                 note SeenOff(10)     note SeenOff(10)
        boot: SeenOff(10)            done                 choose the way       await on 90 s
        prepared: Untouched          note PoweringOff     note Overriding      note PoweringOff
        prepared: PoweringOff        power off            note Overriding      power off
        prepared: Overriding         note PoweringOff     override Once        note PoweringOff
        prepared: PoweringOn         done                 note SeenOff(1)      note SeenOff(1)
        prepared: SeenOff(9)         done                 note SeenOff(10)     note SeenOff(10)
        prepared: SeenOff(10)        done                 override Once        await on 90 s
        power on: Untouched          done                 note PoweringOn      note PoweringOn
        power on: PoweringOff        done                 note PoweringOn      note PoweringOn
        power on: Overriding         done                 note PoweringOn      note PoweringOn
        power on: PoweringOn         done                 note SeenOff(1)      note SeenOff(1)
        power on: SeenOff(9)         done                 note SeenOff(10)     note SeenOff(10)
        power on: SeenOff(10)        done                 note PoweringOn      await on 90 s
        power off: Untouched         power off            done                 power off
        power off: PoweringOff       power off            done                 power off
        power off: Overriding        power off            done                 power off
        power off: PoweringOn        power off            done                 power off
        power off: SeenOff(9)        power off            done                 power off
        power off: SeenOff(10)       power off            done                 power off
        soft power off: Untouched    shut down            done                 shut down
        soft power off: PoweringOff  shut down            done                 shut down
        soft power off: Overriding   shut down            done                 shut down
        soft power off: PoweringOn   shut down            done                 shut down
        soft power off: SeenOff(9)   shut down            done                 shut down
        soft power off: SeenOff(10)  shut down            done                 shut down
        rebooting: Untouched         note PoweringOff     note PoweringOn      note PoweringOff
        rebooting: PoweringOff       power off            note PoweringOn      power off
        rebooting: Overriding        note PoweringOff     note PoweringOn      note PoweringOff
        rebooting: PoweringOn        done                 note SeenOff(1)      note SeenOff(1)
        rebooting: SeenOff(9)        done                 note SeenOff(10)     note SeenOff(10)
        rebooting: SeenOff(10)       done                 note PoweringOn      await on 90 s
        soft rebooting: Untouched    note PoweringOff     note PoweringOn      note PoweringOff
        soft rebooting: PoweringOff  shut down            note PoweringOn      shut down
        soft rebooting: Overriding   note PoweringOff     note PoweringOn      note PoweringOff
        soft rebooting: PoweringOn   done                 note SeenOff(1)      note SeenOff(1)
        soft rebooting: SeenOff(9)   done                 note SeenOff(10)     note SeenOff(10)
        soft rebooting: SeenOff(10)  done                 note PoweringOn      await on 90 s
        tear down                    power off            done                 power off
        tear down, override set      power off            undo the boot        power off
        tear down, without the CA    power off            remove certificates  power off
        prepared, with the CA        note PoweringOff     enrol certificates   note PoweringOff
        ");
    }

    #[test]
    fn each_action_is_followed_by_what_the_machine_then_shows() {
        let mut table = header();
        let mut after = |name: &str, mut plan: PowerPlan, last, boot: Option<&HttpBootOverride>| {
            plan.last = Some(last);
            row(&mut table, name, &plan, boot);
        };
        let boot = prepared_boot;
        let patience = POWER_FOLLOWS;
        let await_off = PlannedAction::AwaitOff { patience };
        let await_on = PlannedAction::AwaitOn { patience };
        let override_url = PlannedAction::SetBoot(url());
        let off = BootPhase::PoweringOff;
        after("note PoweringOff", boot(off), PlannedAction::Note(off), None);
        after("power off", boot(off), PlannedAction::PowerOff, None);
        after("await off", boot(off), await_off.clone(), None);
        let set = BootPhase::Overriding;
        after("note Overriding", boot(set), PlannedAction::Note(set), None);
        after(
            "enrol certificates",
            boot(set).with_certificates(true),
            PlannedAction::EnrolCertificates(url()),
            None,
        );
        after("override", boot(set), override_url.clone(), None);
        after("read back", boot(set), PlannedAction::ReadBack(url()), Some(&url()));
        let on = BootPhase::PoweringOn;
        after("note PoweringOn", boot(on), PlannedAction::Note(on), None);
        after("power on", boot(on), PlannedAction::PowerOn, None);
        after("await on", boot(on), await_on.clone(), None);
        let seen = BootPhase::SeenOff(RESET_SHOWS);
        after("resumed: note SeenOff", boot(seen), PlannedAction::Note(seen), None);
        after("resumed: look again", boot(seen), PlannedAction::LookAgain, None);
        after("resumed: await on", boot(seen), await_on.clone(), None);
        let unprepared = |phase| PowerPlan::boot(phase);
        after("unprepared: look again", unprepared(seen), PlannedAction::LookAgain, None);
        after("unprepared: await on", unprepared(seen), await_on, None);
        after("resumed: prepare", boot(seen), PlannedAction::Prepare, None);
        after("prepare", boot(BootPhase::Untouched), PlannedAction::Prepare, None);
        after("resumed: override", boot(seen), override_url, None);
        after("resumed: read back", boot(seen), PlannedAction::ReadBack(url()), Some(&url()));
        let soft = PowerPlan::power(PowerTarget::SoftOff, false, BootPhase::Untouched);
        after("soft: shut down", soft.clone(), PlannedAction::ShutDown, None);
        after("soft: await off", soft, await_off.clone(), None);
        let tear_down = PowerPlan::tear_down(Vec::new());
        after("tear down: power off", tear_down.clone(), PlannedAction::PowerOff, None);
        after("tear down: await off", tear_down.clone(), await_off, Some(&url()));
        after("tear down: undo the boot", tear_down, PlannedAction::UndoBoot(Vec::new()), None);

        insta::assert_snapshot!(table, @r"
                                     On                   Off                  Changing
        note PoweringOff             power off            note Overriding      power off
        power off                    await off 90 s       await off 90 s       await off 90 s
        await off                    fail: not off        note Overriding      fail: not off
        note Overriding              note PoweringOff     override Once        note PoweringOff
        enrol certificates           override Once        override Once        override Once
        override                     read back            read back            read back
        read back                    note PoweringOn      note PoweringOn      note PoweringOn
        note PoweringOn              power on             power on             power on
        power on                     done                 await on 90 s        await on 90 s
        await on                     done                 fail: not on         fail: not on
        resumed: note SeenOff        done                 look again           look again
        resumed: look again          done                 override Once        await on 90 s
        resumed: await on            done                 override Once        fail: not on
        unprepared: look again       done                 choose the way       await on 90 s
        unprepared: await on         done                 choose the way       fail: not on
        resumed: prepare             done                 override Once        await on 90 s
        prepare                      note PoweringOff     note Overriding      note PoweringOff
        resumed: override            done                 read back            read back
        resumed: read back           done                 note PoweringOn      note PoweringOn
        soft: shut down              await off 600 s      await off 600 s      await off 600 s
        soft: await off              fail: system runs    done                 fail: system runs
        tear down: power off         await off 90 s       await off 90 s       await off 90 s
        tear down: await off         fail: not off        undo the boot        fail: not off
        tear down: undo the boot     done                 done                 done
        ");
    }

    #[test]
    fn the_ca_is_enrolled_between_the_power_off_and_the_boot_and_removed_at_the_end() {
        let mut machine = PowerModel::new(true);
        let mut plan = PowerPlan::boot(BootPhase::Untouched).with_certificates(true);
        plan.prepared(url());
        let (course, _) = machine.live(plan, &mut std::iter::empty());

        let course: Vec<_> = course.into_iter().map(|action| words(&Ok(action))).collect();
        let expected = ["await off 90 s", "note Overriding", "enrol certificates", "override Once"];
        assert!(course.windows(4).any(|part| part == expected), "{course:?}");
        let end = PowerPlan::tear_down(Vec::new()).with_certificates(true);
        let (course, _) = machine.live(end, &mut std::iter::empty());
        let course: Vec<_> = course.into_iter().map(|action| words(&Ok(action))).collect();
        assert!(course.ends_with(&["undo the boot".to_owned(), "remove certificates".to_owned()]));
    }

    #[test]
    fn the_way_is_chosen_before_the_machine_is_touched() {
        let mut plan = PowerPlan::boot(BootPhase::Untouched);

        assert_eq!(plan.next(&shown(SystemPower::On, None)), Ok(PlannedAction::ChooseWay));
    }

    #[test]
    fn an_override_for_a_power_on_is_set_as_it_is_asked_for() {
        let boot = HttpBootOverride { enabled: OverrideEnabled::Continuous, ..url() };
        for target in [PowerTarget::On, PowerTarget::Reboot, PowerTarget::SoftReboot] {
            let mut plan = PowerPlan::power(target, true, BootPhase::Untouched);
            plan.prepared(boot.clone());
            let plan = plan.with_way();

            let (course, end) = PowerModel::new(false).live(plan, &mut std::iter::empty());

            assert_eq!(end, PlanEnd::Done);
            let course: Vec<_> = course.into_iter().map(|action| words(&Ok(action))).collect();
            let expected = [
                "note Overriding",
                "override Continuous",
                "read back",
                "note PoweringOn",
                "power on",
                "await on 90 s",
            ];
            assert_eq!(course, expected, "{target:?}");
        }
    }

    #[test]
    fn a_machine_that_shows_no_power_while_it_tests_itself_is_waited_for_after_a_crash() {
        let mut machine = PowerModel {
            phase: BootPhase::PoweringOn,
            reset: Some((SystemPower::On, 60)),
            hides_power: true,
            ..PowerModel::new(false)
        };

        let (course, end) = machine.live(PowerPlan::boot(machine.phase), &mut std::iter::empty());

        assert_eq!(end, PlanEnd::Done);
        assert!(!course.contains(&PlannedAction::PowerOff), "{course:?}");
    }

    #[test]
    fn nothing_is_made_ready_for_a_machine_that_was_switched_on_before_a_crash() {
        for slow in 0..RESET_SHOWS {
            let mut machine = PowerModel {
                phase: BootPhase::PoweringOn,
                reset: Some((SystemPower::On, slow)),
                ..PowerModel::new(false)
            };

            let (course, end) =
                machine.live(PowerPlan::boot(machine.phase), &mut std::iter::empty());

            assert_eq!(end, PlanEnd::Done);
            assert!(!course.contains(&PlannedAction::Prepare), "{course:?}");
        }
    }

    /// The fate of the daemon around an action.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum DaemonFate {
        Lives,
        DiesBefore,
        DiesAfter,
    }

    #[derive(Debug, PartialEq, Eq)]
    enum PlanEnd {
        Done,
        Failed(PowerPlanFailure),
        NotKept,
        Died,
    }

    /// A machine with its BMC, and the phase in the store.
    #[derive(Clone, Debug)]
    struct PowerModel {
        on: bool,
        boot: Option<HttpBootOverride>,
        /// A pending reset: the resulting power state, and the number of readings until it is visible.
        reset: Option<(SystemPower, u8)>,
        /// Number of readings until a reset is visible.
        slow: u8,
        /// Whether the power state is unknown until then.
        hides_power: bool,
        forgets_override: bool,
        /// Whether the firmware has the CA.
        has_ca: bool,
        phase: BootPhase,
        /// Whether a power-on was recorded.
        may_be_switched_on: bool,
    }

    impl PowerModel {
        fn new(on: bool) -> Self {
            Self {
                on,
                boot: None,
                reset: None,
                slow: 0,
                hides_power: false,
                forgets_override: false,
                has_ca: false,
                phase: BootPhase::Untouched,
                may_be_switched_on: false,
            }
        }

        fn look(&mut self) -> SystemView {
            self.reset = match self.reset {
                Some((power, 0)) => {
                    self.on = power == SystemPower::On;
                    None
                }
                Some((power, looks)) => Some((power, looks - 1)),
                None => None,
            };
            let power = match self.reset {
                Some(_) if self.hides_power => SystemPower::Unknown,
                Some(_) | None if self.on => SystemPower::On,
                Some(_) | None => SystemPower::Off,
            };
            shown(power, self.boot.as_ref())
        }

        fn await_power(&mut self, power: SystemPower, patience: Duration) -> SystemView {
            let mut shown = self.look();
            for _ in 0..patience.as_secs() {
                if shown.power() == power {
                    break;
                }
                shown = self.look();
            }
            shown
        }

        fn carry_out(&mut self, action: &PlannedAction, shown: SystemView) -> SystemView {
            match action {
                PlannedAction::Note(phase) => self.phase = *phase,
                PlannedAction::PowerOff | PlannedAction::ShutDown => {
                    self.reset = Some((SystemPower::Off, self.slow));
                }
                PlannedAction::PowerOn => self.reset = Some((SystemPower::On, self.slow)),
                PlannedAction::SetBoot(_) if self.forgets_override => {}
                PlannedAction::SetBoot(boot) => self.boot = Some(boot.clone()),
                PlannedAction::UndoBoot(_) => self.boot = None,
                PlannedAction::EnrolCertificates(_) => self.has_ca = true,
                PlannedAction::RemoveCertificates => self.has_ca = false,
                PlannedAction::AwaitOff { patience } => {
                    return self.await_power(SystemPower::Off, *patience);
                }
                PlannedAction::AwaitOn { patience } => {
                    return self.await_power(SystemPower::On, *patience);
                }
                // It takes time; then the machine's state is read again.
                PlannedAction::ChooseWay
                | PlannedAction::Prepare
                | PlannedAction::ReadBack(_)
                | PlannedAction::LookAgain => {
                    return self.look();
                }
                PlannedAction::Done => {}
            }
            shown
        }

        /// One life of a daemon: its actions, and their end.
        fn live(
            &mut self,
            mut plan: PowerPlan,
            fates: &mut impl Iterator<Item = DaemonFate>,
        ) -> (Vec<PlannedAction>, PlanEnd) {
            let mut done = Vec::new();
            let mut shown = self.look();
            loop {
                let action = match plan.next(&shown) {
                    Ok(PlannedAction::Done) => return (done, PlanEnd::Done),
                    Ok(action) => action,
                    Err(failure) => return (done, PlanEnd::Failed(failure)),
                };
                self.expect_harmless(&plan, &action, &shown);
                let fate = fates.next().unwrap_or(DaemonFate::Lives);
                if fate == DaemonFate::DiesBefore {
                    return (done, PlanEnd::Died);
                }
                shown = self.carry_out(&action, shown);
                if matches!(&action, PlannedAction::ReadBack(wanted) if self.boot.as_ref() != Some(wanted))
                {
                    return (done, PlanEnd::NotKept);
                }
                if action == PlannedAction::Prepare {
                    plan.prepared(url());
                }
                done.push(action);
                assert!(done.len() < 50, "it does not end: {done:?}");
                if fate == DaemonFate::DiesAfter {
                    return (done, PlanEnd::Died);
                }
            }
        }

        /// The invariants of each action, whatever preceded it.
        fn expect_harmless(
            &mut self,
            plan: &PowerPlan,
            action: &PlannedAction,
            shown: &SystemView,
        ) {
            match action {
                PlannedAction::PowerOff | PlannedAction::ShutDown if plan.ends_on() => {
                    assert!(!self.may_be_switched_on, "it was switched on for this work");
                    assert_eq!(self.phase, BootPhase::PoweringOff);
                }
                PlannedAction::EnrolCertificates(_) | PlannedAction::SetBoot(_) => {
                    assert!(self.phase >= BootPhase::Overriding);
                }
                PlannedAction::PowerOn => {
                    assert_eq!(self.phase, BootPhase::PoweringOn);
                    assert_ne!(shown.power(), SystemPower::On);
                    if let PowerEnd::On { boot: Some(boot) } = &plan.end {
                        let enrols = boot.enrols;
                        let boot = boot.prepared.as_ref().expect("it was made ready");
                        assert_eq!(self.boot.as_ref(), Some(boot));
                        assert!(self.has_ca || !enrols, "the firmware has no CA");
                    }
                    let comes_on = self.reset.is_some_and(|(power, _)| power == SystemPower::On);
                    assert!(!comes_on || self.slow > RESET_SHOWS, "one reset is enough");
                }
                PlannedAction::Note(phase) => {
                    self.may_be_switched_on |= *phase >= BootPhase::PoweringOn;
                }
                PlannedAction::Prepare => {
                    let is_on = shown.power() == SystemPower::On;
                    assert!(!(self.may_be_switched_on && is_on), "it is on for this work");
                }
                PlannedAction::PowerOff
                | PlannedAction::ShutDown
                | PlannedAction::AwaitOff { .. }
                | PlannedAction::ChooseWay
                | PlannedAction::RemoveCertificates
                | PlannedAction::ReadBack(_)
                | PlannedAction::UndoBoot(_)
                | PlannedAction::AwaitOn { .. }
                | PlannedAction::LookAgain
                | PlannedAction::Done => {}
            }
        }
    }

    /// The inputs of a plan, without the phase.
    #[derive(Clone, Debug)]
    enum PowerWork {
        Boot,
        Power(PowerTarget, bool),
        TearDown,
    }

    impl PowerWork {
        fn plan(&self, phase: BootPhase) -> PowerPlan {
            match self {
                Self::Boot => PowerPlan::boot(phase),
                Self::Power(target, sets_boot) => PowerPlan::power(*target, *sets_boot, phase),
                Self::TearDown => PowerPlan::tear_down(Vec::new()),
            }
        }
    }

    fn power_work() -> impl Strategy<Value = PowerWork> {
        let power = (prop::sample::select(&TARGETS[..]), any::<bool>());
        prop_oneof![
            3 => Just(PowerWork::Boot),
            3 => power.prop_map(|(target, sets_boot)| PowerWork::Power(target, sets_boot)),
            1 => Just(PowerWork::TearDown),
        ]
    }

    fn fates() -> impl Strategy<Value = Vec<DaemonFate>> {
        let with_crashes = |lives: u32| {
            let fate = prop_oneof![
                lives => Just(DaemonFate::Lives),
                1 => Just(DaemonFate::DiesBefore),
                1 => Just(DaemonFate::DiesAfter),
            ];
            prop::collection::vec(fate, 0..80)
        };
        prop_oneof![with_crashes(4), with_crashes(30)]
    }

    /// A machine before the work, or one whose daemon died after sending the reset.
    fn power_model() -> impl Strategy<Value = PowerModel> {
        let slow = prop_oneof![
            2 => 0..=RESET_SHOWS,
            2 => RESET_SHOWS..=RESET_SHOWS + 3,
            1 => 0..=u8::MAX,
        ];
        let flags = (any::<bool>(), any::<bool>(), any::<bool>(), prop::bool::weighted(0.1));
        (slow, flags).prop_map(|(slow, (on, is_reset, hides_power, forgets_override))| {
            let has_ca = is_reset;
            let (phase, reset) = if is_reset {
                (BootPhase::PoweringOn, Some((SystemPower::On, slow)))
            } else {
                (BootPhase::Untouched, None)
            };
            PowerModel {
                phase,
                reset,
                may_be_switched_on: is_reset,
                slow,
                hides_power,
                forgets_override,
                has_ca,
                ..PowerModel::new(on && !is_reset)
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn whatever_crashes_a_machine_that_was_switched_on_stays_on_and_the_plan_ends(
            work in power_work(), mut machine in power_model(), fates in fates(), ca in any::<bool>(),
        ) {
            let mut fates = fates.into_iter();
            let end = loop {
                let plan = work.plan(machine.phase).with_certificates(ca);
                // Each action is checked there.
                let (_, end) = machine.live(plan, &mut fates);
                if end != PlanEnd::Died {
                    break end;
                }
            };
            match end {
                PlanEnd::Done => {
                    let ends_on = work.plan(machine.phase).ends_on();
                    prop_assert_eq!(machine.on, ends_on);
                    let is_overridden = machine.boot.is_some();
                    let is_left = is_overridden || ca && machine.has_ca;
                    prop_assert!(!(matches!(work, PowerWork::TearDown) && is_left));
                }
                PlanEnd::NotKept => prop_assert!(machine.forgets_override),
                PlanEnd::Failed(PowerPlanFailure::PowerUnknown) => {
                    prop_assert!(machine.hides_power);
                    prop_assert!(u64::from(machine.slow) > POWER_FOLLOWS.as_secs());
                }
                PlanEnd::Failed(PowerPlanFailure::PowerStays { .. }) => {
                    prop_assert!(u64::from(machine.slow) > POWER_FOLLOWS.as_secs());
                }
                PlanEnd::Failed(_) | PlanEnd::Died => prop_assert!(false, "{:?}", end),
            }
        }
    }
}
