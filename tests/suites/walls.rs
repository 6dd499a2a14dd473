//! From inside a dyno: what holds. Beside every row stands the wall that is meant to hold it.
//!
//! `vacuous: …` is printed for a row that this kernel would hold without us; it is checked all the same.

#[path = "walls/calls.rs"]
mod calls;
#[path = "walls/limits.rs"]
mod limits;
#[path = "walls/neighbours.rs"]
mod neighbours;
#[path = "walls/sight.rs"]
mod sight;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use dyno_tests::{Platform, WEB, inline, run};

/// The app that is looked at from inside.
pub(crate) const APP: &str = "walls";

fn main() -> ExitCode {
    run(
        &[],
        &[
            ("identity", sight::identity),
            ("descriptors", sight::descriptors),
            ("processes", sight::processes),
            ("mounts", sight::mounts),
            ("masked_and_read_only_paths", sight::masked),
            ("environment_and_host_name", sight::environment),
            ("files_of_the_host", sight::canary),
            ("writable_and_not", sight::writable),
            ("writes_vanish", sight::writes_vanish),
            ("setuid_bits", sight::setuid),
            ("system_calls", calls::system_calls),
            ("sockets", calls::sockets),
            ("calls_of_another_architecture", calls::other_architecture),
            ("no_network", neighbours::no_network),
            ("neighbours", neighbours::neighbours),
            ("disk", limits::disk),
            ("inodes", limits::inodes),
            ("processes_at_the_limit", limits::fork_bomb),
            ("memory", limits::memory),
        ],
    )
}

/// Deploys the app once; cases may be run alone.
pub(crate) fn deployed(platform: &Platform) -> Result<()> {
    if platform.ok(&["apps"])?.contains(APP) {
        return Ok(());
    }
    let probe = include_str!("walls/probe.py");
    let source = inline("true", &[("web.py", WEB), ("probe.py", probe), ("Procfile", "web: python3 web.py\n")])?;
    platform.deploy(APP, source.path())?;
    platform.ok(&["ps:scale", "web=2", "-a", APP])?;
    platform.wait_up(APP)
}

/// Standard output of a shell command in a dyno of its own, which must succeed.
pub(crate) fn inside(platform: &Platform, command: &str) -> Result<String> {
    deployed(platform)?;
    platform.ok(&["run", "-a", APP, "--no-tty", "--", command])
}

/// The app's web dynos answer, whatever was done to them.
pub(crate) fn others_are_well(platform: &Platform) -> Result<()> {
    for (name, dyno) in platform.seen(APP)?.into_iter().filter(|(name, _)| name.starts_with("web.")) {
        ensure!(dyno.init.ask(5000, "/")?.trim() == name, "{name} does not answer");
    }
    Ok(())
}
