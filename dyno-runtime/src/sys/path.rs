//! Opening a path of a tree that is not ours, without following a symlink that somebody may have put there.

use std::{ffi::CStr, os::fd::OwnedFd};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat, openat2},
    io::Errno,
};

/// Longest name of a directory entry (NAME_MAX).
const NAME_MAX: usize = 255;

/// An `O_PATH` descriptor of `path`. No part of it may be a symlink, the last one neither. Child-safe.
///
/// By openat2(2) (Linux 5.6), or name by name where that is hidden: the same answer, one call per name more.
///
/// # Errors
/// ELOOP for a symlink; of openat2(2) and openat(2).
pub fn open_without_symlinks(path: &CStr) -> Result<OwnedFd, Errno> {
    match openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Err(Errno::NOSYS) => walk(path),
        other => other,
    }
}

/// Each name is looked up in the directory just opened, so that nothing that is moved meanwhile can lead elsewhere. A symlink is
/// opened itself (`O_PATH | O_NOFOLLOW`) and then seen to be one, the magic ones of procfs too.
fn walk(path: &CStr) -> Result<OwnedFd, Errno> {
    const FLAGS: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
    let path = path.to_bytes();
    if path.is_empty() {
        return Err(Errno::NOENT);
    }
    let mut here = open(if path[0] == b'/' { c"/" } else { c"." }, FLAGS | OFlags::DIRECTORY, Mode::empty())?;
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        let mut buffer = [0u8; NAME_MAX + 1];
        buffer.get_mut(..part.len()).filter(|_| part.len() <= NAME_MAX).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(part);
        let name = CStr::from_bytes_until_nul(&buffer).map_err(|_| Errno::NAMETOOLONG)?;
        here = openat(&here, name, FLAGS, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&here)?.st_mode) == FileType::Symlink {
            return Err(Errno::LOOP);
        }
    }
    Ok(here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    #[test]
    fn name_by_name_says_what_openat2_says() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(dir.join("real/below")).unwrap();
        std::fs::write(dir.join("real/file"), "").unwrap();
        std::os::unix::fs::symlink("real", dir.join("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.join("real/dangling")).unwrap();
        let long = "n".repeat(NAME_MAX + 1);
        for (below, want) in [
            ("real/below", None),
            ("real//./below/", None),
            ("real/file", None),
            ("link", Some(Errno::LOOP)),
            ("link/below", Some(Errno::LOOP)),
            ("real/dangling", Some(Errno::LOOP)),
            ("real/nothing", Some(Errno::NOENT)),
            ("real/file/below", Some(Errno::NOTDIR)),
            (&long, Some(Errno::NAMETOOLONG)),
        ] {
            let path = CString::new(dir.join(below).into_os_string().into_encoded_bytes()).unwrap();
            let (walked, kernel) = (walk(&path), open_without_symlinks(&path));
            assert_eq!((walked.as_ref().err().copied(), kernel.as_ref().err().copied()), (want, want), "{below}");
            if let (Ok(walked), Ok(kernel)) = (walked, kernel) {
                let id = |fd: &OwnedFd| fstat(fd).map(|s| (s.st_dev, s.st_ino)).unwrap();
                assert_eq!(id(&walked), id(&kernel), "{below}");
            }
        }
        let magic = CString::new(format!("/proc/{}/root/tmp", std::process::id())).unwrap();
        assert_eq!(walk(&magic).err(), Some(Errno::LOOP));
        assert_eq!(walk(c"").err(), Some(Errno::NOENT));
    }
}
