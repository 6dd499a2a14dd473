//! The desired state and the records: one SQLite file, `<state>/platform.db`, written by one thread.
//!
//! Every method is one transaction, on the disk (WAL, `synchronous = FULL`) before it returns. Version and run
//! numbers are given out inside these transactions, so two callers never get the same one. What a
//! dyno is doing is never recorded here; that is read from the kernel.

mod apps;
mod builds;
mod error;
mod formation;
mod releases;
mod types;

use std::path::Path;

pub use error::StoreError;
pub use types::{
    AppChange, Destroyed, Finished, FormationRow, FormationUpdate, NewBuild, NewSlug, Released, RollbackTo, Snapshot,
};

/// The store. Cheap to clone; the lock and the database are let go of when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Store {}

impl Store {
    /// Takes the state directory (made if it is missing), brings the schema up to date and marks as failed what
    /// a former daemon left unfinished. Blocks; called once, at start.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another daemon holds the directory, [`StoreError::Newer`] for a database of
    /// a later version.
    pub fn open(_state_dir: &Path) -> Result<Self, StoreError> {
        unreachable!()
    }
}
