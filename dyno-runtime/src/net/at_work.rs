//! Runs of nft that outlive whoever began them.
//!
//! A process that is killed while its nft runs leaves it at work: it has its input, and its rules come whenever it is done, after somebody
//! else may have looked. So each run has for its standard output a FIFO beside the state that it concerns, named after the process that
//! began it, and is at work as long as anybody has that open for writing. Who decides by what rules there are, or takes some back, waits
//! first for what the dead began there.
//!
//! Only for theirs: the living wait for their own before they say that anything is done. And they must not be waited for here, because
//! a child that another thread is starting meanwhile has copies of all descriptors until it execs, and may itself wait for that thread.

use std::{
    fs::File,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{CWD, FileType, Mode, OFlags, fstat, mknodat, open},
    io::{Errno, read},
};

use crate::{
    error::{Context, Error, ErrorKind},
    proc_stat,
};

/// Begins the name of each: pid, start time and a number follow.
const NAME: &str = "nft-";

/// nft takes milliseconds. One that takes longer waits for another's change to the rules of the host, or was stopped.
const PATIENCE: Duration = Duration::from_secs(10);

/// A run that is about to begin. Dropped, it is over.
#[derive(Debug)]
pub(super) struct AtWork(PathBuf);

impl AtWork {
    /// The mark in `dir`, and what nft is to have for its standard output and nobody to keep.
    ///
    /// # Errors
    /// Of mkfifo(3) and open(2).
    pub fn begin(dir: &Path) -> crate::Result<(Self, File)> {
        static BEGUN: AtomicU64 = AtomicU64::new(0);
        let pid = std::process::id();
        let path = dir.join(format!("{NAME}{pid}-{}-{}", proc_stat::start_time(pid)?, BEGUN.fetch_add(1, Ordering::Relaxed)));
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).wall(|| format!("mkfifo({})", path.display()))?;
        let mark = Self(path);
        // For reading as well: with nobody who reads, it could not be opened for writing alone.
        let fifo = open(&mark.0, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty());
        let fifo = fifo.wall(|| format!("open({})", mark.0.display()))?;
        Ok((mark, fifo.into()))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_file(&self.0) {
            // It harms nobody: it goes with its directory, or when somebody waits for it.
            tracing::warn!(%e, path = %self.0.display(), "the mark of a run of nft is left");
        }
    }
}

/// Waits until no nft is at work any more that a process which has ended began in `dir`.
///
/// # Errors
/// When one does not end: by what it would leave nothing can be decided.
pub(super) fn wait_for_those_of_the_dead(dir: &Path) -> crate::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.io(|| format!("list {}", dir.display()))?,
    };
    for entry in entries {
        let name = entry.io(|| format!("list {}", dir.display()))?.file_name();
        if name.to_str().and_then(maker).is_some_and(|(pid, start)| !proc_stat::lives(pid, start)) {
            wait_for(&dir.join(name), PATIENCE)?;
        }
    }
    Ok(())
}

/// Pid and start time of who began it.
fn maker(name: &str) -> Option<(u32, u64)> {
    let mut numbers = name.strip_prefix(NAME)?.split('-');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn wait_for(path: &Path, patience: Duration) -> crate::Result<()> {
    let fifo = match open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.io(|| format!("open({})", path.display()))?,
    };
    let kind = FileType::from_raw_mode(fstat(&fifo).io(|| format!("fstat({})", path.display()))?.st_mode);
    if kind != FileType::Fifo {
        return Ok(()); // none of ours
    }
    // Nobody who writes is an end, and nothing to read then. Of a writer that has been there poll(2) tells when he goes, and of no other.
    if read(&fifo, &mut [0; 1]) == Ok(0) || is_left_within(&fifo, patience).io(|| format!("poll({})", path.display()))? {
        return match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).io(|| format!("unlink({})", path.display())),
            _ => Ok(()),
        };
    }
    let message = format!(
        "nft, which an earlier process began, has been at work for {} s, and its rules may still come; `fuser {}` tells which it is",
        patience.as_secs(),
        path.display()
    );
    Err(Error::refused(ErrorKind::Io, message))
}

/// True as soon as nobody has it open for writing.
fn is_left_within(fifo: &OwnedFd, patience: Duration) -> Result<bool, Errno> {
    let end = Instant::now() + patience;
    loop {
        let left = Timespec::try_from(end.saturating_duration_since(Instant::now())).ok();
        // No event is asked for: POLLHUP is told of without.
        match poll(&mut [PollFd::new(fifo, PollFlags::empty())], left.as_ref()) {
            Ok(n) => return Ok(n == 1),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, process::Command};

    /// What a process that has ended began in `dir`; it does not end before what is returned.
    fn of_the_dead(dir: &Path) -> (PathBuf, File) {
        let (mark, fifo) = AtWork::begin(dir).unwrap();
        let mut dead = Command::new("true").spawn().unwrap();
        let path = dir.join(format!("{NAME}{}-{}-0", dead.id(), proc_stat::start_time(dead.id()).unwrap()));
        dead.wait().unwrap();
        std::fs::rename(&mark.0, &path).unwrap();
        std::mem::forget(mark);
        (path, fifo)
    }

    #[test]
    fn who_lives_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (mark, fifo) = AtWork::begin(dir.path()).unwrap();
        wait_for_those_of_the_dead(dir.path()).unwrap();
        assert!(mark.0.exists());
        drop((fifo, mark));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        wait_for_those_of_the_dead(&dir.path().join("none")).unwrap();
    }

    #[test]
    fn the_dead_ones_is_waited_for_whatever_it_says() {
        for said in ["", "more than is read"] {
            let dir = tempfile::tempdir().unwrap();
            let (path, mut fifo) = of_the_dead(dir.path());
            fifo.write_all(said.as_bytes()).unwrap();
            let error = wait_for(&path, Duration::ZERO).unwrap_err();
            assert!(error.to_string().contains("fuser") && path.exists(), "{error}");
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| wait_for_those_of_the_dead(dir.path()));
                drop(fifo);
                waiting.join().unwrap().unwrap();
            });
            assert!(!path.exists());
        }
    }

    #[test]
    fn what_nobody_has_open_and_what_is_no_fifo() {
        let dir = tempfile::tempdir().unwrap();
        let (path, fifo) = of_the_dead(dir.path());
        drop(fifo);
        wait_for_those_of_the_dead(dir.path()).unwrap();
        assert!(!path.exists());
        std::fs::write(&path, "somebody's file").unwrap();
        wait_for_those_of_the_dead(dir.path()).unwrap();
        assert!(path.exists());
    }
}
