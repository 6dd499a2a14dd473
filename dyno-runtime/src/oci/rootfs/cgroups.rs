//! The container's control groups as it sees them: on a v2 host one tree, on v1 and hybrid hosts a tmpfs with a directory for each v1
//! hierarchy.
//!
//! With a cgroup namespace a hierarchy is mounted anew and begins at the container's own group; without one that group's directory is bound
//! (v1), or the whole tree mounted (v2), as runc does.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags, mkdirat, openat, statfs, symlinkat},
    io::Errno,
};

use super::{
    super::plan::{Mount, Namespace},
    Raising, attach,
    fs::FileSystem,
    place::Want,
    proc, tree,
};
use crate::{
    error::{Context, Result},
    sys::{self, MountAttr},
};

/// CGROUP2_SUPER_MAGIC.
const CGROUP2: i64 = 0x6367_7270;
/// Where every host has them.
const POINT: &str = "/sys/fs/cgroup";

/// Mounts them at the mount's destination.
pub(super) fn mount(raising: &mut Raising<'_>, mount: &Mount, what: &str) -> Result<()> {
    let (place, ..) = raising.place(mount, Want::Directory, what)?;
    proc::check(&mount.destination, place.as_fd(), what)?;
    let is_unified = raising.unified;
    let tree = if is_unified { unified(raising, mount, what)? } else { legacy(raising, what)? };
    tree::propagate(tree.as_fd(), &mount.propagation, what)?;
    attach(tree.as_fd(), place.as_fd()).wall(|| format!("{what}: move_mount"))?;
    if !is_unified {
        hierarchies(raising, mount, &tree, what)?;
        if mount.set & sys::RDONLY != 0 {
            tree::change(tree.as_fd(), false, MountAttr { set: sys::RDONLY, ..MountAttr::default() }, what)?;
        }
    }
    Ok(())
}

/// Whether the host has one tree for all controllers.
///
/// # Errors
/// Of statfs(2).
pub(super) fn is_unified(what: &str) -> Result<bool> {
    #[allow(clippy::unnecessary_cast)] // The type differs between platforms.
    statfs(POINT).map(|s| s.f_type as i64 == CGROUP2).wall(|| format!("{what}: statfs({POINT})"))
}

fn unified(raising: &Raising<'_>, mount: &Mount, what: &str) -> Result<OwnedFd> {
    let data = mount.data.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    let fs = FileSystem { kind: "cgroup2", source: "cgroup", data, attributes: mount.set | mount.set_recursive };
    match fs.make(what) {
        // A user namespace without a cgroup namespace of its own (EPERM); one that is mounted already, otherwise (EBUSY).
        Err(e) if matches!(e.errno(), Some(Errno::PERM | Errno::BUSY)) => {
            let own = raising.container.namespaces.cgroup != Namespace::Host;
            let path = raising.groups.groups.first().filter(|_| own).map_or(Path::new(POINT), |(path, _)| path);
            bind(path, mount.set | mount.set_recursive, what)
        }
        other => other,
    }
}

fn bind(path: &Path, attributes: u64, what: &str) -> Result<OwnedFd> {
    let tree = tree::open(path, false).wall(|| format!("{what}: open_tree({})", path.display()))?;
    tree::change(tree.as_fd(), false, MountAttr { set: attributes, propagation: sys::PRIVATE, ..MountAttr::default() }, what)?;
    Ok(tree)
}

/// The tmpfs that holds a directory for each hierarchy, and links from the names of controllers that share one.
fn legacy(raising: &Raising<'_>, what: &str) -> Result<OwnedFd> {
    let attributes = sys::NOSUID | sys::NODEV | sys::NOEXEC;
    let tree = FileSystem { kind: "tmpfs", source: "tmpfs", data: vec![("mode", Some("755".into()))], attributes }.make(what)?;
    for (_, controllers) in v1(raising) {
        let name = controllers.join(",");
        mkdirat(&tree, &name, Mode::from_raw_mode(0o755)).wall(|| format!("{what}: mkdir({name})"))?;
        for controller in controllers.iter().filter(|_| controllers.len() > 1) {
            symlinkat(&name, &tree, controller).wall(|| format!("{what}: symlink({name}, {controller})"))?;
        }
    }
    Ok(tree)
}

/// The v1 hierarchies of the container.
fn v1<'a>(raising: &'a Raising<'_>) -> impl Iterator<Item = (&'a Path, &'a [String])> {
    raising.groups.groups.iter().filter(|(_, controllers)| !controllers.is_empty()).map(|(path, names)| (path.as_path(), names.as_slice()))
}

/// Attached one by one to the tmpfs, which is attached itself: before Linux 6.15 nothing can be mounted below what is detached.
fn hierarchies(raising: &Raising<'_>, mount: &Mount, tmpfs: &OwnedFd, what: &str) -> Result<()> {
    let attributes = sys::NOSUID | sys::NODEV | sys::NOEXEC | mount.set | mount.set_recursive;
    for (path, controllers) in v1(raising) {
        let name = controllers.join(",");
        let tree = if raising.container.namespaces.cgroup == Namespace::Host {
            match bind(path, attributes, what) {
                // A hierarchy to which the user of the runtime has no rights: the container has no group of its own there.
                Err(e) if e.errno() == Some(Errno::NOENT) => continue,
                bound => bound?,
            }
        } else {
            let flags = |name: &'_ String| (name.clone(), None);
            let data: Vec<(String, Option<String>)> = match controllers {
                [one] if one == "systemd" => vec![("none".into(), None), ("name".into(), Some("systemd".into()))],
                many => many.iter().map(flags).collect(),
            };
            let data = data.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
            let source = if name == "systemd" { "systemd" } else { "cgroup" };
            FileSystem { kind: "cgroup", source, data, attributes }.make(what)?
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = openat(tmpfs, &name, flags, Mode::empty()).wall(|| format!("{what}: open({name})"))?;
        attach(tree.as_fd(), place.as_fd()).wall(|| format!("{what}: move_mount({name})"))?;
    }
    Ok(())
}
