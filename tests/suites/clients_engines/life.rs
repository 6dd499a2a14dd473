//! A container's life with any engine: made, stopped, started again.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use dyno_tests::{
    Process,
    clients::{Engine, Outcome, group},
    until,
};

pub fn statuses<E: Engine>(engine: &E) -> Result<Outcome> {
    for (script, status) in [("true", 0), ("exit 7", 7), ("exit 255", 255), ("sh -c 'kill -9 $$'", 137), ("sh -c 'kill -15 $$'", 143)] {
        let said = engine.run(&[], &["sh", "-c", &format!("{script}; exit $?")])?;
        ensure!(said.status == status, "{script}: {said:?}");
    }
    let said = engine.run(&[], &["sh", "-c", "echo out; echo err >&2"])?;
    ensure!(said.stdout == "out\n" && said.stderr == "err\n", "{said:?}");
    Ok(Outcome::Seen)
}

pub fn paused<E: Engine>(engine: &E) -> Result<Outcome> {
    engine.with("paused", &[], &["sh", "-c", "while :; do echo >> /tmp/beats; sleep 0.01; done"], |pid| {
        engine.ok(&["pause", "paused"])?;
        ensure!(engine.inspect("paused")?["State"]["Status"] == "paused");
        ensure!(group(pid)?.is_frozen(), "its group is not frozen");
        let beats = || Ok::<_, anyhow::Error>(fs::metadata(format!("/proc/{pid}/root/tmp/beats"))?.len());
        let (before, end) = (beats()?, Instant::now() + Duration::from_millis(100));
        while Instant::now() < end {
            ensure!(beats()? == before, "it goes on while it is paused");
        }
        let refused = engine.say(&["exec", "paused", "true"])?;
        ensure!(refused.status != 0, "exec into a paused container: {refused:?}");
        engine.ok(&["unpause", "paused"])?;
        ensure!(engine.inspect("paused")?["State"]["Status"] == "running");
        until(10, "it goes on", || Ok((beats()? > before).then_some(())))?;
        // One that is paused can be removed as well: what follows is `rm --force`.
        engine.ok(&["pause", "paused"]).map(drop)
    })?;
    Ok(Outcome::Seen)
}

pub fn stopped<E: Engine>(engine: &E) -> Result<Outcome> {
    let polite = "trap 'echo asked; exit 3' TERM; trap 'echo told' USR1; echo up; while :; do sleep 0.05; done";
    engine.with("polite", &[], &["sh", "-c", polite], |pid| {
        let up = |text: &str| until(10, "it says so", || Ok(engine.ok(&["logs", "polite"])?.contains(text).then_some(())));
        let (init, groups) = (Process::find(pid).context("init")?, group(pid)?);
        up("up")?;
        engine.ok(&["kill", "--signal", "USR1", "polite"])?;
        up("told")?;
        engine.ok(&["stop", "--time", "30", "polite"])?;
        ensure!(engine.inspect("polite")?["State"]["ExitCode"] == 3 && !init.runs());
        until(10, "its control groups are gone", || Ok(groups.left().is_empty().then_some(())))
    })?;
    engine.with("deaf", &[], &["sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000"], |_| {
        engine.ok(&["stop", "--time", "1", "deaf"])?;
        ensure!(engine.inspect("deaf")?["State"]["ExitCode"] == 137);
        Ok(())
    })?;
    engine.with("killed", &[], &["sh", "-c", "sleep 1000 & sleep 1000"], |_| {
        engine.ok(&["kill", "killed"])?;
        ensure!(engine.ok(&["wait", "killed"])? == "137");
        let refused = engine.say(&["kill", "killed"])?;
        ensure!(refused.status != 0, "a container that has ended was killed: {refused:?}");
        Ok(())
    })?;
    Ok(Outcome::Seen)
}

pub fn restarted<E: Engine>(engine: &E) -> Result<Outcome> {
    engine.with("again", &["--tmpfs", "/fresh"], &["sh", "-c", "echo >> /tmp/starts; exec sleep 1000"], |first| {
        let starts = || engine.ok(&["exec", "again", "sh", "-c", "wc -l < /tmp/starts; ls /fresh; > /fresh/file"]);
        until(10, "it has begun", || Ok((starts().is_ok_and(|n| n.starts_with('1'))).then_some(())))?;
        engine.ok(&["restart", "--time", "0", "again"])?;
        let second = engine.pid("again")?;
        ensure!(second != first && Process::find(first).is_none(), "{first} {second}");
        until(10, "it has begun", || Ok((starts()? == "2").then_some(())))?;
        engine.ok(&["stop", "--time", "0", "again"])?;
        engine.ok(&["start", "again"])?;
        until(10, "it has begun", || Ok((starts()? == "3").then_some(())))
    })?;
    let once = "test -e /tmp/once && exit 0; > /tmp/once; exit 1";
    engine.ok(&engine.arguments("create", &["--name", "policy", "--restart", "on-failure:3"], &["sh", "-c", once]))?;
    engine.ok(&["start", "policy"])?;
    until(15, "it is started again, and is done", || {
        let seen = engine.inspect("policy")?;
        Ok((seen["RestartCount"] == 1 && seen["State"]["Status"] == "exited" && seen["State"]["ExitCode"] == 0).then_some(()))
    })?;
    engine.ok(&["rm", "policy"])?;
    Ok(Outcome::Seen)
}
