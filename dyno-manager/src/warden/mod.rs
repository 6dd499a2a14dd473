//! The privileged half and the way to talk to it.
//!
//! The warden is the only process that calls dyno-runtime. dynod sends it few, typed requests
//! over a unix socket and receives file descriptors back (SCM_RIGHTS). It parses no tenant bytes.

use std::{net::SocketAddr, os::fd::OwnedFd};

use dyno_runtime::Sandbox;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::Exit;

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

/// dynod's side of the connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {}

#[allow(clippy::unused_async)]
impl Client {
    /// Starts a dyno; returns once the app's exec is done.
    pub async fn start(&self, _launch: &Launch) -> Result<Started, WardenError> {
        unreachable!()
    }

    /// Dynos that the warden holds, running or waiting to be collected.
    pub async fn list(&self) -> Result<Vec<Held>, WardenError> {
        unreachable!()
    }

    /// Takes up a dyno of [`Self::list`] again.
    pub async fn open(&self, _id: Uuid) -> Result<Started, WardenError> {
        unreachable!()
    }

    /// Sends `signal` to every process of the dyno (SIGKILL ends it at once).
    pub async fn signal(&self, _id: Uuid, _signal: i32) -> Result<(), WardenError> {
        unreachable!()
    }

    /// An unconnected TCP socket inside the dyno's network namespace.
    pub async fn socket(&self, _id: Uuid) -> Result<OwnedFd, WardenError> {
        unreachable!()
    }

    /// How an ended dyno ended. Its writable layer stays readable (`Layer::UpperOf`) until [`Self::free`].
    pub async fn exit(&self, _id: Uuid) -> Result<Exit, WardenError> {
        unreachable!()
    }

    /// Frees everything of an ended dyno; kills it first if it runs. Freeing an unknown dyno succeeds.
    pub async fn free(&self, _id: Uuid) -> Result<(), WardenError> {
        unreachable!()
    }

    /// A TCP stream to `port` on the dyno's loopback.
    pub async fn connect(&self, _id: Uuid, _port: u16) -> std::io::Result<tokio::net::TcpStream> {
        let _: Option<SocketAddr> = None;
        unreachable!()
    }
}
