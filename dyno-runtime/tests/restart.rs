//! The embedder's process ends, its dynos do not: handles are dropped and taken up again.

pub(crate) mod support;

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail, ensure};
use dyno_runtime::{Cause, Dyno, Found, Host, Stdio, Streams};

use support::{Case, Stage, same};

pub(crate) const CASES: &[Case] = &[
    ("a_running_dyno_is_adopted", a_running_dyno_is_adopted),
    ("exit_record_after_adoption", exit_record_after_adoption),
    ("ended_while_nobody_watched", ended_while_nobody_watched),
    ("log_after_adoption", log_after_adoption),
    ("half_made_starts_are_swept", half_made_starts_are_swept),
    ("a_reused_pid_is_no_dyno", a_reused_pid_is_no_dyno),
    ("sweep_ends_what_runs", sweep_ends_what_runs),
    ("dismantle_refuses_while_a_dyno_is_left", dismantle_refuses_while_a_dyno_is_left),
];

fn main() -> ExitCode {
    support::suite("restart", &[], CASES)
}

/// A second handle on the same instance, as a restarted process would have.
fn reopened(stage: &Stage) -> Result<Host> {
    Ok(Host::open(&stage.run, &stage.name)?)
}

fn only(found: Vec<Found>) -> Result<Found> {
    same("found", found.len(), 1)?;
    found.into_iter().next().context("nothing")
}

fn adopt(stage: &Stage) -> Result<Dyno> {
    match only(reopened(stage)?.recover()?)? {
        Found::Running(dyno) => Ok(dyno),
        Found::Ended(id, exit) => bail!("{id} has ended: {exit:?}"),
    }
}

fn a_running_dyno_is_adopted(stage: &Stage) -> Result<()> {
    let dyno = stage.forever()?;
    let record = dyno.record().clone();
    drop(dyno);
    let dyno = adopt(stage)?;
    same("record", dyno.record(), &record)?;
    same("runs", dyno.has_ended(), false)?;
    ensure!(dyno.usage().memory.is_some_and(|m| m > 0), "{:?}", dyno.usage());
    dyno.socket()?;
    dyno.free()?;
    same("nothing is left to find", reopened(stage)?.recover()?.len(), 0)
}

fn exit_record_after_adoption(stage: &Stage) -> Result<()> {
    for (signal, status, cause) in [(libc::SIGTERM, 143, Cause::Exited), (libc::SIGKILL, 137, Cause::Killed)] {
        let dyno = stage.forever()?;
        let timing = dyno.timing();
        drop(dyno);
        let dyno = adopt(stage)?;
        dyno.signal(signal)?;
        let exit = dyno.wait()?;
        same("exit", (exit.status, exit.signal, exit.cause), (status, Some(signal), cause))?;
        ensure!(timing.prepare_us > 0 && timing.walls_us > 0 && timing.exec_us > 0, "{timing:?}");
        same("phases of its start", (exit.timing.prepare_us, exit.timing.walls_us), (timing.prepare_us, timing.walls_us))?;
        // Only the init that lived to write it knows the rest. It begins by itself, before or after its starter has seen the walls up.
        ensure!(
            if cause == Cause::Exited { (1..=timing.walls_us + timing.exec_us).contains(&exit.timing.exec_us) } else { exit.timing.exec_us == 0 },
            "{exit:?}"
        );
        dyno.free()?;
    }
    Ok(())
}

fn ended_while_nobody_watched(stage: &Stage) -> Result<()> {
    let dyno = stage.start(&stage.sandbox(&["exit", "3"]), Stdio::Null)?;
    let id = dyno.id().to_owned();
    // Not by `wait`: that its process is collected is up to whoever takes it up.
    rustix::event::poll(&mut [rustix::event::PollFd::from_borrowed_fd(dyno.pidfd(), rustix::event::PollFlags::IN)], None)?;
    drop(dyno);
    match only(reopened(stage)?.recover()?)? {
        Found::Ended(found, exit) => {
            same("id", &found, &id)?;
            same("exit", (exit.status, exit.cause), (3, Cause::Exited))?;
            ensure!(exit.memory_peak.is_some_and(|m| m > 0) && exit.wall_us > 0, "{exit:?}");
        }
        Found::Running(dyno) => bail!("{} runs", dyno.id()),
    }
    Ok(stage.host.sweep(&id)?)
}

fn log_after_adoption(stage: &Stage) -> Result<()> {
    drop(stage.start(&stage.sandbox(&["read-and-wait", "/proc/sys/kernel/hostname"]), Stdio::Log)?);
    let mut dyno = adopt(stage)?;
    let Streams::Log(fd) = dyno.take_streams() else { bail!("no log") };
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    while !String::from_utf8_lossy(&bytes).contains("here\n") {
        rustix::event::poll(&mut [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)], None)?;
        let n = rustix::io::read(&fd, &mut chunk)?;
        ensure!(n > 0, "the log ended");
        bytes.extend_from_slice(&chunk[..n]);
    }
    ensure!(String::from_utf8_lossy(&bytes).contains("dyno\n"), "what it said before is lost");
    Ok(dyno.free()?)
}

/// What a kill in the middle of a start leaves: the intent without a process, a cgroup, a lease.
fn half_made_starts_are_swept(stage: &Stage) -> Result<()> {
    let dyno = stage.forever()?;
    let mut record = serde_json::to_value(dyno.record())?;
    record["pid"] = 0.into();
    fs::write(stage.host.dyno_dir(dyno.id()).join("record.json"), record.to_string())?;
    let pid = dyno.pid();
    drop(dyno);
    fs::create_dir(stage.host.dyno_dir("empty"))?;
    let (ours, foreign) = (Path::new("/run/dyno-leases/31999"), Path::new("/run/dyno-leases/31998"));
    fs::write(ours, format!("{}\nnobody", stage.run.display()))?;
    fs::write(foreign, "/run/another-instance\nsomebody")?;
    same("found", reopened(stage)?.recover()?.len(), 0)?;
    same("our lease is left", ours.exists(), false)?;
    same("another instance's lease is left", foreign.exists(), true)?;
    fs::remove_file(foreign)?;
    // Killed and reaped: its number is free.
    ensure!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} is left");
    Ok(())
}

fn a_reused_pid_is_no_dyno(stage: &Stage) -> Result<()> {
    type Change = fn(&mut serde_json::Value);
    let cases: [(&str, Change); 3] =
        [("start time", |r| r["start_time"] = 1.into()), ("boot", |r| r["boot_id"] = "another".into()), ("pid", |r| r["pid"] = 1.into())];
    for (what, change) in cases {
        let dyno = stage.forever()?;
        let mut record = serde_json::to_value(dyno.record())?;
        change(&mut record);
        fs::write(stage.host.dyno_dir(dyno.id()).join("record.json"), record.to_string())?;
        let found = only(reopened(stage)?.recover()?)?;
        ensure!(matches!(&found, Found::Ended(..)), "{what}: {found:?}");
        stage.host.sweep(found.id())?;
        same(what, dyno.wait()?.cause, Cause::Lost)?;
    }
    Ok(())
}

fn sweep_ends_what_runs(stage: &Stage) -> Result<()> {
    let dyno = stage.forever()?;
    stage.host.sweep(dyno.id())?;
    same("ended", dyno.has_ended(), true)?;
    stage.host.sweep(dyno.id())?; // Twice is no error.
    ensure!(stage.host.sweep("../x").is_err(), "a path as id");
    Ok(())
}

fn dismantle_refuses_while_a_dyno_is_left(stage: &Stage) -> Result<()> {
    let dyno = stage.forever()?;
    let error = stage.host.clone().dismantle().err().context("dismantled")?;
    ensure!(error.to_string().contains("dynos are left"), "{error}");
    same("it runs on", dyno.has_ended(), false)?;
    Ok(dyno.free()?)
}
