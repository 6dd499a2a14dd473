//! Whether the kernel has a call: asked with arguments that it must refuse.

use rustix::io::Errno;

use super::check;

/// What the kernel said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It refused the arguments.
    There,
    /// ENOSYS, or it knows the call but not this use of it.
    Absent,
    /// EPERM: privileges are asked for before arguments are, or a filter around us says so.
    Refused,
}

/// No descriptor has this number (fs.nr_open is at most 2^30 and some, below this).
const NOT_OPEN: libc::c_long = i32::MAX as libc::c_long;
const BAD_FLAGS: libc::c_long = 0x4000_0000;

/// Call and arguments that no kernel accepts: bad descriptors, unknown flags, sizes of zero.
#[rustfmt::skip]
const CALLS: &[(&str, libc::c_long, [libc::c_long; 5])] = &[
    ("clone3", libc::SYS_clone3, [0, 0, 0, 0, 0]),
    ("pidfd_open", libc::SYS_pidfd_open, [-1, 0, 0, 0, 0]),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal, [NOT_OPEN, 0, 0, 0, 0]),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, [NOT_OPEN, 0, 0, 0, 0]),
    ("openat2", libc::SYS_openat2, [NOT_OPEN, 0, 0, 0, 0]),
    ("close_range", libc::SYS_close_range, [1, 0, 0, 0, 0]),
    ("fsopen", libc::SYS_fsopen, [0, BAD_FLAGS, 0, 0, 0]),
    ("open_tree", libc::SYS_open_tree, [NOT_OPEN, 0, BAD_FLAGS, 0, 0]),
    ("move_mount", libc::SYS_move_mount, [NOT_OPEN, 0, NOT_OPEN, 0, BAD_FLAGS]),
    ("mount_setattr", libc::SYS_mount_setattr, [NOT_OPEN, 0, BAD_FLAGS, 0, 0]),
];

/// The calls that this library cannot do without, or does better with.
pub fn calls() -> Vec<(&'static str, Answer)> {
    let ask = |(name, number, [a, b, c, d, e]): &(&'static str, libc::c_long, [libc::c_long; 5])| {
        // SAFETY: every pointer among them is null, and every call fails before it looks at one.
        let answer = check(unsafe { libc::syscall(*number, *a, *b, *c, *d, *e) });
        (*name, judge(answer))
    };
    let into_cgroup = ("CLONE_INTO_CGROUP", clone_into_cgroup());
    let notify = ("seccomp user notification", user_notification());
    CALLS.iter().map(ask).chain([into_cgroup, notify]).collect()
}

fn judge(answer: Result<libc::c_long, Errno>) -> Answer {
    match answer {
        Err(Errno::NOSYS) => Answer::Absent,
        Err(Errno::PERM | Errno::ACCESS) => Answer::Refused,
        _ => Answer::There,
    }
}

/// EBADF if the kernel has looked for the group; E2BIG or EINVAL if it does not know the flag.
fn clone_into_cgroup() -> Answer {
    const INTO_CGROUP: u64 = 1 << 33;
    // struct clone_args: flags, seven words, the exit signal among them, and last the group.
    let mut args = [0u64; 11];
    (args[0], args[4], args[10]) = (INTO_CGROUP, libc::SIGCHLD as u64, NOT_OPEN as u64);
    // SAFETY: `args` has the layout of struct clone_args; with a group that is not open no process is made.
    match check(unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) }) {
        Err(Errno::BADF) => Answer::There,
        Err(Errno::PERM) => Answer::Refused,
        _ => Answer::Absent,
    }
}

fn user_notification() -> Answer {
    const GET_ACTION_AVAIL: libc::c_long = 2;
    let action = libc::SECCOMP_RET_USER_NOTIF;
    // SAFETY: the kernel reads one u32.
    match check(unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0, &raw const action) }) {
        Ok(_) => Answer::There,
        Err(Errno::PERM) => Answer::Refused,
        Err(_) => Answer::Absent,
    }
}
