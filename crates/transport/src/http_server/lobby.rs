//! Connections that wait for a place: a short burst is not refused, and silent connections are refused first.

use std::collections::{HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use tokio::net::TcpStream;
use tokio::task::unconstrained;

use super::admission::Acquaintance;
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

    /// The connections that have a place now. Those of known peers come first, since they also get the places of
    /// strangers, and then those that have sent something.
    pub(super) fn place<H>(
        &mut self,
        now: Instant,
        acquaintance: impl Fn(IpAddr) -> Acquaintance,
        admit: impl Fn(IpAddr, Acquaintance, Instant) -> Result<H, Full>,
    ) -> Vec<(NewConnection, H)> {
        let mut placed = Vec::new();
        let mut full_peers = HashSet::new();
        let mut is_full = false;
        let mut in_order: Vec<_> = self
            .waiting
            .drain(..)
            .map(|waiting| {
                let acquaintance = acquaintance(waiting.new.peer.ip());
                let is_stranger = acquaintance == Acquaintance::Stranger;
                ((is_stranger, !has_spoken(&waiting.new.stream)), acquaintance, waiting)
            })
            .collect();
        // It keeps the order of arrival among equals.
        in_order.sort_by_key(|(order, ..)| *order);
        for (_, acquaintance, mut waiting) in in_order {
            let address = waiting.new.peer.ip();
            if !is_full && !full_peers.contains(&address) {
                match admit(address, acquaintance, now) {
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// Addresses of a machine that is expected, and of a stranger.
    const MACHINE: [u8; 4] = [127, 0, 0, 2];
    const STRANGER: [u8; 4] = [127, 0, 0, 3];

    #[tokio::test]
    async fn a_known_machine_gets_a_place_although_a_stranger_has_waited_longer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = listener.local_addr().unwrap();
        let (mut lobby, now) = (Lobby::new(8), Instant::now());
        let mut clients = Vec::new();
        for address in [STRANGER, MACHINE] {
            let mut client = TcpStream::connect(near).await.unwrap();
            if address == STRANGER {
                client.write_all(b"GET ").await.unwrap();
            }
            clients.push(client);
            let (stream, _) = listener.accept().await.unwrap();
            let new = NewConnection { stream, peer: (address, 1).into(), tls: None };
            lobby.enter(new, Full::Port, now);
        }

        let acquaintance = |peer: IpAddr| match peer == IpAddr::from(MACHINE) {
            true => Acquaintance::Known,
            false => Acquaintance::Stranger,
        };
        // The places are of idle strangers.
        let admit = |_, acquaintance, _| match acquaintance {
            Acquaintance::Known => Ok(()),
            Acquaintance::Stranger => Err(Full::Port),
        };
        let placed = lobby.place(now, acquaintance, admit);

        let placed: Vec<_> = placed.iter().map(|(new, ())| new.peer.ip()).collect();
        assert_eq!(placed, [IpAddr::from(MACHINE)]);
        assert!(!lobby.is_empty());
    }
}
