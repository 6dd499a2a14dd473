//! `pause` and `resume`.

use super::{Failure, Outcome, as_long_as_it_lives, only, words::Words};
use crate::oci::{Global, cgroup::Cgroup, state::Status};

pub(super) const HELP: &str = "\
Stops all processes of a container where they are, until `resume`.

Usage: dyno-runtime [GLOBAL OPTIONS] pause ID

Examples:
  dyno-runtime pause web
";

pub(super) const HELP_RESUME: &str = "\
Lets the processes of a paused container go on.

Usage: dyno-runtime [GLOBAL OPTIONS] resume ID

Examples:
  dyno-runtime resume web
";

pub(super) fn run(global: &Global, words: &mut Words) -> Outcome {
    let Some(dir) = only(global, words)? else { return Ok(0) };
    let record = dir.known()?;
    match dir.status(&record)?.0 {
        Status::Created | Status::Running => as_long_as_it_lives(&record, Cgroup::open(&record.cgroup).and_then(|group| group.freeze()))?,
        Status::Paused => return Err(Failure::new("container not running: it is paused already")),
        status => return Err(Failure::new(format!("container not running: it is {}", status.name()))),
    }
    Ok(0)
}

pub(super) fn resume(global: &Global, words: &mut Words) -> Outcome {
    let Some(dir) = only(global, words)? else { return Ok(0) };
    let record = dir.known()?;
    let (status, first) = dir.status(&record)?;
    let group = Cgroup::open(&record.cgroup)?;
    // One that was paused before its start waits for that still.
    if first.is_none() || !as_long_as_it_lives(&record, group.is_frozen())? {
        return Err(Failure::new(format!("container not paused: it is {}", status.name())));
    }
    as_long_as_it_lives(&record, group.thaw())?;
    Ok(0)
}
