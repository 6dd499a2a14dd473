//! An OCI runtime: `config.json` in, a container out, by runc's command line.
//!
//! A [`crate::Sandbox`] has walls that cannot be left out and an init of its own; a `config.json` says itself which walls there are, and its
//! program is pid 1. So both are described apart and share the floors below: `sys`, BPF, control groups, the mount calls.
//!
//! ```text
//! spec        config.json as it stands                                             (types only)
//! plan        Container: what it comes to; everything refused that can be          (pure)
//! filter      seccomp and device rules as BPF                                      (pure, but for loading)
//! cgroup      the container's control groups on v1, hybrid and v2 hosts
//! rootfs      its mounts: opened outside, attached inside, by descriptors only
//! process     the last steps of a first process and of one of `exec`: one function for both
//! create      the runtime's side of create and run; child: the container's side
//! ahead       namespaces made on the other processor meanwhile; afterwards: let go of there
//! exec        another process in a container
//! console     terminals; supervise: run and exec in the foreground
//! state       the directory of a container, locks, status from the kernel
//! hooks       programs at turns of a container's life
//! verbs       the command line, one file per verb
//! ```
//!
//! Two processes make a container. The runtime (host side) opens everything that the host has to give, makes the control groups, and forks
//! the container's first process straight into new namespaces (clone3). That one builds what only it can build, tells of each turn over a
//! socket pair, and becomes the program; until then it is undumpable, and its executable is a read-only mount of ours that nothing inside can
//! open for writing. Both are single-threaded, so the child is plain Rust after fork. Where the configuration lets it, a helper that shares the runtime's
//! memory makes the network and the mount namespace while the runtime makes the groups, and the child joins them. Whichever dies, the other notices: the runtime by the
//! socket, the child by its parent-death signal and the socket.

pub mod afterwards;
pub mod ahead;
pub mod cgroup;
pub mod channel;
mod child;
pub mod console;
pub mod create;
pub mod exec;
pub mod features;
pub mod filter;
mod global;
pub mod hooks;
mod ids;
mod launcher;
pub mod log;
pub mod namespaces;
mod net_devices;
mod notify;
pub mod plan;
pub mod process;
mod resctrl;
pub mod rootfs;
pub mod shield;
pub mod spec;
pub mod state;
pub mod supervise;
pub(crate) mod verbs;

pub use global::Global;
