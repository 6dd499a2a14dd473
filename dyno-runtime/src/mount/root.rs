//! The root of one sandbox: layers with shifted ids under a capped, private writable layer. Built detached.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags, Uid, chownat, mkdirat, open, openat},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_string, fsmount, fsopen,
        open_tree,
    },
};

use super::{Lease, dev::new_tmpfs};
use crate::{
    error::{Context, ErrorKind, Result},
    spec::{Upper, Volume},
    sys::{self, MountAttr},
};

/// A tmpfs with the two directories that overlayfs wants. It lives as long as a descriptor or a mount uses it.
#[derive(Debug)]
pub struct WritableLayer {
    tree: OwnedFd,
}

impl WritableLayer {
    /// A fresh one, owned by the sandbox's root id.
    ///
    /// # Errors
    /// Of mounting.
    pub fn new(bytes: u64, inodes: u64, lease: &Lease) -> Result<Self> {
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let tree = new_tmpfs(&[("size", &bytes.to_string()), ("nr_inodes", &inodes.to_string()), ("mode", "700")], attributes)?;
        for name in ["upper", "work"] {
            mkdirat(&tree, name, Mode::from_raw_mode(0o755)).wall(|| format!("mkdir({name})"))?;
        }
        let owner = lease.host_id(0);
        chownat(&tree, "upper", Some(Uid::from_raw(owner)), Some(rustix::fs::Gid::from_raw(owner)), rustix::fs::AtFlags::empty())
            .wall(|| "chown(upper)".into())?;
        Ok(Self { tree })
    }

    /// What was written, as a read-only layer for another sandbox with the same id range.
    ///
    /// # Errors
    /// Of opening it.
    pub fn as_layer(&self) -> Result<OwnedFd> {
        self.open("upper")
    }

    fn open(&self, name: &str) -> Result<OwnedFd> {
        openat(&self.tree, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).wall(|| format!("open({name})"))
    }
}

/// A detached, read-only, nosuid, nodev clone of `layer` whose ids are those of `lease`.
///
/// # Errors
/// EINVAL where the file system cannot be idmapped: squashfs can since Linux 6.2, ext4 and erofs since 5.19.
pub fn clone_tree(layer: BorrowedFd<'_>, lease: &Lease) -> Result<OwnedFd> {
    let tree = open_clone(layer)?;
    let attr = MountAttr {
        set: sys::RDONLY | sys::NOSUID | sys::NODEV | sys::IDMAP,
        userns_fd: lease.userns().as_raw_fd() as u64,
        ..MountAttr::default()
    };
    sys::mount_setattr(tree.as_fd(), c"", false, &attr).wall(|| "mount_setattr(layer, IDMAP): squashfs needs Linux 6.2".into())?;
    Ok(tree)
}

fn open_clone(tree: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(tree, "", flags).wall(|| "open_tree(layer, OPEN_TREE_CLONE)".into())
}

/// The root as one detached mount, and its writable layer. `layers`: the topmost first.
///
/// # Errors
/// Of mounting.
pub fn assemble(layers: &[OwnedFd], upper: &Upper, lease: &Lease) -> Result<(OwnedFd, Option<WritableLayer>)> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).wall(|| "fsopen(overlay)".into())?;
    let what = |key: &str| format!("fsconfig(overlay, {key})");
    fsconfig_set_string(&fs, "source", "dyno").wall(|| what("source"))?;
    for layer in layers {
        set_layer(&fs, "lowerdir+", layer.as_fd()).wall(|| what("lowerdir+"))?;
    }
    let writable = match upper {
        Upper::ReadOnly if layers.len() == 1 => return Ok((open_clone(layers[0].as_fd())?, None)),
        Upper::ReadOnly => None,
        Upper::Tmpfs { bytes, inodes } => {
            let layer = WritableLayer::new(*bytes, *inodes, lease)?;
            set_layer(&fs, "upperdir", layer.open("upper")?.as_fd()).wall(|| what("upperdir"))?;
            set_layer(&fs, "workdir", layer.open("work")?.as_fd()).wall(|| what("workdir"))?;
            Some(layer)
        }
    };
    fsconfig_create(&fs).wall(|| "fsconfig(overlay, create)".into())?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if writable.is_none() {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let root = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).wall(|| "fsmount(overlay)".into())?;
    Ok((root, writable))
}

/// Layers go in by descriptor (Linux 6.13).
fn set_layer(fs: &OwnedFd, key: &str, layer: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
    fsconfig_set_fd(fs, key, layer)
}

/// A detached clone of a volume's source, with shifted ids where its file system can.
///
/// # Errors
/// [`ErrorKind::Invalid`] when the source does not exist; a writable source that cannot be idmapped.
pub fn volume(volume: &Volume, lease: &Lease) -> Result<OwnedFd> {
    let what = |call: &str| format!("volume {}: {call}", volume.source.display());
    let source = open_path(&volume.source).context(ErrorKind::Invalid, || what("open"))?;
    let tree = open_clone(source.as_fd())?;
    let read_only = if volume.writable { 0 } else { sys::RDONLY };
    let mut attr = MountAttr {
        set: sys::NOSUID | sys::NODEV | sys::IDMAP | read_only,
        userns_fd: lease.userns().as_raw_fd() as u64,
        ..MountAttr::default()
    };
    match sys::mount_setattr(tree.as_fd(), c"", false, &attr) {
        Err(Errno::INVAL) if !volume.writable => {
            // A file system without idmapped mounts: its files show as nobody's, which does for reading.
            attr = MountAttr { set: sys::NOSUID | sys::NODEV | sys::RDONLY, ..MountAttr::default() };
            sys::mount_setattr(tree.as_fd(), c"", false, &attr).wall(|| what("mount_setattr"))?;
        }
        other => other.wall(|| what("mount_setattr(IDMAP)"))?,
    }
    Ok(tree)
}

fn open_path(path: &Path) -> std::result::Result<OwnedFd, Errno> {
    open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}
