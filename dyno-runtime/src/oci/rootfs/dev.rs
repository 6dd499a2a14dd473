//! `/dev`: device files with their exact mode and owner, and the links that every program expects.
//!
//! A tmpfs at `/dev` is furnished by the runtime before anything inside can see it; its files can be devices even where the container has a
//! user namespace, whose own file systems cannot hold any, and belong to whom the configuration says. Where that cannot be (no tmpfs at
//! `/dev`, no privilege), the child makes the files in the directory that is there, or binds the host's over empty files.

use std::{
    ffi::OsStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, makedev, mknodat, openat, symlinkat, unlinkat},
    io::Errno,
};

use super::{
    super::plan::{Container, Device, Mount, Namespace, Source},
    attach, data,
    fs::FileSystem,
    ids::outside,
    name,
    place::{self, Identity, Want},
    tree,
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys,
};

/// Name and target; `core` only where there is one.
const LINKS: [(&str, &str); 5] =
    [("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2"), ("core", "/proc/kcore")];

const DEV: &str = "/dev";

/// Whether this mount is a `/dev` that the runtime can furnish.
pub(super) fn is_own(mount: &Mount, container: &Container) -> bool {
    let tmpfs = matches!(&mount.source, Source::FileSystem { kind, .. } if kind == "tmpfs");
    // Options with ids would mean the host's.
    let ids = || mount.data.iter().any(|(key, _)| matches!(key.as_str(), "uid" | "gid"));
    let known = match container.namespaces.user {
        Namespace::Host => true,
        Namespace::New => !ids(),
        Namespace::Join(_) => false,
    };
    tmpfs && known && !mount.copy_up && mount.destination == Path::new(DEV)
}

/// A `/dev` with all that is to be in it, detached; None where this process may not make one.
pub(super) fn furnish(mount: &Mount, container: &Container) -> Result<Option<OwnedFd>> {
    let umask = rustix::process::umask(Mode::empty());
    let made = fill(mount, container);
    rustix::process::umask(umask);
    match made {
        Err(e) if e.errno() == Some(Errno::PERM) => Ok(None),
        other => other.map(Some),
    }
}

fn fill(mount: &Mount, container: &Container) -> Result<OwnedFd> {
    let (what, attributes) = (name(mount), (mount.set | mount.set_recursive) & !sys::RDONLY);
    let data = data(mount, "tmpfs", Some(0o755), container);
    let source = if let Source::FileSystem { source, .. } = &mount.source { source.as_str() } else { "tmpfs" };
    let dev = FileSystem { kind: "tmpfs", source, data, attributes }.make(&what)?;
    let owners = Owners::of(container);
    owners.give(dev.as_fd(), OsStr::new(""), 0, 0).wall(|| format!("{what}: chown"))?;
    for (device, path) in container.devices.iter().filter_map(|d| Some((d, inside(d)?))) {
        let what = || format!("device {}", device.path.display());
        if let Some(directory) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            make_directories(dev.as_fd(), directory, &owners).wall(|| format!("{}: mkdir", what()))?;
        }
        make(dev.as_fd(), path.as_os_str(), device).wall(|| format!("{}: mknod", what()))?;
        owners.give(dev.as_fd(), path.as_os_str(), device.uid, device.gid).wall(|| format!("{}: chown", what()))?;
    }
    let console = container.process.as_ref().is_some_and(|p| p.terminal);
    links(dev.as_fd(), console, |name| owners.give(dev.as_fd(), OsStr::new(name), 0, 0))?;
    Ok(dev)
}

/// Whether a device needs nothing but a `/dev` of ours.
pub(super) fn is_inside(device: &Device) -> bool {
    inside(device).is_some() || device.path == Path::new("/dev/ptmx")
}

/// The path of a device below `/dev`; `ptmx` is a link always.
fn inside(device: &Device) -> Option<&Path> {
    device.path.strip_prefix(DEV).ok().filter(|p| !p.as_os_str().is_empty() && *p != Path::new("ptmx"))
}

/// Nobody else has this file system yet, so paths below it are safe.
fn make_directories(dev: BorrowedFd<'_>, directory: &Path, owners: &Owners<'_>) -> std::result::Result<(), Errno> {
    let mut path = PathBuf::new();
    for name in directory {
        path.push(name);
        match rustix::fs::mkdirat(dev, &path, Mode::from_raw_mode(0o755)) {
            Ok(()) => owners.give(dev, path.as_os_str(), 0, 0)?,
            Err(Errno::EXIST) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Ids inside, as the host has them.
struct Owners<'a> {
    container: Option<&'a Container>,
}

impl<'a> Owners<'a> {
    fn of(container: &'a Container) -> Self {
        Self { container: (container.namespaces.user == Namespace::New).then_some(container) }
    }

    /// Gives a file of ours to whom it belongs inside. Ids that are not mapped stay root's of the host.
    fn give(&self, dir: BorrowedFd<'_>, name: &OsStr, uid: u32, gid: u32) -> std::result::Result<(), Errno> {
        let of = |map: Option<&Vec<_>>, id: u32| map.map_or(Some(id), |map| outside(map, id)).unwrap_or(0);
        let (uid, gid) = (of(self.container.map(|c| &c.uid_map), uid), of(self.container.map(|c| &c.gid_map), gid));
        if (uid, gid) == (0, 0) {
            return Ok(());
        }
        chownat(dir, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH)
    }
}

fn make(dir: BorrowedFd<'_>, name: &OsStr, device: &Device) -> std::result::Result<(), Errno> {
    mknodat(dir, name, FileType::from_raw_mode(device.kind), Mode::from_raw_mode(device.mode & 0o7777), makedev(device.major, device.minor))
}

/// The links of `/dev`, and the file that a terminal is mounted on: there, so that a read-only `/dev` need not be written for it.
fn links(dev: BorrowedFd<'_>, console: bool, own: impl Fn(&str) -> std::result::Result<(), Errno>) -> Result<()> {
    let what = |name: &str| format!("/dev/{name}");
    for (name, target) in LINKS {
        if name == "core" && !Path::new(target).exists() {
            continue;
        }
        match symlinkat(target, dev, name) {
            Ok(()) => own(name).wall(|| format!("chown({})", what(name)))?,
            Err(Errno::EXIST) => {}
            Err(e) => return Err(e).wall(|| format!("symlink({target}, {})", what(name))),
        }
    }
    match unlinkat(dev, "ptmx", AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(e).wall(|| "unlink(/dev/ptmx)".into()),
    }
    symlinkat("pts/ptmx", dev, "ptmx").and_then(|()| own("ptmx")).wall(|| "symlink(pts/ptmx, /dev/ptmx)".into())?;
    if console {
        match empty_file(dev, OsStr::new("console"), 0o620) {
            Ok(_) => own("console").wall(|| "chown(/dev/console)".into())?,
            // Whatever it is, `console` looks before it mounts.
            Err(Errno::EXIST) => {}
            Err(e) => return Err(e).wall(|| "open(/dev/console, O_CREAT)".into()),
        }
    }
    Ok(())
}

fn empty_file(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::from_raw_mode(mode))
}

/// In the child: what [`furnish`] has not made. A `/dev` that is bound from elsewhere is left as it is.
pub(super) fn complete(root: BorrowedFd<'_>, container: &Container, furnished: bool) -> Result<()> {
    let bound = |m: &Mount| matches!(m.source, Source::Bind { .. }) && m.destination == Path::new(DEV);
    if container.mounts.iter().any(bound) {
        return Ok(());
    }
    for device in container.devices.iter().filter(|d| d.path != Path::new("/dev/ptmx") && !(furnished && inside(d).is_some())) {
        one(root, device, container)?;
    }
    if furnished {
        return Ok(());
    }
    let dev = place::ensure(root, Path::new(DEV), Want::Directory).wall(|| "mkdir(/dev)".into())?.fd;
    links(dev.as_fd(), container.process.as_ref().is_some_and(|p| p.terminal), |_| Ok(()))
}

fn one(root: BorrowedFd<'_>, device: &Device, container: &Container) -> Result<()> {
    let what = |call: &str| format!("device {}: {call}", device.path.display());
    let (parent, name) = place::parent(root, &device.path).wall(|| what("make its directory"))?;
    let is_fifo = FileType::from_raw_mode(device.kind) == FileType::Fifo;
    if container.namespaces.user != Namespace::Host && !is_fifo {
        return bound(parent.as_fd(), name, device, &what);
    }
    match make(parent.as_fd(), name, device) {
        Ok(()) => {
            if (device.uid, device.gid) == (0, 0) {
                return Ok(());
            }
            // By descriptor: somebody may have put another file there meanwhile, which is not to be given away.
            let made = open_nofollow(parent.as_fd(), name).wall(|| what("open"))?;
            must_be(&made, device, &what)?;
            let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
            chownat(&made, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH).wall(|| what("chown"))
        }
        Err(Errno::EXIST) => {
            let there = open_nofollow(parent.as_fd(), name).wall(|| what("open"))?;
            // Mode and owner may be the host's, if it was bound from there.
            must_be(&there, device, &what)
        }
        Err(Errno::PERM) => bound(parent.as_fd(), name, device, &what),
        Err(e) => Err(e).wall(|| what("mknod")),
    }
}

fn open_nofollow(dir: BorrowedFd<'_>, name: &OsStr) -> std::result::Result<OwnedFd, Errno> {
    openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// The specification: whatever else exists at the path of a device is an error.
fn must_be(fd: &OwnedFd, device: &Device, what: &impl Fn(&str) -> String) -> Result<()> {
    if is(fd, device).wall(|| what("statx"))? {
        return Ok(());
    }
    Err(Error::refused(ErrorKind::Invalid, what("something else exists there")))
}

fn is(fd: &OwnedFd, device: &Device) -> std::result::Result<bool, Errno> {
    let kind = FileType::from_raw_mode(device.kind);
    Identity::of(fd.as_fd()).map(|i| i.kind() == kind && (kind == FileType::Fifo || i.device == (device.major, device.minor)))
}

/// The host's file of the same name over an empty one.
fn bound(parent: BorrowedFd<'_>, name: &OsStr, device: &Device, what: &impl Fn(&str) -> String) -> Result<()> {
    let place = match empty_file(parent, name, 0o666) {
        Err(Errno::EXIST) => open_nofollow(parent, name),
        other => other,
    }
    .wall(|| what("open(O_CREAT)"))?;
    if is(&place, device).wall(|| what("statx"))? {
        return Ok(());
    }
    if Identity::of(place.as_fd()).wall(|| what("statx"))?.kind() != FileType::RegularFile {
        return Err(Error::refused(ErrorKind::Invalid, what("something else exists there")));
    }
    let host = tree::open(&device.path, false).wall(|| what("open_tree of the host's"))?;
    must_be(&host, device, &|call| what(&format!("on the host: {call}")))?;
    attach(host.as_fd(), place.as_fd()).wall(|| what("move_mount"))
}

/// The null device, as a tree to put over files: that of a `/dev` of ours, which is attached by now, or the host's. It is looked at, because
/// it decides what is read there.
///
/// `entered`: the host's is out of reach, and what the container has in its place is nobody's to trust.
pub(super) fn null(dev: Option<&OwnedFd>, entered: bool) -> Result<OwnedFd> {
    let ours = dev.map(|dev| open_nofollow(dev.as_fd(), OsStr::new("null")).and_then(|null| tree::clone_of(null.as_fd(), false)));
    let tree = match ours {
        // A configuration may mount over it, or leave it out.
        Some(Ok(tree)) if is_null(&tree).wall(|| "statx(/dev/null)".into())? => tree,
        _ if entered => return Err(Error::refused(ErrorKind::Wall, "/dev/null of the container is not the null device")),
        _ => tree::open(Path::new("/dev/null"), false).wall(|| "open_tree(/dev/null)".into())?,
    };
    if !is_null(&tree).wall(|| "statx(/dev/null)".into())? {
        return Err(Error::refused(ErrorKind::Wall, "the host's /dev/null is not the null device"));
    }
    let private = sys::MountAttr { propagation: sys::PRIVATE, ..Default::default() };
    tree::change(tree.as_fd(), false, private, "null device")?;
    Ok(tree)
}

fn is_null(tree: &OwnedFd) -> std::result::Result<bool, Errno> {
    Identity::of(tree.as_fd()).map(|is| is.kind() == FileType::CharacterDevice && is.device == (1, 3))
}
