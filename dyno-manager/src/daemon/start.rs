//! `dynod` alone: starts the warden if none answers, then becomes the daemon.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use super::{Layout, Options, files, images, serve};
use crate::{store, warden};

/// The warden did not start and has said why, on the stderr that it shares with us.
#[derive(Debug, thiserror::Error)]
#[error("the warden did not start; its reason stands above")]
pub(super) struct Told;

pub(super) fn start(options: &Options) -> Result<()> {
    ensure!(rustix::process::getuid().is_root(), "dynod is started as root; it gives root up itself (see `dynod --help`)");
    images::image(&options.stack)?;
    images::image(&options.buildpacks)?;
    let layout = Layout::new(options);
    let absent = !warden::answers(&layout.warden_socket());
    // What refuses a start comes before the warden, which would be left behind.
    if let Err(busy) = store::free(&options.state_dir) {
        if absent && layout.runtime().is_dir() {
            start_warden(options)?;
            return Err(busy).context("the warden was gone and runs again, but the daemon does already");
        }
        return Err(busy.into());
    }
    let listeners = serve::Listeners::bind(options)?;
    let missing = layout.missing();
    if let Err(e) = prepare(options, &layout, absent) {
        files::remove(&missing);
        return Err(e);
    }
    serve::serve(options, listeners)
}

fn prepare(options: &Options, layout: &Layout, absent: bool) -> Result<()> {
    layout.make_warden_dir()?;
    layout.make_daemon_dirs()?;
    if absent { start_warden(options) } else { Ok(()) }
}

/// Starts the warden in a session of its own, so that nothing that ends us ends it, and waits until it says `ready`.
pub(super) fn start_warden(options: &Options) -> Result<()> {
    let me = std::env::current_exe().context("find our own program")?;
    let mut command = Command::new(me);
    command.arg("warden").arg("--run-dir").arg(&options.run_dir).arg("--state-dir").arg(&options.state_dir);
    command.arg("--uid").arg(options.uid.to_string()).arg("--cgroup").arg(&options.cgroup).arg("--ca-bundle").arg(&options.ca_bundle);
    command.arg("--spares").arg(options.spares.to_string());
    if options.log_json {
        command.arg("--log-json");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn().context("start the warden")?;
    let mut line = String::new();
    let stdout = child.stdout.take().context("the warden's stdout")?;
    BufReader::new(stdout).read_line(&mut line).context("wait for the warden")?;
    if line.trim() != "ready" {
        let status = child.wait().context("wait for the warden")?;
        if status.code() == Some(1) {
            bail!(Told);
        }
        bail!("the warden did not start ({status})");
    }
    Ok(())
}
