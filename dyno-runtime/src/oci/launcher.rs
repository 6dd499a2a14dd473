//! The program in which a container's first process waits for `start` (`init/launch.rs`), in a sealed memory file.
//!
//! It is the cheaper of two protections against CVE-2019-5736. The other, [`super::shield`], executes this whole program once more before
//! anything else: half a millisecond and more. That one is needed whenever somebody else can look at the child before it has become the
//! launcher: in a pid namespace that others are in, or when hooks run meanwhile.

use std::{ffi::CString, os::fd::OwnedFd};

use rustix::io::fcntl_dupfd_cloexec;

use super::{
    channel::Channel,
    filter::Filter,
    plan::{Container, Namespace},
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys,
};

static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dyno-launch"));

/// Where the filter begins in the file: instructions are read to memory that is aligned anyway.
const FILTER_AT: usize = PROGRAM.len();

/// The launcher, ready to be executed.
#[derive(Debug)]
pub struct Launcher {
    image: OwnedFd,
    filter: (usize, u64),
}

/// Whether the child of `container` is alone until it has become the launcher, and lets go of everything by then: no hooks, no listener
/// to hand over, no filter that has to be there before the capabilities go.
fn serves(container: &Container) -> bool {
    let h = &container.hooks;
    let hooks = [&h.prestart, &h.create_runtime, &h.create_container, &h.start_container];
    let Some(process) = &container.process else { return false };
    let late = container.filter.as_ref().is_none_or(|f| process.no_new_privileges && f.listener.is_none());
    container.namespaces.pid == Namespace::New && hooks.iter().all(|list| list.is_empty()) && late
}

impl Launcher {
    /// None when it does not serve: then there has to be a [`super::shield`]. Also where memory files cannot be executed
    /// (`vm.memfd_noexec=2`).
    pub fn prepare(container: &Container) -> Option<Self> {
        if !serves(container) {
            return None;
        }
        let bytes = container.filter.as_ref().map(Filter::bytes).unwrap_or_default();
        let filter = container.filter.as_ref().map_or((0, 0), |f| (f.program.len(), f.flags));
        sys::program_in_memory("dyno-launch", &[PROGRAM, &bytes]).ok().map(|image| Self { image, filter })
    }

    /// Becomes it; returns only what went wrong. `preserve` descriptors from 3 on go to the program; everything else is close-on-exec by now.
    pub fn launch(&self, channel: &Channel, start: &OwnedFd, preserve: u32, path: CString, args: Vec<CString>, env: &[CString]) -> Error {
        let kept = [channel.descriptor(), start, &self.image].map(|fd| kept(fd, preserve));
        let [channel, start, image] = match kept {
            [Ok(a), Ok(b), Ok(c)] => [a, b, c],
            [Err(e), ..] | [_, Err(e), _] | [.., Err(e)] => return e,
        };
        let number = std::os::fd::AsRawFd::as_raw_fd;
        let (instructions, flags) = self.filter;
        let first = format!("{} {} {} {FILTER_AT} {instructions} {flags}", number(&channel), number(&start), number(&image));
        let Ok(first) = CString::new(first) else { return Error::refused(ErrorKind::Io, "numbers hold a zero byte") };
        let argv: Vec<CString> = [first, path].into_iter().chain(args).collect();
        let failed = sys::exec_again(std::os::fd::AsFd::as_fd(&image), &argv, env);
        Error::call(ErrorKind::Wall, "execveat(dyno-launch)", failed)
    }
}

/// A copy beyond what the program gets, that survives exec once: the launcher marks it.
fn kept(fd: &OwnedFd, preserve: u32) -> Result<OwnedFd> {
    let copy = fcntl_dupfd_cloexec(fd, 3 + preserve as i32).wall(|| "fcntl(F_DUPFD)".into())?;
    sys::keep_on_exec(std::os::fd::AsRawFd::as_raw_fd(&copy)).wall(|| "fcntl(F_SETFD)".into())?;
    Ok(copy)
}
