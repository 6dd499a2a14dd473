//! `exec`: another process in a container.

use std::path::PathBuf;

use super::Global;
use crate::{Error, ErrorKind, Result};

/// What `exec` is asked for. What is absent is as the container's own process has it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Of the container; not checked yet.
    pub id: String,
    /// `--process`: a file with a process of `config.json`; options come on top.
    pub process: Option<PathBuf>,
    /// Program and arguments; empty with `process`.
    pub args: Vec<String>,
    /// `--cwd`.
    pub cwd: Option<PathBuf>,
    /// `--env`, `NAME=VALUE`.
    pub env: Vec<String>,
    /// `--user`: uid and, after a colon, gid.
    pub user: Option<(u32, Option<u32>)>,
    /// `--additional-gids`.
    pub additional_gids: Vec<u32>,
    /// `--cap`, with or without `CAP_`.
    pub capabilities: Vec<String>,
    /// `--tty`.
    pub tty: bool,
    /// `--detach`.
    pub detach: bool,
    /// `--pid-file`.
    pub pid_file: Option<PathBuf>,
    /// `--console-socket`.
    pub console_socket: Option<PathBuf>,
    /// `--pidfd-socket`.
    pub pidfd_socket: Option<PathBuf>,
    /// `--process-label`: of SELinux.
    pub process_label: Option<String>,
    /// `--apparmor`.
    pub apparmor: Option<String>,
    /// `--no-new-privs`.
    pub no_new_privs: Option<bool>,
    /// `--preserve-fds`.
    pub preserve_fds: u32,
    /// `--cgroup`: controllers (none: all) and a group below the container's.
    pub cgroups: Vec<(Vec<String>, PathBuf)>,
    /// `--ignore-paused`.
    pub ignore_paused: bool,
    /// `--no-subreaper`.
    pub no_subreaper: bool,
}

/// Runs a process in a container; its exit status, or 0 once it runs with `detach`.
///
/// # Errors
/// When it does not come to run.
pub fn exec(_global: &Global, _request: Request) -> Result<u8> {
    Err(Error::refused(ErrorKind::Io, "exec: not there yet"))
}
