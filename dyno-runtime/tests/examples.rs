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
    ("untrusted_build", untrusted_build),
    ("untrusted_build_of_a_crate_that_does_not_compile", untrusted_build_of_a_crate_that_does_not_compile),
    ("async_tokio", async_tokio),
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

/// Why nothing can be compiled here.
fn no_toolchain() -> Option<String> {
    support::missing(&["rustc", "cargo", "cc", "mkfs.ext4"])
}

fn untrusted_build(stage: &Stage) -> Result<()> {
    if let Some(reason) = no_toolchain() {
        println!("skipped: {reason}");
        return Ok(());
    }
    let program = stage.work().join("built");
    let done = output(example("untrusted_build")?.arg(&program), "")?;
    let (said, log) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    same("status", done.status.code(), Some(0)).with_context(|| log.to_string())?;
    ensure!(said.starts_with("ExitRecord { status: 0") && log.contains("Compiling program"), "{said} {log}");
    // What its build script found went into the program, which nobody has to run for it.
    let built = std::fs::read(&program)?;
    ensure!(built.starts_with(b"\x7fELF"), "no program");
    ensure!(built.windows(22).any(|text| text == b"Network is unreachable"), "the build script had a network");
    Ok(std::fs::remove_file(&program)?)
}

fn untrusted_build_of_a_crate_that_does_not_compile(stage: &Stage) -> Result<()> {
    if let Some(reason) = no_toolchain() {
        println!("skipped: {reason}");
        return Ok(());
    }
    let (source, program) = (stage.work().join("crate"), stage.work().join("built"));
    std::fs::create_dir_all(source.join("src"))?;
    std::fs::write(source.join("Cargo.toml"), "[package]\nname = \"broken\"\nversion = \"0.1.0\"\nedition = \"2021\"\n")?;
    std::fs::write(source.join("Cargo.lock"), "version = 3\n\n[[package]]\nname = \"broken\"\nversion = \"0.1.0\"\n")?;
    std::fs::write(source.join("src/main.rs"), "fn main() { no }")?;
    let done = output(example("untrusted_build")?.arg(&program).arg(&source), "")?;
    same("status", done.status.code(), Some(1))?;
    let (said, log) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    ensure!(said.contains("status: 101") && log.contains("cannot find value `no`"), "{said} {log}");
    std::fs::remove_dir_all(&source)?;
    Ok(std::fs::remove_file(&program)?)
}

/// A sandbox takes about 1 MiB of the host, half of it the kernel's.
fn async_tokio(stage: &Stage) -> Result<()> {
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let kib =
        memory.lines().find_map(|l| l.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()).context("MemAvailable")?;
    let wanted = if support::emulated() { 50 } else { 1000 };
    let count = (kib / 2048).min(wanted);
    if count < wanted {
        println!("skipped: {} of {wanted} sandboxes: only {kib} KiB of memory are free", wanted - count);
    }
    let done = output(example("async_tokio")?.arg(stage.rootfs()).args([&count.to_string(), PROGRAM, "forever"]), "")?;
    let said = String::from_utf8_lossy(&done.stdout);
    same("status", done.status.code(), Some(0)).with_context(|| String::from_utf8_lossy(&done.stderr).to_string())?;
    ensure!(said.starts_with(&format!("{count} of {count} alive together, ")) && said.contains(&format!("\n{count} ended, ")), "{said}");
    // A program that cannot be started in any of them is one error, and leaves nothing.
    let absent = output(example("async_tokio")?.arg(stage.rootfs()).args(["20", "/bin/nothing"]), "")?;
    same("status", absent.status.code(), Some(1))?;
    ensure!(String::from_utf8_lossy(&absent.stderr).contains("execve"), "{absent:?}");
    Ok(())
}
