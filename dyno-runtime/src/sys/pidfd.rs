//! Ended processes, by the descriptor that stands for them.

use std::{
    io::Read,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags, open, openat},
    io::Errno,
    process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid},
};

/// Collects an ended (or just killed) process, so that it is no zombie of ours. One that is not our child, or was collected before,
/// is no error: the exit status is not asked for.
///
/// By waitid(P_PIDFD) (Linux 5.4), or by the number that the kernel says the descriptor has now where that is hidden.
///
/// # Errors
/// Of waitid(2).
pub fn reap(pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
    let waited = match waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
        // An unknown kind of id, or a directory of procfs ([`pin`]).
        Err(Errno::INVAL | Errno::NOSYS | Errno::BADF) => match number(pidfd) {
            Some(pid) => waitid(WaitId::Pid(pid), WaitIdOptions::EXITED),
            None => return Ok(()),
        },
        other => other,
    };
    match waited {
        // ECHILD: another's, or whoever started us ignores SIGCHLD and so do we: the kernel has reaped it.
        Ok(_) | Err(Errno::CHILD) => Ok(()),
        Err(e) => Err(e),
    }
}

/// A descriptor that pins process `pid`, so that a signal through it reaches no other. None when there is no such process.
///
/// By pidfd_open(2) (Linux 5.3), or the process's directory in procfs where that is hidden: it cannot be polled, but
/// pidfd_send_signal(2) takes it.
///
/// # Errors
/// Of pidfd_open(2) and openat(2).
pub fn pin(pid: u32) -> Result<Option<OwnedFd>, Errno> {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let pin = match pidfd_open(number, PidfdFlags::empty()) {
        Err(Errno::NOSYS) => open(format!("/proc/{pid}"), flags, Mode::empty()),
        other => other,
    };
    match pin {
        Ok(pin) => Ok(Some(pin)),
        Err(Errno::SRCH | Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The mount namespace of a process that runs (PIDFD_GET_MNT_NAMESPACE, Linux 6.11). None where the kernel cannot tell, or when the
/// process has left it, which it does some time before it ends.
pub fn mount_namespace(pidfd: BorrowedFd<'_>) -> Option<OwnedFd> {
    namespace(pidfd, 0xff03)
}

/// Its network namespace (PIDFD_GET_NET_NAMESPACE), as [`mount_namespace`].
pub fn network_namespace(pidfd: BorrowedFd<'_>) -> Option<OwnedFd> {
    namespace(pidfd, 0xff04)
}

fn namespace(pidfd: BorrowedFd<'_>, which: libc::Ioctl) -> Option<OwnedFd> {
    // SAFETY: takes no argument; answers a new descriptor.
    let fd = super::check(libc::c_long::from(unsafe { libc::ioctl(pidfd.as_raw_fd(), which, 0) })).ok()?;
    // SAFETY: the kernel has just made this descriptor for us.
    Some(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).ok()?) })
}

/// The process's number: no other can have it as long as it stands there (proc_pid_fdinfo(5)); None once it is collected.
pub fn number(pidfd: BorrowedFd<'_>) -> Option<Pid> {
    if let Ok(stat) = openat(pidfd, "stat", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        let mut text = String::new();
        std::fs::File::from(stat).read_to_string(&mut text).ok()?;
        return Pid::from_raw(text.split(' ').next()?.parse().ok()?);
    }
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let number: i32 = text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    Pid::from_raw(number.max(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Flags, SharedChild, exit_now, vfork};
    use std::os::fd::AsFd;

    struct Ends;

    impl SharedChild for Ends {
        fn run(&mut self) -> ! {
            exit_now(0)
        }
    }

    #[test]
    fn a_pidfd_has_a_number_until_its_process_is_collected() {
        let (pidfd, pid) = vfork(Flags::NONE, None, &mut Ends).unwrap();
        let is = number(pidfd.as_fd()).map(|pid| pid.as_raw_nonzero().get().cast_unsigned());
        assert_eq!(is, Some(pid));
        reap(pidfd.as_fd()).unwrap();
        assert_eq!(number(pidfd.as_fd()), None);
        reap(pidfd.as_fd()).unwrap();
    }

    #[test]
    fn a_pidfd_tells_its_namespaces() {
        use rustix::fs::fstat;
        let pidfd = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty()).unwrap();
        for (name, told) in [("mnt", mount_namespace(pidfd.as_fd())), ("net", network_namespace(pidfd.as_fd()))] {
            let Some(told) = told else {
                println!("skipped: {name}: this kernel cannot tell (6.11)");
                continue;
            };
            let there = std::fs::File::open(format!("/proc/self/ns/{name}")).unwrap();
            assert_eq!(fstat(told).unwrap().st_ino, fstat(there).unwrap().st_ino, "{name}");
        }
    }
}
