//! The ground that containers' directories stand on: how they appear, are locked, and vanish.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, flock, fstat, open, openat, unlinkat},
    io::Errno,
};

use super::dir::{FILES, NOTIFY};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    oci::notify,
};

/// In a directory that is locked or is to be locked.
const LOCK: &str = "lock";
/// First letter of what is on its way in or out; no id has it.
const PASSING: char = '@';

/// No two processes have one number at a time, and one that had it before left nothing that is locked.
pub fn passing_name(way: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{PASSING}{way}.{}.{}", std::process::id(), now.as_nanos())
}

/// Makes the directory of all containers.
pub fn make_root(root: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root).io(|| format!("mkdir({})", root.display()))
}

/// What others may write to is no place for what is believed later.
pub fn open_root(root: &Path) -> Result<Option<OwnedFd>> {
    let base = match open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(base) => base,
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(e).io(|| format!("open({})", root.display())),
    };
    let stat = fstat(&base).io(|| format!("fstat({})", root.display()))?;
    if stat.st_mode & 0o022 != 0 && stat.st_mode & 0o1000 == 0 {
        return Err(Error::refused(
            ErrorKind::Invalid,
            format!("--root {}: others may write there (mode {:o})", root.display(), stat.st_mode & 0o7777),
        ));
    }
    Ok(Some(base))
}

/// A directory, not a symlink to one.
pub fn open_dir(base: &OwnedFd, name: &str) -> std::result::Result<OwnedFd, Errno> {
    openat(base, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Locks a container's directory, and waits for that unless `how` says otherwise.
pub fn take(dir: &OwnedFd, flags: OFlags, how: FlockOperation) -> std::result::Result<OwnedFd, Errno> {
    let lock = openat(dir, LOCK, OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | flags, Mode::RUSR | Mode::WUSR)?;
    loop {
        match flock(lock.as_fd(), how) {
            Ok(()) => return Ok(lock),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// What is in a directory, as far as it is UTF-8.
pub fn names(dir: &OwnedFd) -> std::result::Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        if let Ok(name) = entry?.file_name().to_str() {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// What was left by runtimes that were killed while they took an id or gave one back: nobody locks it.
pub fn sweep(base: &OwnedFd) {
    for name in names(base).unwrap_or_default().iter().filter(|name| name.starts_with(PASSING)) {
        let free = open_dir(base, name).and_then(|dir| take(&dir, OFlags::empty(), FlockOperation::NonBlockingLockExclusive));
        match free {
            // As long as we have its lock its maker cannot give it a name.
            Ok(_lock) => discard(base, name),
            // Its maker is just about to make one (and begins anew if this comes first), or was killed there. Nothing in it is touched.
            Err(Errno::NOENT) => unlinkat(base, name, AtFlags::REMOVEDIR).unwrap_or_default(),
            Err(_) => {}
        }
    }
}

/// Removes a directory that has no id any more, or never had one. What is left of it is in nobody's way, and is swept later.
pub fn discard(base: &OwnedFd, name: &str) {
    let emptied = open_dir(base, name).and_then(|dir| {
        if let Ok(inner) = open_dir(&dir, NOTIFY) {
            missing_is_fine(unlinkat(&inner, notify::SOCKET, AtFlags::empty()))?;
            unlinkat(&dir, NOTIFY, AtFlags::REMOVEDIR)?;
        }
        // The lock last: whoever sweeps leaves alone what is locked.
        let mut files = FILES.into_iter().chain([LOCK]);
        files.try_for_each(|file| missing_is_fine(unlinkat(&dir, file, AtFlags::empty())))
    });
    if let Err(e) = emptied.and_then(|()| unlinkat(base, name, AtFlags::REMOVEDIR)) {
        tracing::debug!(%e, name, "a directory that was a container's");
    }
}

fn missing_is_fine(result: std::result::Result<(), Errno>) -> std::result::Result<(), Errno> {
    if result == Err(Errno::NOENT) { Ok(()) } else { result }
}
