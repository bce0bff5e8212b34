//! The built `ferroboot serve` with separate ports and state, and clients for it.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use std::{env, fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// Number of tries with other ports: another process may take a chosen port.
const TRIES: u32 = 5;
/// Timeout for a log line; test hosts can be slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon that ends with this value.
pub(crate) struct Service {
    daemon: Child,
    api: String,
    dir: TempDir,
    log: DaemonLog,
    login: Option<(&'static str, &'static str)>,
    /// The CA that clients trust.
    authority: Option<PathBuf>,
}

/// The daemon's log so far; clones share it.
#[derive(Clone, Default)]
struct DaemonLog(Arc<(Mutex<Vec<String>>, Condvar)>);

impl DaemonLog {
    /// Waits for a line that contains a text; returns the line.
    fn await_line(&self, text: &str) -> String {
        let (lines, more) = &*self.0;
        let found = |lines: &Vec<String>| lines.iter().find(|line| line.contains(text)).cloned();
        let lines = lines.lock().unwrap();
        let waited = more.wait_timeout_while(lines, PATIENCE, |lines| found(lines).is_none());
        found(&waited.unwrap().0).unwrap_or_else(|| panic!("it never said {text:?}"))
    }

    fn add(&self, line: &str) {
        let (lines, more) = &*self.0;
        lines.lock().unwrap().push(line.to_owned());
        more.notify_all();
    }
}

impl Service {
    /// A daemon that is ready.
    pub(crate) fn start() -> Self {
        Self::start_with(|_, settings| settings)
    }

    /// A daemon whose API has a user `operator` with the password `s3:cret`.
    pub(crate) fn start_with_users() -> Self {
        let mut service = Self::start_with(|dir, settings| {
            let hash = bcrypt::hash("s3:cret", 4).unwrap();
            let path = dir.join("htpasswd");
            fs::write(&path, format!("operator:{hash}\n")).unwrap();
            settings.replace("[api]\n", &format!("[api]\nusers = {path:?}\n"))
        });
        service.login = Some(("operator", "s3:cret"));
        service
    }

    /// A daemon whose API has TLS with these further settings. Clients trust the CA that `ferroboot ca` prints.
    pub(crate) fn start_with_tls(more: &str) -> Self {
        let mut service = Self::start_with(|_, settings| {
            settings.replace("listen = \"127", "listen = \"https://127") + more
        });
        service.api = service.api.replace("http://", "https://");
        service.trust_printed_ca();
        service
    }

    /// Has clients trust what `ferroboot ca` prints.
    fn trust_printed_ca(&mut self) {
        let config = self.dir.path().join("ferroboot.toml");
        let printed = self.ferroboot(&["ca", "--config", config.to_str().unwrap()]);
        assert!(printed.status.success(), "{printed:?}");
        let path = self.dir.path().join("printed.pem");
        fs::write(&path, printed.stdout).unwrap();
        self.authority = Some(path);
    }

    /// A daemon with special settings.
    pub(crate) fn start_with(settings: impl Fn(&Path, String) -> String) -> Self {
        (0..TRIES)
            .find_map(|_| Self::try_start(&settings))
            .unwrap_or_else(|| panic!("the daemon did not start; it says why above"))
    }

    fn try_start(change: &impl Fn(&Path, String) -> String) -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let ports = free_ports();
        let config = dir.path().join("ferroboot.toml");
        fs::write(&config, change(dir.path(), settings(dir.path(), ports))).unwrap();
        let mut daemon = Command::new(env!("CARGO_BIN_EXE_ferroboot"))
            .args(["serve", "--config"])
            .arg(&config)
            .env("RUST_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = daemon.stderr.take().expect("it is piped");
        let (api, log) = (format!("http://127.0.0.1:{}", ports[0]), DaemonLog::default());
        let service = Self { daemon, api, dir, log: log.clone(), login: None, authority: None };
        is_ready(said, log).then_some(service)
    }

    /// The folder of its files.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Waits for a log line that contains a text; returns the line.
    pub(crate) fn said(&self, text: &str) -> String {
        self.log.await_line(text)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.daemon.id().try_into().unwrap()), signal).unwrap();
    }

    /// Runs the `ferroboot` command with the service's settings, like an operator.
    pub(crate) fn ferroboot(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferroboot"));
        self.environment(command.args(arguments)).output().unwrap()
    }

    /// Writes an image into the permitted folder; returns its URL.
    pub(crate) fn image(&self, name: &str, contents: &[u8]) -> String {
        let folder = self.dir.path().join("images");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), contents).unwrap();
        format!("file://{}", folder.join(name).display())
    }

    /// The JSON output of `baremetal`, which must succeed.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.does(&[arguments, &["-f", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text:?}"))
    }

    /// The output of `baremetal`, which must succeed.
    pub(crate) fn does(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stderr);
        assert!(output.status.success(), "baremetal {arguments:?} failed: {said}");
        text(&output.stdout)
    }

    /// Runs `baremetal`, whatever the result.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.environment(Command::new(client("baremetal")).args(arguments)).output().unwrap()
    }

    fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let (auth_type, user, password) = match self.login {
            None => ("none", "", ""),
            Some((user, password)) => ("http_basic", user, password),
        };
        // Without the environment of the test's user: no cloud, no proxy.
        command
            .env_clear()
            .envs(env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", self.dir.path())
            .env("OS_AUTH_TYPE", auth_type)
            .env("OS_USERNAME", user)
            .env("OS_PASSWORD", password)
            .env("OS_ENDPOINT", &self.api)
            .envs(self.authority.as_ref().map(|path| ("OS_CACERT", path)))
    }

    /// The value of an expression in openstacksdk, where `api` is its client for Ironic.
    pub(crate) fn openstacksdk(&self, expression: &str) -> String {
        let ca = self.authority.as_ref().expect("it trusts one");
        let program = format!(
            "import openstack\n\
             api = openstack.connect(auth_type='none', auth=dict(endpoint='{api}'), cacert={ca:?},\n\
             \x20   baremetal_endpoint_override='{api}', load_yaml_config=False, load_envvars=False).baremetal\n\
             print({expression})",
            api = self.api
        );
        let output =
            Command::new(client("python")).args(["-c", &program]).env_clear().output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Changes the CA that clients trust, or removes it.
    pub(crate) fn trust(&mut self, authority: Option<PathBuf>) {
        self.authority = authority;
    }

    /// Changes the clients' login, or removes it.
    pub(crate) fn log_in_as(&mut self, login: Option<(&'static str, &'static str)>) {
        self.login = login;
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself, and a failed test must not fail again here.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// A program, as installed by `scripts/python-venv`.
fn client(name: &str) -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/venv");
    let venv = env::var_os("FERROBOOT_VENV").map_or_else(own, PathBuf::from);
    let program = venv.join("bin").join(name);
    assert!(program.exists(), "there is no {}: run scripts/python-venv", program.display());
    program
}

/// Reads the daemon's log until it is ready or has ended; the rest is read in the background.
fn is_ready(said: ChildStderr, log: DaemonLog) -> bool {
    let mut lines = BufReader::new(said).lines().map_while(Result::ok).inspect(move |line| {
        eprintln!("{line}");
        log.add(line);
    });
    let ready = lines.any(|line| line.contains("ready: Ironic's API"));
    thread::spawn(move || lines.for_each(drop));
    ready
}

fn free_ports() -> [u16; 3] {
    // All sockets are held until all ports are chosen, so that none is chosen twice.
    let sockets = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    sockets.map(|socket| socket.local_addr().unwrap().port())
}

fn settings(dir: &Path, [api, agent, boot]: [u16; 3]) -> String {
    format!(
        "state_dir = {dir:?}\n\
         [api]\nlisten = \"127.0.0.1:{api}\"\n\
         [agent]\nlisten = \"127.0.0.1:{agent}\"\n\
         [boot]\nlisten = \"127.0.0.1:{boot}\"\nurl = \"http://127.0.0.1:{boot}\"\n"
    )
}
