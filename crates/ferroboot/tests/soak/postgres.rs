//! A PostgreSQL that can be restarted. It runs outside of the namespace, since it cannot run as root, and the
//! namespace has no other users; restarts are requested over a socket.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::chown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use nix::unistd::{Uid, User};
use tempfile::TempDir;

/// The variable with the database's URL.
pub(crate) const URL: &str = "FERROBOOT_SOAK_POSTGRES";
/// The variable with the socket for restart requests.
pub(crate) const CONTROL: &str = "FERROBOOT_SOAK_POSTGRES_CONTROL";
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// A separate cluster, which ends with this value.
#[derive(Debug)]
pub(crate) struct Cluster {
    dir: TempDir,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        assert!(Path::new(PROGRAMS).exists(), "there is no {PROGRAMS}: apt-get install postgresql");
        let dir = TempDir::new().unwrap();
        if let Some(user) = other_user() {
            chown(dir.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
        let cluster = Self { dir };
        let data = cluster.data();
        run(
            "initdb",
            &[
                "-D",
                &data,
                "-U",
                "ferroboot",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
            ],
        );
        cluster.control_on(&["start"]);
        let listener = UnixListener::bind(cluster.control()).unwrap();
        let (data, socket) = (cluster.data(), cluster.socket_dir());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                answer(stream, &data, &socket);
            }
        });
        cluster
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://ferroboot@localhost/postgres?host={}", self.socket_dir())
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    fn data(&self) -> String {
        self.dir.path().join("data").display().to_string()
    }

    fn socket_dir(&self) -> String {
        self.dir.path().display().to_string()
    }

    fn control_on(&self, action: &[&str]) {
        pg_ctl(&self.data(), &self.socket_dir(), action);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.control_on(&["-m", "immediate", "stop"]);
    }
}

/// Requests an action of `pg_ctl`, and waits for its end.
pub(crate) fn ask(control: &Path, action: &[&str]) {
    let mut stream = UnixStream::connect(control).unwrap();
    writeln!(stream, "{}", action.join(" ")).unwrap();
    let mut done = String::new();
    BufReader::new(stream).read_line(&mut done).unwrap();
    assert_eq!(done.trim(), "done");
}

fn answer(mut stream: UnixStream, data: &str, socket: &str) {
    let mut line = String::new();
    if BufReader::new(&stream).read_line(&mut line).is_err() {
        return;
    }
    pg_ctl(data, socket, &line.split_whitespace().collect::<Vec<_>>());
    let _ = writeln!(stream, "done");
}

fn pg_ctl(data: &str, socket: &str, action: &[&str]) {
    let log = format!("{data}/../server.log");
    // Crashes are part of the run, so it writes everything; it only does not wait for the disk.
    let options = format!(
        "-c listen_addresses= -c unix_socket_directories={socket} -c fsync=off -c max_connections=100"
    );
    let mut arguments = vec!["-D", data, "-w", "-t", "30", "-l", &log, "-o", &options];
    arguments.extend(action);
    run("pg_ctl", &arguments);
}

fn run(program: &str, arguments: &[&str]) {
    let path = format!("{PROGRAMS}/{program}");
    let mut command = match other_user() {
        // It refuses to run as root.
        Some(user) => {
            let mut command = Command::new("runuser");
            command.args(["-u", &user.name, "--", &path]);
            command
        }
        None => Command::new(&path),
    };
    // The server must not inherit the pipes, which would hide the end of `pg_ctl`.
    let out = tempfile::NamedTempFile::new().unwrap();
    command.args(arguments).current_dir("/").stdin(std::process::Stdio::null());
    command.stdout(out.reopen().unwrap()).stderr(out.reopen().unwrap());
    let status = command.status().unwrap();
    let said = fs::read_to_string(out.path()).unwrap_or_default();
    let output = Output { status, stdout: Vec::new(), stderr: said.into_bytes() };
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

fn other_user() -> Option<User> {
    if !Uid::effective().is_root() {
        return None;
    }
    Some(User::from_name("postgres").unwrap().expect("PostgreSQL is installed with its user"))
}
