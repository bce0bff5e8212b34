//! One HTTP exchange with a BMC, with its limits.

use std::error::Error;
use std::io::Read;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use futures::future::join;
use hardware::HttpMethod;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use redfish::channel::{ChannelFailure, RedfishAnswer, RedfishRequest};
use serde_json::{Map, Value};
use tokio::time::timeout;
use transport::answers::{ANSWER_LIMIT, ERROR_LIMIT};
use url::Url;

use crate::connect_failure::{ConnectFailure, innermost};
use crate::connector::{BmcConnector, BmcTls, OpenConnections};

/// Time limit of an exchange, from the connection to the last byte. Some BMCs take most of a minute during their
/// machine's self-test.
const EXCHANGE: Duration = Duration::from_secs(60);
/// Idle time of a connection until it is closed: BMCs have few sockets.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);
/// Number of connections up to which those are kept that no request follows for a while. With TLS, each takes some 34 KiB.
const FEW_CONNECTIONS: usize = 256;
/// Requests to one BMC at once, and so its connections: BMCs have few processes for requests.
pub(crate) const REQUESTS_AT_ONCE: usize = 4;
/// Size limit of the head of an answer, in bytes.
const HEAD_LIMIT: usize = 64 << 10;

const TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// The HTTP client for one policy of TLS.
pub(crate) struct BmcHttp {
    client: Client<BmcConnector, Full<Bytes>>,
    open: OpenConnections,
}

/// What becomes of a connection after its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterRequest {
    /// It is kept for the next request.
    Keep,
    /// It is closed if many are open: no request follows for a while.
    CloseIfMany,
}

/// The credentials of a request; its `Debug` shows none, since its values are marked as sensitive.
#[derive(Clone, Debug)]
pub(crate) enum RequestCredentials {
    None,
    /// The value of `Authorization`.
    Basic(HeaderValue),
    /// The value of `X-Auth-Token`.
    Token(HeaderValue),
}

/// An answer, and the token of the session that it opened.
pub(crate) struct TokenAnswer {
    pub(crate) answer: RedfishAnswer,
    pub(crate) token: Option<HeaderValue>,
}

impl BmcHttp {
    pub(crate) fn new(tls: BmcTls, open: OpenConnections) -> Self {
        let connector = BmcConnector::new(tls, open.clone());
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_max_idle_per_host(REQUESTS_AT_ONCE)
            .http1_max_buf_size(HEAD_LIMIT)
            .http1_ignore_invalid_headers_in_responses(true)
            .http1_title_case_headers(true);
        Self { client: builder.build(connector), open }
    }

    /// Sends a request and receives the whole answer. A redirect is an answer.
    pub(crate) async fn exchange(
        &self,
        address: &Url,
        request: &RedfishRequest,
        credentials: &RequestCredentials,
        after: AfterRequest,
    ) -> Result<TokenAnswer, ChannelFailure> {
        let mut http = http_request(address, request, credentials)?;
        let connection = capture_connection(&mut http);
        let exchange = async {
            let (answer, ()) = join(self.client.request(http), self.mark(connection, after)).await;
            let answer = answer.map_err(|error| failure(&error))?;
            received(answer, request.method == HttpMethod::Get).await
        };
        let slow = || format!("no complete answer within {} s", EXCHANGE.as_secs());
        // A connection has a shorter limit: when this one is over, the request was sent.
        timeout(EXCHANGE, exchange).await.unwrap_or_else(|_| Err(ChannelFailure::BrokeOff(slow())))
    }
}

impl BmcHttp {
    /// Marks the connection of a request, once it has one, to be closed after it. After the answer it might be back
    /// among the kept ones.
    async fn mark(&self, mut connection: CaptureConnection, after: AfterRequest) {
        if after == AfterRequest::Keep {
            return;
        }
        if let Some(connection) = &*connection.wait_for_connection_metadata().await
            && self.open.count() > FEW_CONNECTIONS
        {
            connection.poison();
        }
    }
}

fn http_request(
    address: &Url,
    request: &RedfishRequest,
    credentials: &RequestCredentials,
) -> Result<Request<Full<Bytes>>, ChannelFailure> {
    let unusable = |error: &dyn Error| ChannelFailure::Unusable(error.to_string());
    let method = Method::from_bytes(request.method.as_str().as_bytes());
    let builder = Request::builder()
        .method(method.map_err(|error| unusable(&error))?)
        .uri(uri(address, &request.path)?)
        .header(header::USER_AGENT, concat!("ferroboot/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "application/json")
        .header(header::ACCEPT_ENCODING, "identity")
        .header("OData-Version", "4.0");
    let builder = match credentials {
        RequestCredentials::None => builder,
        RequestCredentials::Basic(value) => builder.header(header::AUTHORIZATION, value),
        RequestCredentials::Token(value) => builder.header(TOKEN, value),
    };
    let builder = match &request.if_match {
        Some(etag) => builder.header(header::IF_MATCH, etag),
        None => builder,
    };
    let http = match &request.body {
        Some(body) => builder
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body.to_string())),
        None => builder.body(Full::default()),
    };
    http.map_err(|error| unusable(&error))
}

/// The path may come from the BMC: it changes neither scheme nor host.
fn uri(address: &Url, path: &str) -> Result<Uri, ChannelFailure> {
    let mut url = address.clone();
    let (path, query) = path.split_once('?').map_or((path, None), |(path, q)| (path, Some(q)));
    url.set_path(path);
    url.set_query(query);
    url.as_str().parse().map_err(|error| ChannelFailure::Unusable(format!("{path:?}: {error}")))
}

/// The whole answer to a read, or to a change.
async fn received(
    answer: Response<Incoming>,
    is_read: bool,
) -> Result<TokenAnswer, ChannelFailure> {
    let (head, body) = answer.into_parts();
    let body = match head.status {
        StatusCode::NO_CONTENT => Vec::new(),
        status if status.is_success() => {
            // A change was accepted, whatever becomes of the body; its result is read by a later request.
            let is_needed = is_read && status != StatusCode::ACCEPTED;
            limited_body(body, is_needed).await?
        }
        _ => error_body(body).await,
    };
    let body = uncompressed(body, &head.headers)?;
    let mut token = head.headers.get(&TOKEN).cloned();
    if let Some(token) = &mut token {
        token.set_sensitive(true);
    }
    let text = |name| text(&head.headers, name);
    // By the BMC's own clock, which is often wrong.
    let sent = text(header::DATE).and_then(|date| httpdate::parse_http_date(&date).ok());
    let sent = sent.unwrap_or_else(SystemTime::now);
    let answer = RedfishAnswer {
        status: head.status,
        etag: text(header::ETAG),
        location: text(header::LOCATION),
        retry_after: text(header::RETRY_AFTER).and_then(|value| retry_after(&value, sent)),
        body,
    };
    Ok(TokenAnswer { answer, token })
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Seconds, or a date (RFC 9110 §10.2.3), from the time when the answer was sent.
fn retry_after(value: &str, sent: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    Some(until.duration_since(sent).unwrap_or_default())
}

/// The body. One that breaks off is a failure if it is needed, unless it is a whole JSON object: some BMCs send no end
/// of a chunked body, or a wrong `Content-Length`, and close the connection.
async fn limited_body(mut body: Incoming, is_needed: bool) -> Result<Vec<u8>, ChannelFailure> {
    let too_long = || answer_is_too_long(ANSWER_LIMIT);
    if body.size_hint().lower() > ANSWER_LIMIT as u64 {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(_) if is_whole(&bytes) => break,
            Err(_) if !is_needed => return Ok(Vec::new()),
            Err(error) => {
                let words = format!("the answer broke off: {}", innermost(&error));
                return Err(ChannelFailure::BrokeOff(words));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > ANSWER_LIMIT {
            return Err(too_long());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

fn answer_is_too_long(limit: usize) -> ChannelFailure {
    ChannelFailure::Unusable(format!("the answer has more than {limit} bytes"))
}

/// Whether a body that broke off is a whole JSON object all the same.
fn is_whole(body: &[u8]) -> bool {
    serde_json::from_slice::<Map<String, Value>>(body).is_ok()
}

/// The body without the compression that its headers name. iLO compresses some of its resources always.
fn uncompressed(body: Vec<u8>, headers: &HeaderMap) -> Result<Vec<u8>, ChannelFailure> {
    let coding = text(headers, header::CONTENT_ENCODING).unwrap_or_default();
    let mut decoder: Box<dyn Read> = match coding.trim().to_ascii_lowercase().as_str() {
        "gzip" | "x-gzip" => Box::new(MultiGzDecoder::new(body.as_slice())),
        "deflate" => Box::new(ZlibDecoder::new(body.as_slice())),
        _ => return Ok(body),
    };
    let mut plain = Vec::new();
    let most = ANSWER_LIMIT as u64 + 1;
    match decoder.by_ref().take(most).read_to_end(&mut plain) {
        Ok(_) if plain.len() > ANSWER_LIMIT => Err(answer_is_too_long(ANSWER_LIMIT)),
        Ok(_) => Ok(plain),
        // What is not compressed after all is read as it is.
        Err(_) => {
            drop(decoder);
            Ok(body)
        }
    }
}

/// The body of an error, cut to [`ERROR_LIMIT`]. The status counts even if the body breaks off.
async fn error_body(mut body: Incoming) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < ERROR_LIMIT
        && let Some(Ok(frame)) = body.frame().await
    {
        let Ok(data) = frame.into_data() else { continue };
        bytes.extend_from_slice(&data[..data.len().min(ERROR_LIMIT - bytes.len())]);
    }
    bytes
}

fn failure(error: &legacy::Error) -> ChannelFailure {
    let cause = innermost(error);
    if let Some(failure) = found::<ConnectFailure>(error) {
        return match failure.clone() {
            ConnectFailure::Unreachable(words) => ChannelFailure::NotConnected(words),
            ConnectFailure::Unusable(words) => ChannelFailure::Unusable(words),
        };
    }
    match found::<hyper::Error>(error) {
        // hyper returns a request that it had not begun to send.
        Some(hyper) if hyper.is_canceled() => ChannelFailure::NotConnected(
            "the BMC closed the connection before it had the request".to_owned(),
        ),
        Some(hyper) if hyper.is_parse_too_large() => ChannelFailure::Unusable(format!(
            "the head of the answer has more than {HEAD_LIMIT} bytes, or too many lines"
        )),
        Some(hyper) if hyper.is_parse() => {
            ChannelFailure::BrokeOff(format!("the answer is no HTTP: {cause}"))
        }
        Some(_) => ChannelFailure::BrokeOff(cause.to_string()),
        None if error.is_connect() => ChannelFailure::NotConnected(cause.to_string()),
        None => ChannelFailure::BrokeOff(cause.to_string()),
    }
}

fn found<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_bmc_leads_to_no_other_host() {
        let address = Url::parse("https://192.0.2.1:8443/").unwrap();
        for (path, expected) in [
            ("/redfish/v1/Systems/1", "https://192.0.2.1:8443/redfish/v1/Systems/1"),
            ("//evil.example/x", "https://192.0.2.1:8443//evil.example/x"),
            ("/a b/é#?$select=Id&x=%20", "https://192.0.2.1:8443/a%20b/%C3%A9%23?$select=Id&x=%20"),
            ("@evil.example/", "https://192.0.2.1:8443/@evil.example/"),
        ] {
            assert_eq!(uri(&address, path).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn retry_after_is_a_number_of_seconds_or_a_date() {
        let sent = httpdate::parse_http_date("Sun, 29 Nov 2026 12:00:00 GMT").unwrap();
        for (value, seconds) in [
            (" 5 ", Some(5)),
            ("Sun, 29 Nov 2026 12:01:30 GMT", Some(90)),
            ("Sat, 28 Nov 2026 12:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(retry_after(value, sent), seconds.map(Duration::from_secs), "{value}");
        }
    }
}
