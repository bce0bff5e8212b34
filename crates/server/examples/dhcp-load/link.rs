//! A socket that sends and receives packets in batches.

use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg, setsockopt};
use socket2::{Domain, Socket, Type};

/// Number of packets in one system call.
pub(crate) const BATCH: usize = 32;
const LONGEST: usize = 2_048;
/// Size of the kernel's receive buffer in bytes.
const WAITING: usize = 64 * 1024 * 1024;

/// The relay's socket, with batches of packets.
pub(crate) struct Link {
    socket: Socket,
    /// Both buffers keep their memory.
    outgoing: Vec<Vec<u8>>,
    queued: usize,
    incoming: Vec<Vec<u8>>,
    lengths: Vec<usize>,
    headers: MultiHeaders<()>,
}

impl Link {
    pub(crate) fn open(server: SocketAddr, relay: SocketAddr) -> Result<Self> {
        let socket = Socket::new(Domain::for_address(relay), Type::DGRAM, None)?;
        // Beyond the system's limit with privileges, otherwise up to it.
        if setsockopt(&socket, RcvBufForce, &WAITING).is_err() {
            socket.set_recv_buffer_size(WAITING)?;
        }
        socket.bind(&relay.into()).with_context(|| format!("cannot be a relay at {relay}"))?;
        socket.connect(&server.into())?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            outgoing: Vec::new(),
            queued: 0,
            incoming: vec![vec![0; LONGEST]; BATCH],
            lengths: vec![0; BATCH],
            headers: MultiHeaders::preallocate(BATCH, None),
        })
    }

    /// An empty packet in the next batch to send.
    pub(crate) fn next_packet(&mut self) -> &mut Vec<u8> {
        if self.queued == self.outgoing.len() {
            self.outgoing.push(Vec::with_capacity(LONGEST));
        }
        self.queued += 1;
        let packet = &mut self.outgoing[self.queued - 1];
        packet.clear();
        packet
    }

    pub(crate) fn send(&mut self) -> Result<()> {
        let mut sent = 0;
        while sent < self.queued {
            let packets = self.outgoing[sent..self.queued].iter().take(BATCH);
            let packets: Vec<_> = packets.map(|packet| [IoSlice::new(packet)]).collect();
            let (fd, flags, to) = (self.socket.as_raw_fd(), MsgFlags::empty(), [None; BATCH]);
            match sendmmsg(fd, &mut self.headers, &packets, to, [], flags) {
                Ok(results) => sent += results.count(),
                Err(Errno::EAGAIN) => self.wait_for(PollFlags::POLLOUT, Duration::from_secs(1))?,
                Err(error) => return Err(error).context("cannot send"),
            }
        }
        self.queued = 0;
        Ok(())
    }

    /// Receives up to one batch; returns the number of packets.
    pub(crate) fn receive(&mut self) -> Result<usize> {
        let mut room: Vec<_> = self.incoming.iter_mut().map(|it| [IoSliceMut::new(it)]).collect();
        let (fd, flags) = (self.socket.as_raw_fd(), MsgFlags::empty());
        match recvmmsg(fd, &mut self.headers, &mut room, flags, None) {
            Ok(results) => {
                let lengths = results.map(|packet| packet.bytes);
                Ok(self.lengths.iter_mut().zip(lengths).map(|(at, length)| *at = length).count())
            }
            Err(Errno::EAGAIN) => Ok(0),
            Err(error) => Err(error).context("cannot receive"),
        }
    }

    pub(crate) fn packet(&self, index: usize) -> &[u8] {
        &self.incoming[index][..self.lengths[index]]
    }

    /// Waits for a packet, up to this time.
    pub(crate) fn wait(&self, no_longer: Duration) -> Result<()> {
        self.wait_for(PollFlags::POLLIN, no_longer)
    }

    fn wait_for(&self, what: PollFlags, no_longer: Duration) -> Result<()> {
        let mut on = [PollFd::new(self.socket.as_fd(), what)];
        ppoll(&mut on, Some(no_longer.into()), None).map(drop).context("cannot wait")
    }

    /// Number of answers dropped for lack of buffer space.
    pub(crate) fn lost(&self) -> Result<u64> {
        let address = self.socket.local_addr()?.as_socket().context("no internet address")?;
        let table = if address.is_ipv4() { "/proc/net/udp" } else { "/proc/net/udp6" };
        let text = fs::read_to_string(table).with_context(|| format!("cannot read {table}"))?;
        let port = format!(":{:04X} ", address.port());
        let is_ours = |line: &&str| line.split_once(": ").is_some_and(|it| it.1.contains(&port));
        let line = text.lines().find(is_ours);
        let drops = line.and_then(|line| line.split_whitespace().last());
        ensure!(drops.is_some(), "{table} does not have the relay's socket");
        drops.unwrap_or_default().parse().context("the last column is not a number")
    }
}
