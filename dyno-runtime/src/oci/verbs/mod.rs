//! The command line of an OCI runtime as runc has it, one file per verb; and what crun and clients add to it.
//!
//! ```text
//! global options   before the verb                                     globals
//! words            one argument after the other, options and values    words
//! verbs            each with its help, its options and what it does
//! ```
//!
//! Options stand before or after the id. Whatever fails is told in one line on stderr and one in `--log`; the exit status is 1, of `exec`
//! 255, and that of the program for `run` and `exec` in the foreground.

mod checkpoint;
mod create;
mod criu;
mod delete;
mod events;
mod exec;
mod features;
mod globals;
mod kill;
mod list;
mod pause;
mod ps;
mod restore;
mod run;
mod spec;
mod start;
mod state;
mod update;
mod words;

use std::{ffi::OsString, io::Write, process::ExitCode};

use self::{
    globals::{Asked, Globals},
    words::Words,
};
use super::{
    Global,
    state::{First, Record, StateDir},
};
use crate::Error;

/// Why a verb failed.
#[derive(Debug)]
pub(crate) struct Failure {
    status: u8,
    message: String,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self { status: 1, message: message.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error.to_string())
    }
}

/// What a verb comes to: an exit status.
type Outcome = Result<u8, Failure>;

struct Verb {
    name: &'static str,
    help: &'static str,
    run: fn(&Global, &mut Words) -> Outcome,
}

const VERBS: &[Verb] = &[
    Verb { name: "create", help: create::HELP, run: create::run },
    Verb { name: "start", help: start::HELP, run: start::run },
    Verb { name: "run", help: run::HELP, run: run::run },
    Verb { name: "exec", help: exec::HELP, run: exec::run },
    Verb { name: "state", help: state::HELP, run: state::run },
    Verb { name: "list", help: list::HELP, run: list::run },
    Verb { name: "ps", help: ps::HELP, run: ps::run },
    Verb { name: "kill", help: kill::HELP, run: kill::run },
    Verb { name: "delete", help: delete::HELP, run: delete::run },
    Verb { name: "pause", help: pause::HELP, run: pause::run },
    Verb { name: "resume", help: pause::HELP_RESUME, run: pause::resume },
    Verb { name: "update", help: update::HELP, run: update::run },
    Verb { name: "events", help: events::HELP, run: events::run },
    Verb { name: "checkpoint", help: checkpoint::HELP, run: checkpoint::run },
    Verb { name: "restore", help: restore::HELP, run: restore::run },
    Verb { name: "spec", help: spec::HELP, run: spec::run },
    Verb { name: criu::INSIDE, help: restore::HELP, run: criu::inside },
    Verb { name: "features", help: features::HELP, run: features::run },
];

/// Carries out a command line; None if it is not for us.
pub(crate) fn main(args: &[OsString]) -> Option<ExitCode> {
    let mut words = Words::new(args);
    let mut globals = Globals::default();
    let outcome = match globals.read(&mut words) {
        Err(failure) => Err(failure),
        Ok(Asked::Nothing) => return None,
        Ok(Asked::Version) => say(&version()),
        Ok(Asked::Verb(name)) => match VERBS.iter().find(|verb| verb.name == name) {
            Some(verb) => return Some(carry_out(verb, globals, &mut words)),
            None if words.is_first() => return None,
            None => Err(Failure::new(format!("command {name:?} does not exist: see `dyno-runtime --help`"))),
        },
    };
    Some(match outcome {
        Ok(status) => ExitCode::from(status),
        // What was understood of the options says where to tell it.
        Err(failure) => fail(&globals.log().unwrap_or_default(), &failure),
    })
}

fn carry_out(verb: &Verb, globals: Globals, words: &mut Words) -> ExitCode {
    words.begin(verb.name);
    let global = match globals.finish() {
        Ok(global) => global,
        Err(e) => return fail(&super::log::Log::default(), &e.into()),
    };
    let outcome = (verb.run)(&global, words);
    if words.help {
        return say(verb.help).map_or_else(|failure| fail(&global.log, &failure), ExitCode::from);
    }
    outcome.map_or_else(|failure| fail(&global.log, &failure), ExitCode::from)
}

fn fail(log: &super::log::Log, failure: &Failure) -> ExitCode {
    log.error(&failure.message);
    ExitCode::from(failure.status)
}

/// In the form that clients take apart: docker the words around `version`, containerd the line `spec: `.
fn version() -> String {
    format!("dyno-runtime version {}\nspec: {}\n", env!("CARGO_PKG_VERSION"), super::plan::known::NEWEST_VERSION)
}

/// Writes to stdout; whoever has stopped reading is no error.
fn say(text: &str) -> Outcome {
    match std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(format!("write to stdout: {e}"))),
        _ => Ok(0),
    }
}

/// Pretty JSON with a newline at its end.
fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|e| Failure::new(format!("JSON: {e}")))
}

/// For verbs that take one id and nothing else: the container of that id; None when the help is asked for.
fn only(global: &Global, words: &mut Words) -> Result<Option<StateDir>, Failure> {
    let id = words.only_id()?;
    if words.help { Ok(None) } else { Ok(Some(StateDir::open(&global.root, &id)?)) }
}

/// What could not be done because the container has ended meanwhile is told as that.
fn as_long_as_it_lives<T>(record: &Record, done: crate::Result<T>) -> Result<T, Failure> {
    done.map_err(|e| if matches!(First::of(record), Ok(None)) { Failure::new("container not running: it has just ended") } else { e.into() })
}

/// How long a process may take from SIGKILL to its end. One that waits for a dead disk takes for ever.
const DEATH: u32 = 10_000;

/// Waits for a process that was killed.
fn must_end(first: &First) -> Result<(), Failure> {
    if first.ends_within(Some(DEATH))? {
        Ok(())
    } else {
        Err(Failure::new(format!("process {} is still there {} s after SIGKILL", first.pid, DEATH / 1000)))
    }
}
