//! `NOTIFY_SOCKET`: a program that tells its service manager when it is ready (sd_notify(3)).
//!
//! A container does not see the manager's socket, and its pids mean nothing there. It gets one of ours at `/run/notify`, by a directory of the
//! state directory's, read-only inside; whoever starts it listens there, and tells the manager that the container is ready, and which process it
//! is by the host's counting.

use std::{
    ffi::CString,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixDatagram},
    },
    path::Path,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{AtFlags, Mode, chmodat},
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recv, sendto, socket_with},
};

use super::plan::{Container, Mount, Source};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys::{self, Flags, Forked},
};

const VARIABLE: &str = "NOTIFY_SOCKET";
/// In the directory.
pub const SOCKET: &str = "notify.sock";
const INSIDE: &str = "/run/notify";

/// Whether the caller has a socket to be told by.
pub fn has_caller() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|name| !name.is_empty())
}

/// Whether the caller wants to be told, and the configuration does not bring a socket of its own.
pub fn is_wanted(container: &Container) -> bool {
    let brings = |env: &CString| env.to_bytes().starts_with(b"NOTIFY_SOCKET=");
    has_caller() && container.process.as_ref().is_some_and(|p| !p.env.iter().any(brings))
}

/// Lets `container` have the directory `dir` and the name of the socket in it.
pub fn add(container: &mut Container, dir: &Path) {
    container.mounts.push(Mount {
        destination: INSIDE.into(),
        source: Source::Bind { path: dir.to_owned(), recursive: false },
        set: sys::RDONLY | sys::NOSUID | sys::NODEV | sys::NOEXEC,
        clear: 0,
        set_recursive: 0,
        clear_recursive: 0,
        propagation: Vec::new(),
        data: Vec::new(),
        copy_up: false,
        idmap: None,
    });
    if let (Some(process), Ok(variable)) = (&mut container.process, CString::new(format!("{VARIABLE}={INSIDE}/{SOCKET}"))) {
        process.env.push(variable);
    }
}

/// A socket in `dir`; everybody inside may write to it.
///
/// # Errors
/// Of bind(2), chmod(2).
pub fn listen(dir: BorrowedFd<'_>) -> Result<UnixDatagram> {
    // A socket's address has 108 bytes, a state directory's path may have more.
    let path = format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd());
    let socket = UnixDatagram::bind(&path).io(|| format!("bind({SOCKET} in the state directory)"))?;
    chmodat(dir, SOCKET, Mode::from_raw_mode(0o777), AtFlags::empty()).io(|| format!("chmod({SOCKET})"))?;
    Ok(socket)
}

/// Waits until the container has said that it is ready, or has ended, and passes that on. Without `wait` a process apart does, which is our child.
///
/// # Errors
/// Of fork, poll(2), recv(2), sendto(2).
pub fn follow(socket: &UnixDatagram, first: BorrowedFd<'_>, pid: u32, wait: bool) -> Result<()> {
    if wait {
        return forward(socket, first, pid);
    }
    match sys::fork(Flags::NONE, None).io(|| "clone3".into())? {
        Forked::Parent { .. } => Ok(()),
        Forked::Child => sys::exit_now(i32::from(forward(socket, first, pid).is_err())),
    }
}

fn forward(socket: &UnixDatagram, first: BorrowedFd<'_>, pid: u32) -> Result<()> {
    loop {
        let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::from_borrowed_fd(first, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(e) => return Err(e).io(|| "poll(notify)".into()),
        }
        if fds[0].revents().contains(PollFlags::IN) {
            let mut text = [0; 4096];
            let (read, _) = recv(socket, &mut text[..], RecvFlags::empty()).io(|| "recv(notify)".into())?;
            if text[..read].split(|b| *b == b'\n').any(|line| line == b"READY=1") {
                return tell(&format!("READY=1\nMAINPID={pid}"));
            }
        } else if !fds[1].revents().is_empty() {
            return Ok(());
        }
    }
}

/// To the socket that the caller named; an `@` stands for the zero byte of an abstract one.
fn tell(text: &str) -> Result<()> {
    let name = std::env::var_os(VARIABLE).unwrap_or_default();
    let bytes = name.as_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(rest) => SocketAddrUnix::new_abstract_name(rest),
        None => SocketAddrUnix::new(bytes),
    };
    let what = || format!("{VARIABLE}={}", name.to_string_lossy());
    let address = address.map_err(|e| Error::call(ErrorKind::Invalid, what(), e))?;
    let socket: OwnedFd = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).io(|| "socket".into())?;
    sendto(socket.as_fd(), text.as_bytes(), SendFlags::NOSIGNAL, &address).io(what).map(drop)
}
