//! Kea, told by client classes in its configuration, over its control sockets.
//!
//! Its free hook libraries of Kea 2 have no command for a single class or host, so the configuration is
//! read, changed and set as a whole; boots that begin while that is done go into the next one together.

mod classes;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::{BoxFuture, FutureExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;
use uuid::Uuid;

use super::Provider;
use super::announcement::{Announcement, Family};
use crate::config;

/// Kea reads its leases anew when its configuration is set, which takes longer the more there are.
const PATIENCE: Duration = Duration::from_secs(30);

/// One or two servers, and the boots they are to know.
#[derive(Debug)]
pub struct Kea {
    servers: Vec<Server>,
    boots: Mutex<Boots>,
    /// Up to which change of the boots the servers know them. Held while they are told.
    told: tokio::sync::Mutex<u64>,
}

#[derive(Debug, Default)]
struct Boots {
    all: HashMap<Uuid, Announcement>,
    changes: u64,
}

/// One of Kea's servers.
#[derive(Debug)]
struct Server {
    family: Family,
    socket: PathBuf,
}

impl Kea {
    /// The servers that the settings name.
    #[must_use]
    pub fn new(settings: &config::Kea) -> Self {
        let server = |family, socket: &Option<PathBuf>| {
            socket.as_ref().map(|socket| Server { family, socket: socket.clone() })
        };
        let both = [server(Family::V4, &settings.socket4), server(Family::V6, &settings.socket6)];
        let servers = both.into_iter().flatten().collect();
        Self { servers, boots: Mutex::default(), told: tokio::sync::Mutex::default() }
    }

    async fn add(&self, told: &Announcement) -> Result<()> {
        self.expect_reachable(told)?;
        self.change(|all| drop(all.insert(told.node, told.clone()))).await
    }

    /// That machines can fetch what one of the servers tells them.
    fn expect_reachable(&self, told: &Announcement) -> Result<()> {
        let links = told.links()?;
        let mut tried = self.servers.iter().map(|server| links.expect(server.family));
        let first = tried.next().unwrap_or(Ok(()));
        first.or_else(|refused| if tried.any(|it| it.is_ok()) { Ok(()) } else { Err(refused) })
    }

    async fn change(&self, change: impl FnOnce(&mut HashMap<Uuid, Announcement>)) -> Result<()> {
        let number = {
            let mut boots = self.boots();
            change(&mut boots.all);
            boots.changes += 1;
            boots.changes
        };
        let mut told = self.told.lock().await;
        if *told >= number {
            return Ok(());
        }
        let (now, all) = {
            let boots = self.boots();
            (boots.changes, boots.all.values().cloned().collect::<Vec<_>>())
        };
        for server in &self.servers {
            server.tell(&all).await?;
        }
        *told = now;
        Ok(())
    }

    // A panic elsewhere cannot leave the map half-changed.
    fn boots(&self) -> MutexGuard<'_, Boots> {
        self.boots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Provider for Kea {
    fn announce<'a>(&'a self, told: &'a Announcement) -> BoxFuture<'a, Result<()>> {
        self.add(told).boxed()
    }

    fn withdraw<'a>(&'a self, told: &'a Announcement) -> BoxFuture<'a, Result<()>> {
        let over = |all: &mut HashMap<Uuid, Announcement>| {
            all.retain(|_, boot| boot.attempt != told.attempt);
        };
        self.change(over).boxed()
    }

    fn reconcile<'a>(&'a self, told: &'a [Announcement]) -> BoxFuture<'a, Result<()>> {
        let all = told.iter().map(|told| (told.node, told.clone())).collect();
        self.change(|boots| *boots = all).boxed()
    }
}

impl Server {
    async fn tell(&self, boots: &[Announcement]) -> Result<()> {
        let told = self.set_classes(classes::of(boots, self.family)).await;
        told.with_context(|| format!("Kea at {}", self.socket.display()))
    }

    async fn set_classes(&self, ours: Vec<Value>) -> Result<()> {
        let mut got = ask(&self.socket, &json!({"command": "config-get"})).await?;
        // What else is in the answer (a digest, in later versions) is none of the configuration.
        let name = match self.family {
            Family::V4 => "Dhcp4",
            Family::V6 => "Dhcp6",
        };
        let mut configuration = got["arguments"][name].take();
        ensure!(configuration.is_object(), "it gave no configuration of {name}");
        if !classes::replace(&mut configuration, ours) {
            return Ok(());
        }
        // A configuration that is refused when it is set can leave Kea without any.
        for command in ["config-test", "config-set"] {
            let arguments = json!({ name: configuration });
            ask(&self.socket, &json!({"command": command, "arguments": arguments})).await?;
        }
        Ok(())
    }
}

/// Sends a command and gives Kea's answer, which is a success.
async fn ask(socket: &Path, command: &Value) -> Result<Value> {
    let name = command["command"].as_str().unwrap_or_default();
    let exchange = timeout(PATIENCE, exchange(socket, command));
    let answer: Value =
        exchange.await.with_context(|| format!("no answer to {name} in {PATIENCE:?}"))??;
    let text = answer["text"].as_str().unwrap_or("no reason");
    ensure!(answer["result"] == 0, "{name} was refused: {text}");
    Ok(answer)
}

/// Kea closes the socket after its answer.
async fn exchange(socket: &Path, command: &Value) -> Result<Value> {
    let mut stream = UnixStream::connect(socket).await.context("cannot connect")?;
    stream.write_all(command.to_string().as_bytes()).await.context("cannot ask")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.context("cannot read its answer")?;
    serde_json::from_slice(&answer).context("its answer is no JSON")
}
