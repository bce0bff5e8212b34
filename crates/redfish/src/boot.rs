//! The boot override of a BMC, for boots over HTTP, one request at a time.
//!
//! Each function here is one request, so that callers can record their progress in between. The order for a boot:
//! power off, override, read back, power on; afterwards, clear.

use hardware::{HttpMethod, RedfishPurpose};
use nv_redfish_core::action::ActionTarget;
use nv_redfish_core::{
    Action, Bmc, BmcError, BmcErrorClass, EntityTypeRef as _, ODataETag, ODataId,
};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use crate::quirks;
use crate::system::{
    BootOverride, BootPatch, ComputerSystem, ComputerSystemCollection, SystemBoot,
};

/// A system of a BMC.
pub struct RedfishSystem<'a, B> {
    bmc: &'a B,
    id: ODataId,
    observer: &'a (dyn Fn(&BmcCall, Option<&BmcFailure>) + Sync),
}

/// A request to a BMC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BmcCall {
    /// Its purpose.
    pub purpose: RedfishPurpose,
    /// Its HTTP method.
    pub method: HttpMethod,
    /// Its path.
    pub path: String,
}

/// The failure of a request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BmcFailure {
    /// The BMC refused.
    #[error("BMC answered {status} to the {purpose}{}", colon(message))]
    Refused {
        /// The purpose of the request.
        purpose: RedfishPurpose,
        /// The status code.
        status: http::StatusCode,
        /// The BMC's error message, if any.
        message: String,
    },
    /// The answer was missing or unusable.
    #[error("no usable answer from the BMC to the {purpose}: {message}")]
    NoAnswer {
        /// The purpose of the request.
        purpose: RedfishPurpose,
        /// The transport's error.
        message: String,
    },
}

impl BmcFailure {
    /// The status code, if the BMC answered.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(status.as_u16()),
            Self::NoAnswer { .. } => None,
        }
    }

    /// The error message of the BMC or the transport.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Refused { message, .. } | Self::NoAnswer { message, .. } => message,
        }
    }
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

/// The path of a BMC's only system, for nodes without `redfish_system_id` (as in Ironic).
///
/// # Errors
/// [`NotOneSystem`]
pub async fn only_system<B: Bmc>(
    bmc: &B,
    observer: &(dyn Fn(&BmcCall, Option<&BmcFailure>) + Sync),
) -> Result<String, NotOneSystem> {
    const SYSTEMS: &str = "/redfish/v1/Systems";
    let purpose = RedfishPurpose::ListSystems;
    let answer = bmc.get::<ComputerSystemCollection>(&ODataId::from(SYSTEMS.to_owned())).await;
    let answer = answer.map_err(|error| failure(purpose, &error));
    observer(
        &BmcCall { purpose, method: HttpMethod::Get, path: SYSTEMS.to_owned() },
        answer.as_ref().err(),
    );
    let paths: Vec<_> = answer?.members.iter().map(|member| member.path.clone()).collect();
    match <[String; 1]>::try_from(paths) {
        Ok([path]) => Ok(path),
        Err(paths) => Err(NotOneSystem::Several(paths)),
    }
}

/// The state of a system.
#[derive(Clone, Debug)]
pub struct SystemView(ComputerSystem);

/// The power state, simplified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemPower {
    /// `On`, or on the way to it.
    On,
    /// `Off`.
    Off,
    /// In transition, or unknown.
    Changing,
}

/// The override for a boot over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpBootOverride {
    /// `HttpBootUri`; `None` if the URL comes from DHCP.
    pub uri: Option<String>,
    /// `BootSourceOverrideEnabled`.
    pub enabled: OverrideEnabled,
}

/// The duration of a boot override.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverrideEnabled {
    /// For one boot.
    Once,
    /// Until it is cleared; on a BMC without `Once`, also for one boot.
    Continuous,
}

impl HttpBootOverride {
    /// An override for the next boot only.
    #[must_use]
    pub fn once(uri: Option<String>) -> Self {
        Self { uri, enabled: OverrideEnabled::Once }
    }
}

impl OverrideEnabled {
    fn known_to(self, view: &SystemView) -> Self {
        let values = view.0.boot.as_ref().and_then(|boot| boot.enabled_values.as_ref());
        let knows = |name: &str| values.is_none_or(|all| all.iter().any(|value| value == name));
        if self == Self::Continuous && !knows(self.name()) { Self::Once } else { self }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Once => "Once",
            Self::Continuous => "Continuous",
        }
    }
}

/// The reason why a BMC cannot boot its machine over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CannotHttpBoot {
    /// The boot mode is BIOS.
    #[error(
        "the machine boots in BIOS (legacy) mode, and HTTP boot is for UEFI only: \
         set its boot mode to UEFI"
    )]
    BiosMode,
    /// The system has no boot override.
    #[error(
        "the BMC shows no boot override (no `Boot` in the system), so its next boot cannot be set"
    )]
    NoOverride,
    /// The list of targets is missing.
    #[error(
        "the BMC does not say which boot targets it allows \
         (no BootSourceOverrideTarget@Redfish.AllowableValues), so UefiHttp cannot be relied on"
    )]
    NoTargets,
    /// `UefiHttp` is not among the targets.
    #[error(
        "the BMC cannot boot over HTTP: it allows the targets {0}, and UefiHttp is not among them"
    )]
    NoUefiHttp(String),
    /// The URL cannot be set.
    #[error(
        "the BMC allows UefiHttp but has no HttpBootUri property to hold the URL \
         (Dell, HPE and Lenovo keep it in BIOS attributes): use boot_interface http or http-ipxe"
    )]
    NoHttpBootUri,
    /// The reset action is missing.
    #[error("the BMC offers no ComputerSystem.Reset action")]
    NoReset,
}

/// A difference between the requested override and the one read back.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the BMC took the boot override but shows {property} as {shown}, not {wanted}")]
pub struct NotKept {
    /// The property.
    pub property: &'static str,
    /// The requested value.
    pub wanted: String,
    /// The value read back.
    pub shown: String,
}

impl From<ComputerSystem> for SystemView {
    /// The state in a BMC's answer.
    fn from(system: ComputerSystem) -> Self {
        Self(system)
    }
}

impl SystemView {
    /// The power state.
    #[must_use]
    pub fn power(&self) -> SystemPower {
        match self.0.power_state.as_deref() {
            Some("On" | "PoweringOn") => SystemPower::On,
            Some("Off") => SystemPower::Off,
            Some(_) | None => SystemPower::Changing,
        }
    }

    /// Checks that this BMC supports boots over HTTP; with `uri`, also that it accepts the URL.
    ///
    /// # Errors
    /// The missing feature.
    pub fn validate(&self, uri: bool) -> Result<(), CannotHttpBoot> {
        let boot = self.0.boot.as_ref().ok_or(CannotHttpBoot::NoOverride)?;
        if boot.mode.as_deref() == Some("Legacy") {
            return Err(CannotHttpBoot::BiosMode);
        }
        let targets = boot.targets.as_ref().ok_or(CannotHttpBoot::NoTargets)?;
        if !targets.iter().any(|target| target == "UefiHttp") {
            return Err(CannotHttpBoot::NoUefiHttp(targets.join(", ")));
        }
        if uri && boot.http_boot_uri.is_none() {
            return Err(CannotHttpBoot::NoHttpBootUri);
        }
        self.reset_target().map(drop)
    }

    /// Checks that the override equals the one from [`RedfishSystem::override_boot`].
    ///
    /// # Errors
    /// The first property that differs.
    pub fn has_override(&self, wanted: &HttpBootOverride) -> Result<(), NotKept> {
        let nothing = SystemBoot::default();
        let boot = self.0.boot.as_ref().unwrap_or(&nothing);
        kept("BootSourceOverrideTarget", "UefiHttp", boot.target.as_deref())?;
        // A BMC may support only one of the two values and keep that one. The next boot is the same, and Continuous
        // is cleared afterwards.
        if !matches!(boot.enabled.as_deref(), Some("Once" | "Continuous")) {
            let wanted = wanted.enabled.name();
            kept("BootSourceOverrideEnabled", wanted, boot.enabled.as_deref())?;
        }
        match &wanted.uri {
            Some(uri) => {
                let shown = boot.http_boot_uri.as_ref().and_then(Option::as_deref);
                kept("HttpBootUri", uri, shown)
            }
            None => Ok(()),
        }
    }

    /// Whether there is an override to clear.
    #[must_use]
    pub fn is_overridden(&self) -> bool {
        let Some(boot) = &self.0.boot else { return false };
        let enabled = boot.enabled.as_deref().is_some_and(|enabled| enabled != "Disabled");
        let uri = boot.http_boot_uri.as_ref().and_then(Option::as_deref);
        enabled || uri.is_some_and(|uri| !uri.is_empty())
    }

    fn reset_target(&self) -> Result<&str, CannotHttpBoot> {
        let reset = self.0.actions.as_ref().and_then(|actions| actions.reset.as_ref());
        reset.map(|reset| reset.target.as_str()).ok_or(CannotHttpBoot::NoReset)
    }

    /// The reset type to send: the first of `wanted` that the BMC lists, or the first of all if it lists none.
    fn reset_type(&self, wanted: &[&'static str]) -> &'static str {
        let reset = self.0.actions.as_ref().and_then(|actions| actions.reset.as_ref());
        let types = reset.and_then(|reset| reset.types.as_ref());
        let listed = |wanted: &&&'static str| {
            types.is_none_or(|types| types.iter().any(|listed| listed == **wanted))
        };
        wanted.iter().find(listed).or_else(|| wanted.first()).copied().unwrap_or("On")
    }
}

fn kept(property: &'static str, wanted: &str, shown: Option<&str>) -> Result<(), NotKept> {
    if shown == Some(wanted) {
        return Ok(());
    }
    let shown = shown.unwrap_or("nothing").to_owned();
    Err(NotKept { property, wanted: wanted.to_owned(), shown })
}

impl<'a, B: Bmc> RedfishSystem<'a, B> {
    /// The system at this path. `observer` is called after every request.
    #[must_use]
    pub fn new(
        bmc: &'a B,
        system: &str,
        observer: &'a (dyn Fn(&BmcCall, Option<&BmcFailure>) + Sync),
    ) -> Self {
        Self { bmc, id: ODataId::from(system.to_owned()), observer }
    }

    /// GETs the system.
    ///
    /// # Errors
    /// [`BmcFailure`] if the BMC refuses or does not answer.
    pub async fn look(&self) -> Result<SystemView, BmcFailure> {
        let call = self.call(RedfishPurpose::LookAtSystem, HttpMethod::Get, self.id.to_string());
        let system = self.heard(call, self.bmc.get::<ComputerSystem>(&self.id).await)?;
        Ok(SystemView(ComputerSystem::clone(&system)))
    }

    /// Sets the override for a boot over HTTP.
    ///
    /// # Errors
    /// [`BmcFailure`] if the BMC refuses or does not answer.
    pub async fn override_boot(
        &self,
        view: &SystemView,
        wanted: &HttpBootOverride,
    ) -> Result<(), BmcFailure> {
        let boot = BootOverride {
            enabled: wanted.enabled.known_to(view).name(),
            mode: Some("UEFI"),
            target: Some("UefiHttp"),
            http_boot_uri: match &wanted.uri {
                Some(uri) => Some(Some(uri.clone())),
                // A URL of an older boot would take precedence over DHCP's.
                None => stale_uri(view).then_some(None),
            },
        };
        self.patch(RedfishPurpose::BootOverride, view, boot).await
    }

    /// Clears the override, so that no later boot uses an expired URL.
    ///
    /// # Errors
    /// [`BmcFailure`] if the BMC refuses or does not answer.
    pub async fn clear_override(&self, view: &SystemView) -> Result<(), BmcFailure> {
        let boot = BootOverride {
            enabled: "Disabled",
            mode: quirks::wants_mode_when_clearing(&view.0).then_some("UEFI"),
            target: Some("None"),
            http_boot_uri: stale_uri(view).then_some(None),
        };
        self.patch(RedfishPurpose::ClearOverride, view, boot).await
    }

    /// Switches the machine on.
    ///
    /// # Errors
    /// [`BmcFailure`] if the BMC refuses or does not answer.
    pub async fn power_on(&self, view: &SystemView) -> Result<(), BmcFailure> {
        self.reset(RedfishPurpose::PowerOn, view, &["On", "ForceOn"]).await
    }

    /// Switches the machine off at once.
    ///
    /// # Errors
    /// [`BmcFailure`] if the BMC refuses or does not answer.
    pub async fn power_off(&self, view: &SystemView) -> Result<(), BmcFailure> {
        self.reset(RedfishPurpose::PowerOff, view, &["ForceOff"]).await
    }

    /// Requests a shutdown of the operating system.
    ///
    /// # Errors
    /// [`BmcFailure`] if the BMC refuses or does not answer.
    pub async fn shut_down(&self, view: &SystemView) -> Result<(), BmcFailure> {
        self.reset(RedfishPurpose::Shutdown, view, &["GracefulShutdown", "ForceOff"]).await
    }

    async fn patch(
        &self,
        purpose: RedfishPurpose,
        view: &SystemView,
        boot: BootOverride,
    ) -> Result<(), BmcFailure> {
        let patch = BootPatch { boot };
        match self.patch_if_match(purpose, view.0.etag(), &patch).await {
            Err(BmcFailure::Refused { status, .. }) if quirks::denies_its_own_etag(status) => {
                self.patch_if_match(purpose, None, &patch).await
            }
            answer => answer,
        }
    }

    async fn patch_if_match(
        &self,
        purpose: RedfishPurpose,
        etag: Option<&ODataETag>,
        patch: &BootPatch,
    ) -> Result<(), BmcFailure> {
        let call = self.call(purpose, HttpMethod::Patch, self.id.to_string());
        let done = self.bmc.update::<_, Value>(&self.id, etag, patch).await;
        self.heard(call, done).map(drop)
    }

    async fn reset(
        &self,
        purpose: RedfishPurpose,
        view: &SystemView,
        wanted: &[&'static str],
    ) -> Result<(), BmcFailure> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct ResetParams {
            reset_type: &'static str,
        }
        let target = view
            .reset_target()
            .map_err(|cannot| BmcFailure::NoAnswer { purpose, message: cannot.to_string() })?;
        let target = target.to_owned();
        let call = self.call(purpose, HttpMethod::Post, target.clone());
        let action = Action::<ResetParams, Value>::new(ActionTarget::new(target));
        let params = ResetParams { reset_type: view.reset_type(wanted) };
        let done = self.bmc.action(&action, &params).await;
        self.heard(call, done).map(drop)
    }

    fn call(&self, purpose: RedfishPurpose, method: HttpMethod, path: String) -> BmcCall {
        BmcCall { purpose, method, path }
    }

    fn heard<T>(&self, call: BmcCall, answer: Result<T, B::Error>) -> Result<T, BmcFailure> {
        let answer = answer.map_err(|error| failure(call.purpose, &error));
        (self.observer)(&call, answer.as_ref().err());
        answer
    }
}

fn stale_uri(view: &SystemView) -> bool {
    let uri = view.0.boot.as_ref().and_then(|boot| boot.http_boot_uri.as_ref());
    uri.and_then(Option::as_deref).is_some_and(|uri| !uri.is_empty())
}

fn failure(purpose: RedfishPurpose, error: &impl BmcError) -> BmcFailure {
    let BmcErrorClass::HttpResponse { status } = error.error_class() else {
        return BmcFailure::NoAnswer { purpose, message: chain(error) };
    };
    BmcFailure::Refused {
        purpose,
        status: http::StatusCode::from_u16(status).unwrap_or_default(),
        message: error.response_body().map(words_of).unwrap_or_default(),
    }
}

/// The messages of a Redfish error body (DSP0266 §8.6), or the body itself if it is something else, such as a web
/// page. At most 500 characters.
#[must_use]
pub fn words_of(body: &str) -> String {
    const MOST: usize = 500;
    let words = messages_of(body).unwrap_or_else(|| body.to_owned());
    words.chars().take(MOST).collect()
}

fn messages_of(body: &str) -> Option<String> {
    let json: Value = serde_json::from_str(body).ok()?;
    let extended = json["error"]["@Message.ExtendedInfo"].as_array();
    let messages: Vec<_> = extended
        .into_iter()
        .flatten()
        .filter_map(|info| info["Message"].as_str())
        .filter(|message| !message.is_empty())
        .collect();
    if messages.is_empty() {
        return Some(json["error"]["message"].as_str().unwrap_or_default().to_owned());
    }
    Some(messages.join("; "))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn colon(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::emulator::{EmulatedPower, Personality};
    use crate::in_memory::InMemoryBmc;

    const SYSTEM: &str = "/redfish/v1/Systems/1";
    const URL: &str = "http://10.0.0.1:8080/boot/x/boot.iso";

    fn nobody(_: &BmcCall, _: Option<&BmcFailure>) {}

    fn url_once() -> HttpBootOverride {
        HttpBootOverride::once(Some(URL.to_owned()))
    }

    fn dhcp_once() -> HttpBootOverride {
        HttpBootOverride::once(None)
    }

    async fn boot(bmc: &InMemoryBmc, wanted: &HttpBootOverride) -> Result<SystemView, BmcFailure> {
        let machine = RedfishSystem::new(bmc, SYSTEM, &nobody);
        let view = machine.look().await?;
        machine.override_boot(&view, wanted).await?;
        let view = machine.look().await?;
        machine.power_on(&view).await?;
        Ok(view)
    }

    #[tokio::test]
    async fn a_boot_from_a_url_is_set_read_back_and_started() {
        let bmc = InMemoryBmc::new(Personality::default());

        let view = boot(&bmc, &url_once()).await.unwrap();

        assert_eq!(view.has_override(&url_once()), Ok(()));
        assert_eq!(bmc.power(), EmulatedPower::On);
        assert_eq!(bmc.booted_from(), Some(URL.to_owned()));
    }

    #[tokio::test]
    async fn an_override_lasts_for_as_long_as_it_is_asked_to() {
        for (enabled, outlives_a_boot) in
            [(OverrideEnabled::Once, false), (OverrideEnabled::Continuous, true)]
        {
            let bmc = InMemoryBmc::new(Personality::default());
            let wanted = HttpBootOverride { enabled, ..url_once() };

            let view = boot(&bmc, &wanted).await.unwrap();

            assert_eq!(view.has_override(&wanted), Ok(()));
            let view = RedfishSystem::new(&bmc, SYSTEM, &nobody).look().await.unwrap();
            assert_eq!(view.has_override(&wanted).is_ok(), outlives_a_boot, "{enabled:?}");
        }
    }

    #[tokio::test]
    async fn a_refused_url_is_never_followed_by_a_reset() {
        let bmc = InMemoryBmc::new(Personality::default());

        let refused =
            boot(&bmc, &HttpBootOverride::once(Some("ftp://nope".to_owned()))).await.unwrap_err();

        assert!(
            refused.to_string().starts_with("BMC answered 400 Bad Request to the boot override: "),
            "{refused}"
        );
        assert_eq!(bmc.power(), EmulatedPower::Off);
    }

    #[tokio::test]
    async fn a_node_need_not_say_which_system_where_there_is_one() {
        let bmc = InMemoryBmc::new(Personality::default());

        assert_eq!(only_system(&bmc, &nobody).await.unwrap(), SYSTEM);
    }

    #[tokio::test]
    async fn the_override_is_cleared_with_its_url() {
        let bmc = InMemoryBmc::new(Personality::default());
        let machine = RedfishSystem::new(&bmc, SYSTEM, &nobody);
        let view = machine.look().await.unwrap();
        machine.override_boot(&view, &url_once()).await.unwrap();
        let view = machine.look().await.unwrap();
        assert!(view.is_overridden());

        machine.clear_override(&view).await.unwrap();

        assert!(!machine.look().await.unwrap().is_overridden());
    }

    #[tokio::test]
    async fn a_url_of_an_older_boot_does_not_outlive_a_switch_to_dhcp() {
        let bmc = InMemoryBmc::new(Personality::default());
        let machine = RedfishSystem::new(&bmc, SYSTEM, &nobody);
        let view = machine.look().await.unwrap();
        machine.override_boot(&view, &url_once()).await.unwrap();

        let view = machine.look().await.unwrap();
        machine.override_boot(&view, &dhcp_once()).await.unwrap();

        let view = machine.look().await.unwrap();
        machine.power_on(&view).await.unwrap();
        assert_eq!(bmc.booted_from(), None);
    }

    #[tokio::test]
    async fn what_cannot_http_boot_is_told_in_words() {
        let cases = [
            (Personality { bios_mode: true, ..Personality::default() }, "BIOS (legacy) mode"),
            (Personality { no_uefi_http: true, ..Personality::default() }, "UefiHttp is not among"),
            (Personality { no_http_boot_uri: true, ..Personality::default() }, "no HttpBootUri"),
            (Personality { no_targets: true, ..Personality::default() }, "does not say which"),
        ];
        for (personality, words) in cases {
            let bmc = InMemoryBmc::new(personality);
            let view = RedfishSystem::new(&bmc, SYSTEM, &nobody).look().await.unwrap();

            let cannot = view.validate(true).unwrap_err().to_string();

            assert!(cannot.contains(words), "{cannot}");
        }
    }

    #[tokio::test]
    async fn a_bmc_without_the_url_property_is_fine_where_dhcp_tells_the_url() {
        let bmc =
            InMemoryBmc::new(Personality { no_http_boot_uri: true, ..Personality::default() });
        let view = RedfishSystem::new(&bmc, SYSTEM, &nobody).look().await.unwrap();

        assert_eq!(view.validate(false), Ok(()));
    }

    #[tokio::test]
    async fn a_bmc_that_forgets_the_override_is_found_out() {
        let bmc =
            InMemoryBmc::new(Personality { forgets_override: true, ..Personality::default() });
        let machine = RedfishSystem::new(&bmc, SYSTEM, &nobody);
        let view = machine.look().await.unwrap();
        machine.override_boot(&view, &url_once()).await.unwrap();

        let lost = machine.look().await.unwrap().has_override(&url_once()).unwrap_err();

        assert_eq!(lost.property, "BootSourceOverrideTarget");
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_the_words_of_the_bmc() {
        let bmc =
            InMemoryBmc::new(Personality { refuses_override: true, ..Personality::default() });

        let refused = boot(&bmc, &url_once()).await.unwrap_err();

        assert_eq!(
            refused.to_string(),
            "BMC answered 400 Bad Request to the boot override: The requested boot override is not \
             supported on this system."
        );
    }

    #[tokio::test]
    async fn power_is_not_taken_for_changed_before_it_shows() {
        let slow = Personality { stale_power_looks: 2, ..Personality::default() };
        let bmc = InMemoryBmc::new(slow);
        let machine = RedfishSystem::new(&bmc, SYSTEM, &nobody);
        let view = machine.look().await.unwrap();
        machine.power_on(&view).await.unwrap();

        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(machine.look().await.unwrap().power());
        }

        assert_eq!(seen, [SystemPower::Off, SystemPower::Off, SystemPower::On]);
    }

    #[tokio::test]
    async fn power_between_on_and_off_is_neither() {
        for (shown, power) in [
            (json!("PoweringOn"), SystemPower::On),
            (json!("PoweringOff"), SystemPower::Changing),
            (json!("Paused"), SystemPower::Changing),
            (json!(null), SystemPower::Changing),
        ] {
            let bmc = InMemoryBmc::showing(json!({"@odata.id": SYSTEM, "PowerState": shown}));

            let view = RedfishSystem::new(&bmc, SYSTEM, &nobody).look().await.unwrap();

            assert_eq!(view.power(), power, "{shown}");
        }
    }

    #[tokio::test]
    async fn a_bmc_with_several_systems_is_not_guessed_about() {
        let link = |id: &str| json!({"@odata.id": format!("/redfish/v1/Systems/{id}")});
        let systems =
            json!({"@odata.id": "/redfish/v1/Systems", "Members": [link("1"), link("2")]});
        let bmc = InMemoryBmc::showing(systems);

        let several = only_system(&bmc, &nobody).await.unwrap_err();

        assert_eq!(
            several.to_string(),
            "the BMC has 2 systems: set redfish_system_id in driver_info to one of \
             /redfish/v1/Systems/1, /redfish/v1/Systems/2"
        );
    }

    #[test]
    fn a_web_page_in_place_of_an_error_is_cut_short() {
        let page = format!("<html>{}", "x".repeat(9_000));

        assert_eq!(words_of(&page).len(), 500);
    }

    /// JSON of any shape, from the names and values that the client looks for.
    fn json() -> impl Strategy<Value = Value> {
        let words = prop::sample::select(vec![
            "On", "Off", "UEFI", "Legacy", "UefiHttp", "Once", "Disabled", "", SYSTEM, URL,
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            words.prop_map(Value::from),
            ".{0,20}".prop_map(Value::from),
        ];
        let names = prop::sample::select(vec![
            "@odata.id",
            "@odata.etag",
            "PowerState",
            "Boot",
            "Actions",
            "Manufacturer",
            "Members",
            "#ComputerSystem.Reset",
            "target",
            "ResetType@Redfish.AllowableValues",
            "HttpBootUri",
            "BootSourceOverrideEnabled",
            "BootSourceOverrideEnabled@Redfish.AllowableValues",
            "BootSourceOverrideMode",
            "BootSourceOverrideTarget",
            "BootSourceOverrideTarget@Redfish.AllowableValues",
            "error",
            "message",
            "Message",
            "@Message.ExtendedInfo",
        ]);
        leaf.prop_recursive(4, 64, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(names.clone().prop_map(str::to_owned), inner, 0..12)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// A system of any shape.
    fn system() -> impl Strategy<Value = Value> {
        (json(), json(), json(), json()).prop_map(|(boot, actions, power, etag)| {
            json!({
                "@odata.id": SYSTEM, "@odata.etag": etag, "PowerState": power, "Boot": boot,
                "Actions": {"#ComputerSystem.Reset": actions},
            })
        })
    }

    async fn do_everything(bmc: &InMemoryBmc) {
        let _ = only_system(bmc, &nobody).await;
        let machine = RedfishSystem::new(bmc, SYSTEM, &nobody);
        let Ok(view) = machine.look().await else { return };
        let _ = (view.power(), view.validate(true), view.validate(false));
        let _ =
            (view.has_override(&url_once()), view.has_override(&dhcp_once()), view.is_overridden());
        let _ = machine.override_boot(&view, &url_once()).await;
        let _ = machine.override_boot(&view, &dhcp_once()).await;
        let _ = machine.clear_override(&view).await;
        let _ = machine.power_on(&view).await;
        let _ = machine.shut_down(&view).await;
        let _ = machine.power_off(&view).await;
    }

    proptest! {
        #[test]
        fn nothing_that_a_bmc_shows_makes_the_client_panic(shown in prop_oneof![json(), system()]) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(do_everything(&InMemoryBmc::showing(shown)));
        }

        #[test]
        fn no_error_body_makes_the_client_panic(json in json(), text in ".*") {
            let _ = words_of(&json.to_string());
            let _ = words_of(&text);
        }
    }

    #[tokio::test]
    async fn every_request_is_observed_with_what_became_of_it() {
        let bmc =
            InMemoryBmc::new(Personality { refuses_override: true, ..Personality::default() });
        let seen = Mutex::new(Vec::new());
        let observer = |call: &BmcCall, failure: Option<&BmcFailure>| {
            seen.lock().unwrap().push((call.purpose, failure.and_then(BmcFailure::status)));
        };
        let machine = RedfishSystem::new(&bmc, SYSTEM, &observer);

        let view = machine.look().await.unwrap();
        machine.override_boot(&view, &url_once()).await.unwrap_err();

        assert_eq!(
            seen.lock().unwrap()[..],
            [(RedfishPurpose::LookAtSystem, None), (RedfishPurpose::BootOverride, Some(400))]
        );
    }
}
