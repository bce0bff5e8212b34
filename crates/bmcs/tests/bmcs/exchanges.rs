//! Connections, and answers without a good end.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bmcs::{BmcConnections, BmcLink};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::future::join_all;
use redfish::channel::ChannelFailure;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{advance, pause, resume};
use transport::test_servers::{Hostility, hostile_server};

use crate::test_bmc::{SYSTEM, TestBmc, answer, get, settings, status};

/// A link with basic authentication, which sends nothing but the request.
async fn link_to(address: SocketAddr) -> BmcLink<'static, String> {
    let settings = settings(&format!("http://{address}"), json!({"redfish_auth_type": "basic"}));
    BmcConnections::new().link(&settings, Box::new(|_, _| ())).await.unwrap()
}

async fn asked(hostility: Hostility) -> ChannelFailure {
    get(&link_to(hostile_server(hostility).await).await, SYSTEM).await.unwrap_err()
}

#[tokio::test]
async fn an_answer_beyond_its_limit_is_not_received() {
    for (hostility, words) in [
        (Hostility::Endless, "the answer has more than 4194304 bytes"),
        (Hostility::LiesLong, "the answer has more than 4194304 bytes"),
        (
            Hostility::EndlessHead,
            "the head of the answer has more than 65536 bytes, or too many lines",
        ),
    ] {
        assert_eq!(asked(hostility).await, ChannelFailure::Unusable(words.to_owned()));
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_failure_of_a_request_that_was_sent() {
    let failure = asked(Hostility::BreaksOff).await;

    let ChannelFailure::BrokeOff(words) = failure else { panic!("{failure:?}") };
    assert!(words.starts_with("the answer broke off: "), "{words}");
}

/// A server that answers each connection with these bytes, and closes it.
async fn raw_server(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    address
}

fn raw(head: &str, body: &[u8]) -> Vec<u8> {
    [b"HTTP/1.1 200 OK\r\n", head.as_bytes(), b"\r\n\r\n", body].concat()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_whole_object_is_received_however_its_answer_ends() {
    let body = br#"{"Id": "1"}"#;
    let compressed = gzip(body);
    let length = format!("Content-Encoding: gzip\r\nContent-Length: {}", compressed.len());
    for (name, answer) in [
        ("no last chunk", raw("Transfer-Encoding: chunked", b"b\r\n{\"Id\": \"1\"}\r\n")),
        ("Content-Length too large", raw("Content-Length: 20", body)),
        ("until it closes", raw("Connection: close", body)),
        ("HTTP/1.0", [b"HTTP/1.0 200 OK\r\n\r\n".as_slice(), body].concat()),
        ("gzip without being asked", raw(&length, &compressed)),
        ("gzip that is none", raw("Content-Encoding: gzip\r\nContent-Length: 11", body)),
    ] {
        let received = get(&link_to(raw_server(answer).await).await, SYSTEM).await;

        assert_eq!(received.unwrap().body, body, "{name}");
    }
}

#[tokio::test]
async fn a_compressed_answer_has_the_limit_of_others() {
    let body = gzip(&vec![b' '; 5 << 20]);
    let head = format!("Content-Encoding: gzip\r\nContent-Length: {}", body.len());

    let failure = get(&link_to(raw_server(raw(&head, &body)).await).await, SYSTEM).await;

    let words = "the answer has more than 4194304 bytes".to_owned();
    assert_eq!(failure.unwrap_err(), ChannelFailure::Unusable(words));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_awaited_for_a_minute() {
    let slow = ChannelFailure::BrokeOff("no complete answer within 60 s".to_owned());
    for hostility in [Hostility::Silent, Hostility::Trickles] {
        assert_eq!(asked(hostility).await, slow, "{hostility:?}");
    }
}

#[tokio::test]
async fn a_closed_port_is_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);

    let failure = get(&link_to(address).await, SYSTEM).await.unwrap_err();

    let ChannelFailure::NotConnected(words) = failure else { panic!("{failure:?}") };
    assert!(words.starts_with("127.0.0.1 cannot be reached: Connection refused"), "{words}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_with_its_location() {
    let answer = get(&link_to(hostile_server(Hostility::Redirects).await).await, SYSTEM).await;
    let answer = answer.unwrap();

    assert_eq!((answer.status.as_u16(), answer.location.as_deref()), (302, Some("/again")));
}

#[tokio::test]
async fn a_status_and_its_headers_reach_the_caller() {
    let bmc = TestBmc::start().await;
    bmc.set_fault(|_, _| {
        let mut busy = answer(503, "later");
        // By the BMC's clock, which lags.
        busy.headers_mut().insert("Date", "Thu, 01 Jan 1970 00:10:00 GMT".parse().unwrap());
        let until = "Thu, 01 Jan 1970 00:11:30 GMT".parse().unwrap();
        busy.headers_mut().insert("Retry-After", until);
        busy.headers_mut().insert("ETag", "W/\"7\"".parse().unwrap());
        Some(busy)
    });
    let link = bmc.link(&BmcConnections::new(), json!({"redfish_auth_type": "basic"})).await;

    let answer = get(&link, SYSTEM).await.unwrap();

    assert_eq!(answer.retry_after, Some(Duration::from_secs(90)));
    assert_eq!(answer.etag.as_deref(), Some("W/\"7\""));
    assert_eq!(answer.body, b"later");
}

#[tokio::test]
async fn four_requests_at_once_reach_a_bmc_whoever_sends_them() {
    let bmc = TestBmc::start().await;
    let connections = BmcConnections::new();
    let basic = json!({"redfish_auth_type": "basic"});
    let links = join_all((0..6).map(|_| bmc.link(&connections, basic.clone()))).await;
    let others = join_all((0..6).map(|_| bmc.link(&connections, json!({})))).await;
    assert_eq!((status(&links[0]).await, status(&others[0]).await), (200, 200));
    bmc.hold();

    let all = links.iter().chain(&others).map(status);
    let (statuses, ()) = tokio::join!(join_all(all), async {
        bmc.reached(4).await;
        bmc.let_go(100);
    });

    assert_eq!(statuses, [200; 12]);
    assert_eq!(bmc.most_at_once(), 4);
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let bmc = TestBmc::start().await;
    let link = bmc.link(&BmcConnections::new(), json!({})).await;
    assert_eq!((status(&link).await, status(&link).await), (200, 200));
    assert_eq!(bmc.connections(), 1);

    pause();
    advance(Duration::from_secs(31)).await;
    resume();

    bmc.has_connections(0).await;
    assert_eq!(status(&link).await, 200);
}

/// Reads one request and writes this answer, which does not say that the connection will be closed.
async fn one_answer(stream: &mut TcpStream, answer: &[u8]) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert!(stream.read_buf(&mut request).await.unwrap() > 0);
    }
    stream.write_all(answer).await.unwrap();
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

#[tokio::test]
async fn a_connection_that_the_bmc_closed_meanwhile_is_replaced() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = link_to(listener.local_addr().unwrap()).await;
    let (close, mut close_now) = mpsc::channel(1);
    let (closed, mut closes) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            one_answer(&mut stream, ANSWER).await;
            let () = close_now.recv().await.unwrap();
            drop(stream);
            closed.send(()).await.unwrap();
        }
    });

    for _ in 0..50 {
        assert_eq!(status(&link).await, 200);
        close.send(()).await.unwrap();
        // The next request is made before the client has seen the end of its connection.
        closes.recv().await.unwrap();
    }
}

#[tokio::test]
async fn a_request_that_was_received_is_not_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = link_to(listener.local_addr().unwrap()).await;
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            // The second request on each connection is received, and not answered.
            for answer in [ANSWER, b""] {
                one_answer(&mut stream, answer).await;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    assert_eq!(status(&link).await, 200);

    let failure = get(&link, SYSTEM).await.unwrap_err();

    assert!(matches!(failure, ChannelFailure::BrokeOff(_)), "{failure:?}");
    assert_eq!(requests.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn an_accepted_request_whose_body_breaks_off_is_accepted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = link_to(listener.local_addr().unwrap()).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        one_answer(&mut stream, b"HTTP/1.1 202 Accepted\r\nContent-Length: 9\r\n\r\n{").await;
    });

    let answer = get(&link, SYSTEM).await.unwrap();

    assert_eq!((answer.status.as_u16(), answer.body.len()), (202, 0));
}

/// 256 are few.
#[tokio::test]
async fn connections_for_one_look_are_kept_as_long_as_few_are_open() {
    let connections = BmcConnections::new();
    let mut bmcs = Vec::new();
    for _ in 0..260 {
        let bmc = TestBmc::start().await;
        let link = bmc.link(&connections, json!({})).await.for_one_look();
        assert_eq!(status(&link).await, 200);
        bmcs.push(bmc);
    }

    // Each of the last four is closed after its answer.
    for (number, bmc) in bmcs.iter().enumerate() {
        bmc.has_connections(usize::from(number < 256)).await;
    }
    let link = bmcs[259].link(&connections, json!({})).await;
    assert_eq!(status(&link).await, 200);
    bmcs[259].has_connections(1).await;
}
