//! The lease journal on disk: appended before an ACK is sent, compacted when that pays or when the disk is full.
//!
//! A journal is records followed by zeros, up to its allocated size. A spare file of the same size lies beside it.
//! Compaction writes into the spare, which is then exchanged with the journal, so that it needs no disk space.
//!
//! A record is written to the kernel before the answer is sent, so it survives a SIGKILL of the daemon. It reaches
//! the disk within a second: a power loss may cost the leases of that second, whose clients keep using their
//! addresses and later request them again.

use std::fs::{File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use dhcp::address_family::AddressFamily;
use dhcp::journal::{LeaseRecord, TimeMark, read};
use dhcp::leases::{LeaseTable, Seconds};
use netboot::network_plan::PoolPlan;
use nix::fcntl::{AT_FDCWD, FallocateFlags, RenameFlags, fallocate, renameat2};
use tokio::task::JoinHandle;
use tracing::{info, warn};

/// Interval of [`Journal::sync`]: the leases that a power loss may cost.
pub(super) const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Longest interval of time marks: the time by which a lease may be prolonged after the daemon was killed.
const MARK_EVERY: Seconds = 60;
/// Least size of a journal for compaction, in bytes.
const SMALL: u64 = 1024 * 1024;
/// Disk space allocated in advance, in bytes: at least 20,000 IPv4 leases, each with a time mark.
const RESERVE: u64 = 1024 * 1024;

/// The journal of one subnet.
#[derive(Debug)]
pub(super) struct Journal<A> {
    path: PathBuf,
    file: File,
    len: u64,
    unsynced: bool,
    /// The newest time mark of this run.
    marked: Option<Seconds>,
    /// Whether the last write or sync failed; changes are logged.
    is_failing: bool,
    syncing: Option<JoinHandle<io::Result<()>>>,
    family: PhantomData<A>,
}

/// The leases of a journal at `now`. The journal is not changed; a missing one has no leases.
///
/// # Errors
/// The journal cannot be read.
pub(super) fn look<A: AddressFamily>(
    path: &Path,
    (pool, reservations): PoolPlan<A>,
    now: Seconds,
) -> anyhow::Result<LeaseTable<A>> {
    let read = ReadJournal::<A>::of(path);
    let ReadJournal { records, .. } =
        read.with_context(|| format!("cannot read the leases in {}", path.display()))?;
    Ok(LeaseTable::replay(pool, reservations, records, now))
}

/// The contents of a journal.
struct ReadJournal<A: AddressFamily> {
    records: Vec<LeaseRecord<A>>,
    /// Whether something other than zeros follows the last complete record.
    is_torn: bool,
}

impl<A: AddressFamily> ReadJournal<A> {
    fn of(path: &Path) -> io::Result<Self> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let records = read::<A>(&bytes);
        let rest = &bytes[records.len() * A::RECORD_LEN..];
        let lost = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if lost > 0 {
            warn!("{}: the last {lost} bytes are damaged and left out", path.display());
        }
        Ok(Self { records, is_torn: lost > 0 })
    }

    fn len(&self) -> u64 {
        (self.records.len() * A::RECORD_LEN) as u64
    }
}

impl<A: AddressFamily> Journal<A> {
    /// Opens or creates a journal, and returns its leases at `now`. An existing journal needs no disk space.
    pub(super) fn open(
        path: &Path,
        (pool, reservations): PoolPlan<A>,
        now: Seconds,
    ) -> io::Result<(Self, LeaseTable<A>)> {
        let read = ReadJournal::<A>::of(path)?;
        let (len, is_torn) = (read.len(), read.is_torn);
        let file = open(path)?;
        if is_torn {
            // Otherwise, bytes after a torn record would be read once that record is overwritten.
            file.set_len(len)?;
        }
        let leases = LeaseTable::replay(pool, reservations, read.records, now);
        if leases.count() > 0 {
            info!("{} leases taken over from {}", leases.count(), path.display());
        }
        let (path, family) = (path.to_owned(), PhantomData);
        let (unsynced, marked, is_failing, syncing) = (is_torn, None, false, None);
        let journal = Self { path, file, len, unsynced, marked, is_failing, syncing, family };
        journal.allocate().ok();
        Ok((journal, leases))
    }

    /// Appends records that are in `leases` since `now`; once this returns, they survive a crash of the daemon.
    ///
    /// If the disk is full, the journal is compacted: that frees space as long as some records are outdated, for
    /// example by renewals.
    pub(super) fn append<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a LeaseRecord<A>>,
        leases: &LeaseTable<A>,
        now: Seconds,
    ) -> io::Result<()>
    where
        A: 'a,
    {
        let mut records = records.into_iter().peekable();
        if records.peek().is_none() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        if self.marked != Some(now) {
            self.mark_of(now).encode(&mut bytes);
        }
        records.for_each(|record| record.encode(&mut bytes));
        let Err(error) = self.write(&bytes, now) else { return Ok(()) };
        if error.kind() == io::ErrorKind::StorageFull && self.write_anew(leases, now).is_ok() {
            return Ok(());
        }
        self.file.set_len(self.len).ok();
        Err(error)
    }

    /// Writes a time mark: the daemon runs, and leases have run until now.
    fn mark(&mut self, now: Seconds) {
        let mut bytes = Vec::new();
        self.mark_of(now).encode(&mut bytes);
        // A full disk is logged when a lease cannot be written.
        self.write(&bytes, now).or_else(|_| self.file.set_len(self.len)).ok();
    }

    fn mark_of(&self, now: Seconds) -> LeaseRecord<A> {
        LeaseRecord::mark(match self.marked {
            None => TimeMark::Started(now),
            Some(_) => TimeMark::Running(now),
        })
    }

    /// Writes records, with a time mark of `now` first if there is none yet.
    fn write(&mut self, bytes: &[u8], now: Seconds) -> io::Result<()> {
        // Writes at an offset, not at the end: a partial write on a full disk is overwritten, since a torn record
        // would hide all records after it.
        self.file.write_all_at(bytes, self.len)?;
        self.len += bytes.len() as u64;
        (self.marked, self.unsynced) = (Some(now), true);
        Ok(())
    }

    /// Whether the failure state has changed.
    pub(super) fn has_changed(&mut self, is_failing: bool) -> bool {
        std::mem::replace(&mut self.is_failing, is_failing) != is_failing
    }

    /// Allocates space in advance for the journal and its spare, so that machines get their addresses for hours after
    /// the disk has filled up. On file systems without allocation, they get them until then.
    fn allocate(&self) -> io::Result<()> {
        let (size, wanted) = (self.file.metadata()?.len(), self.len + RESERVE);
        if size < wanted - RESERVE / 2 {
            allocate(&self.file, wanted);
        }
        let size = self.file.metadata()?.len();
        let spare = open(&self.spare())?;
        if spare.metadata()?.len() < size {
            allocate(&spare, size);
        }
        Ok(())
    }

    fn spare(&self) -> PathBuf {
        self.path.with_extension("new")
    }

    /// Starts a sync of appended records, and compacts outdated ones. The disk may be slow; packets do not wait for
    /// it.
    pub(super) async fn sync(&mut self, leases: &LeaseTable<A>, now: Seconds) {
        if self.marked.is_none_or(|marked| now >= marked + MARK_EVERY) {
            self.mark(now);
        }
        if self.syncing.as_ref().is_some_and(|syncing| !syncing.is_finished()) {
            return;
        }
        self.settle().await;
        if !std::mem::take(&mut self.unsynced) {
            return;
        }
        let begun = if self.len > SMALL && self.len > 4 * (leases.count() * A::RECORD_LEN) as u64 {
            self.write_anew(leases, now)
        } else {
            self.file.try_clone().map(|file| {
                self.syncing = Some(tokio::task::spawn_blocking(move || file.sync_data()));
            })
        };
        self.note(begun);
        self.allocate().ok();
    }

    /// Writes the current leases into the spare file, and exchanges it with the journal.
    fn write_anew(&mut self, leases: &LeaseTable<A>, now: Seconds) -> io::Result<()> {
        let mut bytes = Vec::new();
        LeaseRecord::<A>::mark(TimeMark::Started(now)).encode(&mut bytes);
        leases.records().iter().for_each(|record| record.encode(&mut bytes));
        let (new, len) = (self.spare(), bytes.len());
        let file = open(&new)?;
        let size = file.metadata()?.len();
        // Zeros overwrite the spare's old records.
        bytes.resize(len.max(size as usize), 0);
        // If the spare is too small and the disk full, its partial growth is undone.
        file.write_all_at(&bytes, 0).inspect_err(|_| drop(file.set_len(size)))?;
        file.sync_data()?;
        let exchanged =
            renameat2(AT_FDCWD, &new, AT_FDCWD, &self.path, RenameFlags::RENAME_EXCHANGE);
        // On a file system without exchange, the next spare is a new file.
        exchanged.map_err(io::Error::from).or_else(|_| std::fs::rename(&new, &self.path))?;
        (self.file, self.len, self.marked) = (file, len as u64, Some(now));
        // Before the other file is overwritten.
        File::open(self.path.parent().expect("a file is in a folder"))?.sync_all()
    }

    /// Waits until everything is on the disk.
    pub(super) async fn close(mut self, now: Seconds) {
        self.mark(now);
        self.settle().await;
        let done = self.file.sync_data();
        self.note(done);
    }

    async fn settle(&mut self) {
        if let Some(syncing) = self.syncing.take() {
            let done = syncing.await.map_err(io::Error::other).flatten();
            self.note(done);
        }
    }

    fn note(&mut self, done: io::Result<()>) {
        let failed = done.is_err();
        if let Err(error) = done {
            self.unsynced = true;
            if self.has_changed(failed) {
                warn!(%error, "{} cannot be synced to the disk; trying again", self.path.display());
            }
        }
    }
}

/// Opens or creates a file for writing, readable only by its owner.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Creates a file of `size` zeros, if the disk has space.
fn allocate(file: &File, size: u64) {
    fallocate(file, FallocateFlags::empty(), 0, size.cast_signed()).ok();
}

#[cfg(test)]
mod tests {
    use dhcp::leases::LeasePool;
    use std::net::Ipv4Addr;

    use dhcp::leases::LeaseClaim;
    use hardware::Mac;

    use super::*;
    use crate::small_disk::on_a_small_disk;

    const POOL: LeasePool<Ipv4Addr> =
        LeasePool { first: Ipv4Addr::new(10, 0, 0, 10), last: Ipv4Addr::new(10, 0, 0, 20) };
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn bind(
        journal: &mut Journal<Ipv4Addr>,
        leases: &mut LeaseTable<Ipv4Addr>,
        mac: Mac,
    ) -> Ipv4Addr {
        let address = leases.offer(mac, None, LeaseClaim::Known, 0).unwrap();
        let record = leases.bind(mac, address, (), 3_600, LeaseClaim::Known, 0).unwrap();
        journal.append([&record], leases, 0).unwrap();
        address
    }

    #[test]
    fn leases_outlive_a_daemon_that_was_killed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leases");
        let (mut journal, mut leases) =
            Journal::<Ipv4Addr>::open(&path, (POOL, Vec::new()), 0).unwrap();
        let address = bind(&mut journal, &mut leases, MAC);
        drop((journal, leases));

        let (_, leases) = Journal::<Ipv4Addr>::open(&path, (POOL, Vec::new()), 0).unwrap();

        assert_eq!(leases.of(&MAC).unwrap().address, address);
    }

    #[test]
    fn a_torn_record_costs_itself_and_nothing_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leases");
        let (mut journal, mut leases) =
            Journal::<Ipv4Addr>::open(&path, (POOL, Vec::new()), 0).unwrap();
        bind(&mut journal, &mut leases, MAC);
        journal.file.write_all_at(&[1, 2, 3], journal.len).unwrap();
        drop((journal, leases));

        let (mut journal, mut leases) =
            Journal::<Ipv4Addr>::open(&path, (POOL, Vec::new()), 0).unwrap();
        bind(&mut journal, &mut leases, Mac([2, 0, 0, 0, 0, 2]));
        drop((journal, leases));

        let (_, leases) = Journal::<Ipv4Addr>::open(&path, (POOL, Vec::new()), 0).unwrap();
        assert!(leases.of(&MAC).is_some() && leases.of(&Mac([2, 0, 0, 0, 0, 2])).is_some());
    }

    const DAY: Seconds = 86_400;

    /// The ends of two leases after a restart of the daemon; one had ended before. The last record is torn.
    fn ends_when_started_at(now: Seconds) -> (Seconds, Seconds) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leases");
        let (guest, begun, ended) =
            (LeaseClaim::Guest { keep: 0 }, 10 * DAY, Mac([2, 0, 0, 0, 0, 2]));
        let (mut journal, mut leases) =
            Journal::<Ipv4Addr>::open(&path, (POOL, Vec::new()), begun).unwrap();
        let mut bind = |mac, secs, now| {
            let address = leases.offer(mac, None, guest, now).unwrap();
            let record = leases.bind(mac, address, (), secs, guest, now).unwrap();
            journal.append([&record], &leases, now).unwrap();
        };
        bind(MAC, 3_600, begun);
        bind(ended, 600, begun + 10);
        bind(Mac([2, 0, 0, 0, 0, 3]), 600, begun + 900);
        journal.file.set_len(journal.len - 1).unwrap();
        drop(journal);

        let seen: LeaseTable<Ipv4Addr> = look(&path, (POOL, Vec::new()), now).unwrap();
        let (_, opened) = Journal::<Ipv4Addr>::open(&path, (POOL, Vec::new()), now).unwrap();
        assert_eq!(seen.records(), opened.records());
        (opened.of(&MAC).unwrap().until(), opened.of(&ended).unwrap().until())
    }

    #[test]
    fn a_clock_that_is_set_while_the_daemon_is_stopped_ends_no_lease_early_and_keeps_none_longer() {
        for now in [9 * DAY, 10 * DAY + 900, 11 * DAY] {
            let (alive, ended) = ends_when_started_at(now);

            assert_eq!(alive, now + 2_700, "what was left of it when the last lease was written");
            assert!(ended <= now, "it had ended by then");
        }
    }

    #[tokio::test]
    async fn a_lease_is_kept_longer_for_the_time_in_which_the_daemon_is_stopped_and_for_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leases");
        let open = |now| Journal::<Ipv4Addr>::open(&path, (POOL, Vec::new()), now).unwrap();
        let (mut journal, mut leases) = open(0);
        bind(&mut journal, &mut leases, MAC);
        journal.sync(&leases, 1_000).await;
        drop((journal, leases));

        let (journal, leases) = open(5_000);
        assert_eq!(leases.of(&MAC).unwrap().until(), 5_000 + 2_600, "killed");
        drop((journal, leases));
        let (mut journal, leases) = open(50_000);
        assert_eq!(leases.of(&MAC).unwrap().until(), 50_000 + 2_600, "killed at once");
        journal.sync(&leases, 50_000).await;
        journal.close(51_000).await;

        let (_, leases) = open(9_000);
        assert_eq!(leases.of(&MAC).unwrap().until(), 9_000 + 1_600, "stopped");
    }

    #[tokio::test]
    async fn a_journal_does_not_grow_with_every_renewal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leases");
        let (mut journal, mut leases) =
            Journal::<Ipv4Addr>::open(&path, (POOL, Vec::new()), 0).unwrap();
        while journal.len <= SMALL {
            bind(&mut journal, &mut leases, MAC);
        }

        journal.sync(&leases, 0).await;

        assert_eq!(journal.len, 2 * Ipv4Addr::RECORD_LEN as u64, "a mark and a lease");
        assert!(std::fs::metadata(&path).unwrap().len() <= SMALL + 2 * RESERVE);
        let address = bind(&mut journal, &mut leases, Mac([2, 0, 0, 0, 0, 2]));
        let (_, leases) = Journal::<Ipv4Addr>::open(&path, (POOL, Vec::new()), 0).unwrap();
        assert_eq!(leases.of(&Mac([2, 0, 0, 0, 0, 2])).unwrap().address, address);
    }

    fn mac(number: u32) -> Mac {
        let [a, b, c, d] = number.to_be_bytes();
        Mac([2, 0, a, b, c, d])
    }

    #[test]
    fn a_journal_on_a_disk_that_ran_full_goes_on_and_loses_nothing_that_was_written() {
        let name = "dhcp::journal::tests::a_journal_on_a_disk_that_ran_full_goes_on_and_loses_nothing_that_was_written";
        on_a_small_disk(name, "8m", |disk| {
            let path = disk.path().join("leases");
            let pool = LeasePool { last: Ipv4Addr::new(10, 7, 255, 255), ..POOL };
            let (mut journal, mut leases) =
                Journal::<Ipv4Addr>::open(&path, (pool, Vec::new()), 0).unwrap();
            disk.fill_but(0);

            // The allocated space suffices for some time; then a record is torn in the middle.
            let mut number = 0;
            let refused = loop {
                let address = leases.offer(mac(number), None, LeaseClaim::Known, 0).unwrap();
                let record =
                    leases.bind(mac(number), address, (), 3_600, LeaseClaim::Known, 0).unwrap();
                if let Err(refused) = journal.append([&record], &leases, 0) {
                    break refused;
                }
                number += 1;
            };
            assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
            assert!(
                (u64::from(number) + 2) * Ipv4Addr::RECORD_LEN as u64 >= RESERVE,
                "{number} leases were given"
            );
            disk.free();
            let after = bind(&mut journal, &mut leases, MAC);
            drop((journal, leases));

            let (_, leases) = Journal::<Ipv4Addr>::open(&path, (pool, Vec::new()), 0).unwrap();
            assert_eq!(leases.of(&MAC).unwrap().address, after);
            assert!((0..number).all(|number| leases.of(&mac(number)).is_some()));
        });
    }

    #[test]
    fn renewals_go_on_for_as_long_as_a_disk_stays_full() {
        let name = "dhcp::journal::tests::renewals_go_on_for_as_long_as_a_disk_stays_full";
        on_a_small_disk(name, "8m", |disk| {
            let path = disk.path().join("leases");
            let pool = LeasePool { last: Ipv4Addr::new(10, 7, 255, 255), ..POOL };
            let (mut journal, mut leases) =
                Journal::<Ipv4Addr>::open(&path, (pool, Vec::new()), 0).unwrap();
            let machines = 1_000;
            let mut addresses: Vec<_> = (0..machines)
                .map(|machine| bind(&mut journal, &mut leases, mac(machine)))
                .collect();
            disk.fill_but(0);

            // Several times as many records as fit.
            for _ in 0..5 * RESERVE / (u64::from(machines) * Ipv4Addr::RECORD_LEN as u64) {
                for machine in 0..machines {
                    bind(&mut journal, &mut leases, mac(machine));
                }
            }
            addresses.push(bind(&mut journal, &mut leases, mac(machines)));
            drop(journal);

            let (_, replayed) = Journal::<Ipv4Addr>::open(&path, (pool, Vec::new()), 0).unwrap();
            assert_eq!(replayed.records(), leases.records());
            for (machine, address) in (0..).zip(addresses) {
                assert_eq!(replayed.of(&mac(machine)).unwrap().address, address);
            }
        });
    }

    #[test]
    fn a_journal_is_opened_on_a_full_disk_and_has_its_room_there() {
        let name =
            "dhcp::journal::tests::a_journal_is_opened_on_a_full_disk_and_has_its_room_there";
        on_a_small_disk(name, "8m", |disk| {
            let path = disk.path().join("leases");
            let (mut journal, mut leases) =
                Journal::<Ipv4Addr>::open(&path, (POOL, Vec::new()), 0).unwrap();
            let address = bind(&mut journal, &mut leases, MAC);
            drop((journal, leases));
            disk.fill_but(0);

            let (mut journal, mut leases) =
                Journal::<Ipv4Addr>::open(&path, (POOL, Vec::new()), 0).unwrap();

            assert_eq!(leases.of(&MAC).unwrap().address, address);
            bind(&mut journal, &mut leases, Mac([2, 0, 0, 0, 0, 2]));
        });
    }

    #[test]
    fn what_lay_behind_a_torn_record_is_not_read_after_those_that_follow() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leases");
        let (mut journal, mut leases) =
            Journal::<Ipv4Addr>::open(&path, (POOL, Vec::new()), 0).unwrap();
        bind(&mut journal, &mut leases, Mac([2, 0, 0, 0, 0, 2]));
        let lost = bind(&mut journal, &mut leases, MAC);
        journal.file.write_all_at(&[0xff; Ipv4Addr::RECORD_LEN], 0).unwrap();
        drop((journal, leases));

        let (mut journal, mut leases) =
            Journal::<Ipv4Addr>::open(&path, (POOL, Vec::new()), 0).unwrap();
        let found = leases.of(&MAC).cloned();
        bind(&mut journal, &mut leases, Mac([2, 0, 0, 0, 0, 3]));
        drop((journal, leases));

        let (_, leases) = Journal::<Ipv4Addr>::open(&path, (POOL, Vec::new()), 0).unwrap();
        assert!(found.is_none() && leases.of(&MAC).is_none(), "{lost} was lost");
    }
}
