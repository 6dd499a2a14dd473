//! For tests: makes the k-th of certain system calls fail, of one thread and of everything that it starts.
//!
//! A filter on the thread hands every such call to a supervisor (seccomp_unotify(2), Linux 5.5), which lets it go on or answers an
//! errno. Filters are inherited through clone3 and execve, so one counter sees the parent, the child that shares its memory,
//! and the init, in the order in which they run.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::{Filter, check, process::SockFprog};

const SET_MODE_FILTER: libc::c_ulong = 1;
const NEW_LISTENER: libc::c_ulong = 1 << 3;
/// A signal that does not kill must not make a call count twice (Linux 5.19).
const WAIT_KILLABLE: libc::c_ulong = 1 << 5;
const RECEIVE: libc::c_ulong = 0xc050_2100; // SECCOMP_IOCTL_NOTIF_RECV
const SEND: libc::c_ulong = 0xc018_2101; // SECCOMP_IOCTL_NOTIF_SEND
const CONTINUE: u32 = 1;

/// `struct seccomp_notif`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Call {
    id: u64,
    /// Of the caller, in our pid namespace.
    pub pid: u32,
    flags: u32,
    /// Number of the call.
    pub number: i32,
    arch: u32,
    instruction_pointer: u64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

const _: () = assert!(size_of::<Call>() == 0x50 && size_of::<Answer>() == 0x18);

/// From now on the calls `numbers` of this thread and its children wait for an answer through the returned descriptor.
pub fn watch(numbers: &[i64]) -> Result<OwnedFd, Errno> {
    const LOAD_NUMBER: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06;
    let mut program = vec![Filter { code: LOAD_NUMBER, jt: 0, jf: 0, k: 0 }];
    for number in numbers {
        let number = u32::try_from(*number).map_err(|_| Errno::INVAL)?;
        program.push(Filter { code: IF_EQUAL, jt: 0, jf: 1, k: number });
        program.push(Filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_USER_NOTIF });
    }
    program.push(Filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW });
    let prog = SockFprog { len: u16::try_from(program.len()).map_err(|_| Errno::INVAL)?, filter: program.as_ptr() };
    // SAFETY: `prog` has the layout of struct sock_fprog and points to `len` instructions; the kernel copies them.
    let fd = check(unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, NEW_LISTENER | WAIT_KILLABLE, &raw const prog) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The next call. ENOENT when its caller was killed meanwhile.
pub fn receive(listener: &OwnedFd) -> Result<Call, Errno> {
    let mut call = Call::default();
    // SAFETY: `call` has the layout of struct seccomp_notif and is zeroed, as the kernel wants it.
    check(libc::c_long::from(unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut call) }))?;
    Ok(call)
}

/// Lets `call` go on, or fail.
pub fn answer(listener: &OwnedFd, call: &Call, errno: Option<Errno>) -> Result<(), Errno> {
    let answer = Answer {
        id: call.id,
        value: 0,
        error: errno.map_or(0, |e| -e.raw_os_error()),
        flags: if errno.is_none() { CONTINUE } else { 0 },
    };
    // SAFETY: `answer` has the layout of struct seccomp_notif_resp.
    check(libc::c_long::from(unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw const answer) })).map(drop)
}
