//! The process manager of the platform: apps, releases, formations and the dynos that run them.
//!
//! Data flows one way: request → [`model`] → [`store`] → event → [`schedule::step`] → actions →
//! [`supervise`] and [`build`] → events. Nothing but `schedule` decides, nothing but `store`
//! remembers, and what is running is read from the kernel (through [`warden`]), never from memory
//! of past events. A build is a dyno: it goes through the same warden verb as a web process.

pub mod api;
pub mod attach;
pub mod build;
pub mod cli;
pub mod daemon;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod logs;
pub mod model;
pub mod platform;
mod printable;
mod ready;
pub mod router;
pub mod schedule;
pub mod store;
pub mod supervise;
pub mod warden;
