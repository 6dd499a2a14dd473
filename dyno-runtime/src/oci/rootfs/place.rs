//! Places below a root that is not ours to trust: found and made by descriptor, never by a path that is used twice.
//!
//! What is there is looked up by one openat2(2) with RESOLVE_IN_ROOT, so that symlinks of an image lead where they lead inside; what is
//! missing is made name by name in the directory just opened. Whoever moves or replaces things meanwhile changes what is found, but never
//! leads outside.

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, mkdirat, openat, openat2, readlinkat, statx},
    io::Errno,
};

/// Symlinks to places that do not exist yet, one after the other (path_resolution(7) has the same bound).
const LINKS: usize = 40;

/// How often a lookup is made again that a rename elsewhere on the host has disturbed (openat2(2), EAGAIN).
const TRIES: usize = 1000;

/// What is wanted at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// A directory, by a path that may have symlinks.
    Directory,
    /// A directory, by a path without any symlink.
    PlainDirectory,
    /// A file, empty if it is made now.
    File,
}

/// A place that exists now.
#[derive(Debug)]
pub(super) struct Place {
    /// It.
    pub fd: OwnedFd,
    /// Whether it was there before.
    pub existed: bool,
}

/// The `O_PATH` descriptor of what `path` names for somebody whose root is `root`. Magic links of procfs are refused.
///
/// # Errors
/// Of openat2(2).
pub(super) fn find(root: BorrowedFd<'_>, path: &Path, more: ResolveFlags) -> Result<OwnedFd, Errno> {
    open(root, path, OFlags::PATH, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more)
}

/// openat2(2), again when something was renamed meanwhile.
pub(super) fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    for _ in 0..TRIES {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// [`find`], and if there is nothing it is made, with its parents (mode 0755; files 0644; less the umask).
///
/// # Errors
/// ELOOP for a symlink where none may be, EEXIST for something else than is wanted; of openat2(2), mkdirat(2) and openat(2).
pub(super) fn ensure(root: BorrowedFd<'_>, path: &Path, want: Want) -> Result<Place, Errno> {
    let more = if want == Want::PlainDirectory { ResolveFlags::NO_SYMLINKS } else { ResolveFlags::empty() };
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        match find(root, &path, more) {
            Ok(fd) => return Ok(Place { fd, existed: true }),
            Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
        match make(root, &path, more, want)? {
            Made::It(fd) => return Ok(Place { fd, existed: false }),
            Made::Elsewhere(to) => path = to,
        }
    }
    Err(Errno::LOOP)
}

/// What [`make`] comes to.
enum Made {
    It(OwnedFd),
    /// A symlink stands there whose target does not exist: the place is this one.
    Elsewhere(PathBuf),
}

fn make(root: BorrowedFd<'_>, path: &Path, more: ResolveFlags, want: Want) -> Result<Made, Errno> {
    let (mut here, mut at) = deepest(root, path, more)?;
    let rest = path.strip_prefix(&at).map_err(|_| Errno::INVAL)?.to_owned();
    let mut names = rest.components().peekable();
    while let Some(name) = names.next() {
        // `..` after something missing: there is no directory that it could be the parent of.
        let Component::Normal(name) = name else { return Err(Errno::NOENT) };
        let is_last = names.peek().is_none();
        let made = if is_last && want == Want::File { make_file(here.as_fd(), name) } else { make_directory(here.as_fd(), name) };
        match made {
            Ok(fd) => here = fd,
            Err(Errno::LOOP | Errno::NOTDIR | Errno::EXIST) if want != Want::PlainDirectory => {
                let target = match readlinkat(&here, name, Vec::new()) {
                    Ok(target) => OsStr::from_bytes(target.as_bytes()).to_owned(),
                    // Somebody was faster: then it is there, or the way to it is barred, as the next lookup says.
                    Err(_) => name.to_owned(),
                };
                return Ok(Made::Elsewhere(at.join(target).join(names.collect::<PathBuf>())));
            }
            Err(e) => return Err(e),
        }
        at.push(name);
    }
    Ok(Made::It(here))
}

/// The longest part of `path` that exists, opened.
fn deepest(root: BorrowedFd<'_>, path: &Path, more: ResolveFlags) -> Result<(OwnedFd, PathBuf), Errno> {
    for part in path.ancestors().skip(1) {
        match find(root, part, more) {
            Ok(fd) => return Ok((fd, part.to_owned())),
            Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
    }
    Err(Errno::NOENT)
}

/// Whoever was faster may have made it; what is opened is a directory and no symlink.
fn make_directory(here: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    match mkdirat(here, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e),
    }
    openat(here, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn make_file(here: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(here, name, flags, Mode::from_raw_mode(0o644))
}

/// The directory of `path` (made if missing) and its last name.
///
/// # Errors
/// As [`ensure`]; EINVAL for a path without a name.
pub(super) fn parent<'a>(root: BorrowedFd<'_>, path: &'a Path) -> Result<(OwnedFd, &'a OsStr), Errno> {
    let (parent, name) = path.parent().zip(path.file_name()).ok_or(Errno::INVAL)?;
    Ok((ensure(root, parent, Want::Directory)?.fd, name))
}

/// What a descriptor is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    /// Of its mount.
    pub mount: u64,
    /// Its inode number.
    pub inode: u64,
    /// Type and permissions.
    pub mode: u32,
    /// Device number, for a device file.
    pub device: (u32, u32),
}

impl Identity {
    /// What `fd` is of.
    ///
    /// # Errors
    /// Of statx(2).
    pub(super) fn of(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::INO | StatxFlags::MNT_ID).map(|s| Self::from(&s))
    }

    /// Of what type.
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// Whether it is a directory.
    pub(super) fn is_directory(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// The same file on the same mount.
    pub(super) fn is(&self, other: &Self) -> bool {
        (self.mount, self.inode) == (other.mount, other.inode)
    }
}

impl From<&Statx> for Identity {
    fn from(s: &Statx) -> Self {
        Self { mount: s.stx_mnt_id, inode: s.stx_ino, mode: u32::from(s.stx_mode), device: (s.stx_rdev_major, s.stx_rdev_minor) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("real")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        for (link, target) in [("in", "/real"), ("up", "../../.."), ("later", "/real/made/by/us"), ("loop", "/loop"), ("to-file", "file")] {
            symlink(target, root.join(link)).unwrap();
        }
        let fd = fs::File::open(&root).unwrap().into();
        (dir, fd)
    }

    #[test]
    fn what_is_missing_is_made_below_the_root() {
        for (path, want, made) in [
            ("/a/b/c", Want::Directory, Ok("a/b/c")),
            ("/in/x/file", Want::File, Ok("real/x/file")),
            ("/up/y", Want::Directory, Ok("y")),
            ("/later", Want::Directory, Ok("real/made/by/us")),
            ("/later/z", Want::File, Ok("real/made/by/us/z")),
            ("/later/../q", Want::File, Err(Errno::NOENT)),
            ("/none/../../q", Want::File, Err(Errno::NOENT)),
            ("/loop", Want::Directory, Err(Errno::LOOP)),
            ("/loop/x", Want::Directory, Err(Errno::LOOP)),
            ("/file/x", Want::Directory, Err(Errno::NOTDIR)),
            ("/to-file/x", Want::File, Err(Errno::NOTDIR)),
            ("/p/q", Want::PlainDirectory, Ok("p/q")),
            ("/in", Want::PlainDirectory, Err(Errno::LOOP)),
            ("/in/x", Want::PlainDirectory, Err(Errno::LOOP)),
            ("/later", Want::PlainDirectory, Err(Errno::LOOP)),
        ] {
            let (dir, fd) = root();
            let is = ensure(fd.as_fd(), Path::new(path), want);
            assert_eq!(is.as_ref().map(|place| place.existed).map_err(|e| *e), made.map(|_| false), "{path}");
            if let (Ok(place), Ok(made)) = (is, made) {
                let there = Identity::of(fs::File::open(dir.path().join("root").join(made)).unwrap().as_fd()).unwrap();
                assert!(Identity::of(place.fd.as_fd()).unwrap().is(&there), "{path}");
                assert_eq!(there.is_directory(), want != Want::File, "{path}");
            }
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{path}: made outside");
        }
    }

    #[test]
    fn what_is_there_is_found() {
        let (_dir, fd) = root();
        for (path, want) in
            [("/real", Want::Directory), ("/in", Want::Directory), ("/up", Want::Directory), ("/to-file", Want::File), ("/", Want::Directory)]
        {
            assert!(ensure(fd.as_fd(), Path::new(path), want).unwrap().existed, "{path}");
        }
    }
}
