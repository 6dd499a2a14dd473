//! What a program starts with beside its ids, as a `config.json` asks for it: five capability sets that differ, limits, scheduling,
//! signals.

use std::ffi::CStr;

use rustix::io::Errno;

use super::{
    capability::{Sets, prctl},
    check,
    process::prlimit,
};

/// Five capability sets, as bits by number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapabilityBits {
    /// PR_CAPBSET_READ.
    pub bounding: u64,
    /// capget(2).
    pub effective: u64,
    /// capget(2).
    pub inheritable: u64,
    /// capget(2).
    pub permitted: u64,
    /// PR_CAP_AMBIENT_IS_SET.
    pub ambient: u64,
}

/// The bounding set, and the number of the last capability that this kernel has.
///
/// # Errors
/// Of prctl(2), but for EINVAL, which tells the end: a set that is read in part would pass for a smaller one.
pub fn bounding_set() -> Result<(u64, u32), Errno> {
    let (mut bits, mut last) = (0, 0);
    for capability in 0..64u32 {
        match prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(capability), 0) {
            Ok(held) => (bits, last) = (bits | u64::from(held == 1) << capability, capability),
            Err(Errno::INVAL) => break,
            Err(e) => return Err(e),
        }
    }
    Ok((bits, last))
}

/// The sets of this thread, asked of the kernel; the bounding set is the caller's to have asked for since it was last changed.
///
/// # Errors
/// Of capget(2).
pub fn capability_bits(bounding: u64) -> Result<CapabilityBits, Errno> {
    let Sets { effective, permitted, inheritable } = Sets::now()?;
    let raised = |n: &u64| prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_IS_SET as libc::c_ulong, *n) == Ok(1);
    // No other can be ambient (capabilities(7): whatever is not both permitted and inheritable is lowered by the kernel).
    let ambient = (0..64).filter(|n| permitted & inheritable & (1 << n) != 0).filter(raised).fold(0, |bits, n| bits | 1 << n);
    Ok(CapabilityBits { bounding, effective, inheritable, permitted, ambient })
}

/// Takes away from the bounding set what is not in `keep`.
///
/// # Errors
/// EPERM without CAP_SETPCAP.
pub fn bound_capabilities(keep: u64) -> Result<(), Errno> {
    for capability in (0..64).filter(|n| keep & (1 << n) == 0) {
        match prctl(libc::PR_CAPBSET_DROP, capability, 0) {
            Ok(_) => {}
            Err(Errno::INVAL) => break, // past the last capability of this kernel
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Whether the permitted set outlives the change from root to another user (PR_SET_KEEPCAPS).
///
/// # Errors
/// EPERM where a secure bit forbids it.
pub fn keep_permitted(keep: bool) -> Result<(), Errno> {
    prctl(libc::PR_SET_KEEPCAPS, libc::c_ulong::from(keep), 0).map(drop)
}

/// Sets the effective, permitted, inheritable and ambient sets.
///
/// # Errors
/// EPERM for one that is not permitted, or not in the bounding set.
pub fn set_capabilities(to: CapabilityBits) -> Result<(), Errno> {
    Sets { effective: to.effective, permitted: to.permitted, inheritable: to.inheritable }.set()?;
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0)?;
    for capability in (0..64u64).filter(|n| to.ambient & (1 << n) != 0) {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, capability)?;
    }
    Ok(())
}

/// Sets soft and hard limit of another process (0: this one).
///
/// # Errors
/// Of prlimit(2): EPERM for a hard limit above the present one without CAP_SYS_RESOURCE.
pub fn limit(pid: u32, resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    prlimit(pid, resource as _, Some(libc::rlimit64 { rlim_cur: soft, rlim_max: hard })).map(drop)
}

/// The hard limit that this process has.
///
/// # Errors
/// EINVAL for a resource that the kernel does not know.
pub fn hard_limit(resource: u32) -> Result<u64, Errno> {
    prlimit(0, resource as _, None).map(|limit| limit.rlim_max)
}

/// `struct sched_attr` (sched_setattr(2)), first version.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// sched_setattr(2) for this thread.
///
/// # Errors
/// Of the call.
pub fn schedule(policy: u32, flags: u64, nice: i32, priority: u32, deadline: (u64, u64, u64)) -> Result<(), Errno> {
    let (runtime, deadline, period) = deadline;
    let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, policy, flags, nice, priority, runtime, deadline, period };
    // SAFETY: `attr` has the kernel's layout and says its size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) }).map(drop)
}

/// ioprio_set(2) for this thread; `priority` is class << 13 | level.
///
/// # Errors
/// Of the call.
pub fn prioritize_io(priority: u16) -> Result<(), Errno> {
    const WHO_PROCESS: libc::c_long = 1;
    // SAFETY: numbers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, libc::c_long::from(priority)) }).map(drop)
}

/// sched_setaffinity(2) for this thread.
///
/// # Errors
/// EINVAL when none of the processors is there.
pub fn pin_to(processors: &[u64]) -> Result<(), Errno> {
    // SAFETY: the mask is as long as said.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(processors), processors.as_ptr()) }).map(drop)
}

/// personality(2).
///
/// # Errors
/// Of the call.
pub fn set_personality(to: u64) -> Result<(), Errno> {
    // SAFETY: numbers only.
    check(unsafe { libc::syscall(libc::SYS_personality, to) }).map(drop)
}

/// set_mempolicy(2) for this thread.
///
/// # Errors
/// EINVAL for nodes that are not there.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<(), Errno> {
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // The kernel looks at one bit less than it is told of.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    // SAFETY: the mask is null or as long as said (the bit too many is never read: the kernel rounds down).
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}

/// The default disposition for every signal, and none blocked.
///
/// # Errors
/// Of rt_sigaction(2), rt_sigprocmask(2).
pub fn reset_signals() -> Result<(), Errno> {
    // The kernel's struct sigaction (SIG_DFL, no flags, no restorer, empty mask) and sigset_t. Not by the C library, which keeps two
    // signals for itself and would leave them as whoever started us has them.
    let (default, empty) = ([0usize; 4], 0u64);
    let nothing = std::ptr::null::<usize>();
    for signal in 1..=64 {
        // SAFETY: `default` is valid for reading; null for what is not asked.
        match check(unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), nothing, size_of_val(&empty)) }) {
            // SIGKILL and SIGSTOP: there is nothing to be set.
            Ok(_) | Err(Errno::INVAL) => {}
            Err(e) => return Err(e),
        }
    }
    // SAFETY: `empty` is a valid set of the size told; null for what is not asked.
    check(unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const empty, nothing, size_of_val(&empty)) }).map(drop)
}

/// The signal that this process gets when its parent ends (0: none).
///
/// # Errors
/// Of prctl(2).
pub fn die_with_parent(signal: i32) -> Result<(), Errno> {
    prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong, 0).map(drop)
}

/// PR_SET_NO_NEW_PRIVS, read back.
///
/// # Errors
/// Of prctl(2).
pub fn no_new_privileges() -> Result<(), Errno> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
    if prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0)? == 1 { Ok(()) } else { Err(Errno::PERM) }
}

/// setdomainname(2).
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN over the UTS namespace.
pub fn set_domain_name(name: &str) -> Result<(), Errno> {
    // SAFETY: the name is as long as said.
    check(unsafe { libc::syscall(libc::SYS_setdomainname, name.as_ptr(), name.len()) }).map(drop)
}

/// Marks every descriptor from `first` up close-on-exec (close_range(2), Linux 5.11).
///
/// # Errors
/// Of the call.
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: numbers only; nothing is closed now.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Makes `uid` the owner of descriptor `fd`, if that is a pipe or a FIFO.
///
/// # Errors
/// Of fstat(2), fchown(2).
pub fn give_pipe(fd: i32, uid: u32) -> Result<(), Errno> {
    // SAFETY: whoever calls keeps the descriptor open meanwhile; a closed one is answered with EBADF.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    let stat = rustix::fs::fstat(fd)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Fifo || stat.st_uid == uid {
        return Ok(());
    }
    rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), None)
}

/// Clears close-on-exec.
///
/// # Errors
/// EBADF when it is not open.
pub fn keep_on_exec(fd: i32) -> Result<(), Errno> {
    // SAFETY: numbers only.
    check(libc::c_long::from(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })).map(drop)
}

/// Becomes the program at `path`. Returns only on failure.
pub fn exec_path(path: &CStr, argv: &[std::ffi::CString], envp: &[std::ffi::CString]) -> Errno {
    let pointers = |list: &[std::ffi::CString]| list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>();
    let (argv, envp) = (pointers(argv), pointers(envp));
    // SAFETY: both vectors end in NULL and point to strings that outlive the call.
    check(unsafe { libc::syscall(libc::SYS_execve, path.as_ptr(), argv.as_ptr(), envp.as_ptr()) }).err().unwrap_or(Errno::IO)
}

/// execveat(2) on a descriptor with this process's own arguments and one variable more. Returns only on failure.
pub fn exec_again(fd: std::os::fd::BorrowedFd<'_>, argv: &[std::ffi::CString], envp: &[std::ffi::CString]) -> Errno {
    let pointers = |list: &[std::ffi::CString]| list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>();
    super::exec_fd(std::os::fd::AsRawFd::as_raw_fd(&fd), &pointers(argv), &pointers(envp))
}
