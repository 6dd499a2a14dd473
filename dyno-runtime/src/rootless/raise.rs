//! The parent's half of a rootless sandbox's mounts: everything that allocates or can fail on input, and the words for what failed.

use std::{
    ffi::{CStr, CString},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
};

use super::{
    builder::{Builder, Dev, Made, Options, Root, Step, Volume},
    ids::forbidden,
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    mount::{LINKS, Lease, NODES},
    plan::{Mount, Plan, c_string},
    spec::{self, Layer, Upper},
    sys,
};

/// A rootless sandbox's root and mounts, detached.
pub(crate) struct Raised {
    /// The root.
    pub root: OwnedFd,
    /// Its writable layer, to see whether it is full.
    pub upper: Option<OwnedFd>,
    /// With its six nodes and those asked for.
    pub dev: Option<OwnedFd>,
    /// None when the caller has one already, with a terminal in it.
    pub pts: Option<OwnedFd>,
    /// /dev/shm.
    pub shm: Option<OwnedFd>,
    /// In the order of the plan.
    pub volumes: Vec<OwnedFd>,
}

/// What is to be built, owned, because the builder only borrows.
struct Parts {
    root: Root,
    dev: Option<Dev>,
    pts: Option<Options>,
    shm: Option<Options>,
    volumes: Vec<Volume>,
}

/// Makes the mounts of `plan`. `has_pts`: all but its devpts.
pub(crate) fn raise(plan: &Plan, lease: &Lease, scratch: &Path, has_pts: bool) -> Result<Raised> {
    let mut parts = Parts { root: root(plan)?, dev: None, pts: None, shm: None, volumes: Vec::new() };
    for mount in &plan.mounts {
        match mount {
            Mount::Dev { devices } => parts.dev = Some(dev(devices)),
            Mount::Pts { max } if !has_pts => parts.pts = Some(pts(lease, *max)),
            Mount::Shm { bytes } => parts.shm = Some(options(&[("size", bytes.to_string()), ("nr_inodes", "1024".into()), ("mode", "1777".into())])),
            Mount::Volume(one) => parts.volumes.push(volume(one)?),
            Mount::Pts { .. } | Mount::Proc | Mount::NameServers | Mount::Masked(_) | Mount::ReadOnly(_) => {}
        }
    }
    let scratch = c_string(&scratch.to_string_lossy());
    let mut builder = Builder {
        root: Some(&parts.root),
        dev: parts.dev.as_ref(),
        pts: parts.pts.as_ref(),
        shm: parts.shm.as_ref(),
        volumes: &parts.volumes,
        ..nothing(&scratch)
    };
    builder.made.volumes.resize_with(parts.volumes.len(), || None);
    build(lease, &mut builder, &parts)?;
    let made = builder.made;
    let unmade = || Error::refused(ErrorKind::Wall, "the sandbox's mounts were not made");
    let volumes = made.volumes.into_iter().collect::<Option<_>>().ok_or_else(unmade)?;
    Ok(Raised { root: made.root.ok_or_else(unmade)?, upper: made.upper, dev: made.dev, pts: made.pts, shm: made.shm, volumes })
}

/// A devpts and a terminal in it, master and slave, for user `owner` inside.
pub(crate) fn terminal(lease: &Lease, scratch: &Path, max: u32, owner: u32) -> Result<(OwnedFd, OwnedFd, OwnedFd)> {
    let parts = Parts {
        root: Root { layers: Vec::new(), lower: CString::default(), upper: None },
        dev: None,
        pts: Some(pts(lease, max)),
        shm: None,
        volumes: Vec::new(),
    };
    let scratch = c_string(&scratch.to_string_lossy());
    let mut builder = Builder { pts: parts.pts.as_ref(), terminal: Some(owner), ..nothing(&scratch) };
    build(lease, &mut builder, &parts)?;
    let made = builder.made;
    let unmade = || Error::refused(ErrorKind::Wall, "the sandbox's terminal was not made");
    let (master, slave) = made.terminal.ok_or_else(unmade)?;
    Ok((made.pts.ok_or_else(unmade)?, master, slave))
}

/// Shows that mounts can be made at all in `lease`: some hosts grant user namespaces without capabilities.
pub(super) fn probe(lease: &Lease, scratch: &Path) -> Result<()> {
    let parts =
        Parts { root: Root { layers: Vec::new(), lower: CString::default(), upper: None }, dev: None, pts: None, shm: None, volumes: Vec::new() };
    build(lease, &mut nothing(&c_string(&scratch.to_string_lossy())), &parts)
}

fn nothing(scratch: &CStr) -> Builder<'_> {
    Builder { scratch, root: None, dev: None, pts: None, terminal: None, shm: None, volumes: &[], made: Made::default(), step: Step::Join }
}

fn build(lease: &Lease, builder: &mut Builder<'_>, parts: &Parts) -> Result<()> {
    let visited = sys::visit(lease.userns(), builder);
    visited.map_err(|errno| failure(builder.step, errno, parts))
}

fn options(pairs: &[(&str, String)]) -> Options {
    pairs.iter().map(|(key, value)| (c_string(key), c_string(value))).collect()
}

fn tmpfs(bytes: u64, inodes: u64, mode: &str) -> Options {
    options(&[("size", bytes.to_string()), ("nr_inodes", inodes.to_string()), ("mode", mode.to_owned())])
}

/// Group tty (5) needs to be there to have terminals.
fn pts(lease: &Lease, max: u32) -> Options {
    let group = lease.is_range().then(|| ("gid", "5".to_owned()));
    let mode = if lease.is_range() { "620" } else { "600" };
    let all = [("ptmxmode", "666".to_owned()), ("mode", mode.to_owned()), ("max", max.to_string())];
    options(&all.into_iter().chain(group).collect::<Vec<_>>())
}

fn root(plan: &Plan) -> Result<Root> {
    let mut layers = Vec::with_capacity(plan.layers.len());
    for (i, layer) in plan.layers.iter().enumerate() {
        let Layer::Directory(path) = layer else {
            return Err(Error::refused(ErrorKind::Wall, "layers other than directories are root's to mount"));
        };
        // Opened here for the sake of the error; a mount can be cloned only by who sees it in its own namespace.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        open(path, flags, Mode::empty()).context(ErrorKind::Image, || format!("layer directory {}: open", path.display()))?;
        layers.push((c_string(&path.to_string_lossy()), c_string(&i.to_string())));
    }
    let names: Vec<_> = layers.iter().map(|(_, name)| name.to_string_lossy()).collect();
    let upper = match &plan.upper {
        Upper::ReadOnly => None,
        Upper::Tmpfs { bytes, inodes } => Some(tmpfs(*bytes, *inodes, "700")),
        Upper::Disk { .. } => return Err(Error::refused(ErrorKind::Wall, "a writable layer on disk is root's to mount")),
    };
    Ok(Root { lower: c_string(&names.join(":")), layers, upper })
}

fn dev(devices: &[String]) -> Dev {
    let own = NODES.iter().map(|(name, ..)| (*name).to_owned());
    let nodes = own.chain(devices.iter().cloned()).map(|name| (c_string(&name), c_string(&format!("/dev/{name}")))).collect();
    let mut dirs = vec![c_string("pts"), c_string("shm")];
    for name in devices {
        dirs.extend(name.match_indices('/').map(|(end, _)| c_string(&name[..end])));
    }
    Dev { options: tmpfs(64 << 10, 256, "755"), dirs, links: LINKS.iter().map(|(name, target)| (c_string(name), c_string(target))).collect(), nodes }
}

fn volume(volume: &spec::Volume) -> Result<Volume> {
    Ok(match volume {
        spec::Volume::Bind { source, writable, .. } => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            open(source, flags, Mode::empty()).context(ErrorKind::Invalid, || format!("volume {}: open", source.display()))?;
            Volume::Bind { source: c_string(&source.to_string_lossy()), writable: *writable }
        }
        spec::Volume::Tmpfs { bytes, inodes, .. } => Volume::Tmpfs(tmpfs(*bytes, *inodes, "1777")),
    })
}

fn failure(step: Step, errno: Errno, parts: &Parts) -> Error {
    const CLONE: &str = "open_tree(OPEN_TREE_CLONE), mount_setattr";
    const BELOW: &str = " (something is mounted below it, which only root may leave out)";
    let below = if errno == Errno::INVAL { BELOW } else { "" };
    let what = match step {
        Step::Join => return forbidden("setns(CLONE_NEWUSER)", errno),
        Step::Namespace => return forbidden("unshare(CLONE_NEWNS)", errno),
        // The first thing that is mounted.
        Step::Scratch if matches!(errno, Errno::PERM | Errno::ACCESS) => return forbidden("mount a tmpfs", errno),
        Step::Scratch => "mount a tmpfs to work in".to_owned(),
        Step::Layer(i) => match parts.root.layers.get(i) {
            Some((path, _)) => format!("layer directory {}: {CLONE}{below}", path.to_string_lossy()),
            None => "layer directory".to_owned(),
        },
        Step::Upper => "mount the writable layer, a tmpfs".to_owned(),
        Step::Overlay => "mount the overlay with userxattr (Linux 5.11)".to_owned(),
        Step::Dev => "mount /dev, a tmpfs".to_owned(),
        Step::Node(i) => match parts.dev.as_ref().and_then(|dev| dev.nodes.get(i)) {
            Some((_, host)) => format!("bind the host's {}", host.to_string_lossy()),
            None => "bind a device of the host".to_owned(),
        },
        Step::Pts => "mount a devpts".to_owned(),
        Step::Terminal => "open a terminal".to_owned(),
        Step::Shm => "mount /dev/shm".to_owned(),
        Step::Volume(i) => match parts.volumes.get(i) {
            Some(Volume::Bind { source, .. }) => format!("volume {}: {CLONE}{below}", source.to_string_lossy()),
            _ => "volume: mount a tmpfs".to_owned(),
        },
    };
    Error::call(ErrorKind::Wall, what, errno)
}
