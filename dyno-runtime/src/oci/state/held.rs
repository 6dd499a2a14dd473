//! [`Held`]: a container's directory in the hands of one.

use std::{ops::Deref, os::fd::OwnedFd, path::PathBuf};

use rustix::{
    fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, flock, mkdirat, mknodat, openat, renameat, unlinkat},
    io::Errno,
};

use super::{
    First, Record, StateDir, Status,
    dir::{CONFIG, DRAFT, INTENT, NOTIFY, RECORD, START},
    ground::{discard, open_dir, passing_name, sweep},
};
use crate::error::{Context, Error, ErrorKind, Result};

/// A container that nobody else makes, starts, updates or deletes as long as this lives.
#[derive(Debug)]
pub struct Held {
    pub(super) state: StateDir,
    pub(super) _lock: Lock,
}

/// The lock of a container's directory.
#[derive(Debug)]
pub(super) struct Lock(pub OwnedFd);

impl Held {
    /// Says what is going to be made, before any of it is.
    ///
    /// # Errors
    /// Of the calls.
    pub fn intend(&self, record: &Record) -> Result<()> {
        let bytes = serde_json::to_vec(record).map_err(|e| Error::refused(ErrorKind::Io, format!("record of {}: {e}", self.id())))?;
        self.write(INTENT, &bytes)
    }

    /// Makes or replaces the record; [`Held::made`] comes after the first.
    ///
    /// # Errors
    /// Of the calls; the former record stands then.
    pub fn save(&self, record: &Record) -> Result<()> {
        let bytes = serde_json::to_vec(record).map_err(|e| Error::refused(ErrorKind::Io, format!("record of {}: {e}", self.id())))?;
        self.write(DRAFT, &bytes)?;
        renameat(&self.dir, DRAFT, &self.dir, RECORD).io(|| format!("rename({}/{DRAFT}, {RECORD})", self.path()))
    }

    /// Says that everything is made: until then the record speaks of a process that nothing but the end may come to.
    ///
    /// # Errors
    /// Of unlink(2).
    pub fn made(&self) -> Result<()> {
        unlinkat(&self.dir, INTENT, AtFlags::empty()).io(|| format!("unlink({}/{INTENT})", self.path()))
    }

    /// [`StateDir::status`] as whoever holds the lock sees it: nobody else is making it.
    ///
    /// # Errors
    /// As there.
    pub fn status(&self, record: &Record) -> Result<(Status, Option<First>)> {
        self.state.seen(record)
    }

    /// Lets others have it; the directory stays open.
    pub fn let_go(self) -> StateDir {
        self.state
    }

    /// Keeps the configuration as it is now.
    ///
    /// # Errors
    /// Of the calls.
    pub fn save_config(&self, bytes: &[u8]) -> Result<()> {
        self.write(CONFIG, bytes)
    }

    /// Makes the directory in which the container is heard when it is ready ([`crate::oci::notify`]); its path.
    ///
    /// # Errors
    /// Of mkdir(2).
    pub fn make_notify(&self) -> Result<PathBuf> {
        mkdirat(&self.dir, NOTIFY, Mode::from_raw_mode(0o755)).io(|| format!("mkdir({}/{NOTIFY})", self.path()))?;
        Ok(std::path::Path::new(&self.path()).join(NOTIFY))
    }

    /// That directory, if the container has one.
    ///
    /// # Errors
    /// Of open(2).
    pub fn notify(&self) -> Result<Option<OwnedFd>> {
        match open_dir(&self.dir, NOTIFY) {
            Err(Errno::NOENT) => Ok(None),
            other => other.map(Some).io(|| format!("open({}/{NOTIFY})", self.path())),
        }
    }

    /// Makes the FIFO and opens it for the first process, for both directions and close-on-exec: nothing else may keep it.
    ///
    /// # Errors
    /// Of the calls.
    pub fn make_start(&self) -> Result<OwnedFd> {
        mknodat(&self.dir, START, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).io(|| format!("mkfifo({}/{START})", self.path()))?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.dir, START, flags, Mode::empty()).io(|| format!("open({}/{START})", self.path()))
    }

    /// Gives the id back, then the directory. What it holds of the container must be gone before.
    ///
    /// # Errors
    /// Of rename(2): the container is there as before.
    pub fn remove(self) -> Result<()> {
        let (base, passing) = (self.root_dir()?, passing_name("gone"));
        renameat(&base, self.id(), &base, &passing).io(|| format!("rename({}, {passing})", self.path()))?;
        discard(&base, &passing);
        sweep(&base);
        Ok(())
    }
}

impl Deref for Held {
    type Target = StateDir;

    fn deref(&self) -> &StateDir {
        &self.state
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Said aloud, because a process forked meanwhile has a copy of the descriptor, and closing ours would not unlock.
        flock(&self.0, FlockOperation::Unlock).ok();
    }
}
