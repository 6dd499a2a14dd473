//! The tables, and how a database of an earlier version becomes one of this version.

use std::path::Path;

use rusqlite::Connection;

use super::{Result, StoreError, immediate};

/// One step per schema number, in order; `PRAGMA user_version` counts those that a database has taken. A step that has
/// shipped is never edited: a change is a new step.
pub(super) const MIGRATIONS: &[&str] = &[include_str!("schema/1.sql")];

/// Takes the steps that `db` still lacks, each in a transaction of its own.
pub(super) fn migrate(db: &mut Connection, path: &Path, steps: &[&str]) -> Result<()> {
    let done: u32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    if done > known {
        return Err(StoreError::Newer { path: path.to_owned(), found: done, known });
    }
    for (number, step) in (1..=known).zip(steps).skip(done as usize) {
        immediate(db, |tx| {
            tx.execute_batch(step)?;
            tx.pragma_update(None, "user_version", number)?;
            Ok(())
        })?;
    }
    Ok(())
}
