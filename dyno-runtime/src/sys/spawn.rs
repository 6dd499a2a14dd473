//! A program of the host's (or of a container's) beside us: three streams, its own process group, and nothing else of ours.

use std::{
    ffi::{CStr, CString, c_char},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use rustix::io::Errno;

use super::{Flags, SharedChild, check, exit_now, place_descriptors, vfork};

/// A program to run.
#[derive(Debug)]
pub struct Program<'a> {
    /// Its working directory; absent: ours.
    pub dir: Option<&'a CStr>,
    /// What is executed; no search.
    pub path: &'a CStr,
    /// Its arguments, its name first.
    pub args: &'a [CString],
    /// All of its environment.
    pub env: &'a [CString],
    /// Its stdin, stdout and stderr.
    pub streams: [BorrowedFd<'a>; 3],
}

struct Child {
    dir: *const c_char,
    path: *const c_char,
    args: Vec<*const c_char>,
    env: Vec<*const c_char>,
    streams: [RawFd; 3],
    failed: Option<Errno>,
}

impl Child {
    /// Returns only on failure.
    fn become_it(&self) -> Result<(), Errno> {
        rustix::process::setpgid(None, None)?;
        // SAFETY: an empty set, read by the call; as much as the kernel's sigset_t.
        check(unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const EMPTY, std::ptr::null::<u64>(), size_of_val(&EMPTY)) })?;
        // The standard library has us ignore it, and exec keeps that.
        // SAFETY: no handler of ours; the table of dispositions is the child's own.
        if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(Errno::INVAL);
        }
        if !self.dir.is_null() {
            // SAFETY: a string that ends in NUL, kept alive by the parent, which sleeps.
            check(unsafe { libc::syscall(libc::SYS_chdir, self.dir) })?;
        }
        place_descriptors(self.streams, 0)?;
        // SAFETY: strings that end in NUL and vectors that end in null, both kept alive by the parent, which sleeps.
        check(unsafe { libc::syscall(libc::SYS_execve, self.path, self.args.as_ptr(), self.env.as_ptr()) }).map(drop)
    }
}

/// As much of a sigset_t as the kernel has.
static EMPTY: u64 = 0;

impl SharedChild for Child {
    fn run(&mut self) -> ! {
        self.failed = self.become_it().err();
        exit_now(127)
    }
}

/// Starts a program as leader of a process group; returns once its exec is done.
///
/// # Errors
/// Of clone3(2), chdir(2) and execve(2).
pub fn spawn(program: &Program<'_>) -> Result<(OwnedFd, u32), Errno> {
    let pointers = |words: &[CString]| words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect();
    let streams = program.streams.map(|fd| fd.as_raw_fd());
    let dir = program.dir.map_or(std::ptr::null(), CStr::as_ptr);
    let mut child = Child { dir, path: program.path.as_ptr(), args: pointers(program.args), env: pointers(program.env), streams, failed: None };
    let (pidfd, pid) = vfork(Flags::NONE, None, &mut child)?;
    match child.failed {
        None => Ok((pidfd, pid)),
        Some(e) => {
            super::reap(rustix::fd::AsFd::as_fd(&pidfd))?;
            Err(e)
        }
    }
}
