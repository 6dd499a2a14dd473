//! Peers that are commands: each run is a process from its start to its collected end, as whoever calls them pays for it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

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
}

/// Words of a command.
pub fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|w| (*w).to_owned()).collect()
}

/// Tries it once, so that a peer that cannot run here is told with its own words before any turn.
pub fn opened(run: Vec<String>, probe: Vec<String>, env: Vec<(String, PathBuf)>) -> Result<Line> {
    let line = Line { run, probe, env };
    crate::stage::run(&mut line.command(&line.run))?;
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
}

impl Peer for Line {
    fn turn(&mut self, runs: usize, idle: Duration) -> Result<Vec<Sample>> {
        let mut command = self.command(&self.run);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut once = || {
            sleep(idle);
            let from = Instant::now();
            let status = command.status()?;
            let end = micros(from.elapsed());
            ensure!(status.success(), "{:?} ended with {status}", self.run);
            Ok(Sample { exec: None, end })
        };
        (0..runs).map(|_| once()).collect()
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
    Ok(Box::new(opened(line("true"), line("probe"), Vec::new())?))
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
    let line = |payload: &str| words(&[&nspawn, "--quiet", "--register=no", "--keep-unit", "--private-network", "--pipe", "--directory", &root, payload]);
    Ok(Box::new(opened(line("/true"), line("/probe"), Vec::new())?))
}

/// LXC in the foreground.
pub fn lxc(stage: &Stage) -> Result<Box<dyn Peer>> {
    let (lxc, place, conf) = (program("lxc-start")?, stage.path("lxc"), stage.path("lxc.conf"));
    fs::create_dir_all(&place)?;
    let config = format!("lxc.uts.name = bench\nlxc.rootfs.path = dir:{}\nlxc.net.0.type = empty\nlxc.mount.auto = proc:mixed\nlxc.console.path = none\n", stage.root().display());
    fs::write(&conf, config)?;
    let (place, conf) = (place.display().to_string(), conf.display().to_string());
    let line = |payload: &str| words(&[&lxc, "--lxcpath", &place, "--name", "dyno-bench", "--rcfile", &conf, "--foreground", "--define", &format!("lxc.init.cmd={payload}")]);
    Ok(Box::new(opened(line("/true"), line("/probe"), Vec::new())?))
}
