//! Filters that ask: seccomp(2) with a listener, seccomp_unotify(2) (Linux 5.0).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use super::{
    Filter, check,
    process::{SET_MODE_FILTER, SPEC_ALLOW, SockFprog},
};

const NEW_LISTENER: libc::c_ulong = 1 << 3;
/// Once its call was read, a signal that does not kill waits with the caller, so that no call is told of twice (Linux 5.19).
const WAIT_KILLABLE: libc::c_ulong = 1 << 5;
const RECEIVE: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl; // SECCOMP_IOCTL_NOTIF_RECV
const SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl; // SECCOMP_IOCTL_NOTIF_SEND
const STILL_THERE: libc::Ioctl = 0x4008_2102_u32 as libc::Ioctl; // SECCOMP_IOCTL_NOTIF_ID_VALID

/// A call that waits for an answer: `struct seccomp_notif`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Call {
    id: u64,
    /// Thread id of the caller, in our pid namespace; 0 if it has none there.
    pub pid: u32,
    flags: u32,
    /// Number of the call.
    pub number: i32,
    arch: u32,
    instruction_pointer: u64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

const _: () = assert!(size_of::<Call>() == 0x50 && size_of::<Answer>() == 0x18);

/// Installs a filter on the calling thread, with these SECCOMP_FILTER_FLAG_… The descriptor is that of a listener, close-on-exec, where the
/// flags ask for one.
///
/// # Errors
/// Of seccomp(2): EINVAL for a malformed program or an unknown flag, EACCES without no_new_privs and CAP_SYS_ADMIN, EBUSY as below.
#[cfg_attr(not(feature = "oci"), allow(dead_code, reason = "other filters have the same flags always"))]
pub fn install(program: &[Filter], flags: u64) -> Result<Option<OwnedFd>, Errno> {
    let prog = SockFprog { len: u16::try_from(program.len()).map_err(|_| Errno::INVAL)?, filter: program.as_ptr() };
    // SAFETY: `prog` has the layout of struct sock_fprog and points to `len` instructions; the kernel copies them.
    let answer = check(unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags as libc::c_ulong, &raw const prog) })?;
    if flags & NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(answer).map_err(|_| Errno::BADF)?) }))
}

/// Installs a filter with a listener on the calling thread; the listener is close-on-exec. Child-safe, if the number is used and not
/// dropped.
///
/// # Errors
/// Of seccomp(2): EBUSY when a filter that the thread has already has a listener (Linux 5.0 to now).
pub fn install_listening_filter(program: &[Filter]) -> Result<RawFd, Errno> {
    let prog = SockFprog { len: u16::try_from(program.len()).map_err(|_| Errno::INVAL)?, filter: program.as_ptr() };
    let install = |flags: libc::c_ulong| {
        // SAFETY: `prog` has the layout of struct sock_fprog and points to `len` instructions; the kernel copies them.
        check(unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, SPEC_ALLOW | NEW_LISTENER | flags, &raw const prog) })
    };
    let fd = match install(WAIT_KILLABLE) {
        Err(Errno::INVAL) => install(0)?,
        other => other?,
    };
    RawFd::try_from(fd).map_err(|_| Errno::BADF)
}

/// The next call that waits; blocks until there is one. Not to be asked when nobody can call any more: poll first.
///
/// # Errors
/// ENOENT when its caller was killed meanwhile.
pub fn receive(listener: BorrowedFd<'_>) -> Result<Call, Errno> {
    let mut call = Call::default();
    // SAFETY: `call` has the layout of struct seccomp_notif and is zeroed, as the kernel wants it.
    check(libc::c_long::from(unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut call) }))?;
    Ok(call)
}

/// Whether the caller of `call` still waits, so that what was read under its number was its own.
pub fn still_waits(listener: BorrowedFd<'_>, call: &Call) -> bool {
    // SAFETY: the ioctl reads one u64.
    unsafe { libc::ioctl(listener.as_raw_fd(), STILL_THERE, &raw const call.id) == 0 }
}

/// Lets `call` fail with this errno, or go on (which is safe only for what would have been allowed: its memory may change).
///
/// # Errors
/// ENOENT when its caller was killed meanwhile.
pub fn answer(listener: BorrowedFd<'_>, call: &Call, errno: Option<Errno>) -> Result<(), Errno> {
    const CONTINUE: u32 = 1; // Linux 5.5
    let answer = Answer { id: call.id, value: 0, error: errno.map_or(0, |e| -e.raw_os_error()), flags: if errno.is_none() { CONTINUE } else { 0 } };
    // SAFETY: `answer` has the layout of struct seccomp_notif_resp.
    check(libc::c_long::from(unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw const answer) })).map(drop)
}

/// [`install_listening_filter`] for a thread that stays ours.
///
/// # Errors
/// As there.
#[cfg_attr(not(test), allow(dead_code, reason = "tests watch their own calls"))]
pub fn listen(program: &[Filter]) -> Result<OwnedFd, Errno> {
    let fd = install_listening_filter(program)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
