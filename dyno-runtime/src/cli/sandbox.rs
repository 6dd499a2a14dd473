//! `dyno-runtime sandbox`: start, carry, wait, clean up.

use std::{
    ffi::OsString,
    io::IsTerminal,
    path::{Path, PathBuf},
};

use rustix::termios::tcgetwinsize;

use super::{
    Failure, Outcome, json,
    options::{Request, Terminal},
    relay::{Relay, WATCHED},
    say,
};
use crate::{Dyno, Host, Plan, StartOptions, Stdio, Stream, sys::watch_signals};

const HELP: &str = include_str!("sandbox.txt");

pub(super) fn run(args: Vec<OsString>) -> Outcome {
    let request = Request::parse(args)?;
    if request.help {
        return say(HELP);
    }
    let (sandbox, missing) = (&request.sandbox, |what| Failure::new(format!("{what}: see `dyno-runtime sandbox --help`")));
    if sandbox.argv.is_empty() {
        return Err(missing("no program"));
    }
    if sandbox.root.layers.is_empty() {
        return Err(missing("no --layer: a program needs a root file system"));
    }
    if request.dry_run {
        return say(&json(&Plan::new(sandbox)?)?);
    }
    // Before anything is made: a signal from now on is the program's.
    let signals = watch_signals(&WATCHED).map_err(|e| Failure::new(format!("signalfd: {e}")))?;
    let (host, lasting) = instance(request.state.as_deref())?;
    let outcome = on(&host, request, signals);
    let gone = if lasting { Ok(()) } else { host.dismantle() };
    let status = outcome?;
    gone?;
    Ok(status)
}

/// The instance in `state`; without it one of this run's own, that is gone after it.
fn instance(state: Option<&Path>) -> Result<(Host, bool), Failure> {
    match state {
        Some(dir) => Ok((Host::open(dir, named(dir)?)?, true)),
        None => {
            let name = format!("dyno-runtime-{}", std::process::id());
            Ok((Host::open(&PathBuf::from("/run").join(&name), &name)?, false))
        }
    }
}

/// The name of a lasting instance, and of its control groups.
pub(super) fn named(dir: &Path) -> Result<&str, Failure> {
    dir.file_name().and_then(|name| name.to_str()).ok_or_else(|| Failure::new(format!("instance {}: it needs a name", dir.display())))
}

fn on(host: &Host, mut request: Request, signals: std::os::fd::OwnedFd) -> Outcome {
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let terminals = stdin.is_terminal() && stdout.is_terminal() && std::io::stderr().is_terminal();
    let tty = request.terminal == Terminal::Yes || (request.terminal == Terminal::Auto && terminals);
    let stdio = if tty {
        let size = tcgetwinsize(&stdin).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
        if let (false, Ok(term)) = (request.sandbox.env.contains_key("TERM"), std::env::var("TERM")) {
            request.sandbox.env.insert("TERM".into(), term);
        }
        let (rows, cols) = size.map_or((24, 80), |size| (size.ws_row, size.ws_col));
        Stdio::Tty { rows, cols }
    } else if request.sandbox.limits.output.is_some() {
        // To be counted, output goes through the init.
        Stdio::Each { stdin: Stream::Inherit, stdout: Stream::Pipe, stderr: Stream::Pipe }
    } else {
        Stdio::Inherit
    };
    let options = StartOptions { stdio, log_denied: request.log_denied, ..StartOptions::default() };
    let mut dyno = host.start(&request.id, &request.sandbox, options)?;
    let carried = Relay::new(&mut dyno, signals, tty).and_then(|mut relay| relay.run(&dyno));
    finish(dyno, request.record.as_deref(), carried)
}

/// The dyno is freed, whatever else fails.
fn finish(dyno: Dyno, record: Option<&Path>, carried: Result<(), Failure>) -> Outcome {
    let ended = carried.and_then(|()| Ok(dyno.wait()?));
    let freed = dyno.free();
    let exit = ended?;
    if let Some(path) = record {
        std::fs::write(path, json(&exit)?).map_err(|e| Failure::new(format!("--record {}: {e}", path.display())))?;
    }
    freed?;
    Ok(u8::try_from(exit.status).unwrap_or(u8::MAX))
}
