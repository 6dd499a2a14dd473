//! Trees of the host: the root and bind mounts, cloned detached while the host's mounts are in reach, with their attributes set before
//! anything inside can see them.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::CWD,
    io::Errno,
    mount::{OpenTreeFlags, open_tree},
};

use super::{
    super::plan::{Container, Mount},
    ids::Shifts,
};
use crate::{
    error::{Context, Result},
    sys::{self, MountAttr},
};

/// MOUNT_ATTR__ATIME: the bits of one choice out of three, which must be cleared together (mount_setattr(2)).
const ATIME: u64 = 0x70;
/// MS_SLAVE.
pub(super) const SLAVE: u64 = libc::MS_SLAVE;
/// MS_REC.
const RECURSIVE: u64 = libc::MS_REC;

/// A detached clone of what is mounted at `path`.
///
/// # Errors
/// Of open_tree(2): ENOENT; EPERM without privilege over the mount namespace; EINVAL for a part of a tree whose mounts are locked.
pub(super) fn open(path: &Path, recursive: bool) -> std::result::Result<OwnedFd, Errno> {
    open_tree(CWD, path, flags(recursive))
}

/// [`open`] of what `fd` stands for.
pub(super) fn clone_of(fd: BorrowedFd<'_>, recursive: bool) -> std::result::Result<OwnedFd, Errno> {
    open_tree(fd, c"", flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH)
}

fn flags(recursive: bool) -> OpenTreeFlags {
    let below = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | below
}

/// The propagation that clones of the host's trees begin with. They are peers of the host's mounts where those are shared: what is
/// mounted inside would appear outside. So they become slaves (what the host unmounts goes inside too, and keeps no device busy),
/// unless `rootfsPropagation` says otherwise.
pub(super) fn base_propagation(container: &Container) -> u64 {
    match container.root_propagation.map(|p| p & !RECURSIVE) {
        None | Some(SLAVE) => SLAVE,
        // As it is: this is what a configuration asks for that wants its mounts seen outside.
        Some(libc::MS_SHARED) => 0,
        Some(_) => sys::PRIVATE,
    }
}

/// Gives a detached clone its attributes, ids and propagation.
pub(super) fn dress(tree: BorrowedFd<'_>, mount: &Mount, recursive: bool, container: &Container, shifts: &mut Shifts, what: &str) -> Result<()> {
    let mut all = MountAttr { set: mount.set_recursive, clear: mount.clear_recursive, ..MountAttr::default() };
    let mut top = MountAttr { set: mount.set, clear: mount.clear, ..MountAttr::default() };
    if let Some(map) = &mount.idmap {
        let userns = shifts.namespace(map, container, what)?.as_raw_fd();
        let shifted = if map.recursive { &mut all } else { &mut top };
        shifted.set |= sys::IDMAP;
        shifted.userns_fd = u64::try_from(userns).unwrap_or(u64::MAX);
    }
    let mut propagation = mount.propagation.as_slice();
    let covers_all = |p: &u64| *p & (libc::MS_PRIVATE | libc::MS_UNBINDABLE) != 0 && (*p & RECURSIVE != 0 || !recursive);
    match propagation.first() {
        Some(first) if covers_all(first) => {
            all.propagation = first & !RECURSIVE;
            propagation = propagation.get(1..).unwrap_or_default();
        }
        _ => all.propagation = base_propagation(container),
    }
    if !recursive {
        // One mount: one call.
        top = MountAttr {
            set: top.set | all.set,
            clear: top.clear | all.clear,
            propagation: all.propagation,
            userns_fd: top.userns_fd.max(all.userns_fd),
        };
        all = MountAttr::default();
    }
    change(tree, true, all, what)?;
    change(tree, false, top, what)?;
    propagate(tree, propagation, what)
}

/// Propagation types one after the other.
pub(super) fn propagate(tree: BorrowedFd<'_>, types: &[u64], what: &str) -> Result<()> {
    types.iter().try_for_each(|p| {
        let attr = MountAttr { propagation: p & !RECURSIVE, ..MountAttr::default() };
        change(tree, p & RECURSIVE != 0, attr, what)
    })
}

/// mount_setattr(2), if there is anything to change.
pub(super) fn change(tree: BorrowedFd<'_>, recursive: bool, mut attr: MountAttr, what: &str) -> Result<()> {
    if (attr.set | attr.clear) & ATIME != 0 {
        attr.clear |= ATIME;
    }
    if attr.set | attr.clear | attr.propagation == 0 {
        return Ok(());
    }
    let name = if attr.set & sys::IDMAP == 0 { "" } else { ", IDMAP: if its file system knows shifted ids" };
    sys::mount_setattr(tree.as_fd(), c"", recursive, &attr).wall(|| {
        let flags = (attr.set & !sys::IDMAP, attr.clear, attr.propagation);
        format!("{what}: mount_setattr(set {:#x}, clear {:#x}, propagation {:#x}{name})", flags.0, flags.1, flags.2)
    })
}
