//! `dyno-runtime clean`.

use std::{ffi::OsString, path::PathBuf};

use lexopt::prelude::*;

use super::{Failure, Outcome, sandbox::named, say};
use crate::{Found, Host};

const HELP: &str = "\
Takes a lasting instance (`sandbox --state DIR`) off the host: what ended sandboxes have left, mounted images, control groups, the
directory. While a sandbox runs there, nothing is touched.

Usage: dyno-runtime clean DIR

Examples:
  dyno-runtime clean /run/mine
";

pub(super) fn run(args: Vec<OsString>) -> Outcome {
    let (mut parser, mut dir) = (lexopt::Parser::from_args(args), None);
    while let Some(arg) = parser.next()? {
        match arg {
            Value(path) if dir.is_none() => dir = Some(PathBuf::from(path)),
            Long("help") | Short('h') => return say(HELP),
            other => return Err(other.unexpected().into()),
        }
    }
    let dir = dir.ok_or_else(|| Failure::new("clean what: see `dyno-runtime clean --help`"))?;
    // To open one that is not there would make it.
    if !dir.join("dynos").is_dir() {
        return Err(Failure::new(format!("{}: no instance is there", dir.display())));
    }
    let host = Host::open_alone(&dir, named(&dir)?)?;
    for found in host.recover()? {
        match found {
            Found::Running(dyno) => {
                return Err(Failure::new(format!("sandbox {} runs there: end it first, its init has pid {}", dyno.id(), dyno.pid())));
            }
            Found::Ended(id, _) => host.sweep(&id)?,
        }
    }
    host.dismantle()?;
    Ok(0)
}
