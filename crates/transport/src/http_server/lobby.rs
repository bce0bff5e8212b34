//! Connections that wait for a place: a short burst is not refused, and silent connections are refused first.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use tokio::net::TcpStream;
use tokio::task::unconstrained;

use super::listener::NewConnection;

/// Number of connections among which a silent one is sought: each costs a call of the kernel, for each new connection of
/// a flood.
const LOOKED_AT: usize = 16;

/// The reason why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The peer has its full share.
    Peer,
    /// The port is full.
    Port,
}

/// The waiting connections of a port, in the order of arrival.
#[derive(Debug)]
pub(super) struct Lobby {
    waiting: VecDeque<Waiting>,
    room: usize,
    refused: Vec<SocketAddr>,
}

#[derive(Debug)]
struct Waiting {
    new: NewConnection,
    full: Full,
    since: Instant,
}

impl Lobby {
    /// Interval of checks for a place.
    pub(super) const LOOK_EVERY: Duration = Duration::from_millis(10);
    /// After this time, a peer with more than its share is refused.
    const PATIENCE: Duration = Duration::from_secs(5);

    pub(super) fn new(room: usize) -> Self {
        Self { waiting: VecDeque::new(), room: room.max(1), refused: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether another connection may wait. If the port is full, further ones wait in the socket's backlog.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < self.room
            || self.waiting.iter().any(|waiting| waiting.full == Full::Peer)
    }

    /// Adds a connection. If that is one too many, the oldest connection of a peer with more than its share is
    /// refused, a silent one if possible; otherwise the new one.
    pub(super) fn enter(&mut self, new: NewConnection, full: Full, now: Instant) {
        self.waiting.push_back(Waiting { new, full, since: now });
        if self.waiting.len() > self.room {
            // The new connection has had no time to send anything.
            let others = self.waiting.iter().take(self.room).enumerate();
            let mut of_full_peers = others.filter(|(_, waiting)| waiting.full == Full::Peer);
            let oldest = of_full_peers.clone().next();
            let silent = of_full_peers
                .by_ref()
                .take(LOOKED_AT)
                .find(|(_, waiting)| !has_spoken(&waiting.new.stream));
            let goes = silent.or(oldest).map(|(at, _)| at);
            self.turn_away(goes.unwrap_or(self.room));
        }
    }

    /// The connections that have a place now; those that have sent something come first.
    pub(super) fn place<H>(
        &mut self,
        now: Instant,
        admit: impl Fn(SocketAddr, Instant) -> Result<H, Full>,
    ) -> Vec<(NewConnection, H)> {
        let mut placed = Vec::new();
        let mut full_peers = HashSet::new();
        let mut is_full = false;
        let (spoken, silent): (Vec<_>, Vec<_>) =
            self.waiting.drain(..).partition(|waiting| has_spoken(&waiting.new.stream));
        for mut waiting in spoken.into_iter().chain(silent) {
            let address = waiting.new.peer.ip();
            if !is_full && !full_peers.contains(&address) {
                match admit(waiting.new.peer, now) {
                    Ok(held) => {
                        placed.push((waiting.new, held));
                        continue;
                    }
                    Err(full) => {
                        waiting.full = full;
                        is_full = full == Full::Port;
                        full_peers.insert(address);
                    }
                }
            }
            if waiting.full == Full::Peer && now.duration_since(waiting.since) > Self::PATIENCE {
                refuse(&waiting.new);
                self.refused.push(waiting.new.peer);
            } else {
                self.waiting.push_back(waiting);
            }
        }
        placed
    }

    /// The connections refused since the last call.
    pub(super) fn take_refused(&mut self) -> Vec<SocketAddr> {
        std::mem::take(&mut self.refused)
    }

    fn turn_away(&mut self, at: usize) {
        if let Some(waiting) = self.waiting.remove(at) {
            refuse(&waiting.new);
            self.refused.push(waiting.new.peer);
        }
    }
}

/// Whether there is something to read.
fn has_spoken(stream: &TcpStream) -> bool {
    // The task may check any number of sockets: tokio's cooperative budget would make the last ones look silent.
    matches!(unconstrained(stream.peek(&mut [0])).now_or_never(), Some(Ok(1..)))
}

/// Sends an error, as far as that is possible without waiting. A client that waits for a handshake gets none.
fn refuse(new: &NewConnection) {
    let stream = &new.stream;
    if new.tls.is_some() {
        return;
    }
    // Unread data would make the kernel reset the connection and discard the answer.
    let mut unread = [0; 4_096];
    let _ = (0..4).try_for_each(|_| stream.try_read(&mut unread).map(drop));
    const WORDS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 49\r\n\
        Content-Type: text/plain\r\nRetry-After: 1\r\nConnection: close\r\n\r\n\
        too many connections of yours are being answered\n";
    let _ = stream.try_write(WORDS);
}
