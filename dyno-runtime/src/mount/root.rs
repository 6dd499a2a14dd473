//! The root of one sandbox: layers with shifted ids under a capped, private writable layer. Built detached.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, Uid, chmodat, chownat, mkdirat, open, openat},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_string, fsmount, fsopen, open_tree,
    },
};

use super::{Disks, Lease, by_path, dev::new_tmpfs};
use crate::{
    broken::{self, Part},
    error::{Context, Error, ErrorKind, Result},
    spec::{Upper, Volume},
    sys::{self, MountAttr},
};

/// A file system with the two directories that overlayfs wants. It lives as long as a descriptor or a mount uses it.
#[derive(Debug)]
pub struct WritableLayer {
    tree: OwnedFd,
    /// Where it is attached, on kernels whose overlayfs wants paths.
    attached: Option<PathBuf>,
}

impl WritableLayer {
    /// A fresh one in memory.
    fn in_memory(bytes: u64, inodes: u64) -> Result<OwnedFd> {
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        new_tmpfs(&[("size", &bytes.to_string()), ("nr_inodes", &inodes.to_string()), ("mode", "700")], attributes)
    }

    /// Furnishes a fresh file system that is the host's root's; what is inside belongs to the sandbox's root id.
    fn furnish(tree: OwnedFd, lease: &Lease) -> Result<Self> {
        for name in ["upper", "work"] {
            mkdirat(&tree, name, Mode::from_raw_mode(0o755)).wall(|| format!("mkdir({name})"))?;
            // Whatever the umask: the mode of `upper` is that of the sandbox's root.
            chmodat(&tree, name, Mode::from_raw_mode(0o755), AtFlags::empty()).wall(|| format!("chmod({name})"))?;
        }
        let owner = lease.host_id(0);
        chownat(&tree, "upper", Some(Uid::from_raw(owner)), Some(rustix::fs::Gid::from_raw(owner)), AtFlags::empty())
            .wall(|| "chown(upper)".into())?;
        Ok(Self { tree, attached: None })
    }

    /// One that was made elsewhere, to look at.
    pub fn seen(tree: OwnedFd) -> Self {
        Self { tree, attached: None }
    }

    /// What was written, as a read-only layer for another sandbox with the same id range.
    ///
    /// # Errors
    /// Of opening it.
    pub fn as_layer(&self) -> Result<OwnedFd> {
        match &self.attached {
            None => self.open("upper"),
            Some(point) => by_path::clone_at(&point.join("upper")),
        }
    }

    /// True when hardly a block or an inode is left: a 256th, because ext4 keeps some for itself.
    pub fn is_full(&self) -> bool {
        let hardly = |left: u64, all: u64| left <= all / 256;
        rustix::fs::fstatfs(&self.tree).is_ok_and(|stat| hardly(stat.f_bavail, stat.f_blocks) || hardly(stat.f_ffree, stat.f_files))
    }

    pub(super) fn tree(&self) -> BorrowedFd<'_> {
        self.tree.as_fd()
    }

    /// Whether it is attached somewhere, which only older kernels need.
    pub fn is_attached(&self) -> bool {
        self.attached.is_some()
    }

    pub(super) fn attach_at(&mut self, point: PathBuf) {
        self.attached = Some(point);
    }

    fn open(&self, name: &str) -> Result<OwnedFd> {
        openat(&self.tree, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .wall(|| format!("open({name})"))
    }
}

/// One read-only layer, detached.
#[derive(Debug)]
pub struct LayerTree {
    /// The mount, or (by descriptor only) a directory of another sandbox's writable layer.
    pub tree: OwnedFd,
    /// Whether its files show with the ids of the lease.
    pub shifted: bool,
}

/// A detached, read-only, nosuid, nodev clone of `layer` whose ids are those of `lease`, where its file system can be
/// idmapped: squashfs since Linux 6.2, tmpfs since 6.3, ext4 and erofs since 5.19.
///
/// # Errors
/// Of open_tree(2) and mount_setattr(2).
pub fn clone_tree(layer: BorrowedFd<'_>, lease: &Lease) -> Result<LayerTree> {
    let tree = open_clone(layer)?;
    // Under systemd every mount of the host is shared. A clone of it would be too: pivot_root(2) refuses such a root, and what
    // the sandbox mounts below would appear on the host.
    let read_only = if broken::is(Part::ReadOnlyRoot) { 0 } else { sys::RDONLY };
    let plain = MountAttr { set: read_only | sys::NOSUID | sys::NODEV, propagation: sys::PRIVATE, ..MountAttr::default() };
    let mapped = MountAttr { set: plain.set | sys::IDMAP, userns_fd: lease.userns().as_raw_fd() as u64, ..plain };
    match sys::mount_setattr(tree.as_fd(), c"", false, &mapped) {
        Ok(()) => Ok(LayerTree { tree, shifted: true }),
        Err(Errno::INVAL) => {
            sys::mount_setattr(tree.as_fd(), c"", false, &plain).wall(|| "mount_setattr(layer)".into())?;
            Ok(LayerTree { tree, shifted: false })
        }
        Err(e) => Err(e).wall(|| "mount_setattr(layer, IDMAP)".into()),
    }
}

fn open_clone(tree: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(tree, "", flags).wall(|| "open_tree(layer, OPEN_TREE_CLONE)".into())
}

/// The root of a sandbox.
pub struct Root {
    /// As one detached mount.
    pub tree: OwnedFd,
    /// Where there is one.
    pub writable: Option<WritableLayer>,
    /// What the overlay has clones of. To close a detached mount waits for a grace period, as long as any other processor is at work in the kernel: not
    /// to be done while somebody waits.
    pub layers: Vec<LayerTree>,
}

/// `layers`: the topmost first. `scratch` is a directory of this sandbox alone; kernels before 6.15 need places to attach layers while the overlay
/// is made.
///
/// # Errors
/// Of mounting.
pub fn assemble(mut layers: Vec<LayerTree>, upper: &Upper, disks: &Disks, lease: &Lease, scratch: &Path) -> Result<Root> {
    let fresh = match upper {
        Upper::ReadOnly => None,
        Upper::Tmpfs { bytes, inodes } => Some(WritableLayer::in_memory(*bytes, *inodes)?),
        Upper::Disk { directory, bytes, inodes } => Some(disks.mount(directory, *bytes, *inodes)?),
    };
    let mut writable = fresh.map(|tree| WritableLayer::furnish(tree, lease)).transpose()?;
    if writable.is_none() && layers.len() == 1 {
        let only = layers.pop().ok_or_else(|| Error::refused(ErrorKind::Invalid, "no layer"))?;
        return Ok(Root { tree: only.tree, writable, layers });
    }
    let tree = match by_descriptor(&layers, writable.as_ref()) {
        Err(e) if matches!(e.errno(), Some(Errno::INVAL | Errno::BADF | Errno::OPNOTSUPP)) => by_path::overlay(&layers, writable.as_mut(), scratch)?,
        other => other?,
    };
    if writable.is_some() {
        super::ownership::shift(tree.as_fd(), &layers, lease)?;
    }
    Ok(Root { tree, writable, layers })
}

/// Layers go in by descriptor (Linux 6.13), and need not be attached anywhere (6.15). Kernels that cannot say so in three ways:
/// EINVAL (6.13 and 6.14: not attached), EBADF (6.5 to 6.12: fsconfig takes no `O_PATH` descriptor), EOPNOTSUPP (before: overlayfs
/// is not yet part of the new mount API, and takes strings only).
fn by_descriptor(layers: &[LayerTree], writable: Option<&WritableLayer>) -> Result<OwnedFd> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).wall(|| "fsopen(overlay)".into())?;
    let what = |key: &str| format!("fsconfig(overlay, {key})");
    fsconfig_set_string(&fs, "source", "dyno").wall(|| what("source"))?;
    for layer in layers {
        fsconfig_set_fd(&fs, "lowerdir+", &layer.tree).wall(|| what("lowerdir+"))?;
    }
    if let Some(layer) = writable {
        fsconfig_set_fd(&fs, "upperdir", &layer.open("upper")?).wall(|| what("upperdir"))?;
        fsconfig_set_fd(&fs, "workdir", &layer.open("work")?).wall(|| what("workdir"))?;
    }
    mount(&fs, writable.is_some())
}

/// Creates the overlay that `fs` describes, detached.
pub(super) fn mount(fs: &OwnedFd, writable: bool) -> Result<OwnedFd> {
    fsconfig_create(fs).wall(|| "fsconfig(overlay, create)".into())?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOSUID, !broken::is(Part::NoSuid));
    attributes.set(MountAttrFlags::MOUNT_ATTR_NODEV, !broken::is(Part::NoDev));
    if !writable {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).wall(|| "fsmount(overlay)".into())
}

/// A detached clone of a volume's source, with shifted ids where its file system can.
///
/// # Errors
/// [`ErrorKind::Invalid`] when the source does not exist; a writable source that cannot be idmapped.
pub fn volume(volume: &Volume, lease: &Lease) -> Result<OwnedFd> {
    match volume {
        Volume::Bind { source, writable, .. } => bind(source, *writable, lease),
        Volume::Tmpfs { bytes, inodes, .. } => {
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
            new_tmpfs(&[("size", &bytes.to_string()), ("nr_inodes", &inodes.to_string()), ("mode", "1777")], attributes)
        }
    }
}

/// A detached, read-only clone of a file of the host.
///
/// # Errors
/// Of mounting.
pub fn read_only_file(path: &Path, lease: &Lease) -> Result<OwnedFd> {
    bind(path, false, lease)
}

fn bind(path: &Path, writable: bool, lease: &Lease) -> Result<OwnedFd> {
    let what = |call: &str| format!("volume {}: {call}", path.display());
    let source = open_path(path).context(ErrorKind::Invalid, || what("open"))?;
    let tree = open_clone(source.as_fd())?;
    let read_only = if writable { 0 } else { sys::RDONLY };
    let mut attr = MountAttr {
        set: sys::NOSUID | sys::NODEV | sys::IDMAP | read_only,
        propagation: sys::PRIVATE,
        userns_fd: lease.userns().as_raw_fd() as u64,
        ..MountAttr::default()
    };
    match sys::mount_setattr(tree.as_fd(), c"", false, &attr) {
        Err(Errno::INVAL) if !writable => {
            // A file system without idmapped mounts: its files show as nobody's, which does for reading.
            attr = MountAttr { set: sys::NOSUID | sys::NODEV | sys::RDONLY, userns_fd: 0, ..attr };
            sys::mount_setattr(tree.as_fd(), c"", false, &attr).wall(|| what("mount_setattr"))?;
        }
        other => other.wall(|| what("mount_setattr(IDMAP)"))?,
    }
    Ok(tree)
}

fn open_path(path: &Path) -> std::result::Result<OwnedFd, Errno> {
    open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}
