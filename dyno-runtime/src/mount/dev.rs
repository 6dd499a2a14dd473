//! /dev: six nodes that we made ourselves, a private devpts, a private /dev/shm.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{FileType, Mode, OFlags, makedev, mkdirat, mknodat, openat, symlinkat},
    io::Errno,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen},
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
};

use super::Lease;
use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys,
};

/// Name, major, minor.
pub const NODES: [(&str, u32, u32); 6] = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// Name, target.
pub const LINKS: [(&str, &str); 5] =
    [("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2"), ("ptmx", "pts/ptmx")];

/// A /dev of one sandbox alone, detached and read-only, with these devices of the host beside the six. They are open to whoever is inside.
///
/// No two sandboxes share one: what is watched (inotify(7)) or locked (flock(2)) is the file, and there is but one of each in a file system.
///
/// # Errors
/// [`ErrorKind::Invalid`] for a name that is no device of this host; of mknod(2) (a host without CAP_MKNOD) and mounting.
pub fn new_dev(devices: &[String]) -> Result<OwnedFd> {
    let tree = usual_dev()?;
    for name in devices {
        let host = Path::new("/dev").join(name);
        let stat = rustix::fs::stat(&host).context(ErrorKind::Invalid, || format!("devices {name:?}: stat({})", host.display()))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
            return Err(Error::refused(ErrorKind::Invalid, format!("devices {name:?}: {} is no device", host.display())));
        }
        for (end, _) in name.match_indices('/') {
            match mkdirat(&tree, &name[..end], Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e).wall(|| format!("mkdir(/dev/{})", &name[..end])),
            }
        }
        node(&tree, name, kind, stat.st_rdev)?;
    }
    let attr = sys::MountAttr { set: sys::RDONLY, ..Default::default() };
    sys::mount_setattr(tree.as_fd(), c"", false, &attr).wall(|| "mount_setattr(dev, RDONLY)".into())?;
    Ok(tree)
}

fn node(tree: &OwnedFd, name: &str, kind: FileType, device: u64) -> Result<()> {
    let mode = Mode::from_raw_mode(0o666);
    mknodat(tree, name, kind, mode, device).wall(|| format!("mknod(/dev/{name})"))?;
    // Whatever the umask.
    rustix::fs::chmodat(tree, name, mode, rustix::fs::AtFlags::empty()).wall(|| format!("chmod(/dev/{name})"))
}

fn usual_dev() -> Result<OwnedFd> {
    let tree =
        new_tmpfs(&[("size", "64k"), ("nr_inodes", "256"), ("mode", "755")], MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
    for (name, major, minor) in NODES {
        node(&tree, name, FileType::CharacterDevice, makedev(major, minor))?;
    }
    for name in ["pts", "shm"] {
        mkdirat(&tree, name, Mode::from_raw_mode(0o755)).wall(|| format!("mkdir(/dev/{name})"))?;
    }
    for (name, target) in LINKS {
        symlinkat(target, &tree, name).wall(|| format!("symlink(/dev/{name})"))?;
    }
    Ok(tree)
}

/// A detached tmpfs.
pub(super) fn new_tmpfs(options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).wall(|| "fsopen(tmpfs)".into())?;
    for (key, value) in options {
        fsconfig_set_string(&fs, *key, *value).wall(|| format!("fsconfig(tmpfs, {key}={value})"))?;
    }
    fsconfig_create(&fs).wall(|| "fsconfig(tmpfs, create)".into())?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).wall(|| "fsmount(tmpfs)".into())
}

/// A detached /dev/shm of `bytes`.
///
/// # Errors
/// Of mounting.
pub fn new_shm(bytes: u64) -> Result<OwnedFd> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    new_tmpfs(&[("size", &bytes.to_string()), ("nr_inodes", "1024"), ("mode", "1777")], attributes)
}

/// A detached devpts with at most `max` terminals; their group is tty (5) of the sandbox.
///
/// # Errors
/// Of mounting.
pub fn new_pts(lease: &Lease, max: u32) -> Result<OwnedFd> {
    let fs = fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC).wall(|| "fsopen(devpts)".into())?;
    let options = [("ptmxmode", "666".to_owned()), ("mode", "620".to_owned()), ("gid", lease.host_id(5).to_string()), ("max", max.to_string())];
    for (key, value) in &options {
        fsconfig_set_string(&fs, *key, value).wall(|| format!("fsconfig(devpts, {key}={value})"))?;
    }
    fsconfig_create(&fs).wall(|| "fsconfig(devpts, create)".into())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).wall(|| "fsmount(devpts)".into())
}

/// Opens a terminal of that devpts: master and slave. The slave comes from the master (TIOCGPTPEER), never
/// by a name that a tenant could have put there.
///
/// # Errors
/// Of opening ptmx, TIOCSPTLCK, TIOCGPTPEER, TIOCSWINSZ.
pub fn open_terminal(pts: BorrowedFd<'_>, rows: u16, cols: u16) -> Result<(OwnedFd, OwnedFd)> {
    let master = openat(pts, "ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).wall(|| "open(ptmx)".into())?;
    unlockpt(&master).wall(|| "unlockpt".into())?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).wall(|| "ioctl(TIOCGPTPEER)".into())?;
    resize_terminal(slave.as_fd(), rows, cols)?;
    Ok((master, slave))
}

/// Sets a terminal's size.
///
/// # Errors
/// Of TIOCSWINSZ.
pub fn resize_terminal(terminal: BorrowedFd<'_>, rows: u16, cols: u16) -> Result<()> {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).wall(|| "ioctl(TIOCSWINSZ)".into())
}
