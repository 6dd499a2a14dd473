//! Limits of the whole run, which the init holds: wall clock, processor time, output.

mod support;

use std::{
    fs,
    io::Read,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use dyno_runtime::{Cause, ErrorKind, ExitRecord, Limits, Sandbox, Stdio, Stream, Streams};

use support::{Case, Stage, read_all, same};

const CASES: &[Case] = &[
    ("wall_clock", wall_clock),
    ("processor_time_of_all_processes", processor_time_of_all_processes),
    ("output_to_pipes", output_to_pipes),
    ("output_to_the_log", output_to_the_log),
    ("output_that_nobody_reads", output_that_nobody_reads),
    ("output_needs_streams_that_can_be_counted", output_needs_streams_that_can_be_counted),
    ("below_the_limits_nothing_changes", below_the_limits_nothing_changes),
    ("processes_at_the_limit", processes_at_the_limit),
    ("file_size", file_size),
];

fn main() -> ExitCode {
    support::suite("run_limits", &[], CASES)
}

fn limited(stage: &Stage, args: &[&str], limits: Limits) -> Sandbox {
    Sandbox { limits, ..stage.sandbox(args) }
}

fn run(stage: &Stage, sandbox: &Sandbox, stdio: Stdio) -> Result<ExitRecord> {
    let dyno = stage.start(sandbox, stdio)?;
    let exit = dyno.wait()?;
    dyno.free()?;
    Ok(exit)
}

fn wall_clock(stage: &Stage) -> Result<()> {
    let limits = Limits { wall_ms: Some(120), ..Limits::default() };
    for stdio in [Stdio::Null, Stdio::Log, Stdio::Tty { rows: 24, cols: 80 }] {
        let began = Instant::now();
        let exit = run(stage, &limited(stage, &["nap", "60000"], limits.clone()), stdio)?;
        same("cause", (exit.cause, exit.status, exit.signal), (Cause::Time, 137, Some(libc::SIGKILL)))?;
        ensure!(exit.wall_us >= 120_000, "{exit:?}");
        ensure!(began.elapsed() < Duration::from_secs(30), "the program slept its minute");
    }
    Ok(())
}

fn processor_time_of_all_processes(stage: &Stage) -> Result<()> {
    let limits = Limits { cpu_ms: Some(200), ..Limits::default() };
    let one = run(stage, &limited(stage, &["spin", "60000"], limits.clone()), Stdio::Null)?;
    same("one process", one.cause, Cause::CpuTime)?;
    ensure!((50_000..30_000_000).contains(&one.cpu_us), "{one:?}");
    let many = run(stage, &limited(stage, &["children", "4", "60000"], limits.clone()), Stdio::Null)?;
    same("four processes", many.cause, Cause::CpuTime)?;
    // Its start alone may take half a second of an emulated processor.
    let limits = Limits { cpu_ms: Some(if support::emulated() { 3000 } else { 200 }), ..limits };
    let idle = run(stage, &limited(stage, &["nap", if support::emulated() { "4000" } else { "600" }], limits), Stdio::Null)?;
    same("sleeping takes none", (idle.cause, idle.status), (Cause::Exited, 0))
}

fn output_to_pipes(stage: &Stage) -> Result<()> {
    let limits = Limits { output: Some(50_000), ..Limits::default() };
    let mut dyno = stage.start(&limited(stage, &["flood", "100000000"], limits), Stdio::Pipes)?;
    let Streams::Pipes { stdout, stderr, .. } = dyno.take_streams() else { bail!("no pipes") };
    let err = std::thread::spawn(|| read_all(stderr));
    let out = read_all(stdout)?.len();
    let err = err.join().map_err(|_| anyhow::anyhow!("panicked"))??.len();
    let exit = dyno.wait()?;
    dyno.free()?;
    same("cause", exit.cause, Cause::Output)?;
    same("what was let through", out + err, 50_000)
}

fn output_to_the_log(stage: &Stage) -> Result<()> {
    let limits = Limits { output: Some(50_000), ..Limits::default() };
    let exit = run(stage, &limited(stage, &["flood", "100000000"], limits), Stdio::Log)?;
    same("cause", exit.cause, Cause::Output)
}

/// The init must not hang with its app in what the caller does not take.
fn output_that_nobody_reads(stage: &Stage) -> Result<()> {
    let limits = Limits { output: Some(10_000_000), wall_ms: Some(300), ..Limits::default() };
    let dyno = stage.start(&limited(stage, &["flood", "5000000"], limits), Stdio::Pipes)?;
    same("the wall clock ends it", dyno.wait()?.cause, Cause::Time)?;
    dyno.free()?;
    // A reader that goes away is the app's to notice.
    let limits = Limits { output: Some(10_000_000), ..Limits::default() };
    let mut dyno = stage.start(&limited(stage, &["flood", "5000000"], limits), Stdio::Pipes)?;
    drop(dyno.take_streams());
    let exit = dyno.wait()?;
    ensure!(exit.status != 0 && exit.cause == Cause::Exited, "{exit:?}");
    Ok(dyno.free()?)
}

fn output_needs_streams_that_can_be_counted(stage: &Stage) -> Result<()> {
    let limits = Limits { output: Some(1000), ..Limits::default() };
    for stdio in [
        Stdio::Null,
        Stdio::Inherit,
        Stdio::Tty { rows: 1, cols: 1 },
        Stdio::Each { stdin: Stream::Null, stdout: Stream::Pipe, stderr: Stream::Null },
    ] {
        let Err(error) = stage.start(&limited(stage, &["say"], limits.clone()), stdio) else { bail!("it started") };
        same("kind", error.kind(), ErrorKind::Invalid)?;
        ensure!(error.to_string().starts_with("limits.output "), "{error}");
    }
    Ok(())
}

fn below_the_limits_nothing_changes(stage: &Stage) -> Result<()> {
    let limits = Limits { output: Some(1_000_000), wall_ms: Some(60_000), cpu_ms: Some(60_000), ..Limits::default() };
    let (exit, text) = stage.output(&limited(stage, &["lines", "20000"], limits.clone()))?;
    same("all of it", text.lines().count(), 20_000)?;
    same("exit", (exit.status, exit.cause), (0, Cause::Exited))?;
    let mut dyno = stage.start(&limited(stage, &["copy"], limits), Stdio::Pipes)?;
    let Streams::Pipes { stdin, stdout, .. } = dyno.take_streams() else { bail!("no pipes") };
    let mut stdout = fs::File::from(stdout);
    let mut stdin = fs::File::from(stdin);
    // Every byte comes at once, not when the program ends.
    for word in ["one\n", "two\n"] {
        std::io::Write::write_all(&mut stdin, word.as_bytes())?;
        let mut back = [0; 4];
        stdout.read_exact(&mut back)?;
        same("echo", &back[..], word.as_bytes())?;
    }
    drop(stdin);
    same("status", dyno.wait()?.status, 0)?;
    Ok(dyno.free()?)
}

fn processes_at_the_limit(stage: &Stage) -> Result<()> {
    let limits = Limits { pids: Some(4), ..Limits::default() };
    let exit = run(stage, &limited(stage, &["children", "10", "1"], limits), Stdio::Null)?;
    same("cause", exit.cause, Cause::Pids)
}

fn file_size(stage: &Stage) -> Result<()> {
    let limits = Limits { file_size: Some(20_000), ..Limits::default() };
    let exit = run(stage, &limited(stage, &["fill", "/tmp/x"], limits), Stdio::Null)?;
    same("signal", exit.signal, Some(libc::SIGXFSZ))
}
