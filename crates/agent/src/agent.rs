//! The agent's life once it has a network: look up the node, serve commands, send heartbeats.

use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hardware::Mac;
use http::StatusCode;
use ironic::agent::{HeartbeatBody, Lookup, MIN_TOKEN_LEN, VERIFY_CA_MINOR};
use ironic::field::MASKED;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};
use url::Host;
use uuid::Uuid;

use crate::api::{CallError, Greeting, IronicClient};
use crate::channel::CommandChannel;
use crate::clock;
use crate::cmdline::AgentOptions;
use crate::effects::CommandEffects;
use crate::identity::{Certificate, Keeper};
use crate::listen::{self, CommandServer};
use crate::network::{ConfiguredNetwork, kernel};

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The inputs of an agent.
#[derive(Debug)]
pub struct RamdiskAgent {
    /// Its settings from the command line.
    pub options: AgentOptions,
    /// The source of the machine's MAC addresses. Read at every try, since a card may appear late.
    pub addresses: HardwareAddresses,
    /// The storage of tokens and keys.
    pub keeper: Keeper,
    /// CA certificates (PEM) for Ironic's API, besides the public ones. May be empty.
    pub authorities: Vec<u8>,
    /// Executes commands.
    pub effects: CommandEffects,
    /// Whether the agent may set the system clock.
    pub sets_clock: bool,
}

/// The source of MAC addresses.
#[derive(Debug, Clone)]
pub enum HardwareAddresses {
    /// All network cards of the machine.
    Cards,
    /// These, whatever cards exist.
    Named(Vec<Mac>),
}

impl HardwareAddresses {
    async fn all(&self) -> Vec<Mac> {
        match self {
            Self::Cards => kernel::addresses_of_cards().await,
            Self::Named(addresses) => addresses.clone(),
        }
    }
}

impl RamdiskAgent {
    /// Serves the node on a network, which is kept configured meanwhile.
    ///
    /// # Errors
    ///
    /// The errors of [`RamdiskAgent::run`], and a change of the network.
    pub async fn run_on(self, network: ConfiguredNetwork) -> Result<Infallible> {
        tokio::select! {
            never = self.run(network.address) => never,
            lost = network.keep() => lost.context("keeping the network"),
        }
    }

    /// Serves the node until a command switches the machine off. `address` is the agent's, on the link that leads to
    /// Ironic.
    ///
    /// # Errors
    ///
    /// No node was found in time, or there is no token for it.
    pub async fn run(self, address: IpAddr) -> Result<Infallible> {
        let api = IronicClient::new(self.options.api()?, &self.options, &self.authorities)
            .context("setting up HTTPS")?;

        let greeting = self.greet(&api).await?;
        let lookup = self.lookup(&api, greeting.minor).await?;
        let node = lookup.node.uuid;
        info!("this is node {node}");
        let token = self.token(&lookup)?;

        let certificate = self.keeper.certificate(self.advertised(address))?;
        let mut heartbeat = self.heartbeat(address, &certificate, &token, greeting.minor);
        let interval = Duration::from_secs(lookup.config.heartbeat_timeout.max(1).into());
        let accepted = Notify::new();
        if lookup.config.ferroboot_channel.is_some() {
            let key = self.keeper.channel_key()?;
            heartbeat.ferroboot_channel_key = Some(key.clone());
            info!("commands are fetched: port {} stays closed", self.options.listen_port);
            let channel = CommandChannel::new(api.clone(), node, key, self.effects.clone());
            let channel = async {
                // The service knows the key from the first heartbeat on.
                accepted.notified().await;
                channel.run().await
            };
            return tokio::select! {
                never = channel => match never {},
                never = self.heartbeats(&api, node, &heartbeat, greeting.minor, interval, &accepted) => never,
            };
        }
        let tls = TlsAcceptor::from(certificate.tls()?);
        let listener = listen::bind(self.options.listen_port)
            .await
            .with_context(|| format!("opening port {}", self.options.listen_port))?;
        info!("commands are taken at {}", heartbeat.callback_url);

        let effects = self.effects.clone();
        let served = CommandServer { effects, token: token.into(), started: Timestamp::now() };
        tokio::select! {
            ended = listen::serve(listener, tls, served) => {
                ended.context("serving commands")?;
                bail!("the command API ended");
            }
            never = self.heartbeats(&api, node, &heartbeat, greeting.minor, interval, &accepted) => never,
        }
    }

    async fn greet(&self, api: &IronicClient) -> Result<Greeting> {
        let greeting = self.persist("no word from Ironic", || api.greet()).await?;
        if self.sets_clock
            && let Some(now) = greeting.now
        {
            clock::set_if_far_off(now, "Ironic's API");
        }
        Ok(greeting)
    }

    async fn lookup(&self, api: &IronicClient, minor: u16) -> Result<Lookup> {
        let lookup = async || {
            let addresses = self.addresses.all().await;
            let words: Vec<_> = addresses.iter().map(Mac::to_string).collect();
            info!("looking for the node with {}", words.join(", "));
            api.lookup(&addresses, self.options.node, minor).await
        };
        self.persist("no node that expects an agent", lookup).await
    }

    /// Retries until success or until `ipa-lookup-timeout`, with growing pauses.
    async fn persist<T>(
        &self,
        what: &str,
        call: impl AsyncFn() -> Result<T, CallError>,
    ) -> Result<T> {
        let deadline = Instant::now() + self.options.lookup_timeout;
        let mut pause = self.options.lookup_interval;
        loop {
            match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) if Instant::now() + pause > deadline => {
                    let waited = self.options.lookup_timeout.as_secs();
                    return Err(error).with_context(|| format!("{what}: gave up after {waited} s"));
                }
                Err(error) => {
                    warn!(
                        "{what}: {:#}; again in {} s",
                        anyhow::Error::new(error),
                        pause.as_secs()
                    );
                }
            }
            sleep(pause).await;
            pause = (pause * 2).clamp(Duration::from_millis(100), LONGEST_PAUSE);
        }
    }

    /// The command line's token, otherwise the one from this lookup or an earlier one.
    fn token(&self, lookup: &Lookup) -> Result<String> {
        if let Some(token) = &self.options.token {
            return Ok(token.clone());
        }
        let handed_out = lookup.config.agent_token.as_ref();
        if let Some(token) = handed_out.filter(|it| *it != MASKED && it.len() >= MIN_TOKEN_LEN) {
            self.keeper.keep_token(token)?;
            return Ok(token.clone());
        }
        self.keeper.token().context(
            "Ironic handed out this node's token before, and this agent does not have it: \
             another one may be running under the same address",
        )
    }

    fn advertised(&self, address: IpAddr) -> IpAddr {
        match &self.options.advertise_host {
            Some(Host::Ipv4(host)) => IpAddr::V4(*host),
            Some(Host::Ipv6(host)) => IpAddr::V6(*host),
            Some(Host::Domain(_)) | None => address,
        }
    }

    fn heartbeat(
        &self,
        address: IpAddr,
        certificate: &Certificate,
        token: &str,
        minor: u16,
    ) -> HeartbeatBody {
        let host = match (&self.options.advertise_host, address) {
            (Some(host), _) => host.clone(),
            (None, IpAddr::V4(address)) => Host::Ipv4(address),
            (None, IpAddr::V6(address)) => Host::Ipv6(address),
        };
        let port = self.options.advertise_port.unwrap_or(self.options.listen_port);
        HeartbeatBody {
            callback_url: format!("https://{host}:{port}"),
            agent_token: Some(token.to_owned()),
            agent_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            agent_verify_ca: (minor >= VERIFY_CA_MINOR).then(|| certificate.pem.clone()),
            ..HeartbeatBody::default()
        }
    }

    async fn heartbeats(
        &self,
        api: &IronicClient,
        node: Uuid,
        heartbeat: &HeartbeatBody,
        minor: u16,
        timeout: Duration,
        accepted: &Notify,
    ) -> Result<Infallible> {
        let mut failures = 0;
        let mut first = true;
        loop {
            let pause = match api.heartbeat(node, heartbeat, minor).await {
                Ok(()) => {
                    accepted.notify_one();
                    if first || failures > 0 {
                        info!("the first heartbeat was accepted");
                    }
                    (first, failures) = (false, 0);
                    timeout.mul_f64(rand::random_range(0.3..0.6))
                }
                Err(CallError::Refused { status: StatusCode::CONFLICT, .. }) => {
                    debug!("the node is locked: the heartbeat comes again soon");
                    Duration::from_secs_f64(rand::random_range(1.0..3.0))
                }
                Err(error) => {
                    failures += 1;
                    let pause = retry_pause(failures);
                    let seconds = pause.as_secs();
                    warn!("no heartbeat: {:#}; again in {seconds} s", anyhow::Error::new(error));
                    pause
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.effects.ended.notified() => {}
            }
        }
    }
}

/// 1, 2, 4, … seconds.
fn retry_pause(failures: u32) -> Duration {
    let doubled = Duration::from_secs(1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(0));
    if doubled.is_zero() { LONGEST_PAUSE } else { doubled.min(LONGEST_PAUSE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let pauses: Vec<_> = [1, 2, 3, 6, 64, u32::MAX].map(|it| retry_pause(it).as_secs()).into();
        assert_eq!(pauses, [1, 2, 4, 30, 30, 30]);
    }
}
