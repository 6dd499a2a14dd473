//! Terminals of containers: made inside, in the container's own devpts, and reached by descriptors only.
//!
//! Whoever made the image has a say in what the names below `/dev` lead to, and what already runs in the container can change that at
//! any time. So no name is used but `dev/pts`, without symlinks and seen to be a devpts before anything in it is opened; the other end
//! comes from the kernel (TIOCGPTPEER), never by its name (CVE-2025-52565); and `/dev/console` is covered by a mount on the very file that
//! was looked at, which is no symlink (CVE-2026-88264).
//!
//! ```text
//! open    ptmx of the container's devpts: master, slave, size, owner
//! take    the slave on /dev/console (first process only), as terminal of the session, as streams
//! send    the master to whoever holds the other end of `--console-socket`, or to the runtime itself
//! ```

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Uid, fchown, fstat, fstatfs, open as open_path, openat, statat},
    io::Errno,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
        SocketFlags, SocketType, recvmsg, sendmsg, socket_with, socketpair,
    },
    process::ioctl_tiocsctty,
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use super::plan::Process;
use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys,
};

/// Of statfs(2).
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// What the master is called when it is sent; receivers look at the descriptor only.
const NAME: &[u8] = b"/dev/ptmx";

/// A terminal of the container's devpts, of the size and for the user that `process` asks for: master and slave. To be called in the
/// container, with its root entered and before its ids are taken.
///
/// # Errors
/// [`ErrorKind::Wall`] when `/dev/pts` is no devpts, or is reached by a symlink.
pub fn open(process: &Process) -> Result<(OwnedFd, OwnedFd)> {
    let pts = devpts()?;
    let master = openat(&pts, c"ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
        .wall(|| "terminal: open(/dev/pts/ptmx)".into())?;
    unlockpt(&master).wall(|| "terminal: ioctl(TIOCSPTLCK)".into())?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags).wall(|| "terminal: ioctl(TIOCGPTPEER)".into())?;
    if let Some((rows, columns)) = process.console_size {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).wall(|| format!("terminal: ioctl(TIOCSWINSZ, {rows}x{columns})"))?;
    }
    // The group is the devpts's own to say (its option gid).
    fchown(&slave, Some(Uid::from_raw(process.uid)), None).wall(|| format!("terminal: fchown(slave, {})", process.uid))?;
    Ok((master, slave))
}

/// The directory `/dev/pts`, and it is a devpts.
fn devpts() -> Result<OwnedFd> {
    let root = root()?;
    let pts = sys::open_beneath(root.as_fd(), c"dev/pts", OFlags::PATH | OFlags::DIRECTORY)
        .wall(|| "terminal: openat2(/dev/pts, no symlinks) (config.json mounts a devpts there, usually)".into())?;
    if fstatfs(&pts).wall(|| "terminal: fstatfs(/dev/pts)".into())?.f_type != DEVPTS_SUPER_MAGIC {
        return Err(Error::refused(ErrorKind::Wall, "terminal: /dev/pts inside is no devpts: config.json has to mount one there"));
    }
    Ok(pts)
}

fn root() -> Result<OwnedFd> {
    open_path(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).wall(|| "open(/)".into())
}

/// Mounts the slave on `/dev/console`; makes an empty file there if there is none.
fn attach(slave: BorrowedFd<'_>) -> Result<()> {
    let root = root()?;
    let dev = sys::open_beneath(root.as_fd(), c"dev", OFlags::PATH | OFlags::DIRECTORY).wall(|| "terminal: openat2(/dev, no symlinks)".into())?;
    let held = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let console = match openat(&dev, c"console", held, Mode::empty()) {
        Err(Errno::NOENT) => {
            let new = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
            openat(&dev, c"console", new, Mode::RUSR | Mode::WUSR)
        }
        other => other,
    };
    let console = console.wall(|| "terminal: open(/dev/console, O_NOFOLLOW)".into())?;
    let kind = FileType::from_raw_mode(fstat(&console).wall(|| "terminal: fstat(/dev/console)".into())?.st_mode);
    if !matches!(kind, FileType::RegularFile | FileType::CharacterDevice) {
        return Err(Error::refused(
            ErrorKind::Wall,
            format!("terminal: /dev/console inside is neither file nor device but {kind:?}: nothing is mounted there"),
        ));
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(slave, c"", flags).wall(|| "terminal: open_tree(slave)".into())?;
    let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, c"", &console, c"", both).wall(|| "terminal: move_mount(slave, /dev/console)".into())?;
    // What the name leads to now is the slave, or somebody has been faster with the name.
    let (is, wanted) = (statat(&dev, c"console", AtFlags::SYMLINK_NOFOLLOW), fstat(slave));
    match (is, wanted) {
        (Ok(is), Ok(wanted)) if is.st_rdev == wanted.st_rdev && is.st_ino == wanted.st_ino => Ok(()),
        _ => Err(Error::refused(ErrorKind::Wall, "terminal: /dev/console was moved away while it was mounted on")),
    }
}

/// For a container's first process: the slave becomes `/dev/console`, the terminal of its session (it leads one), and its streams.
///
/// # Errors
/// [`ErrorKind::Wall`] when `/dev/console` is a symlink or a directory; of mounting, TIOCSCTTY, dup3(2).
pub fn take(slave: OwnedFd) -> Result<()> {
    attach(slave.as_fd())?;
    control(&slave)
}

/// For a process of `exec`: as [`take`], and `/dev/console` is left as it is.
///
/// # Errors
/// Of TIOCSCTTY, dup3(2).
pub fn control(slave: &OwnedFd) -> Result<()> {
    ioctl_tiocsctty(slave).wall(|| "terminal: ioctl(TIOCSCTTY)".into())?;
    super::process::streams(slave)
}

/// Sends `fd` with a name to whoever holds the other end of `socket`.
fn send_named(socket: BorrowedFd<'_>, name: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(socket, &[IoSlice::new(name)], &mut control, SendFlags::NOSIGNAL).io(|| "sendmsg(SCM_RIGHTS)".into()).map(drop)
}

/// Sends the master over a console socket.
///
/// # Errors
/// Of sendmsg(2).
pub fn send(socket: BorrowedFd<'_>, master: OwnedFd) -> Result<()> {
    send_named(socket, NAME, master.as_fd())
}

/// Sends a pidfd to the socket at `path`.
///
/// # Errors
/// Of connect(2), sendmsg(2).
pub fn send_to(path: &Path, pidfd: BorrowedFd<'_>) -> Result<()> {
    send_named(connect(path)?.as_fd(), b"pidfd", pidfd)
}

/// The master, at the other end of [`send`].
///
/// # Errors
/// Of recvmsg(2); [`ErrorKind::Io`] when there was none.
pub fn receive(socket: BorrowedFd<'_>) -> Result<OwnedFd> {
    let (mut name, mut space) = ([0; 4096], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC).io(|| "recvmsg(terminal)".into())?;
    let mut fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    fds.next().and_then(|mut fds| fds.next()).ok_or_else(|| Error::refused(ErrorKind::Io, "the container sent no terminal"))
}

/// Both ends of a console socket of the runtime's own: the first one is for [`receive`].
///
/// # Errors
/// Of socketpair(2).
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).io(|| "socketpair".into())
}

/// A connection to the socket at `path`, however long that is: `sun_path` holds 108 bytes, so a longer one is named by a descriptor.
///
/// # Errors
/// Of connect(2).
pub fn connect(path: &Path) -> Result<OwnedFd> {
    let what = || format!("connect({})", path.display());
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).io(|| "socket(AF_UNIX)".into())?;
    let (held, address) = match SocketAddrUnix::new(path) {
        Ok(address) => (None, address),
        Err(_) => {
            let held = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).io(what)?;
            let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", held.as_raw_fd())).io(what)?;
            (Some(held), address)
        }
    };
    rustix::net::connect(&socket, &address).io(what)?;
    drop(held);
    Ok(socket)
}
