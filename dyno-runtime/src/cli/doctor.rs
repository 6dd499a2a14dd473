//! `dyno-runtime doctor`.

use std::ffi::OsString;

use lexopt::prelude::*;

use super::{Outcome, json, say};

const HELP: &str = "\
Tells what this host offers to sandboxes and what it lacks, what that costs, and how to mend it.
Changes nothing, and needs no privileges; as root it sees more.

Usage: dyno-runtime doctor [--json]

Options:
  --json   for programs: a list of findings, each with state (ok, limited, missing), severity (note, wanted, needed), costs, fix

Exit status: 0 if sandboxes can start here, 1 if something that all of them need is missing.

Examples:
  dyno-runtime doctor
  dyno-runtime doctor --json | jq '.findings[] | select(.state != \"ok\") | .fix'
";

pub(super) fn run(args: Vec<OsString>) -> Outcome {
    let (mut parser, mut as_json) = (lexopt::Parser::from_args(args), false);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("json") => as_json = true,
            Long("help") | Short('h') => return say(HELP),
            other => return Err(other.unexpected().into()),
        }
    }
    let report = crate::doctor::examine();
    say(&if as_json { json(&report)? } else { report.to_string() })?;
    Ok(u8::from(!report.is_usable()))
}
