//! Programs that people run containers with, each started here with the runtime under test and stopped again.
//!
//! A suite is written against a [`Client`]: podman, containerd, or the docker engine, with all that it keeps below one temporary directory, and
//! its control groups below one name. `DYNO_OCI_RUNTIME` names the runtime; Debian's runc is what the suites were first made to pass with, so
//! that a failing case is the runtime's fault and not the case's. What a host cannot do is printed as `skipped: reason`.

mod desk;
mod engine;
mod grpc;
mod image;
mod kernel;
mod suite;

pub use desk::{Daemon, Desk, Sayings, path_of, private, started, tail};
pub use engine::Engine;
pub use grpc::{Message, call};
pub use kernel::{Group, field, group, mount_options, status};
pub use suite::{Case, Client, Outcome, run, skip};
