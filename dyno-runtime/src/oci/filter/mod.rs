//! System-call filters of `linux.seccomp` and device rules of `linux.resources`, as BPF.
//!
//! ```text
//! words      SCMP_… and SECCOMP_FILTER_FLAG_…: what they stand for
//! rules      all that is said of one call, and which of it counts
//! program    one search tree per architecture, behind one look at the architecture
//! listener   who answers SCMP_ACT_NOTIFY
//! devices    device rules of a v2 group
//! ```
//!
//! The specification names libseccomp's constants and leaves the meaning of several rules about one call to it, so that meaning is kept
//! (each file says which): other engines' profiles rely on it. Tree and leaves are [`crate::seccomp`]'s.

pub mod devices;
mod listener;
mod program;
mod rules;
mod words;

use std::{os::fd::OwnedFd, path::PathBuf};

pub use listener::hand_over;

use super::spec::Seccomp;
use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys,
};

/// A compiled `linux.seccomp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Classic BPF; empty for no filter at all.
    pub program: Vec<sys::Filter>,
    /// SECCOMP_FILTER_FLAG_….
    pub flags: u64,
    /// Who answers SCMP_ACT_NOTIFY, and what it is told beside the state.
    pub listener: Option<(PathBuf, String)>,
}

/// Compiles `linux.seccomp`. What is merely of no effect here goes to `warnings`.
///
/// # Errors
/// [`ErrorKind::Invalid`] naming the member, for words that the specification does not have, for rules that contradict each other, and
/// for SCMP_ACT_NOTIFY where nobody could answer.
pub fn compile(config: &Seccomp, warnings: &mut Vec<String>) -> Result<Filter> {
    // As runc: an empty object is none.
    if config.default_action.is_empty() && config.syscalls.is_empty() {
        return Ok(Filter { program: Vec::new(), flags: 0, listener: None });
    }
    lower(config, warnings).map_err(|e| Error::refused(ErrorKind::Invalid, format!("linux.seccomp.{e}")))
}

fn lower(config: &Seccomp, warnings: &mut Vec<String>) -> std::result::Result<Filter, String> {
    let notifies = words::notifies(config)?;
    Ok(Filter {
        program: program::compile(config, warnings)?,
        flags: words::flags(config.flags.as_deref(), notifies, warnings)?,
        listener: words::listener(config, notifies)?,
    })
}

impl Filter {
    /// As `struct sock_filter` lies in memory.
    pub fn bytes(&self) -> Vec<u8> {
        let one = |i: &crate::sys::Filter| [&i.code.to_ne_bytes()[..], &[i.jt, i.jf], &i.k.to_ne_bytes()].concat();
        self.program.iter().flat_map(one).collect()
    }
}

/// Installs the filter on the calling process, which has one thread; from here on it must make only calls that the filter lets through.
/// The listener, if the filter asks somebody, is close-on-exec.
///
/// # Errors
/// [`ErrorKind::Wall`]: EACCES without both no_new_privs and CAP_SYS_ADMIN in the process's user namespace, EINVAL for what the kernel
/// does not know, EBUSY where a listener is there already.
pub fn install(filter: &Filter) -> Result<Option<OwnedFd>> {
    if filter.program.is_empty() {
        return Ok(None);
    }
    // Nothing is read back: prctl(PR_GET_SECCOMP) may be what the filter kills for.
    sys::notify::install(&filter.program, filter.flags)
        .wall(|| format!("seccomp(SECCOMP_SET_MODE_FILTER, {:#x}, {} instructions)", filter.flags, filter.program.len()))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
