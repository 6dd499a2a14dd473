//! The parent's half of a root: layers, writable layer and mounts, all detached, ready for the child to attach.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use super::{
    StartOptions,
    child::ChildMount,
    stdio::{self, Prepared},
};
use crate::{
    dyno::Dyno,
    error::{Context, Error, ErrorKind, Result},
    host::Host,
    mount::{self, LayerTree, Lease, Root, WritableLayer},
    net::resolver,
    plan::{Mount, Plan, c_string},
    spec::{Layer, Upper},
};

/// What a sandbox is furnished with.
pub(super) struct Furnished {
    pub root: OwnedFd,
    /// The writable layer, where it can be looked at from outside.
    pub upper: Option<WritableLayer>,
    /// See [`mount::Root`].
    pub layers: Vec<LayerTree>,
    /// Name servers of a link.
    pub servers: Vec<std::net::Ipv4Addr>,
    pub streams: Prepared,
    pub mounts: Vec<ChildMount>,
}

impl Host {
    /// Root, streams and mounts. Takes the streams out of `options`.
    pub(super) fn furnished(&self, plan: &Plan, lease: &mut Lease, options: &mut StartOptions<'_>, dir: &Path) -> Result<Furnished> {
        let stdio = std::mem::take(&mut options.stdio);
        if self.rootless().is_some() {
            return super::unprivileged::furnished(plan, lease, stdio, dir);
        }
        let Root { tree: root, writable: upper, layers } = self.root(plan, lease, options, dir)?;
        if !options.keep_upper && upper.as_ref().is_some_and(WritableLayer::is_attached) {
            mount::detach(dir)?;
        }
        let servers = crate::net::egress::prepare(&plan.network, root.as_fd(), plan.upper != Upper::ReadOnly, lease, dir)?;
        let mut streams = stdio::prepare(stdio, dir, lease, plan.identity.uid)?.watched(&plan.limits)?;
        let dev = lease.take_dev();
        let mounts = mounts(plan, lease, dev, streams.pts.take(), dir)?;
        Ok(Furnished { root, upper, layers, servers, streams, mounts })
    }

    fn root(&self, plan: &Plan, lease: &Lease, options: &StartOptions<'_>, scratch: &Path) -> Result<Root> {
        let mut layers = Vec::with_capacity(plan.layers.len());
        for layer in &plan.layers {
            layers.push(match layer {
                Layer::Image { path, sha256 } => mount::clone_tree(self.images().get(path, sha256, options.image_maker)?.as_fd(), lease)?,
                Layer::Directory(path) => mount::clone_tree(open_dir(path)?.as_fd(), lease)?,
                Layer::UpperOf(id) => {
                    let kept = options.after.filter(|d| d.id() == id).and_then(Dyno::upper);
                    let missing =
                        || Error::refused(ErrorKind::Invalid, format!("layer upper_of {id:?}: no such ended dyno, or its layer was not kept"));
                    LayerTree { tree: kept.ok_or_else(missing)?.as_layer()?, shifted: true }
                }
            });
        }
        mount::assemble(layers, &plan.upper, self.disks(), lease, scratch)
    }
}

fn mounts(plan: &Plan, lease: &Lease, mut dev: Option<OwnedFd>, mut pts: Option<OwnedFd>, dir: &Path) -> Result<Vec<ChildMount>> {
    let mut mounts = Vec::with_capacity(plan.mounts.len());
    let tree = |tree: OwnedFd, target: &str| ChildMount::Tree { tree, target: c_string(target) };
    for mount in &plan.mounts {
        mounts.push(match mount {
            Mount::Dev { devices } => {
                let ready = if devices.is_empty() { dev.take() } else { None };
                ChildMount::Dev(ready.map_or_else(|| mount::new_dev(devices), Ok)?)
            }
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

fn open_dir(path: &Path) -> Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).context(ErrorKind::Image, || format!("layer directory {}: open", path.display()))
}
