//! Opening a path of a tree that is not ours, without following a symlink that somebody may have put there.

use std::{
    ffi::CStr,
    os::fd::{BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat, openat2},
    io::Errno,
};

use crate::broken::{self, Part};

/// Longest name of a directory entry (NAME_MAX).
const NAME_MAX: usize = 255;

/// How a directory on the way is held: a symlink is opened itself, and then seen to be one, the magic ones of procfs too.
const ON_THE_WAY: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An `O_PATH` descriptor of the absolute `path`. No part of it may be a symlink, the last one neither. Child-safe.
///
/// By openat2(2) (Linux 5.6), or name by name where that is hidden: the same answer, one call per name more.
///
/// # Errors
/// ELOOP for a symlink; of openat2(2) and openat(2).
pub fn open_without_symlinks(path: &CStr) -> Result<OwnedFd, Errno> {
    let resolve = if broken::is(Part::NoSymlinks) { ResolveFlags::empty() } else { ResolveFlags::NO_SYMLINKS };
    match openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Err(Errno::NOSYS) => walk(open(c"/", ON_THE_WAY | OFlags::DIRECTORY, Mode::empty())?, path.to_bytes(), OFlags::PATH),
        other => other,
    }
}

/// What `path` names below `dir`, opened with `flags` and close-on-exec: nothing outside of it, and no part a symlink. Child-safe.
///
/// By openat2(2), or name by name, as [`open_without_symlinks`].
///
/// # Errors
/// ELOOP for a symlink, EXDEV for a way out; of openat2(2) and openat(2).
pub fn open_beneath(dir: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    match openat2(dir, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH) {
        Err(Errno::NOSYS) if path.to_bytes().starts_with(b"/") => Err(Errno::XDEV),
        Err(Errno::NOSYS) => walk(openat(dir, c".", ON_THE_WAY, Mode::empty())?, path.to_bytes(), flags),
        other => other,
    }
}

/// Each name is looked up in the directory just opened, so that nothing that is moved meanwhile can lead elsewhere.
fn walk(mut here: OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    if path.is_empty() {
        return Err(Errno::NOENT);
    }
    let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).peekable();
    while let Some(name) = names.next() {
        if name == b".." {
            return Err(Errno::XDEV);
        }
        let mut buffer = [0u8; NAME_MAX + 1];
        buffer.get_mut(..name.len()).filter(|_| name.len() <= NAME_MAX).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(name);
        let name = CStr::from_bytes_until_nul(&buffer).map_err(|_| Errno::NAMETOOLONG)?;
        let flags = if names.peek().is_some() { ON_THE_WAY } else { flags | OFlags::NOFOLLOW | OFlags::CLOEXEC };
        here = openat(&here, name, flags, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&here)?.st_mode) == FileType::Symlink {
            return Err(Errno::LOOP);
        }
    }
    Ok(here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{ffi::CString, os::fd::AsFd};

    #[test]
    fn name_by_name_says_what_openat2_says() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("real/below")).unwrap();
        std::fs::write(dir.path().join("real/file"), "").unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("real/dangling")).unwrap();
        let dir: OwnedFd = std::fs::File::open(dir.path()).unwrap().into();
        let (long, file) = ("n".repeat(NAME_MAX + 1), OFlags::RDONLY);
        for (path, flags, want) in [
            ("real/below", OFlags::PATH, None),
            ("real//./below/", OFlags::PATH | OFlags::DIRECTORY, None),
            ("real/file", OFlags::PATH, None),
            ("real/file", file, None),
            (".", file, None),
            ("link", OFlags::PATH, Some(Errno::LOOP)),
            ("link", file, Some(Errno::LOOP)),
            ("link/below", OFlags::PATH, Some(Errno::LOOP)),
            ("real/dangling", file, Some(Errno::LOOP)),
            ("real/nothing", OFlags::PATH, Some(Errno::NOENT)),
            ("", OFlags::PATH, Some(Errno::NOENT)),
            ("real/file/below", OFlags::PATH, Some(Errno::NOTDIR)),
            ("real/file", OFlags::PATH | OFlags::DIRECTORY, Some(Errno::NOTDIR)),
            ("../etc", OFlags::PATH, Some(Errno::XDEV)),
            (&long, OFlags::PATH, Some(Errno::NAMETOOLONG)),
        ] {
            let name = CString::new(path).unwrap();
            let here = openat(&dir, c".", ON_THE_WAY, Mode::empty()).unwrap();
            let (walked, kernel) = (walk(here, path.as_bytes(), flags), open_beneath(dir.as_fd(), &name, flags));
            assert_eq!((walked.as_ref().err().copied(), kernel.as_ref().err().copied()), (want, want), "{path} {flags:?}");
            if let (Ok(walked), Ok(kernel)) = (walked, kernel) {
                let id = |fd: &OwnedFd| fstat(fd).map(|s| (s.st_dev, s.st_ino)).unwrap();
                assert_eq!(id(&walked), id(&kernel), "{path}");
            }
        }
    }

    #[test]
    fn magic_links_are_links() {
        let root = || open(c"/", ON_THE_WAY, Mode::empty()).unwrap();
        for path in ["/proc/self/root/tmp", "/proc/thread-self/cwd", "/proc/self/fd/0"] {
            assert_eq!(walk(root(), path.as_bytes(), OFlags::PATH).err(), Some(Errno::LOOP), "{path}");
        }
        assert!(walk(root(), b"/proc/1/ns", OFlags::PATH).is_ok());
    }
}
