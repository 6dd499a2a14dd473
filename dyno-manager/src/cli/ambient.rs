//! What a command finds around it: environment, directory, clock, time zone, standard input. Read once at
//! the edge, so that everything else is a function of it.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Read},
    path::PathBuf,
    thread,
};

use bytes::Bytes;
use jiff::{Timestamp, tz::TimeZone};
use tokio::sync::mpsc;

use super::error::{CliError, Result};

/// Bytes of standard input per frame.
const CHUNK: usize = 16 * 1024;

/// The surroundings of one command.
pub(super) struct Ambient {
    /// Environment variables.
    pub(super) vars: BTreeMap<String, String>,
    /// The current directory.
    pub(super) directory: PathBuf,
    /// The user's time zone.
    pub(super) zone: TimeZone,
    /// The time; a fixed one in tests.
    pub(super) clock: fn() -> Timestamp,
    /// Standard input and output are both a terminal.
    pub(super) terminal: bool,
    /// Standard input; taken by the first reader.
    pub(super) input: Option<mpsc::Receiver<Bytes>>,
}

impl Ambient {
    /// The process's own.
    pub(super) fn own() -> Result<Self> {
        let directory = std::env::current_dir().map_err(|e| CliError::new(format!("The current directory cannot be read: {e}")))?;
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Ok(Self {
            vars: std::env::vars_os().filter_map(text).collect(),
            directory,
            zone: TimeZone::system(),
            clock: Timestamp::now,
            terminal: io::stdin().is_terminal() && io::stdout().is_terminal(),
            input: None,
        })
    }

    /// An environment variable; an empty one counts as unset.
    pub(super) fn var(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The time now.
    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Chunks of standard input; the channel closes at its end.
    pub(super) fn take_input(&mut self) -> mpsc::Receiver<Bytes> {
        self.input.take().unwrap_or_else(read_stdin)
    }
}

/// A thread of its own, not one of the runtime's: a read of a terminal cannot be cancelled, and nothing may
/// wait for it when the command ends.
fn read_stdin() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(4);
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        let mut stdin = io::stdin().lock();
        loop {
            match stdin.read(&mut buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // An input that cannot be read (a terminal that hung up) ends like one that is over.
                Ok(0) | Err(_) => break,
                Ok(n) => {
                    if sender.blocking_send(Bytes::copy_from_slice(&buffer[..n])).is_err() {
                        break;
                    }
                }
            }
        }
    });
    receiver
}
