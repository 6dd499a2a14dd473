//! What the black-box suites share: a platform of their own on this host, and the leak check.
//!
//! A suite is a program without libtest: it starts one [`Platform`], runs its cases against it (libtest-mimic prints them as
//! cargo's users expect), stops it, and then [`leaks`] compares the host with what it was before. The
//! programs under test come from `DYNO_BIN_DYNOD` and `DYNO_BIN_DYNO`, the images from `DYNO_STACK` and
//! `DYNO_BUILDPACKS`; without them, or without root, every case is reported as `skipped: reason`.

mod api;
pub mod clients;
pub mod confinement;
pub mod http;
mod kernel;
pub mod leaks;
mod platform;
mod samples;
mod source;
mod suite;
pub mod tail;
pub mod terminal;

pub use api::{Answer, Built};
pub use kernel::{Process, Seen, until};
pub use platform::{Platform, Said};
pub use samples::{sample, tiny};
pub use source::{WEB, inline, source};
pub use suite::{Case, run};
