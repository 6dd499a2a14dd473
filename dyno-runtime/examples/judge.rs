//! An online judge's core: run a submission on one input and give a verdict as isolate does.
//!
//! `cargo run --example judge -- ROOTFS WANTED COMMAND [ARG…] <INPUT` (as root); limits come from the environment:
//! `TIME_MS` (wall clock, 1000), `MEMORY_MB` (64), `OUTPUT_KB` (64). Prints the verdict and the exit record.
//!
//! | verdict | meaning |
//! |---|---|
//! | OK, WA | ended with 0; the output is (not) the wanted one |
//! | RE | ended with another code or by a signal of its own |
//! | TLE, MLE, OLE | the limit of time, memory or output was reached |

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use dyno_runtime::{Cause, Dyno, ExitRecord, Host, Layer, Limits, Sandbox, StartOptions, Stdio, Streams};

struct Task {
    time: Duration,
    output: usize,
    input: Vec<u8>,
    wanted: String,
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (rootfs, wanted) = (args.next().context("usage: judge ROOTFS WANTED COMMAND…")?, args.next().context("what is wanted?")?);
    let mut sandbox = Sandbox::new(vec![Layer::Directory(rootfs.into())], args);
    sandbox.limits = Limits { memory: Some(number("MEMORY_MB", 64)? << 20), pids: Some(16), ..Limits::default() };
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input)?;
    let (time, output) = (Duration::from_millis(number("TIME_MS", 1000)?), usize::try_from(number("OUTPUT_KB", 64)? << 10)?);

    let name = format!("dyno-judge-{}", std::process::id());
    let host = Host::open(format!("/run/{name}").as_ref(), &name)?;
    let started = host.start("submission", &sandbox, StartOptions { stdio: Stdio::Pipes, ..Default::default() });
    let result = started.map_err(anyhow::Error::from).and_then(|mut dyno| {
        let judged = judge(&mut dyno, Task { time, output, input, wanted });
        dyno.free()?;
        judged
    });
    host.dismantle()?;
    let (verdict, exit) = result?;
    println!("{verdict} {exit:?}");
    Ok(())
}

fn number(name: &str, default: u64) -> Result<u64> {
    std::env::var(name).map_or(Ok(default), |text| text.parse().with_context(|| format!("{name}={text}")))
}

fn judge(dyno: &mut Dyno, task: Task) -> Result<(&'static str, ExitRecord)> {
    let Streams::Pipes { stdin, stdout, .. } = dyno.take_streams() else { bail!("no pipes") };
    let deadline = Instant::now() + task.time;
    // A submission that does not read its input must not hold us up; the write ends with EPIPE when it has ended.
    std::thread::spawn(move || File::from(stdin).write_all(&task.input));
    let (send, output) = mpsc::channel();
    std::thread::spawn(move || send.send(read_at_most(stdout, task.output)));
    // Ends with the program, or when it has written more than it may.
    let text = match output.recv_timeout(task.time) {
        Ok(text) => text?,
        Err(_) => return Ok(("TLE", stop(dyno)?)),
    };
    let Some(text) = text else { return Ok(("OLE", stop(dyno)?)) };
    let Some(exit) = dyno.wait_timeout(deadline.saturating_duration_since(Instant::now()))? else { return Ok(("TLE", stop(dyno)?)) };
    let verdict = match exit.cause {
        Cause::Memory => "MLE",
        Cause::Exited if exit.status == 0 && text.trim_end() == task.wanted => "OK",
        Cause::Exited if exit.status == 0 => "WA",
        _ => "RE",
    };
    Ok((verdict, exit))
}

fn stop(dyno: &Dyno) -> dyno_runtime::Result<ExitRecord> {
    dyno.kill()?;
    dyno.wait()
}

/// All of it, or None if it is more than `limit`.
fn read_at_most(from: OwnedFd, limit: usize) -> Result<Option<String>> {
    let mut text = Vec::new();
    File::from(from).take(limit as u64 + 1).read_to_end(&mut text)?;
    Ok((text.len() <= limit).then(|| String::from_utf8_lossy(&text).into_owned()))
}
