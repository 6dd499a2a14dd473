//! `run` and `exec` of a do-nothing container: ours, crun, runc, and bubblewrap, which has neither control groups nor a configuration to read.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    bundle,
    measure::{Times, peak, time},
    stage,
};

/// Before a run that finds the host idle.
const IDLE: Duration = Duration::from_millis(30);

/// Who is measured.
struct Peer {
    name: &'static str,
    /// None for what is no OCI runtime.
    runtime: Option<String>,
    run: Vec<String>,
    exec: Option<Vec<String>>,
    /// `run` after idleness and in a burst, `exec` after idleness.
    times: [Times; 3],
    peak: u64,
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|w| (*w).to_owned()).collect()
}

impl Peer {
    fn oci(name: &'static str, program: &str, dir: &Path, states: &Path) -> Self {
        let root = states.join(name).display().to_string();
        let bundle = dir.join("once").display().to_string();
        let run = words(&[program, "--root", &root, "run", "--bundle", &bundle, &format!("bench-{name}")]);
        let exec = words(&[program, "--root", &root, "exec", &format!("stay-{name}"), "/true"]);
        Self { name, runtime: Some(program.to_owned()), run, exec: Some(exec), times: Default::default(), peak: 0 }
    }

    fn bubblewrap(dir: &Path) -> Self {
        let root = dir.join("once/rootfs").display().to_string();
        let run = words(&["bwrap", "--unshare-all", "--ro-bind", &root, "/", "--proc", "/proc", "--dev", "/dev", "/true"]);
        Self { name: "bwrap --unshare-all", runtime: None, run, exec: None, times: Default::default(), peak: 0 }
    }

    fn state(&self, states: &Path) -> String {
        states.join(self.name).display().to_string()
    }

    /// Starts what `exec` enters.
    fn keep(&self, dir: &Path, states: &Path) -> Result<()> {
        let Some(runtime) = &self.runtime else { return Ok(()) };
        let (state, bundle) = (self.state(states), dir.join("stay"));
        let status = Command::new(runtime)
            .args(["--root", &state, "run", "--detach", "--bundle"])
            .arg(bundle)
            .arg(format!("stay-{}", self.name))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        ensure!(status.context("run a runtime")?.success(), "{} run --detach failed", self.name);
        Ok(())
    }

    fn end(&self, states: &Path) -> Result<()> {
        let Some(runtime) = &self.runtime else { return Ok(()) };
        let status = Command::new(runtime).args(["--root", &self.state(states), "delete", "--force"]).arg(format!("stay-{}", self.name)).status()?;
        ensure!(status.success(), "{} delete --force failed", self.name);
        Ok(())
    }
}

/// Measures, prints the table, and with `check` compares it with the goals.
///
/// # Errors
/// When a peer fails, or with `check` when a goal is missed.
pub fn run(runtime: &Path, rounds: usize, out: Option<&Path>, check: bool) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("dyno-bench-").tempdir()?;
    let dir = dir.path();
    // A tmpfs, as /run is on most hosts.
    let states = tempfile::Builder::new().prefix("dyno-bench-").tempdir_in("/dev/shm")?;
    let states = states.path();
    bundle::make(&dir.join("once"), "true")?;
    bundle::make(&dir.join("stay"), "stay")?;
    let meter = dir.join("peak");
    stage::compile(&dir.join("peak.c"), include_str!("../programs/peak.c"), &["-static", "-O2"], &meter)?;
    let ours = runtime.display().to_string();
    let mut peers = vec![
        Peer::oci("dyno-runtime", &ours, dir, states),
        Peer::oci("crun", "crun", dir, states),
        Peer::oci("runc", "runc", dir, states),
        Peer::bubblewrap(dir),
    ];
    for peer in &peers {
        peer.keep(dir, states)?;
    }
    let measured = measure(&mut peers, &meter, rounds);
    for peer in &peers {
        peer.end(states)?;
    }
    measured?;
    let size = fs::metadata(runtime)?.len();
    print(&peers, size);
    if let Some(path) = out {
        fs::write(path, serde_json::to_vec_pretty(&figures(&peers, size))?)?;
    }
    if check { goals(&peers, size) } else { Ok(()) }
}

fn measure(peers: &mut [Peer], meter: &Path, rounds: usize) -> Result<()> {
    for round in 0..rounds {
        eprint!("\rround {} of {rounds} ", round + 1);
        for peer in peers.iter_mut() {
            sleep(IDLE);
            peer.times[0].add(time(&peer.run)?);
            peer.times[1].add(time(&peer.run)?);
            if let Some(exec) = &peer.exec {
                sleep(IDLE);
                peer.times[2].add(time(exec)?);
            }
        }
    }
    eprintln!();
    for peer in peers {
        peer.peak = (0..5).map(|_| peak(meter, &peer.run)).collect::<Result<Vec<_>>>()?.into_iter().min().unwrap_or(0);
    }
    Ok(())
}

fn print(peers: &[Peer], size: u64) {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("A do-nothing container, wall time in ms as p50 / p99, and p50 as a multiple of dyno-runtime's. Linux {}", kernel.trim());
    println!("{:<22}{:>24}{:>24}{:>24}{:>18}", "", "run, after 30 ms idle", "run, at once", "exec, after 30 ms idle", "peak memory, KiB");
    let base: Vec<f64> = peers[0].times.iter().map(|t| t.quantile(0.5)).collect();
    for peer in peers {
        let cells = peer.times.iter().zip(&base).map(|(t, base)| {
            let p50 = t.quantile(0.5);
            if p50.is_nan() { "-".to_owned() } else { format!("{p50:.2} / {:.2}  x{:.1}", t.quantile(0.99), p50 / base) }
        });
        println!("{:<22}{}{:>18}", peer.name, cells.map(|c| format!("{c:>24}")).collect::<String>(), peer.peak);
    }
    println!("dyno-runtime is a static program of {:.2} MB", size as f64 / 1e6);
}

fn figures(peers: &[Peer], size: u64) -> serde_json::Value {
    let names = ["run_idle", "run_burst", "exec_idle"];
    let peers = peers.iter().map(|peer| {
        let times = names.iter().zip(&peer.times).filter(|(_, t)| !t.quantile(0.5).is_nan());
        let times: serde_json::Map<_, _> =
            times.map(|(name, t)| ((*name).to_owned(), json!({ "p50_ms": t.quantile(0.5), "p99_ms": t.quantile(0.99) }))).collect();
        json!({ "name": peer.name, "times": times, "peak_kib": peer.peak })
    });
    json!({ "peers": peers.collect::<Vec<_>>(), "size_bytes": size })
}

/// The goals of this figure.
fn goals(peers: &[Peer], size: u64) -> Result<()> {
    let p50 = |name: &str, which: usize| peers.iter().find(|p| p.name == name).map_or(f64::NAN, |p| p.times[which].quantile(0.5));
    let memory = |name: &str| peers.iter().find(|p| p.name == name).map_or(0, |p| p.peak);
    let ours = "dyno-runtime";
    let goals = [
        ("run takes less than a quarter of crun's", p50(ours, 0) < 0.25 * p50("crun", 0)),
        ("run takes less than bwrap's", p50(ours, 0) < p50("bwrap --unshare-all", 0)),
        ("exec takes less than crun's", p50(ours, 2) < p50("crun", 2)),
        ("peak memory is below crun's", memory(ours) < memory("crun")),
        ("the program is below 5 MB", size < 5_000_000),
    ];
    for (goal, met) in &goals {
        println!("{}: {goal}", if *met { "met" } else { "MISSED" });
    }
    ensure!(goals.iter().all(|(_, met)| *met), "goals were missed");
    Ok(())
}
