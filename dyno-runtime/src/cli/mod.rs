//! The command line `dyno-runtime`, one file per command.
//!
//! The first word says which. `run` and the other verbs of the OCI runtime command line (create, start, state, kill, delete) and the
//! options before them are [`crate::oci`]'s: a bundle has other options than a [`crate::Sandbox`], so that ours is `sandbox`.
//!
//! Whatever fails is told in one line, `dyno-runtime: what: hint`. Exit status 125 is a failure of ours, 126 a program that cannot be
//! executed, 127 one that is not there, as `docker run` has them.

mod clean;
mod doctor;
mod limits;
mod networks;
mod options;
mod plan;
mod relay;
mod sandbox;
mod seccomp;
pub(crate) mod terminal;
mod units;

use std::{ffi::OsString, io::Write, process::ExitCode};

use rustix::io::Errno;

use crate::{Error, ErrorKind};

const HELP: &str = "\
Process sandboxes for Linux: namespaces, cgroups, seccomp, squashfs images; and an OCI runtime with runc's command line.

Usage: dyno-runtime COMMAND [OPTIONS]
       dyno-runtime [GLOBAL OPTIONS] VERB [OPTIONS] ID

Commands:
  sandbox   run a program in a sandbox
  plan      print what a description of a sandbox comes to
  seccomp   explain what a system-call profile says of a call
  clean     take an instance of `sandbox --state` off the host
  doctor    tell what this host offers to sandboxes, and what it lacks

Verbs of an OCI runtime:
  create, start, run      make a container of a bundle, let its program run, or both
  exec                    another program in a container
  state, list, ps         what there is
  kill, delete            signals; the end
  pause, resume           stand still, go on
  update, events          limits; what is used
  checkpoint, restore     by CRIU, where it is installed
  spec, features          a config.json to begin with; what this runtime can do

Global options, before the verb:
  --root DIR              where containers have their directories (/run/dyno-runtime; for users $XDG_RUNTIME_DIR/dyno-runtime)
  --log FILE              gets a line for each failure and warning; --log-format text|json, --debug for more
  --cgroup-manager M      cgroupfs (the default), systemd (also --systemd-cgroup) or disabled
  --rootless W            do without control groups that may not be made: true, false or auto
  --criu PATH             the program for checkpoint and restore
  --version

`dyno-runtime COMMAND --help` tells the options of each.

Examples:
  dyno-runtime doctor
  dyno-runtime sandbox --layer /srv/rootfs -- /bin/sh -c 'id; ps'
  dyno-runtime seccomp explain docker mount
  dyno-runtime run --bundle /srv/web web
";

/// Why a command failed, in the words of its one line.
#[derive(Debug)]
pub(crate) struct Failure {
    status: u8,
    message: String,
}

impl Failure {
    /// Of our own: 125.
    pub fn new(message: impl Into<String>) -> Self {
        Self { status: 125, message: message.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match (error.kind(), error.errno()) {
            (ErrorKind::Exec, Some(Errno::NOENT)) => 127,
            (ErrorKind::Exec, _) => 126,
            _ => 125,
        };
        // Other refusals say themselves what would be right.
        let hint = if error.kind() == ErrorKind::Wall { ": `dyno-runtime doctor` tells what this host lacks" } else { "" };
        Self { status, message: format!("{error}{hint}") }
    }
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Self {
        Self::new(format!("{error}: see --help"))
    }
}

/// What a command comes to: an exit status.
type Outcome = Result<u8, Failure>;

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().skip(1).collect();
    #[cfg(feature = "oci")]
    if let Some(code) = crate::oci::verbs::main(&args) {
        return code;
    }
    let command = if args.is_empty() { OsString::new() } else { args.remove(0) };
    let outcome = match command.to_str().unwrap_or_default() {
        "sandbox" => sandbox::run(args),
        "plan" => plan::run(args),
        "seccomp" => seccomp::run(args),
        "clean" => clean::run(args),
        "doctor" => doctor::run(args),
        "help" | "--help" | "-h" => say(HELP),
        #[cfg(not(feature = "oci"))]
        "--version" | "-V" => say(concat!("dyno-runtime ", env!("CARGO_PKG_VERSION"), "\n")),
        "" => Err(Failure::new("no command: see `dyno-runtime --help`")),
        _ => Err(Failure::new(format!("command {command:?} does not exist: see `dyno-runtime --help`"))),
    };
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            // One line, whatever the message holds.
            complain(&failure.message.replace('\n', " "));
            ExitCode::from(failure.status)
        }
    }
}

/// Writes to stdout; whoever has stopped reading is no error.
fn say(text: &str) -> Outcome {
    match std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(format!("write to stdout: {e}"))),
        _ => Ok(0),
    }
}

/// One line to stderr. A closed stderr cannot be told of anywhere.
fn complain(message: &str) {
    std::io::stderr().write_all(format!("dyno-runtime: {message}\n").as_bytes()).ok();
}

/// Pretty JSON with a newline at its end.
fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|e| Failure::new(format!("JSON: {e}")))
}

/// The file, or stdin for `-`.
fn read(path: &std::path::Path) -> Result<String, Failure> {
    let text = if path == std::path::Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    text.map_err(|e| Failure::new(format!("read {}: {e}", path.display())))
}

/// A sandbox from a JSON file.
fn sandbox_from(path: &std::path::Path) -> Result<crate::Sandbox, Failure> {
    serde_json::from_str(&read(path)?).map_err(|e| Failure::new(format!("{}: {e}: it must be a sandbox as JSON", path.display())))
}
