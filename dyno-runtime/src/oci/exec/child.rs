//! The process that `exec` makes, from its birth to its program.
//!
//! It is a copy of the runtime, and it is going to stand among processes that may look into it as soon as it is one of theirs. So it
//! lets go of everything first (CVE-2016-9962, CVE-2024-21626): what it keeps is a channel to the runtime, the descriptors by which it
//! enters, the caller's streams and what is to be preserved. The runtime has made itself undumpable, and so is its copy until exec.

use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

use rustix::{
    process::{chroot, fchdir, setsid},
    thread::{ThreadNameSpaceType as Kinds, move_into_thread_name_spaces},
};

use super::target::Target;
use crate::{
    error::{Context, Error, ErrorKind, Result},
    oci::{
        channel::{Channel, Message},
        console,
        plan::Process,
        process::{Outfit, finish},
    },
    sys,
};

/// What it needs.
pub(super) struct Entry<'a> {
    pub target: &'a Target,
    /// Namespaces that it has to join itself: its pid namespace it is born in, and with a runtime that may not do even that, it is born
    /// in its user namespace too.
    pub join: Kinds,
    pub process: &'a Process,
    pub outfit: Outfit,
    /// The v1 groups' files `tasks`.
    pub entrances: &'a [OwnedFd],
    /// To the runtime.
    pub channel: &'a Channel,
    /// Where the master of its terminal goes.
    pub console: Option<&'a OwnedFd>,
    /// Whether the runtime has limits to set while it waits.
    pub limits: bool,
}

/// Becomes the program, or ends; nothing of the runtime that was copied is ever dropped here.
pub(super) fn run(entry: Entry<'_>) -> ! {
    let channel = entry.channel;
    // A panic must not unwind into the runtime's own frames, whose destructors are about the runtime's things.
    let failed =
        catch_unwind(AssertUnwindSafe(|| become_program(entry))).unwrap_or_else(|_| Error::refused(ErrorKind::Wall, "the process of exec panicked"));
    // If the runtime is gone there is nobody to tell.
    channel.send(&Message::Failed(failed.kind(), failed.to_string())).unwrap_or_default();
    sys::exit_now(255)
}

fn become_program(entry: Entry<'_>) -> Error {
    match enter(entry) {
        Ok(program) => program.begin(),
        Err(e) => e,
    }
}

fn enter(mut entry: Entry<'_>) -> Result<crate::oci::process::Program> {
    let Entry { target, process, channel, .. } = entry;
    let_go(&entry)?;
    for tasks in entry.entrances {
        // "0" is the writer: one thread moves itself, for which the kernel waits for nobody (cgroup_procs_write_start).
        rustix::io::write(tasks, b"0").wall(|| "exec: write \"0\" to a control group's tasks".into())?;
    }
    if let Some(processors) = &process.affinity_final {
        sys::pin_to(processors).wall(|| format!("process.execCPUAffinity.final: sched_setaffinity({processors:x?})"))?;
    }
    entry.outfit.collect(process)?;
    if !entry.join.is_empty() {
        move_into_thread_name_spaces(target.pidfd(), entry.join).wall(|| format!("exec: setns({:?})", entry.join))?;
    }
    if target.join.contains(Kinds::USER) {
        be_root_inside();
    }
    if let Some(root) = &target.root {
        fchdir(root).and_then(|()| chroot(c".")).wall(|| "exec: chroot(the container's root)".into())?;
    }
    setsid().wall(|| "setsid".into())?;
    if process.terminal {
        let (master, slave) = console::open(process)?;
        let socket = entry.console.ok_or_else(|| Error::refused(ErrorKind::Invalid, "exec: the terminal has nowhere to go"))?;
        console::send(socket.as_fd(), master)?;
        console::control(&slave)?;
    }
    if entry.limits {
        channel.send(&Message::Go)?;
        channel.expect_go()?;
    }
    let program = finish(process, &mut entry.outfit, channel)?;
    // Fails when the runtime was killed: then nobody asked for this program any more.
    channel.send(&Message::Ready)?;
    Ok(program)
}

/// Closes everything but what is still needed, all of which is closed by exec; and the descriptors to be preserved.
fn let_go(entry: &Entry<'_>) -> Result<()> {
    let mut keep: Vec<RawFd> = (3..3 + entry.outfit.preserve_fds).map(|fd| fd as RawFd).collect();
    keep.extend([entry.channel.as_fd().as_raw_fd(), entry.target.pidfd().as_raw_fd()]);
    keep.extend(entry.entrances.iter().chain(&entry.target.root).chain(entry.console).map(AsRawFd::as_raw_fd));
    sys::close_all_but(&mut keep).wall(|| "exec: close_range".into())
}

/// The host's root is nobody in another user namespace, and nothing in a container's file systems is its. Where there is no 0 either, the
/// process's own ids are all there is, and they are taken later.
fn be_root_inside() {
    sys::set_ids(0, 0, None).unwrap_or_default();
}
