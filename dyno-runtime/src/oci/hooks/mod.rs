//! Hooks: programs at turns of a container's life. They get its state as JSON on stdin, and nothing of ours beside that.
//!
//! What a hook writes is read to its end, so that none blocks, but only the first [`KEPT`] bytes are kept, for the error's text. It has
//! ended when its process has, whatever it left behind: a daemon that keeps its stderr is not waited for.

use std::{
    ffi::{CStr, CString},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_setfl},
    io::{Errno, read, write},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, waitid},
};

use super::{
    Global,
    spec::Hook,
    state::{Record, State, Status},
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys,
};

/// How much of what a hook writes is worth telling.
const KEPT: usize = 4096;

/// How the text of a failure begins.
pub const FAILED: &str = "error running ";

/// Runs `hooks`, which are those of `kind`, one after the other.
///
/// # Errors
/// Of the first that fails, with what it wrote; those after it are not run.
pub fn run(kind: &str, hooks: &[Hook], state: &State) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    // Where runc and crun run them. What runs inside has the directory that it finds there, and after the end the bundle may be gone.
    let outside = matches!(kind, "prestart" | "createRuntime" | "poststart");
    let dir = outside.then(|| CString::new(state.bundle.as_os_str().as_bytes())).transpose();
    let dir = dir.map_err(|_| Error::refused(ErrorKind::Invalid, "the bundle's path has a NUL"))?;
    let state = serde_json::to_vec(state).map_err(|e| Error::refused(ErrorKind::Io, format!("state for {kind} hooks: {e}")))?;
    for (number, hook) in hooks.iter().enumerate() {
        run_one(hook, dir.as_deref(), &state).map_err(|e| {
            let what = format!("{FAILED}{kind} hook #{number} {}", hook.path.display());
            Error::refused(ErrorKind::Io, format!("{what}: {e}"))
        })?;
    }
    Ok(())
}

/// Runs the hooks of a container that is gone. None keeps the others from running (runtime-spec, lifecycle, step 13).
pub fn poststop(global: &Global, record: &Record) {
    for hook in &record.hooks.poststop {
        if let Err(e) = run("poststop", std::slice::from_ref(hook), &record.state(Status::Stopped)) {
            global.log.warn(&e.to_string());
        }
    }
}

fn run_one(hook: &Hook, dir: Option<&CStr>, state: &[u8]) -> Result<()> {
    let end = hook.timeout.map(|seconds| Instant::now() + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    let mut running = Running::start(hook, dir)?;
    match running.follow(state, end)? {
        Some(status) if status.exit_status() == Some(0) => Ok(()),
        Some(status) => {
            let how = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("exit status {code}"),
                (_, Some(signal)) => format!("signal {signal}"),
                _ => "no exit status".into(),
            };
            Err(Error::refused(ErrorKind::Io, how + &running.said()))
        }
        None => {
            let seconds = hook.timeout.unwrap_or(0);
            Err(Error::refused(ErrorKind::Io, format!("killed after its timeout of {seconds} s{}", running.said())))
        }
    }
}

/// A hook that was started. Its whole process group is killed if it is left before its end.
struct Running {
    pidfd: OwnedFd,
    pid: Option<Pid>,
    stdin: Option<OwnedFd>,
    /// What it writes: stdout, stderr, each with what is kept of it.
    outputs: [(Option<OwnedFd>, Vec<u8>); 2],
}

impl Running {
    fn start(hook: &Hook, dir: Option<&CStr>) -> Result<Self> {
        let text = |what: &str, bytes: &[u8]| CString::new(bytes).map_err(|_| Error::refused(ErrorKind::Invalid, format!("{what} has a NUL")));
        let path = text("its path", hook.path.as_os_str().as_bytes())?;
        let mut args = hook.args.iter().map(|arg| text("an argument", arg.as_bytes())).collect::<Result<Vec<_>>>()?;
        if args.is_empty() {
            args.push(path.clone());
        }
        let env = hook.env.iter().map(|variable| text("a variable", variable.as_bytes())).collect::<Result<Vec<_>>>()?;
        let pipe = || pipe_with(PipeFlags::CLOEXEC).io(|| "pipe2".into());
        let ((stdin, to), (from_out, stdout), (from_err, stderr)) = (pipe()?, pipe()?, pipe()?);
        let program = sys::Program { dir, path: &path, args: &args, env: &env, streams: [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] };
        let (pidfd, pid) = sys::spawn(&program).io(|| format!("execve({})", hook.path.display()))?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let running = Self { pidfd, pid, stdin: Some(to), outputs: [(Some(from_out), Vec::new()), (Some(from_err), Vec::new())] };
        let ours = [running.stdin.as_ref(), running.outputs[0].0.as_ref(), running.outputs[1].0.as_ref()];
        ours.into_iter().flatten().try_for_each(|end| fcntl_setfl(end, OFlags::NONBLOCK)).io(|| "fcntl(pipe, O_NONBLOCK)".into())?;
        Ok(running)
    }

    /// Feeds it, reads it and collects it; None if it was killed because `end` had come.
    fn follow(&mut self, mut state: &[u8], end: Option<Instant>) -> Result<Option<WaitIdStatus>> {
        loop {
            if state.is_empty() {
                self.stdin = None;
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                self.kill();
                return Ok(None);
            }
            let ready = self.wait(left)?;
            if ready[1] {
                state = feed(&mut self.stdin, state)?;
            }
            for (output, _) in self.outputs.iter_mut().zip(&ready[2..]).filter(|(_, ready)| **ready) {
                drain(output)?;
            }
            if ready[0] {
                // What it wrote before it ended is in the pipes by now.
                self.outputs.iter_mut().try_for_each(drain)?;
                let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED).io(|| "waitid(hook)".into())?;
                self.pid = None;
                return Ok(status);
            }
        }
    }

    /// Which of these is ready: its end, stdin, stdout, stderr.
    fn wait(&self, left: Option<Duration>) -> Result<[bool; 4]> {
        let (none, left) = (self.pidfd.as_fd(), left.and_then(|left| Timespec::try_from(left).ok()));
        fn of<'a>(end: Option<&'a OwnedFd>, none: BorrowedFd<'a>, flags: PollFlags) -> PollFd<'a> {
            end.map_or(PollFd::from_borrowed_fd(none, PollFlags::empty()), |end| PollFd::from_borrowed_fd(end.as_fd(), flags))
        }
        let mut fds = [
            PollFd::from_borrowed_fd(none, PollFlags::IN),
            of(self.stdin.as_ref(), none, PollFlags::OUT),
            of(self.outputs[0].0.as_ref(), none, PollFlags::IN),
            of(self.outputs[1].0.as_ref(), none, PollFlags::IN),
        ];
        match poll(&mut fds, left.as_ref()) {
            Ok(_) => Ok(fds.map(|fd| !fd.revents().is_empty())),
            Err(Errno::INTR) => Ok([false; 4]),
            Err(e) => Err(e).io(|| "poll(hook)".into()),
        }
    }

    /// What it wrote, stderr first, in one line.
    fn said(&self) -> String {
        let [(_, stdout), (_, stderr)] = &self.outputs;
        let line = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().replace('\n', " ");
        let said: Vec<String> = [stderr, stdout].into_iter().map(|bytes| line(bytes)).filter(|text| !text.is_empty()).collect();
        if said.is_empty() { String::new() } else { format!(": {}", said.join("; ")) }
    }

    /// With whatever it started; it is collected, so that its number is not another's before the group is gone.
    fn kill(&mut self) {
        let Some(pid) = self.pid.take() else { return };
        if let Err(e) = kill_process_group(pid, Signal::KILL) {
            tracing::debug!(%e, "kill(process group of a hook)");
        }
        if let Err(e) = sys::reap(self.pidfd.as_fd()) {
            tracing::debug!(%e, "waitid(hook)");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What is left to write. A hook that reads nothing is none of our business.
fn feed<'a>(stdin: &mut Option<OwnedFd>, state: &'a [u8]) -> Result<&'a [u8]> {
    let Some(fd) = stdin.as_ref() else { return Ok(state) };
    match write(fd, state) {
        Ok(written) => Ok(&state[written..]),
        Err(Errno::AGAIN | Errno::INTR) => Ok(state),
        Err(Errno::PIPE) => Ok(&[]),
        Err(e) => Err(e).io(|| "write(stdin of a hook)".into()),
    }
}

fn drain((end, kept): &mut (Option<OwnedFd>, Vec<u8>)) -> Result<()> {
    let mut buffer = [0; 4096];
    // One that writes without end must not keep us from looking at the time.
    for _ in 0..64 {
        let Some(fd) = end.as_ref() else { break };
        match read(fd, &mut buffer) {
            Ok(0) => *end = None,
            Ok(length) => kept.extend_from_slice(&buffer[..length.min(KEPT - kept.len())]),
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e).io(|| "read(output of a hook)".into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
