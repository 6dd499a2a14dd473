//! clone(2) where clone3 is hidden or does not know a flag: by a filter around this process, or before Linux 5.7.
//!
//! What clone3 does by a flag, the child does here before its own work: it takes back the handlers of its parent's signals
//! (CLEAR_SIGHAND) and enters its control group (INTO_CGROUP). The latter is a write to `cgroup.procs`, which waits for a
//! grace period of the kernel: some 10 ms and more.

use std::{
    arch::asm,
    ffi::c_void,
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use rustix::{
    fs::{Mode, OFlags, openat},
    io::Errno,
    process::{Pid, WaitOptions, waitpid},
};

use super::{check, clone::ChildStack};

/// What the child begins with. It lies at the top of the child's own stack, because a child that is not waited for needs it
/// after the call that made it has returned.
#[repr(C, align(16))]
struct Start {
    entry: extern "C" fn(*mut c_void) -> !,
    arg: *mut c_void,
    /// `cgroup.procs` of its control group, or -1.
    procs: RawFd,
    /// Written by the kernel, before the child runs.
    pidfd: RawFd,
    /// The signal mask that the child goes on with: its parent's.
    mask: u64,
    /// What it failed with before `entry`.
    failed: Option<Errno>,
}

/// As [`super::clone::clone`]; `flags` are those that clone(2) knows.
///
/// # Errors
/// Of clone(2) and of entering the control group. ENOSYS where CLONE_PIDFD is unknown (before Linux 5.2).
pub(super) fn clone(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    stack: &ChildStack,
    entry: extern "C" fn(*mut c_void) -> !,
    arg: *mut c_void,
) -> Result<(OwnedFd, u32), Errno> {
    let procs = cgroup.map(|dir| openat(dir, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())).transpose()?;
    let procs = procs.as_ref().map_or(-1, |file| std::os::fd::AsRawFd::as_raw_fd(&file.as_fd()));
    let start = stack.top().wrapping_byte_sub(size_of::<Start>()).cast::<Start>();
    // SAFETY: the top of a fresh stack, which is page aligned, larger than this, and nobody else's until the child runs.
    unsafe { start.write(Start { entry, arg, procs, pidfd: -1, mask: 0, failed: None }) };
    // No handler of ours may run in the child, on our memory and its small stack, before the child has taken them back.
    let mask = set_mask(u64::MAX);
    // SAFETY: as above; the child has not been made yet.
    unsafe { (*start).mask = mask };
    // SAFETY: the child runs on `stack`, which the caller keeps until it is gone, below `start`, and never returns from `enter`.
    let pid = unsafe { clone_on(flags, start) };
    set_mask(mask);
    if pid < 0 {
        return Err(Errno::from_raw_os_error(i32::try_from(-pid).unwrap_or(libc::EIO)));
    }
    let pid = i32::try_from(pid).map_err(|_| Errno::IO)?;
    // SAFETY: nobody writes these two any more: the kernel has, and the child does only when it does not come to `entry`.
    let (pidfd, failed) = unsafe { (std::ptr::read_volatile(&raw const (*start).pidfd), std::ptr::read_volatile(&raw const (*start).failed)) };
    // SAFETY: the kernel has stored a new descriptor there (CLONE_PIDFD).
    let pidfd = (pidfd != -1).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) });
    match (pidfd, failed) {
        (Some(pidfd), None) => Ok((pidfd, pid.cast_unsigned())),
        (pidfd, failed) => {
            // Not yet collected, so that the number is its own.
            waitpid(Pid::from_raw(pid), WaitOptions::empty()).or_else(|e| if e == Errno::CHILD { Ok(None) } else { Err(e) })?;
            Err(failed.unwrap_or(if pidfd.is_some() { Errno::IO } else { Errno::NOSYS }))
        }
    }
}

/// The child's first steps. Child-safe.
extern "C" fn enter(start: *mut c_void) -> ! {
    // SAFETY: `start` is the `Start` above our stack; our parent leaves it alone while we use it.
    let start = unsafe { &mut *start.cast::<Start>() };
    if start.pidfd == -1 {
        super::exit_now(1);
    }
    if let Err(errno) = take_back_handlers().and_then(|()| enter_group(start.procs)) {
        start.failed = Some(errno);
        super::exit_now(1);
    }
    set_mask(start.mask);
    (start.entry)(start.arg)
}

fn enter_group(procs: RawFd) -> Result<(), Errno> {
    if procs == -1 {
        return Ok(());
    }
    // SAFETY: one readable byte.
    check(unsafe { libc::syscall(libc::SYS_write, procs, c"0".as_ptr(), 1) }).map(drop)
}

/// Like CLONE_CLEAR_SIGHAND: what was ignored stays so, what had a handler gets the default.
fn take_back_handlers() -> Result<(), Errno> {
    const SIG_IGN: usize = 1;
    const SIZE: usize = 8;
    let default = [0usize; 4]; // struct sigaction: SIG_DFL, no flags, no restorer, empty mask
    for signal in 1..=64 {
        let mut is = default;
        // SAFETY: both have the kernel's layout (at most four words on our machines); the table of handlers is our own copy.
        unsafe {
            check(libc::syscall(libc::SYS_rt_sigaction, signal, 0, is.as_mut_ptr(), SIZE))?;
            if is[0] > SIG_IGN {
                check(libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0, SIZE))?;
            }
        }
    }
    Ok(())
}

/// Sets this thread's signal mask, the signals that the C library hides included; what it was. Child-safe.
fn set_mask(mask: u64) -> u64 {
    let mut was = 0u64;
    // SAFETY: 64-bit kernel sets, valid for the call, which cannot fail then.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, &raw mut was, size_of::<u64>()) };
    was
}

/// # Safety
/// `start` is writable, 16-byte aligned, and below it lies a stack that nothing else uses.
#[cfg(target_arch = "x86_64")]
unsafe fn clone_on(flags: u64, start: *mut Start) -> isize {
    let r: isize;
    // SAFETY: in the child the kernel has set rsp to `start`; r12 and r13 keep their values; the child never comes back to
    // this frame. The third argument is where the pidfd goes.
    unsafe {
        asm!("syscall", "test rax, rax", "jnz 2f", "xor ebp, ebp", "mov rdi, r12", "call r13", "ud2", "2:",
             inlateout("rax") libc::SYS_clone as isize => r, in("rdi") flags | libc::SIGCHLD as u64, in("rsi") start,
             in("rdx") &raw mut (*start).pidfd, in("r10") 0, in("r8") 0,
             in("r12") start, in("r13") enter as extern "C" fn(*mut c_void) -> !, lateout("rcx") _, lateout("r11") _);
    }
    r
}

/// # Safety
/// `start` is writable, 16-byte aligned, and below it lies a stack that nothing else uses.
#[cfg(target_arch = "aarch64")]
unsafe fn clone_on(flags: u64, start: *mut Start) -> isize {
    let r: isize;
    // SAFETY: in the child the kernel has set sp to `start`; x9 and x10 keep their values; the child never comes back to
    // this frame. The third argument is where the pidfd goes.
    unsafe {
        asm!("svc 0", "cbnz x0, 2f", "mov x29, 0", "mov x0, x9", "blr x10", "brk 1", "2:",
             in("x8") libc::SYS_clone, inlateout("x0") (flags | libc::SIGCHLD as u64) as isize => r, in("x1") start,
             in("x2") &raw mut (*start).pidfd, in("x3") 0, in("x4") 0,
             in("x9") start, in("x10") enter as extern "C" fn(*mut c_void) -> !);
    }
    r
}

#[cfg(test)]
mod tests {
    use super::super::{Flags, SharedChild, clone, exit_now, reap};
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    static HANDLED: AtomicBool = AtomicBool::new(false);

    extern "C" fn handler(_: libc::c_int) {
        HANDLED.store(true, Ordering::SeqCst);
    }

    /// Whether the child still has our handler and our mask.
    #[derive(Default)]
    struct Looks {
        handler: usize,
        ignored: usize,
        mask: u64,
    }

    impl SharedChild for Looks {
        fn run(&mut self) -> ! {
            let action = |signal: libc::c_int| {
                let mut is = [0usize; 4];
                // SAFETY: as in `take_back_handlers`.
                unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, 0, is.as_mut_ptr(), 8) };
                is[0]
            };
            (self.handler, self.ignored) = (action(libc::SIGUSR2), action(libc::SIGPIPE));
            self.mask = set_mask(0);
            exit_now(0)
        }
    }

    #[test]
    fn its_child_has_no_handler_of_ours_and_the_mask_that_we_have_again() {
        // SAFETY: a handler that only stores; the test program has no other for this signal.
        unsafe { libc::signal(libc::SIGUSR2, handler as extern "C" fn(libc::c_int) as usize) };
        let ours = set_mask(1 << (libc::SIGUSR1 - 1));
        let mut child = Looks { handler: 7, ignored: 7, mask: 7 };
        let (pidfd, pid) = clone::vfork_by_clone2(Flags::NONE, None, &mut child).unwrap();
        assert_eq!(set_mask(ours), 1 << (libc::SIGUSR1 - 1));
        assert!(pid > 0);
        assert_eq!((child.handler, child.ignored, child.mask), (0, 1, 1 << (libc::SIGUSR1 - 1)));
        assert!(!HANDLED.load(Ordering::SeqCst));
        reap(pidfd.as_fd()).unwrap();
    }

    #[test]
    fn a_group_that_cannot_be_entered_is_an_error_and_the_child_is_collected() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cgroup.procs"), "").unwrap();
        let group = std::fs::File::open(dir.path()).unwrap();
        // A plain file can be written to: then the child runs.
        let (pidfd, _) = clone::vfork_by_clone2(Flags::NONE, Some(group.as_fd()), &mut Looks::default()).unwrap();
        reap(pidfd.as_fd()).unwrap();
        assert_eq!(std::fs::read(dir.path().join("cgroup.procs")).unwrap(), b"0");
        std::fs::remove_file(dir.path().join("cgroup.procs")).unwrap();
        std::os::unix::fs::symlink("/dev/full", dir.path().join("cgroup.procs")).unwrap();
        let mut child = Looks { handler: 7, ..Looks::default() };
        let refused = clone::vfork_by_clone2(Flags::NONE, Some(group.as_fd()), &mut child);
        assert_eq!(refused.err(), Some(Errno::NOSPC));
        assert_eq!(child.handler, 7, "it ran all the same");
    }
}
