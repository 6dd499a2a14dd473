//! Fast, fully isolated process sandboxes for Linux: namespaces, cgroups, seccomp, squashfs slugs.
//!
//! ```no_run
//! use dyno_runtime::{Host, Layer, Sandbox, StartOptions, Stdio};
//!
//! # fn main() -> dyno_runtime::Result<()> {
//! let host = Host::open("/run/my-runtime".as_ref(), "my-runtime")?;
//! let sandbox = Sandbox::new(vec![Layer::Directory("/srv/rootfs".into())], ["/bin/echo", "hello"]);
//! let dyno = host.start("hello.1", &sandbox, StartOptions { stdio: Stdio::Inherit, ..Default::default() })?;
//! assert_eq!(dyno.wait()?.status, 0);
//! dyno.free()?;
//! # Ok(())
//! # }
//! ```
//!
//! Every sandbox has all of these walls; there is no way to ask for fewer, and one that cannot be raised stops
//! the start with an error that names it: seven namespaces; an id range of its own, and no mapping of host root; no
//! capabilities, no_new_privs, a default-deny system-call filter; memory, process and cpu limits; a private root of read-only
//! layers under a capped writable one; a private /proc with the host's parts hidden, six device nodes; a network with only
//! its own loopback, unless another is asked for; no inherited descriptor, environment, keyring or terminal.

pub mod cgroup;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
mod control;
mod denials;
pub mod doctor;
mod dyno;
mod error;
#[cfg(test)]
mod endurance;
mod exit;
#[cfg(test)]
mod failures;
mod host;
pub mod log;
mod mount;
pub mod net;
#[cfg(test)]
mod old_kernels;
pub mod plan;
pub mod seccomp;
mod spawn;
pub mod spec;
mod sys;

// The tests' stage names this crate from outside, and is used from inside as well.
#[cfg(test)]
extern crate self as dyno_runtime;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;

pub use cgroup::{CgroupParent, Event, Events, Stats};
pub use denials::{Denial, Denials};
pub use dyno::{Dyno, Record};
pub use error::{Error, ErrorKind, Result};
pub use exit::{Cause, ExitRecord};
pub use host::{Found, Host, HostOptions};
pub use mount::Images;
pub use plan::Plan;
pub use spawn::{Exec, ExecStatus, Process, StartOptions, Stdio, Stream, Streams, Timing};
pub use spec::*;
