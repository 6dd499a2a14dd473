//! The desired state and the records: one SQLite file, `<state>/platform.db`, written by one thread.
//!
//! Every method is one transaction, on the disk (WAL, `synchronous = FULL`) before it returns. Version and run
//! numbers are given out inside these transactions, so two callers never get the same one. A method whose
//! future is dropped half-way still runs to its end or not at all. What a dyno is doing is never recorded here;
//! that is read from the kernel.

mod apps;
mod builds;
mod columns;
mod error;
mod formation;
mod lock;
mod releases;
mod schema;
mod slugs;
#[cfg(test)]
mod tests;
mod types;
mod writer;

use std::{
    fs::{DirBuilder, OpenOptions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};

pub use error::StoreError;
pub use types::{AppChange, Destroyed, Finished, FormationRow, FormationUpdate, NewBuild, NewSlug, Released, RollbackTo, Snapshot};

use columns::Micros;
use writer::Writer;

type Result<T, E = StoreError> = std::result::Result<T, E>;

/// That no daemon holds the state directory at this moment, for whoever wants to know before it makes things of its own.
///
/// # Errors
/// [`StoreError::Locked`], or the lock file cannot be read.
pub fn free(state_dir: &Path) -> Result<()> {
    lock::check(state_dir)
}

/// The store. Cheap to clone; the lock and the database are let go of when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Store {
    writer: Arc<Writer>,
}

impl Store {
    /// Takes the state directory (made if it is missing), brings the schema up to date and marks as failed what
    /// a former daemon left unfinished. Blocks; called once, at start.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another daemon holds the directory, [`StoreError::Newer`] for a database of
    /// a later version.
    pub fn open(state_dir: &Path) -> Result<Self> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { path, source }
        };
        // Others may pass through to what they have a right to, but not list it.
        DirBuilder::new().recursive(true).mode(0o711).create(state_dir).map_err(io(state_dir))?;
        let lock = lock::take(state_dir)?;
        let path = state_dir.join("platform.db");
        // Config vars are secrets. SQLite gives the WAL the mode of the database, so this covers all files.
        OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(io(&path))?;
        let mut db = Connection::open(&path)?;
        configure(&db)?;
        schema::migrate(&mut db, &path, schema::MIGRATIONS)?;
        fail_unfinished(&mut db)?;
        let writer = Writer::start(db, lock).map_err(io(state_dir))?;
        Ok(Self { writer: Arc::new(writer) })
    }

    /// Runs `work` as one transaction on the writer thread: all of it is on the disk, or none.
    async fn transact<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    {
        self.writer.call(move |db| immediate(db, work)).await
    }
}

/// IMMEDIATE, because a transaction that reads first and then wants to write can be refused half-way.
fn immediate<T>(db: &mut Connection, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
    let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let value = work(&tx)?;
    tx.commit()?;
    Ok(value)
}

fn configure(db: &Connection) -> Result<()> {
    // Nobody else writes; an operator's sqlite3 shell or a backup may hold a lock for a moment.
    db.busy_timeout(Duration::from_secs(5))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    // NORMAL may lose the last commits of a WAL on power loss (sqlite.org/pragma.html#pragma_synchronous); an
    // acknowledged release must not vanish.
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    // The daemon writes nowhere but in its own directories, and SQLite's other place for what it sorts is /var/tmp.
    db.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(())
}

/// Nothing of a former daemon's builds and release phases goes on, so nothing will ever finish their rows.
fn fail_unfinished(db: &mut Connection) -> Result<()> {
    immediate(db, |tx| {
        let builds = tx.execute(
            "UPDATE builds SET status = 'failed', error = 'the daemon restarted during the build', updated_at = ?1
             WHERE status = 'pending'",
            params![Micros(now())],
        )?;
        let releases = tx.execute("UPDATE releases SET status = 'failed' WHERE status = 'pending'", [])?;
        if builds + releases > 0 {
            tracing::warn!(builds, releases, "marked as failed what the former daemon left unfinished");
        }
        Ok(())
    })
}

/// Now, in the microseconds that the database keeps: what is returned equals what is read back later.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}
