//! Inside: kernel parameters set, paths masked and made read-only. Everything by descriptors below the root, and of a procfs that was looked
//! at: what is written to it goes where its name says.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, OFlags, ResolveFlags},
    io::Errno,
};

use super::{
    super::plan::Container,
    attach,
    enter::Inside,
    fs::FileSystem,
    place::{self, Identity},
    proc, tree,
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys::{self, MountAttr},
};

/// Of the root of a procfs (PROC_ROOT_INO).
const PROC_ROOT: u64 = 1;

impl Inside {
    /// Sets the kernel parameters, masks what is to be masked, and makes read-only what is to be read-only. Paths that do not exist are
    /// passed over.
    ///
    /// # Errors
    /// Of the calls, each with its path; refuses to touch paths of a mount namespace that others use.
    pub fn protect(mut self, container: &Container) -> Result<()> {
        sysctls(&container.sysctls)?;
        if !(self.own || container.masked.is_empty() && container.readonly.is_empty()) {
            return Err(Error::refused(ErrorKind::Invalid, "unable to restrict sys entries without a private MNT namespace"));
        }
        for path in &container.readonly {
            self.read_only(path)?;
        }
        self.mask(&container.masked, container.mount_label.as_deref())?;
        self.unbindable.map_or(Ok(()), |unbindable| tree::propagate(self.root.as_fd(), &[unbindable], "rootfsPropagation"))
    }

    fn read_only(&self, path: &Path) -> Result<()> {
        let Some(there) = find(&self.root, path, "readonlyPaths")? else { return Ok(()) };
        let what = |call: &str| format!("readonlyPaths {}: {call}", path.display());
        let tree = tree::clone_of(there.as_fd(), true).wall(|| what("open_tree"))?;
        let attr = MountAttr { set: sys::RDONLY, ..MountAttr::default() };
        sys::mount_setattr(tree.as_fd(), c"", false, &attr).wall(|| what("mount_setattr(RDONLY)"))?;
        attach(tree.as_fd(), there.as_fd()).wall(|| what("move_mount"))
    }

    /// One null device and one empty directory for all: the first is attached, the others are its clones.
    fn mask(&mut self, paths: &[PathBuf], label: Option<&str>) -> Result<()> {
        let (mut null, mut empty) = (Cover::New(self.null.take()), Cover::New(None));
        let mut seen: Vec<Identity> = Vec::new();
        for path in paths {
            let what = |call: &str| format!("maskedPaths {}: {call}", path.display());
            let Some(there) = find(&self.root, path, "maskedPaths")? else { continue };
            let is = Identity::of(there.as_fd()).wall(|| what("statx"))?;
            let cover = if is.is_directory() { &mut empty } else { &mut null };
            if seen.contains(&is) {
                continue;
            }
            let tree = match cover {
                Cover::Attached(fd) => tree::clone_of(fd.as_fd(), false).wall(|| what("open_tree(cover)"))?,
                Cover::New(fd) => match fd.take() {
                    Some(fd) => fd,
                    None if is.is_directory() => empty_directory(label)?,
                    None => return Err(Error::refused(ErrorKind::Wall, what("no null device"))),
                },
            };
            attach(tree.as_fd(), there.as_fd()).wall(|| what("move_mount"))?;
            seen.push(Identity::of(tree.as_fd()).wall(|| what("statx"))?);
            if matches!(cover, Cover::New(_)) {
                *cover = Cover::Attached(tree);
            }
        }
        Ok(())
    }
}

/// What exists at `path`.
fn find(root: &OwnedFd, path: &Path, what: &str) -> Result<Option<OwnedFd>> {
    match place::find(root.as_fd(), path, ResolveFlags::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        other => other.map(Some).wall(|| format!("{what} {}: openat2", path.display())),
    }
}

/// What masks one kind of path.
enum Cover {
    New(Option<OwnedFd>),
    Attached(OwnedFd),
}

/// An empty directory that nobody can write.
fn empty_directory(label: Option<&str>) -> Result<OwnedFd> {
    let mut data = vec![("nr_blocks", Some("1".to_owned())), ("nr_inodes", Some("1".to_owned()))];
    data.extend(label.map(|label| ("context", Some(label.to_owned()))));
    FileSystem { kind: "tmpfs", source: "tmpfs", data, attributes: sys::RDONLY | sys::NOSUID | sys::NODEV | sys::NOEXEC }.make("mask")
}

/// Writes kernel parameters.
fn sysctls(sysctls: &[(String, String)]) -> Result<()> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let proc = procfs()?;
    for (path, value) in sysctls {
        let what = |call: &str| format!("sysctl {path}: {call}");
        let flags = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let file = place::open(proc.as_fd(), &Path::new("sys").join(path), OFlags::WRONLY, flags).wall(|| what("openat2"))?;
        // In one write: a parameter is what one write says.
        let written = rustix::io::write(&file, value.as_bytes()).wall(|| what(&format!("write {value:?}")))?;
        if written != value.len() {
            return Err(Error::refused(ErrorKind::Wall, what(&format!("only {written} bytes of {value:?} were taken"))));
        }
    }
    Ok(())
}

/// The root of the container's procfs, or of one of our own where the container has none that can be written.
fn procfs() -> Result<OwnedFd> {
    if let Ok(proc) = place::find(CWD, Path::new("/proc"), ResolveFlags::NO_SYMLINKS) {
        let is = |inode| proc::is_procfs(proc.as_fd()).map(|yes| yes && inode == PROC_ROOT);
        let inode = Identity::of(proc.as_fd()).wall(|| "statx(/proc)".into())?.inode;
        let read_only = rustix::fs::fstatvfs(&proc).wall(|| "fstatvfs(/proc)".into())?.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
        if is(inode).wall(|| "fstatfs(/proc)".into())? && !read_only {
            return Ok(proc);
        }
    }
    FileSystem { kind: "proc", source: "proc", data: Vec::new(), attributes: sys::NOSUID | sys::NODEV | sys::NOEXEC }.make("sysctl")
}
