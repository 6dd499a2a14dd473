//! What is different when an unprivileged user starts a sandbox: its ids, and who makes its mounts.

use std::{os::fd::AsFd, path::Path};

use super::{Stdio, assemble::Furnished, child::ChildMount, debris::Debris, stdio};
use crate::{
    dyno::Dyno,
    error::{Error, ErrorKind, Result},
    host::Host,
    mount::{Lease, WritableLayer},
    plan::{Mount, Plan, c_string},
    rootless::{self, Raised, Rootless},
    spec::Network,
};

impl Host {
    /// A slice of the user's range where there are enough of them for each sandbox to have its own. A joined sandbox lives in the user
    /// namespace of the other, which owns the network.
    pub(super) fn rootless_lease(&self, rootless: &Rootless, debris: &mut Debris<'_>, plan: &Plan, former: Option<&Dyno>) -> Result<Lease> {
        if let Network::Joined(id) = &plan.network {
            let (record, netns) = self.joined_dyno(id)?;
            return rootless.share(record.slot, netns.as_fd());
        }
        match former {
            Some(former) => rootless.map(former.record().slot, plan),
            None if !rootless.has_slices() => rootless.map(0, plan),
            None => {
                let slot = self.leases().reserve(&debris.id)?;
                Ok(debris.lease(rootless.map(slot, plan).inspect_err(|_| self.leases().free(slot))?))
            }
        }
    }
}

/// Streams first: a terminal comes with the devpts that is mounted inside.
pub(super) fn furnished(plan: &Plan, lease: &Lease, stdio: Stdio, dir: &Path) -> Result<Furnished> {
    let mut streams = stdio::prepare(stdio, dir, lease, plan.identity.uid)?.watched(&plan.limits)?;
    let raised = rootless::raise(plan, lease, dir, streams.pts.is_some())?;
    let Raised { root, upper, mut dev, mut pts, mut shm, volumes } = raised;
    pts = streams.pts.take().or(pts);
    let mut volumes = volumes.into_iter();
    let mut mounts = Vec::with_capacity(plan.mounts.len());
    for mount in &plan.mounts {
        let (tree, target) = match mount {
            Mount::Dev { .. } => {
                let tree = dev.take().ok_or_else(|| Error::refused(ErrorKind::Wall, "nothing was made to be mounted at /dev"))?;
                mounts.push(ChildMount::Dev(tree));
                continue;
            }
            Mount::Pts { .. } => (pts.take(), "/dev/pts".into()),
            Mount::Shm { .. } => (shm.take(), "/dev/shm".into()),
            Mount::Volume(volume) => (volumes.next(), volume.target().to_string_lossy()),
            // Those of a link, which is root's to make.
            Mount::NameServers => continue,
            Mount::Proc => {
                mounts.push(ChildMount::Proc);
                continue;
            }
            Mount::Masked(path) => {
                mounts.push(ChildMount::Masked(c_string(path)));
                continue;
            }
            Mount::ReadOnly(path) => {
                mounts.push(ChildMount::ReadOnly(c_string(path)));
                continue;
            }
        };
        let tree = tree.ok_or_else(|| Error::refused(ErrorKind::Wall, format!("nothing was made to be mounted at {target}")))?;
        mounts.push(ChildMount::Tree { tree, target: c_string(&target) });
    }
    Ok(Furnished { root, upper: upper.map(WritableLayer::seen), layers: Vec::new(), servers: Vec::new(), streams, mounts })
}
