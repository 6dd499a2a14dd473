//! Peers that are commands: each run is a process from its start to its collected end, as whoever calls them pays for it.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::Peer;
use crate::{
    sample::{Sample, micros},
    stage::{Stage, run},
};

/// Where cargo puts youki.
const CRATES: &str = "/var/cache/dyno/peers/bin";

/// A command line for the payload, and one for the probe.
pub struct Line {
    run: Vec<String>,
    probe: Vec<String>,
    env: Vec<(String, PathBuf)>,
    /// Ends what a run that had to be killed has left; fails where nothing is left.
    delete: Option<Vec<String>>,
}

/// How long a run may take. One that never ends must not end the benchmark.
const PATIENCE: Duration = Duration::from_secs(20);

/// Words of a command.
pub fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|w| (*w).to_owned()).collect()
}

/// Tries it once, so that a peer that cannot run here is told with its own words before any turn.
pub fn opened(run: Vec<String>, probe: Vec<String>, env: Vec<(String, PathBuf)>) -> Result<Line> {
    let line = Line { run, probe, env, delete: None };
    line.once()?;
    Ok(line)
}

/// Where a program is; those that Debian installed, or cargo for us.
pub fn program(name: &str) -> Result<String> {
    let ours = Path::new(CRATES).join(name);
    let found = if ours.is_file() { Some(ours) } else { dyno_tests::clients::path_of(name) };
    Ok(found.with_context(|| format!("{name} is not installed"))?.display().to_string())
}

impl Line {
    fn command(&self, words: &[String]) -> Command {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    fn once(&self) -> Result<Sample> {
        let mut command = self.command(&self.run);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let from = Instant::now();
        let mut child = command.spawn().with_context(|| format!("start {}", self.run[0]))?;
        let ended = ends(&child)?;
        if !ended {
            child.kill()?;
        }
        let status = child.wait()?;
        let end = micros(from.elapsed());
        ensure!(ended, "{:?} did not end in {} s, and was killed", self.run, PATIENCE.as_secs());
        let mut said = || child.stderr.take().map(std::io::read_to_string).transpose();
        ensure!(status.success(), "{:?} failed ({status}): {}", self.run, said()?.unwrap_or_default().trim());
        Ok(Sample { exec: None, end })
    }
}

/// Whether it ends before patience does.
fn ends(child: &Child) -> Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a pid")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open")?;
    Ok(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&Timespec::try_from(PATIENCE)?))? == 1)
}

impl Peer for Line {
    fn turn(&mut self, runs: usize, idle: Duration) -> Result<Vec<Sample>> {
        let once = |_| {
            sleep(idle);
            self.once()
        };
        (0..runs).map(once).collect()
    }

    fn finish(self: Box<Self>) -> Result<()> {
        if let Some(delete) = &self.delete {
            self.command(delete).stdin(Stdio::null()).output()?;
        }
        Ok(())
    }

    fn probe(&mut self) -> Result<Option<String>> {
        run(&mut self.command(&self.probe)).map(Some)
    }
}

fn runtime(stage: &Stage, name: &str, program: &str, bundle: &str) -> Result<Box<dyn Peer>> {
    // Several may be open at once.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let id = format!("dyno-bench-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let root = stage.in_memory(&format!("state-{name}-{bundle}")).display().to_string();
    let line = |payload: &str| {
        let bundle = stage.path(&format!("{bundle}-{payload}")).display().to_string();
        words(&[program, "--root", &root, "run", "--bundle", &bundle, &id])
    };
    let delete = words(&[program, "--root", &root, "delete", "--force", &id]);
    Ok(Box::new(Line { delete: Some(delete), ..opened(line("true"), line("probe"), Vec::new())? }))
}

/// An OCI runtime with one of the stage's bundles.
pub fn oci(stage: &Stage, name: &str, bundle: &str) -> Result<Box<dyn Peer>> {
    runtime(stage, name, &program(name)?, bundle)
}

/// Ours.
pub fn ours(stage: &Stage) -> Result<Box<dyn Peer>> {
    let Some(path) = &stage.runtime else { bail!("no static dyno-runtime was given (--runtime)") };
    runtime(stage, "dyno-runtime", &path.display().to_string(), "plain")
}

/// bubblewrap: neither control groups nor an overlay nor a filter.
pub fn bubblewrap(stage: &Stage) -> Result<Box<dyn Peer>> {
    let (bwrap, root) = (program("bwrap")?, stage.root().display().to_string());
    let line = |payload: &str| words(&[&bwrap, "--unshare-all", "--ro-bind", &root, "/", "--proc", "/proc", "--dev", "/dev", payload]);
    Ok(Box::new(opened(line("/true"), line("/probe"), Vec::new())?))
}

/// systemd-nspawn without systemd: it does not register what it runs.
pub fn nspawn(stage: &Stage) -> Result<Box<dyn Peer>> {
    let (nspawn, root) = (program("systemd-nspawn")?, stage.root().display().to_string());
    let line =
        |payload: &str| words(&[&nspawn, "--quiet", "--register=no", "--keep-unit", "--private-network", "--pipe", "--directory", &root, payload]);
    Ok(Box::new(opened(line("/true"), line("/probe"), Vec::new())?))
}
