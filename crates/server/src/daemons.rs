//! This daemon's relation to other daemons of the same database: its identity, its liveness, its claims from before a
//! crash.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use netboot::foreign_pools::ForeignPools;
use netboot::network_settings::{AddressRange, Reservation};
use store::{
    Clock, DaemonIdentity, DaemonPools, DaemonReservation, PoolRange, RegistrationError, Store,
    StoreError, log_store_failure,
};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config;
use crate::state_dir::StateDir;
use crate::workers;

/// Interval of this daemon's liveness reports.
const EVERY: Duration = Duration::from_secs(5);
/// Interval of the checks whether a daemon with an overlapping pool is dead.
const PREDECESSOR_CHECK_EVERY: Duration = Duration::from_secs(1);

pub(crate) fn identity(state: &StateDir, host: String) -> Result<DaemonIdentity> {
    Ok(DaemonIdentity::new(state.identity()?, host))
}

/// This daemon's DHCP pools.
pub(crate) fn pools(dhcp: &config::DhcpConfig) -> DaemonPools {
    let networks = dhcp.networks.iter();
    let range = |range: AddressRange| {
        let [first, last] = range.ends();
        PoolRange { first, last }
    };
    let reservations = networks.clone().flat_map(|network| &network.reservations);
    let reservation =
        |&Reservation { mac, address }: &Reservation| DaemonReservation { mac, address };
    DaemonPools {
        site: dhcp.site.clone(),
        lease_secs: dhcp.lease_secs,
        ranges: networks.flat_map(|network| network.ranges().map(range)).collect(),
        reservations: reservations.map(reservation).collect(),
    }
}

/// Registers this daemon in a shared database. Returns the pools of the other daemons.
pub(crate) async fn register(
    store: &Store,
    daemon: &DaemonIdentity,
    pools: &DaemonPools,
) -> Result<ForeignPools> {
    if !store.may_be_shared() {
        return Ok(ForeignPools::default());
    }
    let now = Clock::process().now();
    let known = store.daemons(now).await.context("cannot read the daemons of the database")?;
    if known.iter().any(|known| known.host == daemon.host && known.is_alive) {
        warn!(
            "a daemon named {} was alive a moment ago: if it is another one, give the daemons different names (`host`)",
            daemon.host
        );
    }
    let registered = register_after_dead(store, daemon, pools).await;
    let registered = registered.context("cannot register with the database")?;
    let conflicts = store.reservation_conflicts(daemon, pools, now).await;
    for conflict in conflicts.context("cannot compare the reservations of the daemons")? {
        warn!("{conflict}");
    }
    Ok(foreign(&registered))
}

/// Registers this daemon once no daemon that died counts as alive with its pool: before a reboot of the host, this one
/// was such a daemon.
///
/// # Errors
/// [`RegistrationError`]: a daemon with an overlapping pool has reported that it is alive meanwhile.
async fn register_after_dead(
    store: &Store,
    daemon: &DaemonIdentity,
    pools: &DaemonPools,
) -> Result<Vec<PoolRange>, RegistrationError> {
    let mut waits_for = HashMap::new();
    loop {
        let registered = store.register_daemon(daemon, pools, Clock::process().now()).await;
        let Err(RegistrationError::Overlap(overlap)) = registered else { return registered };
        match waits_for.insert(overlap.other_id, overlap.other_seen_at) {
            None => info!(
                "waiting for a sign of life of the daemon {}, whose DHCP pool {} overlaps the pool {} of this daemon",
                overlap.other_host, overlap.other_range, overlap.range
            ),
            Some(seen_at) if seen_at == overlap.other_seen_at => {}
            Some(_) => return Err(RegistrationError::Overlap(overlap)),
        }
        sleep(PREDECESSOR_CHECK_EVERY).await;
    }
}

/// Pools of daemons, as DHCP compares addresses with them.
pub(crate) fn foreign(ranges: &[PoolRange]) -> ForeignPools {
    ranges.iter().map(|range| [range.first, range.last]).collect()
}

/// Frees this daemon's claims from before a crash; in an unshared database, all claims.
pub(crate) async fn release(store: &Store, daemon: &DaemonIdentity) -> Result<()> {
    let of = store.may_be_shared().then_some(daemon);
    let released = store.release_all(of, Clock::process().now(), workers::LEASE).await;
    released.context("cannot take over what was under way")?;
    Ok(())
}

/// Reports that this daemon is alive, until `end`, and passes the other daemons' pools to DHCP each time.
///
/// # Errors
/// A message for the operator if the daemon must end: another process has its identity, another daemon has its pool,
/// or the database has a newer version.
pub(crate) async fn stay_known(
    store: Store,
    daemon: DaemonIdentity,
    pools: DaemonPools,
    foreign_pools: watch::Sender<ForeignPools>,
    end: CancellationToken,
) -> Result<()> {
    if !store.may_be_shared() {
        end.cancelled().await;
        return Ok(());
    }
    let mut often = interval(EVERY);
    often.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = often.tick() => {}
            () = end.cancelled() => break,
        }
        if let Err(other @ StoreError::Version { .. }) = store.expect_version().await {
            return Err(other)
                .context("this daemon ends, since its database now belongs to another version");
        }
        match store.note_alive(&daemon, &pools, Clock::process().now()).await {
            Ok(ranges) => {
                let now = foreign(&ranges);
                foreign_pools.send_if_modified(|known| {
                    let is_news = *known != now;
                    *known = now;
                    is_news
                });
            }
            Err(RegistrationError::Store(failed)) => {
                log_store_failure(&failed, "this daemon could not report that it is alive");
            }
            Err(other @ RegistrationError::Replaced) => {
                return Err(other)
                    .context("this daemon ends: was the machine copied while it ran?");
            }
            Err(other @ RegistrationError::Overlap(_)) => {
                return Err(other).context(
                    "this daemon ends: the database did not hear of it for a while, and another daemon has its pool now",
                );
            }
        }
    }
    if let Err(failed) = store.note_end(&daemon).await {
        log_store_failure(&failed, "this daemon could not report its end");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use uuid::Uuid;

    use super::*;

    /// One pool for each number.
    fn numbered_pools(numbers: &[u8]) -> DaemonPools {
        let pool = |number: &u8| PoolRange {
            first: [10, 0, *number, 10].into(),
            last: [10, 0, *number, 99].into(),
        };
        DaemonPools { ranges: numbers.iter().map(pool).collect(), ..DaemonPools::default() }
    }

    #[tokio::test]
    async fn two_dead_daemons_with_one_name_are_waited_for_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let config = config::DatabaseConfig::default();
        let (url, key) = (config.url_in(folder.path()), config.key_file_in(folder.path()));
        let store = Store::open(&url, &key).await.unwrap();
        let now = Clock::process().now();
        // They count as alive for 20 seconds after their last liveness reports.
        for (id, millis) in [(1, 19_600), (2, 18_900)] {
            let dead = DaemonIdentity::new(Uuid::from_u128(id), "rack1".to_owned());
            let pools = numbered_pools(&[u8::try_from(id).unwrap()]);
            let seen_at = now - SignedDuration::from_millis(millis);
            store.register_daemon(&dead, &pools, seen_at).await.unwrap();
        }
        let daemon = DaemonIdentity::new(Uuid::from_u128(3), "rack1".to_owned());

        let registered = register_after_dead(&store, &daemon, &numbered_pools(&[1, 2])).await;

        registered.unwrap();
    }
}
