//! The one loop that serves all HTTP ports: API, agents and boot listener, each on hyper's connection.
//!
//! Who is served is decided in [`admission`], without sockets; here connections are taken, watched and closed as decided
//! there. What is answered is a [`Service`]'s own.

mod admission;
mod budget;
mod progress;
mod request_body;
mod router;
mod shares;
mod socket;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};
use uuid::Uuid;

pub use self::admission::ConnectionLimits;
use self::admission::{Account, Admission, ConnectionId, Ended, Phase, Verdict};
use self::budget::BodyBudget;
use self::progress::Progress;
pub(crate) use self::progress::{Sent, WhenSent};
pub use self::request_body::{BodyError, RequestBody};
pub(crate) use self::router::{RouterService, UsefulAnswers};
pub use self::shares::PortShares;
use self::socket::Socket;
use crate::metrics::Metrics;

/// Connections that were closed and whose tasks have not ended yet; beyond, nobody is let in.
const LEAVING: usize = 64;

/// Between two lines in the log about connections that were refused.
const SPOKEN_OF_EVERY: Duration = Duration::from_secs(60);

/// A port: where it listens, what may be done there, and who answers.
#[derive(Debug)]
pub(crate) struct Port<S> {
    /// Its name in metrics and logs.
    pub(crate) name: &'static str,
    /// All of them are one port to its limits.
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) limits: ConnectionLimits,
    pub(crate) bodies: BodyLimits,
    pub(crate) headers: HeaderNames,
    pub(crate) service: S,
    pub(crate) metrics: Metrics,
}

/// How much of request bodies is taken.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// The length of one, in bytes.
    pub each: u64,
    /// What all that are under way may hold in memory, in bytes.
    pub all: u64,
}

/// How names of headers are spelt in answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderNames {
    LowerCase,
    /// rhboot's GRUB and shim compare names of headers letter by letter.
    TitleCase,
}

/// Answers the requests of a port.
pub(crate) trait Service: Clone + Send + Sync + 'static {
    type Body: HttpBody<Data = Bytes, Error: std::error::Error + Send + Sync>
        + Send
        + Unpin
        + 'static;

    fn answer(
        &self,
        request: Request<RequestBody>,
        ends: Ends,
    ) -> impl Future<Output = Answered<Self::Body>> + Send;
}

/// Both ends of a connection. IPv4 addresses are IPv4 addresses, though the socket be of both families.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// Ours, as the machine reached us.
    pub(crate) near: IpAddr,
    pub(crate) remote: SocketAddr,
}

/// An answer, and what it means for its connection.
pub(crate) struct Answered<B> {
    pub(crate) response: Response<B>,
    /// The node whose machine has shown that it is that machine.
    pub(crate) node: Option<Uuid>,
    /// Whether the peer got what it came for.
    pub(crate) is_useful: bool,
    /// Who wants to know how much was sent.
    pub(crate) when_sent: Option<WhenSent>,
}

/// What all connections of a port share.
#[derive(Debug)]
struct PortState {
    name: &'static str,
    limits: ConnectionLimits,
    table: Mutex<Table>,
    /// Something has ended: there may be room.
    room: Notify,
    metrics: Metrics,
}

#[derive(Debug)]
struct Table {
    admission: Admission,
    closing: BTreeMap<ConnectionId, Arc<Notify>>,
    refused: Refused,
}

/// What is not in the log yet.
#[derive(Debug, Default)]
struct Refused {
    connections: u64,
    last: Option<IpAddr>,
    spoken: Option<Instant>,
}

/// A connection's place; gives it back in the end.
#[derive(Debug)]
pub(crate) struct Held {
    id: ConnectionId,
    phase: AtomicU8,
    closing: Arc<Notify>,
    port: Arc<PortState>,
}

/// Answers on a port until `end`, and then lets answers under way come to theirs.
pub(crate) async fn serve<S: Service>(port: Port<S>, end: impl Future<Output = ()>) {
    let Port { name, listeners, limits, bodies, headers, service, metrics } = port;
    let state = Arc::new(PortState::new(name, limits.clone(), metrics));
    let (ending, ended) = watch::channel(());
    let handler = Handler { service, bodies, budget: BodyBudget::new(bodies.all), headers };
    let mut connections = JoinSet::new();
    let mut sweep = interval(state.sweep_every());
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut newcomer: Option<(TcpStream, SocketAddr)> = None;
    let mut end = pin!(end);
    loop {
        let takes = newcomer.is_none() && connections.len() < limits.connections + LEAVING;
        tokio::select! {
            () = &mut end => break,
            Some(_) = connections.join_next() => {}
            _ = sweep.tick() => state.sweep(Instant::now()),
            () = state.room.notified(), if newcomer.is_some() => {}
            accepted = accept(&listeners), if takes => match accepted {
                Ok((stream, peer)) => newcomer = Some((stream, canonical(peer))),
                Err(error) => {
                    warn!("cannot take a connection to {name}: {error}");
                    state.make_room();
                    // Out of file descriptors: trying again at once would spin.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
        let Some((stream, peer)) = newcomer.take() else { continue };
        match state.admit(peer.ip(), Instant::now()) {
            Admitted::Yes(held) => {
                let connection = handler.clone().connection(stream, peer, held, ended.clone());
                connections.spawn(connection);
            }
            Admitted::No => refuse(&stream),
            Admitted::NotYet => newcomer = Some((stream, peer)),
        }
    }
    drop((listeners, newcomer, ending));
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.end, all).await.is_err() {
        info!("broke off the answers of {name} that took longer than {:?}", limits.end);
    }
}

/// The next connection of any of the listeners.
async fn accept(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|cx| {
        let mut ready = listeners.iter().map(|listener| listener.poll_accept(cx));
        ready.find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}

fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::from((v4, peer.port())),
        // With the scope of a link-local address.
        IpAddr::V6(_) => peer,
    }
}

/// Says why, as far as that goes without waiting.
fn refuse(stream: &TcpStream) {
    const WORDS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 48\r\n\
        Content-Type: text/plain\r\nRetry-After: 1\r\nConnection: close\r\n\r\n\
        too many connections of yours are being answered";
    let _ = stream.try_write(WORDS);
}

enum Admitted {
    Yes(Arc<Held>),
    No,
    NotYet,
}

impl PortState {
    fn new(name: &'static str, limits: ConnectionLimits, metrics: Metrics) -> Self {
        let admission = Admission::new(limits.clone());
        let table = Table { admission, closing: BTreeMap::new(), refused: Refused::default() };
        Self { name, limits, table: Mutex::new(table), room: Notify::new(), metrics }
    }

    /// Often enough for the shortest of the limits.
    fn sweep_every(&self) -> Duration {
        let ConnectionLimits { idle, head, body, fruitless, .. } = self.limits;
        let shortest = idle.min(head).min(body).min(fruitless);
        (shortest / 4).clamp(Duration::from_millis(5), Duration::from_secs(1))
    }

    fn admit(self: &Arc<Self>, address: IpAddr, now: Instant) -> Admitted {
        let mut table = self.table();
        match table.admission.admit(address, now) {
            Verdict::Admitted { id, evicted } => {
                if let Some(evicted) = evicted {
                    self.close(&mut table, evicted, Ended::Evicted);
                }
                let closing = Arc::<Notify>::default();
                table.closing.insert(id, Arc::clone(&closing));
                self.metrics.http_connections(self.name, table.admission.len());
                let phase = AtomicU8::new(Phase::Idle as u8);
                Admitted::Yes(Arc::new(Held { id, phase, closing, port: Arc::clone(self) }))
            }
            Verdict::PeerFull => {
                table.refused.connections += 1;
                table.refused.last = Some(address);
                self.metrics.http_connection_ended(self.name, "peer_full");
                Admitted::No
            }
            Verdict::PortFull => Admitted::NotYet,
        }
    }

    fn make_room(&self) {
        let mut table = self.table();
        if let Some(evicted) = table.admission.evict_one() {
            self.close(&mut table, evicted, Ended::Evicted);
        }
    }

    fn sweep(&self, now: Instant) {
        let mut table = self.table();
        for (id, ended) in table.admission.overdue(now) {
            self.close(&mut table, id, ended);
        }
        self.metrics.http_connections(self.name, table.admission.len());
        table.refused.speak(self.name, now);
        drop(table);
        self.room.notify_one();
    }

    fn close(&self, table: &mut Table, id: ConnectionId, why: Ended) {
        self.metrics.http_connection_ended(self.name, why.name());
        if let Some(closing) = table.closing.remove(&id) {
            closing.notify_one();
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Refused {
    /// Says how many were refused, once in a while.
    fn speak(&mut self, name: &str, now: Instant) {
        let is_early = self.spoken.is_some_and(|at| now.duration_since(at) < SPOKEN_OF_EVERY);
        let Some(last) = self.last.filter(|_| !is_early) else { return };
        let connections = self.connections;
        warn!(
            "refused {connections} connections to {name}, the last from {last}: all that one peer may have are \
             being answered (limits.peer_percent, limits.exempt)"
        );
        *self = Self { spoken: Some(now), ..Self::default() };
    }
}

impl Held {
    fn enter(&self, phase: Phase) {
        if self.phase.swap(phase as u8, Ordering::AcqRel) == phase as u8 {
            return;
        }
        self.port.table().admission.enter(self.id, phase, Instant::now());
        if phase == Phase::Idle {
            self.port.room.notify_one();
        }
    }

    fn phase(&self) -> Phase {
        let phase = self.phase.load(Ordering::Acquire);
        Phase::ALL.get(usize::from(phase)).copied().unwrap_or(Phase::Answer)
    }

    /// An answer is there: whom the connection is counted for from now on, and whether it came for something.
    fn answers(&self, node: Option<Uuid>, is_useful: bool) {
        let mut table = self.port.table();
        if let Some(evicted) = node.and_then(|node| table.admission.count_for_node(self.id, node)) {
            self.port.close(&mut table, evicted, Ended::Evicted);
        }
        if is_useful {
            table.admission.was_useful(self.id, Instant::now());
        }
    }

    fn account(&self) -> Option<Account> {
        self.port.table().admission.account(self.id)
    }

    fn is_slow(&self) {
        self.port.metrics.http_connection_ended(self.port.name, "slow_reader");
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut table = self.port.table();
        table.admission.remove(self.id);
        table.closing.remove(&self.id);
        drop(table);
        self.port.room.notify_one();
    }
}

/// What each connection of a port is served with.
#[derive(Clone, Debug)]
struct Handler<S> {
    service: S,
    bodies: BodyLimits,
    budget: BodyBudget,
    headers: HeaderNames,
}

impl<S: Service> Handler<S> {
    async fn connection(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        held: Arc<Held>,
        ended: watch::Receiver<()>,
    ) {
        let Ok(near) = stream.local_addr() else { return };
        let ends = Ends { near: near.ip().to_canonical(), remote: peer };
        // Each write is as large as it will get: waiting for more costs a round trip.
        let _ = stream.set_nodelay(true);
        let progress = Progress::default();
        let patience = held.port.limits.stall;
        let socket = Socket::new(stream, progress.clone(), Arc::clone(&held), patience);
        let service = service_fn(|request| self.answer(request, ends, &progress, &held));
        let connection = http1::Builder::new()
            // Whatever lasts too long is closed from outside, by `PortState::sweep`.
            .header_read_timeout(None)
            .title_case_headers(self.headers == HeaderNames::TitleCase)
            .max_headers(64)
            .max_buf_size(16 * 1024)
            // A client that has no more to ask may close its side and still read.
            .half_close(true)
            .serve_connection(TokioIo::new(socket), service);
        let mut connection = pin!(connection);
        let mut closing = pin!(held.closing.notified());
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = &mut closing => return,
            () = ended_of(ended) => {
                if matches!(held.phase(), Phase::Idle | Phase::Head) {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    result = connection => result,
                    () = &mut closing => return,
                }
            }
        };
        if let Err(error) = result {
            debug!("connection of {peer} broke: {error}");
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        ends: Ends,
        progress: &Progress,
        held: &Arc<Held>,
    ) -> Result<Response<AnswerBody<S::Body>>, Infallible> {
        progress.settled().await;
        let has_body = !request.body().is_end_stream();
        held.enter(if has_body { Phase::Body } else { Phase::Answer });
        let account = held.account().filter(|_| has_body);
        let share = account.map(|account| Arc::new(self.budget.share(account)));
        let (limit, time) = (self.bodies.each, held.port.limits.body);
        let mut request = request.map(|incoming| {
            RequestBody::new(incoming, limit, time, share.clone(), Arc::clone(held))
        });
        request.extensions_mut().insert(ConnectInfo(ends.remote));
        let answered = self.service.answer(request, ends).await;
        // Until now: what was made of the body may be larger than the body.
        drop(share);
        held.answers(answered.node, answered.is_useful);
        held.enter(Phase::Answer);
        progress.begin(answered.when_sent);
        let progress = progress.clone();
        Ok(answered.response.map(|body| AnswerBody { body, progress }))
    }
}

/// Resolves when the sender is gone.
async fn ended_of(mut ended: watch::Receiver<()>) {
    while ended.changed().await.is_ok() {}
}

/// Tells the progress of its connection when there is no more of it.
#[derive(Debug)]
struct AnswerBody<B> {
    body: B,
    progress: Progress,
}

impl<B> HttpBody for AnswerBody<B>
where
    B: HttpBody<Data = Bytes, Error: std::error::Error> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Err(error)) = &frame {
            self.progress.failed(error.to_string());
        }
        if frame.is_none() || self.body.is_end_stream() {
            self.progress.all_given();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for AnswerBody<B> {
    fn drop(&mut self) {
        self.progress.all_given();
    }
}
