//! clone3 for spawning: a child that shares our memory and runs on a stack of its own while we sleep.
//!
//! Why not fork: its price grows with the memory of the caller (20 ms at 512 MiB). Why CLONE_VFORK
//! with CLONE_VM: a child in a limited memory cgroup that shares our memory would make the kernel's
//! OOM killer choose us; while we sleep in vfork it does not.

use std::{
    arch::asm,
    ffi::c_void,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::{Mutex, PoisonError},
};

use rustix::io::Errno;

/// Flags of clone3(2). Defined here because `libc::CLONE_INTO_CGROUP` is 0 on 64-bit targets (an overflow in its type).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(u64);

impl Flags {
    /// CLONE_NEWNS.
    pub const NEWNS: Self = Self(0x0002_0000);
    /// None.
    pub const NONE: Self = Self(0);
    /// CLONE_NEWCGROUP.
    pub const NEWCGROUP: Self = Self(0x0200_0000);
    /// CLONE_NEWUTS.
    pub const NEWUTS: Self = Self(0x0400_0000);
    /// CLONE_NEWIPC.
    pub const NEWIPC: Self = Self(0x0800_0000);
    /// CLONE_NEWUSER.
    pub const NEWUSER: Self = Self(0x1000_0000);
    /// CLONE_NEWPID.
    pub const NEWPID: Self = Self(0x2000_0000);
    /// CLONE_NEWNET.
    pub const NEWNET: Self = Self(0x4000_0000);
    /// CLONE_NEWTIME; of unshare(2) only.
    #[cfg(feature = "oci")]
    pub const NEWTIME: Self = Self(0x80);
    /// CLONE_FILES.
    pub const FILES: Self = Self(0x400);
    /// CLONE_PARENT.
    pub const PARENT: Self = Self(0x8000);
    /// In the manner of vfork(2): the caller sleeps until the child has exec'd or ended.
    pub const SHARED: Self = Self(Self::VFORK | Self::CLEAR_SIGHAND);
    const VM: u64 = 0x100;
    pub(super) const PIDFD: u64 = 0x1000;
    const VFORK: u64 = 0x4000;
    const CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    pub(super) const INTO_CGROUP: u64 = 0x2_0000_0000;

    /// Both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any of `other` is among them.
    #[cfg(feature = "oci")]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Those that are not in `other`.
    #[cfg(feature = "oci")]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// As the kernel takes them.
    pub(super) const fn bits(self) -> u64 {
        self.0
    }
}

/// `struct clone_args` as of Linux 5.7 (clone3(2)).
#[repr(C, align(8))]
#[derive(Default)]
pub(super) struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

/// A private stack for one child, with a guard page below it.
pub(super) struct ChildStack {
    base: *mut c_void,
}

const STACK_SIZE: usize = 64 * 1024;
const GUARD: usize = 4096;

/// Stacks for the next children. To unmap one that was used interrupts every processor on which a thread of ours has been, and to map
/// one anew costs as much again: together a tenth of a start.
static USED: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// As many as there are likely to be starts at a time.
const KEPT: usize = 8;

impl ChildStack {
    pub(super) fn new() -> Result<Self, Errno> {
        let used = USED.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(base) = used {
            return Ok(Self { base: base as *mut c_void });
        }
        // SAFETY: a fresh anonymous mapping; no existing memory is touched.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                STACK_SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(Errno::NOMEM);
        }
        let stack = Self { base };
        // SAFETY: the first page of the mapping made above.
        super::check(libc::c_long::from(unsafe { libc::mprotect(base, GUARD, libc::PROT_NONE) }))?;
        Ok(stack)
    }

    /// Its end, page aligned; it grows down from there.
    pub(super) fn top(&self) -> *mut c_void {
        self.base.wrapping_byte_add(STACK_SIZE)
    }
}

impl Drop for ChildStack {
    fn drop(&mut self) {
        let mut used = USED.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() < KEPT {
            return used.push(self.base as usize);
        }
        drop(used);
        // SAFETY: the mapping made by `new`; the child that used it has exec'd, exited or been killed and reaped.
        unsafe { libc::munmap(self.base, STACK_SIZE) };
    }
}

/// The child half of a spawn: runs in a process that shares the caller's memory.
///
/// It must be child-safe: no allocation, no locks, no panics, no thread-locals, and it ends in exec or exit.
pub trait SharedChild {
    /// Runs in the child.
    fn run(&mut self) -> !;
}

pub(super) extern "C" fn enter<C: SharedChild>(arg: *mut c_void) -> ! {
    // SAFETY: `arg` is the `&mut C` that the cloning thread passed and does not use while it sleeps.
    unsafe { &mut *arg.cast::<C>() }.run()
}

/// Clones a child that runs `child` on its own stack and our memory; returns once it has exec'd or ended.
///
/// `cgroup` (a v2 directory) is where it is born. The pidfd is the only handle: no pid number is ever used.
///
/// By clone3(2) with flags of Linux 5.7, or by clone(2) where that or one of the flags is hidden.
///
/// # Errors
/// Of clone3(2): EAGAIN at a process limit, ENOMEM, ENOSPC at a namespace limit, EPERM.
pub fn vfork<C: SharedChild>(flags: Flags, cgroup: Option<BorrowedFd<'_>>, child: &mut C) -> Result<(OwnedFd, u32), Errno> {
    let stack = ChildStack::new()?;
    clone_on(&stack, flags.and(Flags::SHARED), cgroup, enter::<C>, std::ptr::from_mut(child).cast())
}

/// [`vfork`] as it is where clone3 is hidden.
#[cfg(test)]
pub(super) fn vfork_by_clone2<C: SharedChild>(flags: Flags, cgroup: Option<BorrowedFd<'_>>, child: &mut C) -> Result<(OwnedFd, u32), Errno> {
    let stack = ChildStack::new()?;
    let flags = flags.0 | Flags::VM | Flags::PIDFD | Flags::VFORK;
    super::clone2::clone(flags, cgroup, &stack, enter::<C>, std::ptr::from_mut(child).cast())
}

/// A process that shares our memory and only sleeps, to hold a new namespace until its maps are written.
/// It is killed when dropped.
pub struct Paused {
    pidfd: OwnedFd,
    /// Its pid in our namespace; valid until drop, because it is not reaped before.
    pub pid: u32,
    _stack: ChildStack,
}

impl Drop for Paused {
    fn drop(&mut self) {
        use rustix::process::{Signal, pidfd_send_signal};
        if pidfd_send_signal(&self.pidfd, Signal::KILL).is_ok()
            && let Err(e) = super::reap(rustix::fd::AsFd::as_fd(&self.pidfd))
        {
            tracing::warn!(%e, "waitid(holder of a user namespace)");
        }
    }
}

/// Our death must be its own: it shares our memory, nobody else knows of it, and with our descriptors it would
/// hold our locks. `parent` is our pid, as it sees it.
extern "C" fn pause_forever(parent: *mut c_void) -> ! {
    // SAFETY: numbers only; it uses no descriptor.
    unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        // A failure leaves it with ours, and it ends with us.
        super::close::leave_all().unwrap_or_default();
        // We may have died before the prctl; then it has another parent by now.
        while libc::syscall(libc::SYS_getppid) == parent as libc::c_long {
            libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0, 0);
        }
    }
    super::exit_now(0)
}

/// Clones a sleeping holder of the namespaces in `flags`. It ends with the calling thread at the latest.
///
/// # Errors
/// As [`vfork`].
pub fn clone_paused(flags: Flags) -> Result<Paused, Errno> {
    let stack = ChildStack::new()?;
    let parent = std::process::id() as usize as *mut c_void;
    let (pidfd, pid) = clone_on(&stack, flags.and(Flags(Flags::CLEAR_SIGHAND)).and(Flags::FILES), None, pause_forever, parent)?;
    Ok(Paused { pidfd, pid, _stack: stack })
}

/// clone3 on a stack of the caller's. Child-safe.
pub(super) fn clone_on(
    stack: &ChildStack,
    flags: Flags,
    cgroup: Option<BorrowedFd<'_>>,
    entry: extern "C" fn(*mut c_void) -> !,
    arg: *mut c_void,
) -> Result<(OwnedFd, u32), Errno> {
    let sibling = flags.0 & Flags::PARENT.0 != 0;
    let flags = flags.0 | Flags::VM | Flags::PIDFD;
    let mut pidfd: RawFd = -1;
    let args = CloneArgs {
        flags: flags | if cgroup.is_some() { Flags::INTO_CGROUP } else { 0 },
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        // A sibling sends what its maker would (clone3(2): EINVAL otherwise).
        exit_signal: if sibling { 0 } else { libc::SIGCHLD as u64 },
        stack: stack.base as u64 + GUARD as u64,
        stack_size: (STACK_SIZE - GUARD) as u64,
        cgroup: cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
        ..CloneArgs::default()
    };
    // SAFETY: `args` is valid for the call; the child runs on `stack`, which the caller keeps until the child is gone,
    // and never returns from `entry`, which reads only `arg`.
    let r = unsafe { clone3(&args, entry, arg) };
    if r < 0 {
        return match Errno::from_raw_os_error(i32::try_from(-r).unwrap_or(libc::EIO)) {
            // No clone3 (5.3); no CLEAR_SIGHAND (5.5) or INTO_CGROUP (5.7); no room for the group in its arguments (5.7).
            Errno::NOSYS | Errno::INVAL | Errno::TOOBIG => super::clone2::clone(flags & !Flags::CLEAR_SIGHAND, cgroup, stack, entry, arg),
            e => Err(e),
        };
    }
    // SAFETY: the kernel has stored a new descriptor there (CLONE_PIDFD).
    Ok((unsafe { OwnedFd::from_raw_fd(pidfd) }, u32::try_from(r).unwrap_or(0)))
}

/// # Safety
/// As in [`clone_on`]: valid `args` with a stack, an `entry` that never returns.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(args: &CloneArgs, entry: extern "C" fn(*mut c_void) -> !, arg: *mut c_void) -> isize {
    let r: isize;
    // SAFETY: in the child the kernel has set rsp to the top of the new stack (page aligned); r12 and r13
    // keep their values; the child never comes back to this frame.
    unsafe {
        asm!("syscall", "test rax, rax", "jnz 2f", "xor ebp, ebp", "mov rdi, r12", "call r13", "ud2", "2:",
             inlateout("rax") libc::SYS_clone3 as isize => r, in("rdi") args, in("rsi") size_of::<CloneArgs>(),
             in("r12") arg, in("r13") entry, lateout("rcx") _, lateout("r11") _);
    }
    r
}

/// # Safety
/// As in [`clone_on`]: valid `args` with a stack, an `entry` that never returns.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(args: &CloneArgs, entry: extern "C" fn(*mut c_void) -> !, arg: *mut c_void) -> isize {
    let r: isize;
    // SAFETY: in the child the kernel has set sp to the top of the new stack; x9 and x10 keep their values;
    // the child never comes back to this frame.
    unsafe {
        asm!("svc 0", "cbnz x0, 2f", "mov x29, 0", "mov x0, x9", "blr x10", "brk 1", "2:",
             in("x8") libc::SYS_clone3, inlateout("x0") std::ptr::from_ref(args) as isize => r,
             in("x1") size_of::<CloneArgs>(), in("x9") arg, in("x10") entry);
    }
    r
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{WaitId, WaitIdOptions, waitid};

    struct Child {
        seen: u64,
        code: i32,
    }

    impl SharedChild for Child {
        fn run(&mut self) -> ! {
            self.seen = 42;
            super::super::exit_now(self.code)
        }
    }

    #[test]
    fn a_vforked_child_writes_our_memory_and_its_status_comes_by_pidfd() {
        let mut child = Child { seen: 0, code: 7 };
        let (pidfd, pid) = vfork(Flags(0), None, &mut child).unwrap();
        assert_eq!(child.seen, 42);
        assert!(pid > 0);
        let status = waitid(WaitId::PidFd(rustix::fd::AsFd::as_fd(&pidfd)), WaitIdOptions::EXITED).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(7));
    }

    #[test]
    fn a_paused_child_dies_with_its_parent_and_holds_none_of_its_locks() {
        use rustix::{
            event::{PollFd, PollFlags, Timespec, poll},
            io::Errno,
            process::{Pid, PidfdFlags, pidfd_open},
        };
        let locked = tempfile::NamedTempFile::new().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        // SAFETY: the child of fork uses no lock that another thread may hold: it clones, writes and dies.
        let parent = unsafe { libc::fork() };
        if parent == 0 {
            let lock = std::fs::File::open(locked.path()).and_then(|f| f.lock().map(|()| f));
            if let (Ok(_lock), Ok(paused)) = (lock, clone_paused(Flags(0))) {
                rustix::io::write(&write, &paused.pid.to_ne_bytes()).ok();
                // SAFETY: no destructor runs: as when the warden is killed.
                unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            }
            super::super::exit_now(1)
        }
        drop(write);
        let mut pid = [0u8; 4];
        assert_eq!(rustix::io::read(&read, &mut pid).unwrap(), 4);
        let mut status = 0;
        // SAFETY: `status` is valid for writing.
        assert_eq!(unsafe { libc::waitpid(parent, &raw mut status, 0) }, parent);
        assert_eq!(status & 0x7f, libc::SIGKILL);
        match pidfd_open(Pid::from_raw(i32::from_ne_bytes(pid)).unwrap(), PidfdFlags::empty()) {
            Err(Errno::SRCH) => {}
            pidfd => {
                let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
                assert_eq!(poll(&mut [PollFd::new(&pidfd.unwrap(), PollFlags::IN)], Some(&patience)), Ok(1), "it lives on");
            }
        }
        std::fs::File::open(locked.path()).unwrap().try_lock().expect("nobody holds the lock of the dead");
    }

    #[test]
    fn into_cgroup_is_bit_33() {
        assert_eq!(Flags::INTO_CGROUP, 1 << 33);
    }
}
