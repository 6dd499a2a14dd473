//! A runtime that is killed at any moment leaves what the next call can delete.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{
    support::{Stage, same},
    world::{World, answer_of},
};

/// Moments at which it is killed, spread over twice the time that it takes when left alone.
const MOMENTS: u32 = 40;

/// Lets `command` run for `time`, then kills it; whether it had ended before.
fn cut(mut command: Command, time: Duration) -> Result<bool> {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let began = Instant::now();
    // Shorter than any sleep is exact.
    while began.elapsed() < time {
        std::hint::spin_loop();
    }
    let ended = child.try_wait()?.is_some();
    child.kill()?;
    child.wait()?;
    Ok(ended)
}

/// For each moment: `prepare`, the command cut there, `check`.
fn at_each_moment(prepare: impl Fn() -> Result<()>, command: impl Fn() -> Command, check: impl Fn() -> Result<()>) -> Result<()> {
    prepare()?;
    let began = Instant::now();
    let whole = answer_of(command())?;
    let time = began.elapsed();
    ensure!(whole.status == 0, "{whole:?}");
    check()?;
    let mut ended = 0;
    for n in 0..MOMENTS {
        prepare()?;
        ended += u32::from(cut(command(), time * 2 * n / MOMENTS)?);
        check()?;
    }
    ensure!(ended < MOMENTS, "it was never cut");
    Ok(())
}

/// Whatever is left: the next calls see it, and `delete --force` takes it away.
fn taken_away(world: &World) -> Result<()> {
    let state = world.ask(&["state", "web"])?;
    ensure!(state.status == 0 || state.stderr.starts_with("dyno-runtime: container does not exist"), "{state:?}");
    world.must(&["list"])?;
    world.must(&["delete", "--force", "web"])?;
    world.is_empty()?;
    // The id can be had again.
    world.create("web")?;
    world.must(&["delete", "web"])?;
    world.is_empty()
}

/// Without a network namespace, and with all that a helper of the runtime's makes ahead.
fn worlds(stage: &Stage, args: &[&str]) -> Result<[World; 2]> {
    let ahead = |config: &mut Value| {
        config["linux"]["namespaces"] = json!(["pid", "mount", "uts", "ipc", "network", "cgroup"].map(|kind| json!({ "type": kind })));
        config["mounts"] = json!([
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
        ]);
    };
    Ok([World::new(stage, args, |_| {})?, World::new(stage, args, ahead)?])
}

pub fn create(stage: &Stage) -> Result<()> {
    worlds(stage, &["forever"])?.iter().try_for_each(|world| at_each_moment(|| Ok(()), || world.created("web"), || taken_away(world)))
}

pub fn start(stage: &Stage) -> Result<()> {
    let world = World::new(stage, &["forever"], |_| {})?;
    let check = || {
        let status = world.status("web")?;
        ensure!(status == "created" || status == "running", "{status}");
        // It can be started still, or has been.
        let again = world.ask(&["start", "web"])?;
        ensure!(again.status == 0 || again.stderr.contains("already running"), "{again:?}");
        same("running", world.status("web")?.as_str(), "running")?;
        taken_away(&world)
    };
    at_each_moment(|| world.create("web"), || world.command(&["start", "web"]), check)
}

pub fn delete(stage: &Stage) -> Result<()> {
    let world = World::new(stage, &["forever"], |_| {})?;
    at_each_moment(|| world.start("web"), || world.command(&["delete", "--force", "web"]), || taken_away(&world))
}

pub fn run(stage: &Stage) -> Result<()> {
    worlds(stage, &["exit", "0"])?.iter().try_for_each(|world| {
        let config = world.place("web")?.display().to_string();
        at_each_moment(|| Ok(()), || world.command(&["run", "--config", &config, "web"]), || taken_away(world))
    })
}
