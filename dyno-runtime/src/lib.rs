//! Fast, fully isolated process sandboxes for Linux.
mod error;
pub mod seccomp;
pub mod spec;
mod sys;
pub use error::{Error, ErrorKind, Result};
pub use spec::*;
