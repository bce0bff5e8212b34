//! The accept loop of all HTTP ports: API, agents and boot listener, each with hyper's connections.
//!
//! `admission` decides which connections are served, without sockets; this file accepts, watches and closes
//! connections accordingly. An [`HttpService`] answers the requests.

mod admission;
mod answer_body;
mod answers;
mod budget;
mod file_parts;
mod listener;
mod lobby;
pub mod metrics;
mod paced_stream;
mod pacing;
mod peers;
mod port_state;
mod progress;
mod request_body;
mod router;
mod shares;
mod socket;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ConnectInfo;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::CONNECTION;
use http::uri::Scheme;
use http::{HeaderValue, Request, Response};
use hyper::body::{Body as HttpBody, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nix::errno::Errno;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};
use uuid::Uuid;

pub use self::admission::ConnectionLimits;
use self::admission::{Account, Acquaintance, Phase};
use self::answer_body::AnswerBody;
use self::budget::BodyBudget;
pub use self::file_parts::{FilePart, FileParts};
pub use self::listener::{
    EncryptedConnection, EncryptedStream, HandshakeFailure, ListenerTls, PortListener, TlsAlert,
};
use self::listener::{Listeners, NewConnection};
use self::lobby::Lobby;
use self::metrics::HttpMetrics;
#[cfg(feature = "test-servers")]
pub use self::paced_stream::OtherAnswers;
pub use self::paced_stream::PacedStream;
use self::paced_stream::PeerStream;
pub use self::peers::PortPeers;
use self::port_state::{ConnectionPlace, PortState};
use self::progress::AnswerProgress;
pub use self::progress::{Sent, WhenSent};
pub use self::request_body::{BodyError, RequestBody};
pub use self::router::{RouterService, ServedNode, UsefulAnswers};
pub use self::shares::PortShares;
use self::socket::{FirstByte, Socket};
use crate::repeats;

/// Closed connections whose tasks have not ended yet; beyond this number no connection is accepted.
const LEAVING: usize = 64;

/// A port: its listeners, its limits, and its service.
#[derive(Debug)]
pub struct ServedPort<S> {
    /// Its name in metrics and logs.
    pub name: &'static str,
    /// Its listeners; the limits apply to all of them together.
    pub listeners: Vec<PortListener>,
    /// The limits of connections.
    pub limits: ConnectionLimits,
    /// The limits of request bodies.
    pub bodies: BodyLimits,
    /// The spelling of header names in answers.
    pub headers: HeaderNames,
    /// Answers its requests.
    pub service: S,
    /// Counts its connections.
    pub metrics: HttpMetrics,
}

/// The limits of request bodies.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// The length of one body, in bytes.
    pub each: u64,
    /// Memory for all current bodies, in bytes.
    pub all: u64,
}

/// The spelling of header names in answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderNames {
    /// `content-length`
    LowerCase,
    /// `Content-Length`: rhboot's GRUB and shim compare header names case-sensitively.
    TitleCase,
}

/// Answers the requests of a port.
pub trait HttpService: Clone + Send + Sync + 'static {
    /// The body of its answers.
    type Body: HttpBody<Data = Bytes, Error: std::error::Error + Send + Sync>
        + Send
        + Unpin
        + 'static;

    /// The answer to a request.
    fn answer(
        &self,
        request: Request<RequestBody>,
        caller: &Caller,
    ) -> impl Future<Output = Answered<Self::Body>> + Send;

    /// The peers of the port.
    fn peers(&self) -> &dyn PortPeers;
}

/// The two ends of a request's connection. IPv4 addresses are in IPv4 form even on a dual-stack socket.
#[derive(Debug)]
pub struct Caller {
    /// The local address of the connection, as the machine reached it.
    pub near: IpAddr,
    /// The remote address.
    pub remote: SocketAddr,
    /// What the TLS handshake agreed on, for people; `None` in clear.
    pub tls: Option<String>,
    /// Whether the kernel can send files on the connection.
    takes_files: bool,
    held: Arc<ConnectionPlace>,
}

impl Caller {
    /// The caller has proved to be the machine of this node: its connection counts for the node from now on.
    pub fn is_for(&self, node: Uuid) {
        self.held.is_for(node);
    }

    /// For [`Answered::file_parts`], if the connection can take any.
    #[must_use]
    pub fn file_parts(&self) -> Option<FileParts> {
        self.takes_files.then(FileParts::default)
    }

    fn account(&self) -> Option<Account> {
        self.held.account()
    }
}

/// An extension of a request: its connection, whose owner may be known before there is an answer.
#[derive(Clone, Debug)]
pub struct ConnectionOwner(Arc<ConnectionPlace>);

impl ConnectionOwner {
    /// The peer has proved to be the machine of this node: its connection counts for the node from now on.
    pub fn is_node(&self, node: Uuid) {
        self.0.is_for(node);
    }
}

/// An extension of a request: the scheme of the URL that leads to its connection.
#[derive(Clone, Debug)]
pub struct ConnectionScheme(pub Scheme);

/// An answer, and its meaning for the connection.
pub struct Answered<B> {
    /// The HTTP response.
    pub response: Response<B>,
    /// Whether the peer got what it requested.
    pub is_useful: bool,
    /// Runs once the socket has taken all bytes of the body but the last one, which is sent at its end.
    pub before_last_byte: Option<BoxFuture<'static, ()>>,
    /// A callback with the number of bytes sent.
    pub when_sent: Option<WhenSent>,
    /// The parts of files for which there are placeholders in the body.
    pub file_parts: FileParts,
}

/// Serves a port until `end`, then finishes current answers.
pub async fn serve<S: HttpService>(port: ServedPort<S>, end: impl Future<Output = ()>) {
    let ServedPort { name, listeners, limits, bodies, headers, service, metrics } = port;
    let state = Arc::new(PortState::new(name, limits.clone(), metrics));
    let (ending, ended) = watch::channel(());
    let handler = Handler { service, bodies, budget: BodyBudget::new(bodies.all), headers };
    let mut connections = JoinSet::new();
    let mut sweep = interval(state.sweep_every());
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lobby = Lobby::new(limits.waiting);
    let mut look = interval(Lobby::LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut end = pin!(end);
    let mut listeners = Listeners::new(listeners);
    let acquaintance = |peer: IpAddr| {
        if handler.service.peers().expects(peer) {
            Acquaintance::Known
        } else {
            Acquaintance::Stranger
        }
    };
    loop {
        let takes = lobby.has_room() && connections.len() < limits.connections + LEAVING;
        let mut placed = Vec::new();
        tokio::select! {
            () = &mut end => break,
            Some(_) = connections.join_next() => {}
            _ = sweep.tick() => state.sweep(Instant::now()),
            _ = look.tick(), if !lobby.is_empty() => {
                placed = lobby.place(Instant::now(), acquaintance, |peer, acquaintance, now| {
                    state.admit(peer, acquaintance, now)
                });
            }
            accepted = poll_fn(|cx| listeners.poll_accept(cx)), if takes => match accepted {
                Ok(new) => {
                    let now = Instant::now();
                    let peer = new.peer.ip();
                    match state.admit(peer, acquaintance(peer), now) {
                        Ok(held) => placed.push((new, held)),
                        Err(full) => lobby.enter(new, full, now),
                    }
                }
                Err(error) => {
                    if let Some(more) = repeats::line("cannot take a connection", name) {
                        warn!("cannot take a connection to {name}: {error}{more}");
                    }
                    // Linux also reports errors of the new connection itself here; those concern no other connection.
                    if lacks_descriptors(&error) {
                        state.make_room(Instant::now());
                        // An immediate retry would spin.
                        sleep(Duration::from_millis(100)).await;
                    }
                }
            },
        }
        for (new, held) in placed {
            connections.spawn(handler.clone().connection(new, held, ended.clone()));
        }
        for peer in lobby.take_refused() {
            state.refused(peer.ip());
        }
    }
    drop((listeners, lobby, ending));
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.end, all).await.is_err() {
        info!("broke off the answers of {name} that took longer than {:?}", limits.end);
    }
}

/// The client's failures are told to its service alone; without a certificate nobody is served.
fn log_failure(peer: SocketAddr, failure: &HandshakeFailure) {
    if !matches!(failure, HandshakeFailure::NoCertificate(_)) {
        return debug!("{peer}: {failure}");
    }
    if let Some(more) = repeats::line("no usable certificate", failure.to_string()) {
        warn!("{failure}{more}");
    }
}

fn lacks_descriptors(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}

/// The hyper service of a port's connections.
#[derive(Clone, Debug)]
struct Handler<S> {
    service: S,
    bodies: BodyLimits,
    budget: BodyBudget,
    headers: HeaderNames,
}

impl<S: HttpService> Handler<S> {
    async fn connection(
        self,
        new: NewConnection,
        held: Arc<ConnectionPlace>,
        ended: watch::Receiver<()>,
    ) {
        let NewConnection { stream, peer, tls } = new;
        let Ok(near) = stream.local_addr() else { return };
        let near = near.ip().to_canonical();
        let takes_files = tls.is_none();
        let held_here = Arc::clone(&held);
        let mut caller = Caller { near, remote: peer, tls: None, takes_files, held: held_here };
        // Each write is complete: waiting for more data would cost a round trip.
        let _ = stream.set_nodelay(true);
        let stream = PacedStream::new(stream, held.pacing());
        let Some(tls) = tls else { return self.converse(stream, &caller, ended).await };
        let handshake = async {
            // A client that closes the connection without a byte only looked whether the port is open: the agent does so,
            // and load balancers.
            if !stream.has_first_byte().await {
                return None;
            }
            held.enter(Phase::Handshake);
            Some(tls.accept(stream, near).await)
        };
        let accepted = tokio::select! {
            accepted = held.handshake(handshake) => accepted,
            () = held.closed() => return,
            () = ended_of(ended.clone()) => return,
        };
        match accepted {
            None => {}
            Some(Ok(EncryptedConnection { stream, agreed })) => {
                caller.tls = Some(agreed);
                self.converse(stream, &caller, ended).await;
            }
            Some(Err(failure)) => {
                log_failure(peer, &failure);
                held.handshake_failed();
                self.service.peers().handshake_failed(peer.ip(), &failure);
            }
        }
    }

    async fn converse<IO: PeerStream>(
        &self,
        stream: IO,
        caller: &Caller,
        ended: watch::Receiver<()>,
    ) {
        let held = &caller.held;
        let progress = AnswerProgress::default();
        let first = FirstByte::default();
        let socket = Socket::new(stream, first.clone(), progress.clone(), Arc::clone(held));
        let service = service_fn(|request| self.answer(request, caller, &progress));
        let connection = http1::Builder::new()
            // `PortState::sweep` closes connections that exceed a limit.
            .header_read_timeout(None)
            .title_case_headers(self.headers == HeaderNames::TitleCase)
            .max_headers(64)
            .max_buf_size(16 * 1024)
            // A client may shut down its sending side after the last request and still read.
            .half_close(true)
            .serve_connection(TokioIo::new(socket), service);
        let mut connection = pin!(connection);
        let mut closing = pin!(held.closed());
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = &mut closing => return,
            () = ended_of(ended) => {
                if matches!(held.phase(), Phase::Idle | Phase::Handshake | Phase::Head) {
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
            debug!("connection of {} broke: {error}", caller.remote);
            if first.is_tls() && caller.tls.is_none() {
                held.handshake_failed();
                self.service
                    .peers()
                    .handshake_failed(caller.remote.ip(), &HandshakeFailure::PlainPort);
            }
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        caller: &Caller,
        progress: &AnswerProgress,
    ) -> Result<Response<AnswerBody<S::Body>>, Infallible> {
        progress.settled().await;
        let held = &caller.held;
        let has_body = !request.body().is_end_stream();
        held.enter(if has_body { Phase::Body } else { Phase::Answer });
        let account = held.account().filter(|_| has_body);
        let share = account.map(|account| Arc::new(self.budget.share(account)));
        let (limit, time) = (self.bodies.each, held.limits().body);
        let mut request = request.map(|incoming| {
            RequestBody::new(incoming, limit, time, share.clone(), Arc::clone(held))
        });
        request.extensions_mut().insert(ConnectInfo(caller.remote));
        request.extensions_mut().insert(ConnectionOwner(Arc::clone(held)));
        let scheme = if caller.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        request.extensions_mut().insert(ConnectionScheme(scheme));
        let mut answered = self.service.answer(request, caller).await;
        // Held until now: the parsed body may be larger than the body.
        drop(share);
        if answered.is_useful {
            held.was_useful();
        } else if held.is_fruitless() {
            answered.response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        held.enter(Phase::Answer);
        progress.begin(answered.when_sent, answered.file_parts);
        let Answered { response, before_last_byte, .. } = answered;
        Ok(response.map(|body| AnswerBody::new(body, progress.clone(), before_last_byte)))
    }
}

/// Resolves when the sender is gone.
async fn ended_of(mut ended: watch::Receiver<()>) {
    while ended.changed().await.is_ok() {}
}
