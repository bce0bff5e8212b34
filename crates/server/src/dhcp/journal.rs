//! Leases on disk: appended before an acknowledgement leaves, written anew when it pays.
//!
//! A record is in the kernel's hands before the answer is sent, so it outlives a SIGKILL of ours. To
//! the disk it goes within a second: a loss of power may cost the leases of that second, and their
//! clients keep using their addresses, which they then ask for by name.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dhcp::journal::{RECORD, Record, read};
use dhcp::leases::{Leases, Pool, Seconds};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::{info, warn};

/// How much a loss of power may cost.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// A journal is not written anew below this size, in bytes.
const SMALL: u64 = 1024 * 1024;

/// The journal of one network.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    len: u64,
    unsynced: bool,
}

impl Journal {
    /// Opens it, or makes it, and gives the leases that it leads to.
    pub(super) fn open(path: &Path, pool: Pool, now: Seconds) -> io::Result<(Self, Leases)> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let records = read(&bytes);
        let lost = bytes.len() - records.len() * RECORD;
        if lost > 0 {
            warn!("{}: the last {lost} bytes are damaged and left out", path.display());
        }
        let leases = Leases::replay(pool, records);
        let running = leases.records().filter(|record| record.0.until > now).count();
        if running > 0 {
            info!("{running} leases taken over from {}", path.display());
        }
        // Written anew at each start: a torn record at its end would hide all that came after it.
        let (file, len) = write_anew(path, &leases)?;
        Ok((Self { path: path.to_owned(), file, len, unsynced: false }, leases))
    }

    /// Appends a record; once this returns, it outlives a crash of ours.
    pub(super) fn append(&mut self, record: &Record) -> io::Result<()> {
        self.file.write_all(&record.encode())?;
        self.len += RECORD as u64;
        self.unsynced = true;
        Ok(())
    }

    /// When to call [`Journal::sync`].
    pub(super) fn syncs(&self) -> Interval {
        let mut syncs = interval(SYNC_EVERY);
        syncs.set_missed_tick_behavior(MissedTickBehavior::Delay);
        syncs
    }

    /// Brings what was appended to the disk, and gets rid of what was overtaken.
    pub(super) async fn sync(&mut self, leases: &Leases) {
        if !std::mem::take(&mut self.unsynced) {
            return;
        }
        let live = (leases.records().count() * RECORD) as u64;
        let done = if self.len > SMALL.max(4 * live) {
            write_anew(&self.path, leases).map(|(file, len)| (self.file, self.len) = (file, len))
        } else {
            match self.file.try_clone() {
                // The disk may take its time; packets do not wait for it.
                Ok(file) => match tokio::task::spawn_blocking(move || file.sync_data()).await {
                    Ok(done) => done,
                    Err(failed) => Err(io::Error::other(failed)),
                },
                Err(error) => Err(error),
            }
        };
        if let Err(error) = done {
            warn!(%error, "{} cannot be brought to the disk", self.path.display());
            self.unsynced = true;
        }
    }
}

/// Replaces the file by one with the leases as they are, for its owner's eyes only.
fn write_anew(path: &Path, leases: &Leases) -> io::Result<(File, u64)> {
    let new = path.with_extension("new");
    let bytes: Vec<u8> = leases.records().flat_map(|record| record.encode()).collect();
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&bytes)?;
    file.sync_data()?;
    std::fs::rename(&new, path)?;
    Ok((file, bytes.len() as u64))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const POOL: Pool =
        Pool { first: Ipv4Addr::new(10, 0, 0, 10), last: Ipv4Addr::new(10, 0, 0, 20) };
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn bind(journal: &mut Journal, leases: &mut Leases, mac: [u8; 6]) -> Ipv4Addr {
        let address = leases.offer(mac, None, 0).unwrap();
        let record = leases.bind(mac, address, 3_600, 0).unwrap();
        journal.append(&record).unwrap();
        address
    }

    #[test]
    fn leases_outlive_a_daemon_that_was_killed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leases");
        let (mut journal, mut leases) = Journal::open(&path, POOL, 0).unwrap();
        let address = bind(&mut journal, &mut leases, MAC);
        drop((journal, leases));

        let (_, leases) = Journal::open(&path, POOL, 0).unwrap();

        assert_eq!(leases.of(MAC).unwrap().address, address);
    }

    #[test]
    fn a_torn_record_costs_itself_and_nothing_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leases");
        let (mut journal, mut leases) = Journal::open(&path, POOL, 0).unwrap();
        bind(&mut journal, &mut leases, MAC);
        journal.file.write_all(&[1, 2, 3]).unwrap();
        drop((journal, leases));

        let (mut journal, mut leases) = Journal::open(&path, POOL, 0).unwrap();
        bind(&mut journal, &mut leases, [2, 0, 0, 0, 0, 2]);
        drop((journal, leases));

        let (_, leases) = Journal::open(&path, POOL, 0).unwrap();
        assert!(leases.of(MAC).is_some() && leases.of([2, 0, 0, 0, 0, 2]).is_some());
    }

    #[tokio::test]
    async fn a_journal_does_not_grow_with_every_renewal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leases");
        let (mut journal, mut leases) = Journal::open(&path, POOL, 0).unwrap();
        while journal.len <= SMALL {
            bind(&mut journal, &mut leases, MAC);
        }

        journal.sync(&leases).await;

        assert_eq!(std::fs::metadata(&path).unwrap().len(), RECORD as u64);
        let address = bind(&mut journal, &mut leases, [2, 0, 0, 0, 0, 2]);
        let (_, leases) = Journal::open(&path, POOL, 0).unwrap();
        assert_eq!(leases.of([2, 0, 0, 0, 0, 2]).unwrap().address, address);
    }
}
