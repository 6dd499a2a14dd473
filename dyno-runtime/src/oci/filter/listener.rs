//! The way of a filter's listener to whoever answers (OCI runtime specification, Container Process State).

use std::{
    io::{IoSlice, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};
use serde::Serialize;

use crate::{
    error::{Context, Result},
    oci::state::State,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a> {
    oci_version: &'a str,
    /// Names of the descriptors that come with it, in their order.
    fds: [&'a str; 1],
    pid: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: &'a State,
}

/// Sends the listener with the state of the container to the unix socket `to`; `pid` is the filtered process's, as seen from here.
///
/// # Errors
/// Of connect(2) and sendmsg(2).
pub fn hand_over(listener: BorrowedFd<'_>, to: &Path, metadata: &str, state: &State, pid: u32) -> Result<()> {
    let what = || format!("seccomp listener to {}", to.display());
    let told = ContainerProcessState { oci_version: &state.oci_version, fds: ["seccompFd"], pid, metadata, state };
    let text = serde_json::to_vec(&told).map_err(std::io::Error::from).io(what)?;
    let mut socket = connect(to).io(|| format!("connect({})", to.display()))?;
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    let fds = [listener];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    // The descriptor is in the first part, however long the text.
    let sent = sendmsg(&socket, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL).io(|| format!("sendmsg: {}", what()))?;
    socket.write_all(text.get(sent..).unwrap_or_default()).io(|| format!("write: {}", what()))
}

/// Connects, to paths longer than a socket address too.
fn connect(to: &Path) -> std::io::Result<UnixStream> {
    const LONGEST: usize = 107; // sun_path, less its end
    if to.as_os_str().len() <= LONGEST {
        return UnixStream::connect(to);
    }
    let socket: OwnedFd = openat(CWD, to, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    UnixStream::connect(PathBuf::from(format!("/proc/self/fd/{}", socket.as_raw_fd())))
}
