//! The overlay of a sandbox on kernels whose overlayfs takes layers by path only (before Linux 6.13), or only attached
//! ones (before 6.15).
//!
//! The layers are attached below the sandbox's state directory, named in the mount options, and detached again at once: the
//! overlay holds them from then on. Only the writable layer stays attached when its remains are wanted later, because such a kernel
//! can clone a mount only from where it is attached. The state directory is below a private mount, so nothing of this shows elsewhere.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::CWD,
    io::Errno,
    mount::{FsOpenFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_set_string, fsopen, move_mount, open_tree, unmount},
};

use super::root::{self, LayerTree, WritableLayer};
use crate::error::{Context, Result};

/// Directory of the attached layers, below a state directory.
const LAYERS: &str = "layers";

/// The overlay, detached.
pub(super) fn overlay(layers: &[LayerTree], writable: Option<&mut WritableLayer>, scratch: &Path) -> Result<OwnedFd> {
    let dir = scratch.join(LAYERS);
    // An option's value has at most 255 bytes there (fsconfig(2)), so the paths are those of our descriptors.
    let (mut points, mut names) = (Vec::new(), Vec::new());
    for (i, layer) in layers.iter().enumerate() {
        points.push(attach(layer.tree.as_fd(), &dir.join(i.to_string()))?);
        names.push(path_of(layer.tree.as_fd()));
    }
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).wall(|| "fsopen(overlay)".into())?;
    let set = |key: &str, value: &str| fsconfig_set_string(&fs, key, value).wall(|| format!("fsconfig(overlay, {key}={value})"));
    set("source", "dyno")?;
    set("lowerdir", &names.join(":"))?;
    let is_writable = writable.is_some();
    if let Some(layer) = writable {
        let point = attach(layer.tree(), &dir.join("upper"))?;
        set("upperdir", &format!("{}/upper", path_of(layer.tree())))?;
        set("workdir", &format!("{}/work", path_of(layer.tree())))?;
        // Where chown copies only what it changes (Linux 4.19), `ownership` costs no data.
        set("metacopy", "on")?;
        layer.attach_at(point);
    }
    let root = root::mount(&fs, is_writable)?;
    for point in points {
        unmount_now(&point)?;
    }
    Ok(root)
}

fn path_of(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn attach(tree: BorrowedFd<'_>, point: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(point).io(|| format!("mkdir({})", point.display()))?;
    move_mount(tree, "", CWD, point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).wall(|| format!("move_mount(layer, {})", point.display()))?;
    Ok(point.to_owned())
}

/// A detached clone of an attached directory.
pub(super) fn clone_at(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, path, flags).wall(|| format!("open_tree({}, OPEN_TREE_CLONE)", path.display()))
}

/// Detaches whatever is attached below the state directory `scratch`.
///
/// # Errors
/// Of listing it and umount2(2).
pub fn detach(scratch: &Path) -> Result<()> {
    let dir = scratch.join(LAYERS);
    let what = || format!("list {}", dir.display());
    let entries = match std::fs::read_dir(&dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.io(what)?,
    };
    for entry in entries {
        unmount_now(&entry.io(what)?.path())?;
    }
    Ok(())
}

fn unmount_now(point: &Path) -> Result<()> {
    match unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // EINVAL: nothing is mounted there.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(e) => Err(e).io(|| format!("umount2({}, MNT_DETACH)", point.display())),
    }
}
