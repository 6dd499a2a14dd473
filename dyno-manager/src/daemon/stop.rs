//! `dynod stop`: the daemon first, so that nothing restarts what ends, then the dynos and the warden.

use std::{
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::{ClientFile, Layout, Options, start};
use crate::warden::{self, Client};

/// How long the daemon has to finish requests, and the warden to be gone.
const PATIENCE_SECONDS: i64 = 30;

pub(super) fn stop(options: &Options) -> Result<()> {
    ensure!(rustix::process::getuid().is_root(), "stopping the platform needs root");
    let layout = Layout::new(options);
    stop_daemon(&layout, options.uid)?;
    if layout.runtime().exists() && !warden::answers(&layout.warden_socket()) {
        // It was killed, its dynos run: only a warden can find and end them. Without one, removing the directory would hide them.
        start::start_warden(options).context("end what a killed warden left")?;
    }
    stop_warden(&layout.warden_socket())?;
    match std::fs::remove_dir_all(layout.run()) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).context(format!("remove {}", layout.run().display())),
        _ => Ok(()),
    }
}

fn stop_warden(socket: &Path) -> Result<()> {
    if !warden::answers(socket) {
        return Ok(());
    }
    let stream = UnixStream::connect(socket).context("connect to the warden")?;
    let warden = rustix::net::sockopt::socket_peercred(&stream).context("SO_PEERCRED of the warden's socket")?.pid;
    let pidfd = pidfd_open(warden, PidfdFlags::empty()).context("pidfd_open(the warden)")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start tokio")?;
    runtime.block_on(Client::new(socket).shutdown()).context("stop the warden")?;
    ensure!(ends(&pidfd)?, "the warden has freed everything and still runs after {PATIENCE_SECONDS} s (process {warden}); end it by hand");
    Ok(())
}

/// False when it still runs after [`PATIENCE_SECONDS`].
fn ends(pidfd: &OwnedFd) -> Result<bool> {
    let timeout = Timespec { tv_sec: PATIENCE_SECONDS, tv_nsec: 0 };
    Ok(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)).context("poll(pidfd)")? == 1)
}

fn stop_daemon(layout: &Layout, uid: u32) -> Result<()> {
    let Ok(text) = std::fs::read(layout.client_file()) else { return Ok(()) };
    let file: ClientFile = serde_json::from_slice(&text).with_context(|| format!("{}", layout.client_file().display()))?;
    let Some(pid) = i32::try_from(file.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    // The pidfd pins the process; that it is the daemon is seen by its name and user, so that neither a reused number nor a number
    // that the daemon's user has written there turns us against somebody else.
    let status = std::fs::read_to_string(format!("/proc/{}/status", file.pid)).unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).and_then(|rest| rest.split_whitespace().next());
    if field("Name:") != Some("dynod") || field("Uid:") != Some(&*uid.to_string()) {
        return Ok(());
    }
    pidfd_send_signal(&pidfd, Signal::TERM).context("signal the daemon")?;
    if !ends(&pidfd)? {
        pidfd_send_signal(&pidfd, Signal::KILL).context("kill the daemon")?;
        ensure!(ends(&pidfd)?, "the daemon does not end (process {})", file.pid);
    }
    Ok(())
}
