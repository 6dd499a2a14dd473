//! The parent's half of a root: layers, writable layer and mounts, all detached, ready for the child to attach.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use super::{StartOptions, child::ChildMount};
use crate::{
    dyno::Dyno,
    error::{Context, Error, ErrorKind, Result},
    host::Host,
    mount::{self, Lease, WritableLayer},
    net::resolver,
    plan::{Mount, Plan, c_string},
    spec::Layer,
    sys::{self, MountAttr},
};

impl Host {
    pub(super) fn root(&self, plan: &Plan, lease: &Lease, options: &StartOptions<'_>, scratch: &Path) -> Result<(OwnedFd, Option<WritableLayer>)> {
        let mut layers = Vec::with_capacity(plan.layers.len());
        for layer in &plan.layers {
            layers.push(match layer {
                Layer::Image { path, sha256 } => mount::clone_tree(self.images().get(path, sha256, options.image_maker)?.as_fd(), lease)?,
                Layer::Directory(path) => mount::clone_tree(open_dir(path)?.as_fd(), lease)?,
                Layer::UpperOf(id) => {
                    let kept = options.after.filter(|d| d.id() == id).and_then(Dyno::upper);
                    let missing = || Error::refused(ErrorKind::Invalid, format!("layer upper_of {id:?}: no such ended dyno, or its layer was not kept"));
                    mount::LayerTree { tree: kept.ok_or_else(missing)?.as_layer()?, shifted: true }
                }
            });
        }
        mount::assemble(layers, &plan.upper, self.disks(), lease, scratch)
    }

    pub(super) fn mounts(&self, plan: &Plan, lease: &Lease, mut pts: Option<OwnedFd>, dir: &Path) -> Result<Vec<ChildMount>> {
        let mut mounts = Vec::with_capacity(plan.mounts.len());
        let tree = |tree: OwnedFd, target: &str| ChildMount::Tree { tree, target: c_string(target) };
        for mount in &plan.mounts {
            mounts.push(match mount {
                Mount::Dev { devices } if devices.is_empty() => tree(self.dev()?, "/dev"),
                Mount::Dev { devices } => tree(mount::dev_with(devices)?, "/dev"),
                Mount::Pts { max } => tree(pts.take().map_or_else(|| mount::new_pts(lease, *max), Ok)?, "/dev/pts"),
                Mount::Shm { bytes } => tree(mount::new_shm(*bytes)?, "/dev/shm"),
                Mount::Proc => ChildMount::Proc,
                Mount::Masked(path) => ChildMount::Masked(c_string(path)),
                Mount::ReadOnly(path) => ChildMount::ReadOnly(c_string(path)),
                Mount::NameServers => tree(mount::read_only_file(&resolver::file(dir), lease)?, resolver::TARGET),
                Mount::Volume(volume) => tree(mount::volume(volume, lease)?, &volume.target().to_string_lossy()),
            });
        }
        Ok(mounts)
    }

    /// A read-only clone of this host's /dev.
    fn dev(&self) -> Result<OwnedFd> {
        use rustix::mount::{OpenTreeFlags, open_tree};
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(rustix::fs::CWD, self.dev_point(), flags).wall(|| "open_tree(dev, OPEN_TREE_CLONE)".into())?;
        let attr = MountAttr { set: sys::RDONLY | sys::NOSUID | sys::NOEXEC, ..MountAttr::default() };
        sys::mount_setattr(tree.as_fd(), c"", false, &attr).wall(|| "mount_setattr(dev, RDONLY)".into())?;
        Ok(tree)
    }
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).context(ErrorKind::Image, || format!("layer directory {}: open", path.display()))
}
