//! A container's first process: the number in its record may be another's by now, so it is pinned first and looked at after.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::Record;
use crate::{
    error::{Context, Error, ErrorKind, Result},
    proc_stat::{is_over, stat},
    sys,
};

/// A first process that has not ended.
#[derive(Debug)]
pub struct First {
    pidfd: OwnedFd,
    /// Its number.
    pub pid: u32,
}

impl First {
    /// The process of `record`; None once it has ended, collected by its parent or not.
    ///
    /// # Errors
    /// Of pidfd_open(2) and of reading procfs.
    pub fn of(record: &Record) -> Result<Option<Self>> {
        let pid = record.pid;
        if pid == 0 {
            return Ok(None);
        }
        let Some(pidfd) = sys::pin(pid).io(|| format!("pidfd_open({pid})"))? else { return Ok(None) };
        // What has this number now has had it since the record was written, or has a later start.
        let Some((state, started)) = stat(pid)? else { return Ok(None) };
        let first = Self { pidfd, pid };
        // Z is also a process whose first thread alone has ended; the descriptor tells.
        let ended = is_over(state) && first.ends_within(Some(0))?;
        Ok((started == record.start_time && !ended).then_some(first))
    }

    /// A child of ours that nobody has collected.
    pub fn child(pidfd: OwnedFd, pid: u32) -> Self {
        Self { pidfd, pid }
    }

    /// Stands for it.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Sends it a signal by number; 0 only asks whether it is there.
    ///
    /// # Errors
    /// Of pidfd_send_signal(2); that it has just ended is said in the words that clients look for.
    pub fn signal(&self, signal: i32) -> Result<()> {
        match sys::send_signal(self.pidfd.as_fd(), signal) {
            Err(Errno::SRCH) => Err(Error::refused(ErrorKind::Io, "container not running: no such process")),
            other => other.io(|| format!("pidfd_send_signal({}, {signal})", self.pid)),
        }
    }

    /// Whether it ends within so many milliseconds (None: whenever that is).
    ///
    /// # Errors
    /// Of poll(2).
    pub fn ends_within(&self, millis: Option<u32>) -> Result<bool> {
        let end = millis.map(|ms| std::time::Instant::now() + std::time::Duration::from_millis(ms.into()));
        loop {
            let left = end.map(|end| end.saturating_duration_since(std::time::Instant::now()));
            let left = left.map(|left| Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() });
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], left.as_ref()) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e).io(|| format!("poll(pidfd of {})", self.pid)),
            }
        }
    }
}
