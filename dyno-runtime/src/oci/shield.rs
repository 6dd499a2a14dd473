//! Whatever of this program enters a container can be opened in there as `/proc/PID/exe`, and before CVE-2019-5736 was known, overwritten.
//! So a runtime that is going to enter one executes itself again first, from a mount of its own file that is read-only, detached, and
//! gone from every table as soon as exec is done: nothing inside can make it writable or bind it elsewhere. One exec of a static
//! program is what it costs; a copy in memory, as others make, would be the whole program's size each time.

use std::{ffi::CString, os::unix::ffi::OsStringExt};

use rustix::{
    fs::{CWD, StatVfsMountFlags, fcntl_get_seals, fstatvfs},
    io::Errno,
    mount::{OpenTreeFlags, open_tree},
};

use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys::{self, MountAttr},
};

/// Set by the first of the two executions.
const MARK: &str = "_DYNO_RUNTIME_SHIELD";

/// Returns in a process whose executable nobody can write to by way of it.
///
/// # Errors
/// [`ErrorKind::Wall`] when neither way works; nothing has been done then.
pub fn raise() -> Result<()> {
    let exe = rustix::fs::open("/proc/self/exe", rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())
        .wall(|| "open(/proc/self/exe)".into())?;
    let sealed = fcntl_get_seals(&exe).is_ok_and(|seals| seals.contains(sys::SEALS));
    if sealed || fstatvfs(&exe).wall(|| "fstatvfs(/proc/self/exe)".into())?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    if std::env::var_os(MARK).is_some() {
        return Err(Error::refused(ErrorKind::Wall, "this program could not be protected from what it starts: its executable is writable still"));
    }
    let argv: Vec<CString> = strings(std::env::args_os().map(OsStringExt::into_vec))?;
    let own = std::env::vars_os().map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='));
    let envp = strings(own.chain([format!("{MARK}=1").into_bytes()]))?;
    let copy = match read_only_mount() {
        // Not privileged, a file system that is in no mount namespace of ours, or an old kernel.
        Err(Errno::PERM | Errno::INVAL | Errno::NOSYS | Errno::ACCESS) => sealed_copy(exe)?,
        other => other.wall(|| "open_tree(/proc/self/exe, OPEN_TREE_CLONE)".into())?,
    };
    let failed = sys::exec_again(rustix::fd::AsFd::as_fd(&copy), &argv, &envp);
    Err(failed).wall(|| "execveat(this program, read-only)".into())
}

fn strings(list: impl Iterator<Item = Vec<u8>>) -> Result<Vec<CString>> {
    list.map(|text| CString::new(text).map_err(|_| Error::refused(ErrorKind::Invalid, "an argument holds a zero byte"))).collect()
}

fn read_only_mount() -> std::result::Result<rustix::fd::OwnedFd, Errno> {
    let tree = open_tree(CWD, "/proc/self/exe", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    sys::mount_setattr(
        rustix::fd::AsFd::as_fd(&tree),
        c"",
        false,
        &MountAttr { set: sys::RDONLY, propagation: sys::PRIVATE, ..MountAttr::default() },
    )?;
    Ok(tree)
}

fn sealed_copy(exe: rustix::fd::OwnedFd) -> Result<rustix::fd::OwnedFd> {
    let mut program = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::File::from(exe), &mut program).wall(|| "read(/proc/self/exe)".into())?;
    sys::program_in_memory("dyno-runtime", &[&program]).wall(|| "memory file of this program: memfd_create, write or fcntl(F_ADD_SEALS)".into())
}
