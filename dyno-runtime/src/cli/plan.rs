//! `dyno-runtime plan`.

use std::ffi::OsString;

use lexopt::prelude::*;

use super::{Failure, Outcome, json, sandbox_from, say};
use crate::Plan;

const HELP: &str = "\
Prints what a description of a sandbox comes to: namespaces, mounts, ids, limits, filter, network, in the order in which they are
made. Checks every field; starts nothing, and needs no privileges.

Usage: dyno-runtime plan FILE.json      (- for stdin)

Examples:
  dyno-runtime plan web.json
  echo '{\"root\": {\"layers\": [{\"directory\": \"/srv/rootfs\"}]}, \"argv\": [\"/bin/true\"]}' | dyno-runtime plan -
";

pub(super) fn run(args: Vec<OsString>) -> Outcome {
    let (mut parser, mut file) = (lexopt::Parser::from_args(args), None);
    while let Some(arg) = parser.next()? {
        match arg {
            Value(path) if file.is_none() => file = Some(std::path::PathBuf::from(path)),
            Long("help") | Short('h') => return say(HELP),
            other => return Err(other.unexpected().into()),
        }
    }
    let file = file.ok_or_else(|| Failure::new("plan of what: see `dyno-runtime plan --help`"))?;
    say(&json(&Plan::new(&sandbox_from(&file)?)?)?)
}
