//! [`Made`]: what a `create` that fails takes away again.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use rustix::{
    io::Errno,
    process::{Signal, pidfd_send_signal},
};

use crate::{
    error::{Context, Result},
    oci::{Global, cgroup::Cgroup, state::Held},
    sys,
};

/// What is to be undone if a step fails.
#[derive(Default)]
pub struct Made {
    pub cgroup: Option<Cgroup>,
    pub child: Option<OwnedFd>,
    pub resctrl: Option<PathBuf>,
}

impl Made {
    /// Never hides the error that caused it: what fails here is logged.
    pub fn undo(self, held: Held, global: &Global) {
        let mut done: Vec<Result<()>> = Vec::new();
        if let Some(pidfd) = &self.child {
            done.push(pidfd_send_signal(pidfd, Signal::KILL).or_else(gone_is_fine).io(|| "kill the container's first process".into()));
            done.push(sys::reap(pidfd.as_fd()).io(|| "waitid(first process)".into()));
        }
        if let Some(cgroup) = &self.cgroup {
            done.push(cgroup.remove());
        }
        if let Some(path) = &self.resctrl {
            done.push(std::fs::remove_dir(path).io(|| format!("rmdir({})", path.display())));
        }
        done.push(held.remove());
        for e in done.into_iter().filter_map(Result::err) {
            global.log.warn(&format!("after a failed create: {e}"));
        }
    }
}

fn gone_is_fine(e: Errno) -> std::result::Result<(), Errno> {
    if e == Errno::SRCH { Ok(()) } else { Err(e) }
}
