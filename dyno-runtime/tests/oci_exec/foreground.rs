//! Signals, statuses and orphans of `run` and `exec` in the foreground.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    support::{Stage, same},
    world::{Container, comes_true, ends, failed, said, until},
};

pub fn signals(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    for (signal, status) in
        [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129), (Signal::USR1, 138), (Signal::QUIT, 131), (Signal::ALARM, 142)]
    {
        let mut child = container.exec(&[], &["forever"]).spawn()?;
        until(child.stdout.as_mut().context("stdout")?, "here\n")?;
        kill_process(Pid::from_child(&child), signal)?;
        same(&format!("{signal:?}"), ends(child)?, Some(status))?;
    }
    // By number: a real-time one.
    let mut child = container.exec(&[], &["forever"]).spawn()?;
    until(child.stdout.as_mut().context("stdout")?, "here\n")?;
    ensure!(Command::new("/bin/kill").args(["-40", &child.id().to_string()]).status()?.success(), "kill");
    same("a real-time signal", ends(child)?, Some(168))?;
    // Not passed on: about our own terminal and our own children.
    let mut child = container.exec(&[], &["copy"]).stdin(Stdio::piped()).spawn()?;
    child.stdin.as_mut().context("stdin")?.write_all(b"begun\n")?;
    until(child.stdout.as_mut().context("stdout")?, "begun\n")?;
    for signal in [Signal::CHILD, Signal::URG, Signal::PIPE, Signal::WINCH] {
        kill_process(Pid::from_child(&child), signal)?;
    }
    drop(child.stdin.take());
    same("not passed on", ends(child)?, Some(0))?;
    // By `run` too, and the first process of a pid namespace gets only signals that it has handlers for.
    let other = Container::bundle(stage, &["copy"], |_| {})?;
    let mut child = other.run(&["--keep"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.as_mut().context("stdin")?.write_all(b"begun\n")?;
    until(child.stdout.as_mut().context("stdout")?, "begun\n")?;
    kill_process(Pid::from_child(&child), Signal::TERM)?;
    drop(child.stdin.take());
    same("run", ends(child)?, Some(0))
}

/// Two words of children wait at once, one to the process and one to its thread, and there is only one child to collect.
pub fn two_words_of_one_child(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    let mut child = container.exec(&[], &["copy"]).stdin(Stdio::piped()).spawn()?;
    child.stdin.as_mut().context("stdin")?.write_all(b"begun\n")?;
    until(child.stdout.as_mut().context("stdout")?, "begun\n")?;
    let runtime = child.id().to_string();
    kill_process(Pid::from_child(&child), Signal::STOP)?;
    let state = |pid: &str| fs::read_to_string(format!("/proc/{pid}/stat")).map(|stat| stat.rsplit(") ").next().and_then(|rest| rest.chars().next()));
    comes_true("the runtime stops", || Ok(state(&runtime)? == Some('T')))?;
    let program = fs::read_to_string(format!("/proc/{runtime}/task/{runtime}/children"))?;
    drop(child.stdin.take());
    comes_true("the program ends", || Ok(state(program.trim())? == Some('Z')))?;
    let tgkill = [libc::SYS_tgkill.to_string(), runtime.clone(), runtime, libc::SIGCHLD.to_string()];
    let sent = Command::new("perl")
        .args(["-e", "my ($call, @arguments) = map { 0 + $_ } @ARGV; exit(syscall($call, @arguments) != 0)"])
        .args(tgkill)
        .status();
    kill_process(Pid::from_child(&child), Signal::CONT)?;
    ensure!(sent?.success(), "tgkill");
    same("status", ends(child)?, Some(0))
}

/// `command`, by a caller that ignores these signals, which exec keeps.
fn ignoring(command: &Command) -> Command {
    let mut outer = Command::new("env");
    outer.arg("--ignore-signal=CHLD,HUP,PIPE,USR1").arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    outer
}

pub fn sigchld(stage: &Stage) -> Result<()> {
    let container = Container::start(stage, |_| {})?;
    same("status", failed(ignoring(&container.exec(&[], &["exit", "6"])))?.0, 6)?;
    same("failed", failed(ignoring(&container.exec(&[], &["nosuch"])))?.0, 101)?;
    let text = said(ignoring(&container.exec(&[], &["read", "/proc/self/status"])))?;
    // Rust's own start has the test program ignore SIGPIPE (13).
    ensure!(text.contains("SigIgn:\t0000000000001000") && text.contains("SigBlk:\t0000000000000000"), "{text}");
    let first = Container::bundle(stage, &["exit", "8"], |_| {})?;
    same("run", failed(ignoring(&first.run(&["--keep"])))?.0, 8)
}

/// Without a pid namespace orphans of the container are nobody's; `run` takes them for its children, and collects them.
pub fn orphans(stage: &Stage) -> Result<()> {
    let container = Container::bundle(stage, &["orphans"], |config| {
        if let Some(all) = config["linux"]["namespaces"].as_array_mut() {
            all.retain(|one| one["type"] != "pid");
        }
    })?;
    let mut child = container.run(&["--keep"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let runtime = child.id();
    until(child.stdout.as_mut().context("stdout")?, "orphaned\n")?;
    let children = || -> Result<Vec<i32>> {
        let text = fs::read_to_string(format!("/proc/{runtime}/task/{runtime}/children"))?;
        Ok(text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
    };
    let (first, orphan) = match children()?[..] {
        [first, orphan] => (first, orphan),
        ref other => bail!("the first process and its orphan: {other:?}"),
    };
    kill_process(Pid::from_raw(orphan).context("pid")?, Signal::KILL)?;
    comes_true("the orphan is collected", || Ok(children()? == [first]))?;
    drop(child.stdin.take());
    same("status", ends(child)?, Some(0))
}
