//! Limits, as a program meets them.

mod support;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use dyno_runtime::{Cause, Limits, Sandbox, Stdio, Upper};

use support::{Case, Stage, same};

const CASES: &[Case] = &[
    ("processes_and_threads", processes_and_threads),
    ("open_files", open_files),
    ("cpu_quota", cpu_quota),
    ("writable_layer_in_bytes", writable_layer_in_bytes),
    ("writable_layer_in_files", writable_layer_in_files),
    ("writable_layer_counts_as_memory", writable_layer_counts_as_memory),
    ("the_least_memory_that_may_be_asked", the_least_memory_that_may_be_asked),
    ("usage_of_a_live_one", usage_of_a_live_one),
    ("no_limits", no_limits),
];

fn main() -> ExitCode {
    support::suite("limits", &[], CASES)
}

fn number(text: &str) -> Result<u64> {
    text.split_whitespace().next().and_then(|n| n.parse().ok()).with_context(|| format!("no number: {text:?}"))
}

fn processes_and_threads(stage: &Stage) -> Result<()> {
    let mut sandbox = stage.sandbox(&["threads", "100"]);
    sandbox.limits.pids = Some(12);
    // Ours and the program's main thread are two of them.
    same("threads", stage.output(&sandbox)?.1, format!("10 errno {}\n", libc::EAGAIN))
}

fn open_files(stage: &Stage) -> Result<()> {
    for files in [16, 20, 300] {
        let mut sandbox = stage.sandbox(&["open-files"]);
        sandbox.limits.open_files = files;
        same("files", stage.output(&sandbox)?.1, format!("{} errno {}\n", files - 3, libc::EMFILE))?;
    }
    Ok(())
}

/// A tenth of a CPU: 100 ms of wall time of a busy loop that gets no more than its share of each period.
fn cpu_quota(stage: &Stage) -> Result<()> {
    let mut sandbox = stage.sandbox(&["spin", "500"]);
    sandbox.limits.cpu_millis = Some(100);
    let (exit, _) = stage.output(&sandbox)?;
    // Each begun period of 100 ms may give it 10 ms and a clock tick of overrun.
    ensure!(exit.cpu_us * 3 < exit.wall_us, "no quota held: {exit:?}");
    Ok(())
}

fn writable_layer_in_bytes(stage: &Stage) -> Result<()> {
    let mut sandbox = stage.sandbox(&["fill", "/tmp/file"]);
    sandbox.root.upper = Upper::Tmpfs { bytes: 1 << 20, inodes: 100 };
    let text = stage.output(&sandbox)?.1;
    ensure!(text.ends_with(&format!("errno {}\n", libc::ENOSPC)), "{text}");
    ensure!((1 << 20) - 65536 < number(&text)? && number(&text)? <= 1 << 20, "{text}");
    sandbox.argv[2] = "/dev/shm/file".into();
    sandbox.limits.memory = Some(256 << 20);
    same("shared memory", stage.output(&sandbox)?.1, format!("{} errno {}\n", 64 << 20, libc::ENOSPC))
}

fn writable_layer_in_files(stage: &Stage) -> Result<()> {
    let mut sandbox = stage.sandbox(&["files", "/tmp"]);
    sandbox.root.upper = Upper::Tmpfs { bytes: 1 << 20, inodes: 40 };
    let text = stage.output(&sandbox)?.1;
    ensure!(text.ends_with(&format!("errno {}\n", libc::ENOSPC)), "{text}");
    // Some are the overlay's own.
    ensure!((20..40).contains(&number(&text)?), "{text}");
    Ok(())
}

fn writable_layer_counts_as_memory(stage: &Stage) -> Result<()> {
    let mut sandbox = stage.sandbox(&["fill", "/tmp/file"]);
    sandbox.root.upper = Upper::Tmpfs { bytes: 1 << 30, inodes: 100 };
    sandbox.limits.memory = Some(24 << 20);
    let (exit, text) = stage.output(&sandbox)?;
    same("ended by", (exit.status, exit.cause), (137, Cause::Memory))?;
    same("said", text, String::new())
}

fn the_least_memory_that_may_be_asked(stage: &Stage) -> Result<()> {
    let mut sandbox = stage.sandbox(&["say", "small"]);
    sandbox.limits.memory = Some(4 << 20);
    for _ in 0..20 {
        let (exit, text) = stage.output(&sandbox)?;
        same("runs", (exit.status, text.as_str()), (0, "small\n"))?;
    }
    Ok(())
}

fn usage_of_a_live_one(stage: &Stage) -> Result<()> {
    let dyno = stage.forever()?;
    let usage = dyno.usage();
    ensure!(usage.memory.is_some_and(|m| m > 100_000) && usage.memory_peak >= usage.memory, "{usage:?}");
    same("nothing refused", (usage.oom_kills, usage.pids_refused), (0, 0))?;
    dyno.free()?;
    let mut sandbox = stage.sandbox(&["threads", "100"]);
    sandbox.limits.pids = Some(8);
    let dyno = stage.start(&sandbox, Stdio::Null)?;
    dyno.wait()?;
    ensure!(dyno.usage().pids_refused >= 1, "{:?}", dyno.usage());
    Ok(dyno.free()?)
}

fn no_limits(stage: &Stage) -> Result<()> {
    let limits = Limits { memory: None, pids: None, cpu_weight: None, cpu_millis: None, open_files: 1024, ..Limits::default() };
    let (exit, text) = stage.output(&Sandbox { limits, ..stage.sandbox(&["threads", "300"]) })?;
    same("threads", (exit.status, text.as_str()), (0, "300\n"))
}
