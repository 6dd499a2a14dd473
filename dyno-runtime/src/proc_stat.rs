//! What tells a process from a later one with its number: when it began (proc_pid_stat(5)).

use rustix::{
    fs::{Mode, OFlags, open},
    io::{Errno, read},
};

use crate::error::{Context, Error, ErrorKind, Result};

/// When a process began, in ticks of the clock since the host was booted (field 22).
///
/// # Errors
/// ESRCH when there is no such process; of reading procfs.
pub(crate) fn start_time(pid: u32) -> Result<u64> {
    stat(pid)?.map(|(_, started)| started).ok_or_else(|| Error::call(ErrorKind::Io, format!("read /proc/{pid}/stat"), Errno::SRCH))
}

/// Whether the process with this pid and start time still runs: one that was killed is there until it is collected, and has let go of all.
pub(crate) fn lives(pid: u32, start: u64) -> bool {
    matches!(stat(pid), Ok(Some((state, since))) if since == start && !is_over(state))
}

/// Whether a process in this state has ended; or only its first thread, should there be others.
pub(crate) fn is_over(state: u8) -> bool {
    matches!(state, b'Z' | b'X' | b'x')
}

/// State and start time (fields 3 and 22); None when there is no such process.
///
/// # Errors
/// Of reading procfs.
pub(crate) fn stat(pid: u32) -> Result<Option<(u8, u64)>> {
    let path = format!("/proc/{pid}/stat");
    // All of it in one read: it is 52 numbers and a name of at most 64 bytes.
    let mut text = [0; 2048];
    let read = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).and_then(|file| read(&file, &mut text));
    let text = match read {
        Ok(length) => &text[..length],
        // ESRCH: it ended between open and read.
        Err(Errno::NOENT | Errno::SRCH) => return Ok(None),
        Err(e) => return Err(e).io(|| format!("read {path}")),
    };
    let text = String::from_utf8_lossy(text);
    // Field 2, the command's name, may hold anything; the last `)` ends it.
    let mut fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
    let state = fields.next().and_then(|state| state.bytes().next());
    let started = fields.nth(18).and_then(|field| field.parse().ok());
    match (state, started) {
        (Some(state), Some(started)) => Ok(Some((state, started))),
        _ => Err(Error::refused(ErrorKind::Io, format!("{path}: no start time"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    #[test]
    fn our_own_start_time_is_stable() {
        let pid = std::process::id();
        let start = start_time(pid).unwrap();
        assert_eq!(start, start_time(pid).unwrap());
        assert!(lives(pid, start) && !lives(pid, start + 1) && !lives(u32::MAX, start));
    }

    #[test]
    fn a_zombie_does_not_live() {
        let mut child = std::process::Command::new("true").stdout(std::process::Stdio::piped()).spawn().unwrap();
        let (pid, start) = (child.id(), start_time(child.id()).unwrap());
        // Readable once it has ended, which collects nothing.
        let pidfd = crate::sys::pin(pid).unwrap().unwrap();
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
        assert_eq!(start_time(pid).unwrap(), start);
        assert!(!lives(pid, start));
        child.wait().unwrap();
        assert_eq!(start_time(u32::MAX).unwrap_err().errno(), Some(Errno::SRCH));
    }
}
