//! `dyno-runtime seccomp`.

use std::{ffi::OsString, path::Path};

use lexopt::prelude::*;

use super::{Failure, Outcome, json, read, say, units};
use crate::{
    Capability, Profile,
    seccomp::{Explanation, ProfileData, explain, explain_all},
};

const HELP: &str = "\
Explains what a system-call profile says. Asks no kernel, and needs no privileges.

Usage: dyno-runtime seccomp explain [OPTIONS] PROFILE CALL [ARGUMENT…]
       dyno-runtime seccomp list [OPTIONS] PROFILE

PROFILE is dyno, build, docker, unconfined, or a file of your own (JSON); CALL a name or a number; an ARGUMENT a decimal or
hexadecimal number, 0 if it is not given. `list` tells of every call, with all arguments 0.

Options:
  --cap-add NAME   as if the sandbox had this capability; more than once if need be
  --json           for programs

Exit status: 0 if the call runs, 1 if it is denied.

Examples:
  dyno-runtime seccomp explain dyno socket 2 3          AF_INET, SOCK_RAW
  dyno-runtime seccomp explain --cap-add SYS_ADMIN docker mount
  dyno-runtime seccomp list ./mine.json
";

pub(super) fn run(args: Vec<OsString>) -> Outcome {
    let mut parser = lexopt::Parser::from_args(args);
    let (mut words, mut capabilities, mut as_json) = (Vec::new(), Vec::new(), false);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("cap-add") => capabilities.push(parser.value()?.string()?.parse::<Capability>().map_err(Failure::new)?),
            Long("json") => as_json = true,
            Long("help") | Short('h') => return say(HELP),
            Value(word) => words.push(word.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["explain", name, call, args @ ..] if args.len() <= 6 => one(name, &capabilities, call, args, as_json),
        ["list", name] => all(name, &capabilities, as_json),
        _ => Err(Failure::new("seccomp what: see `dyno-runtime seccomp --help`")),
    }
}

fn one(name: &str, capabilities: &[Capability], call: &str, words: &[&str], as_json: bool) -> Outcome {
    let profile = profile(name)?;
    let mut args = [0; 6];
    for (to, word) in args.iter_mut().zip(words) {
        *to = units::number(word).ok_or_else(|| Failure::new(format!("argument {word:?} is no number")))?;
    }
    let said = explain(&profile, capabilities, call, args)?;
    let line = line(&said);
    say(&if as_json { json(&said)? } else { line })?;
    Ok(u8::from(!runs(&said)))
}

fn all(name: &str, capabilities: &[Capability], as_json: bool) -> Outcome {
    let profile = profile(name)?;
    let said = explain_all(&profile, capabilities)?;
    say(&if as_json { json(&said)? } else { said.iter().map(line).collect() })
}

fn line(said: &Explanation) -> String {
    format!("{}: {} ({})\n", said.call, said.action, said.rule)
}

fn runs(said: &Explanation) -> bool {
    matches!(said.action.as_str(), "allow" | "log")
}

/// A shipped one by name, or a file.
pub(super) fn profile(name: &str) -> Result<Profile, Failure> {
    Ok(match name {
        "dyno" => Profile::Dyno,
        "build" => Profile::Build,
        "docker" => Profile::Docker,
        "unconfined" => Profile::Unconfined,
        file if file.contains(['/', '.']) || file == "-" => {
            let data = ProfileData::parse(&read(Path::new(file))?).map_err(|e| Failure::new(format!("{file}: {e}: it must be a profile as JSON")))?;
            Profile::Custom(Box::new(data))
        }
        _ => return Err(Failure::new(format!("profile {name:?} does not exist: dyno, build, docker, unconfined, or the path of a file"))),
    })
}
