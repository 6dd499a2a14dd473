//! `start`.

use std::{fs::File, io::Write, os::fd::AsFd};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, ioctl_fionread},
};

use super::{Failure, Outcome, delete, only, words::Words};
use crate::{
    error::Context,
    oci::{
        Global,
        cgroup::Cgroup,
        hooks, notify,
        state::{First, GO, Held, Record, StateDir, Status},
    },
};

pub(super) const HELP: &str = "\
Lets the program of a created container run; returns once its exec is done.

Usage: dyno-runtime [GLOBAL OPTIONS] start ID

Examples:
  dyno-runtime start web
";

pub(super) fn run(global: &Global, words: &mut Words) -> Outcome {
    let Some(dir) = only(global, words)? else { return Ok(0) };
    let held = dir.hold()?;
    let record = held.known()?;
    let Some(first) = First::of(&record)? else { return Err(Failure::new("cannot start a container that has stopped")) };
    begin(global, held, &record, &Cgroup::open(&record.cgroup)?, &first, true)?;
    Ok(0)
}

/// Starts a container, which nobody else does meanwhile, and runs its hooks, which may look at it. With `wait` it also waits until the program says
/// that it is ready, if the caller has a socket to be told so by. Hands the container's directory back, which is anybody's again.
pub(super) fn begin(global: &Global, held: Held, record: &Record, group: &Cgroup, first: &First, wait: bool) -> Result<StateDir, Failure> {
    let Some(mut fifo) = held.starter()? else { return Err(Failure::new("cannot start an already running container")) };
    // Whoever stands still would be waited for with the lock in hand.
    if group.is_frozen()? {
        return Err(Failure::new("cannot start a container in the paused state"));
    }
    if !record.program {
        return Err(Failure::new("cannot start a container without a program: config.json has no process"));
    }
    let dir = if notify::has_caller() { held.notify()? } else { None };
    let ready = dir.map(|dir| notify::listen(dir.as_fd())).transpose()?;
    match fifo.write_all(&[GO]) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {}
        other => other.io(|| "write(start)".into())?,
    }
    let dir = begun(global, held, record, first, &fifo)?;
    ready.map_or(Ok(()), |socket| notify::follow(&socket, first.pidfd(), record.pid, wait))?;
    Ok(dir)
}

/// The second half of [`begin`], for a container that has had its byte from `fifo`: until its program has begun, and its hooks have run.
pub(super) fn begun(global: &Global, held: Held, record: &Record, first: &First, fifo: &File) -> Result<StateDir, Failure> {
    wait_for_exec(fifo, first)?;
    if ioctl_fionread(fifo).io(|| "ioctl(start, FIONREAD)".into())? > 0 {
        // A byte of a starter that was killed may be left, or ours: a signal may have ended it before, as it may at any time after.
        let text: Vec<u8> = held.last_words()?.into_iter().filter(|byte| *byte != GO).collect();
        let text = String::from_utf8_lossy(&text);
        if text.starts_with(hooks::FAILED) {
            drop(held);
            end(global, record);
            return Err(Failure::new(text.trim()));
        }
        if !text.is_empty() {
            return Err(Failure::new(text.trim()));
        }
    }
    let dir = held.let_go();
    poststart(global, record)?;
    Ok(dir)
}

/// Until the first process has closed the FIFO, which exec does, or has ended.
fn wait_for_exec(fifo: &File, first: &First) -> crate::Result<()> {
    loop {
        let mut fds = [PollFd::new(fifo, PollFlags::empty()), PollFd::from_borrowed_fd(first.pidfd(), PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) if fds.iter().any(|fd| !fd.revents().is_empty()) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e).io(|| "poll(start)".into()),
        }
    }
}

/// A hook that fails ends the container (runtime-spec 1.2.1, lifecycle steps 7, 9 and 12; before that poststart only had to be warned of).
fn poststart(global: &Global, record: &Record) -> Result<(), Failure> {
    let Err(e) = hooks::run("poststart", &record.hooks.poststart, &record.state(Status::Running)) else { return Ok(()) };
    end(global, record);
    Err(e.into())
}

/// Deletes a container whose hook has failed.
fn end(global: &Global, record: &Record) {
    if let Err(e) = delete::delete(global, &record.id, true) {
        global.log.warn(&e.message);
    }
}
