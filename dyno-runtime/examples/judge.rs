//! An online judge's core: run a submission on one input and give a verdict as isolate does.
//!
//! `cargo run --example judge -- ROOTFS WANTED COMMAND [ARG…] <INPUT` (as root); limits come from the environment:
//! `TIME_MS` (of the processor, 1000; twice as much by the clock), `MEMORY_MB` (64), `OUTPUT_KB` (64). Prints the verdict and the exit
//! record.
//!
//! | verdict | meaning |
//! |---|---|
//! | OK, WA | ended with 0; the output is (not) the wanted one |
//! | RE | ended with another code or by a signal of its own |
//! | TLE, MLE, OLE | the limit of time, memory or output was reached |
//!
//! Nothing here watches the submission: the limits are the sandbox's own, and its exit record names the one that was reached.

use std::{
    fs::File,
    io::{Read, Write},
};

use anyhow::{Context, Result, bail};
use dyno_runtime::{Cause, Dyno, ExitRecord, Host, Layer, Limits, Sandbox, StartOptions, Stdio, Streams};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (rootfs, wanted) = (args.next().context("usage: judge ROOTFS WANTED COMMAND…")?, args.next().context("what is wanted?")?);
    let mut sandbox = Sandbox::new(vec![Layer::Directory(rootfs.into())], args);
    let time = number("TIME_MS", 1000)?;
    sandbox.limits = Limits {
        memory: Some(number("MEMORY_MB", 64)? << 20),
        pids: Some(16),
        cpu_ms: Some(time),
        // Who sleeps uses no processor.
        wall_ms: Some(2 * time),
        output: Some(number("OUTPUT_KB", 64)? << 10),
        ..Limits::default()
    };
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input)?;

    let name = format!("dyno-judge-{}", std::process::id());
    let host = Host::open(format!("/run/{name}").as_ref(), &name)?;
    let started = host.start("submission", &sandbox, StartOptions { stdio: Stdio::Pipes, ..Default::default() });
    let result = started.map_err(anyhow::Error::from).and_then(|mut dyno| {
        let judged = judge(&mut dyno, input, &wanted);
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

fn judge(dyno: &mut Dyno, input: Vec<u8>, wanted: &str) -> Result<(&'static str, ExitRecord)> {
    let Streams::Pipes { stdin, stdout, .. } = dyno.take_streams() else { bail!("no pipes") };
    // A submission that does not read its input must not hold us up; the write ends with EPIPE when it has ended.
    std::thread::spawn(move || File::from(stdin).write_all(&input));
    // Ends with the program, and is never more than it may write.
    let mut text = Vec::new();
    File::from(stdout).read_to_end(&mut text)?;
    let exit = dyno.wait()?;
    let verdict = match exit.cause {
        Cause::Time | Cause::CpuTime => "TLE",
        Cause::Memory => "MLE",
        Cause::Output => "OLE",
        Cause::Exited if exit.status == 0 && String::from_utf8_lossy(&text).trim_end() == wanted => "OK",
        Cause::Exited if exit.status == 0 => "WA",
        _ => "RE",
    };
    Ok((verdict, exit))
}
