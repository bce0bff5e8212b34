//! All connections of a daemon to BMCs.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::warn;
use url::Url;

use crate::connector::{BmcTls, OpenConnections};
use crate::http_client::{BmcHttp, REQUESTS_AT_ONCE};
use crate::legacy_tls::LegacyTls;
use crate::link::{BmcLink, BmcObserver};
use crate::login::BmcCaller;
use crate::modern_tls::tls_connector;
use crate::record::BmcRecord;
use crate::settings::{BmcAuthType, BmcSettings, BmcTlsPolicy, BmcUser, WrongBmcSetting};
use crate::trust::LoadedTrust;

/// Time without a request after which a BMC's session is closed, and what is known of the BMC forgotten.
const IDLE: Duration = Duration::from_secs(600);
const BETWEEN_SWEEPS: Duration = Duration::from_secs(60);
/// Number of BMCs that are remembered at once, as long as no link uses more.
const MOST_BMCS: usize = 20_000;
/// Number of sessions that are closed at once.
const CLOSED_AT_ONCE: usize = 256;
/// Time limit for closing all sessions.
const CLOSE_ALL: Duration = Duration::from_secs(10);

/// All connections of a daemon to BMCs. Clones share them. `F` are the facts that conversations find out about a BMC.
pub struct BmcConnections<F>(Arc<ConnectionTables<F>>);

struct ConnectionTables<F> {
    clients: Mutex<HashMap<HttpPolicy, Arc<BmcHttp>>>,
    bmcs: Mutex<HashMap<BmcKey, Arc<BmcRecord<F>>>>,
    places: Mutex<HashMap<Url, Weak<Semaphore>>>,
    open: OpenConnections,
}

/// The policy of TLS for an HTTP client.
#[derive(Clone, PartialEq, Eq, Hash)]
struct HttpPolicy {
    tls: BmcTlsPolicy,
    trust: LoadedTrust,
}

/// What distinguishes BMCs: a session serves one user, and what was seen without verification does not count with it.
#[derive(PartialEq, Eq, Hash)]
struct BmcKey {
    address: Url,
    user: Option<BmcUser>,
    auth_type: BmcAuthType,
    policy: HttpPolicy,
}

impl<F> Clone for BmcConnections<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F: Send + Sync + 'static> Default for BmcConnections<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: Send + Sync + 'static> BmcConnections<F> {
    /// No connections yet. A task in the background closes idle sessions.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn new() -> Self {
        let tables = Arc::new(ConnectionTables {
            clients: Mutex::default(),
            bmcs: Mutex::default(),
            places: Mutex::default(),
            open: OpenConnections::default(),
        });
        tokio::spawn(close_idle_sessions(Arc::downgrade(&tables)));
        Self(tables)
    }

    /// The channel to a BMC. Nothing is sent yet.
    ///
    /// # Errors
    /// The file of `redfish_verify_ca` cannot be used.
    pub async fn link<'o>(
        &self,
        settings: &BmcSettings,
        observer: Box<BmcObserver<'o>>,
    ) -> Result<BmcLink<'o, F>, WrongBmcSetting> {
        let policy = HttpPolicy::of(settings).await?;
        let (policy, http) = self.0.client(policy).await?;
        let (address, user) = (settings.address.clone(), settings.user.clone());
        let key = BmcKey { address, user, auth_type: settings.auth_type, policy };
        let record = self.0.record(key, http);
        let (user, auth_type) = (settings.user.clone(), settings.auth_type);
        Ok(BmcLink::new(BmcCaller { record, user, auth_type, observer, looks_once: false }))
    }

    /// Closes all sessions, at the end of the daemon.
    pub async fn close(&self) {
        let all: Vec<_> = locked(&self.0.bmcs).drain().map(|(_, record)| record).collect();
        let count = all.len();
        if timeout(CLOSE_ALL, close_sessions(all)).await.is_err() {
            warn!(bmcs = count, "some sessions of BMCs stay open: closing them took too long");
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HttpPolicy {
    async fn of(settings: &BmcSettings) -> Result<Self, WrongBmcSetting> {
        if settings.address.scheme() == "http" {
            return Ok(Self { tls: BmcTlsPolicy::Modern, trust: LoadedTrust::Anything });
        }
        Ok(Self { tls: settings.tls, trust: LoadedTrust::of(&settings.trust).await? })
    }

    fn client(self, open: OpenConnections) -> Result<BmcHttp, WrongBmcSetting> {
        let tls = match self.tls {
            BmcTlsPolicy::Modern => BmcTls::Modern(tls_connector(&self.trust)?),
            BmcTlsPolicy::Legacy => BmcTls::Legacy(LegacyTls::new(self.trust)?),
        };
        Ok(BmcHttp::new(tls, open))
    }
}

impl<F: Send + Sync + 'static> ConnectionTables<F> {
    /// The client for a policy, with the policy as it was the first time: its certificates are in memory once.
    async fn client(
        &self,
        policy: HttpPolicy,
    ) -> Result<(HttpPolicy, Arc<BmcHttp>), WrongBmcSetting> {
        if let Some((policy, client)) = locked(&self.clients).get_key_value(&policy) {
            return Ok((policy.clone(), Arc::clone(client)));
        }
        // The certificates of this host are files.
        let (new, open) = (policy.clone(), self.open.clone());
        let built = tokio::task::spawn_blocking(move || new.client(open)).await;
        let built = built
            .map_err(|error| WrongBmcSetting::new("redfish_verify_ca", error.to_string()))
            .flatten()?;
        let mut clients = locked(&self.clients);
        if !clients.contains_key(&policy) {
            clients.insert(policy.clone(), Arc::new(built));
        }
        let (policy, client) = clients.get_key_value(&policy).expect("it was inserted");
        Ok((policy.clone(), Arc::clone(client)))
    }

    fn record(&self, key: BmcKey, http: Arc<BmcHttp>) -> Arc<BmcRecord<F>> {
        let mut bmcs = locked(&self.bmcs);
        if let Some(record) = bmcs.get(&key) {
            record.note_use();
            return Arc::clone(record);
        }
        if bmcs.len() >= MOST_BMCS {
            tokio::spawn(close_sessions(take_unused(&mut bmcs, Duration::ZERO)));
        }
        if key.policy.tls == BmcTlsPolicy::Legacy {
            warn!(
                bmc = %key.address,
                "the BMC at {} is called with outdated TLS, as redfish_tls in its node's driver_info permits",
                key.address
            );
        }
        let places = self.places(&key.address);
        let record = Arc::new(BmcRecord::new(http, key.address.clone(), places));
        bmcs.insert(key, Arc::clone(&record));
        record
    }

    /// The places for requests to one address.
    fn places(&self, address: &Url) -> Arc<Semaphore> {
        let mut places = locked(&self.places);
        places.get(address).and_then(Weak::upgrade).unwrap_or_else(|| {
            let new = Arc::new(Semaphore::new(REQUESTS_AT_ONCE));
            places.insert(address.clone(), Arc::downgrade(&new));
            new
        })
    }

    /// Takes out the BMCs without a request for `IDLE`, then what only they used.
    async fn sweep(&self) {
        let idle = take_unused(&mut locked(&self.bmcs), IDLE);
        close_sessions(idle).await;
        locked(&self.clients).retain(|_, client| Arc::strong_count(client) > 1);
        locked(&self.places).retain(|_, places| places.strong_count() > 0);
    }
}

fn take_unused<F>(
    bmcs: &mut HashMap<BmcKey, Arc<BmcRecord<F>>>,
    idle: Duration,
) -> Vec<Arc<BmcRecord<F>>> {
    let unused = bmcs.extract_if(|_, bmc| Arc::strong_count(bmc) == 1 && bmc.idle_for() >= idle);
    unused.map(|(_, bmc)| bmc).collect()
}

async fn close_sessions<F: Send + Sync + 'static>(bmcs: Vec<Arc<BmcRecord<F>>>) {
    let bmcs = futures::stream::iter(bmcs);
    bmcs.for_each_concurrent(CLOSED_AT_ONCE, async |bmc| bmc.close().await).await;
}

async fn close_idle_sessions<F: Send + Sync + 'static>(tables: Weak<ConnectionTables<F>>) {
    loop {
        sleep(BETWEEN_SWEEPS).await;
        let Some(tables) = tables.upgrade() else { return };
        tables.sweep().await;
    }
}

impl<F> fmt::Debug for BmcConnections<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BmcConnections").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn the_certificates_of_a_file_are_in_memory_once_for_all_bmcs() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let certificate = CertificateParams::default().self_signed(&KeyPair::generate().unwrap());
        std::fs::write(&file, certificate.unwrap().pem()).unwrap();
        let connections = BmcConnections::<()>::new();
        for host in ["192.0.2.1", "192.0.2.2"] {
            let info = json!({"redfish_address": host, "redfish_verify_ca": file.path()});
            let settings = BmcSettings::of(info.as_object().unwrap()).unwrap();
            connections.link(&settings, Box::new(|_, _| ())).await.unwrap();
        }

        let bmcs = locked(&connections.0.bmcs);
        let certificates: Vec<_> = bmcs
            .keys()
            .map(|key| {
                let LoadedTrust::Certificates(certificates) = &key.policy.trust else {
                    panic!("{:?}", key.policy.trust)
                };
                Arc::as_ptr(certificates)
            })
            .collect();

        assert_eq!(certificates.len(), 2);
        assert!(std::ptr::eq(certificates[0], certificates[1]));
        assert_eq!(locked(&connections.0.clients).len(), 1);
    }
}
