//! Calls about the calling process: identity, capabilities, filters, exec.

use std::{
    ffi::{CStr, c_char},
    os::fd::{AsRawFd, BorrowedFd, RawFd},
};

use rustix::{
    io::Errno,
    ioctl::Setter,
    net::{AddressFamily, SocketFlags, SocketType},
};

use super::{Flags, check, close::close_from};
use crate::broken::{self, Part};

/// One classic BPF instruction, as `struct sock_filter` (linux/filter.h).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// Operation.
    pub code: u16,
    /// Jump if true.
    pub jt: u8,
    /// Jump if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

#[repr(C)]
pub(super) struct SockFprog {
    pub len: u16,
    pub filter: *const Filter,
}

pub(super) const SET_MODE_FILTER: libc::c_ulong = 1;
/// Without it Spectre-v4 mitigations slow interpreters up to two times (Linux 4.17).
pub(super) const SPEC_ALLOW: libc::c_ulong = 4;

/// Installs a seccomp filter on the calling thread (no_new_privs must be set). Child-safe.
///
/// # Errors
/// Of seccomp(2): EINVAL for a malformed program, EACCES without no_new_privs.
pub fn install_filter(program: &[Filter]) -> Result<(), Errno> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let prog = SockFprog { len, filter: program.as_ptr() };
    // SAFETY: `prog` has the layout of struct sock_fprog and points to `len` instructions.
    let r = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, SPEC_ALLOW, &raw const prog) };
    check(r).map(drop)
}

/// True when the calling thread runs under a seccomp filter. Child-safe.
pub fn has_seccomp_filter() -> bool {
    // SAFETY: takes no pointers. (With strict mode the call would kill us; that mode is never used.)
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_GET_SECCOMP, 0, 0, 0, 0) == 2 }
}

/// Sets real, effective and saved ids of this thread and its supplementary groups (None: as they are). Child-safe: the
/// libc wrappers would signal the parent's threads.
///
/// # Errors
/// Of setgroups(2), setresgid(2), setresuid(2).
pub fn set_ids(uid: u32, gid: u32, groups: Option<&[u32]>) -> Result<(), Errno> {
    // SAFETY: the list is as long as said and outlives the call; the others take numbers.
    unsafe {
        if let Some(groups) = groups {
            check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        }
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid)).map(drop)
    }
}

/// Sets the supplementary groups of this thread.
///
/// # Errors
/// Of setgroups(2).
#[cfg(feature = "oci")]
pub fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: the list is as long as said and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// A new, empty session keyring, so that the host's keys are out of reach. Child-safe.
///
/// # Errors
/// Of keyctl(2), other than ENOSYS (a kernel without keyrings has none to leak).
pub fn join_new_session_keyring() -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_ulong = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    match check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0) }) {
        Ok(_) | Err(Errno::NOSYS) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Brings an interface up in the caller's network namespace. Child-safe.
///
/// # Errors
/// Of socket(2) and SIOCSIFFLAGS.
pub fn interface_up(name: &CStr) -> Result<(), Errno> {
    const SIOCSIFFLAGS: rustix::ioctl::Opcode = libc::SIOCSIFFLAGS as rustix::ioctl::Opcode;
    // SAFETY: zero is valid for every field of struct ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.to_bytes()) {
        *to = from.cast_signed() as c_char;
    }
    // SAFETY: writing a field of a union of plain data.
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: this request reads a struct ifreq.
    unsafe { rustix::ioctl::ioctl(&socket, Setter::<SIOCSIFFLAGS, libc::ifreq>::new(request)) }
}

/// New namespaces of these kinds for the caller, a single thread of a process whose root and working directory are its own.
/// Child-safe.
///
/// # Errors
/// Of unshare(2).
pub fn unshare(namespaces: Flags) -> Result<(), Errno> {
    let kinds = rustix::thread::UnshareFlags::from_bits_retain(namespaces.bits() as u32);
    // SAFETY: the kinds of `Flags` touch neither descriptors nor memory.
    unsafe { rustix::thread::unshare_unsafe(kinds) }
}

/// Makes `sources` the descriptors from 0 on, the last `hidden` of them close-on-exec, and closes every other. Child-safe: the child
/// has a copy of the table, so whatever stood at these numbers was the parent's and is untouched there.
///
/// # Errors
/// EMFILE, or of close_range(2) and what stands in for it.
pub fn place_descriptors<const N: usize>(sources: [RawFd; N], hidden: usize) -> Result<(), Errno> {
    // First up out of the way, so that no source is overwritten before it was copied.
    let mut high = [0; N];
    for (to, from) in high.iter_mut().zip(sources) {
        // SAFETY: numbers only.
        *to = check(unsafe { libc::syscall(libc::SYS_fcntl, from, libc::F_DUPFD_CLOEXEC, N) })?;
    }
    for (target, from) in high.into_iter().enumerate() {
        let flags = if target + hidden >= N { libc::O_CLOEXEC } else { 0 };
        // SAFETY: numbers only.
        check(unsafe { libc::syscall(libc::SYS_dup3, from, target, flags) })?;
    }
    if broken::is(Part::Descriptors) {
        return Ok(());
    }
    close_from(N as RawFd)
}

/// Sets the soft and hard limit of open files to `files`, or to the hard limit if that is lower. Child-safe.
///
/// # Errors
/// Of prlimit(2).
pub fn limit_open_files(files: u64) -> Result<(), Errno> {
    let most = prlimit(0, libc::RLIMIT_NOFILE, None)?.rlim_max;
    let files = files.min(most);
    prlimit(0, libc::RLIMIT_NOFILE, Some(libc::rlimit64 { rlim_cur: files, rlim_max: files })).map(drop)
}

/// Sets the soft limit of the stack to `bytes`, or to the hard limit if that is lower. Child-safe.
///
/// # Errors
/// Of prlimit(2).
pub fn limit_stack(bytes: u64) -> Result<(), Errno> {
    let most = prlimit(0, libc::RLIMIT_STACK, None)?.rlim_max;
    prlimit(0, libc::RLIMIT_STACK, Some(libc::rlimit64 { rlim_cur: bytes.min(most), rlim_max: most })).map(drop)
}

/// Sets the soft and hard limit of core files to `bytes`, or to the hard limit if that is lower and cannot be raised. Child-safe.
///
/// # Errors
/// Of prlimit(2).
pub fn limit_core(bytes: u64) -> Result<(), Errno> {
    limit_both(libc::RLIMIT_CORE, bytes)
}

/// [`limit_core`] for the size of files.
///
/// # Errors
/// Of prlimit(2).
pub fn limit_file_size(bytes: u64) -> Result<(), Errno> {
    limit_both(libc::RLIMIT_FSIZE, bytes)
}

fn limit_both(resource: Resource, value: u64) -> Result<(), Errno> {
    let to = |value| prlimit(0, resource, Some(libc::rlimit64 { rlim_cur: value, rlim_max: value })).map(drop);
    let most = prlimit(0, resource, None)?.rlim_max;
    match to(value) {
        // Without CAP_SYS_RESOURCE over the host hard limits only go down.
        Err(Errno::PERM) if value > most => to(most),
        other => other,
    }
}

/// Of an RLIMIT_… of the C library's, which have signs in some and none in others.
#[cfg(target_env = "musl")]
type Resource = libc::c_int;
#[cfg(not(target_env = "musl"))]
type Resource = libc::__rlimit_resource_t;

/// Sets a limit of process `pid` (0: this one) and returns what it was. By hand, because rustix's getrlimit panics on failure: in the
/// child, with a lock of the parent's in hand.
pub(super) fn prlimit(pid: u32, resource: Resource, new: Option<libc::rlimit64>) -> Result<libc::rlimit64, Errno> {
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `new` is null or, like `old`, a valid struct rlimit64.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, new, &raw mut old) })?;
    Ok(old)
}

/// Becomes the program open at descriptor `fd`. Child-safe. Returns only on failure.
pub fn exec_fd(fd: RawFd, argv: &[*const c_char], envp: &[*const c_char]) -> Errno {
    if argv.last() != Some(&std::ptr::null()) || envp.last() != Some(&std::ptr::null()) {
        return Errno::INVAL;
    }
    // SAFETY: both vectors end in NULL (checked) and hold NUL-ended strings that the parent keeps alive.
    let r = unsafe { libc::syscall(libc::SYS_execveat, fd, c"".as_ptr(), argv.as_ptr(), envp.as_ptr(), libc::AT_EMPTY_PATH) };
    match check(r) {
        Err(Errno::NOSYS) => exec_by_name(fd, argv, envp),
        other => other.err().unwrap_or(Errno::IO),
    }
}

/// [`exec_fd`] where execveat(2) (Linux 3.19) is hidden: by the name that procfs has for it. Child-safe.
fn exec_by_name(fd: RawFd, argv: &[*const c_char], envp: &[*const c_char]) -> Errno {
    let mut name = *b"/proc/self/fd/?\0";
    let Some(digit) = u8::try_from(fd).ok().filter(|fd| *fd < 10) else { return Errno::NOSYS };
    name[14] = b'0' + digit;
    // SAFETY: a NUL-ended path; the vectors as in `exec_fd`.
    let r = unsafe { libc::syscall(libc::SYS_execve, name.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    check(r).err().unwrap_or(Errno::IO)
}

/// True when somebody holds `file` (opened read-only by us) open for writing: the kernel then refuses a read
/// lease with EAGAIN (fcntl(2), F_SETLEASE).
///
/// # Errors
/// Other refusals, such as EINVAL for a file system without leases.
pub fn is_open_for_writing(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    let lease = |kind: libc::c_int| {
        // SAFETY: takes numbers only.
        check(libc::c_long::from(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) }))
    };
    match lease(libc::F_RDLCK) {
        Ok(_) => lease(libc::F_UNLCK).map(|_| false),
        Err(Errno::AGAIN) => Ok(true),
        Err(e) => Err(e),
    }
}

/// Processors that this host may ever have online: no process tree uses more time per second.
pub fn processors() -> u64 {
    // SAFETY: takes a number.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) }).unwrap_or(1).max(1)
}

/// Does `work` while no signal can interrupt this thread; threads that it starts keep all signals blocked, so that none arrives there.
pub fn with_signals_blocked<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: zero is a valid sigset_t; sigfillset and the first call write only to the sets, which outlive the calls. Neither fails with
    // these arguments (pthread_sigmask(3)).
    unsafe {
        let (mut all, mut former): (libc::sigset_t, libc::sigset_t) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut former);
        let done = work();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const former, std::ptr::null_mut());
        done
    }
}

/// Ends this process without running anything of ours. Child-safe.
pub fn exit_now(code: i32) -> ! {
    loop {
        // SAFETY: takes no pointers, does not return.
        unsafe { libc::syscall(libc::SYS_exit_group, code) };
    }
}

/// Takes back what puts the caller above others and is inherited: a nice value below 0, a real-time policy, an I/O priority; and
/// the execution domain, by which addresses may be laid out without chance. Child-safe.
///
/// # Errors
/// Of sched_setscheduler(2), setpriority(2), ioprio_set(2), personality(2).
pub fn reset_scheduling() -> Result<(), Errno> {
    const IOPRIO_WHO_PROCESS: libc::c_long = 1;
    const REALTIME: [libc::c_long; 3] = [1, 2, 6]; // SCHED_FIFO, SCHED_RR, SCHED_DEADLINE
    const RESET_ON_FORK: libc::c_long = 0x4000_0000;
    let priority: libc::c_int = 0; // struct sched_param of SCHED_OTHER
    // SAFETY: numbers, and one int that outlives its call.
    unsafe {
        let policy = check(libc::syscall(libc::SYS_sched_getscheduler, 0))?;
        if REALTIME.contains(&(policy & !RESET_ON_FORK)) {
            check(libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_OTHER, &raw const priority))?;
        }
        // The raw call answers 20 less the nice value.
        if check(libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0))? > 20 {
            check(libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, 0))?;
        }
        match check(libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, 0)) {
            Ok(_) | Err(Errno::NOSYS) => {}
            Err(e) => return Err(e),
        }
        check(libc::syscall(libc::SYS_personality, 0)).map(drop)
    }
}
