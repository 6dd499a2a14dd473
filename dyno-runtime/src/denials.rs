//! Which calls a filter denied: read from the filter's own listener, explained, and answered as the profile says.
//!
//! ```text
//! program: denied call ─▶ waits ─▶ errno of the profile
//!                          │  ▲
//! us:             next() ──┴──┘ report: who, which call, by which rule
//! ```
//!
//! The answer is worked out from the same verdicts as the filter, over the numbers that the kernel copied: nothing of the program's
//! memory is read, so it cannot change what it asked after it was judged.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Context, Error, ErrorKind, Result},
    seccomp::{Compiled, Explanation},
    sys::notify::{self, Call},
};

/// One denied call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// The thread that called, as the host numbers it; 0 if it was killed while we looked.
    pub pid: u32,
    /// The same, as the sandbox numbers it.
    pub pid_inside: u32,
    /// Its name (/proc/PID/comm), at most 15 bytes.
    pub program: String,
    /// The arguments. Pointers are numbers here: what they point to is not read.
    pub args: [u64; 6],
    /// Call, errno and rule.
    #[serde(flatten)]
    pub explanation: Explanation,
}

/// The denied calls of one dyno, as they happen.
///
/// A denied call waits until [`Denials::next_within`] or the iterator has read it; reading answers it. While nobody reads, whatever
/// meets the filter stands still. When this is dropped, the kernel answers ENOSYS to what waits and to every denied call after (the
/// filter stays, nothing more is allowed), not the errno of the profile: keep it as long as that matters. Programs inside cannot
/// install filters with listeners of their own meanwhile (EBUSY).
///
/// Readable for poll, epoll and async runtimes ([`AsFd`]) when a call waits; hung up when no process of the dyno is left. (Linux 6.1
/// hangs up only once the dyno was waited for; reading does not depend on that.)
#[derive(Debug)]
pub struct Denials {
    listener: OwnedFd,
    filter: Arc<Compiled>,
    /// The init: when it has ended, so have all others.
    init: OwnedFd,
}

impl Denials {
    /// Takes the listener that the child sent; its byte comes before the init's answer.
    pub(crate) fn receive(ready: &OwnedFd, filter: Arc<Compiled>, init: BorrowedFd<'_>) -> Result<Self> {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0u8; 1];
        let mut part = [std::io::IoSliceMut::new(&mut byte)];
        // The child sent it before its exec, for which we have waited.
        recvmsg(ready, &mut part, &mut control, RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT).io(|| "recvmsg(ready, listener)".into())?;
        let descriptors = control.drain().filter_map(|m| if let RecvAncillaryMessage::ScmRights(fds) = m { Some(fds) } else { None });
        let listener = descriptors.flatten().next().ok_or_else(|| Error::refused(ErrorKind::Io, "the child sent no seccomp listener"))?;
        let init = init.try_clone_to_owned().io(|| "dup(pidfd)".into())?;
        Ok(Self { listener, filter, init })
    }

    /// The next denied call, which goes on with its errno now; None when there was none in `time`, or when no process is left
    /// ([`Denials::has_ended`]).
    ///
    /// # Errors
    /// Of poll(2) and the listener.
    pub fn next_within(&mut self, time: Duration) -> Result<Option<Denial>> {
        self.wait(Instant::now().checked_add(time))
    }

    /// Whether no process of the dyno is left that could be denied anything.
    pub fn has_ended(&self) -> bool {
        matches!(poll(&mut [PollFd::new(&self.init, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1))
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Result<Option<Denial>> {
        loop {
            let left = deadline.map(|end| end.saturating_duration_since(Instant::now())).and_then(|left| Timespec::try_from(left).ok());
            let mut fds = [PollFd::new(&self.listener, PollFlags::IN), PollFd::new(&self.init, PollFlags::IN)];
            match poll(&mut fds, left.as_ref()) {
                Err(Errno::INTR) => continue,
                other => other.io(|| "poll(seccomp listener)".into())?,
            };
            if !fds[0].revents().contains(PollFlags::IN) {
                return Ok(None);
            }
            match notify::receive(self.listener.as_fd()) {
                // Its caller was killed meanwhile.
                Err(Errno::NOENT | Errno::INTR) => {}
                call => return self.tell(call.io(|| "ioctl(SECCOMP_IOCTL_NOTIF_RECV)".into())?).map(Some),
            }
        }
    }

    fn tell(&self, call: Call) -> Result<Denial> {
        let explanation = self.filter.explain(call.number.cast_unsigned(), &call.arguments);
        let (program, pid_inside) = caller(call.pid);
        // While it waits its number is its own.
        let there = notify::still_waits(self.listener.as_fd(), &call);
        // The filter asks about denied calls only; should the two ever differ, it stays denied.
        let errno = explanation.errno.map_or(Errno::PERM, |n| Errno::from_raw_os_error(i32::from(n)));
        match notify::answer(self.listener.as_fd(), &call, Some(errno)) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e).io(|| "ioctl(SECCOMP_IOCTL_NOTIF_SEND)".into()),
        }
        let (pid, pid_inside, program) = if there { (call.pid, pid_inside, program) } else { (0, 0, String::new()) };
        Ok(Denial { pid, pid_inside, program, args: call.arguments, explanation })
    }
}

/// Blocks until the next denied call; ends when no process of the dyno is left.
impl Iterator for Denials {
    type Item = Result<Denial>;

    fn next(&mut self) -> Option<Self::Item> {
        self.wait(None).transpose()
    }
}

impl AsFd for Denials {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Name of a thread, and its number in the innermost pid namespace that it is in.
fn caller(pid: u32) -> (String, u32) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").trim();
    (field("Name:").to_owned(), field("NSpid:").split_whitespace().last().and_then(|n| n.parse().ok()).unwrap_or(0))
}
