//! The examples, run as a reader would run them.

mod support;

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, ExitCode, Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use support::{Case, PROGRAM, Stage, same};

const CASES: &[Case] = &[
    ("hello", hello),
    ("judge_gives_every_verdict", judge_gives_every_verdict),
    ("paas_keeps_workers_alive", paas_keeps_workers_alive),
    ("paas_sweeps_what_a_killed_one_left", paas_sweeps_what_a_killed_one_left),
    ("shell", shell),
];

fn main() -> ExitCode {
    support::suite("examples", &[], CASES)
}

/// cargo builds examples with the tests, and puts them beside their directory.
fn example(name: &str) -> Result<Command> {
    let test = std::env::current_exe()?;
    let path: PathBuf = test.parent().and_then(|deps| deps.parent()).context("where are the examples?")?.join("examples").join(name);
    ensure!(path.exists(), "{} is missing: cargo build --examples", path.display());
    Ok(Command::new(path))
}

/// With these bytes on its stdin.
fn output(command: &mut Command, input: &str) -> Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("stdin")?.write_all(input.as_bytes())?;
    Ok(child.wait_with_output()?)
}

fn hello(stage: &Stage) -> Result<()> {
    let done = output(example("hello")?.arg(stage.rootfs()).args([PROGRAM, "say", "hello"]), "")?;
    same("output", String::from_utf8_lossy(&done.stdout).as_ref(), "hello\n")?;
    same("status", done.status.code(), Some(0))?;
    let failed = output(example("hello")?.arg(stage.rootfs()).args([PROGRAM, "exit", "5"]), "")?;
    same("status", failed.status.code(), Some(5))?;
    let absent = output(example("hello")?.arg(stage.rootfs()).arg("/bin/nothing"), "")?;
    same("status", absent.status.code(), Some(1))?;
    ensure!(!std::path::Path::new("/run/dyno-hello").exists(), "the instance is left after a failure");
    Ok(())
}

fn judge_gives_every_verdict(stage: &Stage) -> Result<()> {
    let cases: &[(&str, &str, &[&str])] = &[
        ("OK", "the input", &["copy"]),
        ("WA", "another", &["copy"]),
        ("RE", "", &["exit", "1"]),
        ("RE", "", &["abort"]),
        ("TLE", "", &["spin", "60000"]),
        ("TLE", "", &["forever"]),
        ("MLE", "", &["eat", "200000000"]),
        ("OLE", "", &["lines", "100000000"]),
    ];
    for (verdict, wanted, args) in cases {
        let done = output(example("judge")?.arg(stage.rootfs()).args([wanted, PROGRAM]).args(*args).env("TIME_MS", "1500"), "the input\n")?;
        let text = String::from_utf8_lossy(&done.stdout);
        ensure!(text.starts_with(&format!("{verdict} ExitRecord")), "{args:?}: want {verdict}, got {text} {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}

/// The example with its own name, three workers, and its lines as they come.
fn paas(stage: &Stage, args: &[&str]) -> Result<(Child, impl Iterator<Item = std::io::Result<String>>)> {
    let mut command = example("paas")?;
    command.arg(stage.rootfs()).args(["3", PROGRAM]).args(args).env("PAAS_NAME", format!("{}-paas", stage.name));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(child.stdout.take().context("stdout")?).lines();
    Ok((child, lines))
}

fn paas_keeps_workers_alive(stage: &Stage) -> Result<()> {
    let (mut child, mut lines) = paas(stage, &["nap", "30"])?;
    // Each of the three came back twice.
    let mut seen = Vec::new();
    while !(1..=3).all(|n| seen.contains(&format!("up worker.{n}.3"))) {
        seen.push(lines.next().context("it ended")??);
    }
    for n in 1..=3 {
        ensure!(seen.contains(&format!("ended worker.{n}.1 0 Exited")), "{seen:#?}");
    }
    drop(child.stdin.take());
    same("status", child.wait()?.code(), Some(0))?;
    let (mut crashing, mut lines) = paas(stage, &["exit", "3"])?;
    while lines.next().context("it ended")?? != "ended worker.2.2 3 Exited" {}
    drop(crashing.stdin.take());
    same("status", crashing.wait()?.code(), Some(0))
}

fn paas_sweeps_what_a_killed_one_left(stage: &Stage) -> Result<()> {
    let (mut child, mut lines) = paas(stage, &["forever"])?;
    while !lines.next().context("it ended")??.starts_with("up worker.3") {}
    kill_process(Pid::from_child(&child), Signal::KILL)?;
    child.wait()?;
    let (mut next, mut lines) = paas(stage, &["forever"])?;
    let mut seen = Vec::new();
    while !seen.contains(&"up worker.3.1".to_owned()) {
        seen.push(lines.next().context("it ended")??);
    }
    for n in 1..=3 {
        ensure!(seen.contains(&format!("found worker.{n}.1 running")), "{seen:#?}");
    }
    drop(next.stdin.take());
    let rest = lines.collect::<std::io::Result<Vec<_>>>()?;
    ensure!(rest.iter().filter(|line| line.ends_with(" 143")).count() == 3, "stopped by SIGTERM: {rest:#?}");
    same("status", next.wait()?.code(), Some(0))
}

fn shell(stage: &Stage) -> Result<()> {
    let done = output(example("shell")?.arg(stage.rootfs()).args([PROGRAM, "terminal"]), "typed\n")?;
    let text = String::from_utf8_lossy(&done.stdout);
    for line in ["true true true\r\n", "TYPED\r\n"] {
        ensure!(text.contains(line), "{line:?} is not in {text:?}");
    }
    same("status", done.status.code(), Some(0))
}
