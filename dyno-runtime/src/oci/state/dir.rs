//! [`StateDir`]: the directory of one container, and who may change it.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, fstat, mkdirat, openat, renameat, statat},
    io::Errno,
    process::geteuid,
};

use super::{
    First, Held, Record, State, Status,
    ground::{discard, make_root, names, open_dir, open_root, passing_name, sweep, take},
    held::Lock,
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    oci::cgroup::Cgroup,
};

pub(super) const RECORD: &str = "state.json";
/// The record as it is before there is a process. A name of its own, because ext4 writes a file to the disk that is renamed over another
/// one (its option auto_da_alloc), and not every /run is a tmpfs: that took longer than anything else in `create`.
pub(super) const INTENT: &str = "making.json";
pub(super) const CONFIG: &str = "config.json";
pub(super) const START: &str = "start";
/// A directory.
pub(super) const NOTIFY: &str = "notify";
/// A record that is not whole yet.
pub(super) const DRAFT: &str = "state.json~";
/// All of them.
pub(super) const FILES: [&str; 5] = [RECORD, INTENT, CONFIG, START, DRAFT];
/// Longest name of a directory.
const LONGEST: usize = 255;
/// How often a new directory may be swept before it has its name.
const ATTEMPTS: usize = 100;
/// A record of ours has no more; a configuration neither (`spec` refuses larger ones).
const MOST: u64 = 64 << 20;

/// The directory of a container.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
    id: String,
    pub(super) dir: OwnedFd,
}

/// runc's rule: letters, digits, `_`, `+`, `-` and `.`; neither `.` nor `..`; a name that a file can have.
///
/// # Errors
/// [`ErrorKind::Invalid`], in runc's words.
pub fn valid_id(id: &str) -> Result<()> {
    let letters = id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-.".contains(&b));
    if letters && !matches!(id, "" | "." | "..") && id.len() <= LONGEST {
        return Ok(());
    }
    let shown: String = id.chars().take(64).collect();
    Err(Error::refused(ErrorKind::Invalid, format!("invalid container ID format: {shown:?}")))
}

impl StateDir {
    /// Takes the id: the directory is made and locked elsewhere, and gets its name by rename(2), which fails if there is one of that name,
    /// because none is ever empty.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for an id that is none, or is taken; of the calls.
    pub fn create(root: &Path, id: &str) -> Result<Held> {
        valid_id(id)?;
        let base = match open_root(root)? {
            Some(base) => base,
            None => {
                make_root(root)?;
                open_root(root)?.ok_or_else(|| Error::call(ErrorKind::Io, format!("open({})", root.display()), Errno::NOENT))?
            }
        };
        // Whoever sweeps may have come between two steps of ours, and taken it for one that was left.
        for _ in 0..ATTEMPTS {
            if let Some(held) = Self::take_id(&base, root, id)? {
                return Ok(held);
            }
        }
        Err(Error::refused(ErrorKind::Io, format!("{}: what is made there is gone at once", root.display())))
    }

    /// None if the new directory was swept before it had its name.
    fn take_id(base: &OwnedFd, root: &Path, id: &str) -> Result<Option<Held>> {
        let passing = passing_name("new");
        mkdirat(base, &passing, Mode::RWXU).io(|| format!("mkdir({}/{passing})", root.display()))?;
        let made = || -> std::result::Result<Held, Errno> {
            let dir = open_dir(base, &passing)?;
            let lock = take(&dir, OFlags::CREATE, FlockOperation::LockExclusive)?;
            renameat(base, &passing, base, id)?;
            Ok(Held { state: Self { root: root.to_owned(), id: id.to_owned(), dir }, _lock: Lock(lock) })
        };
        match made() {
            Ok(held) => Ok(Some(held)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => {
                discard(base, &passing);
                match e {
                    Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR => {
                        Err(Error::refused(ErrorKind::Invalid, format!("container with id {id} already exists")))
                    }
                    e => Err(e).io(|| format!("rename({}/{passing}, {id})", root.display())),
                }
            }
        }
    }

    /// The directory of a container that there is.
    ///
    /// # Errors
    /// "container does not exist"; a directory that somebody else owns or may write to.
    pub fn open(root: &Path, id: &str) -> Result<Self> {
        Self::find(root, id)?.ok_or_else(|| missing(id))
    }

    /// [`StateDir::open`], with None for a container that does not exist.
    ///
    /// # Errors
    /// As there.
    pub fn find(root: &Path, id: &str) -> Result<Option<Self>> {
        valid_id(id)?;
        let Some(base) = open_root(root)? else { return Ok(None) };
        let path = || format!("{}/{id}", root.display());
        let dir = match open_dir(&base, id) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e).io(|| format!("open({})", path())),
        };
        let stat = fstat(&dir).io(|| format!("fstat({})", path()))?;
        if (stat.st_uid != geteuid().as_raw() && stat.st_uid != 0) || stat.st_mode & 0o022 != 0 {
            let text = format!(
                "{}: uid {} or others may write there (mode {:o}): it is not taken for a container's",
                path(),
                stat.st_uid,
                stat.st_mode & 0o7777
            );
            return Err(Error::refused(ErrorKind::Invalid, text));
        }
        Ok(Some(Self { root: root.to_owned(), id: id.to_owned(), dir }))
    }

    /// Removes what was left by runtimes that were killed while they took an id or gave one back.
    ///
    /// # Errors
    /// Of opening the directory of all; what is in nobody's way may stay.
    pub fn sweep(root: &Path) -> Result<()> {
        if let Some(base) = open_root(root)? {
            sweep(&base);
        }
        Ok(())
    }

    /// Ids of all containers, in order.
    ///
    /// # Errors
    /// Of reading the directory.
    pub fn list(root: &Path) -> Result<Vec<String>> {
        let Some(base) = open_root(root)? else { return Ok(Vec::new()) };
        let names = names(&base).io(|| format!("read {}", root.display()))?;
        let mut ids: Vec<String> = names.into_iter().filter(|name| valid_id(name).is_ok()).collect();
        ids.retain(|id| statat(&base, id, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory));
        ids.sort();
        Ok(ids)
    }

    /// Of the container.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Waits until nobody else makes, starts, updates or deletes it.
    ///
    /// # Errors
    /// "container does not exist" when it was deleted meanwhile.
    pub fn hold(self) -> Result<Held> {
        let id = self.id.clone();
        self.hold_if_there()?.ok_or_else(|| missing(&id))
    }

    /// [`StateDir::hold`], with None when it was deleted meanwhile.
    ///
    /// # Errors
    /// Of the calls.
    pub fn hold_if_there(self) -> Result<Option<Held>> {
        let lock = match take(&self.dir, OFlags::empty(), FlockOperation::LockExclusive) {
            Ok(lock) => Lock(lock),
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e).io(|| format!("lock {}", self.path())),
        };
        // Deleted: its files, or its name. Another of that name is another.
        let Some(base) = open_root(&self.root)? else { return Ok(None) };
        match (statat(&base, &self.id, AtFlags::SYMLINK_NOFOLLOW), fstat(&self.dir)) {
            (Ok(named), Ok(ours)) if (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino) => Ok(Some(Held { state: self, _lock: lock })),
            (Ok(_), Ok(_)) | (Err(Errno::NOENT), _) => Ok(None),
            (Err(e), _) | (_, Err(e)) => Err(e).io(|| format!("stat({})", self.path())),
        }
    }

    /// The record; None as long as its maker has written none, and for good if it was killed before.
    ///
    /// # Errors
    /// A record that cannot be read or is none.
    pub fn record(&self) -> Result<Option<Record>> {
        let Some(bytes) = self.read(RECORD)? else {
            // Half of one: its maker was killed before it made anything that this would speak of.
            return Ok(self.read(INTENT)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()));
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::refused(ErrorKind::Io, format!("{}/{RECORD}: {e}", self.path())))
    }

    /// [`StateDir::record`] of a container of which there must be one.
    ///
    /// # Errors
    /// "container does not exist".
    pub fn known(&self) -> Result<Record> {
        self.record()?.ok_or_else(|| missing(&self.id))
    }

    /// The configuration as it was at `create`, as it stands.
    ///
    /// # Errors
    /// When there is none, of reading it.
    pub fn config(&self) -> Result<Vec<u8>> {
        self.read(CONFIG)?.ok_or_else(|| Error::call(ErrorKind::Io, format!("open({}/{CONFIG})", self.path()), Errno::NOENT))
    }

    /// What the container does, and its first process if that has not ended.
    ///
    /// # Errors
    /// Of reading procfs and the FIFO.
    pub fn status(&self, record: &Record) -> Result<(Status, Option<First>)> {
        if self.is_making()? { Ok((Status::Creating, None)) } else { self.seen(record) }
    }

    /// Whether its maker is still at work: a process that the record may name already is no container yet.
    ///
    /// # Errors
    /// Of stat(2) and flock(2).
    pub fn is_making(&self) -> Result<bool> {
        match statat(&self.dir, INTENT, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => self.is_held(),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e).io(|| format!("stat({}/{INTENT})", self.path())),
        }
    }

    pub(super) fn seen(&self, record: &Record) -> Result<(Status, Option<First>)> {
        let Some(first) = First::of(record)? else {
            let creating = record.pid == 0 && self.is_held()?;
            return Ok((if creating { Status::Creating } else { Status::Stopped }, None));
        };
        let status = if self.starter()?.is_some() {
            Status::Created
        } else if Cgroup::stands_still(&record.cgroup).unwrap_or(false) {
            // A group that somebody has removed freezes nothing.
            Status::Paused
        } else {
            Status::Running
        };
        Ok((status, Some(first)))
    }

    /// The state as the specification has it.
    ///
    /// # Errors
    /// As [`StateDir::status`].
    pub fn state(&self, record: &Record) -> Result<State> {
        Ok(record.state(self.status(record)?.0))
    }

    /// The FIFO's end for `start`; None when the first process does not wait (any more).
    ///
    /// # Errors
    /// Of open(2).
    pub fn starter(&self) -> Result<Option<File>> {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&self.dir, START, flags, Mode::empty()) {
            Ok(fifo) => Ok(Some(fifo.into())),
            Err(Errno::NXIO | Errno::NOENT) => Ok(None),
            Err(e) => Err(e).io(|| format!("open({}/{START}, O_WRONLY)", self.path())),
        }
    }

    /// What the first process left in the FIFO. The caller keeps a [`StateDir::starter`] meanwhile.
    ///
    /// # Errors
    /// Of open(2) and read(2).
    pub fn last_words(&self) -> Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fifo = openat(&self.dir, START, flags, Mode::empty()).io(|| format!("open({}/{START}, O_RDONLY)", self.path()))?;
        let mut words = Vec::new();
        match File::from(fifo).take(1 << 16).read_to_end(&mut words) {
            Err(e) if e.kind() != std::io::ErrorKind::WouldBlock => Err(e).io(|| format!("read {}/{START}", self.path())),
            _ => Ok(words),
        }
    }

    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.root.display(), self.id)
    }

    pub(super) fn root_dir(&self) -> Result<OwnedFd> {
        open_root(&self.root)?.ok_or_else(|| missing(&self.id))
    }

    /// Whether somebody makes, starts, updates or deletes it.
    ///
    /// # Errors
    /// Of flock(2).
    pub fn is_held(&self) -> Result<bool> {
        match take(&self.dir, OFlags::empty(), FlockOperation::NonBlockingLockShared) {
            Ok(_) => Ok(false),
            Err(Errno::AGAIN) => Ok(true),
            // It is being deleted.
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e).io(|| format!("lock {}", self.path())),
        }
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let file = match openat(&self.dir, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e).io(|| format!("open({}/{name})", self.path())),
        };
        // Most are read at once.
        let mut bytes = Vec::with_capacity(8192);
        File::from(file).take(MOST).read_to_end(&mut bytes).io(|| format!("read {}/{name}", self.path()))?;
        Ok(Some(bytes))
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.dir, name, flags, Mode::RUSR | Mode::WUSR).io(|| format!("open({}/{name})", self.path()))?;
        File::from(file).write_all(bytes).io(|| format!("write {}/{name}", self.path()))
    }
}

/// In the words that clients look for.
pub fn missing(id: &str) -> Error {
    Error::refused(ErrorKind::Invalid, format!("container does not exist: {id}"))
}
