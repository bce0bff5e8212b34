//! Connections that wait for a place: a moment's burst is not turned away, and whoever says nothing waits in vain.

use std::collections::{HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use tokio::net::TcpStream;

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The peer has all that a peer may have.
    Peer,
    /// The port has no place for anybody.
    Port,
}

/// The connections of a port that wait, in the order in which they came.
#[derive(Debug)]
pub(super) struct Lobby {
    waiting: VecDeque<Waiting>,
    room: usize,
    refused: Vec<SocketAddr>,
}

#[derive(Debug)]
struct Waiting {
    stream: TcpStream,
    peer: SocketAddr,
    full: Full,
    since: Instant,
}

impl Lobby {
    /// Between two looks for a place.
    pub(super) const LOOK_EVERY: Duration = Duration::from_millis(10);
    /// After this, a peer that has more than its share is told to come again.
    const PATIENCE: Duration = Duration::from_secs(5);

    pub(super) fn new(room: usize) -> Self {
        Self { waiting: VecDeque::new(), room: room.max(1), refused: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether another one may come. Where the port itself is full, further ones wait in the socket's backlog.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < self.room
            || self.waiting.iter().any(|waiting| waiting.full == Full::Peer)
    }

    /// Takes one in; the oldest silent one of those that have more than their share goes, or the newcomer itself.
    pub(super) fn enter(&mut self, stream: TcpStream, peer: SocketAddr, full: Full, now: Instant) {
        if self.waiting.len() >= self.room {
            let goes =
                |waiting: &Waiting| waiting.full == Full::Peer && !has_spoken(&waiting.stream);
            let silent = self.waiting.iter().position(goes);
            match (silent, full) {
                (Some(at), _) => self.turn_away(at),
                (None, Full::Peer) => {
                    refuse(&stream);
                    self.refused.push(peer);
                    return;
                }
                // One too many, for which `has_room` has said that somebody waits who has more than its share.
                (None, Full::Port) => {
                    let at = self.waiting.iter().position(|waiting| waiting.full == Full::Peer);
                    at.into_iter().for_each(|at| self.turn_away(at));
                }
            }
        }
        self.waiting.push_back(Waiting { stream, peer, full, since: now });
    }

    /// Those for whom there is a place now; first those that have sent something.
    pub(super) fn place<H>(
        &mut self,
        now: Instant,
        admit: impl Fn(SocketAddr, Instant) -> Result<H, Full>,
    ) -> Vec<(TcpStream, SocketAddr, H)> {
        let mut placed = Vec::new();
        let mut full_peers = HashSet::new();
        let mut is_full = false;
        let (spoken, silent): (Vec<_>, Vec<_>) =
            self.waiting.drain(..).partition(|waiting| has_spoken(&waiting.stream));
        for mut waiting in spoken.into_iter().chain(silent) {
            let address: IpAddr = waiting.peer.ip();
            if !is_full && !full_peers.contains(&address) {
                match admit(waiting.peer, now) {
                    Ok(held) => {
                        placed.push((waiting.stream, waiting.peer, held));
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
                refuse(&waiting.stream);
                self.refused.push(waiting.peer);
            } else {
                self.waiting.push_back(waiting);
            }
        }
        placed
    }

    /// Those that were turned away since this was last asked.
    pub(super) fn take_refused(&mut self) -> Vec<SocketAddr> {
        std::mem::take(&mut self.refused)
    }

    fn turn_away(&mut self, at: usize) {
        if let Some(waiting) = self.waiting.remove(at) {
            refuse(&waiting.stream);
            self.refused.push(waiting.peer);
        }
    }
}

/// Whether there is something to read.
fn has_spoken(stream: &TcpStream) -> bool {
    matches!(stream.peek(&mut [0]).now_or_never(), Some(Ok(1..)))
}

/// Says why, as far as that goes without waiting.
fn refuse(stream: &TcpStream) {
    const WORDS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 49\r\n\
        Content-Type: text/plain\r\nRetry-After: 1\r\nConnection: close\r\n\r\n\
        too many connections of yours are being answered\n";
    let _ = stream.try_write(WORDS);
}
