//! The privileged half and the way to talk to it.
//!
//! The warden is the only process that calls dyno-runtime. dynod sends it few, typed requests
//! over a unix socket and receives file descriptors back (SCM_RIGHTS). It parses no tenant bytes.

mod client;
mod ended;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod held;
mod server;
mod wire;

use std::os::fd::OwnedFd;

use dyno_runtime::Sandbox;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::Exit;

pub use client::{Client, answers};
pub use ended::ended;
pub(crate) use server::raise_open_files;
pub use server::{Settings, serve};

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Identity of the dyno; a directory of this name keeps its record.
    pub id: Uuid,
    /// Opaque to the warden; given back by [`Client::list`] after a restart of dynod.
    pub meta: serde_json::Value,
    /// The sandbox.
    pub sandbox: Sandbox,
    /// Where its standard streams go.
    pub stdio: Stdio,
    /// TCP ports on the dyno's own loopback on which dynod listens (made before the process starts).
    pub listen: Vec<u16>,
    /// Another dyno whose id range this one shares (a packing dyno shares its build's).
    pub lease_of: Option<Uuid>,
    /// An unconnected TCP socket inside the dyno's network comes with the answer.
    #[serde(default)]
    pub socket: bool,
    /// Keep what it writes readable after its end ([`dyno_runtime::Layer::UpperOf`]), until it is freed.
    #[serde(default)]
    pub keep_upper: bool,
}

/// Where the standard streams of a dyno go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stdio {
    /// Lossy, bounded, survives dynod: framed records on a FIFO (see `dyno_runtime::log`). stdin is /dev/null.
    Log,
    /// Three pipes.
    Pipes,
    /// A pseudo-terminal of the dyno's own.
    Tty {
        /// Lines.
        rows: u16,
        /// Columns.
        cols: u16,
    },
}

/// A started (or adopted) dyno: what dynod needs to follow it.
#[derive(Debug)]
pub struct Started {
    /// Readable once the dyno has ended.
    pub pidfd: OwnedFd,
    /// Host pid of its init, for display only.
    pub pid: u32,
    /// By [`Stdio`].
    pub stdio: StdioFds,
    /// One listening TCP socket per port of [`Launch::listen`].
    pub listeners: Vec<OwnedFd>,
    /// As asked for by [`Launch::socket`].
    pub socket: Option<OwnedFd>,
}

/// dynod's ends of a dyno's standard streams.
#[derive(Debug)]
pub enum StdioFds {
    /// Read end of the log FIFO, non-blocking.
    Log(OwnedFd),
    /// The platform's ends of the three pipes.
    Pipes {
        /// Write here.
        stdin: OwnedFd,
        /// Read here.
        stdout: OwnedFd,
        /// Read here.
        stderr: OwnedFd,
    },
    /// Master side of the terminal.
    Tty(OwnedFd),
    /// An adopted dyno whose streams went with the former daemon.
    Gone,
}

/// A dyno that the warden holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// Identity.
    pub id: Uuid,
    /// As given at launch.
    pub meta: serde_json::Value,
    /// Host pid of its init.
    pub pid: u32,
    /// False once it has ended and waits to be collected.
    pub running: bool,
}

/// A refusal by the warden, in one line that names what, where and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct WardenError {
    /// For programs: `image` (slug missing or corrupt: R17), `sandbox` (a wall could not be raised), `unknown` (no such dyno), `io`.
    pub kind: String,
    /// For people.
    pub message: String,
}

impl WardenError {
    fn new(kind: &str, message: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), message: message.into() }
    }

    fn io(what: &str, error: &std::io::Error) -> Self {
        Self::new("io", format!("{what}: {error}"))
    }
}

/// What dynod asks. Few verbs, no tenant bytes that need parsing.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Start(Box<Launch>),
    List,
    Open(Uuid),
    Signal { id: Uuid, signal: i32 },
    Socket(Uuid),
    Exit(Uuid),
    Free(Uuid),
    Park { sandbox: Box<Sandbox>, count: usize },
    ParkNone,
    Shutdown,
}

/// What the warden answers; descriptors come beside it, in the order in which they are named.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    /// pidfd, stream ends by `streams`, then `listeners` sockets, then an unconnected one if there is one.
    Started {
        pid: u32,
        streams: StreamKind,
        listeners: usize,
        socket: bool,
    },
    Held(Vec<Held>),
    /// One socket.
    Socket,
    Exit(Exit),
    Done,
    Failed(WardenError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StreamKind {
    Log,
    Pipes,
    Tty,
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A verb more does not compile until somebody has thought of it here, and in the page.
    fn verb(request: &Request) -> &'static str {
        match request {
            Request::Start(_) => "start",
            Request::List => "list",
            Request::Open(_) => "open",
            Request::Signal { .. } => "signal",
            Request::Socket(_) => "socket",
            Request::Exit(_) => "exit",
            Request::Free(_) => "free",
            Request::Park { .. } => "park",
            Request::ParkNone => "park_none",
            Request::Shutdown => "shutdown",
        }
    }

    #[test]
    fn the_page_names_every_verb() {
        let (id, sandbox) = (Uuid::nil(), Sandbox::new(Vec::new(), ["true"]));
        let launch = Launch {
            id,
            meta: serde_json::Value::Null,
            sandbox: sandbox.clone(),
            stdio: Stdio::Log,
            listen: Vec::new(),
            lease_of: None,
            socket: false,
            keep_upper: false,
        };
        let park = Request::Park { sandbox: Box::new(sandbox), count: 1 };
        let with_id = [Request::Open(id), Request::Socket(id), Request::Exit(id), Request::Free(id), Request::Signal { id, signal: 15 }];
        let all = with_id.into_iter().chain([Request::Start(Box::new(launch)), park, Request::List, Request::ParkNone, Request::Shutdown]);
        let (_, page) = include_str!("../../../docs/threat-model.md").split_once("Ten verbs:").unwrap();
        let (table, _) = page.split_once("What bytes it reads").unwrap();
        let rows = table.lines().filter(|line| line.starts_with("| `")).count();
        let named = all.inspect(|request| {
            let name = verb(request);
            assert!(serde_json::to_string(request).unwrap().contains(&format!("\"{name}\"")), "{request:?}");
            assert!(table.contains(&format!("| `{name}` |")), "{name} is not in the page");
        });
        assert_eq!(named.count(), rows);
    }
}
