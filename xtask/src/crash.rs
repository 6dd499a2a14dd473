//! `cargo xtask crash`: somebody is killed, or told of a failure, at every system call of a start and of a stop.

use std::process::Command;

use anyhow::Result;

use crate::{cargo, host};

/// Which runs.
#[derive(Debug, Default, clap::Args)]
pub struct Options {
    /// One call of each name instead of every call: what `cargo xtask test` does.
    #[arg(long, conflicts_with = "write")]
    short: bool,
    /// Fail every call with each of ENOMEM, EMFILE, ENOSPC and EINTR, instead of one of them in turn: three times as long.
    #[arg(long, conflicts_with = "short")]
    every_error: bool,
    /// Write docs/crash.md.
    #[arg(long, conflicts_with = "only")]
    write: bool,
    /// Only these scenes: cold, parts, parked, large, egress; create, start, run, kill, "delete --force".
    #[arg(value_delimiter = ',')]
    only: Vec<String>,
}

/// Builds and runs it; what is done is told as it goes.
pub fn run(options: &Options) -> Result<()> {
    host::prepare()?;
    // The command that is swept lies beside the test program.
    cargo::run(Command::new("cargo").args(["build", "-p", "dyno-runtime", "--bin", "dyno-runtime"]))?;
    let test = if options.short { "crashes::a_kill_or_a_failure_at_any_call_is_recovered_from" } else { "crashes::whole" };
    let mut command = Command::new("cargo");
    command.args(["test", "-p", "dyno-runtime", "--lib", "--", "--exact", test, "--include-ignored", "--nocapture"]);
    if !options.only.is_empty() {
        command.env("DYNO_CRASH_ONLY", options.only.join(","));
    }
    if options.every_error {
        command.env("DYNO_CRASH_EVERY_ERROR", "1");
    }
    if options.write {
        command.env("DYNO_CRASH_PAGE", cargo::root().join("docs/crash.md"));
    }
    cargo::run(&mut command)
}
