//! A TCP proxy in front of the BMC: it counts requests, and holds answers on demand.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// Timeout: longer than the interval between two requests on a busy host.
const PATIENCE: Duration = Duration::from_secs(120);

/// A proxy that listens for the duration of the test.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Default)]
struct Seen {
    /// The first line of every request, and its body.
    requests: Vec<Request>,
    /// Answers to requests with this method are held.
    held: Option<&'static str>,
    /// A text to replace on the way to the BMC, and its reverse on the way back.
    rewritten: Option<(String, String)>,
    /// The ticket of a former boot, which takes the place of the ticket in each request.
    repeated: Option<String>,
}

#[derive(Clone, Debug)]
struct Request {
    line: String,
    body: String,
}

impl Proxy {
    /// Listens on a separate port, in front of `target`.
    pub(crate) fn before(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("a port for the proxy")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if let Ok(server) = TcpStream::connect(target) {
                    join(client, server, &shared);
                }
            }
        });
        Ok(Self { address, state })
    }

    /// From now on, answers to this method are held back from the client.
    pub(crate) fn hold_answers_to(&self, method: &'static str) {
        self.state.lock().held = Some(method);
    }

    /// Releases all answers.
    pub(crate) fn let_go(&self) {
        self.state.lock().held = None;
        self.state.changed.notify_all();
    }

    /// Replaces a text in requests with another of the same length, and reverses it in answers.
    pub(crate) fn rewrite(&self, told: &'static str, heard: &'static str) {
        assert_eq!(told.len(), heard.len(), "the length of a body goes before it");
        self.state.lock().rewritten = Some((told.to_owned(), heard.to_owned()));
    }

    /// From now on, the boot URL of the first boot takes the place of the one in each request.
    pub(crate) fn repeat_first_boot_url(&self) {
        let mut seen = self.state.lock();
        let first = seen.requests.iter().find_map(|one| ticket_in(&one.body).map(str::to_owned));
        seen.repeated = Some(first.expect("there was a boot URL"));
    }

    /// Waits until a request with this method has arrived.
    pub(crate) fn wait_for(&self, method: &str) -> Result<()> {
        let came = |seen: &Seen| seen.requests.iter().any(|one| one.line.starts_with(method));
        let waited =
            self.state.changed.wait_timeout_while(self.state.lock(), PATIENCE, |seen| !came(seen));
        let (seen, _) = waited.expect("no holder of this lock panics");
        ensure!(came(&seen), "no {method} reached the BMC in {PATIENCE:?}");
        Ok(())
    }

    /// Waits for a reset of this type.
    pub(crate) fn wait_for_reset(&self, kind: &str) -> Result<()> {
        let came = |seen: &Seen| seen.resets(kind) > 0;
        let waited =
            self.state.changed.wait_timeout_while(self.state.lock(), PATIENCE, |seen| !came(seen));
        let (seen, _) = waited.expect("no holder of this lock panics");
        ensure!(came(&seen), "no reset {kind} reached the BMC in {PATIENCE:?}");
        Ok(())
    }

    /// Number of resets of this type (`On`, `ForceOff`, …).
    pub(crate) fn resets(&self, kind: &str) -> usize {
        self.state.lock().resets(kind)
    }
}

impl Seen {
    fn resets(&self, kind: &str) -> usize {
        let wanted = format!("\"{kind}\"");
        let is = |one: &&Request| {
            one.line.contains("ComputerSystem.Reset") && one.body.contains(&wanted)
        };
        self.requests.iter().filter(is).count()
    }
}

impl State {
    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().expect("no holder of this lock panics")
    }

    /// Waits while answers to this request are held.
    fn wait_until_let_go(&self, method: &str) {
        let held = |seen: &mut Seen| seen.held.is_some_and(|held| method == held);
        drop(self.changed.wait_while(self.lock(), held));
    }
}

/// Copies in both directions, until one side closes.
fn join(client: TcpStream, server: TcpStream, state: &Arc<State>) {
    let last = Arc::new(Mutex::new(String::new()));
    let (Ok(client_again), Ok(server_again)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    let (state_there, last_there) = (Arc::clone(state), Arc::clone(&last));
    thread::spawn(move || {
        let note = |bytes: &[u8]| {
            let mut seen = state_there.lock();
            match Request::parse(bytes) {
                Some(request) => {
                    let method = request.line.split(' ').next().unwrap_or_default();
                    method
                        .clone_into(&mut last_there.lock().expect("no holder of this lock panics"));
                    seen.requests.push(request);
                }
                // A body that came after its head.
                None => {
                    if let Some(last) = seen.requests.last_mut() {
                        last.body += &String::from_utf8_lossy(bytes);
                    }
                }
            }
            let ticket = ticket_in(&String::from_utf8_lossy(bytes)).map(str::to_owned);
            if let Some((told, heard)) = ticket.zip(seen.repeated.clone()) {
                seen.rewritten = Some((told, heard));
            }
            let heard = seen.rewritten.as_ref().map(|(told, heard)| replace(bytes, told, heard));
            drop(seen);
            state_there.changed.notify_all();
            heard.unwrap_or_else(|| bytes.to_vec())
        };
        copy(client, server, note);
    });
    let state = Arc::clone(state);
    thread::spawn(move || {
        copy(server_again, client_again, |bytes| {
            let method = last.lock().expect("no holder of this lock panics").clone();
            state.wait_until_let_go(&method);
            let seen = state.lock();
            let told = seen.rewritten.as_ref().map(|(told, heard)| replace(bytes, heard, told));
            drop(seen);
            told.unwrap_or_else(|| bytes.to_vec())
        });
    });
}

/// Redfish's requests and answers are small: each arrives in one read, or its head and its body do.
fn copy(mut from: TcpStream, mut to: TcpStream, mut pass: impl FnMut(&[u8]) -> Vec<u8>) {
    let mut buffer = [0; 64 * 1024];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        if to.write_all(&pass(&buffer[..len])).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// The ticket in a boot URL.
fn ticket_in(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("/boot/")?;
    rest.split_once("/boot.iso").map(|(ticket, _)| ticket)
}

fn replace(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    String::from_utf8_lossy(bytes).replace(from, to).into_bytes()
}

impl Request {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let line = head.lines().next()?;
        line.ends_with(" HTTP/1.1").then(|| Self { line: line.to_owned(), body: body.to_owned() })
    }
}
