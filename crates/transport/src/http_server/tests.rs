//! Tests of the loop over real sockets, with many kinds of peers.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::{ConnectInfo, Path, Request};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Extension, Router};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{Level, Metadata, Subscriber, span};

use super::*;

const OK: &[u8] = b"GET /ok HTTP/1.1\r\nConnection: close\r\n\r\n";
const HALF: &[u8] = b"GET /ok HTTP/1.1\r\nHo";
const HALF_BODY: &[u8] = b"POST /echo HTTP/1.1\r\nContent-Length: 1000\r\n\r\n0123456789";
/// Timeout of operations that must not hang; test hosts can be slow.
const PATIENCE: Duration = Duration::from_secs(60);
const STRANGER: Ipv4Addr = Ipv4Addr::LOCALHOST;
const MACHINE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

#[tokio::test]
async fn who_holds_silent_connections_keeps_out_neither_others_nor_itself() {
    let listener =
        Listener::with(ConnectionLimits { connections: 40, per_peer: 10, ..Default::default() });
    let mut silent = Vec::new();
    for first in [&b""[..], HALF, HALF_BODY] {
        for _ in 0..20 {
            let mut stream = listener.connect_from(STRANGER).await;
            // The connection may have been evicted already.
            let _ = stream.write_all(first).await;
            silent.push(stream);
        }
    }

    assert!(listener.say_from(MACHINE, OK).await.starts_with("HTTP/1.1 200 OK"));
    assert!(listener.say_from(STRANGER, OK).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn many_strangers_that_fill_the_port_keep_no_machine_out() {
    let listener =
        Listener::with(ConnectionLimits { connections: 40, per_peer: 10, ..Default::default() });
    let mut silent = Vec::new();
    for last in 3..13 {
        for _ in 0..10 {
            silent.push(listener.connect_from(Ipv4Addr::new(127, 0, 0, last)).await);
        }
    }

    assert!(listener.say_from(MACHINE, OK).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_peer_whose_requests_are_all_being_answered_is_told_to_wait() {
    let listener = Listener::with(ConnectionLimits { per_peer: 1, ..Default::default() });
    let mut busy = listener.connect_from(STRANGER).await;
    busy.write_all(b"GET /large HTTP/1.1\r\n\r\n").await.unwrap();
    busy.read_exact(&mut [0; 100]).await.unwrap();

    let mut refused = listener.connect_from(STRANGER).await;
    let mut said = [0; 12];
    refused.read_exact(&mut said).await.unwrap();

    assert_eq!(&said, b"HTTP/1.1 503");
    assert!(listener.say_from(MACHINE, OK).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn whatever_does_not_come_to_its_end_is_let_go() {
    let listener = Listener::with(ConnectionLimits {
        idle: Duration::from_millis(50),
        head: Duration::from_millis(50),
        body: Duration::from_millis(50),
        ..Default::default()
    });

    assert_eq!(listener.say_and_wait(b"").await, "");
    assert_eq!(listener.say_and_wait(HALF).await, "");
    let slow = listener.say_and_wait(HALF_BODY).await;
    assert!(slow.starts_with("HTTP/1.1 408 Request Timeout"), "{slow}");
    let unread = HALF_BODY.to_vec();
    let unread = String::from_utf8(unread).unwrap().replace("/echo", "/ok");
    let unread = listener.say_and_wait(unread.as_bytes()).await;
    assert!(unread.starts_with("HTTP/1.1 405"), "{unread}");
}

#[tokio::test]
async fn a_body_that_trickles_is_let_go() {
    let listener =
        Listener::with(ConnectionLimits { body: Duration::from_millis(100), ..Default::default() });
    let mut stream = listener.connect_from(STRANGER).await;
    stream.write_all(b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    let (mut read, mut write) = stream.split();
    let mut ticks = interval(Duration::from_millis(5));
    let mut answer = [0; 12];
    let mut answered = Box::pin(read.read_exact(&mut answer));

    loop {
        tokio::select! {
            read = &mut answered => { read.unwrap(); break }
            _ = ticks.tick() => write.write_all(b"1\r\na\r\n").await.unwrap(),
        }
    }

    drop(answered);
    assert_eq!(&answer, b"HTTP/1.1 408");
}

#[tokio::test]
async fn a_peer_that_takes_next_to_nothing_is_let_go() {
    let listener = Listener::with(ConnectionLimits {
        stall: Duration::from_millis(100),
        ..Default::default()
    });
    let mut stream = listener.connect_from(STRANGER).await;
    stream.write_all(b"GET /large HTTP/1.1\r\n\r\n").await.unwrap();
    let mut ticks = interval(Duration::from_millis(20));
    let mut taken = 0;

    let broken = timeout(PATIENCE, async {
        let mut buffer = [0; 64];
        loop {
            ticks.tick().await;
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(n) => taken += n,
            }
            if listener.metrics.text().contains("slow_reader") {
                return;
            }
        }
    });

    assert!(broken.await.is_ok(), "{taken} bytes were taken");
}

#[tokio::test]
async fn bodies_have_a_limit_each_and_in_all() {
    let bodies = BodyLimits { each: 1_000, all: 2_500 };
    let listener = Listener::made(ConnectionLimits::default(), bodies);
    let whole = |len: usize| {
        let head =
            format!("POST /echo HTTP/1.1\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n");
        head + &"a".repeat(len)
    };

    let fits = listener.say_from(STRANGER, whole(1_000).as_bytes()).await;
    assert!(fits.starts_with("HTTP/1.1 200 OK"), "{fits}");
    let long = listener.say_from(STRANGER, whole(1_001).as_bytes()).await;
    assert!(long.starts_with("HTTP/1.1 413 Payload Too Large"), "{long}");
    let chunks = format!(
        "POST /echo HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n",
        "a".repeat(1_001)
    );
    let long = listener.say_from(STRANGER, chunks.as_bytes()).await;
    assert!(long.starts_with("HTTP/1.1 413 Payload Too Large"), "{long}");

    // Each body lacks its last byte, so that only two fit.
    let mut unfinished = Vec::new();
    for _ in 0..3 {
        let mut stream = listener.connect_from(STRANGER).await;
        let text = whole(1_000);
        stream.write_all(&text.as_bytes()[..text.len() - 1]).await.unwrap();
        unfinished.push(stream);
    }
    let mut first_answer = String::new();
    let answers = unfinished.iter_mut().map(|stream| {
        let mut answer = String::new();
        Box::pin(async move {
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        })
    });
    first_answer += &futures::future::select_all(answers).await.0;
    assert!(first_answer.starts_with("HTTP/1.1 503 Service Unavailable"), "{first_answer}");
    let small = listener.say_from(MACHINE, whole(10).as_bytes()).await;
    assert!(small.starts_with("HTTP/1.1 200 OK"), "{small}");
}

#[tokio::test]
async fn what_is_only_announced_costs_nothing() {
    let bodies = BodyLimits { each: 1_000, all: 1_000 };
    let listener = Listener::made(ConnectionLimits::default(), bodies);
    let mut announced = Vec::new();
    for _ in 0..10 {
        let mut stream = listener.connect_from(STRANGER).await;
        stream.write_all(HALF_BODY).await.unwrap();
        announced.push(stream);
    }

    let body = b"POST /echo HTTP/1.1\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc";
    let said = listener.say_from(MACHINE, body).await;

    assert!(said.starts_with("HTTP/1.1 200 OK"), "{said}");
}

#[tokio::test]
async fn odd_requests_hang_nobody() {
    let listener = Listener::with(ConnectionLimits {
        idle: Duration::from_millis(200),
        head: Duration::from_millis(200),
        body: Duration::from_millis(200),
        ..Default::default()
    });

    for (request, starts) in [
        // An HTTP/1.0 answer, after which the connection closes.
        ("GET /ok HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
        ("\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("GET /ok HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 400"),
        ("GET /ok HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 400"),
        (
            "POST /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 408 Request Timeout",
        ),
        (
            "POST /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 9000000\r\n\r\n",
            "HTTP/1.1 413 Payload Too Large",
        ),
        ("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 400"),
        (
            "GET /ok HTTP/1.1\r\n\r\nGET /ok HTTP/1.1\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 200 OK",
        ),
    ] {
        let said = listener.say_and_wait(request.as_bytes()).await;
        assert!(said.starts_with(starts), "{request:?}: {said:?}");
    }
    let long = format!("GET /ok HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(40_000));
    let said = listener.say_and_wait(long.as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 431"), "{said}");
}

#[tokio::test]
async fn a_body_that_is_shorter_than_its_length_says_is_refused_at_once() {
    let listener = Listener::with(ConnectionLimits::default());
    let mut stream = listener.connect_from(STRANGER).await;
    stream.write_all(HALF_BODY).await.unwrap();

    stream.shutdown().await.unwrap();

    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the connection is closed");
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn a_burst_of_one_client_is_served_whole() {
    let limits =
        ConnectionLimits { connections: 40, waiting: 100, per_peer: 10, ..Default::default() };
    let listener = Listener::with(limits);

    let all = (0..60).map(|_| listener.say_from(MACHINE, OK));

    for answer in futures::future::join_all(all).await {
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
}

#[tokio::test]
async fn connections_of_machines_behind_one_address_are_counted_for_their_nodes() {
    let listener = Listener::with(ConnectionLimits { per_peer: 1, ..Default::default() });
    let mut machines = Vec::new();

    for n in 0..10 {
        let mut stream = listener.connect_from(MACHINE).await;
        let request = format!("GET /machine/{n} HTTP/1.1\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut start = [0; 15];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200 OK");
        machines.push(stream);
    }

    for mut stream in machines {
        stream.write_all(OK).await.unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).await.unwrap();
        assert!(answers.contains("HTTP/1.1 200 OK"), "{answers}");
    }
}

#[tokio::test]
async fn a_machine_behind_an_address_of_many_is_counted_for_its_node_while_its_request_waits() {
    let listener = Listener::with(ConnectionLimits { per_peer: 1, ..Default::default() });
    let mut waiting = Vec::new();

    for n in 0..10 {
        let mut stream = listener.connect_from(MACHINE).await;
        let request = format!("GET /waiting/{n} HTTP/1.1\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        waiting.push(stream);
    }
    // The last of them lets all others go: each was let in while the others waited.
    let last = listener.say_from(MACHINE, b"GET /waiting/10 HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert!(last.await.starts_with("HTTP/1.1 200 OK"));

    for mut stream in waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
}

#[tokio::test]
async fn who_takes_none_of_its_long_answers_gets_no_more_of_them() {
    let listener = Listener::with(ConnectionLimits::default());
    let ask = async |from| {
        let mut stream = listener.connect_from(from).await;
        stream.write_all(b"GET /large HTTP/1.1\r\n\r\n").await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        (stream, String::from_utf8(status.to_vec()).unwrap())
    };
    let (first, status) = ask(STRANGER).await;
    assert_eq!(status, "HTTP/1.1 200");

    assert_eq!(ask(STRANGER).await.1, "HTTP/1.1 503");
    assert!(listener.say_from(STRANGER, OK).await.starts_with("HTTP/1.1 200 OK"));

    drop(first);
    // The server notices the closed connection as soon as it sends more.
    while ask(STRANGER).await.1 != "HTTP/1.1 200" {}
}

#[tokio::test]
async fn the_end_of_the_service_waits_for_no_half_request() {
    let limits = ConnectionLimits { end: Duration::from_millis(100), ..Default::default() };
    let mut listener = Listener::with(limits);
    let mut half = Vec::new();
    for first in [&b""[..], HALF, HALF_BODY, b"GET /large HTTP/1.1\r\n\r\n"] {
        let mut stream = listener.connect_from(STRANGER).await;
        stream.write_all(first).await.unwrap();
        half.push(stream);
    }
    // The other connections are older.
    listener.say_from(STRANGER, OK).await;

    listener.end.take().unwrap().send(()).unwrap();

    timeout(PATIENCE, &mut listener.serving).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn a_client_hello_on_a_plain_port_is_a_failed_handshake_and_is_answered_in_words() {
    let mut listener = Listener::with(ConnectionLimits::default());

    let answer = listener.say_from(MACHINE, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
    let garbage = listener.say_from(STRANGER, b"\x17\x03\x01\r\n\r\n").await;

    assert!(answer.starts_with("HTTP/1.1 400") && garbage.starts_with("HTTP/1.1 400"));
    let failed = timeout(PATIENCE, listener.failed_handshakes.recv()).await.unwrap();
    assert_eq!(failed, Some((MACHINE.into(), HandshakeFailure::PlainPort)));
    assert!(listener.failed_handshakes.try_recv().is_err(), "the other one is none");
}

#[tokio::test]
async fn the_peer_of_a_socket_of_both_families_is_an_ipv4_address() {
    let listener = Listener::with(ConnectionLimits::default());

    let said = listener.say_from(MACHINE, b"GET /ok HTTP/1.1\r\nConnection: close\r\n\r\n").await;

    assert!(said.ends_with("127.0.0.2"), "{said}");
}

/// The peers of a port that expects nobody.
#[derive(Debug)]
struct TestPeers {
    failed: mpsc::UnboundedSender<(IpAddr, HandshakeFailure)>,
}

impl PortPeers for TestPeers {
    fn expects(&self, _remote: IpAddr) -> bool {
        false
    }

    fn handshake_failed(&self, remote: IpAddr, failure: &HandshakeFailure) {
        let _ = self.failed.send((remote, failure.clone()));
    }
}

/// A port with a few routes, on a socket of both families.
struct Listener {
    port: u16,
    metrics: HttpMetrics,
    failed_handshakes: mpsc::UnboundedReceiver<(IpAddr, HandshakeFailure)>,
    end: Option<oneshot::Sender<()>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Listener {
    fn with(limits: ConnectionLimits) -> Self {
        Self::made(limits, BodyLimits { each: 1 << 20, all: 32 << 20 })
    }

    fn made(limits: ConnectionLimits, bodies: BodyLimits) -> Self {
        let listener = crate::listen::listen("[::]:0".parse().unwrap(), "a test").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ok = |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.ip().to_string() };
        let router = Router::new()
            .route("/ok", get(ok))
            .route("/echo", post(echo))
            .route("/machine/{n}", get(machine))
            .route("/waiting/{n}", get(waiting))
            .layer(Extension(Arc::new(tokio::sync::Barrier::new(11))))
            .route("/large", get(|| async { vec![0_u8; 64 << 20] }));
        let metrics = HttpMetrics::default();
        let (end, ended) = oneshot::channel();
        let (failed, failed_handshakes) = mpsc::unbounded_channel();
        let port_served = ServedPort {
            name: "api",
            listeners: vec![PortListener { socket: listener, tls: None }],
            limits,
            bodies,
            headers: HeaderNames::LowerCase,
            service: RouterService::new(
                router,
                UsefulAnswers::NoErrors,
                64 << 20,
                || StatusCode::SERVICE_UNAVAILABLE.into_response(),
                Arc::new(TestPeers { failed }),
            ),
            metrics: metrics.clone(),
        };
        let serving = tokio::spawn(serve(port_served, async move {
            let _ = ended.await;
        }));
        Self { port, metrics, failed_handshakes, end: Some(end), serving }
    }

    async fn connect_from(&self, address: Ipv4Addr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((address, 0))).unwrap();
        socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))).await.unwrap()
    }

    /// The answer to a request that closes its connection.
    async fn say_from(&self, address: Ipv4Addr, request: &[u8]) -> String {
        let mut stream = self.connect_from(address).await;
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        let read = timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
        read.expect("an answer comes").unwrap();
        answer
    }

    /// The answer up to the end of the connection, however it ends.
    async fn say_and_wait(&self, request: &[u8]) -> String {
        let mut stream = self.connect_from(STRANGER).await;
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        let _ = read.expect("the connection is closed");
        String::from_utf8(answer).unwrap()
    }
}

/// The answer of a route that identifies the machine by its token.
async fn machine(Path(n): Path<u32>) -> (StatusCode, Extension<ServedNode>) {
    (StatusCode::OK, Extension(ServedNode(Uuid::from_u128(n.into()))))
}

/// The answer of a route that identifies the machine, and then waits for ten others.
async fn waiting(
    Path(n): Path<u32>,
    Extension(owner): Extension<ConnectionOwner>,
    Extension(others): Extension<Arc<tokio::sync::Barrier>>,
) {
    owner.is_node(Uuid::from_u128(n.into()));
    others.wait().await;
}

async fn echo(request: Request) -> Result<Bytes, (StatusCode, String)> {
    let body: Body = request.into_body();
    axum::body::to_bytes(body, usize::MAX).await.map_err(|error| {
        let status = match body_error(&error).expect("an error of a body") {
            BodyError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            BodyError::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
            BodyError::Broken(_) => StatusCode::BAD_REQUEST,
        };
        (status, String::new())
    })
}

fn body_error<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e BodyError> {
    error.downcast_ref().or_else(|| body_error(error.source()?))
}

/// Counts the warnings of a thread.
#[derive(Clone, Default)]
struct CountedWarnings(Arc<AtomicUsize>);

impl Subscriber for CountedWarnings {
    fn enabled(&self, about: &Metadata<'_>) -> bool {
        *about.level() == Level::WARN
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[test]
fn a_listener_without_a_certificate_warns_in_the_log_and_not_for_each_client() {
    let warnings = |failure: HandshakeFailure| {
        let counted = CountedWarnings::default();
        tracing::subscriber::with_default(counted.clone(), || {
            for _ in 0..100 {
                log_failure((STRANGER, 1).into(), &failure);
            }
        });
        counted.0.load(Ordering::Relaxed)
    };

    assert_eq!(warnings(HandshakeFailure::NoCertificate("key too small".to_owned())), 1);
    assert_eq!(warnings(HandshakeFailure::Closed), 0);
}
