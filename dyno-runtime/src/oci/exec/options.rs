//! What `exec` is asked for, and what that makes of the container's own process.

use std::path::{Path, PathBuf};

use crate::{
    error::{Error, ErrorKind, Result},
    oci::{plan, spec},
};

/// What `exec` is asked for. What is absent is as the container's own process has it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Of the container; not checked yet.
    pub id: String,
    /// `--process`: a file with a process of `config.json`, which holds instead of the options about the process.
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
    /// `--no-subreaper`. A process of `exec` leaves its orphans to the container's first one in any case.
    pub no_subreaper: bool,
}

fn invalid(message: impl Into<String>) -> Error {
    Error::refused(ErrorKind::Invalid, message)
}

impl Request {
    /// Whether the terminal has somewhere to go.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`].
    pub fn terminal_fits(&self, terminal: bool) -> Result<()> {
        match (terminal && self.detach, self.console_socket.is_some()) {
            (true, false) => Err(invalid("cannot allocate tty if the runtime will detach without setting console socket: give --console-socket")),
            (false, true) => Err(invalid("cannot use console socket if the runtime will not detach or allocate tty")),
            _ => Ok(()),
        }
    }

    /// The process: that of the file, or that of the container with what the options change.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a file that is no `process`, or that cannot be read.
    pub fn process(&self, of_container: Option<&spec::Process>) -> Result<spec::Process> {
        match &self.process {
            Some(path) => Ok(with_defaults(read(path)?, of_container)),
            None if self.args.is_empty() => Err(invalid("process args cannot be empty: exec takes a program, or --process FILE")),
            None => Ok(self.changed(of_container.cloned().unwrap_or_else(|| spec::Process { cwd: "/".into(), ..Default::default() }))),
        }
    }

    fn changed(&self, mut process: spec::Process) -> spec::Process {
        process.args.clone_from(&self.args);
        process.env.extend(self.env.iter().cloned());
        // Whatever the container's own has.
        process.terminal = self.tty;
        process.console_size = None;
        if let Some(cwd) = &self.cwd {
            process.cwd.clone_from(cwd);
        }
        if let Some((uid, gid)) = self.user {
            process.user.uid = uid;
            process.user.gid = gid.unwrap_or(process.user.gid);
        }
        process.user.additional_gids.extend(&self.additional_gids);
        if !self.capabilities.is_empty() {
            add(process.capabilities.get_or_insert_default(), &self.capabilities.iter().map(|name| capability(name)).collect::<Vec<_>>());
        }
        process.no_new_privileges = self.no_new_privs.unwrap_or(process.no_new_privileges);
        process.apparmor_profile = self.apparmor.clone().or(process.apparmor_profile);
        process.selinux_label = self.process_label.clone().or(process.selinux_label);
        process
    }
}

fn capability(name: &str) -> String {
    let name = name.to_uppercase();
    if name.starts_with("CAP_") { name } else { format!("CAP_{name}") }
}

/// An inheritable capability is kept by the exec of files that ask for it, whoever runs them: `exec` adds none there (CVE-2022-29162), and
/// ambient ones, which need it, only where the container has some already.
fn add(to: &mut spec::Capabilities, names: &[String]) {
    for set in [&mut to.bounding, &mut to.effective, &mut to.permitted] {
        set.extend(names.iter().cloned());
    }
    if !to.inheritable.is_empty() {
        to.ambient.extend(names.iter().filter(|name| to.inheritable.contains(name)).cloned());
    }
}

/// What the file leaves out and a process must not be without because of that is the container's.
fn with_defaults(mut process: spec::Process, of_container: Option<&spec::Process>) -> spec::Process {
    let Some(own) = of_container else { return process };
    process.capabilities = process.capabilities.or_else(|| own.capabilities.clone());
    process.apparmor_profile = process.apparmor_profile.or_else(|| own.apparmor_profile.clone());
    process.selinux_label = process.selinux_label.or_else(|| own.selinux_label.clone());
    process.oom_score_adj = process.oom_score_adj.or(own.oom_score_adj);
    process.scheduler = process.scheduler.or_else(|| own.scheduler.clone());
    process.io_priority = process.io_priority.or_else(|| own.io_priority.clone());
    process.exec_cpu_affinity = process.exec_cpu_affinity.or_else(|| own.exec_cpu_affinity.clone());
    if process.rlimits.is_empty() {
        process.rlimits.clone_from(&own.rlimits);
    }
    process
}

fn read(path: &Path) -> Result<spec::Process> {
    spec::read(path).map_err(|e| invalid(format!("--process: {e}")))
}

/// Lowers it, as `create` does.
///
/// # Errors
/// As [`plan::Process::new`].
pub(super) fn lower(process: &spec::Process) -> Result<plan::Process> {
    let (process, warnings) = plan::Process::new(process)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(process)
}
