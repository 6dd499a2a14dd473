//! What a program starts with beside its ids, as a `config.json` asks for it: five capability sets that differ, limits, scheduling,
//! signals.

use std::ffi::CStr;

use rustix::io::Errno;

use super::check;

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

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// Low halves, then high halves.
#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

fn prctl(option: libc::c_int, a: libc::c_ulong, b: libc::c_ulong) -> Result<libc::c_long, Errno> {
    // SAFETY: the options used here take numbers only.
    check(unsafe { libc::syscall(libc::SYS_prctl, option, a, b, 0, 0) })
}

/// The bounding set, and the number of the last capability that this kernel has.
pub fn bounding_set() -> (u64, u32) {
    let (mut bits, mut last) = (0, 0);
    for capability in 0..64u32 {
        match prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(capability), 0) {
            Ok(held) => (bits, last) = (bits | u64::from(held == 1) << capability, capability),
            Err(_) => break,
        }
    }
    (bits, last)
}

/// The sets of this thread.
///
/// # Errors
/// Of capget(2).
pub fn capability_bits() -> Result<CapabilityBits, Errno> {
    let header = Header { version: VERSION_3, pid: 0 };
    let mut halves = [Half::default(); 2];
    // SAFETY: version 3 writes two structs of three words.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, halves.as_mut_ptr()) })?;
    let join = |part: fn(&Half) -> u32| u64::from(part(&halves[0])) | u64::from(part(&halves[1])) << 32;
    let (bounding, last) = bounding_set();
    let raised = |n: u64| prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_IS_SET as libc::c_ulong, n) == Ok(1);
    Ok(CapabilityBits {
        bounding,
        effective: join(|h| h.effective),
        inheritable: join(|h| h.inheritable),
        permitted: join(|h| h.permitted),
        ambient: (0..=u64::from(last)).fold(0, |bits, n| bits | u64::from(raised(n)) << n),
    })
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
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| Half {
        effective: (to.effective >> shift) as u32,
        permitted: (to.permitted >> shift) as u32,
        inheritable: (to.inheritable >> shift) as u32,
    };
    let halves = [half(0), half(32)];
    // SAFETY: version 3 takes two structs of three words.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) })?;
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
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is valid; a null old limit is allowed.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, &raw const limit, std::ptr::null_mut::<libc::rlimit64>()) }).map(drop)
}

/// The hard limit that this process has.
///
/// # Errors
/// EINVAL for a resource that the kernel does not know.
pub fn hard_limit(resource: u32) -> Result<u64, Errno> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid struct rlimit64; a null new limit is allowed, and pid 0 is the caller.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, std::ptr::null::<libc::rlimit64>(), &raw mut limit) })?;
    Ok(limit.rlim_max)
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
