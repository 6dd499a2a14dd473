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
//! # What stands around it
//!
//! The defaults are the safe ones, and what is wider has to be asked for by name. A wall that cannot be raised stops the start with
//! an error that names it, and nothing is left behind.
//!
//! | wall | by default | [`Sandbox`] field |
//! |---|---|---|
//! | namespaces | user, mount, pid, net, ipc, uts, cgroup | `network` shares one on request |
//! | ids | 65536 host ids that no other sandbox of the host has; uid 1000 inside | `identity` |
//! | capabilities | none in any of the five sets, securebits locked; no_new_privs always | `identity.capabilities` |
//! | system calls | a default-deny list; unknown ones answer ENOSYS | `seccomp` |
//! | Landlock | no device files; a read-only root again; foreign abstract sockets | follows the others |
//! | root | read-only layers (squashfs, directories) under a writable one, capped in bytes and files, in memory or on disk | `root` |
//! | mounts | own /proc with the host's parts hidden, six devices, own devpts and /dev/shm | `volumes`, `devices`, `masked`, `read_only` |
//! | resources | memory, processes and processors by control groups v1 or v2; files and sizes by rlimits | `limits` |
//! | the run | no limit; wall clock, processor time and output on request, held by the sandbox's own init | `limits.wall_ms` and next to it |
//! | network | only its own loopback; the host reaches in by [`Dyno::socket`] | `network` |
//! | inherited | nothing: no descriptor, variable, keyring, terminal, priority | [`StartOptions`]`.stdio` |
//!
//! [`Plan`] is what will be done about a sandbox, worked out without any IO: print it, compare it, test it without root.
//!
//! # The handle
//!
//! [`Host::start`] returns once the program's exec is done. [`Dyno`] then has what `std::process::Child` has ([`Dyno::wait`],
//! [`Dyno::try_wait`], [`Dyno::kill`], [`Dyno::take_streams`]), and more: [`Dyno::stop`] with a grace, [`Dyno::exec`] and
//! [`Dyno::attach`], [`Dyno::pause`] and [`Dyno::resume`], [`Dyno::update`] of limits, [`Dyno::stats`], [`Dyno::events`]. Its end is
//! an [`ExitRecord`] with a [`Cause`]. [`Dyno::pidfd`] and [`Events`] are descriptors for poll, epoll and async runtimes.
//!
//! Dropping the handle ends nothing; [`Dyno::free`] ends the sandbox and gives everything back. What a killed process of yours left
//! running is found again by [`Host::recover`], with its exit record if it has ended.
//!
//! # From many threads, from tokio
//!
//! A start may be made from any thread. The child is cloned so that it shares this process's memory until its exec, whatever the
//! size of that (no page table is copied); it runs on a stack of its own, calls the kernel directly, and allocates, locks and unwinds
//! nothing, so no lock that another thread holds can stop it. Only the calling thread sleeps meanwhile (a millisecond or two): in an
//! async program give it to a blocking pool, as the example `async_tokio` does. The memory of a process that starts sandboxes is made
//! undumpable by the kernel (prctl(2), PR_SET_DUMPABLE), because the child changes its ids while it still shares it.
//!
//! # What it needs
//!
//! Linux 5.15 or newer (see `docs/kernels.md`); root for everything, or no privileges at all for what the kernel grants a user
//! ([`Host::open_rootless`]; what is missing then is accepted by name). `dyno-runtime doctor`
//! ([`doctor::examine`]) tells what this host lacks, what that costs, and how to mend it.

#[cfg(feature = "break-walls")]
pub mod broken;
#[cfg(not(feature = "break-walls"))]
mod broken;
pub mod cgroup;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod confine;
mod control;
#[cfg(all(test, feature = "oci"))]
mod crashes;
mod denials;
pub mod doctor;
mod dyno;
#[cfg(test)]
mod endurance;
mod error;
mod exit;
#[cfg(test)]
mod failures;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod host;
pub mod log;
mod mount;
pub mod net;
#[cfg(feature = "oci")]
#[doc(hidden)]
pub mod oci;
#[cfg(test)]
mod old_kernels;
mod one_line;
pub mod plan;
mod proc_stat;
mod rootless;
pub mod seccomp;
mod spawn;
pub mod spec;
mod sys;
mod workshop;

// The tests' stage names this crate from outside, and is used from inside as well.
#[cfg(test)]
extern crate self as dyno_runtime;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;

pub use cgroup::{CgroupParent, Event, Events, Stats};
pub use denials::{Denial, Denials};
pub use dyno::{Dyno, Record, Tier};
pub use error::{Error, ErrorKind, Result};
pub use exit::{Cause, ExitRecord};
pub use host::{Found, Host, HostOptions};
pub use mount::Images;
pub use plan::Plan;
pub use rootless::RootlessOptions;
pub use spawn::{Exec, ExecStatus, Process, StartOptions, Stdio, Stream, Streams, Timing};
pub use spec::*;
