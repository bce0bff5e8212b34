//! Users and sessions: who may ask, and for how long.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

/// Number of sessions at a time, as on most BMCs.
const MOST_SESSIONS: usize = 16;

/// The users of a BMC.
#[derive(Clone)]
pub struct EmulatedUsers(Arc<CredentialCheck>);

/// Whether a user has this password.
type CredentialCheck = dyn Fn(&str, &str) -> bool + Send + Sync;

impl fmt::Debug for EmulatedUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmulatedUsers(…)")
    }
}

impl EmulatedUsers {
    /// One user.
    #[must_use]
    pub fn one(username: &str, password: &str) -> Self {
        let (username, password) = (username.to_owned(), password.to_owned());
        Self(Arc::new(move |user, given| same(user, &username) & same(given, &password)))
    }

    /// Those for whose name and password `check` is true.
    #[must_use]
    pub fn checked(check: impl Fn(&str, &str) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(check))
    }

    pub(super) fn know(&self, user: &str, password: &str) -> bool {
        (self.0)(user, password)
    }

    /// Whether `Authorization` is Basic with a user and password (RFC 7617). The scheme may be in any case.
    pub(super) fn know_basic(&self, authorization: &str) -> bool {
        let Some((scheme, encoded)) = authorization.trim().split_once(' ') else { return false };
        let decoded = BASE64_STANDARD.decode(encoded.trim()).ok();
        let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let Some(decoded) = decoded.filter(|_| scheme.eq_ignore_ascii_case("basic")) else {
            return false;
        };
        decoded.split_once(':').is_some_and(|(user, password)| self.know(user, password))
    }
}

/// Compares in constant time.
fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

/// The open sessions.
#[derive(Debug, Default)]
pub(super) struct SessionTable {
    sessions: BTreeMap<u64, EmulatedSession>,
    last: u64,
}

#[derive(Debug)]
struct EmulatedSession {
    token: String,
    user: String,
    /// Time of its last request.
    used: Duration,
}

impl SessionTable {
    /// Ends the sessions that were idle for `timeout`.
    pub(super) fn end_idle(&mut self, timeout: Duration, now: Duration) {
        self.sessions.retain(|_, session| now.saturating_sub(session.used) < timeout);
    }

    /// Opens a session and returns its number; `None` if there are too many.
    pub(super) fn open(&mut self, user: &str, token: &str, now: Duration) -> Option<u64> {
        if self.sessions.len() >= MOST_SESSIONS {
            return None;
        }
        self.last += 1;
        let session = EmulatedSession { token: token.to_owned(), user: user.to_owned(), used: now };
        self.sessions.insert(self.last, session);
        Some(self.last)
    }

    /// Whether a session has this token; counts as its use.
    pub(super) fn knows(&mut self, token: &str, now: Duration) -> bool {
        let mut known = false;
        for session in self.sessions.values_mut() {
            if same(&session.token, token) {
                session.used = now;
                known = true;
            }
        }
        known
    }

    pub(super) fn close(&mut self, id: &str) -> bool {
        id.parse().is_ok_and(|id: u64| self.sessions.remove(&id).is_some())
    }

    pub(super) fn ids(&self) -> Vec<String> {
        self.sessions.keys().map(u64::to_string).collect()
    }

    pub(super) fn resource(&self, id: &str) -> Option<Value> {
        let session = self.sessions.get(&id.parse().ok()?)?;
        Some(json!({
            "@odata.id": format!("/redfish/v1/SessionService/Sessions/{id}"),
            "@odata.type": "#Session.v1_7_0.Session",
            "Id": id,
            "Name": "User Session",
            "UserName": session.user,
        }))
    }
}
