//! Kea, configured through its control sockets. `netboot` computes the configuration.
//!
//! Boots that begin during a configuration are configured together in the next round.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, ensure};
use futures::future::{BoxFuture, FutureExt as _, join_all};
use jiff::SignedDuration;
use netboot::providers::announcement::Announcement;
use netboot::providers::kea::precedence::Obstacles;
use netboot::providers::kea::{
    KeaBoots, KeaKnowledge, KeaStatus, ServerOutcome, expect_announceable, in_ascii, warnings,
};
use netboot::providers::picture::Picture;
use netboot::urls::IpFamily;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::provider::{But, Provider};
use crate::settings::KeaConfig;

const PATIENCE: Patience =
    Patience { usual: Duration::from_secs(30), little: Duration::from_secs(3) };

/// Size limit of an answer in bytes: a configuration with 10,000 reservations has 3 MiB.
const LONGEST_ANSWER: u64 = 64 << 20;

/// One or two servers, and the boots to configure.
#[derive(Debug)]
pub struct Kea {
    servers: Vec<Server>,
    boots: Mutex<KeaBoots>,
    /// The result of the last configuration. Held while the servers are configured.
    last: tokio::sync::Mutex<KeaRound>,
}

/// The configuration of all servers.
#[derive(Clone, Debug, Default)]
struct KeaRound {
    number: u64,
    /// The number of the last included change.
    changes: u64,
    /// By server: obstacles to machines' answers, or the reason for a failure.
    outcomes: Vec<Result<Obstacles, String>>,
}

/// One of Kea's servers.
#[derive(Debug)]
struct Server {
    family: IpFamily,
    socket: PathBuf,
    patience: Patience,
    knowledge: Mutex<Knowledge>,
    /// When this was made, from which times are counted.
    began: Instant,
}

/// Timeouts of an answer.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Kea reads its leases again when its configuration is set, which takes longer with more leases.
    usual: Duration,
    /// For a server that did not answer the last time: boots wait for it.
    little: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Knowledge {
    kea: KeaKnowledge,
    /// Whether the server did not answer the last command.
    silent: bool,
}

impl Kea {
    /// The servers in the settings.
    #[must_use]
    pub fn new(settings: &KeaConfig) -> Self {
        let server = |family, socket: &Option<PathBuf>| -> Option<Server> {
            let socket = socket.clone()?;
            let (patience, knowledge, began) = (PATIENCE, Mutex::default(), Instant::now());
            Some(Server { family, socket, patience, knowledge, began })
        };
        let both =
            [server(IpFamily::V4, &settings.socket4), server(IpFamily::V6, &settings.socket6)];
        let servers = both.into_iter().flatten().collect();
        Self { servers, boots: Mutex::default(), last: tokio::sync::Mutex::default() }
    }

    /// Checks that the servers answer on their sockets.
    ///
    /// # Errors
    /// The socket that does not.
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

    async fn add(&self, told: &Announcement) -> Result<But> {
        expect_announceable(told, self.servers.iter().map(|server| server.family))?;
        let round = self.change(|boots| boots.add(told)).await;
        let outcomes = self.servers.iter().zip(round.outcomes).map(|(server, told)| {
            ServerOutcome { server: server.in_words(), family: server.family, told }
        });
        warnings(told, outcomes).map_err(Error::msg)
    }

    /// Configures a change in the servers, if it is one; or waits for the result if another task configures them
    /// after the change.
    async fn change(&self, change: impl FnOnce(&mut KeaBoots)) -> KeaRound {
        let begun = {
            let mut boots = self.boots();
            change(&mut boots);
            boots.rounds()
        };
        let mut last = self.last.lock().await;
        if last.number <= begun {
            *last = self.configure().await;
        }
        last.clone()
    }

    async fn configure(&self) -> KeaRound {
        let now = self.boots().begin_round();
        let outcomes = join_all(self.servers.iter().map(|server| server.configure(&now))).await;
        if outcomes.iter().all(Result::is_ok) {
            self.boots().end_round(&now);
        }
        let outcomes = outcomes.into_iter().map(|it| it.map_err(|failed| format!("{failed:#}")));
        KeaRound { number: now.rounds(), changes: now.changes(), outcomes: outcomes.collect() }
    }

    async fn has_forgotten_some(&self) -> Result<bool> {
        let last = self.last.lock().await;
        let boots = self.boots().clone();
        // Another task with a later change is about to configure them.
        if last.changes != boots.changes() {
            return Ok(false);
        }
        let asked = self.servers.iter().map(|server| server.has_forgotten(&boots));
        one_of(join_all(asked).await)
    }

    // A panic elsewhere cannot leave the map half-changed.
    fn boots(&self) -> MutexGuard<'_, KeaBoots> {
        self.boots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Provider for Kea {
    fn announce<'a>(&'a self, told: &'a Announcement) -> BoxFuture<'a, Result<But>> {
        self.add(told).boxed()
    }

    /// All classes of a boot are replaced at once.
    fn amend<'a>(
        &'a self,
        _: &'a Announcement,
        now: &'a Announcement,
    ) -> BoxFuture<'a, Result<But>> {
        self.add(now).boxed()
    }

    fn withdraw<'a>(&'a self, told: &'a Announcement) -> BoxFuture<'a, Result<()>> {
        self.change(|boots| boots.withdraw(told.attempt)).map(KeaRound::in_full).boxed()
    }

    fn reconcile<'a>(&'a self, picture: &'a Picture) -> BoxFuture<'a, Result<()>> {
        self.change(|boots| boots.set_all(&picture.told)).map(KeaRound::in_full).boxed()
    }

    fn has_forgotten<'a>(&'a self, _: &'a [Announcement]) -> BoxFuture<'a, Result<bool>> {
        self.has_forgotten_some().boxed()
    }
}

impl KeaRound {
    /// Succeeds if every server has the configuration.
    fn in_full(self) -> Result<()> {
        let failed: Vec<_> = self.outcomes.into_iter().filter_map(Result::err).collect();
        ensure!(failed.is_empty(), failed.join("; "));
        Ok(())
    }
}

impl Server {
    async fn configure(&self, boots: &KeaBoots) -> Result<Obstacles> {
        let told = self.set_classes(boots).await.with_context(|| self.in_words())?;
        self.knowledge().kea.changes = boots.changes();
        Ok(told)
    }

    async fn has_forgotten(&self, boots: &KeaBoots) -> Result<bool> {
        self.looks_forgetful(boots).await.with_context(|| self.in_words())
    }

    /// The configuration is read only if it was set again: it may be long, and Kea answers no client meanwhile.
    async fn looks_forgetful(&self, boots: &KeaBoots) -> Result<bool> {
        let status =
            self.ask_within(self.patience.little, &json!({"command": "status-get"})).await?;
        let now = SignedDuration::try_from(self.began.elapsed()).context("it runs for too long")?;
        let known = self.knowledge().kea;
        match known.status(boots, &status["arguments"], now)? {
            KeaStatus::Outdated => Ok(true),
            KeaStatus::AsBefore => Ok(false),
            KeaStatus::Configured { at, age } => {
                let has_forgotten = boots.are_lacking_in(&self.configuration().await?, self.family);
                self.knowledge().kea.note_configuration(at, age, has_forgotten);
                Ok(has_forgotten)
            }
        }
    }

    async fn configuration(&self) -> Result<Value> {
        let mut got = self.ask(&json!({"command": "config-get"})).await?;
        // Other parts of the answer (a digest, in later versions) do not belong to the configuration.
        let configuration = got["arguments"][self.name()].take();
        ensure!(configuration.is_object(), "it gave no configuration of {}", self.name());
        Ok(configuration)
    }

    async fn set_classes(&self, boots: &KeaBoots) -> Result<Obstacles> {
        let told = self.knowledge().kea.changes;
        if told == boots.changes() {
            return Ok(Obstacles::default());
        }
        let mut configuration = self.configuration().await?;
        let changed = boots.configure(&mut configuration, self.family, told)?;
        if !changed.is_changed {
            return Ok(changed.obstacles);
        }
        // A configuration that fails when set can leave Kea without any.
        for command in ["config-test", "config-set"] {
            let arguments = json!({ self.name(): configuration });
            self.ask(&json!({"command": command, "arguments": arguments})).await?;
        }
        Ok(changed.obstacles)
    }

    async fn ask(&self, command: &Value) -> Result<Value> {
        let Patience { usual, little } = self.patience;
        let silent = self.knowledge().silent;
        self.ask_within(if silent { little } else { usual }, command).await
    }

    /// Sends a command, and returns Kea's successful answer.
    async fn ask_within(&self, patience: Duration, command: &Value) -> Result<Value> {
        let name = command["command"].as_str().unwrap_or_default();
        let exchanged = timeout(patience, exchange(&self.socket, command)).await;
        self.knowledge().silent = exchanged.is_err();
        let answer =
            exchanged.with_context(|| format!("no answer to {name} in {patience:?}"))??;
        let text = answer["text"].as_str().unwrap_or("no reason");
        ensure!(answer["result"] == 0, "{name} was refused: {text}");
        Ok(answer)
    }

    fn in_words(&self) -> String {
        format!("Kea at {}", self.socket.display())
    }

    fn name(&self) -> &'static str {
        match self.family {
            IpFamily::V4 => "Dhcp4",
            IpFamily::V6 => "Dhcp6",
        }
    }

    // A panic elsewhere cannot leave it half-changed.
    fn knowledge(&self) -> MutexGuard<'_, Knowledge> {
        self.knowledge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether one is true; if none is, the first error comes first.
fn one_of(all: Vec<Result<bool>>) -> Result<bool> {
    if all.iter().any(|one| matches!(one, Ok(true))) {
        return Ok(true);
    }
    all.into_iter().try_for_each(|one| one.map(drop)).map(|()| false)
}

/// Kea closes the socket after its answer.
async fn exchange(socket: &Path, command: &Value) -> Result<Value> {
    let mut stream = UnixStream::connect(socket).await.context("cannot connect")?;
    stream.write_all(in_ascii(command).as_bytes()).await.context("cannot ask")?;
    let mut answer = Vec::new();
    let read = stream.take(LONGEST_ANSWER + 1).read_to_end(&mut answer).await;
    read.context("cannot read its answer")?;
    ensure!(
        answer.len() as u64 <= LONGEST_ANSWER,
        "its answer has more than {LONGEST_ANSWER} bytes"
    );
    serde_json::from_slice(&answer).context("its answer is not JSON")
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;

    use netboot::providers::test_announcements::{announcement, next_boot, plain_port};
    use provision::BootInterface::Http;
    use tempfile::TempDir;
    use tokio::net::UnixListener;

    use super::*;

    /// A fake Kea with only a configuration.
    struct Pretended {
        dir: TempDir,
        state: Arc<Mutex<State>>,
    }

    #[derive(Default)]
    struct State {
        configuration: Value,
        /// Seconds since its configuration.
        age: u64,
        asked: Vec<String>,
        hangs: bool,
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
                    let shared = Arc::clone(&shared);
                    tokio::spawn(async move { answer(stream, &shared).await });
                }
            });
            Self { dir, state }
        }

        fn socket(&self) -> PathBuf {
            self.dir.path().join("kea.sock")
        }

        fn daemon(&self) -> Kea {
            let socket4 = Some(self.socket());
            Kea::new(&KeaConfig { socket4, ..KeaConfig::default() })
        }

        /// Whether it accepts commands but does not answer.
        fn hang(&self, hangs: bool) {
            self.state.lock().unwrap().hangs = hangs;
        }

        /// Its classes of this service.
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
            // Byte by byte, like Kea.
            let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
            if let Ok(request) = serde_json::from_str(&text) {
                break request;
            }
        };
        let arguments = {
            let mut state = state.lock().unwrap();
            let command = request["command"].as_str().unwrap().to_owned();
            state.asked.push(command.clone());
            (!state.hangs).then(|| {
                if command == "config-set" {
                    let [four, six] = ["Dhcp4", "Dhcp6"].map(|name| &request["arguments"][name]);
                    state.configuration = if four.is_null() { six } else { four }.clone();
                    state.age = 0;
                }
                let configuration = &state.configuration;
                json!({"Dhcp4": configuration, "Dhcp6": configuration, "reload": state.age})
            })
        };
        let Some(arguments) = arguments else { return pending().await };
        let answer = json!({"result": 0, "arguments": arguments}).to_string();
        stream.write_all(answer.as_bytes()).await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_without_end_is_left_at_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("kea.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            while stream.write_all(&[b'['; 1 << 20]).await.is_ok() {}
        });

        let refused = exchange(&socket, &json!({"command": "config-get"})).await.unwrap_err();

        assert_eq!(refused.to_string(), "its answer has more than 67108864 bytes");
    }

    #[tokio::test]
    async fn whether_it_can_be_told_is_known_before_a_machine_boots() {
        let server = Pretended::start();
        let there = server.daemon().answers().await;
        let socket4 = Some(server.dir.path().join("other.sock"));
        let gone = Kea::new(&KeaConfig { socket4, ..KeaConfig::default() }).answers().await;

        assert!(there.unwrap().starts_with("answers at "));
        assert_eq!(server.asked(), ["config-get"]);
        assert!(gone.unwrap_err().to_string().contains("is it running as Dhcp4"));
    }

    #[tokio::test]
    async fn daemons_that_share_a_server_leave_each_other_their_boots() {
        let server = Pretended::start();
        let [one, two] = [server.daemon(), server.daemon()];
        let first = announcement(Http, "10.0.0.1");
        let other = next_boot(&first);

        one.announce(&first).await.unwrap();
        let of_one_boot = server.classes();
        two.announce(&other).await.unwrap();
        assert_eq!(server.classes(), 2 * of_one_boot);

        one.withdraw(&first).await.unwrap();
        assert_eq!(server.classes(), of_one_boot);
        assert!(!two.has_forgotten(&[]).await.unwrap());
        // In the store, nothing boots.
        one.reconcile(&Picture::default()).await.unwrap();
        assert_eq!(server.classes(), 0);
        assert!(two.has_forgotten(&[]).await.unwrap());
    }

    #[tokio::test]
    async fn boots_that_wait_for_a_server_that_hangs_fail_together_and_the_next_ones_soon() {
        let server = Pretended::start();
        let mut daemon = server.daemon();
        let [usual, little] = [200, 20].map(Duration::from_millis);
        daemon.servers[0].patience = Patience { usual, little };
        server.hang(true);
        let boots = (0..20).scan(announcement(Http, "10.0.0.1"), |boot, _| {
            *boot = next_boot(boot);
            Some(boot.clone())
        });
        let boots: Vec<_> = boots.collect();
        let began = Instant::now();

        let told = join_all(boots.iter().map(|boot| daemon.announce(boot))).await;

        assert!(told.iter().all(Result::is_err));
        daemon.withdraw(&boots[0]).await.unwrap_err();
        // Separately, they would have waited twenty times.
        assert!(began.elapsed() < 10 * usual, "{:?}", began.elapsed());
        assert_eq!(server.asked().len(), 3);
        server.hang(false);
        daemon.withdraw(&boots[1]).await.unwrap();
    }

    #[tokio::test]
    async fn a_dead_server_keeps_no_machine_from_booting_by_the_other_and_is_told_when_it_is_back()
    {
        let [four, six] = [Pretended::start(), Pretended::start()];
        let daemon =
            Kea::new(&KeaConfig { socket4: Some(four.socket()), socket6: Some(six.socket()) });
        let away = six.dir.path().join("away");
        std::fs::rename(six.socket(), &away).unwrap();
        let both = announcement(Http, "boot.example");
        let by_ipv6_alone = announcement(Http, "[fd00::1]");

        let but = daemon.announce(&both).await.unwrap();
        assert!(
            but.len() == 1
                && but[0].ends_with("cannot connect: No such file or directory (os error 2)")
        );
        assert!(daemon.has_forgotten(&[]).await.is_err());
        let over = daemon.withdraw(&both).await.unwrap_err().to_string();
        assert!(over.contains(six.socket().to_str().unwrap()), "{over}");
        assert_eq!(four.classes(), 0);
        daemon.announce(&by_ipv6_alone).await.unwrap_err();

        std::fs::rename(away, six.socket()).unwrap();
        assert!(daemon.has_forgotten(&[]).await.unwrap());
        let told = vec![both];
        daemon.reconcile(&Picture { told, ..Picture::default() }).await.unwrap();
        assert!(six.classes() > 0);
        assert!(!daemon.has_forgotten(&[]).await.unwrap());
    }

    #[tokio::test]
    async fn a_server_that_would_forget_its_leases_or_send_something_else_is_not_used() {
        let server = Pretended::start();
        let daemon = server.daemon();
        let told = announcement(Http, "10.0.0.1");
        let refused = async || format!("{:#}", daemon.announce(&told).await.unwrap_err());

        server.set(json!({"lease-database": {"type": "memfile", "persist": false}}), 60);
        let refusal = refused().await;
        assert!(refusal.ends_with("set persist to true in its lease-database"), "{refusal}");
        assert!(!server.asked().contains(&"config-set".to_owned()));

        let own = json!([{"code": 67, "data": "legacy.efi"}]);
        server.set(json!({"subnet4": [{"subnet": "10.0.0.0/24", "option-data": own}]}), 60);
        let refusal = refused().await;
        assert!(refusal.contains("the option-data of the subnet 10.0.0.0/24"), "{refusal}");
    }

    #[tokio::test]
    async fn a_boot_whose_ports_have_changed_is_told_in_place_of_what_it_was() {
        let server = Pretended::start();
        let daemon = server.daemon();
        let before = announcement(Http, "10.0.0.1");
        let mut now = before.clone();
        now.ports = vec![plain_port(2)];
        daemon.announce(&before).await.unwrap();
        let classes = server.classes();

        daemon.amend(&before, &now).await.unwrap();

        assert_eq!(server.classes(), classes);
        let state = server.state.lock().unwrap();
        let name = state.configuration["client-classes"][0]["name"].as_str().unwrap();
        assert!(name.contains("52-54-00-00-00-02"), "{name}");
    }

    #[tokio::test]
    async fn a_url_that_no_dhcpv4_client_could_be_told_is_refused() {
        let daemon = Kea::new(&KeaConfig { socket4: Some("/none".into()), socket6: None });
        let told = announcement(Http, &format!("{}.example", "x".repeat(230)));

        let refused = daemon.announce(&told).await.unwrap_err().to_string();

        assert!(refused.contains("firmware takes 254 at most over IPv4"), "{refused}");
    }

    #[tokio::test]
    async fn text_of_others_that_is_not_ascii_is_unchanged_after_any_number_of_tellings() {
        let server = Pretended::start();
        // As Kea shows `Zürich`.
        let comment = json!({"comment": "Z\u{c3}\u{bc}rich"});
        server.set(json!({"user-context": comment}), 60);
        let daemon = server.daemon();
        let told = announcement(Http, "10.0.0.1");

        for _ in 0..2 {
            daemon.announce(&told).await.unwrap();
            daemon.withdraw(&told).await.unwrap();
        }

        let asked = server.asked();
        assert_eq!(asked.iter().filter(|command| *command == "config-set").count(), 4);
        assert_eq!(server.state.lock().unwrap().configuration["user-context"], comment);
    }

    #[tokio::test]
    async fn a_configuration_is_read_again_only_if_it_was_set_since_and_then_its_loss_is_seen() {
        let server = Pretended::start();
        let daemon = server.daemon();
        daemon.announce(&announcement(Http, "10.0.0.1")).await.unwrap();
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
        let boots = vec![announcement(Http, "10.0.0.1")];
        daemon.reconcile(&Picture { told: boots, ..Picture::default() }).await.unwrap();
        assert!(!daemon.has_forgotten(&[]).await.unwrap());
        assert_eq!(server.state.lock().unwrap().configuration, told);
    }
}
