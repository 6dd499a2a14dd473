//! A root that is attached and entered before anything is mounted in it, by a helper of the runtime's ([`crate::oci::ahead`]).
//!
//! What is mounted afterwards is mounted where nothing of the host's can be looked up any more. So this is only for containers of which all
//! that the host has to give is opened before: bind mounts, a `/dev` that holds every device, and file systems that have no source.

use std::{
    ffi::CStr,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount},
    process::{fchdir, pivot_root},
};

use super::{
    super::plan::{Container, Mount, Namespace, Source},
    Prepared, allowed, attach, dev, open_root,
};
use crate::error::{Context, Result};

/// File systems whose source and options name nothing of the host's.
const SOURCELESS: [&str; 5] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue"];

impl Prepared {
    /// The root for the helper, if the container is one that its root can be entered before; as far as it can be known by now.
    ///
    /// # Errors
    /// Of dup(2).
    pub fn root_ahead(&self, container: &Container) -> Result<Option<OwnedFd>> {
        let Some(root) = self.root.as_ref().filter(|_| may_be_entered(container)) else { return Ok(None) };
        root.try_clone().map(Some).io(|| "dup(root)".into())
    }

    /// Whether nothing has to be looked up on the host any more.
    pub fn is_complete(&self, container: &Container) -> bool {
        let is = |(mount, tree): (&Mount, &Option<OwnedFd>)| !matches!(mount.source, Source::Bind { .. }) || tree.is_some();
        let cgroups = || container.mounts.iter().any(|m| matches!(m.source, Source::Cgroup));
        self.furnished && container.mounts.iter().zip(&self.trees).all(is) && !(self.unified && cgroups())
    }

    /// Clones the root once more, because the first clone was given away.
    ///
    /// # Errors
    /// Of the calls.
    pub fn root_again(&mut self, container: &Container) -> Result<()> {
        self.root = allowed(open_root(container))?;
        Ok(())
    }
}

fn may_be_entered(container: &Container) -> bool {
    let (names, hooks) = (&container.namespaces, &container.hooks);
    let labelled = container.process.as_ref().is_some_and(|p| p.apparmor.is_some() || p.selinux.is_some());
    // The host's interfaces, clocks and procfs are not looked for in there; hooks are promised the host's mounts.
    let early = [&hooks.prestart, &hooks.create_runtime, &hooks.create_container].iter().any(|list| !list.is_empty());
    let bound = names.cgroup == Namespace::Host && container.mounts.iter().any(|mount| matches!(mount.source, Source::Cgroup));
    let plain = names.mount == Namespace::New && !bound && !labelled && !early && container.net_devices.is_empty();
    plain && container.intel_rdt.is_none() && container.mounts.iter().all(is_plain) && has_own_dev(container)
}

fn is_plain(mount: &Mount) -> bool {
    match &mount.source {
        Source::Bind { .. } | Source::Cgroup => true,
        Source::FileSystem { kind, .. } => SOURCELESS.contains(&kind.as_str()),
    }
}

/// Whether every device will be in a `/dev` that the runtime furnishes, the null device among them and not covered.
fn has_own_dev(container: &Container) -> bool {
    let null = Path::new("/dev/null");
    container.mounts.iter().any(|mount| dev::is_own(mount, container))
        && container.devices.iter().all(dev::is_inside)
        && container.devices.iter().any(|d| d.path == null && (d.major, d.minor) == (1, 3))
        && !container.mounts.iter().any(|mount| mount.destination == null)
}

/// The helper's first half, in a mount namespace of its own: nothing that is mounted here is seen outside, and the root is attached where the
/// host has it. Child-safe.
///
/// # Errors
/// Of mount(2), openat(2), move_mount(2).
pub fn attach_ahead(root: &OwnedFd, path: &CStr) -> std::result::Result<(), Errno> {
    mount_change(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    let point = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    attach(root.as_fd(), point.as_fd())
}

/// The second half: into the root, and the host's mounts off ([`super::Root::enter`] says why so). Child-safe.
///
/// # Errors
/// Of fchdir(2), pivot_root(2), umount2(2).
pub fn pivot_ahead(root: &OwnedFd) -> std::result::Result<(), Errno> {
    fchdir(root)?;
    pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)
}
