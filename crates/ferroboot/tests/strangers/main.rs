//! The built daemon under the usual limit of open files, with hostile peers on its HTTP ports.

#![expect(clippy::unwrap_used, reason = "in a test, what cannot be unwrapped has failed")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, thread};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

const STRANGER: Ipv4Addr = Ipv4Addr::LOCALHOST;
const MACHINE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Timeout of operations that must not hang; test hosts can be slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// The limit of most service managers and shells.
const OPEN_FILES: u32 = 1024;
const MIB: usize = 1 << 20;

#[test]
fn eleven_hundred_silent_connections_to_each_port_keep_nobody_from_any() {
    allow_many_open_files();
    let daemon = Daemon::start("");
    let mut silent = Vec::new();

    for (n, port) in daemon.ports.into_iter().enumerate() {
        for at in 0..1_100 {
            let mut stream = connect(STRANGER, port);
            // Silent, or with half a head: it may have been evicted already.
            if at % 2 == n % 2 {
                let _ = stream.write_all(b"GET / HTTP/1.1\r\nHo");
            }
            silent.push(stream);
        }
        for from in [MACHINE, STRANGER] {
            daemon.answers_everywhere(from);
        }
    }

    let open = daemon.open_files();
    assert!(open < OPEN_FILES as usize, "{open} files are open");
    assert!(daemon.metrics().contains("reason=\"evicted\""), "{}", daemon.metrics());
}

#[test]
fn bodies_that_are_never_ended_fill_no_memory() {
    allow_many_open_files();
    let daemon = Daemon::start("");
    daemon.answers_everywhere(MACHINE);
    let before = daemon.resident();
    let [api, agents, _] = daemon.ports;
    let mut unfinished = Vec::new();

    let heartbeat = "/v1/heartbeat/8f259d3d-81a7-49cf-a5c3-8f0ec4d9c39f";
    for (port, path, count) in [(api, "/v1/nodes", 200), (agents, heartbeat, 100)] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
             Content-Length: {MIB}\r\nX-OpenStack-Ironic-API-Version: latest\r\n\r\n"
        );
        let chunk = vec![b' '; MIB - 1];
        for _ in 0..count {
            let mut stream = connect(STRANGER, port);
            // A refused request is not read to its end.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&chunk));
            unfinished.push(stream);
        }
    }

    let grown = daemon.resident().saturating_sub(before);
    assert!(grown < 128 * MIB, "{} MiB", grown / MIB);
    daemon.answers_everywhere(STRANGER);
    daemon.answers_everywhere(MACHINE);
}

#[test]
fn sigterm_ends_the_daemon_though_half_a_request_is_open_on_every_port() {
    let hour = "head_secs = 3600\nidle_secs = 3600\nbody_secs = 3600\nend_secs = 1\n";
    let mut daemon = Daemon::start(hour);
    let _half = daemon.half_requests();

    daemon.signal(Signal::SIGTERM);

    assert!(daemon.ends().success());
}

#[test]
fn a_second_signal_ends_the_daemon_at_once() {
    let hour = "body_secs = 3600\nend_secs = 3600\n";
    let mut daemon = Daemon::start(hour);
    let _half = daemon.half_requests();

    daemon.signal(Signal::SIGTERM);
    daemon.says("ending");
    daemon.signal(Signal::SIGTERM);

    assert!(!daemon.ends().success());
}

/// `ferroboot serve`, with separate ports and state.
struct Daemon {
    child: Child,
    log: mpsc::Receiver<String>,
    /// The ports of the API, for agents, and for firmware.
    ports: [u16; 3],
    _dir: TempDir,
}

impl Daemon {
    /// A daemon that is ready. Another process may take a chosen port.
    fn start(limits: &str) -> Self {
        (0..5)
            .find_map(|_| Self::try_start(limits))
            .expect("the daemon starts; it says why not above")
    }

    fn try_start(limits: &str) -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let ports = free_ports();
        let config = dir.path().join("ferroboot.toml");
        fs::write(&config, settings(dir.path(), ports, limits)).unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -n $0 && exec \"$@\""])
            .arg(OPEN_FILES.to_string())
            .args([env!("CARGO_BIN_EXE_ferroboot"), "serve", "--config"])
            .arg(&config)
            .env("RUST_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = lines_of(child.stderr.take().expect("it is piped"));
        let mut daemon = Self { child, log, ports, _dir: dir };
        daemon.says("ready: Ironic's API").then_some(daemon)
    }

    /// Waits for a log line with these words; false if the daemon has ended.
    fn says(&mut self, words: &str) -> bool {
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(words) => return true,
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return false,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("it never says {words:?}"),
            }
        }
    }

    fn answers_everywhere(&self, from: Ipv4Addr) {
        for (port, path) in self.ports.into_iter().zip(["/v1", "/v1", "/boot/nothing/kernel"]) {
            let answer = get(from, port, path);
            assert!(answer.starts_with("HTTP/1.1 "), "{path} on {port} from {from}: {answer:?}");
            assert!(!answer.starts_with("HTTP/1.1 503"), "{answer}");
        }
    }

    /// A partial head and a partial body on every port, already read by the daemon.
    fn half_requests(&self) -> Vec<TcpStream> {
        let mut half = Vec::new();
        for port in self.ports {
            for request in [
                "GET / HTTP/1.1\r\nHo",
                "POST /v1/heartbeat/n HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
                 X-OpenStack-Ironic-API-Version: latest\r\nContent-Length: 9\r\n\r\n{",
            ] {
                let mut stream = connect(STRANGER, port);
                stream.write_all(request.as_bytes()).unwrap();
                half.push(stream);
            }
        }
        // A later request is answered, so the partial ones were read.
        self.answers_everywhere(MACHINE);
        half
    }

    fn metrics(&self) -> String {
        get(MACHINE, self.ports[0], "/metrics")
    }

    fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Memory in bytes.
    fn resident(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for its end; returns the exit status.
    fn ends(&mut self) -> ExitStatus {
        // Its log ends with it.
        while self.says("whatever it says until its end") {}
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself, and a failed test must not fail again here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(log: ChildStderr) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            eprintln!("{line}");
            // The log is read continuously, since the daemon would block otherwise.
            let _ = send.send(line);
        }
    });
    receive
}

fn connect(from: Ipv4Addr, port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    let to = SocketAddr::from((IpAddr::from(Ipv4Addr::LOCALHOST), port));
    socket.connect_timeout(&to.into(), PATIENCE).unwrap();
    socket.into()
}

fn get(from: Ipv4Addr, port: u16, path: &str) -> String {
    let mut stream = connect(from, port);
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    read.unwrap_or_else(|error| panic!("{path} on {port} from {from}: {error} after {answer:?}"));
    answer
}

fn free_ports() -> [u16; 3] {
    // All sockets are held until all ports are chosen, so that none is chosen twice.
    let sockets = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    sockets.map(|socket| socket.local_addr().unwrap().port())
}

fn settings(dir: &Path, [api, agent, boot]: [u16; 3], limits: &str) -> String {
    format!(
        "state_dir = {dir:?}\n\
         [api]\nlisten = \"127.0.0.1:{api}\"\n\
         [agent]\nlisten = \"[::]:{agent}\"\n\
         [boot]\nlisten = \"[::]:{boot}\"\nurl = \"http://127.0.0.1:{boot}\"\n\
         [limits]\n{limits}"
    )
}

/// The test itself has more open files than the daemon may have.
fn allow_many_open_files() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(hard >= 8_192, "no more than {hard} files may be open (ulimit -Hn)");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}
