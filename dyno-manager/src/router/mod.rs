//! HTTP in, dynos out: finds the app by host name, picks one of its web dynos and relays one exchange.
//!
//! The router knows apps only through its [`Table`], which the supervisor rewrites at every change of state, and
//! reaches dynos only through [`Dial`]. It decides nothing about dynos: a dyno that refuses connections is avoided for
//! some seconds, never ended. Bodies stream in both directions and are never held whole. Every exchange of a known app
//! ends in exactly one log line (`line::Ticket`), however it ends.
//!
//! ```text
//!   head read ─▶ host known? ─▶ target? ──Booting──▶ wait for a change (H20) ─┐
//!      │ H26        │ 404         │ H80 H81 H14 H10      ◀────────────────────┘
//!      ▼            ▼             ▼ Up
//!   refused      refused      (Asleep: the supervisor is told, then as Booting)
//!                             pick of two (H11) ─▶ idle connection, or dial (H19, H21: next dyno)
//!                                 │
//!                                 ▼ send     (a stale idle connection: once more on a new one)
//!                              first byte (H12, H13, H17, H27, H28)
//!                                 ├── 101 ──▶ splice both ways until an end, or quiet (H15)
//!                                 ▼
//!                              relay (H15, H18, H27, H28) ─▶ connection back to the dyno's idle list
//! ```

mod body;
mod client;
mod code;
mod connect;
mod dyno;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod headers;
mod line;
mod pages;
mod pool;
mod progress;
mod proxy;
mod serve;
mod settings;
mod table;
#[cfg(test)]
mod tests;
mod upgrade;

use std::io;

use futures_util::future::BoxFuture;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::model::DynoId;

pub use serve::serve;
pub use settings::Settings;
pub use table::{AppRoute, Backend, Table, Target};

/// How to reach the web port of a dyno; the router does not know where dynos live.
pub trait Dial: Send + Sync + 'static {
    /// A new TCP stream to the `$PORT` of `dyno`. `ConnectionRefused` when nothing listens there.
    fn dial(&self, dyno: DynoId) -> BoxFuture<'_, io::Result<TcpStream>>;

    /// Has the dynos of `app`, which sleeps, started; the table tells of them.
    fn wake(&self, app: Uuid);
}
