//! The built `ferroboot serve` on ports and with a state of its own, and clients pointed at it.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::{env, fs, thread};

use serde_json::Value;
use tempfile::TempDir;

/// How often other ports are tried: between choice and use somebody else may take one.
const TRIES: u32 = 5;

/// A daemon that ends with it.
pub(crate) struct Service {
    daemon: Child,
    api: String,
    dir: TempDir,
}

impl Service {
    /// One that has said that it is ready.
    pub(crate) fn start() -> Self {
        (0..TRIES)
            .find_map(|_| Self::try_start())
            .unwrap_or_else(|| panic!("the daemon did not start; it says why above"))
    }

    fn try_start() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let ports = free_ports();
        let config = dir.path().join("ferroboot.toml");
        fs::write(&config, settings(dir.path(), ports)).unwrap();
        let mut daemon = Command::new(env!("CARGO_BIN_EXE_ferroboot"))
            .args(["serve", "--config"])
            .arg(&config)
            .env("RUST_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = daemon.stderr.take().expect("it is piped");
        let service = Self { daemon, api: format!("http://127.0.0.1:{}", ports[0]), dir };
        is_ready(log).then_some(service)
    }

    /// Puts a file where nodes may have their images, and gives its URL.
    pub(crate) fn image(&self, name: &str, contents: &[u8]) -> String {
        let folder = self.dir.path().join("images");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), contents).unwrap();
        format!("file://{}", folder.join(name).display())
    }

    /// What `baremetal` prints as JSON; it must succeed.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.does(&[arguments, &["-f", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text:?}"))
    }

    /// What `baremetal` prints; it must succeed.
    pub(crate) fn does(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stderr);
        assert!(output.status.success(), "baremetal {arguments:?} failed: {said}");
        text(&output.stdout)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(client())
            .args(arguments)
            // Nothing of whoever runs the tests: no cloud, no proxy.
            .env_clear()
            .envs(env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", self.dir.path())
            .env("OS_AUTH_TYPE", "none")
            .env("OS_ENDPOINT", &self.api)
            .output()
            .unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself; and a test that failed must not fail again here.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// The command, as `scripts/python-venv` installs it.
fn client() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/venv");
    let venv = env::var_os("FERROBOOT_VENV").map_or_else(own, PathBuf::from);
    let program = venv.join("bin/baremetal");
    assert!(program.exists(), "there is no {}: run scripts/python-venv", program.display());
    program
}

/// Reads what the daemon says until it is ready or has ended; what comes later is read on and on.
fn is_ready(log: ChildStderr) -> bool {
    let mut lines = BufReader::new(log).lines().map_while(Result::ok).inspect(|line| {
        eprintln!("{line}");
    });
    let ready = lines.any(|line| line.contains("ready: Ironic's API"));
    thread::spawn(move || lines.for_each(drop));
    ready
}

fn free_ports() -> [u16; 3] {
    // All are held until all are chosen, or one would be chosen twice.
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
