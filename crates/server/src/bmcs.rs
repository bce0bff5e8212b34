//! The way to the BMCs: nv-redfish's client over HTTP, each call recorded in the node's trace.

use std::fs;
use std::time::Duration;

use nv_redfish_bmc_http::reqwest::Client;
use nv_redfish_bmc_http::{BmcCredentials, CacheSettings, HttpBmc};
use provision::{Node, What};
use redfish::boot::{
    Call, CannotHttpBoot, Failure, Machine, NotOneSystem, Power, Sight, only_system,
};
use reqwest::redirect::Policy;
use reqwest::{Certificate, ClientBuilder};
use serde_json::Value;
use thiserror::Error;
use tokio::time::{Instant, sleep};
use tracing::debug;
use url::Url;

use crate::trace::Recorder;

/// A BMC that takes longer than this to take a connection is not there.
const CONNECT: Duration = Duration::from_secs(10);
/// Some take most of a minute to answer while their machine tests itself.
const ANSWER: Duration = Duration::from_secs(60);
/// Redfish has no way to await a change of power but to look again.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
const LOOKS: u32 = 3;
/// Some BMCs take a minute for a forced switch.
const POWER_FOLLOWS: Duration = Duration::from_secs(90);

/// The client of one node's BMC.
pub struct Bmc<'n> {
    http: HttpBmc<Client>,
    system: Option<&'n str>,
    observer: Box<Observer<'n>>,
}

type Observer<'n> = dyn Fn(&Call, Option<&Failure>) + Send + Sync + 'n;

/// A machine behind a [`Bmc`].
pub type BmcMachine<'a> = Machine<'a, HttpBmc<Client>>;

/// Why a BMC could not be used.
#[derive(Debug, Error)]
pub enum BmcError {
    /// The node's settings lack something or cannot be used.
    #[error("driver_info/{setting} {problem}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Which system of the BMC it is cannot be told.
    #[error(transparent)]
    System(#[from] NotOneSystem),
    /// It did not do what it was asked.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// It cannot do what is needed.
    #[error(transparent)]
    Cannot(#[from] CannotHttpBoot),
    /// The power does not follow.
    #[error(
        "the BMC took the reset, but {} s later the machine is still not {wanted}",
        POWER_FOLLOWS.as_secs()
    )]
    Power {
        /// `on` or `off`.
        wanted: &'static str,
    },
}

impl<'n> Bmc<'n> {
    /// The BMC of `node`, by its `redfish_*` settings. Nothing is sent yet.
    ///
    /// # Errors
    /// [`BmcError::Setting`]
    pub fn of(node: &'n Node, recorder: &'n Recorder) -> Result<Self, BmcError> {
        let text = |key| node.driver_text(key).unwrap_or_default().to_owned();
        let credentials = BmcCredentials::new(text("redfish_username"), text("redfish_password"));
        let client = client(node)?.build().map_err(|error| BmcError::Setting {
            setting: "redfish_verify_ca",
            problem: format!("cannot be used: {error}"),
        })?;
        let http = HttpBmc::new(
            Client::with_client(client),
            address(node)?,
            credentials,
            // What a BMC said before is not what it says now.
            CacheSettings::with_capacity(0),
        );
        let observer = Box::new(|call: &Call, failure: Option<&Failure>| {
            debug!(node.uuid = %node.uuid, call.method, call.path, ?failure, "called the BMC");
            // Before the first boot, and after the last, there is no trace to be part of.
            if node.live_attempt().is_some() {
                recorder.record(node, what(call, failure));
            }
        });
        Ok(Self { http, system: node.driver_text("redfish_system_id"), observer })
    }

    /// The machine behind it.
    ///
    /// # Errors
    /// [`BmcError::System`] where the node does not say which, and the BMC has not exactly one.
    pub async fn machine(&self) -> Result<BmcMachine<'_>, BmcError> {
        let system = match self.system {
            Some(system) => system.to_owned(),
            None => only_system(&self.http, &self.observer).await?,
        };
        Ok(Machine::new(&self.http, &system, &self.observer))
    }
}

/// Looks at a machine. A BMC that is busy or restarts is asked again, since looking harms nothing.
///
/// # Errors
/// [`BmcError::Failure`]
pub async fn look(machine: &BmcMachine<'_>) -> Result<Sight, BmcError> {
    for _ in 1..LOOKS {
        match machine.look().await {
            Err(failure) if matches!(failure.status(), None | Some(500..)) => {
                sleep(BETWEEN_LOOKS).await;
            }
            answer => return Ok(answer?),
        }
    }
    Ok(machine.look().await?)
}

/// Looks until the power is as it should be.
///
/// # Errors
/// [`BmcError::Power`] if it takes too long, [`BmcError::Failure`]
pub async fn await_power(machine: &BmcMachine<'_>, wanted: Power) -> Result<Sight, BmcError> {
    let until = Instant::now() + POWER_FOLLOWS;
    loop {
        let sight = look(machine).await?;
        if sight.power() == wanted {
            return Ok(sight);
        }
        if Instant::now() >= until {
            let wanted = if wanted == Power::Off { "off" } else { "on" };
            return Err(BmcError::Power { wanted });
        }
        sleep(BETWEEN_LOOKS).await;
    }
}

/// Asks the BMC of `node` whether it can boot the machine as the node is set to.
///
/// # Errors
/// Says what it lacks, or why it could not be asked.
pub async fn validate(node: &Node, recorder: &Recorder) -> Result<Sight, BmcError> {
    let bmc = Bmc::of(node, recorder)?;
    let sight = bmc.machine().await?.look().await?;
    sight.validate(node.boot_interface.http_boot_uri().is_some())?;
    Ok(sight)
}

/// Upstream takes a bare host and means https.
fn address(node: &Node) -> Result<Url, BmcError> {
    let wrong = |problem: &str| BmcError::Setting {
        setting: "redfish_address",
        problem: problem.to_owned(),
    };
    let text = node.driver_text("redfish_address").ok_or_else(|| wrong("is missing"))?;
    let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    Url::parse(&full).map_err(|error| wrong(&format!("is no URL: {error}")))
}

fn client(node: &Node) -> Result<ClientBuilder, BmcError> {
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .timeout(ANSWER)
        // A redirect would carry the password elsewhere, and a proxy has no business here.
        .redirect(Policy::none())
        .no_proxy()
        .user_agent(concat!("ferroboot/", env!("CARGO_PKG_VERSION")));
    match node.driver_info.get("redfish_verify_ca") {
        None | Some(Value::Bool(true)) => Ok(client),
        Some(Value::Bool(false)) => Ok(client.danger_accept_invalid_certs(true)),
        Some(Value::String(text)) => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => Ok(client),
            "false" | "no" | "0" => Ok(client.danger_accept_invalid_certs(true)),
            _ => trust(client, text),
        },
        Some(_) => Err(BmcError::Setting {
            setting: "redfish_verify_ca",
            problem: "must be true, false or the path of a PEM file".to_owned(),
        }),
    }
}

fn trust(client: ClientBuilder, path: &str) -> Result<ClientBuilder, BmcError> {
    let wrong = |problem: String| BmcError::Setting { setting: "redfish_verify_ca", problem };
    let pem = fs::read(path).map_err(|error| wrong(format!("cannot be read, {path}: {error}")))?;
    let certificates = Certificate::from_pem_bundle(&pem)
        .map_err(|error| wrong(format!("holds no certificates, {path}: {error}")))?;
    Ok(certificates.into_iter().fold(client, ClientBuilder::add_root_certificate))
}

fn what(call: &Call, failure: Option<&Failure>) -> What {
    What::Redfish {
        purpose: call.purpose.to_owned(),
        method: call.method.to_owned(),
        path: call.path.clone(),
        // The client says of a success only that it was one.
        status: failure.map_or(Some(200), Failure::status),
        error: failure.map(|failure| failure.message().to_owned()),
    }
}
