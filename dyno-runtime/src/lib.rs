//! Fast, fully isolated process sandboxes for Linux.
pub mod spec;
pub use spec::*;
