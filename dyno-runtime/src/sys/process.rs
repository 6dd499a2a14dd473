//! Calls about the calling process: identity, capabilities, filters, exec.

use std::{
    ffi::{CStr, c_char},
    os::fd::{AsRawFd, BorrowedFd, RawFd},
};

use rustix::io::Errno;

use super::check;

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
struct SockFprog {
    len: u16,
    filter: *const Filter,
}

/// Installs a seccomp filter on the calling thread (no_new_privs must be set). Child-safe.
///
/// SPEC_ALLOW: without it Spectre-v4 mitigations slow interpreters up to two times (kernel 4.17).
///
/// # Errors
/// Of seccomp(2): EINVAL for a malformed program, EACCES without no_new_privs.
pub fn install_filter(program: &[Filter]) -> Result<(), Errno> {
    const SECCOMP_SET_MODE_FILTER: libc::c_ulong = 1;
    const SECCOMP_FILTER_FLAG_SPEC_ALLOW: libc::c_ulong = 4;
    let len = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let prog = SockFprog { len, filter: program.as_ptr() };
    // SAFETY: `prog` has the layout of struct sock_fprog and points to `len` instructions.
    let r = unsafe {
        libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &raw const prog)
    };
    check(r).map(drop)
}

/// True when the calling thread runs under a seccomp filter. Child-safe.
pub fn has_seccomp_filter() -> bool {
    // SAFETY: takes no pointers. (With strict mode the call would kill us; that mode is never used.)
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_GET_SECCOMP, 0, 0, 0, 0) == 2 }
}

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

const CAP_VERSION_3: u32 = 0x2008_0522;

/// Empties all five capability sets, the bounding and ambient ones included, and locks the securebits so that
/// uid 0 regains nothing. Child-safe.
///
/// # Errors
/// Of prctl(2) and capset(2).
pub fn drop_all_capabilities() -> Result<(), Errno> {
    // NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE, each with its lock; KEEP_CAPS_LOCKED.
    const SECUREBITS: libc::c_ulong = 0b1110_1111;
    // SAFETY: prctl with numbers only.
    unsafe {
        for capability in 0..64 {
            match check(libc::syscall(libc::SYS_prctl, libc::PR_CAPBSET_DROP, capability, 0, 0, 0)) {
                Ok(_) => {}
                Err(Errno::INVAL) => break, // past the last capability of this kernel
                Err(e) => return Err(e),
            }
        }
        check(libc::syscall(libc::SYS_prctl, libc::PR_SET_SECUREBITS, SECUREBITS, 0, 0, 0))?;
        check(libc::syscall(libc::SYS_prctl, libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))?;
    }
    let header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let none = [[0u32; 3]; 2];
    // SAFETY: version 3 takes two `struct __user_cap_data_struct` of three words.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) }).map(drop)
}

/// Reads back that effective, permitted and inheritable sets are empty. Child-safe.
pub fn capabilities_are_empty() -> bool {
    let header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let mut sets = [[u32::MAX; 3]; 2];
    // SAFETY: version 3 writes two `struct __user_cap_data_struct` of three words.
    let r = unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) };
    r == 0 && sets == [[0; 3]; 2]
}

/// Sets real, effective and saved ids of this thread and empties its supplementary groups. Child-safe: the
/// libc wrappers would signal the parent's threads.
///
/// # Errors
/// Of setgroups(2), setresgid(2), setresuid(2).
pub fn set_ids(uid: u32, gid: u32) -> Result<(), Errno> {
    // SAFETY: setgroups with a count of 0 reads no list; the others take numbers.
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, 0, 0))?;
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid)).map(drop)
    }
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

/// Closes every descriptor from `first` up. Child-safe.
///
/// # Errors
/// Of close_range(2) (Linux 5.9).
pub fn close_from(first: RawFd) -> Result<(), Errno> {
    // SAFETY: takes no pointers; the child owns a copy of the descriptor table and uses none of these any more.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) }).map(drop)
}

/// Brings an interface up in the caller's network namespace. Child-safe.
///
/// # Errors
/// Of socket(2) and SIOCSIFFLAGS.
pub fn interface_up(name: &CStr) -> Result<(), Errno> {
    // SAFETY: zero is valid for every field of struct ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.to_bytes()) {
        *to = from.cast_signed() as c_char;
    }
    // SAFETY: writing a field of a union of plain data.
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: numbers only.
    let socket = check(unsafe { libc::syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: `request` is a valid struct ifreq; the socket was opened above and is closed once.
    unsafe {
        let done = check(libc::syscall(libc::SYS_ioctl, socket, libc::SIOCSIFFLAGS, &raw const request));
        check(libc::syscall(libc::SYS_close, socket))?;
        done.map(drop)
    }
}

/// Becomes the program open at `fd`. Child-safe. Returns only on failure.
pub fn exec_fd(fd: BorrowedFd<'_>, argv: &[*const c_char], envp: &[*const c_char]) -> Errno {
    if argv.last() != Some(&std::ptr::null()) || envp.last() != Some(&std::ptr::null()) {
        return Errno::INVAL;
    }
    // SAFETY: both vectors end in NULL (checked) and hold NUL-ended strings that the parent keeps alive.
    let r = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    check(r).err().unwrap_or(Errno::IO)
}

/// Ends this process without running anything of ours. Child-safe.
pub fn exit_now(code: i32) -> ! {
    loop {
        // SAFETY: takes no pointers, does not return.
        unsafe { libc::syscall(libc::SYS_exit_group, code) };
    }
}

/// Undoes what a child's change of ids did to the memory that it shared with us: the kernel marks it
/// undumpable (commit_creds), which would turn our /proc files over to root.
pub fn make_dumpable() {
    // SAFETY: takes no pointers. Failure leaves us undumpable, which is harmless.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
}
