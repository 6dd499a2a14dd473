//! `tmpcopyup`: what lies below a destination, copied into the new tmpfs that will cover it.
//!
//! Both sides go by descriptor and no symlink is followed; whatever is moved meanwhile, what is copied comes from below the destination as
//! each directory was when it was opened. Owners, modes and times come along; sockets and devices do not.

use std::{
    ffi::CStr,
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, chmodat, chownat, fstat, mkdirat, mknodat, openat,
        openat2, readlinkat, symlinkat, utimensat,
    },
    io::Errno,
};

use crate::error::{Context, Error, ErrorKind, Result};

/// Directories below one another: each holds three descriptors.
const DEEPEST: usize = 128;

/// Copies what is in the directory `from` into the directory `to`.
///
/// # Errors
/// Of the calls; ENOSPC when the tmpfs is too small.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, what: &str) -> Result<()> {
    directory(from, to, DEEPEST, what)
}

fn directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize, what: &str) -> Result<()> {
    if depth == 0 {
        return Err(Error::refused(ErrorKind::Invalid, format!("{what}: tmpcopyup: more than {DEEPEST} directories below one another")));
    }
    let open = openat(from, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let list = open.and_then(Dir::new).wall(|| format!("{what}: tmpcopyup: open a directory"))?;
    for entry in list {
        let entry = entry.wall(|| format!("{what}: tmpcopyup: list a directory"))?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            one(from, to, name, depth, what)?;
        }
    }
    Ok(())
}

fn one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: usize, what: &str) -> Result<()> {
    let what_of = |call: &str| format!("{what}: tmpcopyup: {call} {}", name.to_string_lossy());
    let entry = match openat2(from, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::BENEATH) {
        // Somebody has removed it meanwhile.
        Err(Errno::NOENT) => return Ok(()),
        other => other.wall(|| what_of("open"))?,
    };
    let stat = fstat(&entry).wall(|| what_of("stat"))?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            mkdirat(to, name, Mode::RWXU).wall(|| what_of("mkdir"))?;
            let below = openat(to, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
                .wall(|| what_of("open the copy of"))?;
            directory(entry.as_fd(), below.as_fd(), depth - 1, what)?;
        }
        FileType::RegularFile => regular(&entry, &stat, to, name).io(|| what_of("copy"))?,
        FileType::Symlink => {
            let target = readlinkat(&entry, c"", Vec::new()).wall(|| what_of("readlink"))?;
            symlinkat(&target, to, name).wall(|| what_of("symlink"))?;
        }
        FileType::Fifo => mknodat(to, name, FileType::Fifo, mode, 0).wall(|| what_of("mkfifo"))?,
        _ => return Ok(()),
    }
    dress(to, name, &stat).wall(|| what_of("owner and mode of"))
}

fn regular(entry: &OwnedFd, stat: &Stat, to: BorrowedFd<'_>, name: &CStr) -> std::io::Result<()> {
    // By descriptor, because the name may be another file's by now. What it is was looked at: opening it does not block.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(entry));
    let mut source = File::open(path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut copy = File::from(openat(to, name, flags, Mode::RUSR | Mode::WUSR)?);
    if stat.st_size > 0 {
        std::io::copy(&mut source, &mut copy)?;
    }
    Ok(())
}

/// Owner first: chown(2) takes set-id bits away.
fn dress(to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> std::result::Result<(), Errno> {
    chownat(to, name, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)), AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    let time = |sec, nsec: u64| Timespec { tv_sec: sec, tv_nsec: nsec.try_into().unwrap_or(0) };
    let times = Timestamps { last_access: time(stat.st_atime, stat.st_atime_nsec), last_modification: time(stat.st_mtime, stat.st_mtime_nsec) };
    utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}
