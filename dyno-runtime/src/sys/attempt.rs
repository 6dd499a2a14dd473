//! For tests: what a process that was taken over would try, call by call. Each undoes at once what it succeeds in.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use rustix::io::Errno;

use super::check;

/// Traces the process `pid` for a moment.
pub fn trace(pid: u32) -> Result<(), Errno> {
    // SAFETY: PTRACE_SEIZE and PTRACE_DETACH take numbers here. A process that is not stopped cannot be let go (ESRCH): the end of this thread does.
    unsafe {
        check(libc::syscall(libc::SYS_ptrace, libc::PTRACE_SEIZE, pid, 0_u64, 0_u64))?;
        libc::syscall(libc::SYS_ptrace, libc::PTRACE_DETACH, pid, 0_u64, 0_u64);
    }
    Ok(())
}

/// Reads memory of this process as one reads another's.
pub fn read_memory() -> Result<(), Errno> {
    let (from, mut to) = (7u8, 0u8);
    let local = libc::iovec { iov_base: (&raw mut to).cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: (&raw const from).cast_mut().cast(), iov_len: 1 };
    // SAFETY: both vectors describe one byte of this frame, and only `to` is written.
    check(unsafe { libc::syscall(libc::SYS_process_vm_readv, libc::getpid(), &raw const local, 1_u64, &raw const remote, 1_u64, 0_u64) }).map(drop)
}

/// Makes a namespace of `kind` (CLONE_NEW*) for this thread.
pub fn unshare(kind: i32) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_unshare, kind) }).map(drop)
}

/// Enters the namespace behind `namespace`.
pub fn enter(namespace: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_setns, namespace.as_raw_fd(), 0) }).map(drop)
}

/// Executes what is not there: a kernel that gets so far says ENOENT.
pub fn execute() -> Result<(), Errno> {
    let end: [*const libc::c_char; 1] = [std::ptr::null()];
    // SAFETY: a NUL-ended path and two empty vectors.
    check(unsafe { libc::syscall(libc::SYS_execve, c"/nonexistent/program".as_ptr(), end.as_ptr(), end.as_ptr()) }).map(drop)
}

/// Makes a child that ends at once, by `clone(2)` with `flags`.
pub fn fork(flags: i32) -> Result<(), Errno> {
    // SAFETY: without CLONE_VM the child has memory of its own and does nothing but end.
    unsafe {
        let pid = check(libc::syscall(libc::SYS_clone, (flags | libc::SIGCHLD) as u64, 0_u64, 0_u64, 0_u64, 0_u64))?;
        if pid == 0 {
            libc::syscall(libc::SYS_exit_group, 0);
        }
        check(libc::syscall(libc::SYS_wait4, pid, 0_u64, 0_u64, 0_u64)).map(drop)
    }
}

/// Opens a socket.
pub fn socket(family: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes numbers only; the descriptor is new.
    unsafe { check(libc::syscall(libc::SYS_socket, family, kind | libc::SOCK_CLOEXEC, protocol)).map(|fd| OwnedFd::from_raw_fd(fd as i32)) }
}

/// Connects by sending (MSG_FASTOPEN) to `port` of the loopback.
pub fn connect_by_sending(port: u16) -> Result<(), Errno> {
    let tcp = socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    let to = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    };
    // SAFETY: one byte and an address of the size that is said, both of this frame or static.
    check(unsafe { libc::syscall(libc::SYS_sendto, tcp.as_raw_fd(), c"x".as_ptr(), 1, libc::MSG_FASTOPEN, &raw const to, size_of_val(&to)) })
        .map(drop)
}

/// Sends signal 0, which tests the right to send others, to the thread `pid` of the process `pid`.
pub fn signal_thread(pid: u32) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, 0) }).map(drop)
}

/// Maps a page with the rights `protection`, and then asks for `later`.
pub fn map(protection: i32, later: i32) -> Result<(), Errno> {
    // SAFETY: a new anonymous page that nothing else knows of.
    unsafe {
        let page = check(libc::syscall(libc::SYS_mmap, 0_u64, 4096_u64, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1_i64, 0_u64))?;
        let changed = check(libc::syscall(libc::SYS_mprotect, page, 4096_u64, later));
        check(libc::syscall(libc::SYS_munmap, page, 4096_u64))?;
        changed.map(drop)
    }
}

/// A call by number whose first argument is the text, whose other arguments are numbers, and which answers a descriptor or nothing of interest.
pub fn with_text(number: i64, text: &CStr, others: [i64; 3]) -> Result<(), Errno> {
    let allowed = [libc::SYS_fsopen, libc::SYS_chroot, libc::SYS_memfd_create, libc::SYS_swapon];
    if !allowed.contains(&number) {
        return Err(Errno::INVAL);
    }
    // SAFETY: each of these calls takes a NUL-ended text and numbers.
    check(unsafe { libc::syscall(number, text.as_ptr(), others[0], others[1], others[2]) }).map(|fd| close(number, fd))
}

/// A call that takes numbers only.
pub fn with_numbers(number: i64, numbers: [i64; 3]) -> Result<(), Errno> {
    let allowed = [
        libc::SYS_inotify_init1,
        libc::SYS_userfaultfd,
        libc::SYS_keyctl,
        libc::SYS_personality,
        libc::SYS_setresuid,
        libc::SYS_pidfd_open,
        libc::SYS_kill,
        libc::SYS_prctl,
    ];
    if !allowed.contains(&number) {
        return Err(Errno::INVAL);
    }
    // SAFETY: none of these calls takes a pointer with the arguments that the tests give.
    check(unsafe { libc::syscall(number, numbers[0], numbers[1], numbers[2], 0_u64, 0_u64) }).map(|fd| close(number, fd))
}

/// io_uring_setup(2) of one entry.
pub fn ring() -> Result<(), Errno> {
    let mut params = [0u8; 120]; // struct io_uring_params
    // SAFETY: the kernel reads and writes the 120 bytes of `params`.
    check(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) }).map(|fd| close(libc::SYS_io_uring_setup, fd))
}

fn close(number: i64, fd: libc::c_long) {
    let makes =
        [libc::SYS_fsopen, libc::SYS_memfd_create, libc::SYS_inotify_init1, libc::SYS_userfaultfd, libc::SYS_pidfd_open, libc::SYS_io_uring_setup];
    if makes.contains(&number) {
        // SAFETY: the call has just made this descriptor.
        drop(unsafe { OwnedFd::from_raw_fd(fd as i32) });
    }
}

/// Whether an attempt without walls may fail for reasons of the kernel's or of the tester's.
pub fn may_be_vacuous(error: &std::io::Error) -> bool {
    let kernel = [libc::ENOSYS, libc::EAFNOSUPPORT, libc::EPROTONOSUPPORT, libc::ENOENT, libc::EINVAL];
    let not_root = !rustix::process::geteuid().is_root() && matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES));
    not_root || error.raw_os_error().is_some_and(|errno| kernel.contains(&errno))
}
