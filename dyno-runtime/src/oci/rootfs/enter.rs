//! Into the root, and the host's mounts off.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::CWD,
    io::Errno,
    mount::{MountFlags, MoveMountFlags, UnmountFlags, mount, move_mount, unmount},
    process::{chdir, chroot, fchdir, pivot_root},
};

use super::{Root, place::Identity, tree};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys::{self, MountAttr},
};

/// A process that has nothing but its root.
#[derive(Debug)]
pub struct Inside {
    /// The root.
    pub(super) root: OwnedFd,
    /// The null device, to put over files.
    pub(super) null: Option<OwnedFd>,
    /// Whether mounts are the container's own.
    pub(super) own: bool,
    /// MS_UNBINDABLE, with MS_REC or without: not before all is done that clones a mount.
    pub(super) unbindable: Option<u64>,
}

impl Root {
    /// Makes it the root of this process and of its mount namespace and takes off everything else; then the propagation of the root,
    /// and what is to be read-only. `no_pivot`: for roots that pivot_root(2) refuses, such as an initial ramfs.
    ///
    /// In a mount namespace that others use as well only this process changes its root.
    ///
    /// # Errors
    /// Of the calls.
    pub fn enter(self, no_pivot: bool) -> Result<Inside> {
        fchdir(&self.fd).wall(|| "fchdir(root)".into())?;
        match (self.own, no_pivot) {
            _ if self.entered => {}
            (true, false) => pivot()?,
            (true, true) => self.move_over()?,
            (false, _) => chroot(c".").wall(|| "chroot(root)".into())?,
        }
        chdir(c"/").wall(|| "chdir(/)".into())?;
        self.must_be_root()?;
        // Private and slave it is already; not before now, because pivot_root(2) refuses a shared root.
        let is = |wanted: u64| self.propagation.filter(|p| p & wanted != 0);
        if let Some(shared) = is(libc::MS_SHARED) {
            tree::propagate(self.fd.as_fd(), &[shared], "rootfsPropagation")?;
        }
        let unbindable = is(libc::MS_UNBINDABLE);
        let read_only = MountAttr { set: sys::RDONLY, ..MountAttr::default() };
        for tree in &self.late {
            tree::change(tree.as_fd(), false, read_only, "read-only mount")?;
        }
        if self.readonly {
            tree::change(self.fd.as_fd(), false, read_only, "read-only root")?;
        }
        Ok(Inside { root: self.fd, null: self.null, own: self.own, unbindable })
    }

    fn must_be_root(&self) -> Result<()> {
        let here = super::place::find(CWD, Path::new("/"), rustix::fs::ResolveFlags::empty()).and_then(|fd| Identity::of(fd.as_fd()));
        let (here, root) = (here.wall(|| "statx(/)".into())?, Identity::of(self.fd.as_fd()).wall(|| "statx(root)".into())?);
        if !here.is(&root) {
            return Err(Error::refused(ErrorKind::Wall, "the root of the container is not the root of its process"));
        }
        Ok(())
    }

    /// The root over the root. The host's /proc and /sys stay mounted below it, out of reach; but a user namespace that is made inside may
    /// mount new ones as long as such whole ones are there, without what is masked (the kernel's mount_too_revealing), so they go first.
    fn move_over(&self) -> Result<()> {
        for point in whole(&self.path)? {
            match unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::INVAL | Errno::PERM) => {}
                Err(e) => return Err(e).wall(|| format!("umount2({})", point.display())),
            }
            // Locked together with what it belongs to: then hidden.
            mount("tmpfs", &point, "tmpfs", MountFlags::RDONLY, c"size=0k").wall(|| format!("mount(tmpfs over {})", point.display()))?;
        }
        move_mount(&self.fd, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).wall(|| "move_mount(root, /)".into())?;
        chroot(c".").wall(|| "chroot(root)".into())
    }
}

/// pivot_root(2), NOTES: with the same directory twice the old root comes to lie over the new one, and nothing is needed inside to put it.
/// Taking it off is not seen outside, because it has been a slave from the start.
fn pivot() -> Result<()> {
    pivot_root(c".", c".").wall(|| "pivot_root(., .)".into())?;
    unmount(c".", UnmountFlags::DETACH).wall(|| "umount2(old root, MNT_DETACH)".into())
}

/// Where whole procfs and sysfs are mounted, outside of `root` (proc_pid_mountinfo(5)).
fn whole(root: &Path) -> Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").wall(|| "read /proc/self/mountinfo".into())?;
    let point = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (top, point) = (fields.next()?, fields.next()?);
        let wanted = top == "/" && matches!(after.split(' ').next()?, "proc" | "sysfs");
        wanted.then(|| PathBuf::from(plain(point)))
    };
    Ok(table.lines().filter_map(point).filter(|p| !p.starts_with(root)).collect())
}

/// Without the octal escapes of mount tables.
fn plain(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")].iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}
