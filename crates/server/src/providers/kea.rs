//! Kea, told by client classes in its configuration, over its control sockets.
//!
//! Its free hook libraries of Kea 2 have no command for a single class or host, so the configuration is
//! read, changed and set as a whole; boots that begin while that is done go into the next one together.

mod classes;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::future::{BoxFuture, FutureExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;
use uuid::Uuid;

use super::Provider;
use super::announcement::Announcement;
use crate::config;
use crate::urls::Family;

/// Kea reads its leases anew when its configuration is set, which takes longer the more there are.
const PATIENCE: Duration = Duration::from_secs(30);

/// Kea says when it was configured in whole seconds, so two times that are nearer may be the same.
const BLURRED: Duration = Duration::from_secs(2);

/// One or two servers, and the boots they are to know.
#[derive(Debug)]
pub struct Kea {
    servers: Vec<Server>,
    boots: Mutex<Boots>,
    /// Up to which change of the boots the servers know them. Held while they are told.
    told: tokio::sync::Mutex<u64>,
}

#[derive(Clone, Debug, Default)]
struct Boots {
    /// Those that the servers are to know, by node.
    all: HashMap<Uuid, Announcement>,
    /// The attempts that they are to forget.
    over: HashSet<Uuid>,
    /// Whether they are to forget all others as well: another daemon's, unless those are among `all`.
    alone: bool,
    changes: u64,
}

/// One of Kea's servers.
#[derive(Debug)]
struct Server {
    family: Family,
    socket: PathBuf,
    /// When it was last configured, if it was seen to know its boots since.
    known_since: Mutex<Option<Instant>>,
}

impl Kea {
    /// The servers that the settings name.
    #[must_use]
    pub fn new(settings: &config::Kea) -> Self {
        let server = |family, socket: &Option<PathBuf>| -> Option<Server> {
            let socket = socket.clone()?;
            Some(Server { family, socket, known_since: Mutex::default() })
        };
        let both = [server(Family::V4, &settings.socket4), server(Family::V6, &settings.socket6)];
        let servers = both.into_iter().flatten().collect();
        Self { servers, boots: Mutex::default(), told: tokio::sync::Mutex::default() }
    }

    /// Whether the servers answer on their sockets.
    ///
    /// # Errors
    /// Names the socket that does not.
    pub async fn answers(&self) -> Result<String> {
        for server in &self.servers {
            server.configuration().await.with_context(|| {
                format!(
                    "Kea at {} does not answer as it should: is it running as {}, with that control-socket, \
                     and may this service write to it?",
                    server.socket.display(),
                    server.name()
                )
            })?;
        }
        let all: Vec<_> = self.servers.iter().map(|it| it.socket.display().to_string()).collect();
        Ok(format!("answers at {}", all.join(" and ")))
    }

    async fn add(&self, told: &Announcement) -> Result<()> {
        self.expect_reachable(told)?;
        self.change(|boots| {
            let before = boots.all.insert(told.node, told.clone());
            boots.over.extend(before.map(|before| before.attempt));
            boots.over.remove(&told.attempt);
        })
        .await
    }

    /// That machines can fetch what one of the servers tells them.
    fn expect_reachable(&self, told: &Announcement) -> Result<()> {
        let links = |server: &Server| told.links(server.family).map(drop);
        let mut tried = self.servers.iter().map(links);
        let first = tried.next().unwrap_or(Ok(()));
        first.or_else(|refused| if tried.any(|it| it.is_ok()) { Ok(()) } else { Err(refused) })
    }

    async fn change(&self, change: impl FnOnce(&mut Boots)) -> Result<()> {
        let number = {
            let mut boots = self.boots();
            change(&mut boots);
            boots.changes += 1;
            boots.changes
        };
        let mut told = self.told.lock().await;
        if *told >= number {
            return Ok(());
        }
        let now = self.boots().clone();
        for server in &self.servers {
            server.tell(&now).await?;
        }
        *told = now.changes;
        let mut boots = self.boots();
        boots.over.retain(|attempt| !now.over.contains(attempt));
        boots.alone &= !now.alone;
        Ok(())
    }

    async fn has_forgotten_some(&self) -> Result<bool> {
        let told = self.told.lock().await;
        let boots = self.boots().clone();
        // Whoever changed them is about to tell.
        if *told != boots.changes {
            return Ok(false);
        }
        for server in &self.servers {
            if server.has_forgotten(&boots).await? {
                return Ok(true);
            }
        }
        Ok(false)
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
        let over = |boots: &mut Boots| {
            boots.all.retain(|_, boot| boot.attempt != told.attempt);
            boots.over.insert(told.attempt);
        };
        self.change(over).boxed()
    }

    fn reconcile<'a>(
        &'a self,
        told: &'a [Announcement],
        _: &'a [Announcement],
    ) -> BoxFuture<'a, Result<()>> {
        let all = told.iter().map(|told| (told.node, told.clone())).collect();
        self.change(|boots| {
            boots.all = all;
            boots.alone = true;
        })
        .boxed()
    }

    fn has_forgotten<'a>(&'a self, _: &'a [Announcement]) -> BoxFuture<'a, Result<bool>> {
        self.has_forgotten_some().boxed()
    }
}

impl Boots {
    fn classes(&self, family: Family) -> Vec<Value> {
        let all: Vec<_> = self.all.values().cloned().collect();
        classes::of(&all, family)
    }

    /// Whether classes of an attempt are ours to replace.
    fn replaces(&self, attempt: Uuid) -> bool {
        self.alone
            || self.over.contains(&attempt)
            || self.all.values().any(|boot| boot.attempt == attempt)
    }
}

impl Server {
    async fn tell(&self, boots: &Boots) -> Result<()> {
        self.set_classes(boots).await.with_context(|| format!("Kea at {}", self.socket.display()))
    }

    async fn has_forgotten(&self, boots: &Boots) -> Result<bool> {
        let forgotten = self.looks_forgetful(boots).await;
        forgotten.with_context(|| format!("Kea at {}", self.socket.display()))
    }

    /// Its configuration is read only if it was set anew, since that may be long and Kea answers nobody
    /// meanwhile.
    async fn looks_forgetful(&self, boots: &Boots) -> Result<bool> {
        let status = ask(&self.socket, &json!({"command": "status-get"})).await?;
        let age = status["arguments"]["reload"].as_u64();
        let age = Duration::from_secs(age.context("it does not say when it was configured")?);
        let configured = Instant::now().checked_sub(age);
        let known_since = *self.known_since();
        if let (Some(known), Some(now)) = (known_since, configured)
            && now.saturating_duration_since(known) < BLURRED
        {
            return Ok(false);
        }
        let forgotten = classes::lacks(&self.configuration().await?, &boots.classes(self.family));
        // A younger one may still be taken for the next.
        let known_since = configured.filter(|_| !forgotten && age > BLURRED);
        *self.known_since() = known_since;
        Ok(forgotten)
    }

    async fn configuration(&self) -> Result<Value> {
        let mut got = ask(&self.socket, &json!({"command": "config-get"})).await?;
        // What else is in the answer (a digest, in later versions) is none of the configuration.
        let configuration = got["arguments"][self.name()].take();
        ensure!(configuration.is_object(), "it gave no configuration of {}", self.name());
        Ok(configuration)
    }

    async fn set_classes(&self, boots: &Boots) -> Result<()> {
        let mut configuration = self.configuration().await?;
        let ours = boots.classes(self.family);
        if !classes::replace(&mut configuration, ours, |attempt| boots.replaces(attempt)) {
            return Ok(());
        }
        // A configuration that is refused when it is set can leave Kea without any.
        for command in ["config-test", "config-set"] {
            let arguments = json!({ self.name(): configuration });
            ask(&self.socket, &json!({"command": command, "arguments": arguments})).await?;
        }
        Ok(())
    }

    fn name(&self) -> &'static str {
        match self.family {
            Family::V4 => "Dhcp4",
            Family::V6 => "Dhcp6",
        }
    }

    fn known_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.known_since.lock().unwrap_or_else(PoisonError::into_inner)
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
    stream.write_all(in_ascii(command).as_bytes()).await.context("cannot ask")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.context("cannot read its answer")?;
    serde_json::from_slice(&answer).context("its answer is no JSON")
}

/// Kea shows each byte of a text that is not ASCII as a character of its own (`\u00c3`), and takes it back
/// in that form alone: of the character itself it would take each byte of UTF-8 for one.
fn in_ascii(command: &Value) -> String {
    let text = command.to_string();
    let mut ascii = String::with_capacity(text.len());
    for character in text.chars() {
        match u8::try_from(character) {
            Ok(byte @ ..=0x7e) => ascii.push(byte.into()),
            Ok(byte) => ascii.push_str(&as_kea_shows(byte)),
            Err(_) => {
                let bytes = character.to_string().into_bytes();
                ascii.extend(bytes.into_iter().map(as_kea_shows));
            }
        }
    }
    ascii
}

fn as_kea_shows(byte: u8) -> String {
    format!("\\u{byte:04x}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use provision::BootInterface::Http;
    use tempfile::TempDir;
    use tokio::net::UnixListener;

    use super::*;

    /// A Kea with nothing but a configuration.
    struct Pretended {
        dir: TempDir,
        state: Arc<Mutex<State>>,
    }

    #[derive(Default)]
    struct State {
        configuration: Value,
        /// Seconds since it was configured.
        age: u64,
        asked: Vec<String>,
    }

    impl Pretended {
        fn start() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let listener = UnixListener::bind(dir.path().join("kea.sock")).unwrap();
            let state =
                Arc::new(Mutex::new(State { configuration: json!({}), ..State::default() }));
            let shared = Arc::clone(&state);
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    answer(stream, &shared).await;
                }
            });
            Self { dir, state }
        }

        fn daemon(&self) -> Kea {
            let socket4 = Some(self.dir.path().join("kea.sock"));
            Kea::new(&config::Kea { socket4, ..config::Kea::default() })
        }

        /// Its classes of ours.
        fn classes(&self) -> usize {
            let state = self.state.lock().unwrap();
            state.configuration["client-classes"].as_array().map_or(0, Vec::len)
        }

        fn set(&self, configuration: Value, age: u64) {
            let mut state = self.state.lock().unwrap();
            (state.configuration, state.age) = (configuration, age);
        }

        fn asked(&self) -> Vec<String> {
            std::mem::take(&mut self.state.lock().unwrap().asked)
        }
    }

    async fn answer(mut stream: UnixStream, state: &Mutex<State>) {
        let mut bytes = Vec::new();
        let request: Value = loop {
            stream.read_buf(&mut bytes).await.unwrap();
            // Byte by byte, as Kea reads.
            let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
            if let Ok(request) = serde_json::from_str(&text) {
                break request;
            }
        };
        let arguments = {
            let mut state = state.lock().unwrap();
            let command = request["command"].as_str().unwrap().to_owned();
            if command == "config-set" {
                state.configuration = request["arguments"]["Dhcp4"].clone();
                state.age = 0;
            }
            state.asked.push(command);
            json!({"Dhcp4": state.configuration, "reload": state.age})
        };
        let answer = json!({"result": 0, "arguments": arguments}).to_string();
        stream.write_all(answer.as_bytes()).await.unwrap();
    }

    #[tokio::test]
    async fn whether_it_can_be_told_is_known_before_a_machine_boots() {
        let server = Pretended::start();
        let there = server.daemon().answers().await;
        let socket4 = Some(server.dir.path().join("other.sock"));
        let gone = Kea::new(&config::Kea { socket4, ..config::Kea::default() }).answers().await;

        assert!(there.unwrap().starts_with("answers at "));
        assert_eq!(server.asked(), ["config-get"]);
        assert!(gone.unwrap_err().to_string().contains("is it running as Dhcp4"));
    }

    #[tokio::test]
    async fn daemons_that_share_a_server_leave_each_other_their_boots() {
        let server = Pretended::start();
        let [one, two] = [server.daemon(), server.daemon()];
        let first = Announcement::example(Http, "10.0.0.1");
        let other = first.next();

        one.announce(&first).await.unwrap();
        let of_one_boot = server.classes();
        two.announce(&other).await.unwrap();
        assert_eq!(server.classes(), 2 * of_one_boot);

        one.withdraw(&first).await.unwrap();
        assert_eq!(server.classes(), of_one_boot);
        assert!(!two.has_forgotten(&[]).await.unwrap());
        // As the store has it: nothing boots.
        one.reconcile(&[], &[]).await.unwrap();
        assert_eq!(server.classes(), 0);
        assert!(two.has_forgotten(&[]).await.unwrap());
    }

    #[tokio::test]
    async fn text_of_others_that_is_not_ascii_is_unchanged_after_any_number_of_tellings() {
        let server = Pretended::start();
        // As Kea shows `Zürich`.
        let comment = json!({"comment": "Z\u{c3}\u{bc}rich"});
        server.set(json!({"user-context": comment}), 60);
        let daemon = server.daemon();
        let told = Announcement::example(Http, "10.0.0.1");

        for _ in 0..2 {
            daemon.announce(&told).await.unwrap();
            daemon.withdraw(&told).await.unwrap();
        }

        let asked = server.asked();
        assert_eq!(asked.iter().filter(|command| *command == "config-set").count(), 4);
        assert_eq!(server.state.lock().unwrap().configuration["user-context"], comment);
        assert_eq!(
            in_ascii(&json!("Zürich, 東\u{7f}")),
            r#""Z\u00fcrich, \u00e6\u009d\u00b1\u007f""#
        );
    }

    #[tokio::test]
    async fn a_configuration_is_read_again_only_if_it_was_set_since_and_then_its_loss_is_seen() {
        let server = Pretended::start();
        let daemon = server.daemon();
        daemon.announce(&Announcement::example(Http, "10.0.0.1")).await.unwrap();
        let told = server.state.lock().unwrap().configuration.clone();
        assert_eq!(server.asked(), ["config-get", "config-test", "config-set"]);

        // So young that another one could have the same age.
        assert!(!daemon.has_forgotten(&[]).await.unwrap());
        assert_eq!(server.asked(), ["status-get", "config-get"]);
        server.set(told.clone(), 60);
        assert!(!daemon.has_forgotten(&[]).await.unwrap());
        assert_eq!(server.asked(), ["status-get", "config-get"]);
        assert!(!daemon.has_forgotten(&[]).await.unwrap());
        assert_eq!(server.asked(), ["status-get"]);

        server.set(json!({}), 1);
        assert!(daemon.has_forgotten(&[]).await.unwrap());
        daemon.reconcile(&[Announcement::example(Http, "10.0.0.1")], &[]).await.unwrap();
        assert!(!daemon.has_forgotten(&[]).await.unwrap());
        assert_eq!(server.state.lock().unwrap().configuration, told);
    }
}
