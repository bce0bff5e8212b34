//! Requests with a login: by a session where the BMC has one to spare, else by basic authentication.
//!
//! A wrong password costs one request, or two if the BMC offers no sessions: many BMCs lock a user out after a few.
//! While a login is tried, the other requests to the BMC wait for its result, and share it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hardware::{HttpMethod, RedfishPurpose};
use http::StatusCode;
use http::header::HeaderValue;
use redfish::channel::{ChannelFailure, RedfishAnswer, RedfishRequest};
use serde_json::json;
use tokio::sync::MutexGuard;
use tokio::time::Instant;
use tracing::warn;

use crate::http_client::{AfterRequest, RequestCredentials, TokenAnswer};
use crate::record::{BmcRecord, BmcSession, LoginState};
use crate::session_answer::{
    SESSIONS, SessionAnswer, meaning, opened_session, redirect_within, says_session_over,
    sessions_in_root,
};
use crate::settings::{BmcAuthType, BmcUser};

/// Time of basic authentication after the BMC had no session to spare.
const WITHOUT_SESSION: Duration = Duration::from_secs(300);

/// Number of characters of a `Location` in an error.
const SHOWN_LOCATION: usize = 200;

const SERVICE_ROOT: &str = "/redfish/v1/";

/// Told of each exchange, with its result; logins are without their bodies.
pub type BmcObserver<'o> =
    dyn Fn(&RedfishRequest, Result<&RedfishAnswer, &ChannelFailure>) + Send + Sync + 'o;

type ExchangeOutcome = Result<RedfishAnswer, ChannelFailure>;

/// A user of a BMC.
pub(crate) struct BmcCaller<'o, F> {
    pub(crate) record: Arc<BmcRecord<F>>,
    pub(crate) user: Option<BmcUser>,
    pub(crate) auth_type: BmcAuthType,
    pub(crate) observer: Box<BmcObserver<'o>>,
    /// Whether the first look at the system is the last request for a while.
    pub(crate) looks_once: bool,
}

/// The login for a request.
enum RequestLogin<'r> {
    Anonymous,
    Basic,
    Session(Arc<BmcSession>),
    Trial(BasicTrial<'r>),
    /// The request is not sent; this is its outcome.
    Failed(ExchangeOutcome),
}

/// The request will show whether basic authentication works; the others wait.
struct BasicTrial<'r> {
    state: MutexGuard<'r, LoginState>,
    /// The outcome if basic authentication is refused; without one, the BMC's own answer.
    otherwise: Option<ExchangeOutcome>,
}

impl RequestLogin<'_> {
    fn session(&self) -> Option<Arc<BmcSession>> {
        match self {
            Self::Session(session) => Some(Arc::clone(session)),
            Self::Anonymous | Self::Basic | Self::Trial(_) | Self::Failed(_) => None,
        }
    }
}

impl<F> BmcCaller<'_, F> {
    /// Sends a request that waits since `begun`; once more if its session had ended.
    pub(crate) async fn exchange(
        &self,
        request: &RedfishRequest,
        begun: Instant,
    ) -> ExchangeOutcome {
        let login = self.login(begun).await;
        let ended = login.session();
        let answer = self.send_by(login, request).await?;
        let Some(ended) = ended.filter(|_| says_session_over(&answer)) else {
            return Ok(answer);
        };
        // Before the wait for another request's login, so that its failure is shared.
        let refused = Instant::now();
        self.record.forget_session(&ended).await;
        let login = self.login(refused).await;
        let opened = login.session();
        let answer = self.send_by(login, request).await?;
        if let Some(opened) = opened.filter(|_| says_session_over(&answer)) {
            // The user must not do this, and the former session is still open.
            self.record.delete(&ended, &opened.credentials()).await;
        }
        Ok(answer)
    }

    async fn send_by(&self, login: RequestLogin<'_>, request: &RedfishRequest) -> ExchangeOutcome {
        match login {
            RequestLogin::Failed(outcome) => outcome,
            RequestLogin::Anonymous => self.send(request, &RequestCredentials::None).await,
            RequestLogin::Session(session) => self.send(request, &session.credentials()).await,
            RequestLogin::Trial(trial) => self.try_basic(trial, request).await,
            RequestLogin::Basic => {
                let answer = self.send(request, &self.basic()).await?;
                if answer.status == StatusCode::UNAUTHORIZED {
                    self.record.forget_basic().await;
                }
                Ok(answer)
            }
        }
    }

    /// The login for a request that waits since `begun`: the known one, or a new one. Another request's failure since
    /// then is shared.
    async fn login(&self, begun: Instant) -> RequestLogin<'_> {
        let Some(user) = &self.user else { return RequestLogin::Anonymous };
        let mut state = self.record.login.lock().await;
        match &*state {
            LoginState::Session(session) => return RequestLogin::Session(Arc::clone(session)),
            LoginState::Basic(until) if until.is_none_or(|until| Instant::now() < until) => {
                return RequestLogin::Basic;
            }
            LoginState::Failed(at, outcome) if *at >= begun => {
                return RequestLogin::Failed(outcome.clone());
            }
            LoginState::Unknown | LoginState::Basic(_) | LoginState::Failed(..) => {}
        }
        if self.auth_type == BmcAuthType::Basic {
            return RequestLogin::Trial(BasicTrial { state, otherwise: None });
        }
        let outcome = match self.open_session(user).await {
            Err(failure) => Err(unsent(failure)),
            Ok((SessionAnswer::Opened, opened)) => {
                let session = Arc::new(session_of(opened));
                *state = LoginState::Session(Arc::clone(&session));
                self.record.note_refuses_basic(false);
                return RequestLogin::Session(session);
            }
            Ok((SessionAnswer::Refused, refused)) => Ok(refused.answer),
            // The answer itself would look like that to the request.
            Ok((SessionAnswer::Moved, moved)) => Err(elsewhere(&moved.answer)),
            Ok((SessionAnswer::NotOffered, _)) if self.auth_type == BmcAuthType::Auto => {
                return RequestLogin::Trial(BasicTrial { state, otherwise: None });
            }
            Ok((SessionAnswer::NotOffered, answer)) => Err(not_offered(&answer.answer)),
            Ok((meaning @ (SessionAnswer::TableFull | SessionAnswer::Busy), answer)) => {
                let outcome = self.without_session(meaning, answer.answer);
                if self.auth_type == BmcAuthType::Auto && !self.record.refuses_basic() {
                    self.warn_of_full_table(meaning);
                    return RequestLogin::Trial(BasicTrial { state, otherwise: Some(outcome) });
                }
                outcome
            }
        };
        *state = LoginState::Failed(Instant::now(), outcome.clone());
        RequestLogin::Failed(outcome)
    }

    /// The outcome if there is nothing but sessions.
    fn without_session(&self, meaning: SessionAnswer, answer: RedfishAnswer) -> ExchangeOutcome {
        if meaning != SessionAnswer::TableFull {
            return Ok(answer);
        }
        let cure = match self.auth_type {
            BmcAuthType::Session => "close sessions, or set redfish_auth_type to auto",
            BmcAuthType::Auto | BmcAuthType::Basic => {
                "it refuses basic authentication too: close sessions, or restart the BMC"
            }
        };
        Err(ChannelFailure::Unusable(format!(
            "all sessions of the BMC are in use (it answered {}); {cure}",
            answer.status
        )))
    }

    fn warn_of_full_table(&self, meaning: SessionAnswer) {
        if meaning == SessionAnswer::TableFull {
            let (address, secs) = (&self.record.address, WITHOUT_SESSION.as_secs());
            warn!(
                bmc = %address,
                "all sessions of the BMC at {address} are in use: it is called with basic authentication for {secs} s"
            );
        }
    }

    async fn try_basic(
        &self,
        mut trial: BasicTrial<'_>,
        request: &RedfishRequest,
    ) -> ExchangeOutcome {
        let until = trial.otherwise.as_ref().map(|_| Instant::now() + WITHOUT_SESSION);
        let outcome = self.send(request, &self.basic()).await;
        let failed =
            |outcome: &ExchangeOutcome| LoginState::Failed(Instant::now(), outcome.clone());
        match (&outcome, trial.otherwise) {
            (Ok(answer), Some(otherwise)) if answer.status == StatusCode::UNAUTHORIZED => {
                self.record.note_refuses_basic(true);
                *trial.state = failed(&otherwise);
                return otherwise;
            }
            (Ok(answer), None) if answer.status == StatusCode::UNAUTHORIZED => {
                *trial.state = failed(&outcome);
            }
            (Err(ChannelFailure::NotConnected(_)), _) => *trial.state = failed(&outcome),
            (Err(ChannelFailure::BrokeOff(_) | ChannelFailure::Unusable(_)), _) => {
                *trial.state = LoginState::Unknown;
            }
            // A busy BMC may not have looked at the password.
            (Ok(answer), _) if answer.status.is_server_error() => {
                *trial.state = LoginState::Unknown;
            }
            (Ok(_), _) => *trial.state = LoginState::Basic(until),
        }
        outcome
    }

    /// Asks for a session, at the path of the service root. That is read only if the usual path fails. It needs no
    /// login (DSP0266 §13.3.2).
    async fn open_session(
        &self,
        user: &BmcUser,
    ) -> Result<(SessionAnswer, TokenAnswer), ChannelFailure> {
        let known = self.record.sessions();
        let path = known.as_deref().unwrap_or(SESSIONS);
        let (meaning, answer) = self.post_session(path, user).await?;
        let may_be_elsewhere =
            matches!(meaning, SessionAnswer::Refused | SessionAnswer::NotOffered);
        if known.is_some() || !may_be_elsewhere {
            return Ok((meaning, answer));
        }
        let root = self.send(&service_root(), &RequestCredentials::None).await?;
        match self.record.sessions() {
            Some(other) if other.trim_end_matches('/') != SESSIONS => {
                self.post_session(&other, user).await
            }
            // Some servers ask for basic authentication everywhere, some of them even for the root.
            None if root.status.is_success() || root.status == StatusCode::UNAUTHORIZED => {
                Ok((SessionAnswer::NotOffered, answer))
            }
            Some(_) | None => Ok((meaning, answer)),
        }
    }

    async fn post_session(
        &self,
        path: &str,
        user: &BmcUser,
    ) -> Result<(SessionAnswer, TokenAnswer), ChannelFailure> {
        let mut answer = self.post_session_at(path, user).await?;
        if let Some(path) = redirect_within(&self.record.address, path, &answer.answer) {
            answer = self.post_session_at(&path, user).await?;
        }
        Ok((meaning(&answer.answer, answer.token.is_some()), answer))
    }

    async fn post_session_at(
        &self,
        path: &str,
        user: &BmcUser,
    ) -> Result<TokenAnswer, ChannelFailure> {
        let shown = RedfishRequest {
            purpose: RedfishPurpose::OpenSession,
            method: HttpMethod::Post,
            path: path.to_owned(),
            if_match: None,
            body: None,
        };
        let body = json!({"UserName": user.name, "Password": user.password});
        let request = RedfishRequest { body: Some(body), ..shown.clone() };
        let (http, address) = (&self.record.http, &self.record.address);
        let mut result =
            http.exchange(address, &request, &RequestCredentials::None, AfterRequest::Keep).await;
        self.note_failure(result.as_ref().err());
        match &mut result {
            Err(failure) => (self.observer)(&shown, Err(&*failure)),
            Ok(TokenAnswer { answer, .. }) => {
                let without_body = RedfishAnswer { body: Vec::new(), ..answer.clone() };
                (self.observer)(&shown, Ok(&without_body));
                // The messages of the Base registry repeat a value that is not acceptable.
                if !answer.status.is_success() && repeats(&answer.body, &user.password) {
                    answer.body.clear();
                }
            }
        }
        result
    }

    async fn send(
        &self,
        request: &RedfishRequest,
        credentials: &RequestCredentials,
    ) -> ExchangeOutcome {
        let (http, address) = (&self.record.http, &self.record.address);
        let is_last = self.looks_once && request.purpose == RedfishPurpose::LookAtSystem;
        let after = if is_last { AfterRequest::CloseIfMany } else { AfterRequest::Keep };
        let result = http.exchange(address, request, credentials, after).await;
        let outcome = result.map(|answer| answer.answer);
        (self.observer)(request, outcome.as_ref());
        self.note_failure(outcome.as_ref().err());
        if let Ok(answer) = &outcome
            && answer.status == StatusCode::OK
            && request.method == HttpMethod::Get
            && request.path.trim_end_matches('/') == SERVICE_ROOT.trim_end_matches('/')
            && let Some(path) = sessions_in_root(&answer.body)
        {
            self.record.note_sessions(path);
        }
        outcome
    }

    /// A BMC that was away may have come back with other firmware.
    fn note_failure(&self, failure: Option<&ChannelFailure>) {
        if matches!(failure, Some(ChannelFailure::NotConnected(_))) {
            self.record.note_facts(None);
        }
    }

    fn basic(&self) -> RequestCredentials {
        let Some(BmcUser { name, password }) = &self.user else { return RequestCredentials::None };
        let encoded = BASE64_STANDARD.encode(format!("{name}:{password}"));
        let value = HeaderValue::try_from(format!("Basic {encoded}"));
        let mut value = value.expect("base64 is text of a header");
        value.set_sensitive(true);
        RequestCredentials::Basic(value)
    }
}

fn service_root() -> RedfishRequest {
    RedfishRequest {
        purpose: RedfishPurpose::ReadServiceRoot,
        method: HttpMethod::Get,
        path: SERVICE_ROOT.to_owned(),
        if_match: None,
        body: None,
    }
}

fn session_of(opened: TokenAnswer) -> BmcSession {
    let path = opened_session(&opened.answer);
    BmcSession { token: opened.token.expect("an opened session has a token"), path }
}

/// If a login breaks off, nothing of the request behind it was sent.
fn unsent(failure: ChannelFailure) -> ChannelFailure {
    match failure {
        ChannelFailure::BrokeOff(words) => {
            ChannelFailure::NotConnected(format!("the login broke off: {words}"))
        }
        ChannelFailure::NotConnected(_) | ChannelFailure::Unusable(_) => failure,
    }
}

fn elsewhere(answer: &RedfishAnswer) -> ChannelFailure {
    let location: String =
        answer.location.iter().flat_map(|text| text.chars()).take(SHOWN_LOCATION).collect();
    ChannelFailure::Unusable(format!(
        "the BMC answers {} to a login, and names {location:?}: correct redfish_address",
        answer.status
    ))
}

fn not_offered(answer: &RedfishAnswer) -> ChannelFailure {
    ChannelFailure::Unusable(format!(
        "the BMC offers no sessions (it answered {}): set redfish_auth_type to auto or basic",
        answer.status
    ))
}

fn repeats(body: &[u8], password: &str) -> bool {
    let body = String::from_utf8_lossy(body);
    let escaped = json!(password).to_string();
    !password.is_empty() && (body.contains(password) || body.contains(escaped.trim_matches('"')))
}
