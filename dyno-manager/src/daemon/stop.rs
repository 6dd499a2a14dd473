//! `dynod stop`: the daemon first, so that nothing restarts what ends, then the dynos and the warden.

use anyhow::{Context, Result, ensure};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::{ClientFile, Layout, Options, start};
use crate::warden::{self, Client};

/// How long the daemon has to finish requests.
const PATIENCE_SECONDS: i64 = 30;

pub(super) fn stop(options: &Options) -> Result<()> {
    ensure!(rustix::process::getuid().is_root(), "stopping the platform needs root");
    let layout = Layout::new(options);
    stop_daemon(&layout, options.uid)?;
    if layout.runtime().exists() && !warden::answers(&layout.warden_socket()) {
        // It was killed, its dynos run: only a warden can find and end them. Without one, removing the directory would hide them.
        start::start_warden(options).context("end what a killed warden left")?;
    }
    if warden::answers(&layout.warden_socket()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start tokio")?;
        runtime.block_on(Client::new(layout.warden_socket()).shutdown()).context("stop the warden")?;
    }
    match std::fs::remove_dir_all(layout.run()) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).context(format!("remove {}", layout.run().display())),
        _ => Ok(()),
    }
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
    let timeout = rustix::event::Timespec { tv_sec: PATIENCE_SECONDS, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)).context("wait for the daemon")?;
    if ended == 0 {
        pidfd_send_signal(&pidfd, Signal::KILL).context("kill the daemon")?;
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).context("wait for the daemon")?;
    }
    Ok(())
}
