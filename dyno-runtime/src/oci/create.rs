//! `create`: the runtime's side.

use std::{
    os::fd::OwnedFd,
    path::PathBuf,
};

use super::{Global, state::{Held, Record}};
use crate::{Error, ErrorKind, Result};

/// What `create` and `run` are asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Of the container; not checked yet.
    pub id: String,
    /// As given; the working directory unless it is.
    pub bundle: PathBuf,
    /// Another configuration than `config.json` of the bundle (crun's `--config`).
    pub config: Option<PathBuf>,
    /// Gets the number of the first process.
    pub pid_file: Option<PathBuf>,
    /// Gets the terminal's master end.
    pub console_socket: Option<PathBuf>,
    /// Gets the first process's pidfd.
    pub pidfd_socket: Option<PathBuf>,
    /// The root is moved to `/` instead of pivoted to.
    pub no_pivot: bool,
    /// The caller's session keyring is kept.
    pub no_new_keyring: bool,
    /// How many descriptors after the first three (and those of LISTEN_FDS) the program gets.
    pub preserve_fds: u32,
    /// `run`: the program is followed to its end, with this process's own terminal if it has one.
    pub foreground: bool,
    /// `run`: orphans of the container are not taken for children.
    pub no_subreaper: bool,
}

/// A container that waits for `start`.
#[derive(Debug)]
pub struct Created {
    /// Locked still.
    pub held: Held,
    /// As it was written.
    pub record: Record,
    /// Of the first process, our child.
    pub pidfd: OwnedFd,
    /// The master end of its terminal, where there is one that nobody else was given.
    pub console: Option<OwnedFd>,
}

/// Makes a container.
///
/// # Errors
/// Whatever was made is gone again.
pub fn create(_global: &Global, _request: Request) -> Result<Created> {
    Err(Error::refused(ErrorKind::Io, "create: not there yet"))
}
