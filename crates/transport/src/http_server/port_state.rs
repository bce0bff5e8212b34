//! The connections of a port: their admission, their phases, and their places.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::{pending, poll};
use tokio::sync::{Notify, Semaphore};
use tokio::task::yield_now;
use tracing::warn;
use uuid::Uuid;

use super::admission::{
    Account, Acquaintance, Admission, AdmissionVerdict, ConnectionId, ConnectionLimits, Ended,
    Phase,
};
use super::lobby::Full;
use super::metrics::HttpMetrics;
use super::pacing::Pacing;
use crate::repeats;

/// The state shared by all connections of a port.
#[derive(Debug)]
pub(super) struct PortState {
    name: &'static str,
    limits: ConnectionLimits,
    table: Mutex<Table>,
    metrics: HttpMetrics,
    /// The permits of strangers' handshakes to compute.
    handshakes: Semaphore,
    pacing: Arc<Pacing>,
}

#[derive(Debug)]
struct Table {
    admission: Admission,
    closing: BTreeMap<ConnectionId, Arc<Notify>>,
}

/// A connection's place; dropping it frees the place.
#[derive(Debug)]
pub(super) struct ConnectionPlace {
    id: ConnectionId,
    acquaintance: Acquaintance,
    phase: AtomicU8,
    closing: Arc<Notify>,
    port: Arc<PortState>,
}

/// Number of strangers' handshakes that may compute in one round of the runtime's tasks: a signature with RSA takes 2 ms,
/// and a known machine's must not queue behind a thousand of them. A machine may be a stranger, too, and while all
/// processors encrypt answers a round takes 200 ms.
const HANDSHAKES: usize = 128;

impl PortState {
    pub(super) fn new(name: &'static str, limits: ConnectionLimits, metrics: HttpMetrics) -> Self {
        let admission = Admission::new(limits.clone());
        let table = Table { admission, closing: BTreeMap::new() };
        let (handshakes, pacing) = (Semaphore::new(HANDSHAKES), Arc::new(Pacing::new()));
        Self { name, limits, table: Mutex::new(table), metrics, handshakes, pacing }
    }

    /// The interval of checks: short enough for the shortest limit.
    pub(super) fn sweep_every(&self) -> Duration {
        let ConnectionLimits { idle, head, body, fruitless, .. } = self.limits;
        let shortest = idle.min(head).min(body).min(fruitless);
        (shortest / 4).clamp(Duration::from_millis(5), Duration::from_secs(1))
    }

    pub(super) fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        acquaintance: Acquaintance,
        now: Instant,
    ) -> Result<Arc<ConnectionPlace>, Full> {
        let mut table = self.table();
        match table.admission.admit(address, acquaintance, now) {
            AdmissionVerdict::Admitted { id, evicted } => {
                for evicted in evicted {
                    self.close(&mut table, evicted, Ended::Evicted);
                }
                let closing = Arc::<Notify>::default();
                table.closing.insert(id, Arc::clone(&closing));
                self.metrics.set_open(self.name, table.admission.len());
                let phase = AtomicU8::new(Phase::Idle as u8);
                let port = Arc::clone(self);
                Ok(Arc::new(ConnectionPlace { id, acquaintance, phase, closing, port }))
            }
            AdmissionVerdict::PeerFull => Err(Full::Peer),
            AdmissionVerdict::PortFull => Err(Full::Port),
        }
    }

    pub(super) fn refused(&self, address: IpAddr) {
        self.metrics.count_ended(self.name, "refused");
        if let Some(more) = repeats::line("connection refused", self.name) {
            warn!(
                "a connection of {address} to {} is refused: the port, or this peer, has as many connections as permitted, \
                 and all have answers under way (limits.connections, limits.peer_percent, limits.exempt){more}",
                self.name
            );
        }
    }

    pub(super) fn make_room(&self, now: Instant) {
        let mut table = self.table();
        if let Some(evicted) = table.admission.evict_one(now) {
            self.close(&mut table, evicted, Ended::Evicted);
        }
    }

    pub(super) fn sweep(&self, now: Instant) {
        let mut table = self.table();
        for (id, ended) in table.admission.overdue(now) {
            self.close(&mut table, id, ended);
        }
        self.metrics.set_open(self.name, table.admission.len());
    }

    fn close(&self, table: &mut Table, id: ConnectionId, why: Ended) {
        self.metrics.count_ended(self.name, why.name());
        if let Some(closing) = table.closing.remove(&id) {
            closing.notify_one();
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPlace {
    pub(super) fn enter(&self, phase: Phase) {
        let before = self.phase.swap(phase as u8, Ordering::AcqRel);
        if before == phase as u8 {
            return;
        }
        if phase == Phase::Answer {
            self.port.pacing.begin();
        } else if before == Phase::Answer as u8 {
            self.port.pacing.end();
        }
        self.port.table().admission.enter(self.id, phase, Instant::now());
    }

    /// The pacing of the port's answers.
    pub(super) fn pacing(&self) -> Arc<Pacing> {
        Arc::clone(&self.port.pacing)
    }

    /// The limits of the port's connections.
    pub(super) fn limits(&self) -> &ConnectionLimits {
        &self.port.limits
    }

    /// Resolves when the connection must close.
    pub(super) async fn closed(&self) {
        self.closing.notified().await;
    }

    pub(super) fn phase(&self) -> Phase {
        let phase = self.phase.load(Ordering::Acquire);
        Phase::ALL.get(usize::from(phase)).copied().unwrap_or(Phase::Answer)
    }

    pub(super) fn is_for(&self, node: Uuid) {
        let mut table = self.port.table();
        let evicted = table.admission.count_for_node(self.id, node, Instant::now());
        if let Some(evicted) = evicted {
            self.port.close(&mut table, evicted, Ended::Evicted);
        }
    }

    pub(super) fn was_useful(&self) {
        self.port.table().admission.was_useful(self.id, Instant::now());
    }

    /// Whether this is the last answer to a peer whose requests fail. A peer that pipelines requests is never idle,
    /// so [`PortState::sweep`] does not catch it.
    pub(super) fn is_fruitless(&self) -> bool {
        let is_fruitless = self.port.table().admission.is_fruitless(self.id, Instant::now());
        if is_fruitless {
            self.port.metrics.count_ended(self.port.name, Ended::Fruitless.name());
        }
        is_fruitless
    }

    pub(super) fn account(&self) -> Option<Account> {
        self.port.table().admission.account(self.id)
    }

    /// Makes a handshake. Strangers compute their parts of it with a permit.
    pub(super) async fn handshake<T>(&self, handshake: impl Future<Output = T>) -> T {
        let mut handshake = pin!(handshake);
        loop {
            let permit = match self.acquaintance {
                Acquaintance::Known => None,
                Acquaintance::Stranger => {
                    let permit = self.port.handshakes.acquire().await;
                    // Only so many strangers are in the runtime's queue. A known machine's handshake that is ready comes
                    // before those that wait for a permit.
                    yield_now().await;
                    Some(permit)
                }
            };
            let polled = poll!(handshake.as_mut());
            drop(permit);
            // After the handshake, too: its request is due.
            self.port.table().admission.begin_client_turn(self.id, Instant::now());
            if let Poll::Ready(made) = polled {
                return made;
            }
            // Until the handshake wakes the task.
            pending!();
            self.port.table().admission.end_client_turn(self.id, Instant::now());
        }
    }

    pub(super) fn handshake_failed(&self) {
        self.port.metrics.count_ended(self.port.name, "handshake_failed");
    }

    pub(super) fn is_slow(&self) {
        self.port.metrics.count_ended(self.port.name, "slow_reader");
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        if self.phase() == Phase::Answer {
            self.port.pacing.end();
        }
        let mut table = self.port.table();
        table.admission.remove(self.id);
        table.closing.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[tokio::test]
    async fn a_client_that_sends_no_request_after_its_handshake_gives_way() {
        let limits = ConnectionLimits { connections: 1, ..Default::default() };
        let port = Arc::new(PortState::new("a port", limits, HttpMetrics::default()));
        let (silent, other) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let place = port.admit(silent, Acquaintance::Stranger, Instant::now()).unwrap();
        place.handshake(async { place.enter(Phase::Handshake) }).await;

        let now = Instant::now();
        let early = port.admit(other, Acquaintance::Stranger, now);
        let late = port.admit(other, Acquaintance::Stranger, now + Duration::from_secs(1));

        assert_eq!(early.map(drop), Err(Full::Port));
        assert!(late.is_ok());
    }

    #[tokio::test]
    async fn a_known_machines_handshake_does_not_wait_for_those_of_a_thousand_strangers() {
        const STRANGERS: u32 = 1_000;
        let limits = ConnectionLimits { connections: 2_000, per_peer: 2_000, ..Default::default() };
        let port = Arc::new(PortState::new("a port", limits, HttpMetrics::default()));
        let computed = Arc::new(AtomicU32::new(0));
        let begin = |acquaintance| {
            let place = port.admit([192, 0, 2, 1].into(), acquaintance, Instant::now()).unwrap();
            let computed = Arc::clone(&computed);
            tokio::spawn(async move {
                place.handshake(async { computed.fetch_add(1, Ordering::Relaxed) }).await
            })
        };
        let strangers: Vec<_> = (0..STRANGERS).map(|_| begin(Acquaintance::Stranger)).collect();

        let known = begin(Acquaintance::Known).await.unwrap();

        assert!(known <= HANDSHAKES as u32, "{known} strangers were first");
        futures::future::join_all(strangers).await;
        assert_eq!(computed.load(Ordering::Relaxed), STRANGERS + 1);
    }
}
