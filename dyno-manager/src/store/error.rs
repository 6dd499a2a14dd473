//! What the store can refuse, and why.

use std::path::PathBuf;

use crate::model::{Invalid, ProcessType};

/// A refusal or a failure of the store. The first four are the caller's to answer for, the rest the
/// host's.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing of that name (or id) is recorded.
    #[error("no {what} {name:?}")]
    NotFound {
        /// `app`, `release`, `build`, `slug`.
        what: &'static str,
        /// As asked for.
        name: String,
    },
    /// The request is sound but clashes with what is recorded.
    #[error("{0}")]
    Conflict(String),
    /// A rule of the model is broken.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The current release does not declare this process type.
    #[error("process type {wanted:?} is not declared by the current release{}", known_types(.known))]
    UnknownType {
        /// As asked for.
        wanted: String,
        /// What the current release declares.
        known: Vec<ProcessType>,
    },
    /// Another daemon holds the state directory.
    #[error(
        "{} is in use by another dynod{}; stop that one or give this one a state directory of its own",
        .dir.display(),
        holder(*.pid)
    )]
    Locked {
        /// The state directory.
        dir: PathBuf,
        /// The holder as the lock file names it.
        pid: Option<u32>,
    },
    /// The database was written by a later version of this program.
    #[error("{} has schema {found}, this dynod knows up to {known}; run the dynod that wrote it", .path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema number.
        found: u32,
        /// The last schema number that this program knows.
        known: u32,
    },
    /// The state directory or a file of it cannot be used.
    #[error("{}: {source}", .path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The database engine failed (disk full) or a row does not read back as what was written.
    #[error("platform.db: {0}")]
    Database(#[from] rusqlite::Error),
    /// The writer thread is gone, or this call made it panic.
    #[error("the store's writer did not answer; the daemon's log says why")]
    Gone,
}

fn known_types(known: &[ProcessType]) -> String {
    let names: Vec<_> = known.iter().map(ProcessType::as_str).collect();
    if names.is_empty() { "; deploy the app first".into() } else { format!("; its types are {}", names.join(", ")) }
}

fn holder(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

impl StoreError {
    pub(super) fn not_found(what: &'static str, name: impl ToString) -> Self {
        Self::NotFound { what, name: name.to_string() }
    }
}
