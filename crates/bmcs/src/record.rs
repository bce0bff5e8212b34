//! What the daemon knows of one BMC, as one user under one policy of TLS sees it.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hardware::{HttpMethod, RedfishPurpose};
use http::header::HeaderValue;
use redfish::channel::{ChannelFailure, RedfishAnswer, RedfishRequest};
use tokio::sync::Semaphore;
use tokio::time::{Duration, Instant};
use tracing::debug;
use url::Url;

use crate::http_client::{AfterRequest, BmcHttp, RequestCredentials};

/// A BMC. `F` are the facts that the conversations found out about it.
pub(crate) struct BmcRecord<F> {
    pub(crate) http: Arc<BmcHttp>,
    pub(crate) address: Url,
    /// Places for requests at once, over all users.
    pub(crate) places: Arc<Semaphore>,
    /// Locked for as long as a login takes, so that there is one at a time.
    pub(crate) login: tokio::sync::Mutex<LoginState>,
    remembered: Mutex<Remembered<F>>,
}

/// The login that works.
#[derive(Default)]
pub(crate) enum LoginState {
    #[default]
    Unknown,
    Session(Arc<BmcSession>),
    /// Basic authentication, until then or for good.
    Basic(Option<Instant>),
    /// Neither, by an attempt that ended then.
    Failed(Instant, Result<RedfishAnswer, ChannelFailure>),
}

/// An open session.
pub(crate) struct BmcSession {
    pub(crate) token: HeaderValue,
    /// Its path; without one it cannot be closed.
    pub(crate) path: Option<String>,
}

impl BmcSession {
    pub(crate) fn credentials(&self) -> RequestCredentials {
        RequestCredentials::Token(self.token.clone())
    }
}

struct Remembered<F> {
    facts: Option<Arc<F>>,
    /// The path of the sessions, of the service root.
    sessions: Option<String>,
    /// The BMC refused basic authentication while its sessions were all in use.
    refuses_basic: bool,
    last_used: Instant,
}

impl<F> BmcRecord<F> {
    pub(crate) fn new(http: Arc<BmcHttp>, address: Url, places: Arc<Semaphore>) -> Self {
        let remembered = Remembered {
            facts: None,
            sessions: None,
            refuses_basic: false,
            last_used: Instant::now(),
        };
        Self {
            http,
            address,
            places,
            login: tokio::sync::Mutex::default(),
            remembered: Mutex::new(remembered),
        }
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered<F>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn facts(&self) -> Option<Arc<F>> {
        self.remembered().facts.clone()
    }

    pub(crate) fn note_facts(&self, facts: Option<Arc<F>>) {
        self.remembered().facts = facts;
    }

    pub(crate) fn sessions(&self) -> Option<String> {
        self.remembered().sessions.clone()
    }

    pub(crate) fn note_sessions(&self, path: String) {
        self.remembered().sessions = Some(path);
    }

    pub(crate) fn refuses_basic(&self) -> bool {
        self.remembered().refuses_basic
    }

    pub(crate) fn note_refuses_basic(&self, refuses: bool) {
        self.remembered().refuses_basic = refuses;
    }

    pub(crate) fn note_use(&self) {
        self.remembered().last_used = Instant::now();
    }

    pub(crate) fn idle_for(&self) -> Duration {
        self.remembered().last_used.elapsed()
    }

    /// Forgets a session that has ended, unless another one has replaced it.
    pub(crate) async fn forget_session(&self, ended: &Arc<BmcSession>) {
        let mut login = self.login.lock().await;
        if matches!(&*login, LoginState::Session(session) if Arc::ptr_eq(session, ended)) {
            *login = LoginState::Unknown;
        }
    }

    /// Forgets that basic authentication works.
    pub(crate) async fn forget_basic(&self) {
        let mut login = self.login.lock().await;
        if matches!(&*login, LoginState::Basic(_)) {
            *login = LoginState::Unknown;
        }
    }

    /// Closes the session, if there is one.
    pub(crate) async fn close(&self) {
        let login = mem::take(&mut *self.login.lock().await);
        if let LoginState::Session(session) = login {
            self.delete(&session, &session.credentials()).await;
        }
    }

    /// Closes a session by these credentials. A failure has no consequence: the BMC ends an idle session by itself.
    pub(crate) async fn delete(&self, session: &BmcSession, credentials: &RequestCredentials) {
        let Some(path) = session.path.clone() else { return };
        let request = RedfishRequest {
            purpose: RedfishPurpose::CloseSession,
            method: HttpMethod::Delete,
            path,
            if_match: None,
            body: None,
        };
        let closed = self
            .http
            .exchange(&self.address, &request, credentials, AfterRequest::CloseIfMany)
            .await;
        let closed = closed.map(|closed| closed.answer.status.as_u16());
        debug!(bmc = %self.address, path = request.path, ?closed, "closed a session of a BMC");
    }
}
