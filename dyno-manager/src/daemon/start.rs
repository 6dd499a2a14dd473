//! `dynod` alone: starts the warden if none answers, then becomes the daemon.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use super::{Layout, Options, images, serve};
use crate::warden;

pub(super) fn start(options: &Options) -> Result<()> {
    ensure!(rustix::process::getuid().is_root(), "dynod is started as root; it gives root up itself (see `dynod --help`)");
    images::image(&options.stack)?;
    images::image(&options.buildpacks)?;
    let listeners = serve::Listeners::bind(options)?;
    let layout = Layout::new(options);
    layout.make_warden_dir()?;
    layout.make_daemon_dirs()?;
    if !warden::answers(&layout.warden_socket()) {
        start_warden(options)?;
    }
    serve::serve(options, listeners)
}

/// Starts the warden in a session of its own, so that nothing that ends us ends it, and waits until it says `ready`.
pub(super) fn start_warden(options: &Options) -> Result<()> {
    let me = std::env::current_exe().context("find our own program")?;
    let mut command = Command::new(me);
    command.arg("warden").arg("--run-dir").arg(&options.run_dir).arg("--state-dir").arg(&options.state_dir);
    command.arg("--uid").arg(options.uid.to_string()).arg("--cgroup").arg(&options.cgroup).arg("--ca-bundle").arg(&options.ca_bundle);
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
        bail!("the warden did not start ({status}); its reason stands above");
    }
    Ok(())
}
