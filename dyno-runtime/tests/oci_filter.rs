//! Filters of containers: who is asked, and when.

pub(crate) mod support;
#[allow(dead_code, reason = "shared with another test")]
#[path = "oci_exec/world.rs"]
mod world;

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, ChildStdout, Command, ExitCode, Stdio},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use support::{Stage, same};
use world::{Container, failed, said};

/// The number of getpgid(2), which the agent answers itself.
const GETPGID: &str = if cfg!(target_arch = "x86_64") { "121" } else { "155" };

/// Whoever answers, on its own socket; ended when dropped.
struct Agent {
    child: Child,
    socket: PathBuf,
    lines: BufReader<ChildStdout>,
}

impl Agent {
    fn new(stage: &Stage) -> Result<Self> {
        let socket = stage.work().join(format!("agent-{}", stage.id()));
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oci_filter/agent.py");
        let mut child = Command::new("python3").arg(program).arg(&socket).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no output")?);
        let mut this = Self { child, socket, lines };
        same("agent", this.line()?, "listening\n".into())?;
        Ok(this)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        Ok(line)
    }

    /// The next container process state.
    fn told(&mut self) -> Result<Value> {
        Ok(serde_json::from_str(&self.line()?)?)
    }

    /// Asked about the calls of the last steps before a program too: whoever waits for it must have it by then.
    fn filter(&self) -> Value {
        let names = vec![
            "getpgid",
            "chdir",
            "getcwd",
            "umask",
            "setresuid",
            "setresgid",
            "setgroups",
            "capset",
            "capget",
            "prctl",
            "openat",
            "openat2",
            "newfstatat",
            "statx",
            "faccessat",
            "faccessat2",
            "access",
            "read",
            "ppoll",
            "poll",
            "close",
            "close_range",
            "recvmsg",
            "fcntl",
            "execve",
            "execveat",
            "mmap",
            "munmap",
            "rt_sigprocmask",
            "rt_sigaction",
            "getuid",
            "readlink",
            "readlinkat",
        ];
        json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": self.socket, "listenerMetadata": "whose",
            "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}]})
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).map(drop).unwrap_or_default();
    }
}

fn an_agent_answers(stage: &Stage) -> Result<()> {
    for no_new_privileges in [true, false] {
        let mut agent = Agent::new(stage)?;
        let filter = agent.filter();
        let container = Container::created(stage, &["forever"], |config| {
            config["linux"]["seccomp"] = filter;
            config["process"]["noNewPrivileges"] = no_new_privileges.into();
        })?;
        same("told by create", agent.told()?, json!([["seccompFd"], 1, container.pid, "whose", container.id, "creating"]))?;
        said(container.runtime(&["start", &container.id]))?;
        let answer = container.exec(&[], &["call", GETPGID, "0"]).output()?;
        let told = agent.told()?;
        same("told by exec", json!([told[0], told[1], told[3], told[4], told[5]]), json!([["seccompFd"], 1, "whose", container.id, "running"]))?;
        same("its answer", String::from_utf8(answer.stdout)?, "errno 28\n".into())?;
    }
    Ok(())
}

fn nobody_listens(stage: &Stage) -> Result<()> {
    let container = Container::bundle(stage, &["forever"], |config| {
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": stage.work().join("nobody"),
            "syscalls": [{"names": ["getpgid"], "action": "SCMP_ACT_NOTIFY"}]});
    })?;
    let (status, complaint) = failed(container.run(&[]))?;
    same("status", status, 1)?;
    same("complaint", complaint.contains("connect(") && complaint.to_lowercase().contains("no such file or directory"), true)
}

/// Installed with and without no_new_privs; what the kernel says of the program.
fn with_and_without_new_privileges(stage: &Stage) -> Result<()> {
    for no_new_privileges in [true, false] {
        let container = Container::start(stage, |config| config["process"]["noNewPrivileges"] = no_new_privileges.into())?;
        for pid in [container.pid.to_string(), "self".to_owned()] {
            let status = match pid.as_str() {
                "self" => said(container.exec(&[], &["read", "/proc/self/status"]))?,
                pid => std::fs::read_to_string(format!("/proc/{pid}/status"))?,
            };
            let lines: Vec<&str> =
                status.lines().filter(|line| ["NoNewPrivs", "Seccomp:", "Seccomp_f"].iter().any(|name| line.starts_with(name))).collect();
            let privileges = format!("NoNewPrivs:\t{}", u8::from(no_new_privileges));
            same(&pid, lines, vec![privileges.as_str(), "Seccomp:\t2", "Seccomp_filters:\t1"])?;
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let cases: &[support::Case] = &[
        ("an_agent_answers", an_agent_answers),
        ("nobody_listens", nobody_listens),
        ("with_and_without_new_privileges", with_and_without_new_privileges),
    ];
    support::suite("oci-filter", &["python3"], cases)
}
